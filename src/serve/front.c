#include "serve/front.h"

#include "base/log.h"
#include "serve/connection.h"
#include "serve/exchange.h"
#include "serve/guard.h"
#include "serve/listener.h"
#include "serve/request.h"

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
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
    TAKEN_IN = 2, /* connections looked at after each request */
};

struct thread {
    struct front *front;
    pthread_t id;
    bool started;
    bool permit;
    bool blocked;
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
    sem_t gate;            /* one permit a CPU share */
    atomic_size_t blocked; /* threads that wait for the disk */
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

static void release_permit(struct thread *t)
{
    if (t->permit) {
        t->permit = false;
        (void)sem_post(&t->front->gate);
    }
}

/* The disk is waited for: somebody else may go on meanwhile. */
static void before_blocking(void *arg)
{
    struct thread *t = arg;
    if (!t->blocked) {
        t->blocked = true;
        (void)atomic_fetch_add(&t->front->blocked, 1);
    }
    release_permit(t);
}

static void after_blocking(struct thread *t)
{
    if (t->blocked) {
        t->blocked = false;
        (void)atomic_fetch_sub(&t->front->blocked, 1);
    }
}

/* Whether all the others wait for the disk: the last one only refuses, so that somebody does. */
static bool is_last(const struct front *front)
{
    return front->thread_count > 1 && atomic_load(&front->blocked) + 1 >= front->thread_count;
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
    metrics_count_refusal(front->parts.metrics, station->slot, cause);
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

static void drop(struct front *front, struct connection *c)
{
    metrics_disconnect(front->parts.metrics, front->parts.seat, c->station->slot);
    pool_drop(&front->pool, c);
}

static void refuse(struct front *front, struct connection *c, enum guard_cause cause)
{
    const enum guard_cause ended = pool_leave(&front->pool, c);
    const bool effect = cause == GUARD_EMPTY || cause == GUARD_CUT || cause == GUARD_ANSWER;
    tell_refusal(front, c->station, effect && ended != GUARD_NONE ? ended : cause,
                 c->guard.culprit);
    drop(front, c);
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

static void read_request(struct thread *t, const struct connection *c, bool crowded)
{
    struct request *q = &t->exchange.request;
    q->listener = c->station->config;
    q->time_us = clock_us(CLOCK_REALTIME);
    q->mono_us = clock_us(CLOCK_MONOTONIC);
    q->waited_us = q->mono_us > c->since_us ? q->mono_us - c->since_us : 0;
    q->crowded = crowded;
    request_read(t->fcgx.envp, &t->front->parts.config->audit.request_ids, q);
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
static enum guard_cause serve_request(struct thread *t, struct connection *c, bool crowded)
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
    read_request(t, c, crowded);
    engine_serve(t->front->parts.engine, &t->exchange, before_blocking, t);
    after_blocking(t);
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

/* Answers a complete request, `crowded` or not, and lets its connection go or wait for the next. */
static void finish_request(struct thread *t, struct connection *c, bool crowded)
{
    struct front *front = t->front;
    if (!connection_has_room(c)) {
        c->since_us = c->complete ? c->since_us : clock_us(CLOCK_MONOTONIC);
        c->complete = true;
        park(front, c);
        return;
    }
    metrics_begin(front->parts.metrics, front->parts.seat);
    const enum guard_cause cause = serve_request(t, c, crowded);
    metrics_end(front->parts.metrics, front->parts.seat);
    if (cause != GUARD_NONE) {
        refuse(front, c, cause);
        return;
    }
    if (!c->guard.keep) {
        drop(front, c);
        return;
    }
    guard_start(&c->guard, &c->station->rules);
    c->kept = true;
    c->complete = false;
    c->since_us = clock_us(CLOCK_MONOTONIC);
    park(front, c);
}

/* Reads a connection until it waits for its peer, ends, or has a request, which is lined up. One
 * request at most: others come first then. */
static void read_connection(struct thread *t, struct connection *c)
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
    if (cause != GUARD_NONE) {
        refuse(front, c, cause);
    } else if (pool_line_up(&front->pool, c) != 0) {
        finish_request(t, c, true);
    }
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
        metrics_connect(front->parts.metrics, front->parts.seat, station->slot);
        read_connection(t, c);
    }
}

static void sweep(struct front *front)
{
    uint64_t expirations = 0;
    /* Whoever reads first sweeps. */
    if (read(front->timer, &expirations, sizeof expirations) == (ssize_t)sizeof expirations) {
        metrics_pulse(front->parts.metrics);
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

/* Takes in what epoll tells of next; waits for it only if there is nothing else to do. */
static bool take_in(struct thread *t, bool wait)
{
    struct front *front = t->front;
    struct epoll_event event;
    if (epoll_wait(front->pool.epoll, &event, 1, wait ? -1 : 0) != 1) {
        return false;
    }
    switch (*(enum source *)event.data.ptr) {
    case SOURCE_LISTENER:
        accept_connection(t, event.data.ptr);
        break;
    case SOURCE_CONNECTION:
        pool_take(&front->pool, event.data.ptr, clock_us(CLOCK_MONOTONIC));
        read_connection(t, event.data.ptr);
        break;
    case SOURCE_TIMER:
        sweep(front);
        break;
    case SOURCE_STOP:
        break;
    }
    return true;
}

/*
 * After each request that was decided, a few are taken in: so a crowd is seen and refused at once,
 * and refusing it takes but a small part of the time. What is not even taken in waits in the
 * listener's queue.
 */
static void serve(struct thread *t)
{
    struct front *front = t->front;
    bool idle = true;
    while (!atomic_load(&front->stopping)) {
        take_permit(t);
        /* Out of idleness one alone: whoever else is idle takes the next. */
        for (int i = idle ? 1 : TAKEN_IN; i > 0 && take_in(t, idle); i--) {
        }
        struct connection *c = pool_next(&front->pool);
        idle = c == NULL;
        if (c != NULL) {
            finish_request(t, c, is_last(front));
        }
    }
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
    serve(t);
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
 * A worker's part of what a listener may have. Connections do not come in equal parts, so with many
 * workers it is more than that.
 */
static size_t worker_part(const struct front_parts *parts, size_t all)
{
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
            .slot = parts->listeners[i].slot,
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
    const struct pool_limits limits = {
        .connections = worker_part(parts, parts->config->limits.connections),
        .ready = worker_part(parts, parts->config->limits.waiting),
        .deadline_us = (uint64_t)parts->config->limits.deadline_ms * 1000};
    if (open_stations(front) != 0 ||
        pool_open(&front->pool, front->stations, front->station_count, &limits) != 0) {
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

/* Whether connections wait that nobody else will accept: those of an inherited socket are its
 * owner's to hand on. */
static bool backlog_waits(const struct front *front)
{
    bool waits = false;
    for (size_t i = 0; i < front->station_count; i++) {
        const struct station *station = &front->stations[i];
        waits = waits || (station->config->kind != CONFIG_LISTEN_FD && listener_waits(station->fd));
    }
    return waits;
}

static void leave_stations(struct front *front, bool inherited)
{
    for (size_t i = 0; i < front->station_count; i++) {
        if ((front->stations[i].config->kind == CONFIG_LISTEN_FD) == inherited) {
            (void)epoll_ctl(front->pool.epoll, EPOLL_CTL_DEL, front->stations[i].fd, NULL);
        }
    }
}

void front_drain(struct front *front, bool backlog)
{
    const uint64_t until = clock_us(CLOCK_MONOTONIC) + front->pool.limits.deadline_us;
    leave_stations(front, true);
    while (backlog && backlog_waits(front) && clock_us(CLOCK_MONOTONIC) < until) {
        (void)usleep(2000);
    }
    leave_stations(front, false);
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
