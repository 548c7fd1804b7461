/* Seals, keys and segments: what the supervisor adds to the trail, and what it finds out. */
#include "base/sync.h"
#include "trail/audit.h"
#include "trail/audit_format.h"
#include "trail/chain.h"
#include "trail/head.h"
#include "trail/sealkey.h"
#include "trail_walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define TRAIL_TEST(what)                                                                           \
    Test(seal, what, .init = directory_enter, .fini = directory_leave, .timeout = 100)

static const char file[] = "audit.jsonl";
static const struct audit_pace pace = {.seal_ms = 60000};

/* The clock of the tests, in milliseconds. */
static uint64_t now = 1000;

static bool disk_broken;
static unsigned disk_late_us; /* so long it takes to say so */

/* What somebody else does while the disk is waited for, once. */
static void (*meanwhile)(void);

static bool disk_unreadable;

/* The library's, in this program. */
ssize_t pread(int fd, void *out, size_t len, off_t offset)
{
    errno = EIO;
    return disk_unreadable ? -1 : (ssize_t)syscall(SYS_pread64, fd, out, len, offset);
}

/* What the disk has no room for: writes with these words in them. */
static const char *disk_full_for;

/* So many bytes of the next write come later than the others, after this was done. */
static size_t write_late;
static void (*write_between)(void);

/* The library's, in this program. */
ssize_t write(int fd, const void *bytes, size_t len)
{
    const size_t late = write_late < len ? write_late : 0;
    ssize_t r;

    write_late = 0;
    errno = ENOSPC;
    if (disk_full_for != NULL && memmem(bytes, len, disk_full_for, strlen(disk_full_for)) != NULL) {
        return -1;
    }
    r = (ssize_t)syscall(SYS_write, fd, bytes, len - late);
    if (late > 0 && write_between != NULL) {
        write_between();
    }
    return r;
}

static unsigned disk_syncs;

/* The library's, in this program. */
int fdatasync(int fd)
{
    void (*call)(void) = meanwhile;

    meanwhile = NULL;
    disk_syncs++;
    if (call != NULL) {
        call();
    }
    if (disk_late_us > 0) {
        usleep(disk_late_us);
    }
    errno = EIO;
    return disk_broken ? -1 : fsync(fd);
}

static void limit_set(rlim_t limit)
{
    struct rlimit r;

    signal(SIGXFSZ, SIG_IGN);
    cr_assert(getrlimit(RLIMIT_FSIZE, &r) == 0);
    r.rlim_cur = limit;
    cr_assert(setrlimit(RLIMIT_FSIZE, &r) == 0);
}

static size_t file_size(const char *path)
{
    struct stat st;

    cr_assert(stat(path, &st) == 0, "%s", path);
    return (size_t)st.st_size;
}

/* A tick a minute later. */
static bool tick(struct audit *audit, struct audit_news *news)
{
    now += 60000;
    return audit_tick(audit, &pace, now, news);
}

/* The same, which must seal. */
static void seal(struct audit *audit)
{
    struct audit_news news;

    cr_assert(tick(audit, &news));
    cr_assert_str_eq(news.fault.what, "");
    cr_assert(news.seal[0] != '\0');
}

static void stop(struct audit *audit)
{
    struct audit_news news;

    cr_assert(audit_stop(audit, &news) == 0, "%s: %s", news.fault.where, news.fault.what);
    cr_assert(news.seal[0] != '\0');
    audit_close(audit);
}

static struct audit *trail_open_with(const struct audit_options *options)
{
    struct audit *audit = NULL;
    struct fault fault = {.where = ""};

    cr_assert(audit_open(options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0, "%s: %s", fault.where,
              fault.what);
    /* The first tick only looks at the clock. */
    cr_assert(!audit_tick(audit, &pace, now, &(struct audit_news){.seal = ""}));
    return audit;
}

static struct audit *trail_begin(void)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .node = "web1", .version = "1.2.3"};

    return trail_open_with(&options);
}

/* The last line that has `part`; the caller frees it. NULL when there is none. */
static char *line_find(const char *path, const char *part)
{
    size_t len;
    char *text = file_get(path, &len);
    char *found = NULL;

    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strstr(line, part) != NULL) {
            free(found);
            found = strdup(line);
        }
    }
    free(text);
    return found;
}

static void expect_line(const char *path, const char *part, const char *more)
{
    char *line = line_find(path, part);

    cr_assert(line != NULL && strstr(line, more) != NULL, "no %s, but: %s", more,
              line == NULL ? "no such line" : line);
    free(line);
}

/* ---- seals */

TRAIL_TEST(seals_what_was_written_when_it_is_time)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct walk walk;

    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
        cr_assert(!audit_tick(audit, &pace, now + 59999, &news));
        seal(audit);
        cr_assert(!tick(audit, &news), "there was nothing to seal");
    }
    walk = walk_whole(file);
    cr_expect_eq(walk.seals, 5);
    cr_expect_eq(walk.records, 2 + 2 * 5);
    cr_expect_eq(walk.epoch, 5);
    audit_close(audit);
}

TRAIL_TEST(tells_each_seal)
{
    struct audit *audit = trail_begin();
    char expected[AUDIT_SEAL_TEXT];
    struct audit_news news;
    struct walk walk;
    char next[65];
    char hash[65];

    cr_assert(tick(audit, &news));
    walk = walk_whole(file);
    secret_hex(next, walk.pk, 32);
    secret_hex(hash, walk.prev, 32);
    snprintf(expected, sizeof(expected), "chain %s, seq 2, from 0, epoch 0, h %s, next key %s",
             walk.chain, hash, next);
    cr_expect_str_eq(news.seal, expected);
    cr_expect_str_eq(news.segment, "");
    cr_expect_str_eq(audit_chain(audit), walk.chain);
    audit_close(audit);
}

TRAIL_TEST(stops_with_a_seal_and_says_later_that_it_did)
{
    struct walk walk;

    stop(trail_begin());
    expect_line(file, "\"action\":\"start\"", ",\"version\":\"1.2.3\",\"pid\":");
    expect_line(file, "\"action\":\"start\"", ",\"clean\":true,");
    expect_line(file, "\"event\":\"lifecycle\"", "\"action\":\"stop\"");
    cr_expect_str_eq(walk_whole(file).event, "seal");
    audit_close(trail_begin());
    expect_line(file, "\"action\":\"start\"", ",\"clean\":true,");
    audit_close(trail_begin());
    expect_line(file, "\"action\":\"start\"", ",\"clean\":false,");
    stop(trail_begin());
    cr_assert(rename(file, "audit.1") == 0);
    audit_close(trail_begin());
    expect_line(file, "\"action\":\"start\"", ",\"clean\":true,");
    walk = walk_whole("audit.1");
    cr_expect_eq(walk.seals, 2);
    walk_next(&walk, file);
}

TRAIL_TEST(survives_a_seal_cut_short_after_any_byte)
{
    struct audit *audit = trail_begin();
    struct walk walk = {.next_seq = 0};
    struct audit_news news = {.seal = ""};
    size_t len;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    len = file_size(file);
    seal(audit);
    len = file_size(file) - len;
    /* Up to the length at which nothing is cut; with larger numbers that is a little more. */
    for (size_t cut = 0;; cut += cut > len - 20 ? 1 : 13) {
        size_t seals;

        walk_on(&walk, file);
        seals = walk.seals;
        cr_assert_eq(append_sample(audit), REASON_OK);
        limit_set(file_size(file) + cut);
        cr_assert(tick(audit, &news));
        limit_set(RLIM_INFINITY);
        if (news.seal[0] != '\0') {
            cr_assert_geq(cut, len);
            break;
        }
        cr_assert(strstr(news.fault.what, "File too large") != NULL, "%s", news.fault.what);
        if (cut % 2 == 0) {
            cr_assert_eq(append_sample(audit), REASON_OK); /* a worker may be first to mend it */
        }
        cr_assert(tick(audit, &news) && news.seal[0] != '\0'); /* if it lacks but its LF, that */
        cr_assert_str_eq(news.fault.what, "");
        walk_on(&walk, file);
        cr_assert_gt(walk.seals, seals, "after %zu bytes", cut);
    }
    audit_close(audit);
}

static uint64_t key_epoch(void)
{
    struct sealkey keys;
    struct fault fault;
    uint64_t epoch;

    cr_assert(sealkey_open(".", &keys, &fault) == 0 && keys.found);
    epoch = keys.epoch;
    sealkey_close(&keys);
    return epoch;
}

TRAIL_TEST(keeps_the_key_until_its_seal_is_on_the_disk)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    cr_assert_eq(append_sample(audit), REASON_OK);
    now += 59500; /* nothing is left that is synced before it is sealed */
    cr_assert(!audit_tick(audit, &pace, now, &news));
    now += 500;
    disk_broken = true;
    cr_assert(audit_tick(audit, &pace, now, &news));
    disk_broken = false;
    cr_expect_str_eq(news.seal, "");
    cr_expect(strstr(news.fault.what, "cannot be synced") != NULL, "%s", news.fault.what);
    cr_expect_eq(walk_whole(file).seals, 1, "it is written");
    cr_expect_eq(key_epoch(), 0);
    cr_assert(tick(audit, &news));
    cr_expect_str_eq(news.fault.what, "");
    cr_expect_geq(key_epoch(), 1);
    stop(audit);
}

/* ---- keys */

TRAIL_TEST(gives_the_first_key_before_and_after_the_chain_has_begun)
{
    char before[AUDIT_KEY_BYTES];
    char after[AUDIT_KEY_BYTES];
    struct fault fault;
    struct audit *audit;
    struct stat st;

    cr_assert(audit_init_key(".", file, 65534, 65534, before, &fault) == 0);
    cr_assert(stat("audit.key", &st) == 0 && (st.st_mode & 07777) == 0600);
    cr_expect(st.st_uid == 65534 && st.st_gid == 65534);
    cr_assert(audit_init_key(".", file, (uid_t)-1, (gid_t)-1, after, &fault) == 0);
    cr_expect_str_eq(after, before);
    cr_assert(chown("audit.key", getuid(), getgid()) == 0);
    audit = trail_begin();
    expect_line(file, "chain.open", before);
    cr_expect_str_eq(audit_first_key(audit), before);
    seal(audit);
    stop(audit);
    cr_assert(audit_init_key(".", file, (uid_t)-1, (gid_t)-1, after, &fault) == 0);
    cr_expect_str_eq(after, before);
    audit = trail_begin();
    cr_expect_str_eq(audit_first_key(audit), before);
    audit_close(audit);
}

TRAIL_TEST(refuses_files_of_state_that_others_may_read_or_that_are_damaged)
{
    static const char *const names[] = {"audit.key", "audit.head"};

    stop(trail_begin());
    for (size_t i = 0; i < 2; i++) {
        char where[32];
        size_t len;
        char *text = file_get(names[i], &len);

        snprintf(where, sizeof(where), "./%s", names[i]);
        cr_assert(chmod(names[i], 0640) == 0);
        trail_refused_at(where, file, "must be a file of uid");
        cr_assert(chmod(names[i], 0600) == 0);
        text[3] ^= 1;
        file_put(names[i], text, len);
        trail_refused_at(where, file, "is damaged or none of ours");
        text[3] ^= 1;
        file_put(names[i], text, len - 1);
        trail_refused_at(where, file, "is damaged or none of ours");
        cr_assert(rename(names[i], "away") == 0 && symlink("away", names[i]) == 0);
        trail_refused_at(where, file, "cannot be opened");
        cr_assert(unlink(names[i]) == 0);
        file_put(names[i], text, len);
        free(text);
    }
    stop(trail_begin());
    walk_whole(file);
}

TRAIL_TEST(refuses_a_key_of_which_any_byte_was_changed)
{
    char *key;
    size_t len;

    stop(trail_begin());
    key = file_get("audit.key", &len);
    for (size_t i = 0; i < len; i++) {
        key[i] ^= 1;
        file_put("audit.key", key, len);
        trail_refused_at("./audit.key", file, "is damaged or none of ours");
        key[i] ^= 1;
    }
    file_put("audit.key", key, len);
    free(key);
    stop(trail_begin());
}

TRAIL_TEST(refuses_to_go_on_without_its_key)
{
    char key[AUDIT_KEY_BYTES];
    struct fault fault;
    size_t len;
    char *old;

    audit_close(trail_begin());
    old = file_get("audit.key", &len);
    stop(trail_begin());
    cr_assert(rename("audit.key", "away") == 0);
    trail_refused(file, "of which ./audit.key knows nothing");
    cr_assert_eq(audit_init_key(".", file, (uid_t)-1, (gid_t)-1, key, &fault), -1);
    cr_expect_str_eq(fault.where, "./audit.key");
    cr_expect(strstr(fault.what, "is missing, and audit.jsonl was sealed with it") != NULL);
    cr_expect_neq(access("audit.key", F_OK), 0, "none is made");
    cr_assert(audit_init_key(".", "none", (uid_t)-1, (gid_t)-1, key, &fault) == 0); /* another */
    trail_refused_at("./audit.key", file, "is not the key of epoch 1");
    file_put("audit.key", old, len); /* that of an epoch before */
    trail_refused_at("./audit.key", file, "is not the key of epoch 1");
    free(old);
    cr_assert(rename(file, "audit.1") == 0 && unlink("audit.key") == 0);
    trail_refused_at("./audit.key", file, "knows nothing of chain");
    cr_assert(rename("away", "audit.key") == 0);
    audit_close(trail_begin());
}

TRAIL_TEST(keeps_the_key_from_its_children)
{
    const struct span bytes = span_make("bytes", 5);
    unsigned char signature[SECRET_SIGNATURE_BYTES];
    struct sealkey keys;
    struct fault fault;
    int status = 0;
    pid_t child;

    cr_assert(sealkey_open(".", &keys, &fault) == 0 && !keys.found);
    cr_assert(sealkey_make(&keys, (uid_t)-1, (gid_t)-1, &fault) == 0);
    child = fork();
    if (child == 0) {
        sealkey_sign(&keys, signature, bytes);
        _exit(secret_sign_verify(signature, keys.current, bytes) ? 1 : 0);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "a child can sign");
    sealkey_sign(&keys, signature, bytes);
    cr_expect(secret_sign_verify(signature, keys.current, bytes));
    sealkey_close(&keys);
}

TRAIL_TEST(gives_memory_that_children_and_dumps_do_not_have)
{
    unsigned char *page = secret_page_open(64);
    char line[512];
    char flags[512] = "";
    char begin[32];
    bool ours = false;
    int status = 0;
    pid_t child;
    FILE *maps;

    cr_assert(page != NULL && page[0] == 0);
    memset(page, 'x', 64);
    child = fork();
    if (child == 0) {
        unsigned char any = 0;

        for (size_t i = 0; i < 64; i++) {
            any |= page[i];
        }
        _exit(any != 0);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    cr_expect_eq(page[63], 'x');
    maps = fopen("/proc/self/smaps", "r");
    cr_assert(maps != NULL);
    snprintf(begin, sizeof(begin), "%lx-", (unsigned long)(uintptr_t)page);
    while (fgets(line, sizeof(line), maps) != NULL) {
        ours = ours ? strchr(line, '-') == NULL || strncmp(line, "VmFlags", 7) == 0 ||
                          strchr(line, ':') < strchr(line, '-')
                    : strncmp(line, begin, strlen(begin)) == 0;
        if (ours && strncmp(line, "VmFlags:", 8) == 0) {
            strcpy(flags, line);
            break;
        }
    }
    fclose(maps);
    cr_expect(strstr(flags, " wf") != NULL && strstr(flags, " dd") != NULL, "%s", flags);
    secret_page_close(page, 64);
    secret_page_close(NULL, 64);
}

/* ---- a change of keys that was cut off */

TRAIL_TEST(goes_on_after_a_change_of_keys_that_was_cut_off_at_any_step)
{
    struct walk walk = {.next_seq = 0};

    for (unsigned step = 0; step < 12; step++) {
        struct audit *audit = trail_begin();
        struct sealkey keys;
        struct fault fault;
        size_t before_len;
        size_t both_len;
        size_t len;
        char *before;
        char *both;

        cr_assert_eq(append_sample(audit), REASON_OK);
        before = file_get("audit.key", &before_len);
        cr_assert(sealkey_open(".", &keys, &fault) == 0);
        cr_assert(sealkey_prepare(&keys, &fault) == 0); /* as the first step does */
        sealkey_close(&keys);
        both = file_get("audit.key", &both_len);
        audit_close(audit);
        audit = trail_begin(); /* takes the present key, and knows the next one */
        cr_assert_eq(append_sample(audit), REASON_OK);
        len = file_size(file);
        seal(audit);
        audit_close(audit);
        switch (step % 4) {
        case 0: /* the seal is in the trail, the file has yet to change */
            file_put("audit.key", both, both_len);
            break;
        case 1: /* the host lost the seal, so the next one is to be made with the key before */
            file_put("audit.key", both, both_len);
            cr_assert(truncate(file, (off_t)len) == 0);
            head_lose();
            break;
        case 2: /* but for its LF */
            file_put("audit.key", both, both_len);
            cr_assert(truncate(file, (off_t)file_size(file) - 1) == 0);
            head_lose();
            break;
        default:
            break;
        }
        if (step >= 4) {
            audit = trail_begin();
            cr_assert_eq(append_sample(audit), REASON_OK);
            if (step >= 8) {
                seal(audit);
            }
            audit_close(audit);
        }
        walk_file(&walk, file);
        cr_assert_eq(walk.stray_end != 0, step == 2, "%u", step);
        free(before);
        free(both);
    }
    stop(trail_begin());
    walk_on(&walk, file);
    cr_expect_geq(walk.seals, 10);
}

TRAIL_TEST(knows_from_the_head_which_key_a_file_that_is_gone_has_announced)
{
    struct walk walk = {.next_seq = 0};

    for (unsigned i = 0; i < 3; i++) {
        struct audit *audit = trail_begin();
        char old[32];
        struct sealkey keys;
        struct fault fault;
        size_t len;
        char *both;

        cr_assert(sealkey_open(".", &keys, &fault) == 0);
        cr_assert(sealkey_prepare(&keys, &fault) == 0);
        sealkey_close(&keys);
        both = file_get("audit.key", &len);
        audit_close(audit);
        audit = trail_begin();
        seal(audit);
        cr_assert_eq(append_sample(audit), REASON_OK);
        audit_close(audit);
        if (i > 0) {
            file_put("audit.key", both, len);
        }
        free(both);
        snprintf(old, sizeof(old), "audit.%u", i);
        cr_assert(rename(file, old) == 0);
        stop(trail_begin());
        walk.at = 0;
        walk_on(&walk, old);
        walk_next(&walk, file);
        cr_expect_eq(walk.seals, 2 * i + 2);
        cr_assert(rename(file, "audit.x") == 0);
    }
}

TRAIL_TEST(knows_from_a_segment_what_is_sealed_when_the_head_is_lost)
{
    struct audit *audit = trail_begin();
    struct walk walk = {.next_seq = 0};
    struct sealkey keys;
    struct fault fault;
    size_t len;
    char *both;

    cr_assert(sealkey_open(".", &keys, &fault) == 0 && sealkey_prepare(&keys, &fault) == 0);
    sealkey_close(&keys);
    both = file_get("audit.key", &len);
    audit_close(audit);
    audit = trail_begin();
    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    audit_close(audit);
    file_put("audit.key", both, len); /* the last step had not come */
    head_lose();
    free(both);
    stop(trail_begin());
    walk_on(&walk, "audit.1");
    walk_next(&walk, file);
    cr_expect_eq(walk.seals, 2);
}

/* ---- what was changed behind the supervisor's back */

static void append_bytes(const char *bytes, size_t len)
{
    int fd = open(file, O_WRONLY | O_APPEND);

    cr_assert(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

/* The next seal must find that out; what follows then is one chain again from `prev` on. */
static void expect_broken(struct audit *audit, const struct walk *before)
{
    uint64_t broken = audit_seals(audit).broken;
    struct audit_news news;
    struct walk walk = *before;
    char *line;
    char *at;
    char more[120];
    char digits[65];

    secret_hex(digits, before->prev, 32);
    snprintf(more, sizeof(more), "\"prev_seq\":%lld,\"prev_h\":\"%s\"",
             (long long)before->next_seq - 1, digits);
    cr_assert(tick(audit, &news));
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    cr_expect(news.seal[0] != '\0');
    line = line_find(file, "\"result\":\"chain_broken\"");
    cr_assert(line != NULL && strstr(line, more) != NULL, "%s", line);
    /* From its line on, the chain is one. */
    size_t len;
    char *text = file_get(file, &len);
    at = strstr(text, line);
    /* What it follows is bytes that it gives up, or, of the last of them, accounts for. */
    walk.at = strstr(line, "torn_bytes") == NULL ? (size_t)(at - text) : before->at;
    walk_on(&walk, file);
    cr_expect_eq(walk.seals, before->seals + 1);
    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    walk_on(&walk, file);
    cr_expect_eq(walk.seals, before->seals + 2);
    cr_expect_eq(audit_seals(audit).broken, ++broken);
    free(text);
    free(line);
}

TRAIL_TEST(finds_bytes_that_are_no_record)
{
    struct audit *audit = trail_begin();
    struct walk walk;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk = walk_whole(file);
    append_bytes("hello\n", 6);
    cr_assert_eq(append_sample(audit), REASON_OK);
    expect_broken(audit, &walk);
    audit_close(audit);
}

TRAIL_TEST(finds_an_unfinished_line)
{
    struct audit *audit = trail_begin();
    struct walk walk = walk_whole(file);

    append_bytes("{\"v\":1,\"seq\"", 12);
    expect_broken(audit, &walk);
    audit_close(audit);
}

TRAIL_TEST(finds_torn_bytes_that_are_not_those_accounted_for)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    struct audit *audit = trail_begin();
    struct walk walk = walk_whole(file);
    struct audit_format_event event = {.event = span_of("recovery"),
                                       .result = span_of("torn"),
                                       .torn_bytes = {true, 3},
                                       .torn_sha256 = span_of(zeros)};
    char line[AUDIT_RECORD_MAX + 1];
    unsigned char raw[32];
    char hex[65];
    size_t len = audit_format_event(line, (uint64_t)walk.next_seq, walk.chain, "web1", &event);

    hash_of(hex, walk.prev, line, len, raw);
    len += (size_t)sprintf(line + len, ",\"h\":\"%s\"}\n", hex);
    limit_set(file_size(file)); /* so that the next one knows of trouble, and adopts the line */
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    limit_set(RLIM_INFINITY);
    append_bytes("abc\n", 4);
    append_bytes(line, len);
    cr_assert_eq(append_sample(audit), REASON_OK);
    expect_broken(audit, &walk);
    audit_close(audit);
}

TRAIL_TEST(finds_a_file_that_was_cut)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct walk walk;

    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(!audit_tick(audit, &pace, now, &news)); /* by now it has seen it */
    walk = walk_whole(file);
    cr_assert(truncate(file, (off_t)file_size(file) - 100) == 0);
    cr_assert_eq(append_sample(audit), REASON_OK);
    expect_broken(audit, &walk);
    audit_close(audit);
}

/* The head, as every process has it. */
static struct head_file head_map(void)
{
    struct head_file shared = {.fd = open("audit.head", O_RDWR)};

    shared.page = mmap(NULL, 512, PROT_READ | PROT_WRITE, MAP_SHARED, shared.fd, 0);
    cr_assert(shared.page != MAP_FAILED);
    return shared;
}

static void head_unmap(struct head_file *shared)
{
    cr_assert(munmap(shared->page, 512) == 0 && close(shared->fd) == 0);
}

TRAIL_TEST(finds_a_head_that_was_changed)
{
    struct audit *audit = trail_begin();
    struct walk walk = walk_whole(file);
    struct head_file shared = head_map(); /* as a worker has it */
    struct head head = head_get(&shared);

    head.hash[0] ^= 1;
    head_set(&shared, &head);
    expect_broken(audit, &walk);
    head = head_get(&shared);
    head.next_seq += 1000;
    head.epoch = 7;
    head.dev = 1;
    head_set(&shared, &head);
    walk = (struct walk){.next_seq = 0};
    head_unmap(&shared);
    struct audit_news news;
    cr_assert(tick(audit, &news) && strstr(news.fault.what, "was changed") != NULL);
    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    stop(audit);
    expect_line(file, "\"event\":\"seal\"", "\"epoch\":4,"); /* and no other */
}

/* As a worker could: the head says this. */
static void head_forge(uint64_t next_seq, const unsigned char hash[32])
{
    struct head_file shared = head_map();
    struct head head = head_get(&shared);

    head.next_seq = next_seq;
    head.flags = 0;
    memcpy(head.hash, hash, sizeof(head.hash));
    head_set(&shared, &head);
    head_unmap(&shared);
}

static struct head head_now(void)
{
    struct head_file shared = head_map();
    const struct head head = head_get(&shared);

    head_unmap(&shared);
    return head;
}

static enum reason append_in_worker(struct audit *audit)
{
    const pid_t child = fork();
    int status = 0;

    if (child == 0) {
        _exit((int)append_sample(audit));
    }
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return (enum reason)WEXITSTATUS(status);
}

/* As a worker could: the head says that the last record is in this file. */
static void head_misdirect(const char *path)
{
    struct head_file shared = head_map();
    struct head head = head_get(&shared);
    struct stat st;

    cr_assert(stat(path, &st) == 0);
    head.dev = st.st_dev;
    head.ino = st.st_ino;
    head_set(&shared, &head);
    head_unmap(&shared);
}

/* Neither what is open for it already, as an older segment was, nor anything else. */
TRAIL_TEST(writes_to_no_file_that_the_head_alone_names)
{
    struct audit *audit = trail_begin();
    struct walk walk = {.next_seq = 0};
    size_t size;

    cr_assert_eq(append_in_worker(audit), REASON_OK);
    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    size = file_size("audit.1");
    for (unsigned i = 0; i < 2; i++) {
        head_misdirect("audit.1");
        cr_assert_eq(i == 0 ? append_in_worker(audit) : append_sample(audit), REASON_OK);
    }
    cr_expect_eq(file_size("audit.1"), size);
    stop(audit);
    walk_on(&walk, "audit.1");
    walk_next(&walk, file);
}

TRAIL_TEST(does_not_take_a_seal_from_a_worker)
{
    struct audit *audit = trail_begin();
    struct walk walk = walk_whole(file);
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        struct audit_news news;

        /* It has no key, but all else; what it knows of the supervisor's memory is a copy. */
        _exit(tick(audit, &news) && news.seal[0] != '\0' ? 0 : 1);
    }
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert_eq(status, 0);
    expect_broken(audit, &walk);
    audit_close(audit);
}

/* ---- what is missing at the start */

static void gap_accepted(const char *lost)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .node = "web1", .accept_gap = true};
    struct audit *audit = trail_open_with(&options);

    expect_line(file, "\"event\":\"recovery\"", "\"result\":\"records_missing\"");
    expect_line(file, "\"event\":\"recovery\"", lost);
    expect_line(file, "\"action\":\"start\"", "\"clean\":false");
    stop(audit);
    stop(trail_begin());
}

TRAIL_TEST(misses_records_that_the_head_knows)
{
    struct audit *audit = trail_begin();
    char lost[120];
    char digits[65];
    struct walk walk;
    size_t two;

    two = file_size(file);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk = walk_whole(file);
    audit_close(audit);
    cr_assert(truncate(file, (off_t)two - 7) == 0); /* one and a torn one */
    trail_refused(file, "ends with record 0, but record 2 was written: records are missing");
    trail_refused(file, "--accept-audit-gap");
    secret_hex(digits, walk.prev, 32);
    snprintf(lost, sizeof(lost), "\"lost_from\":2,\"lost_h\":\"%s\"", digits);
    gap_accepted(lost);
    expect_line(file, "\"event\":\"recovery\"", "\"seq\":3,");
    expect_line(file, "\"event\":\"recovery\"", "\"torn_bytes\":");
}

/* A record that lost but its LF is there, in front of what is missing, too. */
TRAIL_TEST(misses_no_record_that_lacks_but_its_lf)
{
    struct audit *audit = trail_begin();
    const size_t two = file_size(file);
    char *line;

    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    cr_assert(truncate(file, (off_t)file_size(file) - 1) == 0);
    stop(trail_begin());
    (void)walk_whole(file);
    cr_assert(line_find(file, "\"event\":\"recovery\"") == NULL);
    cr_assert(truncate(file, (off_t)two - 1) == 0);
    trail_refused(file, "ends with record 1, but record 5 was written: records are missing");
    gap_accepted("\"lost_from\":5,\"lost_h\":\"");
    line = line_find(file, "\"event\":\"recovery\"");
    cr_expect(line != NULL && strstr(line, "torn_bytes") == NULL, "%s", line);
    free(line);
}

TRAIL_TEST(misses_records_that_were_sealed_even_when_the_head_is_lost)
{
    struct audit *audit = trail_begin();
    size_t two = file_size(file);

    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    cr_assert(truncate(file, (off_t)two) == 0);
    head_lose();
    trail_refused(file, "ends with record 1, but record 3 was written: records are missing");
    gap_accepted("\"lost_from\":3,\"lost_h\":\"");
}

/* Before the next seal, so that the end of the file tells little of the key. */
TRAIL_TEST(goes_on_when_it_died_after_missing_records)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .accept_gap = true};

    for (unsigned seals = 0; seals < 3; seals++) {
        struct audit *audit = trail_begin();
        const size_t size = file_size(file);

        cr_assert_eq(append_sample(audit), REASON_OK);
        for (unsigned i = 0; i < seals; i++) {
            seal(audit);
            cr_assert_eq(append_sample(audit), REASON_OK);
        }
        audit_close(audit);
        cr_assert(truncate(file, (off_t)size) == 0);
        for (unsigned deaths = 0; deaths < 3; deaths++) {
            if (seals > 0 || deaths == 0) {
                trail_refused(file, "--accept-audit-gap");
            }
            audit = trail_open_with(&options);
            cr_assert_eq(append_sample(audit), REASON_OK);
            audit_close(audit);
            if (deaths == 1) {
                head_lose(); /* the host lost power */
            }
        }
        stop(trail_open_with(&options));
        stop(trail_begin());
    }
}

/* A record that anybody could have written; `prev` becomes its hash. */
static void line_forge(const char *chain, uint64_t seq, const char *rest, unsigned char prev[32])
{
    char line[AUDIT_RECORD_MAX];
    unsigned char hash[32];
    FILE *f = fopen(file, "a");
    size_t len = (size_t)snprintf(line, sizeof(line),
                                  "{\"v\":1,\"seq\":%llu,\"ts\":\"2026-01-31T20:11:03.123456Z\","
                                  "\"chain\":\"%s\",\"node\":\"web1\",%s",
                                  (unsigned long long)seq, chain, rest);

    len = chain_close(line, len, prev, hash);
    memcpy(prev, hash, 32);
    cr_assert(f != NULL && fwrite(line, 1, len, f) == len && fclose(f) == 0);
}

/* Whoever may write the file, and nothing else, puts records in the place of what was sealed while
 * no daemon runs, and with `gap` a recovery that says that others are missing. */
static void history_forge(bool gap, bool rebooted)
{
    static const char record[] =
        "\"event\":\"auth\",\"outcome\":\"failed\",\"reason\":\"bad_token\","
        "\"status\":401,\"method\":\"negotiate\",\"us\":1";
    struct audit *audit = trail_begin();
    const size_t keep = file_size(file);
    const struct walk kept = walk_whole(file);
    unsigned char prev[32];
    char recovery[400];
    char chain[17];
    char digits[65];
    struct walk all;

    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
        seal(audit);
    }
    (void)snprintf(chain, sizeof(chain), "%s", audit_chain(audit));
    stop(audit);
    all = walk_whole(file);
    secret_hex(digits, all.prev, 32); /* it stands in the file */
    if (rebooted) {
        head_lose();
    }
    cr_assert(truncate(file, (off_t)keep) == 0);
    memcpy(prev, kept.prev, 32);
    for (json_int_t seq = kept.next_seq; seq < all.next_seq - (gap ? 2 : 0); seq++) {
        line_forge(chain, (uint64_t)seq, record, prev);
    }
    if (gap) {
        (void)snprintf(recovery, sizeof(recovery),
                       "\"event\":\"recovery\",\"result\":\"records_missing\",\"lost_from\":%llu,"
                       "\"lost_h\":\"%s\"",
                       (unsigned long long)all.next_seq - 1, digits);
        memcpy(prev, all.prev, 32);
        line_forge(chain, (uint64_t)all.next_seq, recovery, prev);
    }
}

TRAIL_TEST(refuses_a_gap_that_was_not_accepted)
{
    history_forge(true, false);
    trail_refused(file, "lacks the seal that announced the present key");
    trail_refused(file, "--accept-audit-gap");
}

TRAIL_TEST(refuses_a_gap_that_was_not_accepted_before_the_host_started)
{
    history_forge(true, true);
    trail_refused(file, "lacks the seal that announced the present key");
}

TRAIL_TEST(refuses_records_in_the_place_of_seals)
{
    history_forge(false, true);
    trail_refused_at("./audit.key", file, "is not the key of epoch 0");
}

/* Records are missing, but none that announced a key: nothing excuses another one. */
TRAIL_TEST(refuses_an_older_key_after_missing_records)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .accept_gap = true};
    struct audit *audit = trail_begin();
    struct audit *none = NULL;
    struct fault fault;
    size_t key_len;
    size_t size;
    char *key;

    key = file_get("audit.key", &key_len);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
        seal(audit);
    }
    size = file_size(file);
    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    cr_assert(truncate(file, (off_t)size) == 0);
    audit_close(trail_open_with(&options));
    file_put("audit.key", key, key_len);
    free(key);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(audit_open(&options, (uid_t)-1, (gid_t)-1, &none, &fault), -1);
        cr_expect_str_eq(fault.where, "./audit.key");
        cr_expect(strstr(fault.what, "is not the key of epoch 2") != NULL, "%s", fault.what);
        head_lose();
    }
}

TRAIL_TEST(misses_the_whole_file_when_the_head_is_lost_too)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .accept_gap = true};
    struct audit *audit = trail_begin();

    seal(audit);
    audit_close(audit);
    cr_assert(unlink(file) == 0);
    head_lose();
    trail_refused(file, "holds no record and audit.head is lost");
    stop(trail_open_with(&options));
    expect_line(file, "\"event\":\"segment.open\"", "\"prev_seq\":2,");
}

TRAIL_TEST(takes_the_end_of_the_file_after_the_host_lost_power)
{
    struct walk walk = {.next_seq = 0};
    struct audit *audit = trail_begin();
    size_t two = file_size(file);

    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    cr_assert(truncate(file, (off_t)two) == 0);
    head_lose(); /* or a head of another start of the host: it is as good as none */
    stop(trail_begin());
    walk_on(&walk, file);
    cr_expect_eq(walk.records, 5);
}

TRAIL_TEST(refuses_an_end_that_is_not_the_one_it_knows)
{
    struct audit *audit = trail_begin();
    size_t len;
    char *head;

    audit_close(audit);
    head = file_get("audit.head", &len);
    audit_close(trail_begin());
    audit_close(trail_begin());
    file_put("audit.head", head, len);
    free(head);
    trail_refused(file, "does not end with the record that audit.head knows to be the last");
}

TRAIL_TEST(refuses_what_was_altered_since_the_last_seal)
{
    struct audit *audit = trail_begin();
    size_t len;
    char *text;

    seal(audit);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
    }
    audit_close(audit);
    text = file_get(file, &len);
    *strstr(strstr(text, "alice"), "alice") = 'A'; /* the first of three */
    file_put(file, text, len);
    free(text);
    trail_refused(file, "what follows record 2 does not fit it");
}

/* ---- segments */

TRAIL_TEST(goes_on_in_a_segment_when_the_file_was_renamed_meanwhile)
{
    struct walk walk = {.next_seq = 0};
    char old[32];

    for (unsigned i = 0; i < 6; i++) {
        struct audit *audit = trail_begin();

        cr_assert_eq(append_sample(audit), REASON_OK);
        if (i % 3 == 1) {
            seal(audit);
        }
        if (i % 3 == 2) {
            stop(audit);
        } else {
            audit_close(audit);
        }
        snprintf(old, sizeof(old), "audit.%u", i);
        cr_assert(rename(file, old) == 0);
        walk.at = 0;
        walk_on(&walk, old);
    }
    stop(trail_begin());
    expect_line(file, "\"event\":\"segment.open\"", ",\"epoch\":4,\"pk\":\"");
    walk_next(&walk, file);
}

TRAIL_TEST(rotates_by_size)
{
    const struct audit_pace small = {.seal_ms = 60000, .rotate_bytes = 4000};
    struct audit *audit = trail_begin();
    struct walk walk = {.next_seq = 0};
    struct audit_news news;
    const char *next = file;
    char name[64];
    unsigned segments = 0;

    for (unsigned i = 0; i < 40; i++) {
        const bool full = file_size(file) >= 4000;

        (void)audit_tick(audit, &small, now, &news);
        cr_assert_str_eq(news.fault.what, "");
        cr_assert_eq(news.segment[0] != '\0', full);
        segments += full;
        cr_assert_eq(append_sample(audit), REASON_OK);
    }
    cr_assert_gt(segments, 2);
    stop(audit);
    for (json_int_t first = 0; next != NULL; first = walk.next_seq) {
        snprintf(name, sizeof(name), "%s.%lld", file, (long long)first);
        next = access(name, F_OK) == 0 ? name : NULL;
        walk_next(&walk, next == NULL ? file : next);
        cr_assert(next == NULL || strcmp(walk.event, "segment.close") == 0);
    }
    cr_expect_eq(walk.seals, segments + 1);
}

TRAIL_TEST(rotates_by_age_when_there_is_something_to)
{
    const struct audit_pace old = {.seal_ms = 1, .rotate_ms = 1000};
    struct audit *audit = trail_begin();
    struct audit_news news;

    sleep(2);
    cr_assert(audit_tick(audit, &old, ++now, &news) && news.segment[0] != '\0');
    cr_assert(access("audit.jsonl.0", F_OK) == 0);
    (void)audit_tick(audit, &old, ++now, &news); /* seals the opening */
    sleep(2);
    cr_expect(!audit_tick(audit, &old, ++now, &news), "%s", news.segment);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(audit_tick(audit, &old, ++now, &news) && news.segment[0] != '\0');
    stop(audit);
}

TRAIL_TEST(does_not_rename_over_another_file)
{
    const struct audit_pace small = {.seal_ms = 60000, .rotate_bytes = 300};
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct walk walk = {.next_seq = 0};
    char name[64];
    char why[128];

    /* An older chain's, and one that nobody should have. */
    (void)snprintf(name, sizeof(name), "audit.jsonl.0.%s", audit_chain(audit));
    file_put("audit.jsonl.0", "mine", 4);
    file_put(name, "mine", 4);
    cr_assert(audit_tick(audit, &small, now, &news));
    (void)snprintf(why, sizeof(why), "cannot be renamed to %s: File exists", name);
    cr_expect(strstr(news.fault.what, why) != NULL, "%s", news.fault.what);
    cr_assert_eq(append_sample(audit), REASON_OK);
    /* It says so once, and tries again. */
    cr_assert(!audit_tick(audit, &small, now + 5000, &news));
    cr_assert(unlink(name) == 0);
    cr_assert(audit_tick(audit, &small, now + 10000, &news) && news.segment[0] != '\0');
    walk_on(&walk, name);
    walk_next(&walk, file);
    audit_close(audit);
}

TRAIL_TEST(tries_again_to_open_a_file_that_it_could_not)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    cr_assert(rename(file, "audit.1") == 0 && mkdir(file, 0700) == 0);
    trail_rotate_refused(audit, "stays in use");
    cr_assert_eq(append_sample(audit), REASON_OK);
    (void)audit_tick(audit, &pace, now + 5000, &news);
    cr_assert_str_eq(news.segment, "");
    cr_assert(rmdir(file) == 0);
    cr_assert(audit_tick(audit, &pace, now + 10000, &news) && news.segment[0] != '\0');
    stop(audit);
    cr_expect_eq(walk_whole("audit.1").records, 5);
}

TRAIL_TEST(does_not_go_on_in_a_segment_that_was_closed)
{
    struct audit *audit = trail_begin();

    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    audit_close(audit);
    cr_assert(rename("audit.1", file) == 0);
    trail_refused(file, "is a segment that was closed");
}

/* ---- what a worker that was taken over, or a bad disk, must not come through with */

static struct head lie;

static void lie_now(void)
{
    head_forge(lie.next_seq, lie.hash);
}

/* While the supervisor turns to the next file, the head is another one: the old one is sealed and
 * closed all the same, and the new one follows what was in it. */
static void turn_with_lie(uint64_t next_seq)
{
    const struct audit_pace small = {.seal_ms = 60000, .rotate_bytes = 300};
    struct audit *audit = trail_begin();
    struct audit_news news;

    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    lie = head_now();
    lie.next_seq = next_seq;
    memset(lie.hash, 0x42, sizeof(lie.hash));
    now += 100;
    (void)audit_tick(audit, &pace, now, &news); /* so that the walk has passed it */
    meanwhile = lie_now;
    (void)audit_tick(audit, &small, now, &news);
    cr_assert(meanwhile == NULL && news.segment[0] != '\0', "%s", news.fault.what);
    cr_expect_eq(audit_seals(audit).broken, 1);
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    expect_line("audit.jsonl.0", "\"event\":\"segment.close\"", "");
    cr_assert_eq(append_sample(audit), REASON_OK);
    stop(audit);
    expect_line("audit.jsonl.0", "\"event\":\"recovery\"", "\"result\":\"chain_broken\"");
    cr_expect_eq(head_now().next_seq, 12, "the numbers go on");
}

TRAIL_TEST(does_not_turn_to_a_file_after_a_false_head)
{
    turn_with_lie(1000000);
}

TRAIL_TEST(does_not_turn_to_a_file_after_a_head_of_zero)
{
    turn_with_lie(0);
}

/* A record that the walk had passed is cut out, and a head of before put back. */
TRAIL_TEST(finds_a_cut_when_it_turns_although_the_head_says_that_all_is_done)
{
    const struct audit_pace small = {.seal_ms = 60000, .rotate_bytes = 300};
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head before;
    size_t size;

    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    before = head_now();
    size = file_size(file);
    cr_assert_eq(audit_append_event(audit, "keytab", "changed", NULL, NULL), REASON_OK);
    (void)audit_tick(audit, &pace, now, &news);
    cr_assert(truncate(file, (off_t)size) == 0);
    head_forge(before.next_seq, before.hash);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
    }
    lie = head_now();
    meanwhile = lie_now;
    (void)audit_tick(audit, &small, now, &news);
    cr_assert(meanwhile == NULL);
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    cr_expect_eq(audit_seals(audit).broken, 1);
    expect_line("audit.jsonl.0", "\"event\":\"recovery\"", "\"result\":\"chain_broken\"");
    audit_close(audit);
}

TRAIL_TEST(seals_although_the_head_says_that_nothing_is_new)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head before;

    seal(audit);
    before = head_now();
    cr_assert_eq(append_sample(audit), REASON_OK);
    head_forge(before.next_seq, before.hash);
    cr_assert(tick(audit, &news));
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    audit_close(audit);
}

/* It names no record that it follows: verify would end there. */
TRAIL_TEST(finds_a_false_word_that_it_found_something)
{
    struct audit *audit = trail_begin();
    struct walk walk;
    struct head head;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    walk = walk_whole(file);
    head = head_now();
    line_forge(audit_chain(audit), head.next_seq,
               "\"event\":\"recovery\",\"result\":\"chain_broken\"", head.hash);
    head_forge(head.next_seq + 1, head.hash);
    expect_broken(audit, &walk);
    audit_close(audit);
}

/* The disk takes the seal and not the change of keys: that is made up for without a new record. */
TRAIL_TEST(finishes_a_seal_that_could_not_be_finished)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    /* The next key is made, and the seal cut short. */
    limit_set(file_size(file) + 10);
    (void)tick(audit, &news);
    limit_set(RLIM_INFINITY);
    cr_assert_eq(mkdir("audit.key.new", 0700), 0);
    (void)tick(audit, &news);
    cr_assert(news.seal[0] == '\0' && strstr(news.fault.where, "audit.key") != NULL, "%s",
              news.fault.where);
    cr_expect(audit_seals(audit).late && audit_seals(audit).unsealed == 0);
    for (unsigned i = 0; i < 3; i++) {
        now += 600000;
        (void)audit_tick(audit, &pace, now, &news);
        cr_expect(audit_seals(audit).late, "%u: %s", i, news.seal);
    }
    cr_assert_eq(rmdir("audit.key.new"), 0);
    now += 10000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.seal[0] != '\0', "%s", news.fault.what);
    cr_expect_not(audit_seals(audit).late);
    audit_close(audit);
}

TRAIL_TEST(seals_although_it_cannot_turn)
{
    const struct audit_pace small = {.seal_ms = 60000, .rotate_bytes = 300};
    struct audit *audit = trail_begin();
    struct audit_news news;
    char name[64];

    (void)snprintf(name, sizeof(name), "audit.jsonl.0.%s", audit_chain(audit));
    file_put("audit.jsonl.0", "mine", 4);
    file_put(name, "mine", 4);
    (void)audit_tick(audit, &small, now, &news);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
        now += 60000;
        cr_assert(audit_tick(audit, &small, now, &news));
        cr_expect(news.seal[0] != '\0' && news.segment[0] == '\0');
    }
    audit_close(audit);
}

/* Found when there is no room to record it: it is told, once, and stays known. */
TRAIL_TEST(tells_of_a_change_that_it_cannot_record)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    append_bytes("{}\n", 3);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.jsonl.1") == 0);
    limit_set(0);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    for (unsigned i = 0; i < 3; i++) {
        now += 10000;
        (void)audit_tick(audit, &pace, now, &news);
        cr_expect_eq(audit_seals(audit).broken, 1);
    }
    limit_set(RLIM_INFINITY);
    now += 10000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0');
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(audit_seals(audit).broken, 1);
    stop(audit);
}

/* A turn that could not be finished is undone: workers go on in the old file, not in the new. */
TRAIL_TEST(goes_on_in_a_file_that_was_moved_back)
{
    struct walk walk = {.next_seq = 0};
    struct audit *audit = trail_begin();
    struct audit_news news;

    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.jsonl.1") == 0);
    limit_set(0);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    cr_assert_eq(append_in_worker(audit), REASON_AUDIT_UNAVAILABLE);
    cr_assert(rename(file, "audit.empty") == 0 && rename("audit.jsonl.1", file) == 0);
    limit_set(RLIM_INFINITY);
    now += 5000;
    (void)audit_tick(audit, &pace, now, &news);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    cr_expect_eq(file_size("audit.empty"), 0);
    stop(audit);
    walk_on(&walk, file);
}

/* A sync that was given up fails later, and the kernel tells nobody else. */
TRAIL_TEST(remembers_an_error_that_came_late)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    cr_assert_eq(sync_begin(), 0);
    cr_assert_eq(append_sample(audit), REASON_OK);
    disk_broken = true;
    disk_late_us = 1300000;
    now += 1100;
    (void)audit_tick(audit, &pace, now, &news);
    cr_expect(strstr(news.fault.what, "has not answered") != NULL, "%s", news.fault.what);
    cr_expect(audit_seals(audit).unsynced);
    usleep(500000);
    disk_broken = false;
    disk_late_us = 0;
    cr_assert(rename(file, "audit.1") == 0);
    (void)audit_rotate(audit, &news);
    cr_expect(strstr(news.fault.what, "cannot be synced") != NULL, "%s", news.fault.what);
    now += 10000;
    (void)audit_tick(audit, &pace, now, &news);
    cr_assert_eq(append_sample(audit), REASON_OK);
    now += 10000;
    (void)audit_tick(audit, &pace, now, &news);
    cr_expect_not(audit_seals(audit).unsynced);
    audit_close(audit);
}

/* With sync: commit, what the supervisor does not sync says nothing of the disk. */
TRAIL_TEST(keeps_the_error_of_a_sync_until_one_succeeds)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .commit = true};
    struct audit *audit = trail_open_with(&options);

    disk_broken = true;
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_last_error(audit), EIO);
    cr_assert_eq(audit_append_event(audit, "keytab", "changed", NULL, NULL), REASON_OK);
    cr_expect_eq(audit_last_error(audit), EIO);
    disk_broken = false;
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(audit_last_error(audit), 0);
    audit_close(audit);
}

TRAIL_TEST(seals_sooner_when_that_is_asked_for)
{
    const struct audit_pace slow = {.seal_ms = 900000};
    const struct audit_pace quick = {.seal_ms = 1000};
    struct audit *audit = trail_begin();
    struct audit_news news;

    (void)audit_tick(audit, &slow, now, &news);
    (void)audit_tick(audit, &quick, now, &news);
    now += 1000;
    cr_assert(audit_tick(audit, &quick, now, &news) && news.seal[0] != '\0');
    audit_close(audit);
}

/* ---- a file that was ended, and no next one */

/* The file was deleted, and a directory is where the next one should be. */
TRAIL_TEST(writes_nothing_to_a_file_that_was_ended)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(unlink(file) == 0 && mkdir(file, 0700) == 0);
    for (unsigned i = 0; i < 4; i++) {
        now += i == 0 ? 1000 : 60000;
        (void)audit_tick(audit, &pace, now, &news);
        cr_assert_eq(append_in_worker(audit), REASON_AUDIT_UNAVAILABLE);
        cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    }
    /* Whatever a worker says of it. */
    head_forge(head_now().next_seq, head_now().hash);
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_seals(audit).broken, 0);
    cr_expect_eq(audit_stop(audit, &news), -1);
    cr_assert(rmdir(file) == 0);
    now += 10000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0');
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    stop(audit);
}

TRAIL_TEST(mends_an_opening_in_a_file_that_was_emptied)
{
    struct walk walk = {.next_seq = 0};
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    walk_on(&walk, file);
    cr_assert(truncate(file, 0) == 0);
    limit_set(10);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    cr_assert_eq(file_size(file), 10);
    for (unsigned i = 0; i < 3; i++) {
        now += 60000;
        (void)audit_tick(audit, &pace, now, &news);
        cr_assert_eq(append_in_worker(audit), REASON_AUDIT_UNAVAILABLE);
    }
    limit_set(RLIM_INFINITY);
    now += 60000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0', "%s",
              news.fault.what);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    cr_expect_eq(audit_seals(audit).broken, 1);
    stop(audit);
    expect_line(file, "\"event\":\"segment.open\"", "\"torn_bytes\":10");
}

/* Records that the walk has passed are gone, and the head says that they never were. */
TRAIL_TEST(does_not_believe_the_head_of_a_file_that_was_emptied)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head before;

    seal(audit);
    before = head_now();
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
    }
    (void)audit_tick(audit, &pace, now, &news);
    cr_assert(truncate(file, 0) == 0);
    head_forge(before.next_seq, before.hash);
    (void)audit_rotate(audit, &news);
    cr_expect(strstr(news.fault.what, "was emptied") != NULL, "%s", news.fault.what);
    cr_expect_eq(head_now().next_seq, before.next_seq + 6);
    stop(audit);
}

/* What cannot be read cannot be proven; but there is a good file to go on in. */
TRAIL_TEST(turns_away_from_a_file_that_cannot_be_read)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head head;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    head = head_now();
    cr_assert(rename(file, "audit.1") == 0);
    disk_unreadable = true;
    cr_assert_eq(audit_rotate(audit, &news), 0);
    cr_expect(strstr(news.fault.what, "cannot be read back") != NULL, "%s", news.fault.what);
    disk_unreadable = false;
    cr_assert(news.segment[0] != '\0');
    cr_expect_eq(head_now().next_seq, head.next_seq + 1);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    cr_expect_eq(audit_seals(audit).broken, 0);
    stop(audit);
}

TRAIL_TEST(turns_although_the_head_says_that_nothing_is_new)
{
    const struct audit_pace small = {.seal_ms = 60000, .rotate_bytes = 300};
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head head;

    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.1") == 0);
    limit_set(0);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    limit_set(RLIM_INFINITY);
    head = head_now();
    head_forge(head.next_seq - 1, head.hash);
    now += 5000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0', "%s",
              news.fault.what);
    head = head_now();
    cr_assert_eq(append_sample(audit), REASON_OK);
    head_forge(head.next_seq, head.hash);
    now += 5000;
    cr_assert(audit_tick(audit, &small, now, &news) && news.segment[0] != '\0', "%s",
              news.fault.what);
    audit_close(audit);
}

/* A torn line on a full disk is no change by somebody else. */
TRAIL_TEST(does_not_call_a_torn_line_a_change)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    limit_set(file_size(file) + 10);
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_assert(rename(file, "audit.1") == 0);
    limit_set(0);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    cr_expect(strstr(news.fault.what, "was changed") == NULL, "%s", news.fault.what);
    limit_set(RLIM_INFINITY);
    now += 5000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0');
    cr_expect_eq(audit_seals(audit).broken, 0);
    stop(audit);
}

/* Nothing but bytes of somebody else's: that, too, is a reason to look. */
TRAIL_TEST(finds_bytes_behind_a_seal)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    append_bytes("{}\n", 3);
    cr_assert(tick(audit, &news));
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    audit_close(audit);
}

/* The second rotation that a failed sync asks for is put off, and not forgotten. */
TRAIL_TEST(rotates_for_a_failed_sync_although_it_was_told_to_reopen)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(append_sample(audit), REASON_OK);
        disk_broken = true;
        now += 2000;
        (void)audit_tick(audit, &pace, now, &news);
        disk_broken = false;
        now += 10000;
        (void)audit_tick(audit, &pace, now, &news);
    }
    cr_assert_eq(append_sample(audit), REASON_OK);
    trail_rotate(audit);
    now += 600000;
    (void)audit_tick(audit, &pace, now, &news);
    cr_expect(news.segment[0] != '\0', "%s", news.fault.what);
    audit_close(audit);
}

/* On a full disk a head that does not fit is no torn line either. */
TRAIL_TEST(does_not_believe_the_head_on_a_full_disk)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head_file shared = head_map();
    struct head true_head;
    struct head head;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    true_head = head = head_get(&shared);
    append_bytes("{\"v\":1,\"seq\"", 12);
    head.next_seq = 1000000;
    head_set(&shared, &head);
    head_dirty_set(&shared, true);
    head_unmap(&shared);
    cr_assert(rename(file, "audit.1") == 0);
    limit_set(0);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    limit_set(RLIM_INFINITY);
    now += 5000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0');
    cr_expect_eq(audit_seals(audit).broken, 1);
    cr_expect_eq(head_now().next_seq, true_head.next_seq + 1);
    stop(audit);
}

static struct audit *appending;

static void append_now(void)
{
    cr_assert_eq(append_in_worker(appending), REASON_OK);
}

/* Between the look at an emptied file and the lock somebody has gone on in it. */
TRAIL_TEST(goes_on_in_an_emptied_file_that_is_in_use_again)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    seal(audit);
    cr_assert(truncate(file, 0) == 0);
    appending = audit;
    meanwhile = append_now;
    (void)audit_rotate(audit, &news);
    cr_assert(meanwhile == NULL);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    cr_assert(tick(audit, &news));
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    stop(audit);
}

/* A worker leaves half a line, so that another's record ends up on it, and calls both torn. */
TRAIL_TEST(finds_a_record_that_is_hidden_as_torn_bytes)
{
    struct audit *audit = trail_begin();
    struct walk walk;
    struct head before;
    unsigned char digest[32];
    char digits[65];
    char rest[200];
    size_t begin;
    size_t len;
    char *text;

    seal(audit);
    walk = walk_whole(file);
    before = head_now();
    begin = file_size(file);
    append_bytes("{\"v\":1,\"seq\":1,", 15);
    cr_assert_eq(append_sample(audit), REASON_OK);
    text = file_get(file, &len);
    secret_sha256(digest, &(struct span){(unsigned char *)text + begin, len - begin - 1}, 1);
    free(text);
    secret_hex(digits, digest, sizeof(digest));
    (void)snprintf(rest, sizeof(rest),
                   "\"event\":\"recovery\",\"result\":\"torn\",\"torn_bytes\":%zu,"
                   "\"torn_sha256\":\"%s\"",
                   len - begin - 1, digits);
    line_forge(audit_chain(audit), before.next_seq, rest, before.hash);
    head_forge(before.next_seq + 1, before.hash);
    expect_broken(audit, &walk);
    audit_close(audit);
}

/* What a failed sync has left behind ends with the file. */
TRAIL_TEST(knows_after_a_turn_that_all_is_well)
{
    const struct audit_options options = {
        .file = file, .state_dir = ".", .mode = 0640, .commit = true};
    struct audit *audit = trail_open_with(&options);

    disk_broken = true;
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    disk_broken = false;
    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    limit_set(0);
    cr_assert_neq(audit_append_event(audit, "keytab", "changed", NULL, NULL), REASON_OK);
    limit_set(RLIM_INFINITY);
    cr_assert_neq(audit_last_error(audit), 0);
    cr_assert_eq(audit_append_event(audit, "keytab", "changed", NULL, NULL), REASON_OK);
    cr_expect_eq(audit_last_error(audit), 0);
    audit_close(audit);
}

/* ---- found by those who tried */

static void lf_add(void)
{
    int fd = open(file, O_WRONLY | O_APPEND);

    cr_assert(fd >= 0 && syscall(SYS_write, fd, "\n", 1) == 1 && close(fd) == 0);
}

TRAIL_TEST(takes_no_line_for_written_that_is_in_two_pieces)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    write_late = 30;
    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    (void)walk_whole(file);
    write_late = 30;
    write_between = lf_add;
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_last_error(audit), EBUSY);
    write_between = NULL;
    cr_assert(tick(audit, &news));
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    cr_assert_eq(append_sample(audit), REASON_OK);
    stop(audit);
}

/* A record 0 of another chain that lacks but its LF, and a head before it. */
TRAIL_TEST(keeps_the_name_of_its_chain)
{
    static const unsigned char zeros[32];
    unsigned char prev[32] = {0};
    struct audit *audit = trail_begin();
    struct head_file shared;
    struct audit_news news;
    char chain[17];

    snprintf(chain, sizeof(chain), "%s", audit_chain(audit));
    cr_assert_eq(append_sample(audit), REASON_OK);
    line_forge("0123456789abcdef", 0,
               "\"event\":\"auth\",\"outcome\":\"failed\",\"reason\":\"bad_token\",\"status\":401",
               prev);
    cr_assert(truncate(file, (off_t)file_size(file) - 1) == 0);
    head_forge(0, zeros);
    shared = head_map();
    head_dirty_set(&shared, true);
    head_unmap(&shared);
    cr_assert(tick(audit, &news));
    cr_expect(strstr(news.fault.what, "was changed") != NULL, "%s", news.fault.what);
    cr_expect_str_eq(audit_chain(audit), chain);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(append_in_worker(audit), REASON_OK);
        seal(audit);
    }
    cr_expect_eq(audit_seals(audit).broken, 1);
    cr_assert(rename(file, "audit.1") == 0);
    trail_rotate(audit);
    stop(audit);
    audit = trail_begin();
    cr_expect_str_eq(audit_chain(audit), chain);
    stop(audit);
}

/* Unlocks whatever it has; its exit status says how many descriptors of the head it found. */
static int unlock_all(struct audit *audit)
{
    char path[64];
    char target[512];
    int heads = 0;

    if (audit_part(audit) != 0) {
        return 99;
    }
    for (int fd = 3; fd < 1000; fd++) {
        ssize_t len;

        (void)flock(fd, LOCK_UN);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        len = readlink(path, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = '\0';
        heads += strstr(target, "audit.head") != NULL;
    }
    return heads;
}

TRAIL_TEST(stays_locked_whatever_a_worker_does)
{
    struct audit *audit = trail_begin();
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        _exit(unlock_all(audit));
    }
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status));
    cr_expect_eq(WEXITSTATUS(status), 0);
    trail_refused(file, "is in use by another daemon");
    cr_assert(rename(file, "audit.1") == 0);
    trail_refused_at("./audit.head", file, "is in use by another daemon");
    cr_assert(rename("audit.1", file) == 0);
    audit_close(audit);
}

TRAIL_TEST(syncs_what_was_written_whatever_the_head_says)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head before;
    unsigned syncs;

    now += 5000;
    (void)audit_tick(audit, &pace, now, &news);
    before = head_now();
    cr_assert_eq(append_sample(audit), REASON_OK);
    head_forge(before.next_seq, before.hash);
    syncs = disk_syncs;
    now += 5000;
    (void)audit_tick(audit, &pace, now, &news);
    cr_expect_eq(disk_syncs, syncs + 1);
    now += 5000;
    (void)audit_tick(audit, &pace, now, &news);
    cr_expect_eq(disk_syncs, syncs + 1, "nothing is new");
    audit_close(audit);
}

/* It dies when the next file has begun, and before the key of the seal before it is given up. */
static void die_in_a_turn(uint64_t from, bool empty)
{
    struct audit *audit = trail_begin();
    struct walk walk = {.next_seq = 0};
    struct head_file shared;
    struct audit_news news;
    struct head head;

    seal(audit);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.1") == 0);
    disk_broken = true;
    disk_full_for = empty ? "segment.open" : NULL;
    cr_assert_eq(audit_rotate(audit, &news), -1);
    disk_broken = false;
    disk_full_for = NULL;
    audit_close(audit);
    shared = head_map();
    head = head_get(&shared);
    cr_expect_eq(head.from, 5);
    head.from = from;
    head_set(&shared, &head);
    head_unmap(&shared);
    audit = trail_begin();
    cr_assert_eq(append_sample(audit), REASON_OK);
    seal(audit);
    stop(audit);
    expect_line(file, "\"event\":\"seal\",\"mono\"", "\"from\":");
    walk_on(&walk, "audit.1");
    walk_next(&walk, file);
}

TRAIL_TEST(seals_from_where_the_seal_before_ended_when_the_head_says_0)
{
    die_in_a_turn(0, false);
}

TRAIL_TEST(seals_from_where_the_seal_before_ended_when_the_head_says_1000)
{
    die_in_a_turn(1000, false);
}

TRAIL_TEST(seals_from_where_the_seal_before_ended_when_there_is_no_opening)
{
    die_in_a_turn(1000, true);
}

TRAIL_TEST(does_not_go_on_in_a_closed_segment_that_is_moved_back)
{
    struct audit *audit = trail_begin();
    struct walk walk = {.next_seq = 0};
    struct audit_news news;
    size_t size;

    cr_assert(rename(file, "audit.1") == 0);
    disk_full_for = "segment.open";
    trail_rotate_refused(audit, "cannot be written");
    size = file_size("audit.1");
    cr_assert(rename("audit.1", file) == 0);
    disk_full_for = NULL;
    for (unsigned i = 0; i < 2; i++) {
        now += 61000;
        cr_assert(audit_tick(audit, &pace, now, &news));
        cr_expect(strstr(news.fault.what, "is a segment that was closed") != NULL, "%s",
                  news.fault.what);
        cr_assert_eq(append_in_worker(audit), REASON_AUDIT_UNAVAILABLE);
    }
    cr_expect_eq(file_size(file), size);
    cr_assert(rename(file, "audit.1") == 0);
    now += 5000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0', "%s",
              news.fault.what);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    stop(audit);
    walk_on(&walk, "audit.1");
    walk_next(&walk, file);
}

/* The opening is torn within its number. */
TRAIL_TEST(goes_on_behind_a_torn_opening_whatever_the_head_says)
{
    struct audit *audit = trail_begin();
    struct audit_news news;
    struct head head;

    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename(file, "audit.1") == 0);
    limit_set(20);
    cr_assert_eq(audit_rotate(audit, &news), -1);
    limit_set(RLIM_INFINITY);
    cr_assert_eq(file_size(file), 20);
    head = head_now();
    head_forge(head.next_seq + 5, head.hash);
    now += 5000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0', "%s",
              news.fault.what);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    stop(audit);
    expect_line(file, "\"event\":\"segment.open\"", "\"torn_bytes\":20");
}

/* Nobody has told it to turn but a disk that failed, and that is no reason again for a while. */
TRAIL_TEST(tries_again_to_begin_the_next_file)
{
    struct audit *audit = trail_begin();
    struct audit_news news;

    cr_assert_eq(append_sample(audit), REASON_OK);
    disk_broken = true;
    disk_full_for = "segment.open";
    now += 5000;
    (void)audit_tick(audit, &pace, now, &news);
    disk_broken = false;
    cr_assert_eq(append_in_worker(audit), REASON_AUDIT_UNAVAILABLE);
    disk_full_for = NULL;
    now += 5000;
    cr_assert(audit_tick(audit, &pace, now, &news) && news.segment[0] != '\0', "%s",
              news.fault.what);
    cr_assert_eq(append_in_worker(audit), REASON_OK);
    stop(audit);
}
