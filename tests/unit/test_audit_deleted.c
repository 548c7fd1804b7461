/* The trail's file when somebody deletes it, or its directory, while the daemon runs. */
#include "trail/audit.h"
#include "trail_walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TRAIL_TEST(what)                                                                           \
    Test(audit_deleted, what, .init = directory_enter, .fini = directory_leave, .timeout = 100)

static const char file[] = "log/audit.jsonl";
static const struct audit_pace pace = {.seal_ms = 0};

/* A trail in a directory of its own, with one record of a decision. */
static struct audit *trail_make(void)
{
    struct audit *audit;

    cr_assert(mkdir("log", 0700) == 0);
    audit = trail_open(file);
    cr_assert_eq(append_sample(audit), REASON_OK);
    return audit;
}

/* A walk along the present file, and a descriptor of it for when it has no name any more. */
static int file_hold(struct walk *walk, char path[32])
{
    int fd = open(file, O_RDONLY);

    cr_assert(fd >= 0);
    *walk = (struct walk){.next_seq = 0};
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

/* A process that inherited the trail, and appends when it is asked to. */
struct follower {
    pid_t pid;
    int ask;
    int answer;
};

static struct follower follower_start(struct audit *audit)
{
    int ask[2];
    int answer[2];
    pid_t pid;

    cr_assert(pipe(ask) == 0 && pipe(answer) == 0);
    pid = fork();
    if (pid == 0) {
        char byte;

        close(ask[1]);
        while (read(ask[0], &byte, 1) == 1) {
            byte = (char)append_sample(audit);
            if (write(answer[1], &byte, 1) != 1) {
                break;
            }
        }
        audit_close(audit);
        _exit(0);
    }
    cr_assert(pid > 0);
    close(ask[0]);
    close(answer[1]);
    return (struct follower){pid, ask[1], answer[0]};
}

static enum reason follower_append(const struct follower *follower)
{
    char byte = 'a';

    cr_assert(write(follower->ask, &byte, 1) == 1 && read(follower->answer, &byte, 1) == 1);
    return (enum reason)(unsigned char)byte;
}

static void follower_end(const struct follower *follower)
{
    int status = 0;

    close(follower->ask);
    cr_assert(waitpid(follower->pid, &status, 0) == follower->pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
    close(follower->answer);
}

TRAIL_TEST(goes_on_in_a_new_file)
{
    struct audit *audit = trail_make();
    struct follower follower = follower_start(audit);
    struct audit_news news;
    struct walk walk;
    char path[32];
    int fd = file_hold(&walk, path);

    cr_assert_eq(follower_append(&follower), REASON_OK);
    cr_assert(!audit_tick(audit, &pace, 1000, &news));
    cr_assert(unlink(file) == 0);
    cr_assert_eq(append_sample(audit), REASON_OK); /* nobody has looked yet */
    cr_assert(audit_tick(audit, &pace, 1250, &news));
    cr_expect(news.deleted && !news.moved && news.segment[0] != '\0' && news.seal[0] != '\0');
    cr_expect_str_eq(news.fault.what, "");
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert_eq(follower_append(&follower), REASON_OK);
    cr_assert(!audit_tick(audit, &pace, 1500, &news));
    walk_on(&walk, path);
    cr_expect_str_eq(walk.event, "segment.close");
    cr_expect_eq(walk.records, 2 + 3 + 2);
    walk_next(&walk, file);
    cr_expect_eq(walk.records, 7 + 1 + 2);
    follower_end(&follower);
    audit_close(audit);
    audit = trail_open(file);
    audit_close(audit);
    close(fd);
}

TRAIL_TEST(a_file_that_was_renamed_is_as_good_as_before)
{
    struct audit *audit = trail_make();
    struct audit_news news;

    cr_assert(rename(file, "log/audit.1") == 0);
    cr_expect(!audit_tick(audit, &pace, 1000, &news), "%s", news.segment);
    cr_assert_eq(append_sample(audit), REASON_OK);
    /* Another file at its place, which logrotate can make. */
    close(open(file, O_WRONLY | O_CREAT | O_EXCL, 0600));
    cr_expect(!audit_tick(audit, &pace, 3000, &news), "%s", news.segment);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(rename("log", "gone") == 0);
    cr_expect(!audit_tick(audit, &pace, 5000, &news), "%s", news.segment);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_expect_eq(walk_whole("gone/audit.1").records, 6);
    /* With another name left, it is there still. */
    cr_assert(link("gone/audit.1", "gone/audit.2") == 0 && unlink("gone/audit.1") == 0);
    cr_expect(!audit_tick(audit, &pace, 7000, &news), "%s", news.segment);
    cr_assert(unlink("gone/audit.2") == 0);
    cr_assert(audit_tick(audit, &pace, 9000, &news));
    cr_expect(news.deleted);
    audit_close(audit);
}

TRAIL_TEST(takes_no_record_while_there_is_no_directory)
{
    struct audit *audit = trail_make();
    struct follower follower = follower_start(audit);
    struct audit_news news;
    struct walk walk;
    char path[32];
    int fd = file_hold(&walk, path);

    cr_assert(unlink(file) == 0 && rmdir("log") == 0);
    cr_assert(audit_tick(audit, &pace, 1000, &news));
    cr_expect_str_eq(news.fault.where, file);
    cr_expect_str_eq(news.fault.what,
                     "cannot be opened: No such file or directory; the file before "
                     "was deleted, so no record can be written");
    cr_expect_eq(audit_last_error(audit), ENOENT); /* without anybody who came */
    cr_assert_eq(follower_append(&follower), REASON_AUDIT_UNAVAILABLE);
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_last_error(audit), ENOENT);
    walk_on(&walk, path);
    cr_expect_str_eq(walk.event, "segment.close");
    /* Said once, tried every second. */
    cr_assert(!audit_tick(audit, &pace, 2000, &news), "%s", news.fault.what);
    cr_assert(audit_rotate(audit, &news) == -1);
    cr_assert(mkdir("log", 0700) == 0);
    cr_assert(!audit_tick(audit, &pace, 2250, &news));
    cr_assert(audit_tick(audit, &pace, 3000, &news));
    cr_expect(news.moved && news.segment[0] != '\0', "%s", news.fault.what);
    cr_expect_eq(audit_last_error(audit), 0);
    cr_assert_eq(follower_append(&follower), REASON_OK);
    cr_assert_eq(append_sample(audit), REASON_OK);
    cr_assert(!audit_tick(audit, &pace, 4000, &news));
    walk_next(&walk, file);
    follower_end(&follower);
    audit_close(audit);
    close(fd);
}

TRAIL_TEST(takes_no_record_while_something_else_is_there)
{
    struct audit *audit = trail_make();
    struct audit_news news;
    struct stat st;

    cr_assert(unlink(file) == 0);
    file_put(file, "hello\n", 6);
    cr_assert(audit_tick(audit, &pace, 1000, &news));
    cr_expect(strstr(news.fault.what, "holds something already") != NULL, "%s", news.fault.what);
    cr_assert_eq(append_sample(audit), REASON_AUDIT_UNAVAILABLE);
    cr_expect_eq(audit_last_error(audit), EEXIST);
    cr_assert(stat(file, &st) == 0 && st.st_size == 6);
    cr_assert(rename(file, "log/hello") == 0);
    cr_assert(audit_tick(audit, &pace, 2000, &news));
    cr_expect(!news.moved);
    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
}

TRAIL_TEST(a_restart_goes_on_where_the_deleted_file_ended)
{
    struct audit *audit = trail_make();
    struct audit_news news;
    struct walk walk;
    char path[32];
    int fd = file_hold(&walk, path);

    cr_assert(unlink(file) == 0 && rmdir("log") == 0);
    cr_assert(audit_tick(audit, &pace, 1000, &news));
    audit_close(audit);
    cr_assert(mkdir("log", 0700) == 0);
    audit = trail_open(file);
    cr_assert_eq(append_sample(audit), REASON_OK);
    audit_close(audit);
    walk_on(&walk, path);
    walk_next(&walk, file);
    close(fd);
}

/* After SIGUSR1, too, workers may be unable to follow. */
TRAIL_TEST(tells_of_another_directory_once)
{
    struct audit *audit = trail_make();
    struct audit_news news;

    cr_assert(rename("log", "gone") == 0 && mkdir("log", 0700) == 0);
    trail_rotate(audit);
    cr_assert(audit_tick(audit, &pace, 1000, &news) && news.moved);
    cr_assert(!audit_tick(audit, &pace, 2000, &news));
    audit_close(audit);
}
