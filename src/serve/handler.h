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
#include "serve/exchange.h"

#include <fcgiapp.h>

struct handler {
    const struct config *config;
    const struct engine *engine;
    int out; /* the pipe's end that libfcgi reads; -1: there is none */
    int in;
    FCGX_Request fcgx;
    struct exchange exchange;
};

/* Takes nothing yet; both arguments outlive the handler. */
void handler_init(struct handler *handler, const struct config *config,
                  const struct engine *engine);

/* Takes all memory and descriptors that requests need, in the thread that serves them. */
int handler_warm(struct handler *handler, struct fault *fault);
void handler_free(struct handler *handler);

/*
 * Serves the complete request of a connection that has room for the answer; `crowded` as in struct
 * request, `before_blocking` as in engine_serve. NONE, or why the connection must go.
 */
enum guard_cause handler_serve(struct handler *handler, const struct connection *connection,
                               bool crowded, void (*before_blocking)(void *arg), void *arg);

#endif
