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

#include <stdint.h>

struct replay;

/*
 * Opens or makes `state_dir`/replay.table for at least `entries` live entries; called before any
 * fork. `keep_s` is how long an entry lives: twice the allowed clock skew and a second. A table of
 * another size takes over the live entries of the old one. -1 and a fault if it cannot be used; a
 * damaged header is a fault.
 */
int replay_open(const char *state_dir, uint64_t entries, struct replay **out, struct fault *fault);

/* NULL is allowed. */
void replay_close(struct replay *replay);

/*
 * Tests and sets in one step: OK if this authenticator's cipher octets (and only they: everything
 * around them can be altered by a thief) were never seen, and they are from now on; REPLAY if they
 * were; REPLAY_FULL if there is no room, or the principal holds its eighth; REPLAY_UNAVAILABLE if
 * the table's lock cannot be had within a second. `now_s` is wall-clock time; `principal` is kept
 * as a hash, to bound what one principal may hold.
 */
enum reason replay_check(struct replay *replay, struct span authenticator, struct span principal,
                         uint64_t now_s, uint32_t keep_s);

/* How many entries are live at `now_s`, and how many the table bears; walks the table. */
void replay_usage(const struct replay *replay, uint64_t now_s, uint64_t *live, uint64_t *capacity);

#endif
