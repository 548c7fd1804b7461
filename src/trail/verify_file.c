#include "trail/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { WAITS = 100, WAIT_MS = 20 };

/* An open file. */
struct input {
    int fd;
    gzFile gz;       /* NULL: it is not compressed */
    char last;       /* the byte that was read last */
    unsigned waited; /* for the end of a line */
};

static ssize_t read_plain(struct input *input, void *out, size_t len)
{
    ssize_t n = read(input->fd, out, len);

    while (n < 0 && errno == EINTR) {
        n = read(input->fd, out, len);
    }
    return n;
}

static ssize_t read_compressed(struct input *input, void *out, size_t len)
{
    int n = gzread(input->gz, out, (unsigned)len);
    int error = Z_OK;

    (void)gzerror(input->gz, &error);
    if (n < 0 || error != Z_OK) {
        /* A cut file gives what it has, and then this. */
        errno = error == Z_ERRNO ? errno : error == Z_MEM_ERROR ? ENOMEM : EBADMSG;
        return -1;
    }
    return n;
}

static ssize_t read_input(void *from, void *out, size_t len)
{
    struct input *input = from;
    const struct timespec wait = {.tv_nsec = WAIT_MS * 1000000L};
    ssize_t n;

    if (input->gz != NULL) {
        return read_compressed(input, out, len);
    }
    n = read_plain(input, out, len);
    /* A reader may see a line that is being written. */
    while (n == 0 && input->last != '\n' && input->waited < WAITS) {
        input->waited++;
        (void)nanosleep(&wait, NULL);
        n = read_plain(input, out, len);
    }
    if (n > 0) {
        input->last = ((const char *)out)[n - 1];
    }
    return n;
}

/* Opens and finds out what it is; -1 and why. */
static int input_open(const char *path, struct input *out, char *why, size_t size)
{
    unsigned char magic[2] = {0};
    struct stat st;

    out->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (out->fd < 0 || fstat(out->fd, &st) != 0) {
        (void)snprintf(why, size, "%s", strerror(errno));
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        (void)snprintf(why, size, "it is not a regular file");
        return -1;
    }
    if (pread(out->fd, magic, sizeof(magic), 0) == sizeof(magic) && magic[0] == 0x1f &&
        magic[1] == 0x8b) {
        out->gz = gzdopen(out->fd, "rb");
        if (out->gz == NULL) {
            (void)snprintf(why, size, "out of memory");
            return -1;
        }
    }
    return 0;
}

void verify_file(const char *path, const struct verify_options *options, struct verify_file *out)
{
    struct input input = {.fd = -1, .last = '\n'};
    const struct verify_source source = {read_input, &input};

    *out = (struct verify_file){.path = path};
    if (input_open(path, &input, out->unread, sizeof(out->unread)) == 0 &&
        verify_segment(&source, options, &out->segment) != 0) {
        (void)snprintf(out->unread, sizeof(out->unread), "%s",
                       errno == EBADMSG ? "it is cut or damaged, and does not unpack"
                                        : strerror(errno));
    }
    if (input.gz != NULL) {
        (void)gzclose(input.gz); /* the descriptor, too */
    } else if (input.fd >= 0) {
        (void)close(input.fd);
    }
}
