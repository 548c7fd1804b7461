/*
 * The connections of one worker: accepted, read by whichever thread finds them ready, parked while
 * they wait. Only the thread that took a connection touches it; others may shut its socket down,
 * never close it.
 */
#ifndef SERVE_CONNECTION_H
#define SERVE_CONNECTION_H

#include "conf/config.h"
#include "serve/guard.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What an epoll event is about; the first member of everything that is registered. */
enum source { SOURCE_LISTENER, SOURCE_CONNECTION, SOURCE_TIMER, SOURCE_STOP };

/* A listening socket as one worker serves it. */
struct station {
    enum source source;
    int fd;
    const struct config_listener *config;
    size_t open; /* connections, under the pool's lock */
};

struct connection {
    enum source source;
    int fd;
    struct station *station;
    struct guard guard;
    struct buf rest;   /* bytes of the next request that came with this one */
    uint64_t since_us; /* when this request began to be awaited, monotonic */
    bool kept;         /* has been answered before: may be idle for as long as there is room */
    bool registered;   /* known to epoll */
    bool parked;
    enum guard_cause ended;    /* why somebody shut it down, or GUARD_NONE */
    struct connection *before; /* parked ones, the longest-waiting first */
    struct connection *after;
};

struct pool {
    int epoll;
    pthread_mutex_t lock;
    struct connection *first;
    struct connection *last;
    size_t open;
    size_t cap; /* for each listener */
    uint64_t deadline_us;
    atomic_bool draining;
};

int pool_open(struct pool *pool, size_t cap, uint64_t deadline_us);
void pool_close(struct pool *pool);

/*
 * Accepts one connection; NULL when there is none, or it may not connect (`*refused`), or there is
 * no room for it. Over the cap the longest-waiting parked connection is shut down.
 */
struct connection *pool_accept(struct pool *pool, struct station *station, uint64_t now_us,
                               size_t request_max, bool *refused);

/*
 * Parks a connection until it is readable (or writable, so at once, when it has a rest); the caller
 * must not touch it after that. -1: it could not be registered and is still the caller's.
 */
int pool_park(struct pool *pool, struct connection *c);

/* Takes a parked connection back on its event. */
void pool_take(struct pool *pool, struct connection *c, uint64_t now_us);

/* Closes the socket and frees; the caller must own it. */
void pool_drop(struct pool *pool, struct connection *c);

/* Shuts down what waited past its deadline; while draining it ends idle kept connections, too. */
void pool_sweep(struct pool *pool, uint64_t now_us);

/* From now on idle connections are ended, after what is on its way on them was answered. */
void pool_drain(struct pool *pool);

/* How many connections are open, parked or being served. */
size_t pool_count(struct pool *pool);

#endif
