/*
 * Group commit: of the threads of one process that have written and must not go on before it is on
 * the disk, one syncs for all that wrote before it began, and the others wait for it.
 */
#ifndef TRAIL_COMMIT_H
#define TRAIL_COMMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct commit {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    uint64_t asked;  /* threads that have come so far, each with its number */
    uint64_t synced; /* up to this one */
    bool busy;       /* somebody syncs */
};

/* -1 when there is no memory. */
int commit_open(struct commit *commit);

/* Nobody may wait any more. */
void commit_close(struct commit *commit);

/*
 * Returns when a sync that began after the call has ended; whether it went well is for `sync`,
 * which is called with `arg` by one thread at a time, to leave somewhere.
 */
void commit_wait(struct commit *commit, void (*sync)(void *arg), void *arg);

#endif
