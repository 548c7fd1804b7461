/*
 * Preloaded into the daemon: what the disk does, and how a worker dies, as a test asks for in the
 * file $MISHAP, which all processes share (struct control). It says in return how much of the trail
 * is on the disk, which is all that is left after a power failure.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BOOT_BYTES = 40 };

enum stop { STOP_NEVER, STOP_IN_WRITE, STOP_IN_UNLOCK };

enum crash { CRASH_NEVER, CRASH_AT_MARK, CRASH_AT_ONCE };

/* As the tests write and read it. */
struct control {
    _Atomic int32_t write_error; /* what writing to a file fails with; 0: it does not */
    _Atomic int32_t write_most;  /* so many bytes are taken at a time, before any error; 0: all */
    _Atomic int32_t sync_error;  /* what fdatasync fails with */
    _Atomic int32_t crash;       /* who dies of SIGSEGV: whoever reads the mark, or anything */
    _Atomic int32_t wake_ms;     /* so long a thread sleeps on when it is told of something */
    _Atomic int32_t stop;        /* the next process that is in a lock's hold there stops */
    _Atomic int64_t synced;      /* size of the file that was synced last, when that began */
    char boot[BOOT_BYTES];       /* what the kernel calls this start of the host; "": the truth */
};

static const char mark[] = "MISHAP_CRASH";
static struct control *control;
static int (*next_open)(const char *, int, ...);
static ssize_t (*next_write)(int, const void *, size_t);
static ssize_t (*next_recv)(int, void *, size_t, int);
static int (*next_epoll_wait)(int, struct epoll_event *, int, int);
static int (*next_fdatasync)(int);
static pid_t (*next_gettid)(void);

__attribute__((constructor)) static void open_control(void)
{
    const char *path = getenv("MISHAP");
    *(void **)&next_open = dlsym(RTLD_NEXT, "open");
    *(void **)&next_write = dlsym(RTLD_NEXT, "write");
    *(void **)&next_recv = dlsym(RTLD_NEXT, "recv");
    *(void **)&next_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    *(void **)&next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&next_gettid = dlsym(RTLD_NEXT, "gettid");
    const int fd = path != NULL ? next_open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    control = map != MAP_FAILED ? map : NULL;
    (void)close(fd);
}

static void stop_once(int where)
{
    int wanted = where;
    if (control != NULL && atomic_compare_exchange_strong(&control->stop, &wanted, STOP_NEVER)) {
        (void)raise(SIGSTOP);
    }
}

/* The daemon's own log, on standard error, is none of the files that fail. */
static int is_file(int fd, struct stat *st)
{
    return control != NULL && fd > STDERR_FILENO && fstat(fd, st) == 0 && S_ISREG(st->st_mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    int ends[2];
    if (control != NULL && control->boot[0] != '\0' &&
        strcmp(path, "/proc/sys/kernel/random/boot_id") == 0 && pipe2(ends, O_CLOEXEC) == 0) {
        (void)next_write(ends[1], control->boot, strnlen(control->boot, BOOT_BYTES));
        (void)close(ends[1]);
        return ends[0];
    }
    return next_open(path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    static atomic_bool cut; /* of one process; the trail has one writer at a time */
    struct stat st;
    if (!is_file(fd, &st)) {
        return next_write(fd, bytes, len);
    }
    stop_once(STOP_IN_WRITE);
    const size_t most = (size_t)atomic_load(&control->write_most);
    const int error = atomic_load(&control->write_error);
    if (error != 0 && (most == 0 || cut)) {
        cut = 0;
        errno = error;
        return -1;
    }
    cut = error != 0;
    return next_write(fd, bytes, most != 0 && most < len ? most : len);
}

int fdatasync(int fd)
{
    struct stat st;
    if (!is_file(fd, &st)) {
        return next_fdatasync(fd);
    }
    if (atomic_load(&control->sync_error) != 0) {
        errno = atomic_load(&control->sync_error);
        return -1;
    }
    const int r = next_fdatasync(fd);
    int64_t synced = atomic_load(&control->synced);
    while (r == 0 && synced < st.st_size &&
           !atomic_compare_exchange_weak(&control->synced, &synced, st.st_size)) {
    }
    return r;
}

ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    const ssize_t n = next_recv(fd, bytes, size, flags);
    /* Of what the daemon's processes tell each other, nothing begins like a FastCGI record. */
    const bool record = n > 1 && *(const char *)bytes == 1;
    const int crash = control != NULL && record ? atomic_load(&control->crash) : CRASH_NEVER;
    if (crash == CRASH_AT_ONCE ||
        (crash == CRASH_AT_MARK && memmem(bytes, (size_t)n, mark, sizeof mark - 1) != NULL)) {
        *(volatile char *)(intptr_t)crash = 0;
    }
    return n;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    const int n = next_epoll_wait(epoll, events, most, timeout);
    const int ms = control != NULL && n > 0 ? atomic_load(&control->wake_ms) : 0;
    if (ms > 0) {
        (void)usleep((useconds_t)ms * 1000);
    }
    return n;
}

/* Threads ask who they are when they take a lock of all processes, and when they give it back; the
 * first that a sign-in needs is the table of replays'. */
pid_t gettid(void)
{
    static _Thread_local unsigned asked __attribute__((tls_model("global-dynamic")));
    const pid_t self = next_gettid();
    if (self != getpid() && ++asked % 2 == 0) {
        stop_once(STOP_IN_UNLOCK);
    }
    return self;
}
