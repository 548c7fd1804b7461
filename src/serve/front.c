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
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,
    PIPE_BYTES = 256 * 1024,
    CHUNK_BYTES = 65528, /* the largest PARAMS content that needs no padding */
    SWEEP_MS = 250,
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
    struct log_rate refusals;
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

/* Closes the connection without an answer: counted, and told at a bounded rate. */
static void refuse(struct front *front, struct connection *c, enum guard_cause cause)
{
    metrics_count(&front->parts.metrics->guard[cause]);
    if (cause != GUARD_EMPTY &&
        log_rate_allow(&front->refusals, clock_us(CLOCK_MONOTONIC) / 1000)) {
        char quoted[128];
        const char *culprit = c->guard.culprit;
        log_line(LOG_LEVEL_WARNING, "%s: a connection was closed unanswered: %s (%s)%s%s",
                 c->station->config->address, guard_text(cause), guard_code(cause),
                 culprit[0] != '\0' ? ": parameter " : "",
                 culprit[0] != '\0' ? log_quote(span_of(culprit), quoted, sizeof quoted) : "");
    }
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

static void put_head(unsigned char *head, unsigned char type, uint16_t id, size_t len)
{
    const unsigned char bytes[GUARD_HEADER_BYTES] = {1,
                                                     type,
                                                     (unsigned char)(id >> 8),
                                                     (unsigned char)id,
                                                     (unsigned char)(len >> 8),
                                                     (unsigned char)len,
                                                     0,
                                                     0};
    memcpy(head, bytes, sizeof bytes);
}

/*
 * Writes the request as libfcgi likes it best: three kinds of records, no padding, nothing behind.
 */
static int fill_pipe(struct thread *t, const struct guard *guard)
{
    enum { CHUNKS_MAX = 20, PARTS_MAX = 2 * CHUNKS_MAX + 3 };
    unsigned char begin[16];
    unsigned char heads[CHUNKS_MAX + 1][GUARD_HEADER_BYTES];
    struct iovec parts[PARTS_MAX];
    size_t count = 0;
    size_t total = 0;
    put_head(begin, 1, guard->id, 8);
    memset(begin + 8, 0, 8);
    begin[9] = (unsigned char)guard->role;
    begin[10] = 1; /* keep: libfcgi must not close what it reads */
    parts[count++] = (struct iovec){begin, sizeof begin};
    size_t at = 0;
    for (size_t chunk = 0;; chunk++) {
        const size_t left = guard->params.len - at;
        const size_t len = left > CHUNK_BYTES ? CHUNK_BYTES : left;
        if (chunk > CHUNKS_MAX) {
            return -1;
        }
        put_head(heads[chunk], 4, guard->id, len);
        parts[count++] = (struct iovec){heads[chunk], GUARD_HEADER_BYTES};
        if (len == 0) {
            break;
        }
        parts[count++] = (struct iovec){guard->params.ptr + at, len};
        at += len;
    }
    for (size_t i = 0; i < count; i++) {
        total += parts[i].iov_len;
    }
    return writev(t->pipe[1], parts, (int)count) == (ssize_t)total ? 0 : -1;
}

/* Where a parameter of the request goes; the first of several counts, as in FCGX_GetParam. */
static struct span *find_field(struct request *q, const char *parameter, size_t len)
{
    const struct {
        const char *parameter;
        struct span *field;
    } fields[] = {
        {"HTTP_AUTHORIZATION", &q->authorization},
        {"HTTP_HOST", &q->host},
        {"REQUEST_METHOD", &q->method},
        {"REQUEST_URI", &q->uri},
        {"REMOTE_ADDR", &q->peer},
        {"REMOTE_PORT", &q->peer_port},
        {"SERVER_SOFTWARE", &q->server},
        {"UNIQUE_ID", &q->request_id},
        {"REQUEST_ID", &q->request_id},
        {"HTTPS", &q->https},
        {"REQUEST_SCHEME", &q->scheme},
    };
    const struct span wanted = span_make(parameter, len);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (span_equal(wanted, span_of(fields[i].parameter))) {
            return fields[i].field->ptr == NULL ? fields[i].field : NULL;
        }
    }
    return NULL;
}

static void read_forwarded(char **envp, const char *parameter, struct span *field)
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
            struct span *field = find_field(q, *env, (size_t)(equals - *env));
            if (field != NULL) {
                *field = span_of(equals + 1);
            }
        }
    }
    /* What a proxy in front says is believed only where the listener names the parameter. */
    read_forwarded(t->fcgx.envp, listener->forwarded.method, &q->method);
    read_forwarded(t->fcgx.envp, listener->forwarded.uri, &q->uri);
    read_forwarded(t->fcgx.envp, listener->forwarded.peer, &q->peer);
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
    if (fill_pipe(t, &c->guard) != 0) {
        close_pipe(t);
        return open_pipe(t) == 0 ? GUARD_TOO_LARGE : GUARD_MEMORY;
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

/* Feeds the guard; with DONE the bytes that are left over go to the connection's rest. */
static enum guard_state feed(struct connection *c, struct span bytes, enum guard_cause *cause)
{
    size_t used = 0;
    const enum guard_state state = guard_read(&c->guard, bytes, &used, cause);
    if (state == GUARD_DONE && used < bytes.len) {
        buf_append(&c->rest, bytes.ptr + used, bytes.len - used);
        if (c->rest.failed) {
            *cause = GUARD_TOO_LARGE;
            return GUARD_BAD;
        }
    }
    return state;
}

/* The rest of what was read before, or what the socket has now: its length, 0 at the end, -1 for
 * none yet. */
static ssize_t next_bytes(struct thread *t, struct connection *c)
{
    if (c->rest.len > 0 && c->rest.len <= READ_BYTES) {
        const size_t len = c->rest.len;
        memcpy(t->bytes, c->rest.ptr, len);
        buf_reset(&c->rest);
        return (ssize_t)len;
    }
    for (;;) {
        const ssize_t n = recv(c->fd, t->bytes, READ_BYTES, MSG_DONTWAIT);
        if (n >= 0 || (errno != EINTR && errno != EAGAIN)) {
            return n > 0 ? n : 0;
        }
        if (errno == EAGAIN) {
            return -1;
        }
    }
}

/* Reads and serves one connection until it waits for its peer, or ends. */
static void serve_connection(struct thread *t, struct connection *c)
{
    struct front *front = t->front;
    for (;;) {
        const ssize_t n = next_bytes(t, c);
        enum guard_cause cause = GUARD_NONE;
        if (n < 0) {
            break;
        }
        if (n == 0) {
            refuse(front, c, c->ended != GUARD_NONE ? c->ended : guard_end(&c->guard));
            return;
        }
        const enum guard_state state = feed(c, span_make(t->bytes, (size_t)n), &cause);
        if (state == GUARD_MORE) {
            continue;
        }
        if (state == GUARD_DONE) {
            cause = serve_request(t, c);
        }
        if (cause != GUARD_NONE) {
            refuse(front, c, cause);
            return;
        }
        if (!c->guard.keep || front->pool.draining) {
            pool_drop(&front->pool, c);
            return;
        }
        guard_start(&c->guard, front->parts.config->limits.request_bytes);
        c->kept = true;
        c->since_us = clock_us(CLOCK_MONOTONIC);
        if (c->rest.len > 0) {
            break; /* others first; parking comes back at once */
        }
    }
    if (pool_park(&front->pool, c) != 0) {
        refuse(front, c, GUARD_MEMORY);
    }
}

static void accept_connection(struct thread *t, struct station *station)
{
    struct front *front = t->front;
    bool refused = false;
    struct connection *c = pool_accept(&front->pool, station, clock_us(CLOCK_MONOTONIC),
                                       front->parts.config->limits.request_bytes, &refused);
    if (refused) {
        metrics_count(&front->parts.metrics->guard[GUARD_PEER]);
        if (log_rate_allow(&front->refusals, clock_us(CLOCK_MONOTONIC) / 1000)) {
            log_line(LOG_LEVEL_WARNING, "%s: a connection was closed unanswered: %s (%s)",
                     station->config->address, guard_text(GUARD_PEER), guard_code(GUARD_PEER));
        }
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

int front_open(const struct front_parts *parts, struct front **out, struct fault *fault)
{
    struct front *front = calloc(1, sizeof *front);
    const unsigned cap = parts->config->limits.connections / parts->workers;
    if (front == NULL || pool_open(&front->pool, cap == 0 ? 1 : cap,
                                   (uint64_t)parts->config->limits.deadline_ms * 1000) != 0) {
        free(front);
        return fault_set(fault, "", "no memory or descriptors for the front");
    }
    front->parts = *parts;
    front->timer = front->stop = -1;
    front->refusals = (struct log_rate){.per_s = 1, .burst = 20};
    front->thread_count = parts->config->threads;
    front->station_count = parts->listener_count;
    front->threads = calloc(front->thread_count, sizeof *front->threads);
    front->stations = calloc(front->station_count, sizeof *front->stations);
    const int sems = sem_init(&front->gate, 0, (unsigned)cpu_share(parts->workers)) |
                     sem_init(&front->warmed, 0, 0);
    if (front->threads == NULL || front->stations == NULL || sems != 0 || open_events(front) != 0 ||
        FCGX_Init() != 0) {
        (void)fault_set(fault, "", "no memory or descriptors for the front");
        goto out;
    }
    for (size_t i = 0; i < front->station_count; i++) {
        front->stations[i] = (struct station){.source = SOURCE_LISTENER,
                                              .fd = parts->listeners[i].fd,
                                              .config = parts->listeners[i].config};
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
    for (size_t i = 0; front->threads != NULL && i < front->thread_count; i++) {
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
