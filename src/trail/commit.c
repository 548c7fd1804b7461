#include "trail/commit.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whoever waits for this turn; those who wait for the next are not woken with them. */
static uint32_t bit(uint32_t turn)
{
    return (uint32_t)1 << turn / 2 % 32;
}

static void wake(struct commit *commit, uint32_t turn, int count)
{
    (void)syscall(SYS_futex, &commit->turn, FUTEX_WAKE_BITSET_PRIVATE, count, NULL, NULL,
                  bit(turn));
}

/* Puts a part behind those of the group that forms; returns the turn that ends this group. */
static uint32_t join(struct commit *commit, struct commit_part *part)
{
    uint32_t turn;

    part->next = NULL;
    (void)pthread_mutex_lock(&commit->coming);
    *commit->end = part;
    commit->end = &part->next;
    turn = commit->forming;
    (void)pthread_mutex_unlock(&commit->coming);
    return turn;
}

/* Takes the group that formed; who comes from now on is in the next. */
static struct commit_part *close_group(struct commit *commit)
{
    struct commit_part *first;

    (void)pthread_mutex_lock(&commit->coming);
    first = commit->first;
    commit->first = NULL;
    commit->end = &commit->first;
    commit->forming += 2;
    (void)pthread_mutex_unlock(&commit->coming);
    return first;
}

static void end_group(struct commit *commit, uint32_t turn)
{
    atomic_store(&commit->turn, turn + 1);
    wake(commit, turn, INT_MAX);
    /* Nobody leads before all of them are awake, and who is woken to lead comes last: those who are
     * back at once are then in its group, and fewer syncs serve more. */
    atomic_store(&commit->turn, turn);
    wake(commit, turn + 2, 1);
}

void commit_init(struct commit *commit)
{
    (void)pthread_mutex_init(&commit->coming, NULL); /* cannot fail without attributes */
    commit->first = NULL;
    commit->end = &commit->first;
    commit->forming = 2;
    atomic_init(&commit->turn, 0);
}

void commit_do(struct commit *commit, struct commit_part *part,
               void (*write)(void *arg, struct commit_part *first), void *arg)
{
    const uint32_t turn = join(commit, part);
    uint32_t now = atomic_load(&commit->turn);

    while ((int32_t)(turn - now) > 0) {
        if (now % 2 != 0) {
            (void)syscall(SYS_futex, &commit->turn, FUTEX_WAIT_BITSET_PRIVATE, now, NULL, NULL,
                          bit(turn));
            now = atomic_load(&commit->turn);
        } else if (atomic_compare_exchange_weak(&commit->turn, &now, now + 1)) {
            write(arg, close_group(commit));
            end_group(commit, turn);
            return;
        }
    }
}
