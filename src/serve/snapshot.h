/*
 * What `spnegate status` is told: one JSON object over all that the supervisor knows
 * (docs/status.md lists its keys). Numbers that workers keep are only printed; nothing is decided
 * by them.
 */
#ifndef SERVE_SNAPSHOT_H
#define SERVE_SNAPSHOT_H

#include "auth/replay.h"
#include "base/bytes.h"
#include "serve/crew.h"
#include "serve/generation.h"
#include "trail/audit.h"
#include "trail/metrics.h"

#include <stdbool.h>
#include <stdint.h>

enum { SNAPSHOT_WHY_BYTES = 1300 };

/* The supervisor's own life; it is in no memory that workers can write. Times are in seconds since
 * 1970, 0: never. */
struct snapshot_life {
    uint64_t started_s;
    uint64_t generation_s; /* when the current one began to serve */
    uint64_t deaths;
    uint64_t reloads;
    uint64_t reloads_refused;
    uint64_t reload_s;            /* the last one, either way */
    char why[SNAPSHOT_WHY_BYTES]; /* the last one was refused; "" otherwise */
};

struct snapshot {
    const char *config_path;
    const struct snapshot_life *life;
    const struct generation *generation; /* that serves; NULL before the first does */
    const struct crew *crew;
    const struct metrics *metrics;
    const struct audit *audit;
    const struct replay *replay;
    unsigned wanted; /* workers */
    bool slowed;     /* they die too often */
    bool stopping;
};

/* Appends it; lists that do not fit CONTROL_ANSWER_MAX are cut, and say so. */
void snapshot_format(const struct snapshot *snapshot, struct buf *out);

#endif
