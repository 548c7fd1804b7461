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

/* What a line says of the chain itself. */
enum chain_mark {
    CHAIN_RECORD, /* nothing */
    CHAIN_OPENING,
    CHAIN_SEAL,
    CHAIN_SEGMENT_OPEN,
    CHAIN_SEGMENT_CLOSE,
    CHAIN_JUMP /* a recovery of another kind than torn: it names the record it follows */
};

/* One complete line. */
struct chain_line {
    uint64_t seq;
    char chain[17];
    unsigned char hash[CHAIN_HASH_BYTES];
    size_t body_len;
    enum chain_mark mark;
    bool has_key;                         /* the line announces the key of the next seal: */
    uint64_t epoch;                       /* its number, */
    unsigned char public_key[32];         /* and the key */
    bool has_prev;                        /* the line names the record that it follows: */
    unsigned char prev[CHAIN_HASH_BYTES]; /* this is its hash */
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

/* Bytes between the record before and a line that was parsed: none, or torn_bytes and an LF; -1
 * when they are more than can be. */
int chain_line_stray(const char *line, const struct chain_line *parsed, uint64_t *out);

/* Whether `torn` are the bytes that the line accounts for. */
bool chain_line_torn_fits(const char *line, const struct chain_line *parsed, struct span torn);

/* Whether a line of what is said to be torn ends like a complete record: that no crash leaves, as a
 * line that lacks but its LF is completed. */
bool chain_hides_record(struct span torn);

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

/* Reads exactly `len` bytes at `offset`; -1 and errno, ESTALE when the file ends before. */
int chain_read_at(int fd, void *out, size_t len, uint64_t offset);

/* The first complete record of a file: its number, and when it was written (seconds since 1970). */
enum chain_state chain_first_read(int fd, uint64_t *seq, uint64_t *time_s);

/* Where somebody stands who walks along a file: after a record that followed the one before. */
struct chain_walk {
    char chain[17];
    uint64_t offset;   /* where that record ends */
    uint64_t next_seq; /* of the record to come */
    unsigned char hash[CHAIN_HASH_BYTES];
    unsigned char own[CHAIN_HASH_BYTES]; /* the one mark that may come: a seal that we know */
    bool has_own;
    bool own_seen;
};

/*
 * Walks on along complete records that end at or before `end`, `most` bytes or a little more at a
 * time, and accounts for torn bytes between them. CHAIN_OK: what lies behind `walk` is no complete
 * record yet. CHAIN_MISFIT: it can become none, or is a mark that only the supervisor may set.
 */
enum chain_state chain_walk(int fd, uint64_t end, uint64_t most,
                            unsigned char scratch[CHAIN_SCRATCH_BYTES], struct chain_walk *walk);

/* The last marks of a file. */
struct chain_anchor {
    struct chain_walk walk; /* after the last mark, openings and jumps among them */
    struct chain_line key;  /* the last line that announces a key */
    bool closed;            /* the last record closes the segment */
    bool jumped;            /* a recovery behind that line leaves out records that were there */
};

/*
 * Looks backwards from `end`, where a record ends, for the last line that announces a key;
 * CHAIN_MISFIT when there is none.
 */
enum chain_state chain_anchor_find(int fd, uint64_t end, unsigned char scratch[CHAIN_SCRATCH_BYTES],
                                   struct chain_anchor *out);

#endif
