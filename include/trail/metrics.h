/* Counters in memory that all workers share; they outlive a worker, not the daemon. */
#ifndef TRAIL_METRICS_H
#define TRAIL_METRICS_H

#include "base/reason.h"

#include <stdatomic.h>
#include <stdint.h>

enum { METRICS_GUARD_MAX = 32 };

struct metrics {
    _Atomic uint64_t reasons[REASON_COUNT];
    _Atomic uint64_t guard[METRICS_GUARD_MAX]; /* by cause, in the order of guard.def */
    _Atomic uint64_t connections;              /* accepted since the start */
    _Atomic uint64_t worker_deaths;            /* that nobody asked for */
    _Atomic uint64_t pulse; /* rises as long as some worker's request threads turn */
};

/* Shared, zeroed memory for one struct metrics; NULL when there is none. */
struct metrics *metrics_open(void);

/* Unmaps it in this process; NULL is allowed. */
void metrics_close(struct metrics *metrics);

/* Adds one. */
static inline void metrics_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
