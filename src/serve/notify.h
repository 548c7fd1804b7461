/*
 * What the service manager is told over $NOTIFY_SOCKET (the protocol of sd_notify(3)): that we are
 * ready, reload, stop, how we are, and by the watchdog that we are well. Nothing here waits: what
 * does not get through is sent again with the next tick.
 */
#ifndef SERVE_NOTIFY_H
#define SERVE_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { NOTIFY_STATUS_BYTES = 1536 };

struct notify {
    int fd; /* -1: nobody wants to know */
    struct sockaddr_un address;
    socklen_t address_len;
    uint64_t watchdog_ms; /* half of what the manager bears; 0: it does not watch */
    uint64_t fed_ms;      /* when it was told last that we are well */
    uint64_t pulse;       /* and the workers' pulse at that time */
    char unsent[64];      /* a change of state that did not get through yet */
    bool ended;           /* no more states: we stop */
    char refused[NOTIFY_STATUS_BYTES / 2]; /* why the last reload was refused, or "" */
    char status[NOTIFY_STATUS_BYTES];      /* what got through last */
};

/* What the sentence about us is made of. */
struct notify_facts {
    size_t sites;
    unsigned workers; /* that serve */
    unsigned wanted;
    int audit_error; /* errno of the last append; 0: it went well */
    uint64_t pulse;  /* rises as long as some worker's request threads turn */
};

/*
 * Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and takes them out of the environment, so
 * that no worker has them. An address that cannot be used is logged, and nobody is told anything.
 */
void notify_open(struct notify *notify);

/* For the supervisor's end and for its children; what was never opened must be zeroed with fd -1.
 */
void notify_close(struct notify *notify);

/* A generation serves: the first, or one after a reload. */
void notify_ready(struct notify *notify);

/* A reload begins; notify_ready or notify_refused must follow. */
void notify_reloading(struct notify *notify);

/* The reload was refused for this reason; the generation before serves on. */
void notify_refused(struct notify *notify, const char *reason);

/* We stop; nothing more is said. */
void notify_stopping(struct notify *notify);

/* We cannot start, for this reason. */
void notify_failed(struct notify *notify, const char *where, const char *what);

/*
 * Sends again what did not get through, the sentence when it has changed, and, at half of the time
 * that the manager bears, that we are well: that is when the pulse has risen since it was last
 * told. `facts` is NULL as long as nobody serves.
 */
void notify_tick(struct notify *notify, uint64_t now_ms, const struct notify_facts *facts);

#endif
