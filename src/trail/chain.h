/*
 * The chain: how one line follows the other, and what the end of a file says about it.
 * h = SHA-256("audit-rec-v1\0" || h of the line before || the line up to `,"h":`); the first line
 * of a chain follows 32 zero bytes. Bytes that are no record may lie only before a line that says
 * how many (`torn_bytes`, without the LF that ends them) and their SHA-256 (`torn_sha256`).
 */
#ifndef TRAIL_CHAIN_H
#define TRAIL_CHAIN_H

#include "base/bytes.h"
#include "trail/audit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CHAIN_HASH_BYTES = 32,
    CHAIN_STRAY_MAX = 64 * 1024, /* the most that is taken for torn records */
    CHAIN_SCRATCH_BYTES = CHAIN_STRAY_MAX + AUDIT_RECORD_MAX
};

/* One complete line. */
struct chain_line {
    uint64_t seq;
    char chain[17];
    unsigned char hash[CHAIN_HASH_BYTES];
    size_t body_len;
};

/*
 * Closes a body of `len` bytes (at most FORMAT_BODY_MAX) that follows the line with hash `prev`:
 * appends its hash, which `hash` gets too, and the end. Returns the length with LF.
 */
size_t chain_close(char line[AUDIT_RECORD_MAX], size_t len,
                   const unsigned char prev[CHAIN_HASH_BYTES],
                   unsigned char hash[CHAIN_HASH_BYTES]);

/* Reads one line, LF included; -1 when it has not the form of ours. Says nothing about its hash. */
int chain_line_parse(const char *line, size_t len, struct chain_line *out);

/* Whether the line's hash is the one that it must have after `prev`. */
bool chain_line_follows(const char *line, const struct chain_line *parsed,
                        const unsigned char prev[CHAIN_HASH_BYTES]);

enum chain_state {
    CHAIN_OK,
    CHAIN_UNREADABLE, /* errno says why */
    CHAIN_FOREIGN,    /* the end of the file is nothing of ours */
    CHAIN_MISFIT      /* the last record does not follow the one before */
};

struct chain_tail {
    bool found;             /* there is a complete record; else it is all stray, or empty */
    struct chain_line last; /* the last complete one */
    unsigned char prev[CHAIN_HASH_BYTES]; /* the hash that it follows */
    uint64_t size;                        /* of the file */
    struct span stray; /* what lies after it, in `scratch`; with any state but CHAIN_OK only what
                          lies after the last LF */
};

/*
 * Reads the end of a file and proves that its last record follows the one before. Without a
 * complete record the contents must be the beginning of record `expected`.
 */
enum chain_state chain_tail_read(int fd, uint64_t expected,
                                 unsigned char scratch[CHAIN_SCRATCH_BYTES],
                                 struct chain_tail *out);

/*
 * Whether stray bytes lack but their final LF to be the record after (`seq` - 1, `prev`);
 * `out` gets it.
 */
bool chain_stray_completes(struct span stray, uint64_t seq,
                           const unsigned char prev[CHAIN_HASH_BYTES], struct chain_line *out);

#endif
