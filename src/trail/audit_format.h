/*
 * The lines of the trail that are no decisions. Like
 * audit_format: pure, and the result always fits.
 */
#ifndef TRAIL_AUDIT_FORMAT_H
#define TRAIL_AUDIT_FORMAT_H

#include "base/bytes.h"
#include "trail/audit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What stays free at the end of a line: `,"h":"`, 64 digits, `"}` and LF. */
enum { FORMAT_TAIL_BYTES = 6 + 64 + 2 + 1, FORMAT_BODY_MAX = AUDIT_RECORD_MAX - FORMAT_TAIL_BYTES };

/* Every event but "auth"; {NULL, 0} is absent. */
struct audit_format_event {
    uint64_t time_us;
    struct span event;
    struct span action;
    struct span result;
    struct span detail;
    bool has_prev; /* the first record of a further file: where the chain comes from */
    uint64_t prev_seq;
    struct span prev_h; /* 64 hexadecimal digits */
    bool has_torn;      /* that many bytes and one LF before this line are no record */
    uint64_t torn_bytes;
    struct span torn_sha256; /* 64 hexadecimal digits */
};

/* Like audit_format, for an event. */
size_t audit_format_event(char out[AUDIT_RECORD_MAX], uint64_t seq, const char *chain,
                          const char *node, const struct audit_format_event *event);

#endif
