#include "base/lock.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_S = 1 };

int lock_init(struct lock *lock)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error == 0) {
        error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        error = error != 0 ? error : pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        error = error != 0 ? error : pthread_mutex_init(&lock->mutex, &attributes);
        (void)pthread_mutexattr_destroy(&attributes);
    }
    errno = error;
    return error == 0 ? 0 : -1;
}

static int wait_for(struct lock *lock)
{
    struct timespec until = {0};
    const uint64_t holder = atomic_load(&lock->holder);
    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail with this clock */
    until.tv_sec += WAIT_S;
    const int error = pthread_mutex_clocklock(&lock->mutex, CLOCK_MONOTONIC, &until);
    if (error == ETIMEDOUT && holder != 0 && atomic_load(&lock->holder) == holder) {
        atomic_store(&lock->stuck, holder); /* all the time the same turn */
    }
    return error;
}

int lock_take(struct lock *lock, uint64_t *turn)
{
    int error = pthread_mutex_trylock(&lock->mutex);
    if (error == EBUSY) {
        error = wait_for(lock);
    }
    if (error == EOWNERDEAD) {
        error = pthread_mutex_consistent(&lock->mutex);
    }
    if (error != 0) {
        errno = error;
        return -1;
    }
    *turn = (uint64_t)(uint32_t)getpid() << 32 | ++lock->turns;
    atomic_store(&lock->holder, *turn);
    return 0;
}

int lock_give(struct lock *lock, uint64_t turn)
{
    const int error = pthread_mutex_unlock(&lock->mutex);
    /* After the unlock, so that whoever is stopped in between still has a name; the next holder has
     * another turn and is left alone. */
    (void)atomic_compare_exchange_strong(&lock->holder, &turn, 0);
    errno = error;
    return error == 0 ? 0 : -1;
}

pid_t lock_stuck_holder(struct lock *lock)
{
    const uint64_t stuck = atomic_exchange(&lock->stuck, 0);
    return stuck != 0 && stuck == atomic_load(&lock->holder) ? (pid_t)(stuck >> 32) : 0;
}
