#include "serve/worker.h"

#include "base/log.h"
#include "base/sync.h"
#include "serve/engine.h"
#include "serve/front.h"
#include "serve/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum { DRAIN_STEP_US = 2000 };

static int report(int control, int status, const struct fault *fault)
{
    const struct worker_report message = {.status = status, .fault = *fault};
    while (send(control, &message, sizeof message, MSG_NOSIGNAL) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

/* The supervisor's next word; its end of the pair closed means that it died. */
static enum worker_word wait_word(int control)
{
    for (;;) {
        char byte = 0;
        const ssize_t n = recv(control, &byte, 1, 0);
        if (n == 1) {
            return (enum worker_word)byte;
        }
        if (n == 0 || errno != EINTR) {
            return WORKER_STOP;
        }
    }
}

/* Finishes what is under way; twice the deadline is time enough for every complete request. */
static void drain(struct front *front, const struct config *config, bool backlog)
{
    front_drain(front, backlog);
    unsigned long left = (unsigned long)config->limits.deadline_ms * 2 * 1000 / DRAIN_STEP_US;
    while (!front_drained(front) && left > 0) {
        (void)usleep(DRAIN_STEP_US);
        left--;
    }
    if (left == 0) {
        log_line(LOG_LEVEL_WARNING, "stopped with requests under way: the drain took too long");
        _exit(EX_OK); /* a thread that hangs must not keep us */
    }
}

static void serve(const struct worker_parts *parts, struct front *front)
{
    struct fault fault;
    if (front_begin(front, &fault) != 0) {
        log_line(LOG_LEVEL_ERROR, "%s: %s", fault.where, fault.what);
        return;
    }
    const enum worker_word word = wait_word(parts->control);
    drain(front, parts->generation->config, word != WORKER_DRAIN);
}

int worker_run(const struct worker_parts *parts)
{
    const struct generation *g = parts->generation;
    struct engine *engine = NULL;
    struct front *front = NULL;
    struct fault fault;
    struct fault missing;
    const uint64_t files = generation_files(g);
    sync_part();
    if (audit_part(parts->audit) != 0) {
        log_line(LOG_LEVEL_WARNING,
                 "%s: cannot be opened once more by a worker, which shares the daemon's: %s",
                 g->config->audit.file, strerror(errno));
    }
    int status = sandbox_worker(g->config, &missing);
    const struct engine_parts engine_parts = {.config = g->config,
                                              .keytabs = g->keytabs,
                                              .bindings = g->bindings,
                                              .replay = parts->replay,
                                              .audit = parts->audit,
                                              .metrics = parts->metrics,
                                              .budget = parts->budget,
                                              .site_slots = g->site_slots};
    struct front_parts front_parts = {.config = g->config,
                                      .metrics = parts->metrics,
                                      .listeners = g->listeners,
                                      .listener_count = g->listener_count,
                                      .workers = parts->workers,
                                      .seat = parts->seat,
                                      .descriptors = g->descriptors};
    if (status != 0) {
        (void)report(parts->control, status, &missing);
        goto out;
    }
    status = EX_CONFIG;
    if (engine_open(&engine_parts, &engine, &fault) != 0) {
        (void)report(parts->control, EX_CONFIG, &fault);
        goto out;
    }
    front_parts.engine = engine;
    if (front_open(&front_parts, &front, &fault) != 0) {
        (void)report(parts->control, EX_OSERR, &fault);
        goto out;
    }
    /* The sandbox lets in the krb5.conf that was there; without one, libkrb5 takes its defaults. */
    if (generation_files(g) != files) {
        (void)fault_set(&fault, "krb5.conf", "it, a keytab or a certificate changed meanwhile");
        status = EX_TEMPFAIL;
        (void)report(parts->control, status, &fault);
        goto out;
    }
    status = EX_OK;
    if (report(parts->control, 0, &missing) == 0 && wait_word(parts->control) == WORKER_BEGIN) {
        serve(parts, front);
    }
out:
    front_close(front);
    engine_close(engine);
    return status;
}
