/*
 * The refusal of one request in a crowd, without libfcgi and without the engine: its bytes are made
 * once, and are those that libfcgi would write.
 */
#ifndef SERVE_REFUSAL_H
#define SERVE_REFUSAL_H

#include "base/reason.h"
#include "conf/config.h"
#include "serve/guard.h"

/* Zero-initialise. */
struct refusal {
    struct buf answer;
    struct buf head_answer; /* of a HEAD request: no body */
};

/* Makes the answers of `reason`, one without challenge. -1: no memory, or not such a reason. */
int refusal_open(struct refusal *refusal, enum reason reason);
void refusal_close(struct refusal *refusal);

/*
 * Writes the whole answer of the request that has passed `guard` to `fd`, which has room for it;
 * never blocks. -1: it could not be written whole, and the connection must go.
 */
int refusal_send(const struct refusal *refusal, const struct config_listener *listener,
                 const struct guard *guard, int fd);

#endif
