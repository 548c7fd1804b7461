/* The trail under many hands: threads, processes, those that die, and those that stand still. */
#include "base/lock.h"
#include "trail/audit.h"
#include "trail_walk.h"

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

enum { ACKS_MAX = 1 << 20 };

/* A disk that takes its time, counts, and can fail; of this process. */
static struct {
    _Atomic unsigned syncs;
    _Atomic unsigned slow_us;
    _Atomic int error;
} disk;

static void sleep_us(unsigned us)
{
    struct timespec t = {.tv_nsec = (long)us * 1000};

    nanosleep(&t, NULL);
}

int fdatasync(int fd)
{
    (void)fd;
    sleep_us(disk.slow_us);
    disk.syncs++;
    errno = disk.error;
    return errno == 0 ? 0 : -1;
}

/* What happens once, right after the trail's lock was given back. */
static void (*behind_the_lock)(void);

int __real_lock_give(struct lock *lock);
int __wrap_lock_give(struct lock *lock);

int __wrap_lock_give(struct lock *lock)
{
    void (*happens)(void) = behind_the_lock;
    const int r = __real_lock_give(lock);

    behind_the_lock = NULL;
    if (happens != NULL) {
        happens();
    }
    return r;
}

/* What workers were told is written, where it outlives them. */
struct acks {
    _Atomic unsigned count;
    _Atomic unsigned refused;
    _Atomic unsigned char seen[ACKS_MAX]; /* by sequence number */
};

struct worker {
    struct audit *audit;
    struct acks *acks;
    unsigned appends; /* 0: until killed */
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct audit_record record = sample();

    for (unsigned i = 0; worker->appends == 0 || i < worker->appends; i++) {
        char id[AUDIT_ID_BYTES];
        uint64_t seq = 0;

        if (audit_append(worker->audit, &record, id, &seq) == REASON_OK) {
            if (seq < ACKS_MAX) {
                atomic_fetch_add(&worker->acks->seen[seq], 1);
            }
            atomic_fetch_add(&worker->acks->count, 1);
        } else {
            atomic_fetch_add(&worker->acks->refused, 1);
        }
    }
    return NULL;
}

static void work_in_threads(struct worker *worker, unsigned threads)
{
    pthread_t ids[8];

    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, work, worker) != 0) {
            _exit(1);
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
}

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

static struct acks *acks_make(void)
{
    struct acks *acks =
        mmap(NULL, sizeof(*acks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    cr_assert(acks != MAP_FAILED);
    return acks;
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

static struct audit *trail_open_commit(void)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600, .commit = true};
    struct audit *audit = NULL;
    struct fault fault;

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0);
    return audit;
}

static struct audit *swept;

static void sync_that_fails(void)
{
    struct audit_record record = sample();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    disk.error = EIO;
    cr_assert_eq(audit_append(swept, &record, id, &seq), REASON_AUDIT_UNAVAILABLE);
    disk.error = 0;
}

/* It took both records, and the kernel has nothing left for the sync of the first. */
TRAIL_TEST(a_sync_that_fails_between_a_record_and_its_own_sync_is_told)
{
    struct audit_record record = sample();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    swept = trail_open_commit();
    cr_assert_eq(audit_append(swept, &record, id, &seq), REASON_OK);
    behind_the_lock = sync_that_fails;
    cr_expect_eq(audit_append(swept, &record, id, &seq), REASON_AUDIT_UNAVAILABLE);
    cr_expect_null(behind_the_lock);
    cr_expect_eq(audit_append(swept, &record, id, &seq), REASON_OK);
    audit_close(swept);
}

static void turn_on_a_disk_that_hangs(void)
{
    struct audit_news news;

    cr_assert(rename(file, "audit.1") == 0);
    disk.error = ETIMEDOUT;
    (void)audit_rotate(swept, &news);
    disk.error = 0;
    cr_assert(news.segment[0] != '\0', "%s", news.fault.what);
}

/* What it then syncs is the next file. */
TRAIL_TEST(a_record_whose_file_was_turned_without_a_sync_is_not_taken_for_synced)
{
    struct audit_record record = sample();
    struct walk walk;
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    swept = trail_open_commit();
    behind_the_lock = turn_on_a_disk_that_hangs;
    cr_expect_eq(audit_append(swept, &record, id, &seq), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_append(swept, &record, id, &seq), REASON_OK);
    audit_close(swept);
    walk = walk_whole("audit.1");
    walk_next(&walk, file);
}

/* Makes what this process writes the trail with one that blocks, and says how many had not. */
static int flags_change(void)
{
    int changed = 0;
    struct stat st;
    struct stat other;

    cr_assert(stat(file, &st) == 0);
    for (int fd = 3; fd < 64; fd++) {
        const int flags = fcntl(fd, F_GETFL);

        if (flags != -1 && (flags & O_ACCMODE) == O_WRONLY && fstat(fd, &other) == 0 &&
            other.st_ino == st.st_ino && (flags & O_NONBLOCK) != 0) {
            changed += fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? 1 : 0;
        }
    }
    return changed;
}

/* The kernel tells of an error of the disk once to each file that was opened, not to each process.
 */
TRAIL_TEST(with_commit_each_process_has_opened_the_file_itself)
{
    struct audit_record record = sample();
    struct audit *audit = trail_open_commit();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;
    int status = 0;
    pid_t child = fork();

    cr_assert(child >= 0);
    if (child == 0) {
        _exit(audit_part(audit) == 0 && flags_change() == 1 &&
                      audit_append(audit, &record, id, &seq) == REASON_OK
                  ? 0
                  : 1);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    cr_expect_eq(flags_change(), 1, "its flags are the child's, too");
    cr_assert_eq(audit_append(audit, &record, id, &seq), REASON_OK);
    cr_expect_eq(walk_whole(file).next_seq, (json_int_t)seq + 1);
    audit_close(audit);
}

TRAIL_TEST(threads_that_wait_for_the_disk_wait_together)
{
    struct worker worker = {trail_open_commit(), acks_make(), 20};
    unsigned before = disk.syncs;

    disk.slow_us = 3000;
    work_in_threads(&worker, 8);
    cr_expect_eq(worker.acks->count, 160);
    cr_expect_geq(disk.syncs - before, 20);
    cr_expect_lt(disk.syncs - before, 120, "%u syncs", disk.syncs - before);
    cr_expect_eq(walk_whole(file).records, 162);
    audit_close(worker.audit);
}

TRAIL_TEST(a_sync_that_fails_fails_for_all_that_wait_for_it)
{
    struct worker worker = {trail_open_commit(), acks_make(), 5};
    struct audit_pace pace = {.seal_ms = 60000};
    struct walk walk = {.next_seq = 0};
    struct audit_news news;

    disk.slow_us = 3000;
    disk.error = EIO;
    work_in_threads(&worker, 8);
    cr_expect_eq(worker.acks->count, 0);
    cr_expect_eq(worker.acks->refused, 40);
    cr_expect_eq(audit_last_error(worker.audit), EIO);
    disk.error = 0;
    work_in_threads(&worker, 2);
    cr_expect_eq(worker.acks->count, 10);
    /* What the kernel gave up is not asked for again: the chain goes on in another file. */
    cr_expect(audit_tick(worker.audit, &pace, 1000, &news) && news.segment[0] != '\0');
    cr_expect_str_eq(news.fault.what, "");
    cr_expect(!audit_tick(worker.audit, &pace, 2000, &news));
    walk_on(&walk, "audit.jsonl.0");
    cr_expect_str_eq(walk.event, "segment.close");
    walk_next(&walk, file);
    audit_close(worker.audit);
}

TRAIL_TEST(syncs_about_every_second_what_was_only_written)
{
    struct audit *audit = trail_open(file);
    struct audit_pace pace = {.seal_ms = 600000};
    struct audit_news news;
    unsigned before;

    (void)audit_tick(audit, &pace, 1000, &news);
    before = disk.syncs;
    for (uint64_t now = 2000; now < 12000; now += 250) {
        cr_assert_eq(append_sample(audit), REASON_OK);
        cr_assert(!audit_tick(audit, &pace, now, &news));
    }
    cr_expect_eq(disk.syncs - before, 10);
    (void)audit_tick(audit, &pace, 13000, &news);
    before = disk.syncs;
    (void)audit_tick(audit, &pace, 14000, &news);
    cr_expect_eq(disk.syncs, before, "nothing was written");
    audit_close(audit);
}
