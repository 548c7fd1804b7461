/* The trail's file: how it begins, goes on, and what happens when it cannot be written. */
#include "trail/audit.h"
#include "trail_walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TRAIL_TEST(what)                                                                           \
    Test(audit, what, .init = directory_enter, .fini = directory_leave, .timeout = 100)

static const char file[] = "audit.jsonl";

/* A disk whose syncs are counted and can be made to fail; the program's own definition is the one
 * that all of it calls. */
static struct {
    unsigned syncs;
    int error;
} disk;

int fdatasync(int fd)
{
    (void)fd;
    disk.syncs++;
    errno = disk.error;
    return disk.error == 0 ? 0 : -1;
}

/* The files of state_dir: not what is counted here. */
int fsync(int fd)
{
    (void)fd;
    return 0;
}

/* Opening with syncs must end with the fault of a failed one. */
static void trail_refused_commit(void)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600, .commit = true};
    struct audit *audit = NULL;
    struct fault fault;

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == -1);
    cr_expect(strstr(fault.what, "Input/output error") != NULL, "%s", fault.what);
}

static size_t file_size(const char *path)
{
    struct stat st;

    cr_assert(stat(path, &st) == 0, "%s", path);
    return (size_t)st.st_size;
}

/* The longest that a file may become, for this process; it does not die of it. */
static void limit_set(rlim_t limit)
{
    struct rlimit r;

    signal(SIGXFSZ, SIG_IGN);
    cr_assert(getrlimit(RLIMIT_FSIZE, &r) == 0);
    r.rlim_cur = limit;
    cr_assert(setrlimit(RLIMIT_FSIZE, &r) == 0);
}

/* Where the last record begins. */
static size_t last_line(const char *text, size_t end)
{
    size_t at = end - 1;

    while (at > 0 && text[at - 1] != '\n') {
        at--;
    }
    return at;
}

/* Two records and `more` decisions. */
static void chain_make(unsigned more)
{
    struct audit *audit = trail_open(file);

    for (unsigned i = 0; i < more; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
    }
    audit_close(audit);
}

TRAIL_TEST(begins_with_chain_open_and_the_start)
{
    struct audit *audit = trail_open(file);
    struct walk walk = walk_whole(file);
    struct stat st;

    cr_expect_eq(walk.records, 2);
    cr_expect_str_eq(walk.event, "lifecycle");
    cr_expect_eq(strlen(walk.chain), 16);
    cr_expect_eq(strspn(walk.chain, "0123456789abcdef"), 16);
    cr_expect(stat(file, &st) == 0 && (st.st_mode & 07777) == 0640);
    cr_expect_eq(audit_stuck_holder(audit), 0);
    cr_expect_eq(audit_last_error(audit), 0);
    audit_close(audit);
    audit_close(NULL);
}

TRAIL_TEST(chains_a_hundred_records)
{
    struct audit *audit = trail_open(file);
    struct audit_record record = sample();
    struct walk walk;

    for (unsigned i = 0; i < 98; i++) {
        char expected[AUDIT_ID_BYTES];
        char id[AUDIT_ID_BYTES];
        uint64_t seq = 0;

        walk = walk_whole(file);
        cr_assert_eq(audit_append(audit, &record, id, &seq), REASON_OK);
        cr_assert_eq(seq, i + 2);
        snprintf(expected, sizeof(expected), "%s-%u", walk.chain, i + 2);
        cr_assert_str_eq(id, expected);
    }
    walk = walk_whole(file);
    cr_expect_eq(walk.records, 100);
    cr_expect_eq(walk.recoveries, 0);
    audit_close(audit);
}

TRAIL_TEST(goes_on_after_a_restart)
{
    struct walk before;
    struct walk after;

    chain_make(5);
    before = walk_whole(file);
    chain_make(3);
    after = walk_whole(file);
    cr_expect_eq(before.records, 7);
    cr_expect_eq(after.records, 11);
    cr_expect_str_eq(before.chain, after.chain);
}

TRAIL_TEST(begins_a_new_chain_in_an_empty_file)
{
    file_put(file, "", 0);
    chain_make(1);
    cr_expect_eq(walk_whole(file).records, 3);
}

TRAIL_TEST(takes_the_host_name_when_no_node_is_given)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600};
    struct audit *audit = NULL;
    struct fault fault;
    char expected[300] = ",\"node\":\"";
    size_t len;
    char *text;

    cr_assert(gethostname(expected + 9, 256) == 0);
    strcat(expected, "\",");
    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0);
    text = file_get(file, &len);
    cr_expect(strstr(text, expected) != NULL, "%s", text);
    free(text);
    audit_close(audit);
}

TRAIL_TEST(writes_events)
{
    struct audit *audit = trail_open(file);
    size_t len;
    char *text;

    cr_assert_eq(audit_append_event(audit, "config", "reload", "rejected", "a\nb"), REASON_OK);
    text = file_get(file, &len);
    cr_expect(strstr(text, ",\"event\":\"config\",\"action\":\"reload\",\"result\":\"rejected\","
                           "\"detail\":\"a\\u000ab\",\"h\":\"") != NULL);
    free(text);
    cr_expect_eq(walk_whole(file).records, 3);
    audit_close(audit);
}

TRAIL_TEST(syncs_each_record_when_told_to)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600, .commit = true};
    struct audit *audit = NULL;
    struct fault fault;
    unsigned before;

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0);
    before = disk.syncs;
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(disk.syncs, before + 1);
    cr_expect_eq(walk_whole(file).records, 3);
    audit_close(audit);
}

TRAIL_TEST(does_not_sync_unless_told_to)
{
    struct audit *audit = trail_open(file);
    unsigned before = disk.syncs;

    cr_expect_gt(before, 0); /* what the start found out must last */
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(disk.syncs, before);
    audit_close(audit);
}

TRAIL_TEST(is_unavailable_when_a_sync_fails)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600, .commit = true};
    struct audit *audit = NULL;
    struct fault fault;

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0);
    disk.error = EIO;
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_last_error(audit), EIO);
    disk.error = 0;
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(walk_whole(file).records, 4);
    audit_close(audit);
    disk.error = EIO;
    trail_refused_commit();
}

TRAIL_TEST(gives_a_new_file_its_mode_whatever_the_umask)
{
    struct stat st;

    umask(0177);
    chain_make(0);
    cr_expect(stat(file, &st) == 0 && (st.st_mode & 07777) == 0640);
}

/* After a torn tail of any length the chain must go on and be provable. */
TRAIL_TEST(mends_a_tail_torn_at_any_byte)
{
    size_t whole;
    size_t before;
    char *text;

    chain_make(1);
    before = file_size(file);
    chain_make(1);
    text = file_get(file, &whole);
    /* The start's record and the decision, so that both kinds are torn. */
    for (size_t len = before; len <= whole; len++) {
        size_t records = 0;
        struct walk walk;

        for (size_t i = 0; i < len; i++) {
            records += text[i] == '\n';
        }
        file_put(file, text, len);
        head_lose();
        chain_make(1);
        walk = walk_whole(file);
        if (len == whole || text[len - 1] == '\n') {
            cr_assert(walk.recoveries == 0 && walk.records == records + 2, "at %zu", len);
        } else if (text[len] == '\n') {
            /* All but its LF: it is completed. */
            cr_assert(walk.recoveries == 0 && walk.records == records + 3, "at %zu", len);
        } else {
            cr_assert(walk.recoveries == 1 && walk.records == records + 3, "at %zu", len);
        }
    }
    free(text);
}

TRAIL_TEST(mends_a_first_record_torn_at_any_byte)
{
    char key[AUDIT_KEY_BYTES];
    struct fault fault;
    size_t key_len;
    size_t whole;
    char *key_file;
    char *text;

    cr_assert(audit_init_key(".", file, (uid_t)-1, (gid_t)-1, key, &fault) == 0);
    key_file = file_get("audit.key", &key_len);
    chain_make(0);
    text = file_get(file, &whole);
    for (size_t len = 1; text[len - 1] != '\n'; len++) {
        struct walk walk;

        file_put(file, text, len);
        file_put("audit.key", key_file, key_len);
        head_lose();
        chain_make(1);
        walk = walk_whole(file);
        cr_assert_eq(walk.recoveries, text[len] == '\n' ? 0 : 1, "at %zu", len);
        cr_assert_eq(walk.records, 3, "at %zu", len);
    }
    free(text);
    free(key_file);
}

TRAIL_TEST(mends_a_tail_whose_mending_was_torn)
{
    size_t whole;
    size_t torn;
    char *text;

    chain_make(2);
    torn = file_size(file) - 40;
    text = file_get(file, &whole);
    file_put(file, text, torn);
    head_lose();
    free(text);
    chain_make(0); /* LF, recovery, start */
    text = file_get(file, &whole);
    for (size_t len = torn + 1; len < whole; len++) {
        struct walk walk;

        file_put(file, text, len);
        head_lose();
        chain_make(1);
        walk = walk_whole(file);
        cr_assert_geq(walk.recoveries, 1, "at %zu", len);
        cr_assert_leq(walk.recoveries, 2, "at %zu", len);
        cr_assert_geq(walk.records, 6, "at %zu", len);
    }
    free(text);
}

TRAIL_TEST(closes_any_bytes_that_a_lost_host_left_at_the_end)
{
    char zeros[9000] = {0};
    struct walk walk;
    int fd;

    chain_make(1);
    fd = open(file, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, zeros, sizeof(zeros)), (ssize_t)sizeof(zeros));
    close(fd);
    chain_make(1);
    walk = walk_whole(file);
    cr_expect_eq(walk.recoveries, 1);
    cr_expect_eq(walk.records, 6);
}

TRAIL_TEST(refuses_what_is_no_trail_and_leaves_it_alone)
{
    static const struct {
        const char *text;
        const char *why;
    } rows[] = {
        {"hello\n", "a text"},
        {"hello", "a text without LF"},
        {"\n", "an empty line"},
        {"{\"v\":1}\n", "another JSON"},
        {"{\"v\":1,\"seq\":1,\"ts\":\"2025", "a torn record that is not the first"},
        {"{\"v\":1,\"seq\":0,\"ts\":\"2025\nhello\n", "a torn record and a text"},
        {"{\"v\":1,\"seq\":5,\"ts\":\"2025-11-21T20:11:03.123456Z\",\"chain\":\"0123456789abcdef\","
         "\"node\":\"a\",\"event\":\"chain.open\",\"h\":\"short\"}\n",
         "a hash too short"},
        {"{\"v\":1,\"seq\":00,\"ts\":\"2025-11-21T20:11:03.123456Z\",\"chain\":\"0123456789abcdef\""
         ",\"node\":\"a\",\"event\":\"chain.open\",\"h\":\"0123456789abcdef0123456789abcdef01234567"
         "89abcdef0123456789abcdef\"}\n",
         "a number with a leading zero"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t len;
        char *text;

        file_put(file, rows[i].text, strlen(rows[i].text));
        trail_refused(file, "does not end like an audit trail");
        text = file_get(file, &len);
        cr_expect_str_eq(text, rows[i].text, "%s", rows[i].why);
        free(text);
    }
}

TRAIL_TEST(refuses_a_long_file_of_another_kind)
{
    static char zeros[200000];

    file_put(file, zeros, sizeof(zeros));
    trail_refused(file, "does not end like an audit trail");
    cr_expect_eq(file_size(file), sizeof(zeros));
}

TRAIL_TEST(takes_no_more_than_64_KiB_for_torn)
{
    static char zeros[64 * 1024 + 1];

    for (size_t more = 0; more < 2; more++) {
        int fd;

        chain_make(0);
        fd = open(file, O_WRONLY | O_APPEND);
        cr_assert_eq(write(fd, zeros, 64 * 1024 + more), (ssize_t)(64 * 1024 + more));
        close(fd);
        if (more == 0) {
            chain_make(0);
            cr_assert_eq(walk_whole(file).recoveries, 1);
        } else {
            trail_refused(file, "does not end like an audit trail");
        }
    }
}

TRAIL_TEST(goes_on_right_after_the_longest_recovery)
{
    static char zeros[64 * 1024];
    size_t len;
    char *text;
    int fd;

    chain_make(0);
    fd = open(file, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, zeros, sizeof(zeros)), (ssize_t)sizeof(zeros));
    close(fd);
    chain_make(0);
    text = file_get(file, &len);
    file_put(file, text, last_line(text, len)); /* without the start after it */
    head_lose();
    free(text);
    cr_assert_str_eq(walk_whole(file).event, "recovery");
    chain_make(0);
    cr_expect_eq(walk_whole(file).records, 4);
}

TRAIL_TEST(refuses_a_line_of_somebody_else_after_its_own)
{
    size_t before;
    int fd;

    chain_make(1);
    fd = open(file, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, "hello\n", 6), 6);
    close(fd);
    before = file_size(file);
    trail_refused(file, "does not end like an audit trail");
    cr_expect_eq(file_size(file), before);
}

TRAIL_TEST(refuses_a_last_record_that_does_not_fit)
{
    size_t len;
    char *text;
    char *bad;
    size_t last;
    size_t second;

    chain_make(4);
    text = file_get(file, &len);
    bad = malloc(len);
    cr_assert(bad != NULL);
    last = last_line(text, len);
    second = last_line(text, last);

    memcpy(bad, text, len);
    *(char *)memmem(bad + last, len - last, "alice", 5) = 'A';
    file_put(file, bad, len);
    trail_refused(file, "the last record does not fit the one before");

    memcpy(bad, text, len);
    bad[last - 10] = bad[last - 10] == '0' ? '1' : '0'; /* in the hash of the one before */
    file_put(file, bad, len);
    trail_refused(file, "the last record does not fit the one before");

    memcpy(bad, text, second); /* the one before is gone */
    memcpy(bad + second, text + last, len - last);
    file_put(file, bad, second + len - last);
    trail_refused(file, "the last record does not fit the one before");

    file_put(file, text + last, len - last); /* nothing but the last */
    trail_refused(file, "the last record does not fit the one before");

    file_put(file, text, len);
    chain_make(0);
    cr_expect_eq(walk_whole(file).records, 7);
    free(bad);
    free(text);
}

TRAIL_TEST(refuses_an_altered_opening)
{
    size_t len;
    char *text;

    chain_make(0);
    text = file_get(file, &len);
    text[last_line(text, len)] = '\0';
    *strstr(text, "web1") = 'W';
    file_put(file, text, strlen(text));
    trail_refused(file, "the last record does not fit the one before");
    free(text);
}

TRAIL_TEST(refuses_a_path_that_is_no_regular_file)
{
    chain_make(0);
    cr_assert(symlink(file, "link") == 0 && mkfifo("fifo", 0600) == 0 && mkdir("dir", 0700) == 0);
    trail_refused("link", "is a symbolic link");
    trail_refused("fifo", ""); /* nobody reads it: ENXIO */
    trail_refused("dir", "cannot be opened");
    trail_refused("/dev/full", "is not a regular file");
    trail_refused("/dev/null", "is not a regular file");
    trail_refused("nowhere/audit.jsonl", "No such file");
    cr_expect_eq(walk_whole(file).records, 2);
}

TRAIL_TEST(refuses_a_fifo_that_somebody_reads)
{
    int fd;

    cr_assert(mkfifo("fifo", 0600) == 0);
    fd = open("fifo", O_RDWR | O_NONBLOCK);
    cr_assert(fd >= 0);
    trail_refused("fifo", "is not a regular file");
    close(fd);
}

TRAIL_TEST(refuses_a_file_that_another_daemon_writes)
{
    struct audit *audit = trail_open(file);

    trail_refused(file, "in use by another daemon");
    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    chain_make(0);
    cr_expect_eq(walk_whole(file).records, 4);
}

TRAIL_TEST(says_at_the_start_that_it_cannot_write)
{
    limit_set(0);
    trail_refused_at("./audit.head", file, "File too large");
    limit_set(RLIM_INFINITY);
    chain_make(0);
    limit_set(file_size(file) + 10);
    trail_refused(file, "File too large");
    limit_set(RLIM_INFINITY);
    chain_make(0);
    cr_expect_eq(walk_whole(file).records, 4);
}

/* A short write after any number of bytes: unavailable as long as it lasts, whole afterwards. */
TRAIL_TEST(survives_a_write_cut_short_after_any_byte)
{
    struct audit *audit = trail_open(file);
    size_t start = file_size(file);
    struct walk after = {.next_seq = 0};
    struct walk before;

    /* Up to one byte less than a record is long; from time to time its number gets a digit more. */
    cr_assert_eq(append_sample(audit), REASON_OK);
    for (size_t left = file_size(file) - start; left > 0; left--) {
        size_t len = file_size(file);

        cr_assert_eq(append_sample(audit), REASON_OK);
        len = file_size(file) - len;
        before = after;
        walk_on(&before, file);
        limit_set(file_size(file) + len - left);
        cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
        cr_assert_eq(audit_last_error(audit), EFBIG);
        cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
        limit_set(RLIM_INFINITY);
        cr_assert_eq(append_sample(audit), REASON_OK);
        cr_assert_eq(audit_last_error(audit), 0);
        after = before;
        walk_on(&after, file);
        cr_assert_eq(after.recoveries - before.recoveries, left == len || left == 1 ? 0 : 1,
                     "%zu bytes missing", left);
        cr_assert_eq(after.records - before.records, left == len ? 1 : 2, "%zu bytes missing",
                     left);
    }
    audit_close(audit);
}

TRAIL_TEST(survives_a_recovery_cut_short_after_any_byte)
{
    struct audit *audit = trail_open(file);
    struct walk after = {.next_seq = 0};
    struct walk before = {.next_seq = 0};

    for (size_t cut = 0; before.recoveries + 1 >= after.recoveries; cut++) {
        walk_on(&after, file);
        before = after;
        limit_set(file_size(file) + 100);
        cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
        limit_set(file_size(file) + cut);
        cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
        limit_set(RLIM_INFINITY);
        cr_assert_eq(append_sample(audit), REASON_OK);
        walk_on(&after, file);
        if (cut < 250) {
            cr_assert_eq(after.recoveries - before.recoveries, 1, "after %zu bytes", cut);
            cr_assert_eq(after.records - before.records, 2, "after %zu bytes", cut);
        }
    }
    /* The last time the recovery was whole, and what followed it was torn. */
    audit_close(audit);
}

TRAIL_TEST(survives_a_restart_on_a_full_disk)
{
    chain_make(1);
    for (size_t cut = 0; cut < 150; cut += 7) {
        struct walk before = walk_whole(file);
        struct walk after;

        limit_set(file_size(file) + cut);
        trail_refused(file, "cannot be written: File too large");
        trail_refused(file, "cannot be written: File too large");
        limit_set(RLIM_INFINITY);
        chain_make(0);
        after = walk_whole(file);
        cr_assert_eq(after.recoveries - before.recoveries, cut == 0 ? 0 : 1, "%zu bytes", cut);
        cr_assert_eq(after.records - before.records, cut == 0 ? 1 : 2, "%zu bytes", cut);
    }
}

TRAIL_TEST(grants_again_when_a_full_disk_has_space)
{
    struct audit *audit;
    struct walk walk;
    static char fill[4096];
    unsigned good = 0;
    int fd;

    cr_assert(mkdir("small", 0700) == 0);
    /* A name space of its own, so that the mount ends with this process whatever happens. */
    cr_assert(unshare(CLONE_NEWNS) == 0);
    (void)mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL); /* not in a chroot */
    cr_assert(mount("tmpfs", "small", "tmpfs", 0, "size=64k") == 0, "%s", strerror(errno));
    audit = trail_open("small/audit.jsonl");
    fd = open("small/fill", O_WRONLY | O_CREAT, 0600);
    while (write(fd, fill, sizeof(fill)) > 0) {
    }
    while (append_sample(audit) == REASON_OK) {
        good++;
    }
    cr_expect_eq(audit_last_error(audit), ENOSPC);
    cr_expect_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_assert(ftruncate(fd, 0) == 0);
    cr_expect_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(audit_last_error(audit), 0);
    walk = walk_whole("small/audit.jsonl");
    cr_expect(good > 0 && walk.records >= good + 3);
    close(fd);
    audit_close(audit);
    cr_assert(umount("small") == 0);
}

/* What the next record of the chain must be, made by hand. */
static size_t forge(char *line, const struct walk *walk)
{
    struct audit_record record = sample();
    unsigned char raw[32];
    char hex[65];
    size_t len = audit_format(line, (uint64_t)walk->next_seq, walk->chain, "web1", &record);

    hash_of(hex, walk->prev, line, len, raw);
    return len + (size_t)sprintf(line + len, ",\"h\":\"%s\"}\n", hex);
}

TRAIL_TEST(adopts_a_record_that_its_writer_did_not_live_to_count)
{
    struct audit *audit = trail_open(file);
    struct walk walk = walk_whole(file);
    char line[AUDIT_RECORD_MAX + 1];
    size_t len = forge(line, &walk);
    int fd = open(file, O_WRONLY | O_APPEND);

    limit_set(file_size(file)); /* so that it knows of trouble */
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    limit_set(RLIM_INFINITY);
    cr_assert_eq(write(fd, line, len), (ssize_t)len);
    close(fd);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk = walk_whole(file);
    cr_expect_eq(walk.records, 4);
    cr_expect_eq(walk.recoveries, 0);
    audit_close(audit);
}

TRAIL_TEST(does_not_complete_a_record_over_bytes_that_nothing_accounts_for)
{
    struct walk walk;
    char line[AUDIT_RECORD_MAX + 1];
    size_t len;
    int fd;

    chain_make(0);
    walk = walk_whole(file);
    len = forge(line, &walk);
    fd = open(file, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, "{\"v\":1\n", 7), 7);
    cr_assert_eq(write(fd, line, len - 1), (ssize_t)len - 1);
    close(fd);
    chain_make(0);
    walk = walk_whole(file);
    cr_expect_eq(walk.recoveries, 1);
    cr_expect_eq(walk.records, 4);
}

TRAIL_TEST(refuses_a_last_record_that_skips_a_number)
{
    struct walk walk;
    char line[AUDIT_RECORD_MAX + 1];
    size_t len;
    int fd;

    chain_make(0);
    walk = walk_whole(file);
    walk.next_seq++;
    len = forge(line, &walk);
    fd = open(file, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, line, len), (ssize_t)len);
    close(fd);
    trail_refused(file, "the last record does not fit the one before");
}

TRAIL_TEST(goes_on_from_the_beginning_of_a_line_when_somebody_cut_the_file)
{
    static const int lengths[] = {0, 7, 300, -1};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct audit *audit = trail_open(file);
        size_t size;
        size_t len;
        char *text;
        char *last;

        cr_assert_eq(append_sample(audit), REASON_OK);
        size = file_size(file);
        cr_assert(truncate(file, lengths[i] < 0 ? (off_t)size - 5 : lengths[i]) == 0);
        limit_set(file_size(file));
        cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
        limit_set(RLIM_INFINITY);
        cr_assert_eq(append_sample(audit), REASON_OK);
        cr_assert_eq(append_sample(audit), REASON_OK);
        text = file_get(file, &len);
        last = text + last_line(text, len);
        cr_expect(strncmp(last, "{\"v\":1,\"seq\":", 13) == 0 && strstr(last, "alice") != NULL);
        free(text);
        audit_close(audit);
        cr_assert(unlink(file) == 0);
    }
}

TRAIL_TEST(goes_on_in_a_new_file_when_told_to)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};

    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.1") == 0);
    cr_assert_eq(append_sample(audit), REASON_OK); /* still the old one */
    trail_rotate(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert_eq(append_sample(audit), REASON_OK);
    trail_rotate(audit); /* the same file again: a record proves that it can be written */
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk_on(&walk, "audit.1");
    cr_expect_eq(walk.records, 4 + 2);
    cr_expect_eq(walk.seals, 1);
    cr_expect_str_eq(walk.event, "segment.close");
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 6 + 1 + 4);
    audit_close(audit);
    chain_make(0); /* a restart goes on from a segment too */
    walk = (struct walk){.next_seq = 0};
    walk_on(&walk, "audit.1");
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 6 + 1 + 4 + 1);
}

TRAIL_TEST(looks_for_a_new_file_only_when_told_to)
{
    struct audit *audit = trail_open(file);

    trail_rotate(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.1") == 0);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(walk_whole("audit.1").records, 5);
    cr_expect(access(file, F_OK) != 0);
    audit_close(audit);
}

TRAIL_TEST(begins_anew_in_a_file_that_was_emptied)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};

    walk_on(&walk, file);
    struct audit_news news;
    cr_assert(truncate(file, 0) == 0);
    cr_assert_eq(audit_rotate(audit, &news), 0);
    cr_expect(strstr(news.fault.what, "was emptied: what was in it, up to record 1, is lost") !=
                  NULL,
              "%s", news.fault.what);
    cr_expect_eq(audit_seals(audit).broken, 1);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 4);
    audit_close(audit);
    chain_make(0);
    walk_on(&walk, file);
}

TRAIL_TEST(goes_on_after_a_restart_when_a_segment_has_but_its_opening)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};
    size_t len;
    char *text;

    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    text = file_get(file, &len);
    len = last_line(text, len);
    file_put(file, text, len);
    head_lose();
    chain_make(0);
    walk_file(&walk, "audit.1");
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 4 + 2);
    *strstr(text, "web1") = 'W';
    file_put(file, text, len);
    trail_refused(file, "the last record does not fit the one before");
    free(text);
}

TRAIL_TEST(begins_a_new_file_however_short_its_first_write_was)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};
    struct audit_news news;
    unsigned refused = 0;
    char old[32];

    for (unsigned cut = 0; cut<560; cut += cut> 300 ? 1 : 7) {
        int turned;

        snprintf(old, sizeof(old), "audit.%u", cut);
        cr_assert(rename(file, old) == 0);
        limit_set(cut);
        turned = audit_rotate(audit, &news);
        cr_assert(news.fault.what[0] != '\0'); /* at least, that the old one cannot be sealed */
        if (turned != 0) {
            refused++;
            /* Nobody writes to the old one any more. */
            cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
            cr_assert_eq(audit_last_error(audit), EFBIG);
            limit_set(RLIM_INFINITY);
            cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
            trail_rotate(audit);
        }
        limit_set(RLIM_INFINITY);
        cr_assert_eq(append_sample(audit), REASON_OK);
        walk_file(&walk, old);
        walk.at = 0;
    }
    cr_expect_gt(refused, 100);
    walk_next(&walk, file);
    audit_close(audit);
}

TRAIL_TEST(leaves_a_torn_file_behind_when_it_cannot_be_mended)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};
    struct audit_news news;
    size_t size = file_size(file);

    cr_assert(size + 30 > 500);
    limit_set(size + 30);
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_assert(rename(file, "audit.1") == 0);
    /* Still no byte more in the old file, but enough for a new one. */
    cr_assert_eq(audit_rotate(audit, &news), 0, "%s", news.fault.what);
    cr_expect(strstr(news.fault.what, "File too large") != NULL, "%s", news.fault.what);
    limit_set(RLIM_INFINITY);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk_file(&walk, "audit.1");
    cr_expect_eq(walk.stray_end, 30);
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 4);
    audit_close(audit);
}

TRAIL_TEST(mends_the_old_file_before_it_goes_on_in_a_new_one)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};

    limit_set(file_size(file) + 30);
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    limit_set(RLIM_INFINITY);
    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk_on(&walk, "audit.1");
    cr_expect_eq(walk.recoveries, 1);
    cr_expect_str_eq(walk.event, "segment.close");
    walk_next(&walk, file);
    audit_close(audit);
}

TRAIL_TEST(does_not_go_on_in_somebody_elses_file)
{
    struct audit *audit = trail_open(file);
    struct walk walk = {.next_seq = 0};
    char *text;
    size_t len;

    cr_assert(rename(file, "audit.1") == 0);
    file_put(file, "hello\n", 6);
    trail_rotate_refused(audit, "holds something already");
    cr_assert_eq(append_sample(audit), REASON_OK); /* the old one stays in use */
    text = file_get(file, &len);
    cr_expect_str_eq(text, "hello\n");
    free(text);
    cr_assert(unlink(file) == 0 && symlink("audit.1", file) == 0);
    trail_rotate_refused(audit, "cannot be opened: Too many levels of symbolic links");
    cr_assert(unlink(file) == 0 && mkdir(file, 0700) == 0);
    trail_rotate_refused(audit, "cannot be opened: Is a directory");
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rmdir(file) == 0);
    trail_rotate(audit);
    walk_on(&walk, "audit.1");
    cr_expect_eq(walk.records, 6);
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 7);
    audit_close(audit);
}

TRAIL_TEST(does_not_go_on_in_another_chain)
{
    struct audit *audit;

    chain_make(0); /* as long as the other */
    cr_assert(rename(file, "other") == 0);
    state_lose();
    audit = trail_open(file);
    cr_assert(rename(file, "audit.1") == 0 && rename("other", file) == 0);
    trail_rotate_refused(audit, "holds something already");
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(walk_whole(file).records, 2);
    cr_expect_eq(walk_whole("audit.1").records, 3);
    audit_close(audit);
    trail_refused(file, "knows nothing");
    state_lose();
    trail_refused(file, "knows nothing");
}

TRAIL_TEST(goes_on_after_a_restart_in_a_copy_that_ends_with_the_head)
{
    char *text;
    size_t len;

    chain_make(0);
    text = file_get(file, &len);
    cr_assert(rename(file, "audit.1") == 0);
    file_put(file, text, len);
    free(text);
    chain_make(0);
    cr_expect_eq(walk_whole(file).records, 3);
}

/* As the daemon does it: opened by root, reopened by the user it became. */
TRAIL_TEST(belongs_to_the_user_that_it_was_opened_for)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600};
    struct audit *audit = NULL;
    struct fault fault;
    struct stat st;
    int status = 0;
    pid_t child;

    cr_assert(audit_open(&options, 65534, 65534, &audit, &fault) == 0);
    cr_assert(stat(file, &st) == 0 && st.st_uid == 65534 && st.st_gid == 65534);
    child = fork();
    if (child == 0) {
        int failed = 1;

        if (setgid(65534) == 0 && setuid(65534) == 0) {
            failed = append_sample(audit) != REASON_OK ? 2 : 0;
        }
        _exit(failed);
    }
    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
    cr_expect_eq(walk_whole(file).records, 3);
    audit_close(audit);
}

TRAIL_TEST(does_not_give_an_existing_file_to_another_user)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0600};
    struct audit *audit = NULL;
    struct fault fault;
    struct stat st;

    file_put(file, "", 0);
    cr_assert(audit_open(&options, 65534, 65534, &audit, &fault) == 0);
    cr_expect(stat(file, &st) == 0 && st.st_uid == getuid());
    audit_close(audit);
}
