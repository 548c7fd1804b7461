/*
 * Preloaded into the daemon: while the file that SLOWDISK names is there, fdatasync does not come
 * back.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STEP_US = 10000 };

int fdatasync(int fd)
{
    const char *path = getenv("SLOWDISK");
    while (path != NULL && access(path, F_OK) == 0) {
        (void)usleep(STEP_US);
    }
    return (int)syscall(SYS_fdatasync, fd);
}
