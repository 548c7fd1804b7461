#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 2048 };

static enum log_level threshold = LOG_LEVEL_INFO;
static bool prefixed;

void log_open(bool prefix)
{
    prefixed = prefix;
}

void log_limit(enum log_level most)
{
    threshold = most;
}

/* Appends `c` as it may stand in a line: printable ASCII as it is, the rest as \xNN. */
static size_t put_escaped(char *out, size_t at, size_t limit, unsigned char c)
{
    static const char digits[] = "0123456789abcdef";
    if (c >= 0x20 && c < 0x7f) {
        if (at + 1 <= limit) {
            out[at++] = (char)c;
        }
    } else if (at + 4 <= limit) {
        out[at++] = '\\';
        out[at++] = 'x';
        out[at++] = digits[c >> 4];
        out[at++] = digits[c & 15];
    }
    return at;
}

void log_line(enum log_level level, const char *format, ...)
{
    if (level > threshold) {
        return;
    }
    char text[LOG_LINE_MAX];
    va_list args;
    va_start(args, format);
    const int need = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (need < 0) {
        return;
    }
    char line[LOG_LINE_MAX + 64];
    size_t len = 0;
    if (prefixed) {
        len = (size_t)snprintf(line, sizeof line, "<%d>", (int)level);
    } else {
        len = (size_t)snprintf(line, sizeof line, "spnegate[%ld]: ", (long)getpid());
    }
    for (const char *p = text; *p != '\0'; p++) {
        len = put_escaped(line, len, sizeof line - 1, (unsigned char)*p);
    }
    line[len++] = '\n';
    /* Nowhere is left to report a failure of the log itself. */
    while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR) {
    }
}

/*
 * The state holds the millisecond at which the budget is whole again: each line moves it 1/per_s
 * further, and it may be at most burst/per_s ahead of now.
 */
bool log_rate_allow(struct log_rate *rate, uint64_t now_ms, uint32_t *skipped)
{
    _Atomic uint64_t *state = &rate->state;
    const uint64_t step = 1000 / (rate->per_s == 0 ? 1 : rate->per_s);
    const uint64_t reach = step * (rate->burst == 0 ? 1 : rate->burst);
    uint64_t seen = atomic_load_explicit(state, memory_order_relaxed);
    for (;;) {
        const uint64_t from = seen < now_ms ? now_ms : seen;
        if (from + step > now_ms + reach) {
            (void)atomic_fetch_add_explicit(&rate->skipped, 1, memory_order_relaxed);
            return false;
        }
        if (atomic_compare_exchange_weak_explicit(state, &seen, from + step, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            const uint32_t count =
                atomic_exchange_explicit(&rate->skipped, 0, memory_order_relaxed);
            if (skipped != NULL) {
                *skipped = count;
            }
            return true;
        }
    }
}

const char *log_quote(struct span s, char *out, size_t size)
{
    if (size < 3) {
        if (size > 0) {
            out[0] = '\0';
        }
        return out;
    }
    size_t at = 0;
    out[at++] = '"';
    for (size_t i = 0; i < s.len; i++) {
        const unsigned char c = s.ptr[i];
        if (c == '"' || c == '\\') {
            if (at + 2 > size - 2) {
                break;
            }
            out[at++] = '\\';
        }
        at = put_escaped(out, at, size - 2, c);
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}
