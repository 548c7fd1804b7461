#include "serve/connection.h"

#include "serve/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READS_MAX = 4, /* of one connection before the others */
    SEND_BYTES = 64 * 1024,
    REST_MAX = 64 * 1024,       /* as much as is read at once */
    IDLE_BYTES_MAX = 16 * 1024, /* of memory that an idle connection keeps for its next request */
};

/*
 * What the connections of a listening socket inherit. The kernel would let the answers that a peer
 * does not read grow to megabytes; a kept connection whose host went away without a word ends some
 * day.
 */
static void set_tcp_options(int fd)
{
    const int on = 1;
    const int room = SEND_BYTES;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* only a delay if not */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static bool is_tcp(int fd)
{
    int domain = AF_UNIX;
    socklen_t len = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain != AF_UNIX;
}

int pool_open(struct pool *pool, struct station *stations, size_t station_count,
              const struct pool_limits *limits)
{
    *pool = (struct pool){.stations = stations, .station_count = station_count, .limits = *limits};
    pool->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (pool->epoll < 0) {
        return -1;
    }
    if (pthread_mutex_init(&pool->lock, NULL) != 0) {
        (void)close(pool->epoll);
        return -1;
    }
    for (size_t i = 0; i < station_count; i++) {
        if (is_tcp(stations[i].fd)) {
            set_tcp_options(stations[i].fd);
        }
    }
    return 0;
}

void station_open(struct station *station, int fd, const struct config_listener *listener,
                  size_t params_max)
{
    *station = (struct station){
        .source = SOURCE_LISTENER,
        .fd = fd,
        .config = listener,
        .rules = {.params_max = params_max,
                  .also = {span_of(listener->forwarded.method), span_of(listener->forwarded.uri),
                           span_of(listener->forwarded.peer), span_of(listener->repeat_id)}}};
    for (size_t cause = 0; cause < GUARD_COUNT; cause++) {
        station->refusals[cause].per_s = 1;
        station->refusals[cause].burst = 5;
    }
}

void station_tell(struct station *station, enum guard_cause cause, const char *culprit,
                  uint64_t now_us)
{
    char quoted[128];
    char more[48] = "";
    uint32_t skipped = 0;
    if (!log_rate_allow(&station->refusals[cause], now_us / 1000, &skipped)) {
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

static void enqueue(struct queue *queue, struct connection *c)
{
    c->queue = queue;
    c->before = queue->last;
    c->after = NULL;
    if (queue->last != NULL) {
        queue->last->after = c;
    } else {
        queue->first = c;
    }
    queue->last = c;
    queue->left++;
}

static void dequeue(struct connection *c)
{
    struct queue *queue = c->queue;
    if (queue == NULL) {
        return;
    }
    if (c->before != NULL) {
        c->before->after = c->after;
    } else {
        queue->first = c->after;
    }
    if (c->after != NULL) {
        c->after->before = c->before;
    } else {
        queue->last = c->before;
    }
    queue->left -= c->ended == GUARD_NONE ? 1 : 0;
    c->queue = NULL;
    c->before = c->after = NULL;
}

static void connection_free(struct connection *c)
{
    (void)close(c->fd);
    guard_clear(&c->guard);
    buf_clear(&c->rest);
    free(c);
}

static void free_queue(struct queue *queue)
{
    struct connection *c = queue->first;
    while (c != NULL) {
        struct connection *after = c->after;
        connection_free(c);
        c = after;
    }
    *queue = (struct queue){0};
}

void pool_close(struct pool *pool)
{
    for (size_t i = 0; i < pool->station_count; i++) {
        free_queue(&pool->stations[i].waiting);
        free_queue(&pool->stations[i].idle);
        free_queue(&pool->stations[i].ready);
    }
    (void)pthread_mutex_destroy(&pool->lock);
    (void)close(pool->epoll);
}

/* Its owner will see an end of input, or of output. */
static void end(struct connection *c, enum guard_cause cause, int how)
{
    c->ended = cause;
    c->queue->left--;
    (void)shutdown(c->fd, how);
}

/* The longest-waiting one that nobody has ended yet. */
static struct connection *longest(const struct queue *queue)
{
    struct connection *c = queue->first;
    while (c != NULL && c->ended != GUARD_NONE) {
        c = c->after;
    }
    return c;
}

static void give_way(const struct station *station)
{
    const struct queue *waiting = &station->waiting;
    const struct queue *idle = &station->idle;
    struct connection *c = longest(waiting->left >= idle->left ? waiting : idle);
    if (c != NULL) {
        c->gave_way = c->queue == idle;
        end(c, GUARD_CROWDED, c->gave_way ? SHUT_RD : SHUT_RDWR);
    }
}

/* Out of descriptors or memory: whoever has most connections gives one. */
static void give_way_any(struct pool *pool)
{
    const struct station *most = &pool->stations[0];
    (void)pthread_mutex_lock(&pool->lock);
    for (size_t i = 1; i < pool->station_count; i++) {
        most = pool->stations[i].open > most->open ? &pool->stations[i] : most;
    }
    give_way(most);
    (void)pthread_mutex_unlock(&pool->lock);
}

static int accept_one(struct pool *pool, struct station *station, struct sockaddr_storage *peer)
{
    socklen_t len = sizeof *peer;
    const int fd =
        accept4(station->fd, (struct sockaddr *)peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        give_way_any(pool);
        (void)usleep(1000); /* the listener stays readable: not a busy loop */
    }
    if (fd >= pool->limits.descriptors) {
        give_way_any(pool);
    }
    return fd;
}

/*
 * Counts a connection before it is accepted. A thread may be held up right there, for as long as
 * the machine is busy: a drain must wait for what it then gets, and nothing is accepted after that.
 */
static bool reserve(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    const bool accepts = !pool->draining;
    pool->open += accepts ? 1 : 0;
    (void)pthread_mutex_unlock(&pool->lock);
    return accepts;
}

static void unreserve(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->open--;
    (void)pthread_mutex_unlock(&pool->lock);
}

struct connection *pool_accept(struct pool *pool, struct station *station, uint64_t now_us,
                               enum guard_cause *cause)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    *cause = GUARD_NONE;
    if (!reserve(pool)) {
        return NULL;
    }
    const int fd = accept_one(pool, station, &peer);
    if (fd < 0) {
        unreserve(pool);
        return NULL;
    }
    const bool admitted = listener_admits(station->config, fd, &peer);
    struct connection *c = admitted ? calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        *cause = admitted ? GUARD_MEMORY : GUARD_PEER;
        (void)close(fd);
        unreserve(pool);
        return NULL;
    }
    c->source = SOURCE_CONNECTION;
    c->fd = fd;
    c->station = station;
    c->since_us = now_us;
    c->rest.max = REST_MAX;
    guard_start(&c->guard, &station->rules);
    (void)pthread_mutex_lock(&pool->lock);
    station->open++;
    if (station->open - station->ready.left > pool->limits.connections) {
        give_way(station);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return c;
}

static bool is_idle(const struct connection *c)
{
    return c->kept && c->guard.silent && c->rest.len == 0;
}

/* Many idle connections must not hold the memory of the largest request that each has seen. */
static void trim(struct connection *c)
{
    if (c->guard.params.capacity > IDLE_BYTES_MAX) {
        buf_clear(&c->guard.params);
    }
    if (c->rest.capacity > IDLE_BYTES_MAX) {
        buf_clear(&c->rest);
    }
}

static uint32_t awaited_events(const struct connection *c)
{
    if (c->complete) {
        return EPOLLOUT | EPOLLONESHOT; /* its peer may have closed its side already */
    }
    const uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
    return c->rest.len > 0 ? events | EPOLLOUT : events; /* at once, but after the others */
}

int pool_park(struct pool *pool, struct connection *c)
{
    struct epoll_event event = {.events = awaited_events(c), .data.ptr = c};
    const bool idle = is_idle(c);
    if (idle) {
        trim(c);
    }
    (void)pthread_mutex_lock(&pool->lock);
    if (idle && c->queue == &c->station->waiting && c->ended == GUARD_NONE) {
        dequeue(c); /* the empty STDIN of the request before has come; nothing is begun */
    }
    if (c->queue == NULL) {
        enqueue(idle ? &c->station->idle : &c->station->waiting, c);
    }
    const int op = c->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    c->registered = true;
    int r = 0;
    if (pool->draining && idle) {
        (void)shutdown(c->fd, SHUT_RD); /* a request that is on its way already is still answered */
    }
    /* Once armed, another thread may take it: nothing of it is touched after this call succeeds. */
    if (epoll_ctl(pool->epoll, op, c->fd, &event) != 0) {
        dequeue(c);
        r = -1;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return r;
}

/* An idle one's input was ended: what was on its way is still answered, and like any other. */
static void forgive(struct connection *c)
{
    c->ended = c->ended == GUARD_EMPTY || c->gave_way ? GUARD_NONE : c->ended;
}

void pool_take(struct pool *pool, struct connection *c, uint64_t now_us)
{
    (void)pthread_mutex_lock(&pool->lock);
    if (c->queue == &c->station->idle) {
        dequeue(c);
        forgive(c);
        c->since_us = now_us; /* its next request begins now */
    }
    (void)pthread_mutex_unlock(&pool->lock);
}

enum guard_cause pool_leave(struct pool *pool, struct connection *c)
{
    if (c->queue != NULL) {
        (void)pthread_mutex_lock(&pool->lock);
        dequeue(c);
        (void)pthread_mutex_unlock(&pool->lock);
    }
    forgive(c); /* only queued ones are ended */
    return c->ended;
}

int pool_line_up(struct pool *pool, struct connection *c)
{
    struct station *station = c->station;
    int r = -1;
    (void)pthread_mutex_lock(&pool->lock);
    if (station->ready.left < pool->limits.ready) {
        enqueue(&station->ready, c);
        (void)atomic_fetch_add(&pool->ready, 1);
        r = 0;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return r;
}

bool pool_has_ready(const struct pool *pool)
{
    return atomic_load(&pool->ready) > 0;
}

/* Under the lock: the first of a line is the caller's now. */
static struct connection *leave_line(struct pool *pool, struct connection *c)
{
    if (c != NULL) {
        dequeue(c);
        (void)atomic_fetch_sub(&pool->ready, 1);
    }
    return c;
}

struct connection *pool_next(struct pool *pool)
{
    struct connection *c = NULL;
    (void)pthread_mutex_lock(&pool->lock);
    while (c == NULL && pool_has_ready(pool)) {
        c = pool->stations[pool->turn].ready.first;
        pool->turn = (pool->turn + 1) % pool->station_count;
    }
    c = leave_line(pool, c);
    (void)pthread_mutex_unlock(&pool->lock);
    return c;
}

struct connection *pool_next_late(struct pool *pool, uint64_t now_us)
{
    struct connection *c = NULL;
    (void)pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; c == NULL && i < pool->station_count; i++) {
        c = pool->stations[i].ready.first;
        c = c != NULL && now_us > c->since_us + pool->limits.deadline_us ? c : NULL;
    }
    c = leave_line(pool, c);
    (void)pthread_mutex_unlock(&pool->lock);
    return c;
}

void pool_drop(struct pool *pool, struct connection *c)
{
    (void)pthread_mutex_lock(&pool->lock);
    dequeue(c);
    pool->open--;
    c->station->open--;
    (void)pthread_mutex_unlock(&pool->lock);
    connection_free(c);
}

/* What waits the longest stands first, so those that are late do. */
static void sweep_waiting(const struct pool *pool, struct queue *queue, uint64_t now_us)
{
    for (struct connection *c = queue->first;
         c != NULL && now_us > c->since_us + pool->limits.deadline_us; c = c->after) {
        if (c->ended == GUARD_NONE) {
            end(c, c->complete ? GUARD_ANSWER : GUARD_DEADLINE, SHUT_RDWR);
        }
    }
}

static void end_idle(struct queue *queue)
{
    for (struct connection *c = queue->first; c != NULL; c = c->after) {
        if (c->ended == GUARD_NONE) {
            end(c, GUARD_EMPTY, SHUT_RD);
        }
    }
}

void pool_sweep(struct pool *pool, uint64_t now_us)
{
    (void)pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < pool->station_count; i++) {
        sweep_waiting(pool, &pool->stations[i].waiting, now_us);
        if (pool->draining) {
            end_idle(&pool->stations[i].idle);
        }
    }
    (void)pthread_mutex_unlock(&pool->lock);
}

void pool_drain(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->draining = true;
    (void)pthread_mutex_unlock(&pool->lock);
    pool_sweep(pool, 0);
}

bool pool_has_backlog(const struct pool *pool)
{
    bool waits = false;
    for (size_t i = 0; i < pool->station_count; i++) {
        const struct station *station = &pool->stations[i];
        waits = waits || (station->config->kind != CONFIG_LISTEN_FD && listener_waits(station->fd));
    }
    return waits;
}

size_t pool_count(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    const size_t count = pool->open;
    (void)pthread_mutex_unlock(&pool->lock);
    return count;
}

enum input { INPUT_NONE, INPUT_SOME, INPUT_END };

/* What came behind the request before, or what the socket has now; borrowed until the next call. */
static enum input read_input(struct connection *c, unsigned char *buffer, size_t size,
                             struct span *bytes)
{
    if (c->rest.len > 0) {
        *bytes = span_make(c->rest.ptr + c->rest_at, c->rest.len - c->rest_at);
        return INPUT_SOME;
    }
    ssize_t n;
    do {
        n = recv(c->fd, buffer, size, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        *bytes = span_make(buffer, (size_t)n);
        return INPUT_SOME;
    }
    return n < 0 && errno == EAGAIN ? INPUT_NONE : INPUT_END;
}

/* Keeps what the guard has not used, and forgets what it has. */
static int keep_rest(struct connection *c, struct span bytes, size_t used)
{
    if (c->rest.len > 0) {
        c->rest_at += used;
        if (c->rest_at == c->rest.len) {
            buf_reset(&c->rest);
            c->rest_at = 0;
        }
    } else if (used < bytes.len) {
        buf_append(&c->rest, bytes.ptr + used, bytes.len - used);
    }
    return c->rest.failed ? -1 : 0;
}

enum guard_state connection_read(struct connection *c, unsigned char *buffer, size_t size,
                                 enum guard_cause *cause)
{
    for (int reads = 0; reads < READS_MAX; reads++) {
        struct span bytes;
        size_t used = 0;
        switch (read_input(c, buffer, size, &bytes)) {
        case INPUT_NONE:
            return GUARD_MORE;
        case INPUT_END:
            *cause = c->gave_way ? GUARD_CROWDED : guard_end(&c->guard);
            return GUARD_BAD;
        case INPUT_SOME:
            break;
        }
        const enum guard_state state = guard_read(&c->guard, bytes, &used, cause);
        if (state == GUARD_BAD) {
            return state;
        }
        if (keep_rest(c, bytes, used) != 0) {
            *cause = GUARD_MEMORY;
            return GUARD_BAD;
        }
        if (state == GUARD_DONE) {
            return state;
        }
    }
    return GUARD_MORE;
}

bool connection_has_room(const struct connection *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLOUT};
    return !c->kept || (poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR | POLLHUP)) != 0);
}
