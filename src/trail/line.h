/*
 * A line while it is written: numbers, dates and texts as JSON wants them, in ASCII, into bytes
 * that the caller has. Only texts look for room; whoever reserves enough for the rest needs no
 * check.
 */
#ifndef TRAIL_LINE_H
#define TRAIL_LINE_H

#include "base/bytes.h"

#include <stddef.h>
#include <stdint.h>

struct line {
    char *out;
    size_t len;
    size_t max;       /* bytes that `out` holds */
    size_t reserve;   /* bytes that later fields are sure of */
    uint64_t cut;     /* bits by index of field */
    uint64_t mangled; /* the same */
};

/* Decimal digits without a terminator; `out` holds 20; returns their number. */
size_t line_u64(char *out, uint64_t value);

/* Exactly `count` digits, with zeros before. */
void line_digits(char *out, uint64_t value, size_t count);

void line_put(struct line *l, const char *bytes, size_t len);
void line_put_u64(struct line *l, uint64_t value);
void line_put_i64(struct line *l, int64_t value);

/* "YYYY-MM-DDTHH:MM:SS" in UTC; what lies past the year 9999 is its last second. */
void line_put_date(struct line *l, uint64_t seconds);

/*
 * Any bytes, with quotes: what is no UTF-8 is repaired (bit `bit` of `mangled`), and what lies past
 * `max` bytes, or past the room that is not reserved, is left off on a code point (bit of `cut`).
 */
void line_put_text(struct line *l, unsigned bit, struct span s, size_t max);

#endif
