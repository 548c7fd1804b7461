/* The trail and the disk: what is synced when, by whom, and who is told that it was not. */
#include "base/lock.h"
#include "base/sync.h"
#include "trail/audit.h"
#include "trail_workers.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TRAIL_TEST(what)                                                                           \
    Test(audit_commit, what, .init = directory_enter, .fini = directory_leave, .timeout = 100)

static const char file[] = "audit.jsonl";

enum { NO_ERRNO = -1 }; /* a failure that leaves none */

/* A disk that takes its time, counts, and can fail; of this process. */
static struct {
    _Atomic unsigned syncs;
    _Atomic unsigned slow_us;
    _Atomic bool held; /* syncs do not end */
    _Atomic unsigned begun;
    _Atomic int error;
    _Atomic bool patient;         /* syncs are given up instead */
    _Atomic unsigned refuse;      /* of the next writes to it, a bit each from the lowest on */
    _Atomic unsigned slow_writes; /* us */
} disk;

int fdatasync(int fd)
{
    (void)fd;
    disk.begun++;
    sleep_us(disk.slow_us);
    while (disk.held) {
        sleep_us(100);
    }
    disk.syncs++;
    errno = disk.error == NO_ERRNO ? 0 : disk.error;
    return disk.error == 0 ? 0 : -1;
}

int __real_sync_file(int fd, enum sync_what what);
int __wrap_sync_file(int fd, enum sync_what what);

int __wrap_sync_file(int fd, enum sync_what what)
{
    if (disk.patient) {
        errno = ETIMEDOUT;
        return -1;
    }
    return __real_sync_file(fd, what);
}

ssize_t __real_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
    const unsigned refuse = disk.refuse;

    sleep_us(disk.slow_writes);
    disk.refuse = refuse >> 1;
    if ((refuse & 1) != 0) {
        errno = ENOSPC;
        return -1;
    }
    return __real_write(fd, bytes, len);
}

static _Atomic bool lock_refused; /* once */

int __real_lock_take(struct lock *lock);
int __wrap_lock_take(struct lock *lock);

int __wrap_lock_take(struct lock *lock)
{
    if (atomic_exchange(&lock_refused, false)) {
        errno = ETIMEDOUT;
        return -1;
    }
    return __real_lock_take(lock);
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

static struct audit *trail_open_commit(void)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600, .commit = true};
    struct audit *audit = NULL;
    struct fault fault;

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0);
    return audit;
}

static struct audit *swept;

/* Another worker, whose next sync fails. */
static int another_told[2];
static pid_t another;

static void another_start(void)
{
    struct audit_record record = sample();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    cr_assert_eq(pipe(another_told), 0);
    another = fork();
    cr_assert_neq(another, -1);
    if (another == 0) {
        disk.error = EIO;
        if (audit_part(swept) != 0 || read(another_told[0], id, 1) != 1) {
            _exit(99);
        }
        _exit((int)audit_append(swept, &record, id, &seq));
    }
}

static void sync_that_fails(void)
{
    int status = 0;

    cr_assert_eq(write(another_told[1], "", 1), 1);
    cr_assert_eq(waitpid(another, &status, 0), another);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == REASON_AUDIT_UNAVAILABLE, "%x", status);
}

/* It took both records, and the kernel has nothing left for the sync of the first. */
TRAIL_TEST(a_sync_that_fails_between_a_record_and_its_own_sync_is_told)
{
    struct audit_record record = sample();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    swept = trail_open_commit();
    another_start();
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
    disk.patient = true;
    (void)audit_rotate(swept, &news);
    disk.patient = false;
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

/* From now on the trail takes so many bytes more; SIZE_MAX: as many as one likes. */
static void room_set(size_t bytes)
{
    struct rlimit limit;
    struct stat st;

    cr_assert(stat(file, &st) == 0 && getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes == SIZE_MAX ? limit.rlim_max : (rlim_t)st.st_size + bytes;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* Three that wait for the one who is on the way to the disk, and are then a group. */
struct trio {
    struct worker first;
    struct worker group;
    unsigned before; /* syncs that had begun */
    pthread_t ids[4];
};

static void trio_begin(struct trio *trio)
{
    trio->first = (struct worker){trail_open_commit(), acks_make(), 1};
    trio->group = (struct worker){trio->first.audit, acks_make(), 1};
    trio->before = disk.begun;
    disk.held = true;
    cr_assert_eq(pthread_create(&trio->ids[0], NULL, work, &trio->first), 0);
    while (disk.begun == trio->before) {
        sleep_us(100);
    }
    for (size_t i = 1; i < 4; i++) {
        cr_assert_eq(pthread_create(&trio->ids[i], NULL, work, &trio->group), 0);
    }
    sleep_us(100000); /* until they wait; who comes later is in a third group */
}

static void trio_end(struct trio *trio, unsigned granted)
{
    disk.held = false;
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(trio->ids[i], NULL), 0);
    }
    cr_expect_eq(trio->first.acks->count, 1);
    cr_expect_eq(trio->group.acks->count, granted);
    cr_expect_eq(trio->group.acks->refused, 3 - granted);
}

TRAIL_TEST(who_cannot_be_written_is_told_and_who_can_is_let_go)
{
    struct trio trio;

    cr_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    trio_begin(&trio);
    room_set(AUDIT_RECORD_MAX / 4);
    trio_end(&trio, 1);
    cr_expect_eq(audit_last_error(trio.group.audit), EFBIG);
    room_set(SIZE_MAX);
    cr_expect_eq(append_sample(trio.group.audit), REASON_OK);
    cr_expect_eq(walk_whole(file).recoveries, 1);
    audit_close(trio.group.audit);
}

TRAIL_TEST(a_group_is_synced_whichever_of_it_was_written)
{
    for (unsigned refuse = 1; refuse < 8; refuse++) {
        struct trio trio;
        const unsigned refused = (refuse & 1) + (refuse >> 1 & 1) + (refuse >> 2);

        trio_begin(&trio);
        disk.refuse = refuse;
        trio_end(&trio, 3 - refused);
        cr_expect_eq(disk.begun - trio.before, refused == 3 ? 1 : 2, "%x", refuse);
        audit_close(trio.group.audit);
        cr_expect_eq(unlink(file) | unlink("audit.head") | unlink("audit.key"), 0);
    }
}

TRAIL_TEST(nobody_is_let_go_without_the_lock)
{
    struct trio trio;

    trio_begin(&trio);
    lock_refused = true;
    trio_end(&trio, 0);
    cr_expect_eq(audit_last_error(trio.group.audit), ETIMEDOUT);
    audit_close(trio.group.audit);
}

TRAIL_TEST(a_sync_that_fails_is_none_whatever_it_leaves_in_errno)
{
    static const int errors[] = {ETIMEDOUT, NO_ERRNO, EIO};
    struct audit *audit = trail_open_commit();

    for (size_t i = 0; i < 3; i++) {
        disk.error = errors[i];
        cr_expect_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE, "%d", errors[i]);
        cr_expect_eq(audit_last_error(audit), EIO);
    }
    disk.error = 0;
    disk.patient = true; /* which only the supervisor is */
    cr_expect_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    disk.patient = false;
    cr_expect_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
}

/* What was last is known until it is known how the next went. */
TRAIL_TEST(an_error_is_not_forgotten_while_the_next_sync_is_under_way)
{
    struct worker worker = {trail_open_commit(), acks_make(), 1};
    unsigned before;
    pthread_t id;

    disk.error = EIO;
    cr_assert_eq(append_sample(worker.audit), REASON_AUDIT_UNAVAILABLE);
    disk.held = true;
    before = disk.begun;
    cr_assert_eq(pthread_create(&id, NULL, work, &worker), 0);
    while (disk.begun == before) {
        sleep_us(100);
    }
    cr_expect_eq(audit_last_error(worker.audit), EIO);
    cr_expect_eq(audit_append_event(worker.audit, "audit", "reopen", NULL, NULL), REASON_OK,
                 "an event waits for no disk");
    disk.held = false;
    cr_assert_eq(pthread_join(id, NULL), 0);
    cr_expect_eq(worker.acks->refused, 1);
    audit_close(worker.audit);
}

/* A large group on a disk that is slow to take what is written: others get their turn. */
TRAIL_TEST(a_group_that_takes_long_is_not_taken_for_stuck)
{
    struct worker worker = {trail_open_commit(), acks_make(), 2};
    const pid_t child = fork();
    unsigned stuck = 0;
    int status = 0;

    cr_assert(child >= 0);
    if (child == 0) {
        disk.slow_writes = 200000;
        work_in_threads(&worker, 8);
        _exit(worker.acks->count == 16 ? 0 : 1);
    }
    for (unsigned i = 0; waitpid(child, &status, WNOHANG) == 0; i++) {
        (void)append_sample(worker.audit);
        stuck += audit_stuck_holder(worker.audit) != 0;
    }
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
    cr_expect_eq(stuck, 0, "it would have been killed");
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
