/*
 * FastCGI requests to one daemon on this machine. In a closed loop each connection sends its next
 * request when the last one is answered; in an open one (--rate) requests come when they are due,
 * whatever becomes of those before. Every answer is looked at, to its last byte.
 */
#include "kind.h"
#include "options.h"
#include "tokens.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    ANSWER_BYTES = 8192,
    PATIENCE_US = 20 * 1000 * 1000,
    TOLD_MAX = 10,
    EVENTS = 64,
};

/* One connection's place: it is kept through all the connections that come after each other. */
struct slot {
    int fd; /* -1: none */
    bool busy;
    bool wants_write;
    bool failed; /* nothing can be sent any more */
    enum kind kind;
    uint64_t started_us; /* in an open loop: when it was due */
    struct bytes out;
    size_t sent;
    char *token; /* of a good request, until it is answered */
    unsigned char in[ANSWER_BYTES];
    size_t in_len;
};

/* How long each of some answers took. */
struct times {
    uint32_t *us;
    size_t count;
};

struct tally {
    size_t answered[KIND_COUNT];
    size_t wrong;
    struct times times; /* of all answers but these: */
    struct times busy;  /* complete ones of 503, which an open loop takes for right */
    /* Of an open loop: */
    size_t in_time; /* answers, not 503, while requests were still coming */
    size_t refused; /* connects */
    size_t unsent;  /* requests that were due when all connections were busy */
};

static struct tally tally;
static int epoll;
static size_t started;
static uint64_t offered_until_us;    /* an open loop: no request is due after that */
static char spent[TOKEN_TEXT_BYTES]; /* the last token that let somebody in */

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- what comes next */

/*
 * The kinds in turn, spread evenly by their weights: the one that is most behind. The same run has
 * the same order each time.
 */
static enum kind next_kind(void)
{
    static long behind[KIND_COUNT];
    enum kind chosen = KIND_good;
    long total = 0;
    for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
        behind[kind] += (long)options.weights[kind];
        total += (long)options.weights[kind];
        chosen = behind[kind] > behind[chosen] ? kind : chosen;
    }
    behind[chosen] -= total;
    return chosen;
}

/* All good ones that will be needed, but those few that stand in for replays while there is nothing
 * to replay. */
static size_t good_count(void)
{
    size_t total = 0;
    for (size_t i = 0; i < KIND_COUNT; i++) {
        total += options.weights[i];
    }
    return options.count * options.weights[KIND_good] / total + 1;
}

static enum role next_role(void)
{
    static enum role last = ROLE_AUTHORIZER;
    const enum role other = last == ROLE_AUTHORIZER ? ROLE_RESPONDER : ROLE_AUTHORIZER;
    last = options.roles[other] ? other : last;
    return last;
}

/* ---- connections */

/* -1: the daemon has no room; in a closed loop it is waited for. */
static int dial(void)
{
    static const struct timeval patience = {PATIENCE_US / 1000000, 0};
    const bool open_loop = options.rate > 0;
    const char *colon = strrchr(options.address, ':');
    const bool local = options.address[0] == '/';
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int on = 1;
    const int fd = socket(local ? AF_UNIX : AF_INET,
                          SOCK_STREAM | SOCK_CLOEXEC | (open_loop ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0) {
        die(strerror(errno));
    }
    if (!open_loop) {
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    (void)snprintf(path.sun_path, sizeof path.sun_path, "%s", options.address);
    port.sin_port = htons((uint16_t)(colon != NULL ? strtoul(colon + 1, NULL, 10) : 0));
    if (!local) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    const struct sockaddr *to = local ? (struct sockaddr *)&path : (struct sockaddr *)&port;
    const socklen_t len = local ? sizeof path : sizeof port;
    if (connect(fd, to, len) != 0) {
        /* On one machine TCP's part is done by now, unless the daemon's queue is full. */
        if (errno == EINPROGRESS && (connect(fd, to, len) == 0 || errno == EISCONN)) {
            return fd;
        }
        if (!open_loop || (errno != EAGAIN && errno != EALREADY && errno != ECONNREFUSED)) {
            die(strerror(errno));
        }
        (void)close(fd);
        return -1;
    }
    if (!open_loop && fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        die(strerror(errno));
    }
    return fd;
}

static void watch(struct slot *slot, int operation, bool wants_write)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0u),
                                .data.ptr = slot};
    if (epoll_ctl(epoll, operation, slot->fd, &event) != 0) {
        die(strerror(errno));
    }
    slot->wants_write = wants_write;
}

static void hang_up(struct slot *slot)
{
    (void)close(slot->fd);
    slot->fd = -1;
}

/* Whether the daemon has read all that was sent (on TCP: whether it is on the daemon's side). */
static bool was_read(int fd)
{
    int unread = 0;
    return ioctl(fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

/* Sends what can be sent. If the daemon does not read on, what it answers counts. */
static void send_more(struct slot *slot)
{
    bool full = false;
    while (slot->sent < slot->out.len && !full) {
        size_t len = slot->out.len - slot->sent;
        if (options.pieces > 0) {
            if (!was_read(slot->fd)) {
                return;
            }
            len = len < options.pieces ? len : options.pieces;
        }
        const ssize_t n = send(slot->fd, slot->out.ptr + slot->sent, len, MSG_NOSIGNAL);
        full = n < 0 && errno == EAGAIN;
        if (n >= 0) {
            slot->sent += (size_t)n;
        } else if (errno != EAGAIN && errno != EINTR) {
            slot->failed = slot->sent == 0;
            slot->sent = slot->out.len;
        }
    }
    if (!full && slot->kind == KIND_cut) {
        (void)shutdown(slot->fd, SHUT_WR);
    }
    if (full != slot->wants_write) {
        watch(slot, EPOLL_CTL_MOD, full);
    }
}

/* Sends the request, over a new connection if there is none; false: none could be made. */
static bool send_request(struct slot *slot)
{
    if (slot->fd < 0) {
        slot->fd = dial();
        if (slot->fd < 0) {
            return false;
        }
        watch(slot, EPOLL_CTL_ADD, false);
    }
    slot->sent = 0;
    slot->failed = false;
    send_more(slot);
    return true;
}

/* Sends the next request; false: no connection could be made. */
static bool start(struct slot *slot, uint64_t due_us)
{
    const bool kept = slot->fd >= 0;
    started++;
    slot->kind = next_kind();
    if (slot->kind == KIND_replay && spent[0] == '\0') {
        slot->kind = KIND_good; /* there is nothing to replay yet */
    }
    slot->token = slot->kind == KIND_good ? token_take() : NULL;
    kind_request(slot->kind, next_role(), &options.style,
                 slot->kind == KIND_replay ? spent : slot->token, &slot->out);
    slot->in_len = 0;
    slot->started_us = due_us;
    slot->busy = send_request(slot);
    if (slot->busy && kept && slot->failed && options.rate > 0) {
        /* It was idle and was ended, so nobody has taken a byte. */
        hang_up(slot);
        slot->busy = send_request(slot);
    }
    if (!slot->busy && slot->token != NULL) {
        token_return(slot->token);
        slot->token = NULL;
    }
    return slot->busy;
}

/* ---- answers */

static void note_time(struct times *times, uint64_t us)
{
    times->us[times->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

/* The token of a request that is over. */
static void end_token(struct slot *slot, int got)
{
    if (slot->token == NULL) {
        return;
    }
    if (got == 200) {
        (void)snprintf(spent, sizeof spent, "%s", slot->token);
    }
    if (got == 503) {
        token_return(slot->token);
    } else {
        token_spend(slot->token);
    }
    slot->token = NULL;
}

/* The request is over; `got` is the status, 0 closed without a byte, -1 anything else. */
static void finish(struct slot *slot, int got, bool keep)
{
    const uint64_t ended_us = now_us();
    const int expected = slot->kind == KIND_good ? options.expect : kinds[slot->kind].status;
    const bool busy = got == 503 && got != expected && options.rate > 0;
    const bool wrong = got != expected && !busy;
    note_time(busy ? &tally.busy : &tally.times, ended_us - slot->started_us);
    tally.answered[slot->kind] += busy ? 0 : 1;
    tally.in_time += !busy && !wrong && ended_us <= offered_until_us ? 1 : 0;
    if (wrong && ++tally.wrong <= TOLD_MAX) {
        fprintf(stderr, "load: %s: expected %d, got %d: %zu bytes: %.*s\n", kinds[slot->kind].name,
                expected, got, slot->in_len, (int)(slot->in_len > 8 ? slot->in_len - 8 : 0),
                (char *)slot->in + 8);
    }
    end_token(slot, got);
    slot->busy = false;
    if (!keep || wrong) {
        hang_up(slot);
    }
}

/* The status that a whole answer tells, or -1. */
static int read_status(char *text, size_t len)
{
    static const char granted[] = "\r\nVariable-SPNEGATE: granted\r\nVariable-REMOTE_USER: ";
    int status = -1;
    text[len] = '\0';
    const char *end = strstr(text, "\r\n\r\n");
    if (end == NULL || strlen(text) != len || sscanf(text, "Status: %3d ", &status) != 1) {
        return -1;
    }
    const bool body = end[4] != '\0';
    return (strstr(text, granted) != NULL) == (status == 200) && body == (status != 200) ? status
                                                                                         : -1;
}

/*
 * Looks whether the answer is there: STDOUT in any number of records, perhaps an empty STDERR, then
 * an END_REQUEST that says 0 and 0. Returns 0 for not yet.
 */
static int read_answer(const struct slot *slot)
{
    enum { END = 3, STDOUT = 6, STDERR = 7 };
    static const unsigned char complete[8] = {0};
    static char text[ANSWER_BYTES + 1];
    size_t text_len = 0;
    size_t at = 0;
    while (slot->in_len - at >= 8) {
        const unsigned char *head = slot->in + at;
        const size_t len = (size_t)head[4] << 8 | head[5];
        const size_t all = 8 + len + head[6];
        if (head[0] != 1 || head[2] != 0 || head[3] != 1 ||
            (head[1] == STDERR ? len > 0 : head[1] != STDOUT && head[1] != END)) {
            return -1;
        }
        if (slot->in_len - at < all) {
            break;
        }
        at += all;
        if (head[1] == END) {
            const bool whole = len == sizeof complete && at == slot->in_len &&
                               memcmp(head + 8, complete, sizeof complete) == 0;
            return whole ? read_status(text, text_len) : -1;
        }
        memcpy(text + text_len, head + 8, len);
        text_len += len;
    }
    return 0;
}

static void receive(struct slot *slot)
{
    for (;;) {
        const ssize_t n =
            recv(slot->fd, slot->in + slot->in_len, sizeof slot->in - slot->in_len, 0);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            finish(slot, slot->in_len == 0 ? 0 : -1, false);
            return;
        }
        slot->in_len += (size_t)n;
        const int status = read_answer(slot);
        if (status != 0 || slot->in_len == sizeof slot->in) {
            finish(slot, status != 0 ? status : -1, options.style.keep);
            return;
        }
    }
}

/* ---- the run */

/*
 * An idle kept connection on which something comes was closed by the daemon. In a closed loop it is
 * for the next request on it to find out what that meant.
 */
static void on_event(const struct epoll_event *event)
{
    struct slot *slot = event->data.ptr;
    if (slot->fd < 0) {
        return;
    }
    if (!slot->busy && options.rate > 0) {
        hang_up(slot);
        return;
    }
    if (slot->busy && (event->events & EPOLLOUT) != 0) {
        send_more(slot);
    }
    if (slot->busy && (event->events & ~(uint32_t)EPOLLOUT) != 0) {
        receive(slot);
    }
}

static void run_closed(struct slot *slots)
{
    struct epoll_event events[EVENTS];
    const uint64_t end_us = now_us() + options.seconds * 1000000;
    size_t busy = 1;
    while (busy > 0) {
        const bool more = now_us() < end_us;
        busy = 0;
        for (size_t i = 0; i < options.parallel; i++) {
            struct slot *slot = &slots[i];
            if (!slot->busy && more && started < options.count) {
                (void)start(slot, now_us());
            } else if (slot->busy && options.pieces > 0 && slot->sent < slot->out.len) {
                send_more(slot);
            }
            if (slot->busy && now_us() > slot->started_us + PATIENCE_US) {
                finish(slot, -1, false);
            }
            busy += slot->busy ? 1 : 0;
        }
        const int n =
            busy > 0 ? epoll_wait(epoll, events, EVENTS, options.pieces > 0 ? 0 : 100) : 0;
        for (int i = 0; i < n; i++) {
            on_event(&events[i]);
        }
    }
}

/* Waits for events until `until_us`, and looks after them; finished ones go back to `places`. */
static void attend(struct slot **places, size_t *place_count, uint64_t until_us)
{
    struct epoll_event events[EVENTS];
    const uint64_t now = now_us();
    const uint64_t wait_us = until_us > now ? until_us - now : 0;
    const struct timespec wait = {.tv_sec = (time_t)(wait_us / 1000000),
                                  .tv_nsec = (long)(wait_us % 1000000) * 1000};
    const int n = epoll_pwait2(epoll, events, EVENTS, &wait, NULL);
    for (int i = 0; i < n; i++) {
        struct slot *slot = events[i].data.ptr;
        const bool was_busy = slot->busy;
        on_event(&events[i]);
        if (was_busy && !slot->busy) {
            places[(*place_count)++] = slot;
        }
    }
}

/* The place that was left last is taken first: no more connections are kept than are needed. */
static void run_open(struct slot *slots, struct slot **places)
{
    size_t place_count = 0;
    for (size_t i = options.parallel; i-- > 0;) {
        places[place_count++] = &slots[i];
    }
    const uint64_t begin_us = now_us();
    offered_until_us = begin_us + options.count * 1000000 / options.rate;
    uint64_t due_us = begin_us;
    while (started < options.count) {
        for (int i = 0; i < EVENTS && started < options.count && due_us <= now_us(); i++) {
            if (place_count == 0) {
                tally.unsent++;
                started++;
            } else if (start(places[place_count - 1], due_us)) {
                place_count--;
            } else {
                tally.refused++;
            }
            due_us = begin_us + started * 1000000 / options.rate;
        }
        attend(places, &place_count, due_us);
    }
    const uint64_t patience_us = now_us() + PATIENCE_US;
    while (place_count < options.parallel && now_us() < patience_us) {
        attend(places, &place_count, patience_us);
    }
    for (size_t i = 0; i < options.parallel; i++) {
        if (slots[i].busy) {
            finish(&slots[i], -1, false);
        }
    }
}

/* ---- the report */

static int compare_us(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a;
    const uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static void sort_times(struct times *times)
{
    qsort(times->us, times->count, sizeof *times->us, compare_us);
}

static uint32_t percentile(const struct times *times, double share)
{
    return times->count == 0 ? 0 : times->us[(size_t)(share * (double)(times->count - 1) + 0.5)];
}

static void report_open(void)
{
    const double seconds = (double)options.count / (double)options.rate;
    printf(options.json ? ",\"goodput\":%.0f,\"busy\":%zu,\"busy_p50_us\":%u,\"busy_p99_us\":%u,"
                          "\"busy_max_us\":%u,\"refused\":%zu,\"unsent\":%zu"
                        : "goodput %.0f a second; 503: %zu, p50 %u us, p99 %u us, longest %u us; "
                          "%zu connects refused, %zu requests unsent\n",
           (double)tally.in_time / seconds, tally.busy.count, percentile(&tally.busy, 0.50),
           percentile(&tally.busy, 0.99), percentile(&tally.busy, 1), tally.refused, tally.unsent);
}

static void report(double seconds)
{
    const double rate = seconds > 0 ? (double)tally.times.count / seconds : 0;
    sort_times(&tally.times);
    sort_times(&tally.busy);
    printf(options.json ? "{\"requests\":%zu,\"mismatches\":%zu,\"seconds\":%.3f,\"rate\":%.0f,"
                          "\"p50_us\":%u,\"p90_us\":%u,\"p99_us\":%u,\"max_us\":%u"
                        : "%zu requests, %zu mismatches, %.3f s, %.0f a second\n"
                          "p50 %u us, p90 %u us, p99 %u us, longest %u us\n",
           tally.times.count, tally.wrong, seconds, rate, percentile(&tally.times, 0.50),
           percentile(&tally.times, 0.90), percentile(&tally.times, 0.99),
           percentile(&tally.times, 1));
    if (options.rate > 0) {
        report_open();
    }
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (tally.answered[i] > 0 || options.json) {
            printf(options.json ? ",\"%s\":%zu" : "%-12s %zu\n", kinds[i].name, tally.answered[i]);
        }
    }
    if (options.json) {
        puts("}");
    }
}

/* Only a run of bare challenges goes without a ticket. */
static void open_tickets(void)
{
    static char *standard[] = {NULL};
    bool needed = false;
    for (size_t i = 0; i < KIND_COUNT; i++) {
        needed = needed || (i != KIND_none && options.weights[i] > 0);
    }
    if (!needed) {
        return;
    }
    if (options.ccache_count == 0) {
        standard[0] = getenv("KRB5CCNAME");
        if (standard[0] == NULL) {
            die("no --ccache, and no KRB5CCNAME");
        }
    }
    mint_open(options.ccache_count > 0 ? options.ccaches : standard,
              options.ccache_count > 0 ? options.ccache_count : 1, options.service);
    kind_open(options.raw);
    tokens_open(options.tokens > 0 ? options.tokens
                : options.premint  ? good_count()
                                   : 0,
                options.raw);
}

int main(int argc, char **argv)
{
    options_read(argc, argv);
    struct slot *slots = calloc(options.parallel, sizeof *slots);
    struct slot **places = calloc(options.parallel, sizeof *places);
    tally.times.us = calloc(options.count + 1, sizeof *tally.times.us);
    tally.busy.us = calloc(options.count + 1, sizeof *tally.busy.us);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (slots == NULL || places == NULL || tally.times.us == NULL || tally.busy.us == NULL ||
        epoll < 0) {
        die("out of memory or descriptors");
    }
    for (size_t i = 0; i < options.parallel; i++) {
        slots[i].fd = -1;
    }
    open_tickets();
    const uint64_t begin_us = now_us();
    if (options.rate > 0) {
        run_open(slots, places);
    } else {
        run_closed(slots);
    }
    report((double)(now_us() - begin_us) / 1e6);
    for (size_t i = 0; i < options.parallel; i++) {
        if (slots[i].fd >= 0) {
            hang_up(&slots[i]);
        }
        free(slots[i].out.ptr);
    }
    tokens_close();
    mint_close();
    return tally.wrong == 0 ? 0 : 1;
}
