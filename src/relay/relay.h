/*
 * The loop: accepts on a listening socket and joins each connection to one of its own to the
 * daemon.
 */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include <stdint.h>
#include <sys/socket.h>

struct relay_target {
    const char *text; /* as it was written on the command line */
    struct sockaddr_storage address;
    socklen_t address_bytes;
};

/* PATH of a unix socket, or HOST:PORT of a loopback address. NULL, or what is wrong with it. */
const char *relay_target_parse(const char *text, struct relay_target *target);

/*
 * Serves until SIGTERM, SIGINT, SIGHUP or SIGUSR1, then ends what is under way, for 2 s at most. A
 * connection that is not over after `limit_ms` is closed. 0, or -1 with errno: polling failed.
 */
int relay_run(int listener, const struct relay_target *target, uint64_t limit_ms);

#endif
