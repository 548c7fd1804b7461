/* The trail and the disk: what is synced when, by whom, and who is told that it was not. */
#include "base/lock.h"
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

/* A disk that takes its time, counts, and can fail; of this process. */
static struct {
    _Atomic unsigned syncs;
    _Atomic unsigned slow_us;
    _Atomic bool held; /* syncs do not end */
    _Atomic unsigned begun;
    _Atomic int error;
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

/* From now on the trail takes so many bytes more; SIZE_MAX: as many as one likes. */
static void room_set(size_t bytes)
{
    struct rlimit limit;
    struct stat st;

    cr_assert(stat(file, &st) == 0 && getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes == SIZE_MAX ? limit.rlim_max : (rlim_t)st.st_size + bytes;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* One of a group that there is no room for, and another that is. */
TRAIL_TEST(who_cannot_be_written_is_told_and_who_can_is_let_go)
{
    struct worker first = {trail_open_commit(), acks_make(), 1};
    struct worker group = {first.audit, acks_make(), 1};
    const unsigned before = disk.begun;
    pthread_t ids[4];

    cr_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    disk.held = true;
    cr_assert_eq(pthread_create(&ids[0], NULL, work, &first), 0);
    while (disk.begun == before) {
        sleep_us(100);
    }
    for (size_t i = 1; i < 4; i++) {
        cr_assert_eq(pthread_create(&ids[i], NULL, work, &group), 0);
    }
    sleep_us(100000); /* until they wait; who comes later is in a third group, and fails, too */
    room_set(AUDIT_RECORD_MAX / 4);
    disk.held = false;
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(ids[i], NULL), 0);
    }
    cr_expect_eq(first.acks->count, 1);
    cr_expect_eq(group.acks->count, 1);
    cr_expect_eq(group.acks->refused, 2);
    cr_expect_geq(disk.begun - before, 2, "it is brought to the disk, too");
    cr_expect_eq(audit_last_error(group.audit), EFBIG);
    room_set(SIZE_MAX);
    cr_expect_eq(append_sample(group.audit), REASON_OK);
    cr_expect_eq(walk_whole(file).recoveries, 1);
    audit_close(group.audit);
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
