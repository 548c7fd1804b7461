#include "trail/store.h"

#include "base/bytes.h"
#include "base/sync.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK: to open a FIFO that nobody reads must not hang. */
enum {
    OPEN_APPEND = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK,
    OPEN_READ = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK
};

static int append_open(const struct store_options *options)
{
    int fd = open(options->path, OPEN_APPEND);

    if (fd >= 0 || errno != ENOENT) {
        return fd;
    }
    fd = open(options->path, OPEN_APPEND | O_CREAT | O_EXCL, options->mode);
    if (fd < 0) {
        /* Another process may have been faster. */
        return errno == EEXIST ? open(options->path, OPEN_APPEND) : -1;
    }
    if ((options->uid != (uid_t)-1 && fchown(fd, options->uid, options->gid) != 0) ||
        fchmod(fd, options->mode & 07777) != 0) {
        int error = errno;

        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* Takes over `fd`, open for appending to what is at `path`, and opens that for reading, too. */
static int store_fill(int fd, const char *path, struct store *out)
{
    struct store s = {.fd = fd, .read_fd = -1};
    struct stat st;
    struct stat same;
    int r = -1;

    if (s.fd < 0 || fstat(s.fd, &st) != 0) {
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        goto out;
    }
    s.read_fd = open(path, OPEN_READ);
    if (s.read_fd < 0 || fstat(s.read_fd, &same) != 0) {
        goto out;
    }
    if (same.st_dev != st.st_dev || same.st_ino != st.st_ino) {
        errno = EAGAIN; /* renamed between the two */
        goto out;
    }
    s.dev = st.st_dev;
    s.ino = st.st_ino;
    s.size = (uint64_t)same.st_size;
    *out = s;
    r = 0;

out:
    if (r != 0) {
        int error = errno;

        store_close(&s);
        errno = error;
    }
    return r;
}

int store_open(const struct store_options *options, struct store *out)
{
    return store_fill(append_open(options), options->path, out);
}

/* The directory of a path, with the slash at its end. */
static int directory_of(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL) {
        memcpy(out, "./", 3);
        return 0;
    }
    return span_copy(span_make(path, (size_t)(slash - path) + 1), out, PATH_MAX);
}

static int store_try(const char *path, dev_t dev, ino_t ino, struct store *out)
{
    if (store_fill(open(path, OPEN_APPEND), path, out) != 0) {
        return -1;
    }
    if (out->dev == dev && out->ino == ino) {
        return 0;
    }
    store_close(out);
    errno = ENOENT;
    return -1;
}

int store_find(const struct store_options *options, dev_t dev, ino_t ino, struct store *out)
{
    char path[PATH_MAX];
    size_t len;
    DIR *dir;
    int r = store_try(options->path, dev, ino, out);

    if (r == 0 || directory_of(options->path, path) != 0) {
        return r;
    }
    dir = opendir(path);
    if (dir == NULL) {
        return -1;
    }
    len = strlen(path);
    for (const struct dirent *entry = readdir(dir); r != 0 && entry != NULL; entry = readdir(dir)) {
        if (entry->d_ino == ino && strlen(entry->d_name) < sizeof(path) - len) {
            memcpy(path + len, entry->d_name, strlen(entry->d_name) + 1);
            r = store_try(path, dev, ino, out);
        }
    }
    (void)closedir(dir);
    if (r != 0) {
        errno = ENOENT;
    }
    return r;
}

int store_size(const struct store *store, uint64_t *out)
{
    struct stat st;

    if (fstat(store->read_fd, &st) != 0) {
        return -1;
    }
    *out = (uint64_t)st.st_size;
    return 0;
}

bool store_is_deleted(const struct store *store)
{
    struct stat st;

    return fstat(store->fd, &st) == 0 && st.st_nlink == 0;
}

int store_directory(const struct store_options *options, dev_t *dev, ino_t *ino)
{
    char path[PATH_MAX];
    struct stat st;

    if (directory_of(options->path, path) != 0) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (stat(path, &st) != 0) {
        return -1;
    }
    *dev = st.st_dev;
    *ino = st.st_ino;
    return 0;
}

int store_sync_name(const struct store_options *options)
{
    char path[PATH_MAX];
    int error = 0;
    int fd;

    if (directory_of(options->path, path) != 0) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    if (sync_file(fd, SYNC_ALL) != 0) {
        error = errno;
    }
    (void)close(fd);
    errno = error;
    return error == 0 ? 0 : -1;
}

void store_close(struct store *store)
{
    if (store->fd >= 0) {
        (void)close(store->fd);
    }
    if (store->read_fd >= 0) {
        (void)close(store->read_fd);
    }
    store->fd = -1;
    store->read_fd = -1;
}

static int descriptor_move(int from, int to)
{
    int r;

    do {
        r = dup3(from, to, O_CLOEXEC);
    } while (r < 0 && (errno == EINTR || errno == EBUSY));
    return r;
}

int store_replace(struct store *store, struct store *next)
{
    if (descriptor_move(next->read_fd, store->read_fd) < 0 ||
        descriptor_move(next->fd, store->fd) < 0) {
        return -1;
    }
    store->dev = next->dev;
    store->ino = next->ino;
    store->size = next->size;
    store_close(next);
    return 0;
}

/* Whether the file ends with these bytes. */
static bool ends_with(const struct store *store, const char *bytes, size_t len)
{
    char piece[512];
    uint64_t size = 0;
    size_t done = 0;

    if (store_size(store, &size) != 0 || size < len) {
        return false;
    }
    while (done < len) {
        const size_t most = len - done < sizeof(piece) ? len - done : sizeof(piece);
        const ssize_t n = pread(store->read_fd, piece, most, (off_t)(size - len + done));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0 || memcmp(piece, bytes + done, (size_t)n) != 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

int store_append(const struct store *store, const char *bytes, size_t len)
{
    bool at_once = true;
    size_t done = 0;

    while (done < len) {
        ssize_t n = write(store->fd, bytes + done, len - done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return -1;
        }
        done += (size_t)n;
        at_once = (size_t)n == len;
    }
    if (!at_once && !ends_with(store, bytes, len)) {
        errno = EBUSY; /* somebody else has written between the pieces */
        return -1;
    }
    return 0;
}
