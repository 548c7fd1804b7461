/*
 * Preloaded: fdatasync takes so many milliseconds more as SLOWSYNC says, as on a disk that is asked
 * for what it has not only promised.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd)
{
    const char *ms = getenv("SLOWSYNC");
    const struct timespec more = {.tv_nsec =
                                      ms != NULL ? strtol(ms, NULL, 10) % 1000 * 1000000 : 0};
    (void)nanosleep(&more, NULL);
    return (int)syscall(SYS_fdatasync, fd);
}
