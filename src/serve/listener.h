/* Listening sockets: made by the supervisor, inherited by the workers, kept over a reload. */
#ifndef SERVE_LISTENER_H
#define SERVE_LISTENER_H

#include "base/fault.h"
#include "conf/config.h"

#include <stdbool.h>

/*
 * Binds and listens (non-blocking, close-on-exec) as `config` says; the descriptor goes to `*fd`. A
 * stale unix socket is replaced; a living one, or anything that is no socket, is a fault. For a
 * `socket` it is the descriptor that the service manager passed under that name (LISTEN_PID,
 * LISTEN_FDS, LISTEN_FDNAMES), which must be a listening stream socket, unix or TCP; it is not the
 * caller's to close. Returns 0 or the exit status (sysexits) that the fault means, for example
 * EX_TEMPFAIL when another daemon serves the address.
 */
int listener_open(const struct config_listener *config, int *fd, struct fault *fault);

/*
 * How many descriptors, from 3 on, were passed to this process. Before it opens anything, what is
 * not open of them must be filled, or a file of ours would be taken for one.
 */
unsigned listener_passed(void);

/*
 * Whether each descriptor that the service manager passed is some listener's: at one that is not,
 * clients would wait for ever. Returns 0 or the exit status.
 */
int listener_check_passed(const struct config *config, struct fault *fault);

/* For a worker: takes what listener_open reads out of the environment. */
void listener_forget_passed(void);

/* Removes a unix socket's path, if it is still a socket; the descriptor stays usable. */
void listener_unlink(const struct config_listener *config);

/* Whether two configured listeners are the same socket with the same mode and group. */
bool listener_equal(const struct config_listener *a, const struct config_listener *b);

/* Whether descriptor 0 is a listening socket; it is then made non-blocking. */
bool listener_inherited(void);

/* Whether somebody waits to be accepted. */
bool listener_waits(int fd);

/* Whether the peer of an accepted connection may connect: `peers`, `allow_remote`, loopback. */
bool listener_admits(const struct config_listener *config, int fd,
                     const struct sockaddr_storage *peer);

#endif
