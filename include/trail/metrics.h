/*
 * Counters in memory that all workers share; they outlive a worker, not the daemon. Sites and
 * listeners have a slot each, which the supervisor claims before it forks; what a slot is called is
 * in its own memory, so that a worker can lie about numbers and about nothing else.
 * Relaxed atomics, no lock, no allocation: on the request path nothing here can fail or wait.
 */
#ifndef TRAIL_METRICS_H
#define TRAIL_METRICS_H

#include "base/reason.h"

#include <stdint.h>

enum {
    METRICS_SITES_MAX = 1024,
    METRICS_SITE_NONE = METRICS_SITES_MAX, /* requests that no site was found for */
    METRICS_SITE_OTHER,                    /* all sites that came when the table was full */
    METRICS_SITE_COUNT,
    METRICS_LISTENERS_MAX = 64,
    METRICS_LISTENER_OTHER = METRICS_LISTENERS_MAX,
    METRICS_LISTENER_COUNT,
    METRICS_CAUSES_MAX = 32,
    METRICS_SEATS_MAX = 256,
    METRICS_OUTCOMES = OUTCOME_ERROR + 1,
    METRICS_BOUNDS = 16,
};

struct metrics;

/* Shared, zeroed memory; before any fork. NULL when there is none. */
struct metrics *metrics_open(void);

/* Unmaps it in this process; NULL is allowed. */
void metrics_close(struct metrics *metrics);

/*
 * The slot of a site or a listener: the one it had before if it ever had one, else a free one, else
 * the slot of all others. Only workers that are forked after this may count there.
 */
unsigned metrics_claim_site(struct metrics *metrics, const char *id);
unsigned metrics_claim_listener(struct metrics *metrics, const char *address);

/* Whose slot it is; NULL for a free one and for those that stand for many. */
const char *metrics_site(const struct metrics *metrics, unsigned slot);
const char *metrics_listener(const struct metrics *metrics, unsigned slot);

/* One decision of a site, and how long after the whole request it came. */
void metrics_count_decision(struct metrics *metrics, unsigned site, enum reason reason,
                            uint64_t us);

/* One connection that the guard closed; `cause` in the order of guard.def. */
void metrics_count_refusal(struct metrics *metrics, unsigned listener, unsigned cause);

/* One record or event that could not be appended. */
void metrics_count_audit_failure(struct metrics *metrics);

/*
 * What a worker has open now is counted at its seat, which is its alone: the supervisor clears it
 * when the worker is dead, so that what died with it is not open for ever.
 */
void metrics_connect(struct metrics *metrics, unsigned seat, unsigned listener);
void metrics_disconnect(struct metrics *metrics, unsigned seat, unsigned listener);
void metrics_begin(struct metrics *metrics, unsigned seat);
void metrics_end(struct metrics *metrics, unsigned seat);
void metrics_clear_seat(struct metrics *metrics, unsigned seat);

/* A sign of life of some worker's request threads, and how many there were; it may lie. */
void metrics_pulse(struct metrics *metrics);
uint64_t metrics_pulses(const struct metrics *metrics);

/*
 * The numbers as they stand. They come from memory that workers can write: none is above INT64_MAX,
 * but nothing else can be said of them. Slots, seats and causes out of range count as 0.
 */
uint64_t metrics_decisions(const struct metrics *metrics, unsigned site, enum reason reason);
uint64_t metrics_refusals(const struct metrics *metrics, unsigned listener, unsigned cause);
uint64_t metrics_audit_failures(const struct metrics *metrics);
uint64_t metrics_accepted(const struct metrics *metrics, unsigned listener);
uint64_t metrics_connections(const struct metrics *metrics, unsigned seat, unsigned listener);
uint64_t metrics_in_flight(const struct metrics *metrics, unsigned seat);

/* How long decisions of one outcome took. */
struct metrics_latency {
    uint64_t counts[METRICS_BOUNDS + 1]; /* each up to its bound; the last one: longer than all */
    uint64_t sum_us;
};

/* One of METRICS_BOUNDS bounds in microseconds, ascending; the last one for what lies past them. */
uint32_t metrics_bound_us(unsigned bound);

void metrics_latency(const struct metrics *metrics, enum outcome outcome,
                     struct metrics_latency *out);

#endif
