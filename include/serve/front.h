/*
 * The front of one worker: takes connections, lets the guard read each request whole, hands what
 * passed to libfcgi through a private pipe, has the engine decide, and writes the one complete
 * answer.
 */
#ifndef SERVE_FRONT_H
#define SERVE_FRONT_H

#include "base/fault.h"
#include "conf/config.h"
#include "serve/engine.h"
#include "trail/metrics.h"

#include <stdbool.h>
#include <stddef.h>

struct front;

/* A listening descriptor, what the configuration says of it, and where it is counted. */
struct front_listener {
    int fd;
    const struct config_listener *config;
    unsigned slot; /* of metrics */
};

struct front_parts {
    const struct config *config;
    const struct engine *engine;
    struct metrics *metrics;
    const struct front_listener *listeners;
    size_t listener_count;
    unsigned workers; /* how many of us share the machine */
    unsigned seat;    /* ours, for metrics */
    int descriptors;  /* how many a process of us may have */
};

/* Starts the request threads and waits until each has warmed up; nothing is accepted yet. */
int front_open(const struct front_parts *parts, struct front **out, struct fault *fault);

/* Begins to accept. -1 and errno's words in the fault. */
int front_begin(struct front *front, struct fault *fault);

/*
 * Stops accepting. With `backlog` what waits in the queues of our own listeners is still accepted
 * first (nobody else will); without it the next generation has them. The queues of inherited
 * sockets stay as they are: their owner hands them on. Idle connections end, requests under way are
 * finished.
 */
void front_drain(struct front *front, bool backlog);

/* Whether a drain is over: nothing waits, no connection is open. */
bool front_drained(struct front *front);

/* Stops the threads and frees; NULL is allowed. */
void front_close(struct front *front);

#endif
