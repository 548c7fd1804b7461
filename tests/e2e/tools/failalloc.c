/*
 * Preloaded into the daemon: lets allocations of one process fail, as a test asks for in the file
 * $FAILALLOC, which all processes share (struct control). The Nth from now, or that one and all
 * after it; the program's own only, or those of all libraries as well. What was struck is noted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PLACE_BYTES = 64 };

/* As the tests write and read it. */
struct control {
    _Atomic int64_t left;    /* so many allocations until one fails; 0: none does */
    _Atomic int64_t struck;  /* how many have failed */
    int32_t pid;             /* of the process that is meant; 0: all of them */
    int32_t all;             /* libraries' allocations as well */
    int32_t on;              /* after the first, all fail */
    char place[PLACE_BYTES]; /* what the first one that failed was called from */
};

static struct control *control;
static uintptr_t text_from;
static uintptr_t text_to;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

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

__attribute__((constructor)) static void open_control(void)
{
    const char *path = getenv("FAILALLOC");
    const int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    (void)dl_iterate_phdr(find_program, NULL);
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    control = map == MAP_FAILED ? NULL : map;
}

/* The file name of the library that the caller is in. */
static void note_place(const void *caller)
{
    Dl_info info;
    const char *path = dladdr(caller, &info) != 0 ? info.dli_fname : "nowhere";
    const char *slash = strrchr(path, '/');
    (void)strncpy(control->place, slash != NULL ? slash + 1 : path, PLACE_BYTES - 1);
}

static int strikes(const void *caller)
{
    const uintptr_t at = (uintptr_t)caller;
    if (control == NULL || atomic_load(&control->left) <= 0) {
        return 0;
    }
    if ((!control->all && (at < text_from || at >= text_to)) ||
        (control->pid != 0 && control->pid != getpid())) {
        return 0;
    }
    if (atomic_load(&control->left) > 1 && atomic_fetch_sub(&control->left, 1) > 1) {
        return 0;
    }
    if (!control->on) {
        atomic_store(&control->left, 0);
    }
    if (atomic_fetch_add(&control->struck, 1) == 0) {
        note_place(caller);
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return strikes(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return strikes(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return strikes(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

/* libc's own would hide who asked. */
char *strdup(const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = strikes(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
    return copy != NULL ? memcpy(copy, text, size) : NULL;
}

char *strndup(const char *text, size_t max)
{
    const size_t len = strnlen(text, max);
    char *copy = strikes(__builtin_return_address(0)) ? NULL : __libc_malloc(len + 1);
    if (copy != NULL) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}
