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

enum guard_cause {
#define CAUSE(id, code, text) GUARD_##id,
#include "serve/guard.def"
#undef CAUSE
    GUARD_COUNT
};

enum guard_role { GUARD_RESPONDER = 1, GUARD_AUTHORIZER = 2 };

enum { GUARD_HEADER_BYTES = 8, GUARD_PARAMETER_MAX = 256 };

/* The reading of one request; zero-initialise and guard_start before its first byte. */
struct guard {
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

/* Makes ready for the next request on a connection; `max` bounds the parameters' bytes. */
void guard_start(struct guard *guard, size_t max);

/*
 * Reads from `bytes`. DONE: one request is complete, its parameters are checked, and `*used` bytes
 * belong to it (what follows is the next one's). MORE: all bytes are used. BAD: `*cause` says why.
 */
enum guard_state guard_read(struct guard *guard, struct span bytes, size_t *used,
                            enum guard_cause *cause);

/* What an end of input here means: EMPTY between requests, else CUT. */
enum guard_cause guard_end(const struct guard *guard);

/* Wipes and frees. */
void guard_clear(struct guard *guard);

/* The stable word and the sentence of a cause. */
const char *guard_code(enum guard_cause cause);
const char *guard_text(enum guard_cause cause);

#endif
