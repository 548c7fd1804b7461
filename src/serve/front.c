#include "serve/front.h"

#include "base/log.h"
#include "serve/connection.h"
#include "serve/gate.h"
#include "serve/guard.h"
#include "serve/handler.h"
#include "serve/listener.h"
#include "serve/refusal.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,
    SWEEP_MS = 250,
    CAP_MIN = 64,
    INTAKE_SHARE = 24,      /* of the time that serving takes, so much goes to a crowd */
    TURNS = 3,              /* of which all but one are for those who are new */
    INTAKE_MAX_US = 200,    /* saved up, and owed */
    SLEEP_US = 20,          /* who waited for longer was idle */
    DESCRIPTORS_SPARE = 16, /* not for connections: a new file of the trail needs some */
    SWEEP_TAKEN = 16,       /* connections taken at most, of each listener, in a sweep */
};

struct thread {
    struct front *front;
    pthread_t id;
    bool started;
    bool permit;
    unsigned turn;     /* whether it looks at the listeners next */
    uint64_t now_us;   /* monotonic; when it last looked */
    int64_t intake_us; /* how long it may look at what comes before it serves on */
    struct handler *handler;
    unsigned char *bytes; /* READ_BYTES, what was read last */
};

struct front {
    struct front_parts parts;
    struct pool pool;
    struct station *stations;
    size_t station_count;
    struct refusal refusal; /* of a request in a crowd */
    struct gate gate;
    int doors; /* an epoll instance of the listeners alone, which nobody waits on */
    enum source timer_source;
    enum source stop_source;
    int timer;
    int stop;
    sem_t warmed;
    struct fault warm_fault;
    atomic_int warm_failures;
    atomic_bool begun;
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

/* How long it is since the thread last looked at the clock. */
static int64_t lap(struct thread *t)
{
    const uint64_t before_us = t->now_us;
    t->now_us = clock_us(CLOCK_MONOTONIC);
    return (int64_t)(t->now_us - before_us);
}

static void release_permit(struct thread *t)
{
    if (t->permit) {
        t->permit = false;
        gate_give(&t->front->gate);
    }
}

/* The disk is waited for: somebody else may go on meanwhile. */
static void before_blocking(void *arg)
{
    release_permit(arg);
}

static void take_permit(struct thread *t)
{
    if (!t->permit) {
        gate_take(&t->front->gate);
        t->permit = true;
    }
}

/* Counts a connection that is closed without an answer, and tells of it. */
static void tell_refusal(struct front *front, struct station *station, enum guard_cause cause,
                         const char *culprit)
{
    metrics_count_refusal(front->parts.metrics, station->slot, cause);
    if (cause != GUARD_EMPTY) {
        station_tell(station, cause, culprit, clock_us(CLOCK_MONOTONIC));
    }
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

static void park(struct front *front, struct connection *c)
{
    if (pool_park(&front->pool, c) != 0) {
        refuse(front, c, GUARD_MEMORY);
    }
}

/* Refuses at once, which is cheap and never waits for the disk. */
static enum guard_cause suppress_request(struct thread *t, struct connection *c, enum reason reason)
{
    struct front *front = t->front;
    engine_suppress(front->parts.engine, reason, clock_us(CLOCK_MONOTONIC));
    return refusal_send(&front->refusal, c->station->config, &c->guard, c->fd) == 0 ? GUARD_NONE
                                                                                    : GUARD_ANSWER;
}

/* Refuses one of a crowd, with a record of its own as long as there is budget for it. */
static enum guard_cause refuse_request(struct thread *t, struct connection *c)
{
    struct front *front = t->front;
    if (!gate_enter(&front->gate)) {
        return suppress_request(t, c, REASON_OVERLOAD);
    }
    const enum guard_cause cause = engine_may_record(front->parts.engine, clock_us(CLOCK_MONOTONIC))
                                       ? handler_serve(t->handler, c, true, before_blocking, t)
                                       : suppress_request(t, c, REASON_OVERLOAD);
    gate_leave(&front->gate);
    return cause;
}

/*
 * Answers a complete request as it is (OK), or refuses it (OVERLOAD, DEADLINE), and lets its
 * connection go or wait for the next.
 */
static void finish_request(struct thread *t, struct connection *c, enum reason reason)
{
    struct front *front = t->front;
    if (!connection_has_room(c)) {
        c->since_us = c->complete ? c->since_us : clock_us(CLOCK_MONOTONIC);
        c->complete = true;
        park(front, c);
        return;
    }
    metrics_begin(front->parts.metrics, front->parts.seat);
    const enum guard_cause cause = reason == REASON_OK
                                       ? handler_serve(t->handler, c, false, before_blocking, t)
                                   : reason == REASON_OVERLOAD ? refuse_request(t, c)
                                                               : suppress_request(t, c, reason);
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

/* Reads a connection until it waits for its peer, ends, or has one request, which is lined up. */
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
        finish_request(t, c, REASON_OVERLOAD);
    }
}

/* Whether somebody was accepted. */
static bool accept_connection(struct thread *t, struct station *station)
{
    struct front *front = t->front;
    enum guard_cause cause = GUARD_NONE;
    struct connection *c = pool_accept(&front->pool, station, t->now_us, &cause);
    if (cause != GUARD_NONE) {
        tell_refusal(front, station, cause, "");
    }
    if (c != NULL) {
        metrics_connect(front->parts.metrics, front->parts.seat, station->slot);
        read_connection(t, c);
    }
    return c != NULL;
}

/*
 * The kernel wakes one worker for a connection, and no other one if that worker dies, hangs or is
 * told to drain before it accepts: somebody has to look after such connections.
 */
static void take_stranded(struct thread *t)
{
    struct front *front = t->front;
    for (size_t i = 0; i < front->station_count; i++) {
        struct station *station = &front->stations[i];
        for (int n = SWEEP_TAKEN; n > 0 && listener_waits(station->fd); n--) {
            accept_connection(t, station);
        }
    }
}

static void sweep(struct thread *t)
{
    struct front *front = t->front;
    uint64_t expirations = 0;
    /* Whoever reads first sweeps. */
    if (read(front->timer, &expirations, sizeof expirations) == (ssize_t)sizeof expirations) {
        metrics_pulse(front->parts.metrics);
        pool_sweep(&front->pool, clock_us(CLOCK_MONOTONIC));
        if (atomic_load(&front->begun) && !atomic_load(&front->pool.draining)) {
            take_stranded(t);
        }
    }
}

static int thread_warm(struct thread *t, struct fault *fault)
{
    t->bytes = malloc(READ_BYTES);
    if (t->bytes == NULL) {
        return fault_set(fault, "", "no memory for a request thread");
    }
    return handler_warm(t->handler, fault);
}

/*
 * Whether somebody came in from the listener whose turn it is. Among a thousand ready connections,
 * of which epoll tells one by one, its one event there would come too seldom.
 */
static bool take_in_new(struct thread *t)
{
    struct epoll_event event;
    const bool waits = epoll_wait(t->front->doors, &event, 1, 0) == 1;
    (void)lap(t);
    return waits && accept_connection(t, event.data.ptr);
}

/*
 * Takes in what comes next; waits for it only if there is nothing else to do. Of a crowd that comes
 * all at once most stand at the listeners, and wait there for as long as the queue is; who is
 * inside has one turn all the same.
 */
static bool take_in(struct thread *t, bool wait)
{
    struct front *front = t->front;
    struct epoll_event event;
    t->turn = wait ? 0 : (t->turn + 1) % TURNS;
    if (t->turn != 0 && take_in_new(t)) {
        return true;
    }
    const int n = epoll_wait(front->pool.epoll, &event, 1, wait ? -1 : 0);
    if (lap(t) > SLEEP_US && wait) {
        t->intake_us = -INTAKE_MAX_US;
    }
    if (n != 1) {
        return false;
    }
    switch (*(enum source *)event.data.ptr) {
    case SOURCE_LISTENER:
        (void)accept_connection(t, event.data.ptr);
        break;
    case SOURCE_CONNECTION:
        pool_take(&front->pool, event.data.ptr, t->now_us);
        read_connection(t, event.data.ptr);
        break;
    case SOURCE_TIMER:
        sweep(t);
        break;
    case SOURCE_STOP:
        break;
    }
    return true;
}

static void add_intake(struct thread *t, int64_t us)
{
    const int64_t sum = t->intake_us + us;
    t->intake_us = sum > INTAKE_MAX_US    ? INTAKE_MAX_US
                   : sum < -INTAKE_MAX_US ? -INTAKE_MAX_US
                                          : sum;
}

/*
 * Before each request that is decided one is taken in, and others for a small part of the time: so
 * a crowd is seen, and refused, at little cost. The rest waits in the listener's queue. Who was
 * idle takes in but one until it has been busy for a while: whoever else is idle has the next.
 */
static void take_in_some(struct thread *t, bool wait)
{
    bool more = take_in(t, wait);
    while (more && t->intake_us > 0) {
        const uint64_t from_us = clock_us(CLOCK_MONOTONIC);
        more = take_in(t, false);
        (void)lap(t);
        add_intake(t, -(int64_t)(t->now_us - from_us));
    }
}

/* While all the others may wait for the disk: in time, whatever the disk does. */
static void refuse_late(struct thread *t)
{
    struct front *front = t->front;
    struct connection *c;
    while ((c = pool_next_late(&front->pool, t->now_us)) != NULL) {
        finish_request(t, c, REASON_DEADLINE);
    }
}

static void serve(struct thread *t)
{
    struct front *front = t->front;
    bool holds = false; /* the line, for all the others may wait for the disk */
    while (!atomic_load(&front->stopping)) {
        if (holds) {
            release_permit(t); /* to whoever comes back */
        } else {
            take_permit(t);
        }
        take_in_some(t, holds || !pool_has_ready(&front->pool));
        /* Without a permit still if it held the line: whoever has it may wait for what comes. */
        holds = !gate_enter(&front->gate);
        if (holds) {
            refuse_late(t);
            continue;
        }
        struct connection *c = pool_next(&front->pool);
        if (c != NULL) {
            finish_request(t, c, REASON_OK);
            add_intake(t, lap(t) / INTAKE_SHARE);
        }
        gate_leave(&front->gate);
    }
}

static void *thread_run(void *arg)
{
    struct thread *t = arg;
    struct front *front = t->front;
    struct fault fault;
    if (thread_warm(t, &fault) != 0 && atomic_fetch_add(&front->warm_failures, 1) == 0) {
        front->warm_fault = fault;
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
    front->doors = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.ptr = &front->timer_source};
    struct epoll_event stop = {.events = EPOLLIN, .data.ptr = &front->stop_source};
    return front->timer >= 0 && front->stop >= 0 && front->doors >= 0 &&
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
        t->handler = handler_open(front->parts.config, front->parts.engine);
        if (t->handler == NULL) {
            return fault_set(fault, "", "no memory for a request thread");
        }
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
        station_open(&front->stations[i], parts->listeners[i].fd, parts->listeners[i].config,
                     parts->config->limits.request_bytes);
        front->stations[i].slot = parts->listeners[i].slot;
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
    front->timer = front->stop = front->doors = -1;
    const struct pool_limits limits = {
        .connections = worker_part(parts, parts->config->limits.connections),
        .ready = worker_part(parts, parts->config->limits.waiting),
        .descriptors = parts->descriptors - DESCRIPTORS_SPARE,
        .deadline_us = (uint64_t)parts->config->limits.deadline_ms * 1000};
    if (open_stations(front) != 0 || refusal_open(&front->refusal, REASON_OVERLOAD) != 0 ||
        pool_open(&front->pool, front->stations, front->station_count, &limits) != 0) {
        refusal_close(&front->refusal);
        free(front->stations);
        free(front);
        return fault_set(fault, "", "no memory or descriptors for the front");
    }
    front->threads = calloc(parts->config->threads, sizeof *front->threads);
    front->thread_count = front->threads != NULL ? parts->config->threads : 0;
    const int sems = gate_open(&front->gate, parts->workers, front->thread_count,
                               parts->config->audit.sync == CONFIG_SYNC_COMMIT) |
                     sem_init(&front->warmed, 0, 0);
    if (front->threads == NULL || sems != 0 || open_events(front) != 0) {
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
        struct epoll_event door = {.events = EPOLLIN, .data.ptr = station};
        if (epoll_ctl(front->pool.epoll, EPOLL_CTL_ADD, station->fd, &event) != 0 ||
            epoll_ctl(front->doors, EPOLL_CTL_ADD, station->fd, &door) != 0) {
            return fault_set(fault, station->config->address, "the listener cannot be served: %s",
                             strerror(errno));
        }
    }
    atomic_store(&front->begun, true);
    return 0;
}

static void leave_stations(struct front *front, bool inherited)
{
    for (size_t i = 0; i < front->station_count; i++) {
        if ((front->stations[i].config->kind == CONFIG_LISTEN_FD) == inherited) {
            (void)epoll_ctl(front->pool.epoll, EPOLL_CTL_DEL, front->stations[i].fd, NULL);
            (void)epoll_ctl(front->doors, EPOLL_CTL_DEL, front->stations[i].fd, NULL);
        }
    }
}

void front_drain(struct front *front, bool backlog)
{
    const uint64_t until = clock_us(CLOCK_MONOTONIC) + front->pool.limits.deadline_us;
    leave_stations(front, true);
    while (backlog && pool_has_backlog(&front->pool) && clock_us(CLOCK_MONOTONIC) < until) {
        (void)usleep(2000);
    }
    leave_stations(front, false);
    pool_drain(&front->pool);
}

bool front_drained(struct front *front)
{
    return pool_count(&front->pool) == 0;
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
        if (front->threads[i].front != NULL) {
            handler_close(front->threads[i].handler);
            free(front->threads[i].bytes);
        }
    }
    const int own[] = {front->timer, front->stop, front->doors};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (own[i] >= 0) {
            (void)close(own[i]);
        }
    }
    pool_close(&front->pool);
    gate_close(&front->gate);
    (void)sem_destroy(&front->warmed);
    refusal_close(&front->refusal);
    free(front->threads);
    free(front->stations);
    free(front);
}
