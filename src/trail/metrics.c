#include "trail/metrics.h"

#include <stddef.h>
#include <sys/mman.h>

struct metrics *metrics_open(void)
{
    void *memory = mmap(NULL, sizeof(struct metrics), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

void metrics_close(struct metrics *metrics)
{
    if (metrics != NULL) {
        (void)munmap(metrics, sizeof(*metrics));
    }
}
