/*
 * Whether a trail is what was written, and all of it. One file (a segment) proves itself: its first
 * record names the hash that it follows and the key of its first seal. Several files are then
 * joined. Nothing that is read is trusted; a file needs a fixed amount of memory, whatever it
 * holds.
 */
#ifndef TRAIL_VERIFY_H
#define TRAIL_VERIFY_H

#include "base/bytes.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    VERIFY_HASH_BYTES = 32,
    VERIFY_KEY_BYTES = 32,
    VERIFY_KEYS_MAX = 16,
    VERIFY_TS_BYTES = 27 + 1,
    VERIFY_WHY_BYTES = 320,
    VERIFY_CLOCK_S = 60, /* a request may wait that long for its record: no step of the clock */
    VERIFY_CLOCK_EVENT_S = 2, /* records of the daemon itself are written at once */
};

/* What the caller knows from elsewhere. */
struct verify_options {
    size_t key_count; /* first public keys of chains; 0: none is known */
    unsigned char keys[VERIFY_KEYS_MAX][VERIFY_KEY_BYTES];
    bool has_head; /* a record that must be there */
    uint64_t head_seq;
    unsigned char head_hash[VERIFY_HASH_BYTES];
    uint64_t max_seal_age_s; /* of the newest seal; 0: any */
    uint64_t now_s;          /* since 1970; what the age counts from */
};

/* Adds what an administrator gives: 64 hexadecimal digits; "SEQ:" and 64 digits. -1 when it is not
 * of that form, or one too many. */
int verify_options_key(struct verify_options *options, const char *text);
int verify_options_head(struct verify_options *options, const char *text);

/* Where bytes come from: like read(2), and interrupted calls are the source's business. */
struct verify_source {
    ssize_t (*read)(void *from, void *out, size_t len);
    void *from;
};

/* What is told of a trail without being a fault in a record. */
enum verify_kind {
    VERIFY_TORN,     /* torn bytes that a record accounts for */
    VERIFY_UNCLEAN,  /* starts of a daemon that had not been stopped */
    VERIFY_BACKWARD, /* the clock went back by more than a record may wait */
    VERIFY_LOST,     /* records that the daemon itself found missing; counts records */
    VERIFY_UNPROVEN, /* seals whose key is among those */
    VERIFY_UNSEALED, /* records that only seals among those covered; counts records */
    VERIFY_CUT,      /* the last line is unfinished; counts its bytes */
    VERIFY_KINDS
};

/* How often, and where first. */
struct verify_mark {
    uint64_t count;
    uint64_t line;
    uint64_t seq;
};

/* The key of one seal. */
struct verify_key {
    uint64_t epoch;
    unsigned char bytes[VERIFY_KEY_BYTES];
};

/* What one file said. */
struct verify_segment {
    char why[VERIFY_WHY_BYTES]; /* its first bad record, or "": then all of it is good */
    uint64_t why_line;
    bool why_has_seq;
    uint64_t why_seq;
    uint64_t noticed_line; /* from there on: where the daemon says chain_broken; 0: nowhere */
    uint64_t noticed_seq;
    uint64_t records; /* good ones; 0: nothing below is set but the marks */
    bool opens_chain; /* begins with chain.open, else with segment.open */
    bool closed;      /* ends with segment.close */
    char chain[17];
    uint64_t first_seq;
    uint64_t last_seq;
    unsigned char before[VERIFY_HASH_BYTES]; /* that the first record follows */
    unsigned char hash[VERIFY_HASH_BYTES];   /* of the last one */
    char first_ts[VERIFY_TS_BYTES];
    char last_ts[VERIFY_TS_BYTES];
    uint64_t seals;            /* proven ones */
    struct verify_key opening; /* that the first record announces */
    struct verify_key next;    /* that the next seal must have */
    uint64_t first_from;       /* with seals: the first record that they cover */
    bool from_known;
    uint64_t from;       /* the first record that no seal covers */
    uint64_t sealed_seq; /* of the last seal */
    char sealed_ts[VERIFY_TS_BYTES];
    bool head_met;
    bool head_differs; /* the record is there, but another one */
    bool head_lost;    /* it is among those that the daemon found missing */
    struct verify_mark marks[VERIFY_KINDS];
};

/*
 * Reads one file to its end; behind its first bad record nothing counts but that the daemon says it
 * noticed. -1 with errno when it cannot be read (then
 * `out` holds what was read so far).
 */
int verify_segment(const struct verify_source *source, const struct verify_options *options,
                   struct verify_segment *out);

struct verify_file {
    const char *path; /* borrowed */
    char unread[128]; /* why it could not be read to its end, or "" */
    struct verify_segment segment;
};

/* The same for a regular file, plain or compressed with gzip. Waits a moment for a daemon that is
 * in the middle of a line. */
void verify_file(const char *path, const struct verify_options *options, struct verify_file *out);

enum verify_level {
    VERIFY_NOTE,       /* good to know */
    VERIFY_UNDECIDED,  /* cannot be found out from these files */
    VERIFY_INCOMPLETE, /* something is missing */
    VERIFY_TAMPERED    /* something is not what was written */
};

struct verify_finding {
    enum verify_level level;
    const char *path; /* NULL: of the whole chain */
    uint64_t line;    /* 0: none */
    bool has_seq;
    uint64_t seq;
    const char *text;
};

/* One chain of the set. */
struct verify_chain {
    char id[17];
    size_t files;
    uint64_t records;
    uint64_t seals;
    uint64_t first_seq;
    uint64_t last_seq;
    char first_ts[VERIFY_TS_BYTES];
    char last_ts[VERIFY_TS_BYTES];
    bool sealed; /* up to: */
    uint64_t sealed_seq;
    char sealed_ts[VERIFY_TS_BYTES];
    uint64_t unsealed;         /* records after the last seal */
    uint64_t unproven;         /* those of them that come after the head, if that was met */
    bool whole;                /* from its first record on */
    bool broken;               /* a record is bad, or a file does not follow the one before */
    bool anchored;             /* its first key is one of those given */
    struct verify_key opening; /* the first key that is known */
};

/* Who is told; both are called in the order of chains and records. */
struct verify_listener {
    void (*finding)(void *to, const struct verify_finding *finding);
    void (*chain)(void *to, const struct verify_chain *chain);
    void *to;
};

/* Orders the files, joins them and tells everything that was found, each file's own findings too.
 */
void verify_set(struct verify_file *files, size_t count, const struct verify_options *options,
                const struct verify_listener *listener);

/* Seconds since 1970 of a record's time; the form must be right. */
uint64_t verify_seconds(const char ts[VERIFY_TS_BYTES]);

#endif
