/*
 * The daemon's own log: one line each on standard error, "<N>" before it when the journal reads it.
 * It is not the audit trail. Rooms below serve never log. Never a token, a cookie or a password.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/bytes.h"

#include <stdatomic.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* Whether "<N>" stands first in each line (default: no). */
void log_open(bool prefix);

/* Sets the most talkative level that is still written (default info). */
void log_limit(enum log_level most);

/* Writes one line with one write(2); control bytes in it are escaped, too long a line is cut. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A budget of lines: at most `burst` at once and `per_s` a second; zero-initialise the state. */
struct log_rate {
    uint32_t per_s;
    uint32_t burst;
    _Atomic uint64_t state;   /* private */
    _Atomic uint32_t skipped; /* lines that were not allowed since the last that was */
};

/*
 * Whether one more line is within the budget at `now_ms` (monotonic); never blocks. With true,
 * `*skipped` is how many were not since the last time; NULL if nobody tells.
 */
bool log_rate_allow(struct log_rate *rate, uint64_t now_ms, uint32_t *skipped);

/* Writes `s` quoted and escaped ("a\x0ab") into `out`, cut to fit; returns `out`. For peers'
 * strings. */
const char *log_quote(struct span s, char *out, size_t size);

#endif
