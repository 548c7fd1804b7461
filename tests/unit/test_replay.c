#include "auth/replay.h"

#include "base/boot.h"
#include "base/lock.h"
#include "base/secret.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KEEP_S = 601 };

static char dir[64];
static char path[80];
static char mark[80];
static uint64_t t0; /* long enough after a table is made that only its entries count */

static void make_dir(void)
{
    cr_assert_eq(secret_init(), 0);
    strcpy(dir, "/tmp/spnegate-replay.XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/replay.table", dir);
    (void)snprintf(mark, sizeof mark, "%s/replay.made", dir);
    t0 = (uint64_t)time(NULL) + KEEP_S;
}

static void remove_dir(void)
{
    (void)unlink(path);
    (void)unlink(mark);
    (void)rmdir(dir);
}

TestSuite(replay, .init = make_dir, .fini = remove_dir);

static struct replay *open_table(uint64_t entries)
{
    struct replay *replay = NULL;
    struct fault fault;
    cr_assert_eq(replay_open(dir, entries, &replay, &fault), 0, "%s", fault.what);
    return replay;
}

static enum reason use_as(struct replay *replay, unsigned token, unsigned user, uint64_t now_s)
{
    struct replay_entry entry;
    const struct replay_use use = {.authenticator = span_make(&token, sizeof token),
                                   .principal = span_make(&user, sizeof user),
                                   .now_s = now_s,
                                   .keep_s = KEEP_S};
    return replay_check(replay, &use, &entry);
}

/* One of many users. */
static enum reason use(struct replay *replay, unsigned token, uint64_t now_s)
{
    return use_as(replay, token, token, now_s);
}

Test(replay, a_second_use_is_a_replay_until_the_entry_ends)
{
    struct replay *replay = open_table(1024);
    cr_assert_eq(use(replay, 1, t0), REASON_OK);
    cr_assert_eq(use(replay, 1, t0), REASON_REPLAY);
    cr_assert_eq(use(replay, 2, t0), REASON_OK);
    cr_assert_eq(use(replay, 1, t0 + KEEP_S - 1), REASON_REPLAY);
    cr_assert_eq(use(replay, 1, t0 + KEEP_S), REASON_REPLAY, "as long as it is not given up");
    replay_close(replay);
}

Test(replay, ten_thousand_tokens_are_each_good_once)
{
    struct replay *replay = open_table(10000);
    uint64_t live = 0;
    uint64_t capacity = 0;
    for (unsigned token = 0; token < 10000; token++) {
        cr_assert_eq(use(replay, token, t0), REASON_OK, "%u", token);
    }
    for (unsigned token = 0; token < 10000; token++) {
        cr_assert_eq(use(replay, token, t0 + 1), REASON_REPLAY, "%u", token);
    }
    replay_usage(replay, t0 + 1, &live, &capacity);
    cr_assert_eq(live, 10000);
    cr_assert_geq(capacity, 10000);
    replay_close(replay);
}

static uint64_t live_at(struct replay *replay, uint64_t now_s)
{
    uint64_t live = 0;
    uint64_t capacity = 0;
    replay_usage(replay, now_s, &live, &capacity);
    return live;
}

Test(replay, knows_how_many_entries_live)
{
    struct replay *replay = open_table(10000);
    cr_expect_eq(live_at(replay, t0), 0);
    for (unsigned token = 0; token < 300; token++) {
        cr_assert_eq(use(replay, token, t0 + token / 100), REASON_OK);
        cr_assert_eq(use(replay, token, t0 + token / 100), REASON_REPLAY, "which is none more");
    }
    cr_expect_eq(live_at(replay, t0 + 2), 300);
    cr_expect_eq(live_at(replay, t0 + KEEP_S - 1), 300);
    cr_expect_eq(live_at(replay, t0 + KEEP_S), 200);
    cr_expect_eq(live_at(replay, t0 + KEEP_S + 2), 0);
    replay_close(replay);
    replay = open_table(10000);
    cr_expect_eq(live_at(replay, t0 + KEEP_S), 200, "of the file");
    /* What ended long before is not taken for what lives now, nor does it take its place. */
    (void)use(replay, 1000, t0 - 8192 + 1);
    cr_expect_eq(live_at(replay, t0 + KEEP_S), 200);
    cr_assert_eq(use(replay, 1001, t0 + 8192), REASON_OK);
    cr_expect_eq(live_at(replay, t0 + 8192), 1);
    replay_close(replay);
}

Test(replay, a_full_table_refuses_and_forgets_nothing)
{
    struct replay *replay = open_table(1024);
    unsigned accepted = 0;
    unsigned refused = 0;
    for (unsigned token = 0; token < 10000; token++) {
        const enum reason reason = use(replay, token, t0);
        cr_assert(reason == REASON_OK || reason == REASON_REPLAY_FULL);
        accepted += reason == REASON_OK ? 1 : 0;
        refused += reason == REASON_REPLAY_FULL ? 1 : 0;
    }
    cr_assert_geq(accepted, 1024);
    cr_assert_gt(refused, 0);
    unsigned remembered = 0;
    for (unsigned token = 0; token < 10000; token++) {
        remembered += use(replay, token, t0) == REASON_REPLAY ? 1 : 0;
    }
    cr_assert_eq(remembered, accepted);
    cr_assert_eq(use(replay, 20000, t0 + KEEP_S + 1), REASON_OK, "room again when entries end");
    replay_close(replay);
}

Test(replay, one_principal_holds_an_eighth_at_most)
{
    struct replay *replay = open_table(1024);
    unsigned accepted = 0;
    for (unsigned token = 0; token < 10000; token++) {
        const enum reason reason = use_as(replay, token, 7, t0);
        cr_assert(reason == REASON_OK || reason == REASON_REPLAY_FULL);
        accepted += reason == REASON_OK ? 1 : 0;
    }
    cr_assert_eq(accepted, 2048 / 8);
    for (unsigned token = 10000; token < 10500; token++) {
        cr_assert_eq(use(replay, token, t0), REASON_OK, "others are let in, %u", token);
    }
    cr_assert_eq(use_as(replay, 20000, 7, t0 + KEEP_S + 1), REASON_OK, "again when entries end");
    replay_close(replay);
}

Test(replay, one_principal_has_what_its_share_promises)
{
    const unsigned entries = 64 * 1024;
    struct replay *replay = open_table(entries);
    for (unsigned token = 0; token < entries / 12; token++) {
        cr_assert_eq(use_as(replay, token, 7, t0), REASON_OK, "%u of %u", token, entries);
    }
    replay_close(replay);
}

Test(replay, survives_a_restart_and_a_change_of_size)
{
    struct replay *replay = open_table(1024);
    for (unsigned token = 0; token < 500; token++) {
        cr_assert_eq(use(replay, token, t0), REASON_OK);
    }
    replay_close(replay);
    static const uint64_t sizes[] = {1024, 8192, 1024};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        replay = open_table(sizes[i]);
        for (unsigned token = 0; token < 500; token++) {
            cr_assert_eq(use(replay, token, t0), REASON_REPLAY, "size %zu", i);
        }
        replay_close(replay);
    }
}

Test(replay, one_token_in_many_processes_is_good_once)
{
    struct replay *replay = open_table(4096);
    enum { PROCESSES = 8, TOKENS = 400 };
    pid_t pids[PROCESSES];
    int results[2];
    cr_assert_eq(pipe(results), 0);
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork();
        if (pids[p] == 0) {
            unsigned char granted = 0;
            for (unsigned token = 0; token < TOKENS; token++) {
                if (use(replay, token, t0) == REASON_OK) {
                    granted = 1;
                    (void)!write(results[1], &granted, 1);
                }
            }
            _exit(0);
        }
    }
    for (int p = 0; p < PROCESSES; p++) {
        cr_assert_eq(waitpid(pids[p], NULL, 0), pids[p]);
    }
    cr_assert_eq(close(results[1]), 0);
    int granted = 0;
    unsigned char byte = 0;
    while (read(results[0], &byte, 1) == 1) {
        granted++;
    }
    cr_assert_eq(granted, TOKENS);
    (void)close(results[0]);
    replay_close(replay);
}

Test(replay, a_process_killed_at_any_moment_blocks_nobody)
{
    struct replay *replay = open_table(65536);
    for (unsigned round = 0; round < 50; round++) {
        const pid_t pid = fork();
        if (pid == 0) {
            for (unsigned token = 0;; token++) {
                (void)use(replay, round * 1000000 + token % 300, t0 + token / 300 * KEEP_S);
            }
        }
        (void)usleep(500 + round * 37);
        cr_assert_eq(kill(pid, SIGKILL), 0);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        for (unsigned token = 0; token < 300; token++) {
            const enum reason reason = use(replay, 900000000 + round * 300 + token, 4000000000);
            cr_assert_eq(reason, REASON_OK, "round %u: %d", round, reason);
        }
    }
    replay_close(replay);
}

Test(replay, a_damaged_or_foreign_file_is_a_fault)
{
    struct replay *replay = open_table(1024);
    struct fault fault;
    replay_close(replay);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    const off_t sizes[] = {0, 100, 4096, st.st_size - 1, st.st_size + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cr_assert_eq(truncate(path, sizes[i]), 0);
        cr_assert_eq(replay_open(dir, 1024, &replay, &fault), -1, "%ld bytes", (long)sizes[i]);
        cr_assert_not_null(strstr(fault.what, "damaged"), "%s", fault.what);
    }
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(symlink("/dev/zero", path), 0);
    cr_assert_eq(replay_open(dir, 1024, &replay, &fault), -1, "a symbolic link");
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(replay_open("/nowhere", 1024, &replay, &fault), -1);
}

/* A request with an id; the rest of its context is the same for all. */
static enum reason repeat(struct replay *replay, unsigned token, const char *id, uint64_t now_s,
                          struct replay_entry *entry)
{
    const struct replay_use use = {.authenticator = span_make(&token, sizeof token),
                                   .principal = span_of("alice"),
                                   .context = {span_of(id), span_of("/page")},
                                   .context_count = id != NULL ? 2 : 0,
                                   .now_s = now_s,
                                   .keep_s = KEEP_S};
    return replay_check(replay, &use, entry);
}

Test(replay, the_same_context_may_repeat_for_half_a_minute)
{
    struct replay *replay = open_table(1024);
    struct replay_entry entry = {.seq = 99};
    cr_assert_eq(repeat(replay, 1, "a", t0, &entry), REASON_OK);
    cr_assert_eq(entry.seq, 0);
    replay_note(replay, &entry, 77);
    entry.seq = 0;
    cr_assert_eq(repeat(replay, 1, "a", t0, &entry), REASON_REPEAT);
    cr_assert_eq(entry.seq, 77);
    cr_assert_eq(repeat(replay, 1, "a", t0 + REPLAY_REPEAT_S, &entry), REASON_REPEAT);
    cr_assert_eq(entry.seq, 77, "a repeat does not take the first one's place");
    cr_assert_eq(repeat(replay, 1, "a", t0 + REPLAY_REPEAT_S + 1, &entry), REASON_REPLAY);
    cr_assert_eq(repeat(replay, 1, "b", t0, &entry), REASON_REPLAY);
    cr_assert_eq(repeat(replay, 1, NULL, t0, &entry), REASON_REPLAY);
    cr_assert_eq(repeat(replay, 1, "a", t0 - 1, &entry), REASON_REPLAY, "the clock went back");
    cr_assert_eq(repeat(replay, 1, "a", t0 + KEEP_S, &entry), REASON_REPLAY);
    replay_close(replay);
}

Test(replay, without_a_context_nothing_repeats)
{
    struct replay *replay = open_table(1024);
    struct replay_entry entry;
    cr_assert_eq(repeat(replay, 1, NULL, t0, &entry), REASON_OK);
    cr_assert_eq(repeat(replay, 1, NULL, t0, &entry), REASON_REPLAY);
    cr_assert_eq(repeat(replay, 1, "a", t0, &entry), REASON_REPLAY);
    replay_close(replay);
}

Test(replay, contexts_are_told_apart_field_by_field)
{
    struct replay *replay = open_table(1024);
    static const char *const fields[][2] = {
        {"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc", ""}, {"ab", "C"}};
    struct replay_entry entry;
    struct replay_use use = {.authenticator = span_of("token"),
                             .principal = span_of("alice"),
                             .context_count = 2,
                             .now_s = t0,
                             .keep_s = KEEP_S};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        use.context[0] = span_of(fields[i][0]);
        use.context[1] = span_of(fields[i][1]);
        cr_assert_eq(replay_check(replay, &use, &entry), i == 0 ? REASON_OK : REASON_REPLAY, "%zu",
                     i);
    }
    use.context[0] = span_of("ab");
    use.context[1] = span_of("c");
    cr_assert_eq(replay_check(replay, &use, &entry), REASON_REPEAT);
    use.context_count = 1;
    cr_assert_eq(replay_check(replay, &use, &entry), REASON_REPLAY);
    replay_close(replay);
}

Test(replay, a_note_for_an_entry_that_is_gone_goes_nowhere)
{
    struct replay *replay = open_table(1024);
    struct replay_entry old;
    struct replay_entry entry = {.seq = 99};
    cr_assert_eq(repeat(replay, 1, "a", t0, &old), REASON_OK);
    old.id++; /* as if another had taken the slot */
    replay_note(replay, &old, 77);
    cr_assert_eq(repeat(replay, 1, "a", t0, &entry), REASON_REPEAT);
    cr_assert_eq(entry.seq, 0);
    replay_close(replay);
}

/* A use of a token that was made at `ctime_s`. */
static enum reason use_made_at(struct replay *replay, unsigned token, uint64_t ctime_s,
                               uint64_t now_s)
{
    struct replay_entry entry;
    const struct replay_use use = {.authenticator = span_make(&token, sizeof token),
                                   .principal = span_make(&token, sizeof token),
                                   .now_s = now_s,
                                   .ctime_us = ctime_s * 1000000,
                                   .keep_s = KEEP_S};
    return replay_check(replay, &use, &entry);
}

Test(replay, a_first_table_wants_tokens_that_are_younger_than_itself)
{
    const uint64_t made = (uint64_t)time(NULL);
    struct replay *replay = open_table(1024);
    cr_assert(replay_wants_ctime(replay, made, KEEP_S));
    cr_assert_eq(use_made_at(replay, 1, made - 1, made + 5), REASON_REPLAY_UNAVAILABLE);
    cr_assert_eq(use_made_at(replay, 2, 0, made + 5), REASON_REPLAY_UNAVAILABLE, "not known");
    cr_assert_eq(use_made_at(replay, 3, made + 2, made + 5), REASON_OK);
    cr_assert_eq(use_made_at(replay, 3, made + 2, made + 5), REASON_REPLAY);
    cr_assert_eq(use_made_at(replay, 1, made - 1, made + 5), REASON_REPLAY, "it was remembered");
    cr_assert_not(replay_wants_ctime(replay, made + KEEP_S / 2 + 2, KEEP_S));
    cr_assert_eq(use(replay, 4, made + KEEP_S / 2 + 2), REASON_OK);
    replay_close(replay);
}

Test(replay, a_lost_table_refuses_what_could_have_been_used_before)
{
    replay_close(open_table(1024));
    cr_assert_eq(unlink(path), 0);
    const uint64_t made = (uint64_t)time(NULL);
    struct replay *replay = open_table(1024);
    /* A client whose clock was ahead by the whole skew. */
    cr_assert_eq(use_made_at(replay, 1, made + KEEP_S / 2 - 1, made + 1),
                 REASON_REPLAY_UNAVAILABLE);
    cr_assert_eq(use_made_at(replay, 2, made + KEEP_S / 2 + 2, made + 3), REASON_OK);
    cr_assert(replay_wants_ctime(replay, made + KEEP_S - 2, KEEP_S));
    cr_assert_not(replay_wants_ctime(replay, made + KEEP_S + 1, KEEP_S));
    replay_close(replay);
    /* Kept, also by a table of another size. */
    replay = open_table(4096);
    cr_assert(replay_wants_ctime(replay, made + KEEP_S - 2, KEEP_S));
    cr_assert_eq(use_made_at(replay, 2, made + KEEP_S / 2 + 2, made + 3), REASON_REPLAY);
    replay_close(replay);
}

/* As if the table were of another start of the host, and brought to the disk or not. */
static void move_to_another_boot(bool settled)
{
    char boot[BOOT_ID_BYTES];
    unsigned char bytes[4096];
    boot_id(boot);
    const int fd = open(path, O_RDWR);
    cr_assert_eq(pread(fd, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
    unsigned char *found = memmem(bytes, sizeof bytes, boot, sizeof boot);
    cr_assert_not_null(found);
    found[0] = found[0] == '0' ? '1' : '0';
    cr_assert_eq(found[sizeof boot + 3], 1, "a close settles");
    found[sizeof boot + 3] = settled ? 1 : 0;
    cr_assert_eq(pwrite(fd, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
    (void)close(fd);
}

Test(replay, a_table_that_was_in_use_when_the_host_went_down_counts_as_lost)
{
    static const uint64_t sizes[] = {1024, 4096}; /* as it is, and copied */
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct replay *replay = open_table(1024);
        cr_assert_eq(use(replay, 1, t0), REASON_OK);
        replay_close(replay);
        move_to_another_boot(false);
        const uint64_t up = (uint64_t)time(NULL);
        replay = open_table(sizes[i]);
        cr_assert_eq(use_made_at(replay, 2, up + KEEP_S / 2 - 1, up + 1),
                     REASON_REPLAY_UNAVAILABLE);
        cr_assert_eq(use_made_at(replay, 3, up + KEEP_S / 2 + 2, up + 3), REASON_OK);
        cr_assert_eq(use(replay, 1, t0), REASON_REPLAY, "what it has it knows");
        replay_close(replay);
        (void)unlink(path);
        (void)unlink(mark);
    }
}

Test(replay, a_table_that_was_closed_before_the_host_went_down_is_whole)
{
    struct replay *replay = open_table(1024);
    const uint64_t made = (uint64_t)time(NULL);
    cr_assert_eq(use_made_at(replay, 1, made + 2, made + 2), REASON_OK);
    replay_close(replay);
    move_to_another_boot(true);
    replay = open_table(1024);
    cr_assert_eq(use_made_at(replay, 2, made + 2, made + 3), REASON_OK);
    cr_assert_eq(use_made_at(replay, 1, made + 2, made + 3), REASON_REPLAY);
    replay_close(replay);
}

Test(replay, a_process_that_did_not_open_the_table_settles_nothing)
{
    struct replay *replay = open_table(1024);
    const pid_t child = fork();
    if (child == 0) {
        replay_close(replay);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
    char boot[BOOT_ID_BYTES];
    unsigned char bytes[4096];
    boot_id(boot);
    const int fd = open(path, O_RDONLY);
    cr_assert_eq(pread(fd, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
    (void)close(fd);
    const unsigned char *found = memmem(bytes, sizeof bytes, boot, sizeof boot);
    cr_assert_not_null(found);
    cr_assert_eq(found[sizeof boot + 3], 0);
    replay_close(replay);
}

Test(replay, a_clock_that_goes_back_revives_nothing_that_was_forgotten)
{
    struct replay *replay = open_table(1024);
    /* Used at t0; given up when others need the room after it has ended. */
    cr_assert_eq(use_made_at(replay, 1, t0, t0), REASON_OK);
    const uint64_t later = t0 + KEEP_S + 1;
    for (unsigned token = 1000; token < 2000; token++) {
        (void)use_made_at(replay, token, later, later);
    }
    cr_assert_not(replay_wants_ctime(replay, later, KEEP_S), "nothing forgotten is acceptable yet");
    cr_assert_eq(use_made_at(replay, 2, later, later), REASON_OK);
    cr_assert(replay_wants_ctime(replay, t0 + 10, KEEP_S), "the clock went back");
    cr_assert_eq(use_made_at(replay, 1, t0, t0 + 10), REASON_REPLAY_UNAVAILABLE);
    cr_assert_eq(use_made_at(replay, 3, t0 + KEEP_S / 2, t0 + 10), REASON_REPLAY_UNAVAILABLE);
    cr_assert_eq(use_made_at(replay, 4, t0 + KEEP_S / 2 + 1, t0 + 10), REASON_OK);
    replay_close(replay);
    /* Remembered over a restart and by a table of another size. */
    replay = open_table(4096);
    cr_assert_eq(use_made_at(replay, 5, t0, t0 + 10), REASON_REPLAY_UNAVAILABLE);
    replay_close(replay);
}

Test(replay, what_a_change_of_size_leaves_behind_is_not_revived)
{
    struct replay *replay = open_table(1024);
    const uint64_t used = (uint64_t)time(NULL) - KEEP_S - 100; /* ended by now */
    const uint64_t made_us = (used - 3600) * 1000000;
    const int fd = open(path, O_WRONLY);
    /* Behind magic, groups, ready and key. */
    cr_assert_eq(pwrite(fd, &made_us, sizeof made_us, 16 + 8 + 8 + SECRET_KEY_BYTES), 8);
    (void)close(fd);
    cr_assert_eq(use_made_at(replay, 1, used, used), REASON_OK);
    replay_close(replay);
    replay = open_table(8192);
    cr_assert(replay_wants_ctime(replay, used + 10, KEEP_S), "the clock went back");
    cr_assert_eq(use_made_at(replay, 1, used, used + 10), REASON_REPLAY_UNAVAILABLE);
    replay_close(replay);
}

Test(replay, an_entry_that_has_just_ended_is_kept_for_a_second)
{
    struct replay *replay = open_table(1024);
    for (unsigned token = 1000; token < 20000; token++) {
        (void)use(replay, token, t0);
    }
    cr_assert_eq(use(replay, 1, t0 + KEEP_S), REASON_REPLAY_FULL);
    cr_assert_not(replay_wants_ctime(replay, t0 + KEEP_S, KEEP_S));
    cr_assert_eq(use(replay, 1, t0 + KEEP_S + 1), REASON_OK);
    replay_close(replay);
}

Test(replay, what_is_refused_as_forgotten_is_never_a_repeat)
{
    replay_close(open_table(1024));
    cr_assert_eq(unlink(path), 0);
    struct replay *replay = open_table(1024);
    const uint64_t now_s = (uint64_t)time(NULL);
    struct replay_entry entry;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(repeat(replay, 1, "a", now_s, &entry),
                     i == 0 ? REASON_REPLAY_UNAVAILABLE : REASON_REPLAY);
    }
    replay_close(replay);
}

Test(replay, a_larger_skew_revives_nothing)
{
    struct replay *replay = open_table(1024);
    const struct replay_use used = {.authenticator = span_of("token"),
                                    .principal = span_of("alice"),
                                    .now_s = t0,
                                    .keep_s = 2 * 60 + 1};
    struct replay_use again = used;
    struct replay_entry entry;
    again.now_s = t0 + 200;
    again.ctime_us = t0 * 1000000;
    again.keep_s = 2 * 300 + 1;
    cr_assert_eq(replay_check(replay, &used, &entry), REASON_OK);
    cr_assert_eq(replay_check(replay, &again, &entry), REASON_REPLAY, "ended, but still there");
    for (unsigned token = 1000; token < 2000; token++) {
        (void)use(replay, token, t0 + 200);
    }
    cr_assert(replay_wants_ctime(replay, t0 + 200, 2 * 300 + 1));
    cr_assert_eq(replay_check(replay, &again, &entry), REASON_REPLAY_UNAVAILABLE, "given up");
    again.authenticator = span_of("another");
    again.ctime_us = (t0 + 100) * 1000000;
    cr_assert_neq(replay_check(replay, &again, &entry), REASON_REPLAY_UNAVAILABLE, "a younger one");
    replay_close(replay);
}

Test(replay, a_table_of_an_older_version_is_replaced_as_if_it_were_lost)
{
    static const char *const older[] = {"spnegate-replay1", "spnegate-replay2"};
    for (size_t i = 0; i < sizeof older / sizeof older[0]; i++) {
        replay_close(open_table(1024));
        const int fd = open(path, O_WRONLY);
        cr_assert_eq(pwrite(fd, older[i], 16, 0), 16);
        (void)close(fd);
        (void)unlink(mark);
        const uint64_t made = (uint64_t)time(NULL);
        struct replay *replay = open_table(1024);
        cr_assert_eq(use_made_at(replay, 1, made + KEEP_S / 2 - 1, made + 1),
                     REASON_REPLAY_UNAVAILABLE, "%s", older[i]);
        replay_close(replay);
    }
}

Test(replay, a_table_of_a_newer_version_is_left_alone)
{
    struct replay *replay = NULL;
    struct fault fault = {0};
    replay_close(open_table(1024));
    const int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, "spnegate-replay9", 16, 0), 16);
    (void)close(fd);
    cr_assert_eq(replay_open(dir, 1024, &replay, &fault), -1);
}

/* ---- a lock that is not given back */

static bool holds_on; /* to every lock, for ever */

int __real_lock_give(struct lock *lock);
int __wrap_lock_give(struct lock *lock);
int __wrap_lock_give(struct lock *lock)
{
    while (holds_on) {
        (void)pause();
    }
    return __real_lock_give(lock);
}

Test(replay, who_holds_a_lock_for_too_long_is_known_until_it_is_gone)
{
    struct replay *replay = open_table(1024);
    const pid_t child = fork();
    int status = 0;

    cr_assert(child >= 0);
    if (child == 0) {
        holds_on = true;
        (void)use(replay, 1, t0);
        _exit(1);
    }
    cr_assert_eq(replay_stuck_holder(replay), 0, "nobody has waited for it");
    enum reason reason = REASON_OK;
    for (unsigned i = 0; i < 1000 && reason != REASON_REPLAY_UNAVAILABLE; i++) {
        (void)usleep(10000); /* until the child has it */
        reason = use(replay, 1, t0);
    }
    cr_assert_eq(reason, REASON_REPLAY_UNAVAILABLE);
    cr_expect_eq(replay_stuck_holder(replay), child);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(use(replay, 1, t0), REASON_REPLAY, "the child had remembered it");
    cr_expect_eq(use(replay, 1, t0), REASON_REPLAY);
    cr_expect_eq(replay_stuck_holder(replay), 0);
    replay_close(replay);
}
