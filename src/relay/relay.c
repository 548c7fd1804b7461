#include "relay/relay.h"

#include "relay/pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    PAIRS_MAX = 16, /* mod_fcgid gives a process one request at a time; the rest is reserve */
    DRAIN_MS = 2000,
    PAUSE_MS = 100, /* before accept() is tried again after it failed */
    REPORT_WINDOW_MS = 10000,
    REPORTS_MAX = 10, /* lines in that window */
    REPORT_BYTES = 512,
};

/* Where poll says what happened to a pair; NULL: it was not asked. */
struct polled_pair {
    const struct pollfd *peer;
    const struct pollfd *daemon;
};

struct relay {
    const struct relay_target *target;
    uint64_t limit_ms;
    uint64_t now_ms;
    int listener;
    int spare;          /* a descriptor to give up when there is no other */
    uint64_t paused_ms; /* no accept before this time */
    uint64_t reports_since_ms;
    unsigned reports;
    unsigned unreported;
    struct pair pairs[PAIRS_MAX];
    struct polled_pair polled_pairs[PAIRS_MAX];
    struct pollfd polled[1 + 2 * PAIRS_MAX];
    size_t polled_count;
};

static struct relay relay; /* no allocation: what it needs is there from the start */

static volatile sig_atomic_t asked_to_end;

static void on_signal(int signal)
{
    (void)signal;
    asked_to_end = 1;
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the target */

static const char *parse_path(const char *text, struct relay_target *target)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&target->address;
    const size_t len = strlen(text);
    if (len >= sizeof address->sun_path) {
        return "the path is too long for a socket";
    }
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, text, len + 1);
    target->address_bytes = sizeof *address;
    return NULL;
}

/* "[::1]" or "127.0.0.1", without a look at /etc/hosts or DNS. */
static const char *parse_host(const char *host, in_port_t port, struct relay_target *target)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&target->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target->address;
    if (strcmp(host, "[::1]") == 0) {
        *v6 = (struct sockaddr_in6){
            .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
        target->address_bytes = sizeof *v6;
        return NULL;
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) != 1) {
        return "neither an absolute path nor ADDRESS:PORT";
    }
    if (ntohl(v4->sin_addr.s_addr) >> 24 != 127) {
        return "not a loopback address";
    }
    v4->sin_family = AF_INET;
    v4->sin_port = port;
    target->address_bytes = sizeof *v4;
    return NULL;
}

const char *relay_target_parse(const char *text, struct relay_target *target)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    *target = (struct relay_target){.text = text};
    if (text[0] == '/') {
        return parse_path(text, target);
    }
    const size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    if (len == 0 || len >= sizeof host) {
        return "neither an absolute path nor ADDRESS:PORT";
    }
    memcpy(host, text, len);
    host[len] = '\0';
    char *rest = NULL;
    const unsigned long port = strtoul(colon + 1, &rest, 10);
    if (colon[1] < '1' || colon[1] > '9' || *rest != '\0' || port > 65535) {
        return "the port is not a number from 1 to 65535";
    }
    return parse_host(host, htons((in_port_t)port), target);
}

/* ---- lines for the web server's error log */

/* Whoever reads standard error must not be able to stop us by not reading it. */
static void put_line(const char *line, size_t len)
{
    struct pollfd error_log = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&error_log, 1, 0) == 1 && (error_log.revents & POLLOUT) != 0) {
        while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR) {
        }
    }
}

static bool may_report(void)
{
    char line[REPORT_BYTES];
    if (relay.now_ms - relay.reports_since_ms >= REPORT_WINDOW_MS) {
        if (relay.unreported > 0) {
            const int len =
                snprintf(line, sizeof line, "spnegate-relay[%ld]: %u more lines were left out\n",
                         (long)getpid(), relay.unreported);
            put_line(line, (size_t)len);
        }
        relay.reports_since_ms = relay.now_ms;
        relay.reports = relay.unreported = 0;
    }
    if (relay.reports == REPORTS_MAX) {
        relay.unreported++;
        return false;
    }
    relay.reports++;
    return true;
}

/* `error` is an errno, or 0. */
static void report(const char *what, int error)
{
    char line[REPORT_BYTES];
    if (!may_report()) {
        return;
    }
    const int len = snprintf(line, sizeof line - 1, "spnegate-relay[%ld]: %s: %s%s%s",
                             (long)getpid(), relay.target->text, what, error == 0 ? "" : ": ",
                             error == 0 ? "" : strerror(error));
    size_t end = len < (int)sizeof line - 1 ? (size_t)len : sizeof line - 2;
    line[end++] = '\n';
    put_line(line, end);
}

/* ---- connections */

static struct pair *free_pair(void)
{
    for (size_t i = 0; i < PAIRS_MAX; i++) {
        if (!relay.pairs[i].open) {
            return &relay.pairs[i];
        }
    }
    return NULL;
}

static size_t open_pairs(void)
{
    size_t count = 0;
    for (size_t i = 0; i < PAIRS_MAX; i++) {
        count += relay.pairs[i].open;
    }
    return count;
}

/* A new connection to the daemon, perhaps not complete yet; -1 with errno. */
static int target_connect(bool *connecting)
{
    const struct relay_target *target = relay.target;
    const int family = target->address.ss_family;
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    if (family != AF_UNIX) {
        const int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* only a delay if not */
    }
    *connecting = false;
    if (connect(fd, (const struct sockaddr *)&target->address, target->address_bytes) != 0) {
        *connecting = errno == EINPROGRESS;
        if (!*connecting) {
            const int error = errno;
            (void)close(fd);
            errno = error;
            return -1;
        }
    }
    return fd;
}

static void join(int peer)
{
    bool connecting;
    struct pair *pair = free_pair();
    const int daemon = target_connect(&connecting);
    if (daemon < 0) {
        report("cannot connect", errno);
        (void)close(peer);
        return;
    }
    pair->open = true;
    pair->connecting = connecting;
    pair->answered = false;
    pair->peer = peer;
    pair->daemon = daemon;
    pair->until_ms = relay.now_ms + relay.limit_ms;
    for (int i = 0; i < 2; i++) {
        struct pair_flow *flow = i == 0 ? &pair->request : &pair->answer;
        flow->start = flow->end = 0;
        flow->ended = flow->passed = false;
    }
}

static int accept_one(void)
{
    return accept4(relay.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void spare_open(void)
{
    relay.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Closed at once rather than left waiting: the web server then answers with an error at once. */
static void refuse_one(int error)
{
    report("cannot accept", error);
    if (relay.spare >= 0) {
        (void)close(relay.spare);
    }
    const int peer = accept_one();
    if (peer >= 0) {
        (void)close(peer);
    } else {
        relay.paused_ms = relay.now_ms + PAUSE_MS;
    }
    spare_open();
}

static void accept_waiting(void)
{
    while (relay.now_ms >= relay.paused_ms && free_pair() != NULL) {
        const int peer = accept_one();
        if (peer >= 0) {
            join(peer);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            refuse_one(errno);
        }
    }
}

static void work(struct pair *pair, short peer_got, short daemon_got)
{
    switch (pair_work(pair, peer_got, daemon_got)) {
    case PAIR_GOES_ON:
        if (relay.now_ms < pair->until_ms) {
            return;
        }
        report(pair->answered ? "the answer was not complete in time" : "no answer in time", 0);
        break;
    case PAIR_UNASKED:
        report("cannot connect", errno);
        break;
    case PAIR_SILENT:
        report("the daemon closed without an answer", 0);
        break;
    case PAIR_CUT_SHORT:
        report("the daemon's connection broke", errno);
        break;
    case PAIR_ENDED:
        break;
    }
    pair_close(pair);
}

/* `known`: poll filled in what happened; else the time has come for somebody, or a signal. */
static void work_all(bool known)
{
    for (size_t i = 0; i < PAIRS_MAX; i++) {
        const struct polled_pair *entry = &relay.polled_pairs[i];
        if (!relay.pairs[i].open) {
            continue;
        }
        short peer_got = 0;
        short daemon_got = 0;
        if (known) {
            peer_got = entry->peer->revents;
        }
        if (known && entry->daemon != NULL) {
            daemon_got = entry->daemon->revents;
        }
        work(&relay.pairs[i], peer_got, daemon_got);
    }
}

/* ---- the loop */

/* Only descriptors that are open: more entries than the limit of descriptors are an error. */
static const struct pollfd *add_polled(int fd, short events)
{
    struct pollfd *entry = &relay.polled[relay.polled_count++];
    *entry = (struct pollfd){.fd = fd, .events = events};
    return entry;
}

/* Fills `polled` and says until when nothing is due. */
static uint64_t fill_polled(uint64_t until_ms)
{
    relay.polled_count = 0;
    if (relay.now_ms < relay.paused_ms) {
        until_ms = relay.paused_ms < until_ms ? relay.paused_ms : until_ms;
    } else if (free_pair() != NULL) {
        (void)add_polled(relay.listener, POLLIN);
    }
    for (size_t i = 0; i < PAIRS_MAX; i++) {
        const struct pair *pair = &relay.pairs[i];
        struct polled_pair *entry = &relay.polled_pairs[i];
        *entry = (struct polled_pair){NULL, NULL};
        if (!pair->open) {
            continue;
        }
        entry->peer = add_polled(pair->peer, pair_peer_events(pair));
        const short wanted = pair_daemon_events(pair);
        if (wanted != 0) { /* a daemon that closed is always ready: no use to hear of it again */
            entry->daemon = add_polled(pair->daemon, wanted);
        }
        until_ms = pair->until_ms < until_ms ? pair->until_ms : until_ms;
    }
    return until_ms;
}

static int wait_until(uint64_t until_ms, const sigset_t *mask)
{
    const uint64_t ms = until_ms > relay.now_ms ? until_ms - relay.now_ms : 0;
    const struct timespec timeout = {.tv_sec = (time_t)(ms / 1000),
                                     .tv_nsec = (long)(ms % 1000) * 1000000};
    const int r =
        ppoll(relay.polled, relay.polled_count, until_ms == UINT64_MAX ? NULL : &timeout, mask);
    const int error = errno;
    relay.now_ms = clock_ms();
    errno = error;
    return r < 0 && errno != EINTR && errno != ENOMEM ? -1 : r;
}

/* Signals arrive while we wait, and at no other time. */
static void catch_signals(sigset_t *waiting)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    sigset_t blocked;
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigemptyset(&action.sa_mask);
    (void)sigemptyset(&blocked);
    (void)sigemptyset(waiting); /* whatever the web server had blocked */
    for (size_t i = 0; i < sizeof ending / sizeof ending[0]; i++) {
        (void)sigaction(ending[i], &action, NULL);
        (void)sigaddset(&blocked, ending[i]);
    }
    (void)sigprocmask(SIG_SETMASK, &blocked, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* standard error may be a pipe */
}

int relay_run(int listener, const struct relay_target *target, uint64_t limit_ms)
{
    sigset_t waiting;
    relay.target = target;
    relay.limit_ms = limit_ms;
    relay.listener = listener;
    relay.now_ms = relay.reports_since_ms = clock_ms();
    spare_open();
    catch_signals(&waiting);
    uint64_t end_ms = UINT64_MAX;
    for (;;) {
        /* What connected before the end was asked for is still served. */
        accept_waiting();
        if (end_ms != UINT64_MAX && (open_pairs() == 0 || relay.now_ms >= end_ms)) {
            return 0;
        }
        const int ready = wait_until(fill_polled(end_ms), &waiting);
        if (ready < 0 && errno != EINTR && errno != ENOMEM) {
            return -1;
        }
        if (asked_to_end != 0 && end_ms == UINT64_MAX) {
            end_ms = relay.now_ms + DRAIN_MS;
        }
        work_all(ready > 0);
    }
}
