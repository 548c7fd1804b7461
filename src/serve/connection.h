/*
 * The connections of one worker: accepted, read by whichever thread finds them ready, parked while
 * they wait. Only the thread that took a connection touches it; others may shut its socket down,
 * never close it.
 */
#ifndef SERVE_CONNECTION_H
#define SERVE_CONNECTION_H

#include "base/log.h"
#include "conf/config.h"
#include "serve/guard.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What an epoll event is about; the first member of everything that is registered. */
enum source { SOURCE_LISTENER, SOURCE_CONNECTION, SOURCE_TIMER, SOURCE_STOP };

/* Connections in the order in which they began to wait. */
struct queue {
    struct connection *first;
    struct connection *last;
    size_t left; /* of them, how many nobody has ended yet */
};

/* A listening socket as one worker serves it. */
struct station {
    enum source source;
    int fd;
    const struct config_listener *config;
    unsigned slot; /* where it is counted */
    struct guard_rules rules;
    struct log_rate refusals[GUARD_COUNT]; /* a budget of lines for each cause */
    /* Under the pool's lock: */
    size_t open;
    struct queue waiting; /* requests that are not complete, also while a thread reads on */
    struct queue idle;    /* kept connections between two requests */
    struct queue ready;   /* complete requests, in the order they came */
};

struct connection {
    enum source source;
    int fd;
    struct station *station;
    struct guard guard;
    struct buf rest; /* what came behind a request, from rest_at on */
    size_t rest_at;
    uint64_t since_us; /* when this request began to be awaited, monotonic */
    bool kept;         /* has been answered before: may be idle for as long as there is room */
    bool complete;     /* a request is there; it waits for room for its answer */
    bool registered;   /* known to epoll */
    bool gave_way;     /* was idle when a newer one needed its room; its input is over */
    /* Under the pool's lock: */
    struct queue *queue;    /* where it waits, or NULL */
    enum guard_cause ended; /* why somebody shut it down, or GUARD_NONE */
    struct connection *before;
    struct connection *after;
};

/* Makes a station of a listening socket; `listener` must outlive it. */
void station_open(struct station *station, int fd, const struct config_listener *listener,
                  size_t params_max);

/*
 * Tells of a connection that is closed unanswered, at a bounded rate for each listener and cause: a
 * flood of one kind hides no other.
 */
void station_tell(struct station *station, enum guard_cause cause, const char *culprit,
                  uint64_t now_us);

/* What a pool may hold; each for one listener. */
struct pool_limits {
    size_t connections; /* besides those whose requests are lined up */
    size_t ready;       /* complete requests that wait for a thread */
    int descriptors; /* of the process: a connection with a higher number makes another give way */
    uint64_t deadline_us;
};

struct pool {
    int epoll;
    pthread_mutex_t lock;
    struct station *stations; /* borrowed */
    size_t station_count;
    size_t open;
    atomic_size_t ready; /* complete requests that are lined up; changed under the lock */
    size_t turn;         /* the station whose line is served next */
    struct pool_limits limits;
    atomic_bool draining;
};

/* `stations` must outlive the pool. */
int pool_open(struct pool *pool, struct station *stations, size_t station_count,
              const struct pool_limits *limits);
void pool_close(struct pool *pool);

/*
 * Accepts one connection; NULL when there is none, or it may not connect, or there is no room for
 * it (`*cause` says which of the two, else NONE). Over the cap another one gives way: of those
 * whose request is incomplete and of those that are idle the longest-waiting one of whichever are
 * more. So neither silence nor idleness takes more than half of the room from those that speak. A
 * request that is on its way on an idle one is still answered.
 */
struct connection *pool_accept(struct pool *pool, struct station *station, uint64_t now_us,
                               enum guard_cause *cause);

/*
 * Parks a connection until it is readable (with a rest at once; with a complete request until it is
 * writable); the caller must not touch it after that. -1: it could not be registered and is still
 * the caller's.
 */
int pool_park(struct pool *pool, struct connection *c);

/* Takes a parked connection back on its event. */
void pool_take(struct pool *pool, struct connection *c, uint64_t now_us);

/*
 * From here on nobody ends it: its request is about to be served, or it to be dropped. Returns why
 * somebody already has (then it cannot be answered any more), or NONE.
 */
enum guard_cause pool_leave(struct pool *pool, struct connection *c);

/*
 * Lines up a complete request that has left the waiting ones; it is another thread's from then on.
 * -1: its listener has too many already, so that it is to be refused at once.
 */
int pool_line_up(struct pool *pool, struct connection *c);

/*
 * The next request, which is the caller's now; NULL: none. The listeners take turns, each with the
 * one that has been lined up for longest, so that a crowd at one keeps nobody else waiting.
 */
struct connection *pool_next(struct pool *pool);

/* Whether a request is lined up; another thread may have it a moment later. */
bool pool_has_ready(const struct pool *pool);

/* One that is lined up and has waited past its deadline; NULL: none. */
struct connection *pool_next_late(struct pool *pool, uint64_t now_us);

/* Closes the socket and frees; the caller must own it. */
void pool_drop(struct pool *pool, struct connection *c);

/* Shuts down what waited past its deadline; while draining it ends idle kept connections, too. */
void pool_sweep(struct pool *pool, uint64_t now_us);

/* From now on none is accepted, and idle ones are ended after what is on its way on them was
 * answered. */
void pool_drain(struct pool *pool);

/*
 * Reads with `buffer` until a request is complete: DONE. MORE: its peer, or the other connections,
 * come first now. BAD: `*cause` says why it must go.
 */
enum guard_state connection_read(struct connection *c, unsigned char *buffer, size_t size,
                                 enum guard_cause *cause);

/*
 * Whether the whole answer will fit: the answers before may still lie there unread. libfcgi cannot
 * wait, so a request whose answer has no room waits itself.
 */
bool connection_has_room(const struct connection *c);

/* Whether somebody waits to be accepted. */
bool pool_has_backlog(const struct pool *pool);

/* How many connections are open: being accepted, parked or being served. */
size_t pool_count(struct pool *pool);

#endif
