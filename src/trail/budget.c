#include "trail/budget.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { WAITED_US = 60000000 }; /* longer than requests are kept waiting */

struct count {
    _Atomic uint64_t n;
    _Atomic uint64_t first_us;
    _Atomic uint64_t last_us;
};

/*
 * `until_us` is when the records so far would all have been due at the allowed rate; a burst is how
 * far it may lie ahead.
 */
struct shared {
    _Atomic uint64_t until_us[BUDGET_SENDERS];
    atomic_bool low;
    struct count counts[]; /* REASON_COUNT for each site */
};

/* What the supervisor goes by is not where workers can write. */
struct budget {
    unsigned sites;
    size_t bytes;
    struct shared *shared;
};

struct budget *budget_open(unsigned sites)
{
    const size_t bytes =
        sizeof(struct shared) + (size_t)sites * REASON_COUNT * sizeof(struct count);
    struct budget *budget = calloc(1, sizeof *budget);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (budget == NULL || memory == MAP_FAILED) {
        if (memory != MAP_FAILED) {
            (void)munmap(memory, bytes);
        }
        free(budget);
        return NULL;
    }
    *budget = (struct budget){sites, bytes, memory};
    return budget;
}

void budget_close(struct budget *budget)
{
    if (budget != NULL) {
        (void)munmap(budget->shared, budget->bytes);
        free(budget);
    }
}

bool budget_take(struct budget *budget, enum budget_sender sender,
                 const struct budget_limits *limits, uint64_t mono_us)
{
    const uint64_t interval_us = 1000000 / (limits->rate > 0 ? limits->rate : 1);
    const uint64_t burst_us = interval_us * limits->burst;
    _Atomic uint64_t *due_us = &budget->shared->until_us[sender];
    uint64_t until_us = atomic_load_explicit(due_us, memory_order_relaxed);
    uint64_t next_us = 0;
    if (sender == BUDGET_STRANGER &&
        atomic_load_explicit(&budget->shared->low, memory_order_relaxed)) {
        return false;
    }
    do {
        /* Further ahead than a burst it cannot be but for requests that waited longer than others:
         * the limits were other ones, or it is a lie. */
        const uint64_t from_us =
            until_us < mono_us || until_us > mono_us + burst_us + WAITED_US ? mono_us : until_us;
        next_us = from_us + interval_us;
        if (next_us > mono_us + burst_us) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(due_us, &until_us, next_us,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static struct count *count_of(struct budget *budget, unsigned site, enum reason reason)
{
    const unsigned row = site < budget->sites ? site : budget->sites - 1;
    return &budget->shared->counts[(size_t)row * REASON_COUNT + (size_t)reason];
}

/* The first of a sum is kept, the last is the newest; who is overtaken in between loses but that.
 */
static void add(struct count *count, uint64_t n, uint64_t first_us, uint64_t last_us)
{
    uint64_t none = 0;
    (void)atomic_compare_exchange_strong_explicit(&count->first_us, &none, first_us,
                                                  memory_order_relaxed, memory_order_relaxed);
    atomic_store_explicit(&count->last_us, last_us, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->n, n, memory_order_relaxed);
}

void budget_count(struct budget *budget, unsigned site, enum reason reason, uint64_t time_us)
{
    add(count_of(budget, site, reason), 1, time_us, time_us);
}

void budget_set_low(struct budget *budget, bool low)
{
    atomic_store_explicit(&budget->shared->low, low, memory_order_relaxed);
}

static uint64_t at_most(uint64_t value, uint64_t limit)
{
    return value < limit ? value : limit;
}

bool budget_collect(struct budget *budget, bool challenges, uint64_t now_us, unsigned *at,
                    struct budget_sum *out)
{
    const unsigned all = budget->sites * REASON_COUNT;
    for (unsigned i = *at; i < all; i++) {
        struct count *count = &budget->shared->counts[i];
        const enum reason reason = (enum reason)(i % REASON_COUNT);
        if ((reason == REASON_NO_CREDENTIALS) != challenges ||
            atomic_load_explicit(&count->n, memory_order_relaxed) == 0) {
            continue;
        }
        out->site = i / REASON_COUNT;
        out->reason = reason;
        out->n = atomic_exchange_explicit(&count->n, 0, memory_order_relaxed);
        const uint64_t first_us =
            atomic_exchange_explicit(&count->first_us, 0, memory_order_relaxed);
        out->last_us = at_most(atomic_load_explicit(&count->last_us, memory_order_relaxed), now_us);
        out->first_us = first_us == 0 ? out->last_us : at_most(first_us, out->last_us);
        *at = i + 1;
        if (out->n > 0) {
            return true;
        }
    }
    *at = all;
    return false;
}

void budget_return(struct budget *budget, const struct budget_sum *sum)
{
    struct count *count = count_of(budget, sum->site, sum->reason);
    atomic_store_explicit(&count->first_us, sum->first_us, memory_order_relaxed);
    uint64_t last_us = atomic_load_explicit(&count->last_us, memory_order_relaxed);
    if (last_us < sum->last_us) {
        atomic_store_explicit(&count->last_us, sum->last_us, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&count->n, sum->n, memory_order_relaxed);
}
