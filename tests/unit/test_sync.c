/* A disk that hangs keeps nobody for longer than a second, and none of its errors is lost. */
#include "base/sync.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NO_ERRNO = -1 }; /* a failure that leaves none */

/* The disk; its error is that of the next sync. */
static struct {
    sem_t may_answer;
    _Atomic bool hangs;
    _Atomic int error;
    _Atomic unsigned data;
    _Atomic unsigned all;
    _Atomic ino_t last;
} disk;

static int answer(int fd)
{
    struct stat st;
    disk.last = fstat(fd, &st) == 0 ? st.st_ino : 0;
    while (disk.hangs && sem_wait(&disk.may_answer) != 0) {
    }
    errno = disk.error == NO_ERRNO ? 0 : disk.error;
    return disk.error == 0 ? 0 : -1;
}

int fdatasync(int fd)
{
    disk.data++;
    return answer(fd);
}

int fsync(int fd)
{
    disk.all++;
    return answer(fd);
}

Test(sync, takes_no_error_of_the_disk_for_its_own_patience)
{
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    for (int thread = 0; thread < 2; thread++) {
        disk.error = ETIMEDOUT;
        cr_expect_eq(sync_file(fileno(file), SYNC_DATA), -1);
        cr_expect_eq(errno, EIO);
        disk.error = NO_ERRNO;
        cr_expect_eq(sync_file(fileno(file), SYNC_ALL), -1);
        cr_expect_eq(errno, EIO);
        cr_assert_eq(sync_begin(), 0);
    }
    (void)fclose(file);
}

static time_t now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void expect_error(int expected, int fd, enum sync_what what)
{
    errno = 0;
    cr_expect_eq(sync_file(fd, what), expected == 0 ? 0 : -1);
    cr_expect_eq(errno, expected, "%s", sync_error_text(errno));
}

/* Whoever waits for the end of what was given up. */
static void await_answer(int fd)
{
    while (sync_file(fd, SYNC_ALL) != 0 && errno == ETIMEDOUT) {
    }
}

static int file_open(ino_t *number)
{
    char path[] = "/tmp/test_sync.XXXXXX";
    struct stat st;
    const int fd = mkstemp(path);
    cr_assert(fd >= 0 && unlink(path) == 0 && fstat(fd, &st) == 0);
    *number = st.st_ino;
    return fd;
}

static void disk_open(void)
{
    cr_assert_eq(sem_init(&disk.may_answer, 0, 0), 0);
}

Test(sync, asks_for_what_is_wanted_and_tells_what_came, .init = disk_open, .timeout = 30)
{
    ino_t number;
    const int fd = file_open(&number);
    for (int thread = 0; thread < 2; thread++) {
        disk.data = disk.all = 0;
        expect_error(0, fd, SYNC_DATA);
        cr_expect(disk.data == 1 && disk.all == 0 && disk.last == number);
        expect_error(0, fd, SYNC_ALL);
        cr_expect(disk.data == 1 && disk.all == 1);
        disk.error = EIO;
        expect_error(EIO, fd, SYNC_DATA);
        cr_expect_eq(sync_late_error(), 0, "it was told");
        disk.error = EBADF;
        expect_error(EBADF, -1, SYNC_DATA);
        disk.error = 0;
        cr_assert(thread == 1 || sync_begin() == 0);
    }
    (void)close(fd);
}

Test(sync, gives_up_a_disk_that_hangs, .init = disk_open, .timeout = 30)
{
    ino_t number;
    ino_t other_number;
    int fd = file_open(&number);
    const int other = file_open(&other_number);
    const time_t begun = now_s();
    cr_assert_eq(sync_begin(), 0);
    disk.hangs = true;
    expect_error(ETIMEDOUT, fd, SYNC_DATA);
    cr_expect_geq(now_s() - begun, 1);
    /* The number is another file's by now, and the disk is not asked for that. */
    cr_assert_eq(dup2(other, fd), fd);
    for (int i = 0; i < 50; i++) {
        expect_error(ETIMEDOUT, other, SYNC_DATA);
    }
    cr_expect_lt(now_s() - begun, 20, "each of them waited");
    cr_expect(disk.data == 1 && disk.last == number);
    cr_expect_eq(sync_late_error(), 0, "there is none yet");
    disk.error = EIO;
    disk.hangs = false;
    (void)sem_post(&disk.may_answer);
    await_answer(other);
    cr_expect_eq(sync_late_error(), EIO);
    cr_expect_eq(sync_late_error(), 0, "it is told once");
    disk.error = 0;
    expect_error(0, fd, SYNC_DATA);
    cr_expect_eq(disk.last, other_number);
    disk.error = EIO;
    expect_error(EIO, fd, SYNC_DATA);
    cr_expect_eq(sync_late_error(), 0, "it was told");
    (void)close(fd);
    (void)close(other);
}

Test(sync, a_child_waits_for_the_disk_itself, .init = disk_open, .timeout = 30)
{
    ino_t number;
    const int fd = file_open(&number);
    int status = 0;
    cr_assert_eq(sync_begin(), 0);
    disk.hangs = true;
    expect_error(ETIMEDOUT, fd, SYNC_DATA);
    const pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        disk.hangs = false;
        _exit(sync_file(fd, SYNC_DATA) == 0 && sync_late_error() == 0 ? 0 : 1);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    disk.hangs = false;
    (void)sem_post(&disk.may_answer);
    await_answer(fd);
    (void)close(fd);
}

static unsigned descriptors_of(ino_t number)
{
    struct stat st;
    unsigned count = 0;
    for (int fd = 0; fd < 1000; fd++) {
        count += fstat(fd, &st) == 0 && st.st_ino == number ? 1 : 0;
    }
    return count;
}

Test(sync, a_child_gives_up_what_is_waited_for, .init = disk_open, .timeout = 30)
{
    ino_t number;
    const int fd = file_open(&number);
    int status = 0;
    cr_assert_eq(sync_begin(), 0);
    disk.hangs = true;
    expect_error(ETIMEDOUT, fd, SYNC_DATA);
    cr_assert_eq(descriptors_of(number), 2);
    const pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        sync_part();
        const unsigned left = descriptors_of(number);
        const int again = dup(fd);
        sync_part(); /* closes nothing that is somebody else's */
        _exit(left == 1 && again >= 0 && descriptors_of(number) == 2 ? 0 : 1);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    sync_part(); /* the thread is ours */
    disk.hangs = false;
    (void)sem_post(&disk.may_answer);
    await_answer(fd);
    cr_expect_eq(descriptors_of(number), 1, "it is open no longer than it is waited for");
    (void)close(fd);
}
