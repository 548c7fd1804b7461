/*
 * One worker process: opens the engine and the front, says that it is ready, waits for the word to
 * begin, serves, and drains when told. It talks with its supervisor over one socket pair.
 */
#ifndef SERVE_WORKER_H
#define SERVE_WORKER_H

#include "auth/replay.h"
#include "base/fault.h"
#include "serve/generation.h"
#include "trail/audit.h"
#include "trail/budget.h"
#include "trail/metrics.h"

/*
 * What a worker says: once, when it is ready (status 0, and what its sandbox lacks) or cannot start
 * (the exit status and why).
 */
struct worker_report {
    int status;
    struct fault fault;
};

/* What it is told, one byte each. */
enum worker_word {
    WORKER_BEGIN = 'B',
    WORKER_DRAIN = 'D', /* another generation accepts from now on */
    WORKER_STOP = 'S',  /* nobody else will accept: serve what waits, too */
};

struct worker_parts {
    const struct generation *generation;
    struct replay *replay;
    struct audit *audit;
    struct metrics *metrics;
    struct budget *budget;
    unsigned workers;
    unsigned seat; /* where metrics count what we have open */
    int control;   /* our end of the pair */
};

/* Runs the worker and returns its exit status; the supervisor's death counts as WORKER_STOP. */
int worker_run(const struct worker_parts *parts);

#endif
