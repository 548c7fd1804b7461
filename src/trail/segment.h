/*
 * Segments: where one file of the chain ends and the next begins. The supervisor turns to the next
 * one when the file was renamed, or renames it first when it has become too large or too old.
 */
#ifndef TRAIL_SEGMENT_H
#define TRAIL_SEGMENT_H

#include "base/fault.h"
#include "trail/ledger.h"
#include "trail/seal.h"

#include <stdbool.h>
#include <stdint.h>

struct segment {
    uint64_t first_seq;
    uint64_t begun_s; /* CLOCK_REALTIME */
    uint64_t own;     /* records that the turn to it and seals have added: they alone are no
                         reason for another segment */
};

/* Learns about the file that is open; -1 and a fault. */
int segment_open(struct segment *segment, const struct ledger *ledger, struct fault *fault);

/* Whether the file, as far as the walk has come, has grown beyond `bytes`, or is older than
 * `age_ms` (0: never). */
bool segment_is_full(const struct segment *segment, const struct ledger *ledger,
                     const struct seal *seal, uint64_t bytes, uint64_t age_ms);

enum segment_turn { SEGMENT_SAME, SEGMENT_NEXT };

/*
 * Opens the path anew. If it still is the same file, there is nothing to do; else the old one is
 * sealed and closed, and the chain goes on in the new one, whose key and place `seal` then knows.
 * With `rename` the file is renamed to `<file>.<first seq>` before, or, where that is taken,
 * `<file>.<first seq>.<chain>`. `news` is told. -1 and a fault in it: the old file stays in use,
 * or, when it was deleted, or only the new one could not be written any more, none is until the
 * next try.
 */
int segment_turn(struct segment *segment, struct ledger *ledger, struct seal *seal, bool rename,
                 enum segment_turn *out, struct audit_news *news);

#endif
