/* The trail when the supervisor is killed at each of its system calls, before, after and within
 * it: the next start goes on, every record that was acknowledged is there, and the seals fit. */
#include "trail/audit.h"
#include "trail_walk.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define TRAIL_TEST(what)                                                                           \
    Test(audit_killed, what, .init = directory_enter, .fini = directory_leave, .timeout = 110)

static const char file[] = "audit.jsonl";

enum when { BEFORE, WITHIN, AFTER };

/* How many calls are still to go before the one that kills; negative: none does. */
static struct {
    long left;
    enum when when;
    bool hit;
} fuse = {.left = -1};

/* What outlives the killed. */
struct seen {
    _Atomic uint64_t acked; /* the highest number that somebody was told is written */
    _Atomic int worker;
};

static void call_begins(void)
{
    fuse.hit = fuse.left == 0;
    fuse.left -= fuse.left >= 0 ? 1 : 0;
    if (fuse.hit && fuse.when == BEFORE) {
        (void)kill(getpid(), SIGKILL);
    }
}

static long call_ended(long result)
{
    if (fuse.hit) {
        (void)kill(getpid(), SIGKILL);
    }
    return result;
}

/* The calls that leave something behind; the program's own definitions are the ones that all of it
 * uses. Syncs need not reach a disk here: no host loses power. */
ssize_t write(int fd, const void *bytes, size_t len)
{
    call_begins();
    len = fuse.hit && fuse.when == WITHIN ? len / 2 : len;
    return call_ended(syscall(SYS_write, fd, bytes, len));
}

int fsync(int fd)
{
    (void)fd;
    call_begins();
    return (int)call_ended(0);
}

int fdatasync(int fd)
{
    (void)fd;
    call_begins();
    return (int)call_ended(0);
}

int rename(const char *from, const char *to)
{
    call_begins();
    return (int)call_ended(syscall(SYS_rename, from, to));
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    call_begins();
    return (int)call_ended(syscall(SYS_renameat2, from_dir, from, to_dir, to, flags));
}

int unlink(const char *path)
{
    call_begins();
    return (int)call_ended(syscall(SYS_unlink, path));
}

static void append_acked(struct audit *audit, struct seen *seen)
{
    struct audit_record record = sample();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    if (audit_append(audit, &record, id, &seq) == REASON_OK) {
        uint64_t before = atomic_load(&seen->acked);

        while (before < seq && !atomic_compare_exchange_weak(&seen->acked, &before, seq)) {
        }
    }
}

static pid_t worker_start(struct audit *audit, struct seen *seen)
{
    pid_t child = fork();

    if (child == 0) {
        const struct timespec pause = {.tv_nsec = 100000};

        fuse.left = -1;
        for (;;) {
            append_acked(audit, seen);
            (void)nanosleep(&pause, NULL);
        }
    }
    return child;
}

/* A supervisor's life: start, seals, both kinds of rotation, stop. */
static void live(struct seen *seen, bool with_worker)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .node = "web1"};
    const struct audit_pace seal = {.seal_ms = 1000};
    const struct audit_pace small = {.seal_ms = 1000, .rotate_bytes = 300};
    struct audit *audit = NULL;
    struct audit_news news;
    struct fault fault;

    if (audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) != 0) {
        _exit(1);
    }
    if (with_worker) {
        atomic_store(&seen->worker, worker_start(audit, seen));
    }
    (void)audit_tick(audit, &seal, 1000, &news);
    append_acked(audit, seen);
    append_acked(audit, seen);
    (void)audit_tick(audit, &seal, 2000, &news);
    append_acked(audit, seen);
    (void)syscall(SYS_rename, file, "audit.moved");
    (void)audit_rotate(audit, &news);
    append_acked(audit, seen);
    (void)audit_tick(audit, &seal, 3000, &news);
    (void)audit_tick(audit, &small, 3001, &news);
    append_acked(audit, seen);
    if (!with_worker) {
        (void)audit_stop(audit, &news);
    }
    _exit(0);
}

/* Until the supervisor has ended and all that it left; true when it was killed. */
static bool end_all(pid_t supervisor, const struct seen *seen)
{
    const struct timespec pause = {.tv_nsec = 3000000};
    pid_t worker;
    int status = 0;

    cr_assert(waitpid(supervisor, &status, 0) == supervisor);
    worker = atomic_load(&seen->worker);
    if (worker != 0) {
        (void)nanosleep(&pause, NULL); /* it serves on for a moment */
        cr_assert(kill(worker, SIGKILL) == 0 && waitpid(worker, NULL, 0) == worker);
    }
    cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "%x", status);
    return WIFSIGNALED(status);
}

struct named {
    char name[256];
    json_int_t first; /* number of the first record */
};

static int named_compare(const void *a, const void *b)
{
    const struct named *x = a;
    const struct named *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

/* Walks all files of the chain in their order and removes them. */
static struct walk walk_all(void)
{
    struct walk walk = {.next_seq = 0};
    struct named files[16];
    size_t count = 0;
    DIR *dir = opendir(".");

    cr_assert(dir != NULL);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        bool ours = strncmp(entry->d_name, "audit.", 6) == 0 &&
                    strncmp(entry->d_name, "audit.key", 9) != 0 &&
                    strncmp(entry->d_name, "audit.head", 10) != 0;
        size_t len;
        char *text;
        char *at;

        if (!ours) {
            continue;
        }
        cr_assert_lt(count, 16);
        text = file_get(entry->d_name, &len);
        snprintf(files[count].name, sizeof(files[count].name), "%s", entry->d_name);
        at = strstr(text, "\"seq\":");
        files[count].first = at == NULL ? -1 : atoll(at + 6);
        /* A file that was torn before its first record was whole is not of the chain. */
        count += at != NULL && strstr(at, "\"}\n") != NULL;
        free(text);
    }
    closedir(dir);
    qsort(files, count, sizeof(files[0]), named_compare);
    for (size_t i = 0; i < count; i++) {
        walk_next(&walk, files[i].name);
    }
    return walk;
}

/* Kills at call `at`; false when there is none such. */
static bool kill_once(long at, enum when when, bool with_worker, bool move)
{
    struct seen *seen =
        mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct audit_news news;
    struct audit *audit;
    struct walk walk;
    uint64_t acked;
    pid_t child;
    bool killed;

    cr_assert(seen != MAP_FAILED);
    cr_assert(system("rm -f audit.*") == 0);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        fuse.left = at;
        fuse.when = when;
        live(seen, with_worker);
    }
    killed = end_all(child, seen);
    acked = atomic_load(&seen->acked);
    if (move && acked > 0) {
        /* Renamed while nobody runs; perhaps it is between two files. */
        (void)rename(file, "audit.later");
    }
    audit = trail_open(file);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(audit_stop(audit, &news) == 0, "%s", news.fault.what);
    audit_close(audit);
    walk = walk_all();
    cr_assert_gt(walk.next_seq, (json_int_t)acked, "call %ld, %d", at, when);
    cr_assert_geq(walk.seals, 1);
    cr_assert_str_eq(walk.event, "seal");
    cr_assert(munmap(seen, sizeof(*seen)) == 0);
    return killed;
}

static void kill_everywhere(enum when when, bool with_worker, bool move)
{
    long at = 0;

    cr_assert(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    while (kill_once(at, when, with_worker, move)) {
        at++;
    }
    cr_assert_gt(at, 40, "%ld calls", at);
}

TRAIL_TEST(before_any_call)
{
    kill_everywhere(BEFORE, false, false);
}

TRAIL_TEST(within_any_write)
{
    kill_everywhere(WITHIN, false, false);
}

TRAIL_TEST(after_any_call)
{
    kill_everywhere(AFTER, false, false);
}

TRAIL_TEST(before_any_call_and_the_file_is_renamed_then)
{
    kill_everywhere(BEFORE, false, true);
}

TRAIL_TEST(within_any_write_and_the_file_is_renamed_then)
{
    kill_everywhere(WITHIN, false, true);
}

TRAIL_TEST(within_any_write_while_a_worker_serves_on)
{
    kill_everywhere(WITHIN, true, false);
}

TRAIL_TEST(after_any_call_while_a_worker_serves_on_and_the_file_is_renamed_then)
{
    kill_everywhere(AFTER, true, true);
}
