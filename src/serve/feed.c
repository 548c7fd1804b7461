#include "serve/feed.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PIPE_BYTES = 256 * 1024 };

int feed_open(struct feed *feed)
{
    int fds[2];
    *feed = (struct feed){-1, -1};
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -1;
    }
    *feed = (struct feed){.out = fds[0], .in = fds[1]};
    /* Over the user's soft limit of pipe pages this fails; a request that does not fit is then
     * refused. */
    (void)fcntl(feed->in, F_SETPIPE_SZ, PIPE_BYTES);
    return 0;
}

static void close_end(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

void feed_close(struct feed *feed)
{
    close_end(&feed->out);
    close_end(&feed->in);
}

void feed_renew(struct feed *feed, bool out_closed)
{
    if (out_closed) {
        feed->out = -1;
    }
    feed_close(feed);
    (void)feed_open(feed); /* if not, the next feed_put tries again */
}

static int put(const struct feed *feed, const struct guard *guard)
{
    struct guard_records records;
    return guard_format(guard, &records) == 0 &&
                   writev(feed->in, records.parts, (int)records.count) == (ssize_t)records.len
               ? 0
               : -1;
}

int feed_put(struct feed *feed, const struct guard *guard)
{
    if (put(feed, guard) == 0) {
        return 0;
    }
    /*
     * Once more with a pipe that may be a larger one: when many processes of the user had pipes,
     * ours was made small. What was written of the request is gone with the old one.
     */
    feed_renew(feed, false);
    if (put(feed, guard) == 0) {
        return 0;
    }
    feed_renew(feed, false);
    return -1;
}
