#include "serve/front.h"

#include "base/log.h"
#include "serve/connection.h"
#include "serve/exchange.h"
#include "serve/guard.h"

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,
    PIPE_BYTES = 256 * 1024,
    SWEEP_MS = 250,
    CAP_MIN = 64,
};

struct thread {
    struct front *front;
    pthread_t id;
    bool started;
    bool permit;
    int pipe[2]; /* what passed the guard; libfcgi reads [0] */
    FCGX_Request fcgx;
    struct exchange exchange;
    unsigned char *bytes; /* READ_BYTES, what was read last */
};

struct front {
    struct front_parts parts;
    struct pool pool;
    struct station *stations;
    size_t station_count;
    sem_t gate; /* one permit a CPU share */
    enum source timer_source;
    enum source stop_source;
    int timer;
    int stop;
    sem_t warmed;
    struct fault warm_fault;
    atomic_int warm_failures;
    atomic_bool stopping;
    struct thread *threads;
    size_t thread_count;
};

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now); /* cannot fail with these clocks */
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void release_permit(void *arg)
{
    struct thread *t = arg;
    if (t->permit) {
        t->permit = false;
        (void)sem_post(&t->front->gate);
    }
}

static void take_permit(struct thread *t)
{
    while (!t->permit && (sem_wait(&t->front->gate) == 0 || errno != EINTR)) {
        t->permit = true;
    }
}

/*
 * Counts a connection that is closed without an answer, and tells of it at a bounded rate, for each
 * listener and cause: a flood of one kind hides no other.
 */
static void tell_refusal(struct front *front, struct station *station, enum guard_cause cause,
                         const char *culprit)
{
    char quoted[128];
    char more[48] = "";
    uint32_t skipped = 0;
    metrics_count(&front->parts.metrics->guard[cause]);
    if (cause == GUARD_EMPTY ||
        !log_rate_allow(&station->refusals[cause], clock_us(CLOCK_MONOTONIC) / 1000, &skipped)) {
        return;
    }
    if (skipped > 0) {
        (void)snprintf(more, sizeof more, " (and %u more before it)", (unsigned)skipped);
    }
    log_line(LOG_LEVEL_WARNING, "%s: a connection was closed unanswered: %s (%s)%s%s%s",
             station->config->address, guard_text(cause), guard_code(cause),
             culprit[0] != '\0' ? ": parameter " : "",
             culprit[0] != '\0' ? log_quote(span_of(culprit), quoted, sizeof quoted) : "", more);
}

static void refuse(struct front *front, struct connection *c, enum guard_cause cause)
{
    const enum guard_cause ended = pool_leave(&front->pool, c);
    const bool effect = cause == GUARD_EMPTY || cause == GUARD_CUT || cause == GUARD_ANSWER;
    tell_refusal(front, c->station, effect && ended != GUARD_NONE ? ended : cause,
                 c->guard.culprit);
    pool_drop(&front->pool, c);
}

static int open_pipe(struct thread *t)
{
    if (pipe2(t->pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        t->pipe[0] = t->pipe[1] = -1;
        return -1;
    }
    /* Over the user's soft limit of pipe pages this fails; a request that does not fit is then
     * refused. */
    (void)fcntl(t->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    return 0;
}

static void close_pipe(struct thread *t)
{
    for (size_t i = 0; i < 2; i++) {
        if (t->pipe[i] >= 0) {
            (void)close(t->pipe[i]);
            t->pipe[i] = -1;
        }
    }
}

/* Writes the request as libfcgi likes it best into the thread's pipe. */
static int fill_pipe(struct thread *t, const struct guard *guard)
{
    struct guard_records records;
    return guard_format(guard, &records) == 0 &&
                   writev(t->pipe[1], records.parts, (int)records.count) == (ssize_t)records.len
               ? 0
               : -1;
}

/*
 * Once more with a pipe that may be a larger one: when many processes of the user had pipes, ours
 * was made small. What was written of the request is gone with the old one.
 */
static int fill_new_pipe(struct thread *t, const struct guard *guard)
{
    close_pipe(t);
    if (open_pipe(t) == 0 && fill_pipe(t, guard) == 0) {
        return 0;
    }
    close_pipe(t);
    (void)open_pipe(t); /* if not, the next request tries again */
    return -1;
}

/* Where a parameter of the request goes; the first of several counts, as in FCGX_GetParam. */
static struct span *find_field(struct request *q, struct span parameter)
{
    static const struct {
        struct span parameter;
        size_t at;
    } fields[] = {
/* clang-format off */
#define FIELD(text, member) \
    {{(const unsigned char *)(text), sizeof(text) - 1}, offsetof(struct request, member)}
        /* clang-format on */
        FIELD("HTTP_AUTHORIZATION", authorization),
        FIELD("HTTP_HOST", host),
        FIELD("REQUEST_METHOD", method),
        FIELD("REQUEST_URI", uri),
        FIELD("REMOTE_ADDR", peer),
        FIELD("REMOTE_PORT", peer_port),
        FIELD("SERVER_SOFTWARE", server),
        FIELD("UNIQUE_ID", request_id),
        FIELD("REQUEST_ID", request_id),
        FIELD("HTTPS", https),
        FIELD("REQUEST_SCHEME", scheme),
    };
#undef FIELD
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (span_equal(parameter, fields[i].parameter)) {
            struct span *field = (struct span *)((unsigned char *)q + fields[i].at);
            return field->ptr == NULL ? field : NULL;
        }
    }
    return NULL;
}

static void read_named(char **envp, const char *parameter, struct span *field)
{
    if (parameter != NULL) {
        *field = span_of(FCGX_GetParam(parameter, envp));
    }
}

static void read_request(struct thread *t, const struct connection *c)
{
    struct request *q = &t->exchange.request;
    const struct config_listener *listener = c->station->config;
    q->listener = listener;
    q->time_us = clock_us(CLOCK_REALTIME);
    q->mono_us = clock_us(CLOCK_MONOTONIC);
    q->waited_us = q->mono_us > c->since_us ? q->mono_us - c->since_us : 0;
    for (char **env = t->fcgx.envp; *env != NULL; env++) {
        const char *equals = strchr(*env, '=');
        if (equals != NULL) {
            struct span *field = find_field(q, span_make(*env, (size_t)(equals - *env)));
            if (field != NULL) {
                *field = span_of(equals + 1);
            }
        }
    }
    read_named(t->fcgx.envp, listener->repeat_id, &q->repeat_id);
    /* What a proxy in front says is believed only where the listener names the parameter. */
    read_named(t->fcgx.envp, listener->forwarded.method, &q->method);
    read_named(t->fcgx.envp, listener->forwarded.uri, &q->uri);
    read_named(t->fcgx.envp, listener->forwarded.peer, &q->peer);
}

/*
 * Puts the answer, whole, and ends the request: the only place that does. Without an answer (which
 * the exchange makes impossible) nothing is ended: lighttpd would take an unanswered request as
 * granted.
 */
static int put_answer(struct thread *t, const struct connection *c)
{
    const struct span answer = buf_span(&t->exchange.answer);
    int failed = answer.len == 0 ? -1 : 0;
    if (failed == 0) {
        t->fcgx.ipcFd = c->fd;
        failed |=
            FCGX_PutStr((const char *)answer.ptr, (int)answer.len, t->fcgx.out) != (int)answer.len;
        failed |= FCGX_FClose(t->fcgx.err);
        failed |= FCGX_FClose(t->fcgx.out);
    }
    /* libfcgi only frees from here on: it closes no descriptor and has none to write to. */
    t->fcgx.ipcFd = -1;
    t->fcgx.keepConnection = 1;
    FCGX_Finish_r(&t->fcgx);
    return failed == 0 ? 0 : -1;
}

/* Decodes, decides, answers. Returns NONE, or why the connection must go. */
static enum guard_cause serve_request(struct thread *t, struct connection *c)
{
    if (fill_pipe(t, &c->guard) != 0 && fill_new_pipe(t, &c->guard) != 0) {
        return GUARD_MEMORY;
    }
    t->fcgx.ipcFd = t->pipe[0];
    t->fcgx.keepConnection = 1;
    t->fcgx.appStatus = 0;
    if (FCGX_Accept_r(&t->fcgx) != 0 || FCGX_GetError(t->fcgx.in) != 0) {
        /* After a failure libfcgi may have closed its end, and says so by ipcFd. */
        if (t->fcgx.ipcFd < 0) {
            t->pipe[0] = -1;
        }
        t->fcgx.ipcFd = -1;
        t->fcgx.keepConnection = 1;
        FCGX_Finish_r(&t->fcgx);
        close_pipe(t);
        (void)open_pipe(t); /* if not, the next fill_pipe fails and tries again */
        return GUARD_LIBRARY;
    }
    read_request(t, c);
    engine_serve(t->front->parts.engine, &t->exchange, release_permit, t);
    const int failed = put_answer(t, c);
    exchange_clear(&t->exchange);
    return failed != 0 ? GUARD_ANSWER : GUARD_NONE;
}

static void park(struct front *front, struct connection *c)
{
    if (pool_park(&front->pool, c) != 0) {
        refuse(front, c, GUARD_MEMORY);
    }
}

/* Reads and serves one connection until it waits for its peer, or ends. One request at most: others
 * come first then. */
static void serve_connection(struct thread *t, struct connection *c)
{
    struct front *front = t->front;
    enum guard_cause cause = GUARD_NONE;
    const enum guard_state state =
        c->complete ? GUARD_DONE : connection_read(c, t->bytes, READ_BYTES, &cause);
    if (state == GUARD_MORE) {
        park(front, c);
        return;
    }
    if (state == GUARD_DONE) {
        cause = pool_leave(&front->pool, c);
    }
    if (cause == GUARD_NONE && !connection_has_room(c)) {
        c->since_us = c->complete ? c->since_us : clock_us(CLOCK_MONOTONIC);
        c->complete = true;
        park(front, c);
        return;
    }
    if (cause == GUARD_NONE) {
        cause = serve_request(t, c);
    }
    if (cause != GUARD_NONE) {
        refuse(front, c, cause);
        return;
    }
    if (!c->guard.keep) {
        pool_drop(&front->pool, c);
        return;
    }
    guard_start(&c->guard, &c->station->rules);
    c->kept = true;
    c->complete = false;
    c->since_us = clock_us(CLOCK_MONOTONIC);
    park(front, c);
}

static void accept_connection(struct thread *t, struct station *station)
{
    struct front *front = t->front;
    enum guard_cause cause = GUARD_NONE;
    struct connection *c = pool_accept(&front->pool, station, clock_us(CLOCK_MONOTONIC), &cause);
    if (cause != GUARD_NONE) {
        tell_refusal(front, station, cause, "");
    }
    if (c != NULL) {
        metrics_count(&front->parts.metrics->connections);
        serve_connection(t, c);
    }
}

static void sweep(struct front *front)
{
    uint64_t expirations = 0;
    /* Whoever reads first sweeps. */
    if (read(front->timer, &expirations, sizeof expirations) == (ssize_t)sizeof expirations) {
        pool_sweep(&front->pool, clock_us(CLOCK_MONOTONIC));
    }
}

static int thread_warm(struct thread *t, struct fault *fault)
{
    t->bytes = malloc(READ_BYTES);
    if (t->bytes == NULL || exchange_init(&t->exchange, t->front->parts.config) != 0 ||
        open_pipe(t) != 0 || FCGX_InitRequest(&t->fcgx, -1, 0) != 0) {
        return fault_set(fault, "", "no memory or descriptors for a request thread");
    }
    return acceptor_thread_open(&t->exchange.kerberos, fault);
}

static void *thread_run(void *arg)
{
    struct thread *t = arg;
    struct front *front = t->front;
    struct fault fault;
    if (thread_warm(t, &fault) != 0) {
        if (atomic_fetch_add(&front->warm_failures, 1) == 0) {
            front->warm_fault = fault;
        }
    }
    (void)sem_post(&front->warmed);
    while (!atomic_load(&front->stopping)) {
        struct epoll_event event;
        take_permit(t);
        const int n = epoll_wait(front->pool.epoll, &event, 1, -1);
        if (n != 1 || atomic_load(&front->stopping)) {
            continue;
        }
        switch (*(enum source *)event.data.ptr) {
        case SOURCE_LISTENER:
            accept_connection(t, event.data.ptr);
            break;
        case SOURCE_CONNECTION:
            pool_take(&front->pool, event.data.ptr, clock_us(CLOCK_MONOTONIC));
            serve_connection(t, event.data.ptr);
            break;
        case SOURCE_TIMER:
            sweep(front);
            break;
        case SOURCE_STOP:
            break;
        }
    }
    release_permit(t);
    return NULL;
}

/* The sweep's timer and the stop event, both known to epoll. */
static int open_events(struct front *front)
{
    const struct itimerspec every = {{0, SWEEP_MS * 1000000L}, {0, SWEEP_MS * 1000000L}};
    front->timer_source = SOURCE_TIMER;
    front->stop_source = SOURCE_STOP;
    front->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    front->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.ptr = &front->timer_source};
    struct epoll_event stop = {.events = EPOLLIN, .data.ptr = &front->stop_source};
    return front->timer >= 0 && front->stop >= 0 &&
                   timerfd_settime(front->timer, 0, &every, NULL) == 0 &&
                   epoll_ctl(front->pool.epoll, EPOLL_CTL_ADD, front->timer, &timer) == 0 &&
                   epoll_ctl(front->pool.epoll, EPOLL_CTL_ADD, front->stop, &stop) == 0
               ? 0
               : -1;
}

static int start_threads(struct front *front, struct fault *fault)
{
    for (size_t i = 0; i < front->thread_count; i++) {
        struct thread *t = &front->threads[i];
        t->front = front;
        t->pipe[0] = t->pipe[1] = -1;
    }
    for (size_t i = 0; i < front->thread_count; i++) {
        struct thread *t = &front->threads[i];
        const int error = pthread_create(&t->id, NULL, thread_run, t);
        if (error != 0) {
            return fault_set(fault, "", "request threads cannot be started: %s", strerror(error));
        }
        t->started = true;
    }
    for (size_t i = 0; i < front->thread_count; i++) {
        while (sem_wait(&front->warmed) != 0) {
        }
    }
    if (atomic_load(&front->warm_failures) != 0) {
        *fault = front->warm_fault;
        return -1;
    }
    return 0;
}

static long cpu_share(unsigned workers)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const long share = cpus / (long)(workers == 0 ? 1 : workers);
    return share < 1 ? 1 : share;
}

/*
 * A worker's part of limits.connections. They do not come in equal parts, so with many workers it
 * is more than that.
 */
static size_t connection_cap(const struct front_parts *parts)
{
    const size_t all = parts->config->limits.connections;
    const size_t part = (all + parts->workers - 1) / parts->workers;
    const size_t least = all < CAP_MIN ? all : CAP_MIN;
    return part < least ? least : part;
}

static int open_stations(struct front *front)
{
    const struct front_parts *parts = &front->parts;
    front->stations = calloc(parts->listener_count, sizeof *front->stations);
    if (front->stations == NULL) {
        return -1;
    }
    front->station_count = parts->listener_count;
    for (size_t i = 0; i < front->station_count; i++) {
        const struct config_listener *config = parts->listeners[i].config;
        struct station *station = &front->stations[i];
        *station = (struct station){
            .source = SOURCE_LISTENER,
            .fd = parts->listeners[i].fd,
            .config = config,
            .rules = {.params_max = parts->config->limits.request_bytes,
                      .also = {span_of(config->forwarded.method), span_of(config->forwarded.uri),
                               span_of(config->forwarded.peer), span_of(config->repeat_id)}}};
        for (size_t cause = 0; cause < GUARD_COUNT; cause++) {
            station->refusals[cause].per_s = 1;
            station->refusals[cause].burst = 5;
        }
    }
    return 0;
}

int front_open(const struct front_parts *parts, struct front **out, struct fault *fault)
{
    struct front *front = calloc(1, sizeof *front);
    if (front == NULL) {
        return fault_set(fault, "", "no memory for the front");
    }
    front->parts = *parts;
    front->timer = front->stop = -1;
    if (open_stations(front) != 0 ||
        pool_open(&front->pool, front->stations, front->station_count, connection_cap(parts),
                  (uint64_t)parts->config->limits.deadline_ms * 1000) != 0) {
        free(front->stations);
        free(front);
        return fault_set(fault, "", "no memory or descriptors for the front");
    }
    front->threads = calloc(parts->config->threads, sizeof *front->threads);
    front->thread_count = front->threads != NULL ? parts->config->threads : 0;
    const int sems = sem_init(&front->gate, 0, (unsigned)cpu_share(parts->workers)) |
                     sem_init(&front->warmed, 0, 0);
    if (front->threads == NULL || sems != 0 || open_events(front) != 0 || FCGX_Init() != 0) {
        (void)fault_set(fault, "", "no memory or descriptors for the front");
        goto out;
    }
    if (start_threads(front, fault) != 0) {
        goto out;
    }
    *out = front;
    return 0;
out:
    front_close(front);
    return -1;
}

int front_begin(struct front *front, struct fault *fault)
{
    for (size_t i = 0; i < front->station_count; i++) {
        struct station *station = &front->stations[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = station};
        if (epoll_ctl(front->pool.epoll, EPOLL_CTL_ADD, station->fd, &event) != 0) {
            return fault_set(fault, station->config->address, "the listener cannot be served: %s",
                             strerror(errno));
        }
    }
    return 0;
}

static bool backlog_waits(const struct front *front)
{
    bool waits = false;
    for (size_t i = 0; i < front->station_count; i++) {
        struct pollfd p = {.fd = front->stations[i].fd, .events = POLLIN};
        waits = waits || (poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0);
    }
    return waits;
}

void front_drain(struct front *front, bool backlog)
{
    const uint64_t until = clock_us(CLOCK_MONOTONIC) + front->pool.deadline_us;
    while (backlog && backlog_waits(front) && clock_us(CLOCK_MONOTONIC) < until) {
        (void)usleep(2000);
    }
    for (size_t i = 0; i < front->station_count; i++) {
        (void)epoll_ctl(front->pool.epoll, EPOLL_CTL_DEL, front->stations[i].fd, NULL);
    }
    pool_drain(&front->pool);
}

bool front_drained(struct front *front)
{
    return pool_count(&front->pool) == 0;
}

static void thread_free(struct thread *t)
{
    close_pipe(t);
    acceptor_thread_close(t->exchange.kerberos);
    exchange_free(&t->exchange);
    free(t->bytes);
}

void front_close(struct front *front)
{
    if (front == NULL) {
        return;
    }
    atomic_store(&front->stopping, true);
    const uint64_t one = 1;
    if (front->stop >= 0 && write(front->stop, &one, sizeof one) < 0) {
        log_line(LOG_LEVEL_ERROR, "request threads cannot be stopped: %s", strerror(errno));
    }
    for (size_t i = 0; i < front->thread_count; i++) {
        if (front->threads[i].started) {
            (void)pthread_join(front->threads[i].id, NULL);
        }
        thread_free(&front->threads[i]);
    }
    if (front->timer >= 0) {
        (void)close(front->timer);
    }
    if (front->stop >= 0) {
        (void)close(front->stop);
    }
    pool_close(&front->pool);
    (void)sem_destroy(&front->gate);
    (void)sem_destroy(&front->warmed);
    free(front->threads);
    free(front->stations);
    free(front);
}
