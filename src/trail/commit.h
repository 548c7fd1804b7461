/*
 * Group commit: what the threads of one process want written and on the disk, one of them writes
 * and syncs for all that have come, and the others sleep until it is done. Who comes meanwhile is
 * in the next group.
 */
#ifndef TRAIL_COMMIT_H
#define TRAIL_COMMIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* What one thread wants written; the first member of whatever tells what that is. */
struct commit_part {
    struct commit_part *next; /* the one that came after it; of the last, NULL */
};

struct commit {
    pthread_mutex_t coming; /* guards these three; nothing is called under it */
    struct commit_part *first;
    struct commit_part **end;
    uint32_t forming;      /* what `turn` will be when the group that forms now has ended */
    _Atomic uint32_t turn; /* twice the number of groups that have ended; odd: one is led */
};

void commit_init(struct commit *commit);

/*
 * Returns when `write` was called for `part`, by this thread or by another, and has returned. It is
 * called with `arg` and the parts of a group, in the order in which they came, by one thread at a
 * time, and leaves in them what became of each. All threads of a commit give the same two.
 */
void commit_do(struct commit *commit, struct commit_part *part,
               void (*write)(void *arg, struct commit_part *first), void *arg);

#endif
