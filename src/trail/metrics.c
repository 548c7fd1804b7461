#include "trail/metrics.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * A request adds to three lines at most: its site's reasons, its outcome's histogram, its worker's
 * seat. Each begins on a line of its own, so that two sites, or two workers, do not fight for one.
 */
enum { LINE_BYTES = 64 };

struct site {
    alignas(LINE_BYTES) _Atomic uint64_t reasons[REASON_COUNT];
};

struct outcome_times {
    alignas(LINE_BYTES) _Atomic uint64_t counts[METRICS_BOUNDS + 1];
    _Atomic uint64_t sum_us;
};

struct listener {
    alignas(LINE_BYTES) _Atomic uint64_t accepted;
    _Atomic uint64_t refusals[METRICS_CAUSES_MAX];
};

struct seat {
    alignas(LINE_BYTES) _Atomic uint64_t in_flight;
    _Atomic uint64_t connections[METRICS_LISTENER_COUNT];
};

struct shared {
    struct site sites[METRICS_SITE_COUNT];
    struct outcome_times outcomes[METRICS_OUTCOMES];
    struct listener listeners[METRICS_LISTENER_COUNT];
    struct seat seats[METRICS_SEATS_MAX];
    alignas(LINE_BYTES) _Atomic uint64_t audit_failures;
    _Atomic uint64_t pulses;
};

struct metrics {
    struct shared *shared;
    char *sites[METRICS_SITES_MAX]; /* in the order in which they were claimed */
    char *listeners[METRICS_LISTENERS_MAX];
};

static const uint32_t bounds_us[METRICS_BOUNDS] = {50,     100,     200,     500,    1000,   2000,
                                                   5000,   10000,   20000,   50000,  100000, 200000,
                                                   500000, 1000000, 2000000, 5000000};

struct metrics *metrics_open(void)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL) {
        return NULL;
    }
    void *memory = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        free(metrics);
        return NULL;
    }
    metrics->shared = memory;
    return metrics;
}

void metrics_close(struct metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    for (size_t i = 0; i < METRICS_SITES_MAX; i++) {
        free(metrics->sites[i]);
    }
    for (size_t i = 0; i < METRICS_LISTENERS_MAX; i++) {
        free(metrics->listeners[i]);
    }
    (void)munmap(metrics->shared, sizeof *metrics->shared);
    free(metrics);
}

/* Where `text` stands, or is put now; `count` when there is no room for it. */
static unsigned claim(char **texts, unsigned count, const char *text)
{
    unsigned slot = 0;
    while (slot < count && texts[slot] != NULL && strcmp(texts[slot], text) != 0) {
        slot++;
    }
    if (slot < count && texts[slot] == NULL) {
        texts[slot] = strdup(text);
        slot = texts[slot] != NULL ? slot : count;
    }
    return slot;
}

unsigned metrics_claim_site(struct metrics *metrics, const char *id)
{
    const unsigned slot = claim(metrics->sites, METRICS_SITES_MAX, id);
    return slot < METRICS_SITES_MAX ? slot : METRICS_SITE_OTHER;
}

unsigned metrics_claim_listener(struct metrics *metrics, const char *address)
{
    return claim(metrics->listeners, METRICS_LISTENERS_MAX, address);
}

const char *metrics_site(const struct metrics *metrics, unsigned slot)
{
    return slot < METRICS_SITES_MAX ? metrics->sites[slot] : NULL;
}

const char *metrics_listener(const struct metrics *metrics, unsigned slot)
{
    return slot < METRICS_LISTENERS_MAX ? metrics->listeners[slot] : NULL;
}

static void add(_Atomic uint64_t *to, uint64_t value)
{
    (void)atomic_fetch_add_explicit(to, value, memory_order_relaxed);
}

static void subtract_one(_Atomic uint64_t *from)
{
    (void)atomic_fetch_sub_explicit(from, 1, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *from)
{
    const uint64_t value = atomic_load_explicit(from, memory_order_relaxed);
    return value < INT64_MAX ? value : INT64_MAX;
}

void metrics_count_decision(struct metrics *metrics, unsigned site, enum reason reason, uint64_t us)
{
    struct outcome_times *times = &metrics->shared->outcomes[reason_info(reason)->outcome];
    size_t bucket = 0;
    while (bucket < METRICS_BOUNDS && us > bounds_us[bucket]) {
        bucket++;
    }
    add(&metrics->shared->sites[site].reasons[reason], 1);
    add(&times->counts[bucket], 1);
    add(&times->sum_us, us);
}

void metrics_count_refusal(struct metrics *metrics, unsigned listener, unsigned cause)
{
    add(&metrics->shared->listeners[listener].refusals[cause], 1);
}

void metrics_count_audit_failure(struct metrics *metrics)
{
    add(&metrics->shared->audit_failures, 1);
}

void metrics_connect(struct metrics *metrics, unsigned seat, unsigned listener)
{
    add(&metrics->shared->listeners[listener].accepted, 1);
    add(&metrics->shared->seats[seat].connections[listener], 1);
}

void metrics_disconnect(struct metrics *metrics, unsigned seat, unsigned listener)
{
    subtract_one(&metrics->shared->seats[seat].connections[listener]);
}

void metrics_begin(struct metrics *metrics, unsigned seat)
{
    add(&metrics->shared->seats[seat].in_flight, 1);
}

void metrics_end(struct metrics *metrics, unsigned seat)
{
    subtract_one(&metrics->shared->seats[seat].in_flight);
}

void metrics_pulse(struct metrics *metrics)
{
    atomic_fetch_add_explicit(&metrics->shared->pulses, 1, memory_order_relaxed);
}

uint64_t metrics_pulses(const struct metrics *metrics)
{
    return atomic_load_explicit(&metrics->shared->pulses, memory_order_relaxed);
}

void metrics_clear_seat(struct metrics *metrics, unsigned seat)
{
    struct seat *cleared = &metrics->shared->seats[seat];
    atomic_store_explicit(&cleared->in_flight, 0, memory_order_relaxed);
    for (size_t i = 0; i < METRICS_LISTENER_COUNT; i++) {
        atomic_store_explicit(&cleared->connections[i], 0, memory_order_relaxed);
    }
}

uint64_t metrics_decisions(const struct metrics *metrics, unsigned site, enum reason reason)
{
    return site < METRICS_SITE_COUNT && (unsigned)reason < REASON_COUNT
               ? get(&metrics->shared->sites[site].reasons[reason])
               : 0;
}

uint64_t metrics_refusals(const struct metrics *metrics, unsigned listener, unsigned cause)
{
    return listener < METRICS_LISTENER_COUNT && cause < METRICS_CAUSES_MAX
               ? get(&metrics->shared->listeners[listener].refusals[cause])
               : 0;
}

uint64_t metrics_audit_failures(const struct metrics *metrics)
{
    return get(&metrics->shared->audit_failures);
}

uint64_t metrics_accepted(const struct metrics *metrics, unsigned listener)
{
    return listener < METRICS_LISTENER_COUNT ? get(&metrics->shared->listeners[listener].accepted)
                                             : 0;
}

uint64_t metrics_connections(const struct metrics *metrics, unsigned seat, unsigned listener)
{
    return seat < METRICS_SEATS_MAX && listener < METRICS_LISTENER_COUNT
               ? get(&metrics->shared->seats[seat].connections[listener])
               : 0;
}

uint64_t metrics_in_flight(const struct metrics *metrics, unsigned seat)
{
    return seat < METRICS_SEATS_MAX ? get(&metrics->shared->seats[seat].in_flight) : 0;
}

uint32_t metrics_bound_us(unsigned bound)
{
    return bounds_us[bound < METRICS_BOUNDS ? bound : METRICS_BOUNDS - 1];
}

void metrics_latency(const struct metrics *metrics, enum outcome outcome,
                     struct metrics_latency *out)
{
    const struct outcome_times *times = &metrics->shared->outcomes[outcome];
    for (size_t i = 0; i <= METRICS_BOUNDS; i++) {
        out->counts[i] = get(&times->counts[i]);
    }
    out->sum_us = get(&times->sum_us);
}
