/*
 * Where records are written, as the supervisor says it. The other processes can read it and no
 * more: in none of them can that memory be mapped for writing, so one that was taken over cannot
 * send the records of the rest to another file.
 */
#ifndef TRAIL_PLACE_H
#define TRAIL_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

struct place_page;

struct place {
    struct place_page *own;       /* the opener's; its children have nothing at that address */
    const struct place_page *all; /* the same for whoever may only read it */
    pid_t opener;
};

/* For this process and those that it forks from now on; records go nowhere yet. -1 and errno. */
int place_open(struct place *out);

/* Harmless on what is zero. */
void place_close(struct place *place);

/* The opener's: from now on records go to the file with this number; */
void place_set(struct place *place, dev_t dev, ino_t ino);
/* they go nowhere, as that file has ended; */
void place_end(struct place *place);
/* this errno says why there is no next one, while there is none. */
void place_set_error(struct place *place, int error);

/* Whether records go anywhere; the opener's word for it. */
bool place_is_open(const struct place *place);

/* 0 or an errno: why records go nowhere; EAGAIN when the opener is about to go on. */
int place_error(const struct place *place);

/* The file that records go to, or went to until it ended. */
void place_get(const struct place *place, dev_t *dev, ino_t *ino);
bool place_is(const struct place *place, dev_t dev, ino_t ino);

#endif
