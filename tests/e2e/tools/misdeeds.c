/*
 * Preloaded into the daemon: a request whose parameter HTTP_X_DEED names one has it committed (see
 * deeds.c) inside the worker's thread that serves it; "none" only says who serves, and "secrets"
 * looks into all memory that was to be wiped in a forked process: EEXIST if it is not. What came of
 * it stands in the file $MISDEEDS (struct outcome). With $OLD_KERNEL set to landlock or seccomp,
 * the kernel seems to know nothing of that. $SWAP names a file in whose place "$SWAP.new" comes
 * right before the first worker confines itself.
 */
#include "deeds.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RANGES_MAX = 16, PAGE_BYTES = 4096 };

/* As the test reads it. */
struct outcome {
    int32_t worker; /* that committed the last one */
    int32_t error;  /* 0 if it succeeded; -1 as long as it has not returned */
    int32_t ranges; /* that are to be wiped in a forked process, the daemon's own */
};

static struct outcome *outcome;
static struct {
    const unsigned char *at;
    size_t len;
} ranges[RANGES_MAX];
static int range_count;
static pid_t supervisor;

int madvise(void *at, size_t len, int advice)
{
    if (advice == MADV_WIPEONFORK && range_count < RANGES_MAX) {
        ranges[range_count].at = at;
        ranges[range_count].len = len;
        range_count++;
    }
    return (int)syscall(SYS_madvise, at, len, advice);
}

/* A range of our own, so that there is one to be found wiped. */
static void keep_secret(void)
{
    unsigned char *page =
        mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED && madvise(page, PAGE_BYTES, MADV_WIPEONFORK) == 0) {
        memset(page, 0x5a, PAGE_BYTES);
    }
}

/* The bytes go through a pipe, because a page that cannot be read at all is as good. */
static int look_for_secrets(void)
{
    int found = range_count == 0 ? ENOENT : 0;
    int ends[2];
    unsigned char bytes[64];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return errno;
    }
    for (int i = 0; i < range_count; i++) {
        for (size_t at = 0; at < ranges[i].len; at += sizeof bytes) {
            const size_t left = ranges[i].len - at;
            const size_t len = left < sizeof bytes ? left : sizeof bytes;
            if (write(ends[1], ranges[i].at + at, len) != (ssize_t)len ||
                read(ends[0], bytes, len) != (ssize_t)len) {
                continue;
            }
            for (size_t j = 0; j < len; j++) {
                found = bytes[j] != 0 ? EEXIST : found;
            }
        }
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
    return found;
}

__attribute__((constructor)) static void open_outcome(void)
{
    const char *path = getenv("MISDEEDS");
    supervisor = getpid();
    const int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *map = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        (void)close(fd);
        outcome = map == MAP_FAILED ? NULL : map;
        keep_secret();
    }
}

int FCGX_Accept_r(FCGX_Request *request)
{
    static int (*next)(FCGX_Request *);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "FCGX_Accept_r");
    }
    const int r = next(request);
    const char *deed = r == 0 ? FCGX_GetParam("HTTP_X_DEED", request->envp) : NULL;
    if (deed != NULL && outcome != NULL) {
        outcome->worker = getpid();
        outcome->ranges = range_count - 1;
        outcome->error = -1;
        outcome->error = strcmp(deed, "none") == 0      ? 0
                         : strcmp(deed, "secrets") == 0 ? look_for_secrets()
                                                        : deeds_commit(deed);
    }
    return r;
}

static int lacks(const char *feature)
{
    const char *old = getenv("OLD_KERNEL");
    return old != NULL && strcmp(old, feature) == 0;
}

static void swap(void)
{
    const char *path = getenv("SWAP");
    char fresh[512];
    if (path != NULL && getpid() != supervisor &&
        snprintf(fresh, sizeof fresh, "%s.new", path) < (int)sizeof fresh) {
        (void)rename(fresh, path);
    }
}

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    va_list args;
    long a[6];
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "syscall");
    }
    va_start(args, number);
    for (size_t i = 0; i < sizeof a / sizeof a[0]; i++) {
        a[i] = va_arg(args, long);
    }
    va_end(args);
    if (number == SYS_landlock_create_ruleset && lacks("landlock")) {
        errno = ENOSYS;
        return -1;
    }
    if (number == SYS_landlock_restrict_self) {
        swap();
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int prctl(int option, ...)
{
    va_list args;
    unsigned long a[4];
    va_start(args, option);
    for (size_t i = 0; i < sizeof a / sizeof a[0]; i++) {
        a[i] = va_arg(args, unsigned long);
    }
    va_end(args);
    if (option == PR_SET_SECCOMP && lacks("seccomp")) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_prctl, option, a[0], a[1], a[2], a[3]);
}
