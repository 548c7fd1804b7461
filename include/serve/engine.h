/*
 * The decision: finds the site, reads the credentials, accepts the ticket, asks the replay table
 * and the policy, writes the audit record, and only then builds the answer. One engine a worker,
 * immutable, shared by its threads; everything of one request is in its exchange.
 */
#ifndef SERVE_ENGINE_H
#define SERVE_ENGINE_H

#include "auth/keytab.h"
#include "auth/replay.h"
#include "base/fault.h"
#include "conf/config.h"
#include "serve/exchange.h"
#include "trail/audit.h"
#include "trail/budget.h"
#include "trail/metrics.h"

struct engine;

/* What the supervisor prepared; all of it outlives the engine. */
struct engine_parts {
    const struct config *config;
    struct keytab *const *keytabs; /* one a site, in their order; NULL: it could not be loaded */
    const struct binding_list *bindings; /* one a site */
    struct replay *replay;
    struct audit *audit;
    struct metrics *metrics;
    struct budget *budget;
    const unsigned *site_slots; /* of metrics, one a site */
};

/* Makes acceptors of the keytabs; after the last fork. */
int engine_open(const struct engine_parts *parts, struct engine **out, struct fault *fault);

/* NULL is allowed. */
void engine_close(struct engine *engine);

/*
 * Decides on `exchange->request` and leaves reason, audit id and answer in the exchange.
 * `before_blocking` (NULL: none) is called with `arg` before anything that waits for the disk.
 */
void engine_serve(const struct engine *engine, struct exchange *exchange,
                  void (*before_blocking)(void *arg), void *arg);

/*
 * Whether there is budget for the record of one more request of a crowd, which engine_serve refuses
 * then; takes it from the budget. If not, the request is to be refused with engine_suppress.
 */
bool engine_may_record(const struct engine *engine, uint64_t mono_us);

/* Counts a refusal that has no record of its own; never waits for the disk. */
void engine_suppress(const struct engine *engine, enum reason reason, uint64_t mono_us);

#endif
