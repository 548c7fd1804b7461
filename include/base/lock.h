/*
 * A lock of all processes, in shared memory: it survives the death of whoever holds it, is waited
 * for a second at most, and can tell who has held it for too long.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

struct lock {
    pthread_mutex_t mutex;
    _Atomic uint64_t holder; /* pid << 32 | turn */
    _Atomic uint64_t stuck;  /* the holder that somebody waited for in vain */
    uint32_t turns;          /* under the mutex */
};

/* Makes a lock in zeroed memory that processes share, before they are forked; -1 and errno. */
int lock_init(struct lock *lock);

/*
 * Waits a second at most; `*turn` is for the release. After a holder's death the lock is the next
 * one's, who must be able to live with what was left half done. -1 and errno, ETIMEDOUT among them.
 */
int lock_take(struct lock *lock, uint64_t *turn);

/* -1 and errno: the lock is not the caller's. */
int lock_give(struct lock *lock, uint64_t turn);

/*
 * A process that has held the lock for over a second while another waited for it in vain, or 0;
 * each such wait is told of once. Processes that share the lock can write what this reads.
 */
pid_t lock_stuck_holder(struct lock *lock);

#endif
