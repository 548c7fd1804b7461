#include "base/boot.h"

#include <fcntl.h>
#include <unistd.h>

void boot_id(char out[BOOT_ID_BYTES])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, BOOT_ID_BYTES - 1);

    if (fd >= 0) {
        (void)close(fd);
    }
    out[n == BOOT_ID_BYTES - 1 ? n : 0] = '\0';
}
