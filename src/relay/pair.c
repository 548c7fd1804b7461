#include "relay/pair.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUNDS_MAX = 16 }; /* of one pair before it is the others' turn */

static bool is_empty(const struct pair_flow *flow)
{
    return flow->start == flow->end;
}

static bool is_later(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

short pair_peer_events(const struct pair *pair)
{
    short events = 0; /* that it went away is told all the same */
    if (is_empty(&pair->request) && !pair->request.ended && !pair->connecting) {
        events |= POLLIN;
    }
    if (!is_empty(&pair->answer)) {
        events |= POLLOUT;
    }
    return events;
}

short pair_daemon_events(const struct pair *pair)
{
    if (pair->connecting) {
        return POLLOUT;
    }
    short events = 0;
    if (is_empty(&pair->answer)) {
        events |= POLLIN;
    }
    if (!is_empty(&pair->request)) {
        events |= POLLOUT;
    }
    return events;
}

/* Fills an empty buffer. 1: something changed, 0: nothing to read now, -1: an error. */
static int flow_read(struct pair_flow *flow, int from)
{
    if (!is_empty(flow) || flow->ended) {
        return 0;
    }
    const ssize_t got = recv(from, flow->bytes, sizeof flow->bytes, 0);
    if (got < 0) {
        return is_later(errno) ? 0 : -1;
    }
    flow->start = 0;
    flow->end = (size_t)got;
    flow->ended = got == 0;
    return 1;
}

static int flow_write(struct pair_flow *flow, int to)
{
    if (is_empty(flow)) {
        return 0;
    }
    const ssize_t put = send(to, flow->bytes + flow->start, flow->end - flow->start, MSG_NOSIGNAL);
    if (put < 0) {
        return is_later(errno) ? 0 : -1;
    }
    flow->start += (size_t)put;
    return 1;
}

/* Whoever closed early may have answered before: the rest of the request is of no use to it. */
static void drop_request(struct pair *pair)
{
    pair->request.start = pair->request.end;
    pair->request.ended = pair->request.passed = true;
}

static int move_request(struct pair *pair)
{
    const int read = flow_read(&pair->request, pair->peer);
    if (read < 0) {
        return -1;
    }
    const int written = flow_write(&pair->request, pair->daemon);
    if (written < 0) {
        drop_request(pair);
        return 1;
    }
    if (pair->request.ended && is_empty(&pair->request) && !pair->request.passed) {
        pair->request.passed = true;
        (void)shutdown(pair->daemon, SHUT_WR);
    }
    return read + written;
}

static enum pair_state answer_end(const struct pair *pair)
{
    return pair->answered ? PAIR_ENDED : PAIR_SILENT;
}

/* 0: connected or not yet. */
static int connect_work(struct pair *pair, short daemon_got)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (daemon_got == 0) {
        return 0;
    }
    pair->connecting = false;
    if (getsockopt(pair->daemon, SOL_SOCKET, SO_ERROR, &error, &len) == 0) {
        errno = error;
    }
    return errno == 0 ? 0 : -1;
}

enum pair_state pair_work(struct pair *pair, short peer_got, short daemon_got)
{
    if ((peer_got & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
        return PAIR_ENDED; /* nobody is there to read an answer */
    }
    if (pair->connecting && connect_work(pair, daemon_got) != 0) {
        return PAIR_UNASKED;
    }
    for (int round = 0; !pair->connecting && round < ROUNDS_MAX; round++) {
        const int asked = move_request(pair);
        if (asked < 0) {
            return PAIR_ENDED;
        }
        const int read = flow_read(&pair->answer, pair->daemon);
        if (read < 0) {
            return PAIR_CUT_SHORT;
        }
        pair->answered = pair->answered || !is_empty(&pair->answer);
        const int written = flow_write(&pair->answer, pair->peer);
        if (written < 0) {
            return PAIR_ENDED;
        }
        if (pair->answer.ended && is_empty(&pair->answer)) {
            return answer_end(pair);
        }
        if (asked + read + written == 0) {
            break;
        }
    }
    return PAIR_GOES_ON;
}

void pair_close(struct pair *pair)
{
    (void)close(pair->peer);
    (void)close(pair->daemon);
    pair->open = false;
}
