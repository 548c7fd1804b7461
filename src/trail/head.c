#include "trail/head.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_FILE_BYTES = 512, PATH_BYTES = 512 };

static const char magic[16] = "spnegate-audit-1";

struct head_page {
    char magic[sizeof(magic)];
    char chain[17]; /* "": no chain has begun */
    char boot[BOOT_ID_BYTES];
    _Atomic uint32_t current;
    _Atomic uint32_t dirty;
    struct head heads[2];
};

static_assert(sizeof(struct head_page) <= HEAD_FILE_BYTES,
              "one sector, so that a host that loses power leaves all of one moment");

/* Makes the file beside its place, so that it is there whole or not at all. */
static int head_make(const char *path, struct fault *fault)
{
    char bytes[HEAD_FILE_BYTES] = {0};
    char fresh[PATH_BYTES + 4];
    int error = 0;
    int fd;

    (void)snprintf(fresh, sizeof(fresh), "%s.new", path);
    (void)unlink(fresh);
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fault_set(fault, fresh, "cannot be made: %s", strerror(errno));
    }
    memcpy(bytes, magic, sizeof(magic));
    errno = EIO; /* a short write says nothing */
    if (write(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes) || fsync(fd) != 0 ||
        rename(fresh, path) != 0) {
        error = errno;
        (void)unlink(fresh);
    }
    (void)close(fd);
    return error == 0 ? 0 : fault_set(fault, path, "cannot be made: %s", strerror(error));
}

static int head_map(int fd, const char *path, struct head_page **out, struct fault *fault)
{
    struct head_page *page;
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return fault_set(fault, path, "%s", strerror(errno));
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        return fault_set(fault, path, "must be a file of uid %ld alone, with mode 0600",
                         (long)geteuid());
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        return fault_set(fault, path,
                         errno == EWOULDBLOCK ? "is in use by another daemon"
                                              : "cannot be locked: %s",
                         strerror(errno));
    }
    if (st.st_size != HEAD_FILE_BYTES) {
        return fault_set(fault, path,
                         "is damaged or none of ours; move it away, and the chain "
                         "goes on from the end of audit.file");
    }
    page = mmap(NULL, HEAD_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        return fault_set(fault, path, "cannot be mapped: %s", strerror(errno));
    }
    if (memcmp(page->magic, magic, sizeof(magic)) != 0 ||
        memchr(page->chain, '\0', sizeof(page->chain)) == NULL ||
        memchr(page->boot, '\0', sizeof(page->boot)) == NULL) {
        (void)munmap(page, HEAD_FILE_BYTES);
        return fault_set(fault, path,
                         "is damaged or none of ours; move it away, and the chain "
                         "goes on from the end of audit.file");
    }
    *out = page;
    return 0;
}

int head_open(const char *state_dir, struct head_file *out, struct fault *fault)
{
    char path[PATH_BYTES];
    struct head_page *page = NULL;
    int fd;

    if (snprintf(path, sizeof(path), "%s/audit.head", state_dir) >= (int)sizeof(path)) {
        return fault_set(fault, state_dir, "the path is too long");
    }
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        if (head_make(path, fault) != 0) {
            return -1;
        }
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd < 0) {
        return fault_set(fault, path, "cannot be opened: %s", strerror(errno));
    }
    if (head_map(fd, path, &page, fault) != 0) {
        (void)close(fd);
        return -1;
    }
    *out = (struct head_file){page, fd};
    return 0;
}

void head_part(struct head_file *file)
{
    (void)close(file->fd);
    file->fd = -1;
}

void head_close(struct head_file *file)
{
    if (file->page != NULL) {
        (void)munmap(file->page, HEAD_FILE_BYTES);
    }
    if (file->page != NULL && file->fd >= 0) {
        (void)close(file->fd);
    }
    *file = (struct head_file){NULL, -1};
}

struct head head_get(const struct head_file *file)
{
    return file->page->heads[atomic_load(&file->page->current) & 1];
}

void head_set(struct head_file *file, const struct head *head)
{
    uint32_t other = (atomic_load(&file->page->current) & 1) ^ 1;

    file->page->heads[other] = *head;
    atomic_store(&file->page->current, other);
}

bool head_is_dirty(const struct head_file *file)
{
    return atomic_load(&file->page->dirty) != 0;
}

void head_dirty_set(struct head_file *file, bool dirty)
{
    atomic_store(&file->page->dirty, dirty ? 1 : 0);
}

bool head_chain(const struct head_file *file, char chain[17])
{
    (void)snprintf(chain, 17, "%s", file->page->chain);
    return chain[0] != '\0' && head_get(file).next_seq > 0;
}

bool head_is_of_boot(const struct head_file *file, const char *boot)
{
    return boot[0] != '\0' && strcmp(file->page->boot, boot) == 0;
}

void head_claim(struct head_file *file, const char *chain, const char *boot)
{
    (void)snprintf(file->page->chain, sizeof(file->page->chain), "%s", chain);
    (void)snprintf(file->page->boot, sizeof(file->page->boot), "%s", boot);
}
