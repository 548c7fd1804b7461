/*
 * The head of the chain: where it stands after its last record. It lies in a mapped file of
 * state_dir that all processes share, so that it outlives each of them and, as long as the host
 * runs, all of them. A process may die between any two instructions: a head is written beside the
 * one in force and then switched. What workers write here is not trusted by the supervisor.
 */
#ifndef TRAIL_HEAD_H
#define TRAIL_HEAD_H

#include "base/boot.h"
#include "base/fault.h"
#include "trail/chain.h"

#include <stdbool.h>
#include <stdint.h>

enum { HEAD_STOPPED = 1 /* the last record seals a clean stop */ };

struct head {
    uint64_t next_seq;
    uint64_t epoch; /* of the key that makes the next seal */
    uint64_t from;  /* the first record that no seal covers */
    uint64_t dev;   /* the file that the last record is in */
    uint64_t ino;
    uint64_t flags;
    unsigned char hash[CHAIN_HASH_BYTES]; /* of the last record */
};

struct head_page;

struct head_file {
    struct head_page *page;
    int fd; /* -1 where it is only mapped */
};

/*
 * Maps `<state_dir>/audit.head`, or makes it; only its owner may have access. It is locked (flock)
 * as long as any process that inherited it lives: a second daemon is refused.
 */
int head_open(const char *state_dir, struct head_file *out, struct fault *fault);

/* In a child: closes the descriptor, so that it can do nothing to the lock, which lives as long as
 * any process has the head mapped. */
void head_part(struct head_file *file);

/* Harmless when nothing is open. */
void head_close(struct head_file *file);

/* A copy of the head in force. */
struct head head_get(const struct head_file *file);

/* Switches to `head`; only under the chain's lock. */
void head_set(struct head_file *file, const struct head *head);

/* Whether the file of the trail may hold bytes that the head does not know. */
bool head_is_dirty(const struct head_file *file);
void head_dirty_set(struct head_file *file, bool dirty);

/* Whether the head is known to be of this chain; `chain` gets its id. False: it says nothing. */
bool head_chain(const struct head_file *file, char chain[17]);

/* Whether the head was last used since the host started: only then is it surely the newest. */
bool head_is_of_boot(const struct head_file *file, const char *boot);

/* Says of what chain, and since which start of the host, the head is. */
void head_claim(struct head_file *file, const char *chain, const char *boot);

#endif
