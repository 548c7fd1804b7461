#include "serve/connection.h"

#include "serve/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REST_MAX = 128 * 1024 };

int pool_open(struct pool *pool, size_t cap, uint64_t deadline_us)
{
    *pool = (struct pool){.cap = cap, .deadline_us = deadline_us};
    pool->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (pool->epoll < 0) {
        return -1;
    }
    if (pthread_mutex_init(&pool->lock, NULL) != 0) {
        (void)close(pool->epoll);
        return -1;
    }
    return 0;
}

static void unlink_parked(struct pool *pool, struct connection *c)
{
    if (c->before != NULL) {
        c->before->after = c->after;
    } else {
        pool->first = c->after;
    }
    if (c->after != NULL) {
        c->after->before = c->before;
    } else {
        pool->last = c->before;
    }
    c->before = NULL;
    c->after = NULL;
    c->parked = false;
}

static void connection_free(struct connection *c)
{
    (void)close(c->fd);
    guard_clear(&c->guard);
    buf_clear(&c->rest);
    free(c);
}

void pool_close(struct pool *pool)
{
    struct connection *c = pool->first;
    while (c != NULL) {
        struct connection *after = c->after;
        connection_free(c);
        c = after;
    }
    (void)pthread_mutex_destroy(&pool->lock);
    (void)close(pool->epoll);
}

/* Ends the longest-waiting parked connection of a listener (of any: NULL). Its owner will see an
 * end of input. */
static void give_way(struct pool *pool, const struct station *station)
{
    struct connection *c = pool->first;
    while (c != NULL && (c->ended != GUARD_NONE || (station != NULL && c->station != station))) {
        c = c->after;
    }
    if (c != NULL) {
        c->ended = GUARD_CROWDED;
        (void)shutdown(c->fd, SHUT_RDWR);
    }
}

static int accept_one(struct pool *pool, struct station *station, struct sockaddr_storage *peer)
{
    socklen_t len = sizeof *peer;
    const int fd =
        accept4(station->fd, (struct sockaddr *)peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        (void)pthread_mutex_lock(&pool->lock);
        give_way(pool, NULL);
        (void)pthread_mutex_unlock(&pool->lock);
        (void)usleep(1000); /* the listener stays readable: not a busy loop */
    }
    if (fd >= 0 && peer->ss_family != AF_UNIX) {
        const int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* only a delay if not */
    }
    return fd;
}

struct connection *pool_accept(struct pool *pool, struct station *station, uint64_t now_us,
                               size_t request_max, bool *refused)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    *refused = false;
    const int fd = accept_one(pool, station, &peer);
    if (fd < 0) {
        return NULL;
    }
    if (!listener_admits(station->config, fd, &peer)) {
        *refused = true;
        (void)close(fd);
        return NULL;
    }
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL) {
        (void)close(fd);
        return NULL;
    }
    c->source = SOURCE_CONNECTION;
    c->fd = fd;
    c->station = station;
    c->since_us = now_us;
    c->rest.max = REST_MAX;
    guard_start(&c->guard, request_max);
    (void)pthread_mutex_lock(&pool->lock);
    pool->open++;
    station->open++;
    if (station->open > pool->cap) {
        give_way(pool, station);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return c;
}

int pool_park(struct pool *pool, struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = c};
    if (c->rest.len > 0) {
        event.events |= EPOLLOUT; /* its bytes are here already: come back after the others */
    }
    (void)pthread_mutex_lock(&pool->lock);
    c->parked = true;
    c->before = pool->last;
    if (pool->last != NULL) {
        pool->last->after = c;
    } else {
        pool->first = c;
    }
    pool->last = c;
    const int op = c->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    c->registered = true;
    int r = 0;
    if (pool->draining && c->kept && c->guard.silent && c->rest.len == 0) {
        (void)shutdown(c->fd, SHUT_RD); /* a request that is on its way already is still answered */
    }
    /* Once armed, another thread may take it: nothing of it is touched after this call succeeds. */
    if (epoll_ctl(pool->epoll, op, c->fd, &event) != 0) {
        unlink_parked(pool, c);
        r = -1;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return r;
}

void pool_take(struct pool *pool, struct connection *c, uint64_t now_us)
{
    (void)pthread_mutex_lock(&pool->lock);
    unlink_parked(pool, c);
    (void)pthread_mutex_unlock(&pool->lock);
    if (c->kept && c->guard.silent) {
        c->since_us = now_us; /* its next request begins now */
    }
}

void pool_drop(struct pool *pool, struct connection *c)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->open--;
    c->station->open--;
    (void)pthread_mutex_unlock(&pool->lock);
    connection_free(c);
}

void pool_sweep(struct pool *pool, uint64_t now_us)
{
    (void)pthread_mutex_lock(&pool->lock);
    for (struct connection *c = pool->first; c != NULL; c = c->after) {
        const bool idle = c->kept && c->guard.silent;
        const bool late = !idle && now_us > c->since_us + pool->deadline_us;
        if (c->ended == GUARD_NONE && (late || (idle && pool->draining))) {
            c->ended = late ? GUARD_DEADLINE : GUARD_EMPTY;
            (void)shutdown(c->fd, late ? SHUT_RDWR : SHUT_RD);
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

size_t pool_count(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    const size_t count = pool->open;
    (void)pthread_mutex_unlock(&pool->lock);
    return count;
}
