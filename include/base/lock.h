/*
 * A lock of all processes, in shared memory: it survives the death of whoever holds it, is waited
 * for a second at most, and can tell who has held it for too long. Any of the processes may have
 * been taken over: what it writes there can keep the others out, and no more. So there is no
 * pointer in it, which a robust pthread mutex would have.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/* Zeroed shared memory is a lock that is free. */
struct lock {
    _Atomic uint32_t word;  /* a futex: 0, or the holder's thread id, and the kernel's bits */
    _Atomic uint32_t turns; /* tells one holder from the next */
    _Atomic uint64_t stuck; /* word and turns of a holder that somebody waited for in vain */
};

/*
 * Waits a second at most. After a holder's death the lock is the next one's, who must be able to
 * live with what was left half done. A thread holds one lock at a time. -1 and errno: ETIMEDOUT,
 * EDEADLK if the thread holds one already.
 */
int lock_take(struct lock *lock);

/* -1 and errno: the lock is not the caller's. */
int lock_give(struct lock *lock);

/*
 * The thread that has held the lock for over a second while another waited for it in vain, or 0;
 * each such wait is told of once.
 */
pid_t lock_stuck_holder(struct lock *lock);

/* Takes the lock from `thread`, which is known to be gone, or never to have been. */
void lock_break(struct lock *lock, pid_t thread);

#endif
