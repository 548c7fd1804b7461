#include "trail/commit.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whoever waits for the end of this group; those who wait for the next are not woken with them. */
static uint32_t bit(uint32_t group)
{
    return (uint32_t)1 << group % 32;
}

/* Waits until so many groups have ended. */
static void wait_for(struct commit *commit, uint32_t groups)
{
    uint32_t ended = atomic_load(&commit->synced);

    while ((int32_t)(groups - ended) > 0) {
        (void)syscall(SYS_futex, &commit->synced, FUTEX_WAIT_BITSET_PRIVATE, ended, NULL, NULL,
                      bit(groups));
        ended = atomic_load(&commit->synced);
    }
}

void commit_wait(struct commit *commit, void (*sync)(void *arg), void *arg)
{
    const uint64_t forming = atomic_fetch_or(&commit->forming, 1);
    const uint32_t before = (uint32_t)(forming / 2);

    if (forming % 2 != 0) {
        wait_for(commit, before + 1);
        return;
    }
    wait_for(commit, before);
    /* Who comes from now on may have written too late for this sync. */
    (void)atomic_fetch_add(&commit->forming, 1); /* after what it reads, in every memory model */
    sync(arg);
    atomic_store(&commit->synced, before + 1);
    (void)syscall(SYS_futex, &commit->synced, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL,
                  bit(before + 1));
}
