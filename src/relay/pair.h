/*
 * Two connections joined: the one that Apache made to us (the peer) and the one that we made for it
 * to the daemon. What the one sends, the other gets, and nothing else.
 */
#ifndef RELAY_PAIR_H
#define RELAY_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAIR_BUFFER_BYTES = 8 * 1024 };

/* Bytes on their way: read into an empty buffer only, so a slow reader slows the writer. */
struct pair_flow {
    size_t start;
    size_t end;
    bool ended;  /* nothing more comes */
    bool passed; /* and who gets the bytes knows it */
    unsigned char bytes[PAIR_BUFFER_BYTES];
};

struct pair {
    bool open; /* the other fields mean something */
    bool connecting;
    bool answered; /* at least one byte came from the daemon */
    int peer;
    int daemon;
    uint64_t until_ms; /* when it is over, however far it is */
    struct pair_flow request;
    struct pair_flow answer;
};

enum pair_state {
    PAIR_GOES_ON,
    PAIR_ENDED,    /* in good order, or because the peer went away */
    PAIR_UNASKED,  /* the daemon cannot be reached; errno says why */
    PAIR_SILENT,   /* the daemon closed without an answer */
    PAIR_CUT_SHORT /* the daemon's connection broke; errno says why */
};

/* What to poll the two for; 0 for the daemon: not at all. */
short pair_peer_events(const struct pair *pair);
short pair_daemon_events(const struct pair *pair);

/* Moves what can be moved now; `peer_got` and `daemon_got` are what poll said. */
enum pair_state pair_work(struct pair *pair, short peer_got, short daemon_got);

/* Closes both. */
void pair_close(struct pair *pair);

#endif
