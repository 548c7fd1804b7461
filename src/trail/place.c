#include "trail/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

struct place_page {
    _Atomic uint64_t dev;
    _Atomic uint64_t ino;
    _Atomic bool open;
    _Atomic int error;
};

/* What is mapped for writing now stays so; nothing else ever is, and the size is for good. */
enum { SEALS = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static void *page_map(int fd, int access)
{
    void *page = mmap(NULL, sizeof(struct place_page), access, MAP_SHARED, fd, 0);

    return page != MAP_FAILED ? page : NULL;
}

int place_open(struct place *out)
{
    const int fd = memfd_create("audit-place", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct place place = {.opener = getpid()};
    int error = 0;

    if (fd < 0) {
        return -1;
    }
    if (ftruncate(fd, sizeof(struct place_page)) != 0 ||
        (place.own = page_map(fd, PROT_READ | PROT_WRITE)) == NULL ||
        madvise(place.own, sizeof(*place.own), MADV_DONTFORK) != 0 ||
        fcntl(fd, F_ADD_SEALS, SEALS) != 0 || (place.all = page_map(fd, PROT_READ)) == NULL) {
        error = errno;
        place_close(&place);
    }
    (void)close(fd);
    *out = place;
    errno = error;
    return error == 0 ? 0 : -1;
}

void place_close(struct place *place)
{
    if (place->all != NULL) {
        (void)munmap((void *)(uintptr_t)place->all, sizeof(*place->all));
    }
    /* What a child has at that address is something else. */
    if (place->own != NULL && place->opener == getpid()) {
        (void)munmap(place->own, sizeof(*place->own));
    }
    *place = (struct place){.own = NULL};
}

void place_set(struct place *place, dev_t dev, ino_t ino)
{
    atomic_store(&place->own->dev, dev);
    atomic_store(&place->own->ino, ino);
    atomic_store(&place->own->error, 0);
    atomic_store(&place->own->open, true);
}

void place_end(struct place *place)
{
    atomic_store(&place->own->open, false);
}

void place_set_error(struct place *place, int error)
{
    atomic_store(&place->own->error, error);
}

bool place_is_open(const struct place *place)
{
    return atomic_load(&place->all->open);
}

int place_error(const struct place *place)
{
    const int error = atomic_load(&place->all->error);

    if (place_is_open(place)) {
        return 0;
    }
    return error != 0 ? error : EAGAIN;
}

void place_get(const struct place *place, dev_t *dev, ino_t *ino)
{
    *dev = (dev_t)atomic_load(&place->all->dev);
    *ino = (ino_t)atomic_load(&place->all->ino);
}

bool place_is(const struct place *place, dev_t dev, ino_t ino)
{
    return atomic_load(&place->all->dev) == dev && atomic_load(&place->all->ino) == ino;
}
