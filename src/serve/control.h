/*
 * The control socket, runtime_dir/control.sock: whoever is root or our own user asks one line there
 * and is given one answer. The supervisor's poll serves it, and nothing here ever waits: a peer
 * that is silent, or does not read, has two seconds and is closed.
 */
#ifndef SERVE_CONTROL_H
#define SERVE_CONTROL_H

#include "base/bytes.h"
#include "base/fault.h"
#include "conf/config.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONTROL_PEERS_MAX = 8,
    CONTROL_FDS = CONTROL_PEERS_MAX + 1,
    CONTROL_REQUEST_MAX = 64,             /* with its LF */
    CONTROL_ANSWER_MAX = 4 * 1024 * 1024, /* with its LF */
};

struct control;

/*
 * Binds the socket (mode 0600, the configured user's), as long as we may still be root. One that
 * nobody answers on any more is replaced, a living one is a fault. Returns 0 or the exit status
 * that the fault means.
 */
int control_open(const struct config *config, struct control **out, struct fault *fault);

/* Closes everything, in a worker, too; with `unlink_path` the socket is removed. NULL is allowed.
 */
void control_close(struct control *control, bool unlink_path);

/* What to poll for; entries that are not in use have descriptor -1. */
void control_poll(const struct control *control, struct pollfd fds[CONTROL_FDS]);

/* Appends the answer to one request, without its LF; false if there is no such request. */
struct control_answers {
    bool (*append)(void *arg, struct span request, struct buf *out);
    void *arg;
};

/* After the poll, and at least every second: reads, answers, writes, closes. */
void control_serve(struct control *control, const struct pollfd fds[CONTROL_FDS],
                   const struct control_answers *answers);

#endif
