/*
 * One line of the trail, taken apart for the verifier: at fixed offsets where the format fixes
 * them, and the fields after `event` by an exact reading of their own. No JSON library, no memory.
 */
#ifndef TRAIL_VERIFY_LINE_H
#define TRAIL_VERIFY_LINE_H

#include "base/bytes.h"
#include "trail/chain.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The fields that the verifier knows; others are passed over. */
enum verify_line_key {
    LINE_ACTION,
    LINE_CLEAN,
    LINE_EPOCH,
    LINE_FROM,
    LINE_LOST_FROM,
    LINE_LOST_H,
    LINE_N,
    LINE_NEXT_PK,
    LINE_PK,
    LINE_PREV_H,
    LINE_PREV_SEQ,
    LINE_RESULT,
    LINE_SIG,
    LINE_TORN_BYTES,
    LINE_TORN_SHA256,
    LINE_KEYS
};

struct verify_line {
    struct chain_line parsed;
    const char *text; /* borrowed */
    const char *ts;   /* 27 bytes: a date with microseconds and Z */
    struct span event;
    struct span values[LINE_KEYS]; /* without quotes; {NULL, 0}: not there. Not read for `auth` */
};

/* Takes a line apart, LF included; -1 when it has not the form of a record. */
int verify_line_read(const char *text, size_t len, struct verify_line *out);

bool verify_line_is(const struct verify_line *line, const char *event);

/* A field's word is this one. */
bool verify_line_says(const struct verify_line *line, enum verify_line_key key, const char *word);

/* Canonical decimal digits, or lower-case hexadecimal of exactly `bytes` bytes; false when the
 * field is not there or is anything else. */
bool verify_line_number(const struct verify_line *line, enum verify_line_key key, uint64_t *out);
bool verify_line_hex(const struct verify_line *line, enum verify_line_key key, unsigned char *out,
                     size_t bytes);

/* The same of any text, for what the administrator gives. */
bool verify_line_hex_text(struct span text, unsigned char *out, size_t bytes);
bool verify_line_number_text(struct span text, uint64_t *out);

#endif
