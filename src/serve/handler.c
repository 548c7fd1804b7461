#include "serve/handler.h"

#include "serve/exchange.h"
#include "serve/request.h"

#include <fcgiapp.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PIPE_BYTES = 256 * 1024 };

struct handler {
    const struct config *config;
    const struct engine *engine;
    int out; /* the pipe's end that libfcgi reads; -1: there is none */
    int in;
    FCGX_Request fcgx;
    struct exchange exchange;
};

/* If there are no descriptors, the next request tries again. */
static int open_pipe(struct handler *h)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -1;
    }
    h->out = fds[0];
    h->in = fds[1];
    /* Over the user's soft limit of pipe pages this fails; a request that does not fit is then
     * refused. */
    (void)fcntl(h->in, F_SETPIPE_SZ, PIPE_BYTES);
    return 0;
}

static void close_end(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

static void close_pipe(struct handler *h)
{
    close_end(&h->out);
    close_end(&h->in);
}

/* What is left in the pipe belongs to nobody: it goes with it. */
static void renew_pipe(struct handler *h)
{
    close_pipe(h);
    (void)open_pipe(h);
}

struct handler *handler_open(const struct config *config, const struct engine *engine)
{
    struct handler *h = calloc(1, sizeof *h);
    if (h == NULL || FCGX_Init() != 0) {
        free(h);
        return NULL;
    }
    h->config = config;
    h->engine = engine;
    h->out = h->in = -1;
    return h;
}

int handler_warm(struct handler *handler, struct fault *fault)
{
    if (exchange_init(&handler->exchange, handler->config) != 0 || open_pipe(handler) != 0 ||
        FCGX_InitRequest(&handler->fcgx, -1, 0) != 0) {
        return fault_set(fault, "", "no memory or descriptors for a request thread");
    }
    return acceptor_thread_open(&handler->exchange.kerberos, fault);
}

void handler_close(struct handler *handler)
{
    if (handler != NULL) {
        close_pipe(handler);
        acceptor_thread_close(handler->exchange.kerberos);
        exchange_free(&handler->exchange);
        free(handler);
    }
}

static int try_feed(const struct handler *h, const struct guard *guard)
{
    struct guard_records records;
    return guard_format(guard, &records) == 0 &&
                   writev(h->in, records.parts, (int)records.count) == (ssize_t)records.len
               ? 0
               : -1;
}

/* Writes the request into the empty pipe as libfcgi likes it best; if it does not fit, nothing of
 * it is left there. */
static int feed(struct handler *h, const struct guard *guard)
{
    if (try_feed(h, guard) == 0) {
        return 0;
    }
    /* Once more with a pipe that may be a larger one: when many processes of the user had pipes,
     * ours was made small. */
    renew_pipe(h);
    if (try_feed(h, guard) == 0) {
        return 0;
    }
    renew_pipe(h);
    return -1;
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now); /* cannot fail with these clocks */
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void read_request(struct handler *h, const struct connection *c, bool crowded)
{
    struct request *q = &h->exchange.request;
    q->listener = c->station->config;
    q->time_us = clock_us(CLOCK_REALTIME);
    q->mono_us = clock_us(CLOCK_MONOTONIC);
    q->waited_us = q->mono_us > c->since_us ? q->mono_us - c->since_us : 0;
    q->crowded = crowded;
    request_read(h->fcgx.envp, &h->config->audit.request_ids, q);
}

/*
 * Puts the answer, whole, and ends the request: the only place that does. Without an answer (which
 * the exchange makes impossible) nothing is ended: lighttpd would take an unanswered request as
 * granted.
 */
static int put_answer(struct handler *h, const struct connection *c)
{
    const struct span answer = buf_span(&h->exchange.answer);
    int failed = answer.len == 0 ? -1 : 0;
    if (failed == 0) {
        h->fcgx.ipcFd = c->fd;
        failed |=
            FCGX_PutStr((const char *)answer.ptr, (int)answer.len, h->fcgx.out) != (int)answer.len;
        failed |= FCGX_FClose(h->fcgx.err);
        failed |= FCGX_FClose(h->fcgx.out);
    }
    /* libfcgi only frees from here on: it closes no descriptor and has none to write to. */
    h->fcgx.ipcFd = -1;
    h->fcgx.keepConnection = 1;
    FCGX_Finish_r(&h->fcgx);
    return failed == 0 ? 0 : -1;
}

enum guard_cause handler_serve(struct handler *h, const struct connection *c, bool crowded,
                               void (*before_blocking)(void *arg), void *arg)
{
    if (feed(h, &c->guard) != 0) {
        return GUARD_MEMORY;
    }
    h->fcgx.ipcFd = h->out;
    h->fcgx.keepConnection = 1;
    h->fcgx.appStatus = 0;
    if (FCGX_Accept_r(&h->fcgx) != 0 || FCGX_GetError(h->fcgx.in) != 0) {
        /* After a failure libfcgi may have closed its end, and says so by ipcFd. */
        if (h->fcgx.ipcFd < 0) {
            h->out = -1;
        }
        h->fcgx.ipcFd = -1;
        h->fcgx.keepConnection = 1;
        FCGX_Finish_r(&h->fcgx);
        renew_pipe(h);
        return GUARD_LIBRARY;
    }
    read_request(h, c, crowded);
    engine_serve(h->engine, &h->exchange, before_blocking, arg);
    const int failed = put_answer(h, c);
    exchange_clear(&h->exchange);
    return failed != 0 ? GUARD_ANSWER : GUARD_NONE;
}
