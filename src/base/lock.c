#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_S = 1 };

/*
 * What the kernel looks at when this thread dies: the list is empty for ever, and the one pending
 * entry is the lock that the thread wants or holds. glibc's list, which it replaces, would be for
 * robust pthread mutexes; there are none here.
 */
static _Thread_local struct robust_list_head robust;
static _Thread_local pid_t registered; /* the thread that said so; a child of fork has not */

static int register_thread(pid_t self)
{
    if (registered == self) {
        return 0;
    }
    robust.list.next = &robust.list;
    robust.futex_offset = 0;
    robust.list_op_pending = NULL;
    if (syscall(SYS_set_robust_list, &robust, sizeof robust) != 0) {
        return -1;
    }
    registered = self;
    return 0;
}

/* The kernel may look at any moment, and reads what this thread has written. */
static void set_pending(struct lock *lock)
{
    atomic_signal_fence(memory_order_seq_cst);
    robust.list_op_pending = (struct robust_list *)(void *)lock; /* its first member */
    atomic_signal_fence(memory_order_seq_cst);
}

_Static_assert(offsetof(struct lock, word) == 0, "the kernel is shown the lock's address");

static void wake_one(struct lock *lock)
{
    (void)syscall(SYS_futex, &lock->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Takes what is free, or was a dead thread's; `waiters`: others may wait, too. */
static bool try_take(struct lock *lock, uint32_t *seen, pid_t self, uint32_t waiters)
{
    *seen = atomic_load(&lock->word);
    while ((*seen & FUTEX_TID_MASK) == 0) {
        const uint32_t mine = (uint32_t)self | waiters | (*seen & FUTEX_WAITERS);
        if (atomic_compare_exchange_weak(&lock->word, seen, mine)) {
            return true;
        }
    }
    return false;
}

static int wait_for(struct lock *lock, pid_t self)
{
    struct timespec until = {0};
    const uint32_t holder = atomic_load(&lock->word) & FUTEX_TID_MASK;
    const uint32_t turn = atomic_load(&lock->turns);
    uint32_t seen = 0;
    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail with this clock */
    until.tv_sec += WAIT_S;
    while (!try_take(lock, &seen, self, FUTEX_WAITERS)) {
        if ((seen & FUTEX_WAITERS) == 0 &&
            !atomic_compare_exchange_strong(&lock->word, &seen, seen | FUTEX_WAITERS)) {
            continue;
        }
        if (syscall(SYS_futex, &lock->word, FUTEX_WAIT_BITSET, seen | FUTEX_WAITERS, &until, NULL,
                    FUTEX_BITSET_MATCH_ANY) != 0 &&
            errno == ETIMEDOUT) {
            if (holder != 0 && (seen & FUTEX_TID_MASK) == holder &&
                atomic_load(&lock->turns) == turn) {
                atomic_store(&lock->stuck, (uint64_t)holder << 32 | turn);
            }
            errno = ETIMEDOUT;
            return -1;
        }
    }
    return 0;
}

int lock_take(struct lock *lock)
{
    const pid_t self = gettid();
    uint32_t seen = 0;
    if (register_thread(self) != 0) {
        return -1;
    }
    if (robust.list_op_pending != NULL) {
        errno = EDEADLK;
        return -1;
    }
    set_pending(lock);
    if (!try_take(lock, &seen, self, 0) && wait_for(lock, self) != 0) {
        set_pending(NULL);
        errno = ETIMEDOUT;
        return -1;
    }
    (void)atomic_fetch_add(&lock->turns, 1);
    return 0;
}

int lock_give(struct lock *lock)
{
    uint32_t word = atomic_load(&lock->word);
    bool ours = (word & FUTEX_TID_MASK) == (uint32_t)gettid();
    while (ours && !atomic_compare_exchange_weak(&lock->word, &word, 0)) {
        ours = (word & FUTEX_TID_MASK) == (uint32_t)gettid();
    }
    if (ours && (word & FUTEX_WAITERS) != 0) {
        wake_one(lock);
    }
    if (robust.list_op_pending == (struct robust_list *)(void *)lock) {
        set_pending(NULL);
    }
    errno = ours ? 0 : EPERM;
    return ours ? 0 : -1;
}

pid_t lock_stuck_holder(struct lock *lock)
{
    const uint64_t stuck = atomic_exchange(&lock->stuck, 0);
    const uint32_t holder = (uint32_t)(stuck >> 32);
    return holder != 0 && holder == (atomic_load(&lock->word) & FUTEX_TID_MASK) &&
                   (uint32_t)stuck == atomic_load(&lock->turns)
               ? (pid_t)holder
               : 0;
}

void lock_break(struct lock *lock, pid_t thread)
{
    uint32_t word = atomic_load(&lock->word);
    while ((word & FUTEX_TID_MASK) == (uint32_t)thread) {
        if (atomic_compare_exchange_weak(&lock->word, &word,
                                         (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED)) {
            wake_one(lock);
            return;
        }
    }
}
