/*
 * Preloaded into the daemon: while the file that SLOWDISK names is there, fdatasync and fsync do
 * not come back.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STEP_US = 10000 };

static void hang(void)
{
    const char *path = getenv("SLOWDISK");
    struct stat st;
    while (path != NULL && stat(path, &st) == 0) { /* which the sandbox lets workers do */
        (void)usleep(STEP_US);
    }
}

int fdatasync(int fd)
{
    hang();
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    hang();
    return (int)syscall(SYS_fsync, fd);
}
