/*
 * One request on its walk: request -> site -> credentials -> identity -> decision -> answer.
 * Each stage writes the next field and reads only the earlier ones; exchange_clear is the only
 * clean-up.
 */
#ifndef SERVE_EXCHANGE_H
#define SERVE_EXCHANGE_H

#include "auth/acceptor.h"
#include "auth/replay.h"
#include "base/bytes.h"
#include "base/reason.h"
#include "conf/config.h"
#include "trail/audit.h"
#include "wire/http.h"
#include "wire/spnego.h"

#include <stdbool.h>
#include <stdint.h>

/* What the web server said; everything is untrusted and borrowed from the front. */
struct request {
    const struct config_listener *listener;
    uint64_t time_us;   /* CLOCK_REALTIME, read once when the request was complete */
    uint64_t mono_us;   /* CLOCK_MONOTONIC, the same moment */
    uint64_t waited_us; /* since the connection's first byte of this request was awaited */
    bool crowded;       /* more of its listener's requests wait than limits.waiting */
    struct span authorization;
    struct span host;
    struct span method;
    struct span uri;
    struct span peer;
    struct span peer_port;
    struct span server;
    struct span request_id;
    struct span trace;     /* the trace id of a good traceparent */
    struct span repeat_id; /* of the listener's repeat_id parameter */
    struct span https;
    struct span scheme;
};

struct exchange {
    struct request request;
    char host[HTTP_HOST_BYTES]; /* normalised; "" until it is known to be good */
    const struct config_site *site;
    struct buf token;
    struct spnego_token spnego;
    struct acceptor_thread *kerberos; /* the thread's own, borrowed; it stays over exchange_clear */
    struct acceptor_result accepted;
    enum reason use; /* of the authenticator: OK, REPEAT, or INTERNAL as long as it is not used */
    struct replay_entry entry; /* where it is remembered */
    const struct config_rule *rule;
    enum reason reason; /* the decision */
    struct buf reply;   /* the token that the answer carries, or empty */
    char audit_id[AUDIT_ID_BYTES];
    struct buf answer;
};

/*
 * Makes the buffers' ceilings fit the configuration and takes the answer's memory beforehand; a
 * zero-initialised exchange is ready for it. -1: no memory.
 */
int exchange_init(struct exchange *exchange, const struct config *config);

/* Forgets one request; buffers keep their memory and are wiped. */
void exchange_clear(struct exchange *exchange);

/* The same and frees the memory. */
void exchange_free(struct exchange *exchange);

/*
 * Builds the answer's bytes from the decision alone (docs/design.md 2a) into `exchange->answer`:
 * pure, one Status line first, CRLF, Variable-* only with 200. If it cannot be built (no memory, a
 * user that no header can carry) the answer is the fixed one of REASON_INTERNAL, so there is always
 * one, and never a 200.
 */
void exchange_format_answer(struct exchange *exchange);

#endif
