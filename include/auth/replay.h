/*
 * Own replay protection: every authenticator that was accepted is remembered in a table in
 * state_dir until no acceptor would take it any more. All workers share the table; it survives
 * them, the daemon and a reboot.
 */
#ifndef AUTH_REPLAY_H
#define AUTH_REPLAY_H

#include "base/bytes.h"
#include "base/fault.h"
#include "base/reason.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct replay;

/*
 * Opens or makes `state_dir`/replay.table for at least `entries` live entries; called before any
 * fork. A new table knows when it was made, and whether there was one before it. A table of another
 * size takes over the live entries of the old one. One that was in use when the host went down may
 * lack entries, and counts as made now in place of a lost one. -1 and a fault if it cannot be used;
 * a damaged header is a fault.
 */
int replay_open(const char *state_dir, uint64_t entries, struct replay **out, struct fault *fault);

/* The process that opened the table brings it to the disk, so that no start of the host doubts it:
 * when nobody uses it any more. NULL is allowed. */
void replay_close(struct replay *replay);

enum { REPLAY_CONTEXT_MAX = 8, REPLAY_REPEAT_S = 30 };

/* One use of a token. All spans are borrowed for the call. */
struct replay_use {
    struct span
        authenticator;     /* its cipher octets, and only they: a thief can alter all around them */
    struct span principal; /* kept as a hash, to bound what one principal may hold */
    struct span
        context[REPLAY_CONTEXT_MAX]; /* what tells the client request that this belongs to */
    size_t context_count;            /* 0: nothing tells it */
    uint64_t now_s;                  /* wall-clock time */
    uint64_t ctime_us; /* the authenticator's own time, if replay_wants_ctime; 0: not known */
    uint32_t keep_s;   /* how long an entry lives: twice the allowed clock skew and a second */
};

/* Where a use is remembered. */
struct replay_entry {
    size_t slot;
    uint64_t id;
    uint64_t seq; /* with REPEAT: the record of the first use, or 0 */
};

/*
 * Tests and sets in one step: OK if this authenticator was never seen, and it is from now on;
 * REPEAT if it was, at most REPLAY_REPEAT_S ago and with the same context; else REPLAY. REPLAY_FULL
 * if there is no room, or the principal holds its eighth; REPLAY_UNAVAILABLE if the table's lock
 * cannot be had within a second, or if the table may have forgotten this authenticator and its time
 * cannot rule that out.
 * `*entry` is written with OK and REPEAT.
 */
enum reason replay_check(struct replay *replay, const struct replay_use *use,
                         struct replay_entry *entry);

/*
 * Whether the table may have forgotten authenticators that would still be accepted at `now_s`: for
 * some minutes after it was made anew, and after the clock went back. Then replay_check needs
 * ctime_us.
 */
bool replay_wants_ctime(const struct replay *replay, uint64_t now_s, uint32_t keep_s);

/* The latest authenticator's time that the table may have forgotten, in microseconds since 1970. */
uint64_t replay_floor_us(const struct replay *replay, uint32_t keep_s);

/* Notes the record of a first use, for its repeats; nothing happens if it is forgotten already. */
void replay_note(struct replay *replay, const struct replay_entry *entry, uint64_t seq);

/* lock_stuck_holder and lock_break of the table's locks. */
pid_t replay_stuck_holder(struct replay *replay);
void replay_break_lock(struct replay *replay, pid_t thread);

/*
 * How many entries are live at `now_s`, and how many the table bears. Cheap, and right as long as
 * entries live for less than two hours. Workers can write what this reads.
 */
void replay_usage(const struct replay *replay, uint64_t now_s, uint64_t *live, uint64_t *capacity);

#endif
