/* The trail under many hands: threads, processes, those that die, and those that stand still. */
#include "base/lock.h"
#include "trail/audit.h"
#include "trail_workers.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define TRAIL_TEST(what)                                                                           \
    Test(audit_shared, what, .init = directory_enter, .fini = directory_leave, .timeout = 100)

static const char file[] = "audit.jsonl";

static pid_t worker_start(struct worker *worker, unsigned threads)
{
    pid_t child = fork();

    cr_assert(child >= 0);
    if (child == 0) {
        work_in_threads(worker, threads);
        _exit(0);
    }
    return child;
}

/* Every number given out at most once, and none beyond the end of the chain. */
static void acks_check(const struct acks *acks, const struct walk *walk)
{
    for (unsigned seq = 0; seq < ACKS_MAX; seq++) {
        cr_assert_leq(acks->seen[seq], 1, "%u was given twice", seq);
        cr_assert(acks->seen[seq] == 0 || (json_int_t)seq < walk->next_seq, "%u is missing", seq);
    }
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

TRAIL_TEST(four_processes_of_four_threads_make_one_chain)
{
    struct worker worker = {trail_open(file), acks_make(), 500};
    pid_t children[4];
    struct walk walk;

    for (unsigned i = 0; i < 4; i++) {
        children[i] = worker_start(&worker, 4);
    }
    for (unsigned i = 0; i < 4; i++) {
        int status = 0;

        cr_assert(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    walk = walk_whole(file);
    cr_expect_eq(worker.acks->count, 8000);
    cr_expect_eq(walk.records, 8002);
    cr_expect_eq(walk.recoveries, 0);
    acks_check(worker.acks, &walk);
    audit_close(worker.audit);
}

TRAIL_TEST(processes_and_threads_move_to_a_new_file_together)
{
    struct worker worker = {trail_open(file), acks_make(), 2000};
    struct walk walk = {.next_seq = 0};
    pid_t children[3];
    char old[32];

    for (unsigned i = 0; i < 3; i++) {
        children[i] = worker_start(&worker, 3);
    }
    for (unsigned i = 0; i < 20; i++) {
        snprintf(old, sizeof(old), "audit.%u", i);
        sleep_us(10000);
        cr_assert(rename(file, old) == 0);
        trail_rotate(worker.audit);
        cr_assert_eq(append_sample(worker.audit), REASON_OK);
    }
    for (unsigned i = 0; i < 3; i++) {
        int status = 0;

        cr_assert(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    for (unsigned i = 0; i < 20; i++) {
        snprintf(old, sizeof(old), "audit.%u", i);
        walk_next(&walk, old);
    }
    walk_next(&walk, file);
    cr_expect_eq(worker.acks->refused, 0);
    cr_expect_eq(worker.acks->count, 18000);
    cr_expect_eq(walk.records, 18000 + 2 + 20 * 4, "%zu, %zu recoveries, %zu seals", walk.records,
                 walk.recoveries, walk.seals);
    audit_close(worker.audit);
}

TRAIL_TEST(a_process_follows_another_to_a_file_that_it_was_not_told_of)
{
    struct worker worker = {trail_open(file), acks_make(), 1};
    struct walk walk = {.next_seq = 0};
    int status = 0;
    int go[2];
    pid_t child;

    cr_assert(pipe(go) == 0);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        char byte;

        if (read(go[0], &byte, 1) != 1) {
            _exit(1);
        }
        (void)work(&worker);
        _exit(0);
    }
    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(worker.audit);
    cr_assert_eq(append_sample(worker.audit), REASON_OK);
    /* Renamed with no word said: the child, which still has the first one open, must find it. */
    cr_assert(rename(file, "audit.2") == 0);
    cr_assert(write(go[1], "", 1) == 1);
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    cr_assert_eq(append_sample(worker.audit), REASON_OK);
    walk_next(&walk, "audit.1");
    walk_next(&walk, "audit.2");
    cr_expect(access(file, F_OK) != 0);
    cr_expect_eq(walk.records, 2 + 2 + 1 + 3);
    audit_close(worker.audit);
}

TRAIL_TEST(survives_fifty_processes_killed_while_they_append)
{
    struct worker worker = {trail_open(file), acks_make(), 0};
    struct walk walk = {.next_seq = 0};
    unsigned kills = 50;

    srand(1);
    for (unsigned i = 0; i < kills; i++) {
        pid_t child = worker_start(&worker, 2);
        int status = 0;

        sleep_us(2000 + (unsigned)rand() % 8000);
        cr_assert(kill(child, SIGKILL) == 0);
        cr_assert(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        cr_assert_eq(append_sample(worker.audit), REASON_OK, "%s",
                     strerror(audit_last_error(worker.audit)));
    }
    walk_on(&walk, file);
    cr_expect_gt(worker.acks->count, kills);
    cr_expect_eq(worker.acks->refused, 0);
    cr_expect_geq(walk.records, worker.acks->count + kills + 2);
    acks_check(worker.acks, &walk);
    audit_close(worker.audit);
}

/* SIGXFSZ kills right after the short write, so the owner of the lock dies with a torn record. */
static void append_and_die(struct audit *audit, size_t limit)
{
    struct rlimit size = {limit, limit};
    struct rlimit none = {0, 0};

    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_FSIZE, &size);
    signal(SIGXFSZ, SIG_DFL);
    _exit(append_sample(audit) == REASON_OK ? 0 : 1);
}

TRAIL_TEST(mends_what_a_dead_owner_tore_at_any_byte)
{
    struct audit *audit = trail_open(file);
    struct walk after = {.next_seq = 0};
    struct walk before;
    size_t len;

    cr_assert_eq(append_sample(audit), REASON_OK);
    walk_on(&after, file);
    len = after.at;
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk_on(&after, file);
    len = after.at - len;
    for (size_t left = len; left > 0; left -= left > 20 ? 7 : 1) {
        int status = 0;
        pid_t child;

        before = after;
        child = fork();
        if (child == 0) {
            append_and_die(audit, before.at + len - left);
        }
        cr_assert(waitpid(child, &status, 0) == child);
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ, "%x", status);
        cr_assert_eq(append_sample(audit), REASON_OK);
        cr_assert_eq(audit_stuck_holder(audit), 0);
        walk_on(&after, file);
        /* With a number that has one digit more, what lacked one byte lacks two. */
        cr_assert_eq(after.records - before.records, left == len ? 1 : 2, "%zu", left);
        if (left > 2) {
            cr_assert_eq(after.recoveries - before.recoveries, left == len ? 0 : 1, "%zu", left);
        }
    }
    audit_close(audit);
}

/* Stops `child` at random moments until it stands still inside the lock. */
static void stop_in_lock(struct audit *audit, pid_t child)
{
    for (unsigned i = 0; i < 2000; i++) {
        int status = 0;

        sleep_us(500 + (unsigned)rand() % 500);
        cr_assert(kill(child, SIGSTOP) == 0);
        cr_assert(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
        if (append_sample(audit) != REASON_OK) {
            cr_assert_eq(tgkill(child, audit_stuck_holder(audit), 0), 0, "one of its threads");
            cr_assert_eq(audit_stuck_holder(audit), 0, "told of once");
            return;
        }
        cr_assert(kill(child, SIGCONT) == 0);
    }
    cr_assert_fail("the child was never stopped inside the lock");
}

TRAIL_TEST(waits_one_second_for_a_holder_that_stands_still_and_names_it)
{
    struct worker worker = {trail_open(file), acks_make(), 0};
    pid_t child = worker_start(&worker, 1);
    struct walk walk = {.next_seq = 0};
    int status = 0;
    double begin;
    double took;

    srand(2);
    stop_in_lock(worker.audit, child);
    begin = now_s();
    cr_assert_eq(append_sample(worker.audit), REASON_AUDIT_UNAVAILABLE);
    took = now_s() - begin;
    cr_expect(took > 0.9 && took < 2.0, "%f s", took);
    cr_expect_eq(audit_last_error(worker.audit), ETIMEDOUT);
    cr_expect_eq(tgkill(child, audit_stuck_holder(worker.audit), 0), 0,
                 "again, as it was waited for again");
    cr_assert(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    cr_expect_eq(append_sample(worker.audit), REASON_OK);
    cr_expect_eq(audit_last_error(worker.audit), 0);
    cr_expect_eq(audit_stuck_holder(worker.audit), 0);
    walk_on(&walk, file);
    acks_check(worker.acks, &walk);
    audit_close(worker.audit);
}
