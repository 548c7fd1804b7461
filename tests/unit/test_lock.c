#include "base/lock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct lock *shared_lock(void)
{
    struct lock *lock =
        mmap(NULL, sizeof *lock, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(lock, MAP_FAILED);
    return lock;
}

/* A child that takes the lock, says so, and holds it until it is killed. */
static pid_t start_holder(struct lock *lock)
{
    int pair[2];
    char byte = 0;
    cr_assert_eq(pipe(pair), 0);
    const pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        if (lock_take(lock) == 0 && write(pair[1], "x", 1) == 1) {
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
    cr_assert_eq(lock_take(lock), 0);
    cr_assert_eq(lock_give(lock), 0);
    cr_assert_eq(lock_take(lock), 0);
    cr_assert_eq(lock_give(lock), 0);
    cr_expect_eq(lock_give(lock), -1, "it is nobody's");
    cr_expect_eq(errno, EPERM);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, of_a_dead_process_is_free)
{
    struct lock *lock = shared_lock();
    kill_holder(start_holder(lock));
    cr_assert_eq(lock_take(lock), 0);
    cr_assert_eq(lock_give(lock), 0);
    cr_assert_eq(lock_take(lock), 0, "whole again");
    cr_assert_eq(lock_give(lock), 0);
    cr_expect_eq(lock_stuck_holder(lock), 0);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, who_is_waited_for_in_vain_is_told_of_once)
{
    struct lock *lock = shared_lock();
    const pid_t child = start_holder(lock);
    cr_expect_eq(lock_stuck_holder(lock), 0, "nobody has waited");
    cr_assert_eq(lock_take(lock), -1);
    cr_expect_eq(errno, ETIMEDOUT);
    cr_expect_eq(lock_stuck_holder(lock), child);
    cr_expect_eq(lock_stuck_holder(lock), 0);
    kill_holder(child);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, who_had_it_in_time_after_all_is_left_alone)
{
    struct lock *lock = shared_lock();
    const pid_t child = start_holder(lock);
    cr_assert_eq(lock_take(lock), -1);
    kill_holder(child);
    cr_assert_eq(lock_take(lock), 0);
    cr_expect_eq(lock_stuck_holder(lock), 0, "this turn is another one");
    cr_assert_eq(lock_give(lock), 0);
    cr_expect_eq(lock_stuck_holder(lock), 0);
    (void)munmap(lock, sizeof *lock);
}

Test(lock, of_a_thread_that_never_was_can_be_broken)
{
    struct lock *lock = shared_lock();
    const pid_t nobody = 0x3ffffff;
    atomic_store(&lock->word, (uint32_t)nobody);
    cr_assert_eq(lock_take(lock), -1);
    cr_expect_eq(lock_stuck_holder(lock), nobody);
    lock_break(lock, getpid());
    cr_assert_eq(lock_take(lock), -1, "broken for another thread only");
    lock_break(lock, nobody);
    cr_assert_eq(lock_take(lock), 0);
    lock_break(lock, nobody);
    cr_expect_eq(lock_give(lock), 0, "it was not broken a second time");
    (void)munmap(lock, sizeof *lock);
}

Test(lock, a_thread_holds_one_at_a_time)
{
    struct lock *first = shared_lock();
    struct lock *second = shared_lock();
    cr_assert_eq(lock_take(first), 0);
    cr_expect_eq(lock_take(second), -1);
    cr_expect_eq(errno, EDEADLK);
    cr_expect_eq(lock_take(first), -1);
    cr_expect_eq(errno, EDEADLK);
    cr_assert_eq(lock_give(first), 0);
    cr_assert_eq(lock_take(second), 0);
    cr_assert_eq(lock_give(second), 0);
    (void)munmap(first, sizeof *first);
    (void)munmap(second, sizeof *second);
}

enum { CHILDREN = 8, ROUNDS = 5000 };

struct counted {
    struct lock lock;
    volatile unsigned long count; /* under the lock, and only so */
    volatile unsigned long half;  /* equal to it unless a holder died */
};

static void count_on(struct counted *c, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        if (lock_take(&c->lock) != 0) {
            _exit(2);
        }
        c->half = c->count; /* what a dead holder left half done */
        c->half++;
        if (i % 16 == 0) {
            (void)sched_yield(); /* so that the others come to wait */
        }
        c->count = c->half;
        if (lock_give(&c->lock) != 0) {
            _exit(3);
        }
    }
}

Test(lock, keeps_many_processes_apart)
{
    struct counted *c =
        mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(c, MAP_FAILED);
    for (unsigned i = 0; i < CHILDREN; i++) {
        if (fork() == 0) {
            count_on(c, ROUNDS);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        int status = 0;
        cr_assert_geq(wait(&status), 0);
        cr_expect_eq(status, 0);
    }
    cr_expect_eq(c->count, (unsigned long)CHILDREN * ROUNDS);
    (void)munmap(c, sizeof *c);
}

Test(lock, survives_deaths_at_any_moment)
{
    struct counted *c =
        mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[CHILDREN] = {0};
    cr_assert_neq(c, MAP_FAILED);
    for (unsigned i = 0; i < 400; i++) {
        pid_t *child = &children[i % CHILDREN];
        if (*child != 0) {
            kill_holder(*child);
        }
        *child = fork();
        if (*child == 0) {
            for (;;) {
                count_on(c, ROUNDS);
            }
        }
        (void)usleep(500 + (useconds_t)(i * 37 % 1000));
    }
    const unsigned long before = c->count;
    for (unsigned i = 0; i < CHILDREN; i++) {
        int status = 0;
        cr_expect_eq(waitpid(children[i], &status, WNOHANG), 0, "none was kept waiting: %x",
                     (unsigned)status);
        kill_holder(children[i]);
    }
    cr_expect_gt(before, 400);
    cr_assert_eq(lock_take(&c->lock), 0);
    cr_assert_eq(lock_give(&c->lock), 0);
    (void)munmap(c, sizeof *c);
}

static void *take_and_wait(void *arg)
{
    struct lock *lock = arg;
    cr_assert_eq(lock_take(lock), 0);
    return NULL; /* a thread that ends with it, and its process goes on */
}

Test(lock, of_a_thread_that_ended_is_free)
{
    struct lock *lock = shared_lock();
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, take_and_wait, lock), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(lock_take(lock), 0);
    cr_assert_eq(lock_give(lock), 0);
    (void)munmap(lock, sizeof *lock);
}
