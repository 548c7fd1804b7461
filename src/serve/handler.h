/*
 * One request thread's hands: a complete request that has passed the guard is decoded by libfcgi,
 * decided by the engine and answered, whole. libfcgi reads it from a private pipe, never from the
 * connection.
 */
#ifndef SERVE_HANDLER_H
#define SERVE_HANDLER_H

#include "base/fault.h"
#include "serve/connection.h"
#include "serve/engine.h"

struct handler;

/* Before there are threads, one for each; both arguments outlive it. NULL: no memory. */
struct handler *handler_open(const struct config *config, const struct engine *engine);

/* Takes all memory and descriptors that requests need, in the thread that serves them. */
int handler_warm(struct handler *handler, struct fault *fault);

/* NULL is allowed. */
void handler_close(struct handler *handler);

/*
 * Serves the complete request of a connection that has room for the answer; `crowded` as in struct
 * request, `before_blocking` as in engine_serve. NONE, or why the connection must go.
 */
enum guard_cause handler_serve(struct handler *handler, const struct connection *connection,
                               bool crowded, void (*before_blocking)(void *arg), void *arg);

#endif
