/*
 * How much of the trail failures may fill. A request that is not granted is recorded as long as the
 * budget bears it, and only counted beyond; a bare challenge is only counted. Who has proven a
 * principal has a budget that strangers take nothing from; it is needed, as whoever has caught one
 * token may send it for ever. The counts become `suppressed` and `challenge.summary` records of the
 * supervisor's. The memory is shared by all workers: relaxed atomics, no lock, no allocation,
 * nothing that fails.
 */
#ifndef TRAIL_BUDGET_H
#define TRAIL_BUDGET_H

#include "base/reason.h"

#include <stdbool.h>
#include <stdint.h>

struct budget;

struct budget_limits {
    unsigned rate;  /* records a second, over all workers; at least 1 */
    unsigned burst; /* how many of them at once; at least 1 */
};

/* Shared, zeroed memory for so many sites; before any fork. NULL when there is none. */
struct budget *budget_open(unsigned sites);

/* Unmaps it in this process; NULL is allowed. */
void budget_close(struct budget *budget);

/* Who sent what failed: nobody that is known, or whoever has proven a principal, or has his token.
 */
enum budget_sender { BUDGET_STRANGER, BUDGET_PRINCIPAL, BUDGET_SENDERS };

/* Whether one more failure's record may be written now. `mono_us` is CLOCK_MONOTONIC. */
bool budget_take(struct budget *budget, enum budget_sender sender,
                 const struct budget_limits *limits, uint64_t mono_us);

/*
 * Counts what is not recorded: a failure beyond the budget or, with NO_CREDENTIALS, a bare
 * challenge. `site` is the number of the site; one out of range counts as the last. `time_us` is
 * CLOCK_REALTIME.
 */
void budget_count(struct budget *budget, unsigned site, enum reason reason, uint64_t time_us);

/* The supervisor's: while space is low, no stranger's failure is recorded. */
void budget_set_low(struct budget *budget, bool low);

/* What was counted of one site and reason. */
struct budget_sum {
    unsigned site;
    enum reason reason;
    uint64_t n;
    uint64_t first_us;
    uint64_t last_us;
};

/*
 * The supervisor's: takes the next sum away, of bare challenges or of failures, from `*at` on (0 at
 * first; moved on); false: there is none. What it reads was written by workers: the times are put
 * between 0 and `now_us`, of the number nothing can be said.
 */
bool budget_collect(struct budget *budget, bool challenges, uint64_t now_us, unsigned *at,
                    struct budget_sum *out);

/* Puts a sum back that could not be recorded. */
void budget_return(struct budget *budget, const struct budget_sum *sum);

#endif
