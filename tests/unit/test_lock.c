#include "base/lock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct lock *shared_lock(void)
{
    struct lock *lock =
        mmap(NULL, sizeof *lock, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(lock, MAP_FAILED);
    cr_assert_eq(lock_init(lock), 0);
    return lock;
}

/* A child that takes the lock, says so, and holds it until it is killed. */
static pid_t start_holder(struct lock *lock)
{
    int pair[2];
    char byte = 0;
    uint64_t turn = 0;
    cr_assert_eq(pipe(pair), 0);
    const pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        if (lock_take(lock, &turn) == 0 && write(pair[1], "x", 1) == 1) {
            (void)pause();
        }
        _exit(1);
    }
    cr_assert_eq(read(pair[0], &byte, 1), 1);
    (void)close(pair[0]);
    (void)close(pair[1]);
    return child;
}

static void kill_holder(pid_t child)
{
    int status = 0;
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
}

Test(lock, is_given_to_the_next)
{
    struct lock *lock = shared_lock();
    uint64_t first = 0;
    uint64_t second = 0;
    cr_assert_eq(lock_take(lock, &first), 0);
    cr_assert_eq(lock_give(lock, first), 0);
    cr_assert_eq(lock_take(lock, &second), 0);
    cr_expect_neq(first, second);
    cr_assert_eq(lock_give(lock, second), 0);
    cr_expect_eq(lock_give(lock, second), -1, "it is nobody's");
    cr_expect_eq(errno, EPERM);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, of_a_dead_process_is_free)
{
    struct lock *lock = shared_lock();
    uint64_t turn = 0;
    kill_holder(start_holder(lock));
    cr_assert_eq(lock_take(lock, &turn), 0);
    cr_assert_eq(lock_give(lock, turn), 0);
    cr_assert_eq(lock_take(lock, &turn), 0, "whole again");
    cr_assert_eq(lock_give(lock, turn), 0);
    cr_expect_eq(lock_stuck_holder(lock), 0);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, who_is_waited_for_in_vain_is_told_of_once)
{
    struct lock *lock = shared_lock();
    uint64_t turn = 0;
    const pid_t child = start_holder(lock);
    cr_expect_eq(lock_stuck_holder(lock), 0, "nobody has waited");
    cr_assert_eq(lock_take(lock, &turn), -1);
    cr_expect_eq(errno, ETIMEDOUT);
    cr_expect_eq(lock_stuck_holder(lock), child);
    cr_expect_eq(lock_stuck_holder(lock), 0);
    kill_holder(child);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, who_had_it_in_time_after_all_is_left_alone)
{
    struct lock *lock = shared_lock();
    uint64_t turn = 0;
    const pid_t child = start_holder(lock);
    cr_assert_eq(lock_take(lock, &turn), -1);
    kill_holder(child);
    cr_assert_eq(lock_take(lock, &turn), 0);
    cr_expect_eq(lock_stuck_holder(lock), 0, "this turn is another one");
    cr_assert_eq(lock_give(lock, turn), 0);
    cr_expect_eq(lock_stuck_holder(lock), 0);
    (void)munmap(lock, sizeof *lock);
}
