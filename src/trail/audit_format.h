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

/* A number that may be absent. */
struct audit_format_u64 {
    bool given;
    uint64_t value;
};

/*
 * Every event but "auth", its fields in the order of the line; zero-initialised all are absent:
 * {NULL, 0}, and 0 where 0 is no value.
 */
struct audit_format_event {
    uint64_t time_us;
    struct span event;
    uint64_t mono_ms; /* CLOCK_BOOTTIME */
    struct span site;
    struct span reason;
    struct span action;
    struct span result;
    struct span detail;
    struct span version;
    uint64_t pid;
    struct audit_format_u64 uid;
    struct span boot_id;
    enum audit_bool clean;
    struct audit_format_u64 prev_seq; /* the record that this one follows, when the one before in */
    struct span prev_h;               /* the file is another; 64 hexadecimal digits */
    struct audit_format_u64 epoch;
    struct span pk;
    struct audit_format_u64 from;
    uint64_t n;
    struct span next_pk;
    uint64_t first_us; /* since 1970 */
    uint64_t last_us;
    struct audit_format_u64 torn_bytes; /* that many bytes and one LF before this are no record */
    struct span torn_sha256;            /* 64 hexadecimal digits */
    struct audit_format_u64 lost_from;  /* the last record that is known to have been */
    struct span lost_h;
};

/* Like audit_format, for an event. */
size_t audit_format_event(char out[AUDIT_RECORD_MAX], uint64_t seq, const char *chain,
                          const char *node, const struct audit_format_event *event);

#endif
