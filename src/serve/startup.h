/*
 * What happens once, before the first worker: directories, listeners, the change of user, the lock
 * on state_dir, and what all workers share.
 */
#ifndef SERVE_STARTUP_H
#define SERVE_STARTUP_H

#include "auth/replay.h"
#include "base/fault.h"
#include "serve/control.h"
#include "serve/generation.h"
#include "serve/supervise.h"
#include "trail/audit.h"
#include "trail/budget.h"
#include "trail/metrics.h"

struct startup {
    struct generation *generation;
    struct control *control;
    struct replay *replay;
    struct audit *audit;
    struct metrics *metrics;
    struct budget *budget;
    int lock; /* keeps other daemons off state_dir */
};

/*
 * Before anything else: what a process is given (descriptors, limits, randomness) is made what the
 * daemon needs. -1: that cannot be done.
 */
int startup_prepare(void);

/* See supervise_make_state_dir. */
int startup_make_state_dir(const struct config *config, struct fault *fault);

/*
 * Root's part first, then the configured user's. Returns 0 or the exit status that the fault means;
 * `*out` is written in both cases and holds what was opened so far, for the caller to close.
 */
int startup_run(const struct supervise_options *options, struct startup *out, struct fault *fault);

#endif
