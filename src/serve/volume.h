/*
 * What the supervisor does so that strangers cannot fill the trail: it turns the workers' counts
 * into records, and watches the free space.
 */
#ifndef SERVE_VOLUME_H
#define SERVE_VOLUME_H

#include "conf/config.h"
#include "trail/audit.h"
#include "trail/budget.h"
#include "trail/metrics.h"

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised, nothing was done yet. */
struct volume {
    struct budget *budget;
    struct audit *audit;
    struct metrics *metrics;
    uint64_t challenges_ms; /* when bare challenges are recorded next */
    uint64_t failures_ms;
    uint64_t space_ms;
    bool low;
};

/* Called a few times a second with the monotonic time; does what is due. */
void volume_tick(struct volume *volume, const struct config *config, uint64_t now_ms);

/* At the end: records all that was counted. */
void volume_finish(struct volume *volume);

#endif
