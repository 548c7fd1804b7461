#include "base/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 1 };

static struct {
    pid_t process; /* whose thread it is; 0: there is none */
    pthread_mutex_t mutex;
    pthread_cond_t asked;
    pthread_cond_t ended;
    bool busy;     /* from when something is asked until the disk has answered */
    bool given_up; /* nobody waits for that answer */
    int idle;      /* what `fd` is of when it is of no file */
    int fd;        /* a descriptor of the thread's own: who asked may close or replace its */
    enum sync_what what;
    int error;
    int late_error;
} sync_thread = {.mutex = PTHREAD_MUTEX_INITIALIZER, .asked = PTHREAD_COND_INITIALIZER};

/* ETIMEDOUT is ours, "not yet"; from a disk it is an error that was told, like any other. */
static int sync_now(int fd, enum sync_what what)
{
    const int r = what == SYNC_DATA ? fdatasync(fd) : fsync(fd);
    if (r != 0 && (errno == ETIMEDOUT || errno == 0)) {
        errno = EIO;
    }
    return r;
}

static void *thread_run(void *arg)
{
    (void)arg;
    (void)pthread_mutex_lock(&sync_thread.mutex);
    for (;;) {
        while (!sync_thread.busy) {
            (void)pthread_cond_wait(&sync_thread.asked, &sync_thread.mutex);
        }
        const enum sync_what what = sync_thread.what;
        (void)pthread_mutex_unlock(&sync_thread.mutex);
        const int error = sync_now(sync_thread.fd, what) == 0 ? 0 : errno;
        /* Its number is never free, so that a child knows at any moment which one to close. */
        (void)dup3(sync_thread.idle, sync_thread.fd, O_CLOEXEC);
        (void)pthread_mutex_lock(&sync_thread.mutex);
        sync_thread.busy = false;
        sync_thread.error = error;
        if (sync_thread.given_up && error != 0) {
            sync_thread.late_error = error;
        }
        (void)pthread_cond_signal(&sync_thread.ended);
    }
    return NULL;
}

int sync_begin(void)
{
    pthread_condattr_t clock;
    pthread_t id;
    const int idle = eventfd(0, EFD_CLOEXEC);
    const int fd = idle < 0 ? -1 : fcntl(idle, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        const int why = errno;
        if (idle >= 0) {
            (void)close(idle);
        }
        errno = why;
        return -1;
    }
    sync_thread.idle = idle;
    sync_thread.fd = fd;
    /* Its time must not be that of a clock which somebody sets. */
    int error = pthread_condattr_init(&clock);
    if (error == 0) {
        (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        error = pthread_cond_init(&sync_thread.ended, &clock);
        (void)pthread_condattr_destroy(&clock);
    }
    error = error != 0 ? error : pthread_create(&id, NULL, thread_run, NULL);
    if (error != 0) {
        (void)close(fd);
        (void)close(idle);
        errno = error;
        return -1;
    }
    (void)pthread_detach(id); /* it may never come back from the disk */
    sync_thread.process = getpid();
    return 0;
}

void sync_part(void)
{
    if (sync_thread.process != 0 && sync_thread.process != getpid()) {
        (void)close(sync_thread.fd);
        (void)close(sync_thread.idle);
        sync_thread.process = 0;
    }
}

/* Under the lock: waits until the disk has answered; 0 or the error. */
static int await_end(void)
{
    struct timespec until = {0};
    int waited = 0;
    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail with this clock */
    until.tv_sec += PATIENCE_S;
    while (sync_thread.busy && waited == 0) {
        waited = pthread_cond_timedwait(&sync_thread.ended, &sync_thread.mutex, &until);
    }
    sync_thread.given_up = sync_thread.busy;
    return sync_thread.busy ? ETIMEDOUT : sync_thread.error;
}

int sync_file(int fd, enum sync_what what)
{
    if (sync_thread.process != getpid()) {
        return sync_now(fd, what);
    }
    (void)pthread_mutex_lock(&sync_thread.mutex);
    int error = ETIMEDOUT;
    if (!sync_thread.busy) {
        error = dup3(fd, sync_thread.fd, O_CLOEXEC) < 0 ? errno : 0;
    }
    if (error == 0) {
        sync_thread.what = what;
        sync_thread.given_up = false;
        sync_thread.busy = true;
        (void)pthread_cond_signal(&sync_thread.asked);
        error = await_end();
    }
    (void)pthread_mutex_unlock(&sync_thread.mutex);
    errno = error;
    return error == 0 ? 0 : -1;
}

int sync_late_error(void)
{
    if (sync_thread.process != getpid()) {
        return 0;
    }
    (void)pthread_mutex_lock(&sync_thread.mutex);
    const int error = sync_thread.late_error;
    sync_thread.late_error = 0;
    (void)pthread_mutex_unlock(&sync_thread.mutex);
    return error;
}

const char *sync_error_text(int error)
{
    return error == ETIMEDOUT ? "the disk has not answered for over a second" : strerror(error);
}
