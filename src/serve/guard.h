/*
 * The guard before libfcgi: reads one whole FastCGI request from untrusted bytes, each byte once,
 * and lets pass only what libfcgi decodes without surprises. Its unit is the whole request: BEGIN,
 * PARAMS to their empty record, and in the RESPONDER role STDIN to its empty record (a body is
 * refused).
 */
#ifndef SERVE_GUARD_H
#define SERVE_GUARD_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum guard_cause {
#define CAUSE(id, code, text) GUARD_##id,
#include "serve/guard.def"
#undef CAUSE
    GUARD_COUNT
};

enum guard_role { GUARD_RESPONDER = 1, GUARD_AUTHORIZER = 2 };

enum { GUARD_HEADER_BYTES = 8, GUARD_PARAMETER_MAX = 256, GUARD_ALSO_MAX = 4 };

/* What a listener asks of its requests; the guard borrows it. */
struct guard_rules {
    size_t params_max; /* bytes of all parameters together */
    struct span
        also[GUARD_ALSO_MAX]; /* further parameters that decide here: forwarded, repeat_id */
};

/* The reading of one request; zero-initialise and guard_start before its first byte. */
struct guard {
    const struct guard_rules *rules;
    unsigned char head[GUARD_HEADER_BYTES]; /* of the record that is being read */
    size_t head_len;
    size_t content_left;
    size_t padding_left;
    unsigned char begin[8]; /* content of BEGIN_REQUEST */
    size_t begin_len;
    bool begun;
    bool params_done;
    bool trailing_stdin; /* an empty STDIN of the request before may still come */
    uint16_t trailing_id;
    uint16_t id;
    enum guard_role role;
    bool keep;         /* FCGI_KEEP_CONN */
    bool silent;       /* no byte of this request has come yet */
    struct buf params; /* the contents of all PARAMS records, one after the other */
    char culprit[GUARD_PARAMETER_MAX +
                 1]; /* the parameter that was refused, for the log; may be cut */
};

enum guard_state { GUARD_MORE, GUARD_DONE, GUARD_BAD };

/* Makes ready for the next request on a connection. */
void guard_start(struct guard *guard, const struct guard_rules *rules);

/*
 * Reads from `bytes`. DONE: one request is complete, its parameters are checked, and `*used` bytes
 * belong to it (what follows is the next one's). MORE: all bytes are used. BAD: `*cause` says why.
 */
enum guard_state guard_read(struct guard *guard, struct span bytes, size_t *used,
                            enum guard_cause *cause);

/* Room for guard_format: BEGIN, PARAMS of up to GUARD_CHUNKS_MAX * 65528 bytes, the empty PARAMS.
 */
enum { GUARD_CHUNKS_MAX = 4 };
struct guard_records {
    unsigned char begin[2 * GUARD_HEADER_BYTES];
    unsigned char heads[GUARD_CHUNKS_MAX + 1][GUARD_HEADER_BYTES];
    struct iovec parts[2 * GUARD_CHUNKS_MAX + 2];
    size_t count;
    size_t len; /* of all parts */
};

/*
 * The request that passed, as libfcgi is given it: BEGIN with FCGI_KEEP_CONN, PARAMS without
 * padding, the empty PARAMS, nothing behind. `out` borrows from `guard`. -1: too many parameters
 * for it.
 */
int guard_format(const struct guard *guard, struct guard_records *out);

/* The value of the first such parameter of a request that has passed; {NULL, 0}: there is none. */
struct span guard_find(const struct guard *guard, struct span parameter);

/* What an end of input here means: EMPTY between requests, else CUT. */
enum guard_cause guard_end(const struct guard *guard);

/* Wipes and frees. */
void guard_clear(struct guard *guard);

/* The stable word and the sentence of a cause. */
const char *guard_code(enum guard_cause cause);
const char *guard_text(enum guard_cause cause);

#endif
