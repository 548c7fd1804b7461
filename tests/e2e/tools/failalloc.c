/*
 * Preloaded into the daemon: lets one allocation of the daemon's own code fail, the Nth from now,
 * for the N that a test writes into the file $FAILALLOC (8 bytes, shared by all processes; 0 is
 * none). Libraries' allocations are left alone. When it has struck the file holds -1.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic int64_t *countdown;
static uintptr_t text_from;
static uintptr_t text_to;

static int find_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && (header->p_flags & PF_X) != 0) {
            text_from = info->dlpi_addr + header->p_vaddr;
            text_to = text_from + header->p_memsz;
        }
    }
    return 1; /* the program itself comes first */
}

__attribute__((constructor)) static void open_countdown(void)
{
    const char *path = getenv("FAILALLOC");
    const int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    (void)dl_iterate_phdr(find_program, NULL);
    void *map = mmap(NULL, sizeof *countdown, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    countdown = map == MAP_FAILED ? NULL : map;
}

static int strikes(const void *caller)
{
    const uintptr_t at = (uintptr_t)caller;
    if (countdown == NULL || at < text_from || at >= text_to || atomic_load(countdown) <= 0) {
        return 0;
    }
    if (atomic_fetch_sub(countdown, 1) != 1) {
        return 0;
    }
    atomic_store(countdown, -1);
    errno = ENOMEM;
    return 1;
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);

void *malloc(size_t size)
{
    return strikes(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return strikes(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}
