/*
 * The chain as every process writes it: the lock that all share, the head, the file, and how a line
 * gets there. What a process left half done that died is mended by the next one that holds the
 * lock. The supervisor alone opens further files, and says which one records go to; the others
 * follow as soon as it is not the one that they have open.
 */
#ifndef TRAIL_LEDGER_H
#define TRAIL_LEDGER_H

#include "base/fault.h"
#include "base/lock.h"
#include "trail/audit.h"
#include "trail/audit_format.h"
#include "trail/chain.h"
#include "trail/head.h"
#include "trail/place.h"
#include "trail/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { LEDGER_NODE_BYTES = 256 };

/* What the processes share besides the head; gone when the last of them is. */
struct ledger_shared {
    struct lock lock;
    _Atomic int last_error;
    _Atomic uint32_t sync_failures;
    _Atomic int sync_error; /* of the last of them */
    _Atomic bool unsynced;  /* with `commit`: the last group's records may not be on the disk */
};

struct ledger {
    struct ledger_shared *shared;
    struct head_file head;
    struct store store;
    struct store_options options; /* of further files at the same path */
    char *path;
    struct place place;
    struct head end; /* the supervisor's: after a file has ended, what the next one follows */
    char chain[17];
    char node[LEDGER_NODE_BYTES];
    unsigned char scratch[CHAIN_SCRATCH_BYTES]; /* under the lock, or the supervisor's */
};

/* What a line is made from: one of the two. */
struct ledger_entry {
    const struct audit_record *record;
    const struct audit_format_event *event;
};

/* A line in the making. */
struct ledger_line {
    bool lf;          /* an LF goes before it */
    struct head next; /* the head after it: epoch, from and flags may be changed before it is put */
    size_t len;       /* of the body, from `text + 1` on; later of all */
    char text[1 + AUDIT_RECORD_MAX];
};

/* Opens head and file (flock) and what is shared; says nothing about the chain. */
int ledger_open(const struct audit_options *options, uid_t uid, gid_t gid, struct ledger *out,
                struct fault *fault);

/* Harmless on what is zero, or half open. */
void ledger_close(struct ledger *ledger);

/* Waits at most a second; -1 and errno. */
int ledger_lock(struct ledger *ledger);
void ledger_unlock(struct ledger *ledger);

/* The functions below are called with the lock held. */

/* Follows to the file that records go to and mends what was left half done; -1 and errno: between
 * the end of a file and the opening of the next why that is not there yet, or EAGAIN. */
int ledger_ready(struct ledger *ledger);

/* Opens the file that records go to, wherever it was renamed to in its directory, in place of the
 * one that is open; -1 and errno. */
int ledger_follow(struct ledger *ledger);

/* Formats a line without its end, to follow `after`. */
void ledger_format(const struct ledger *ledger, const struct head *after,
                   const struct ledger_entry *entry, struct ledger_line *line);

/* Closes the line that follows `after`, appends it to `store` and moves the head to `line->next`,
 * which is filled in; -1 and errno, and then the line may yet turn up in the file. */
int ledger_put(struct ledger *ledger, const struct store *store, const struct head *after,
               struct ledger_line *line);

/* Formats and puts a line after the head; `*seq` gets its number. */
int ledger_append(struct ledger *ledger, const struct ledger_entry *entry, uint64_t *seq);

/*
 * Writes `event` after the record that `after` names, behind bytes that are no record and for which
 * it accounts: time and torn bytes are filled in. `line` is what was put.
 */
int ledger_recover(struct ledger *ledger, const struct store *store, const struct head *after,
                   struct span stray, struct audit_format_event *event, struct ledger_line *line);

/* Whether a file's last record is the head, or the one record after it, which is then adopted: a
 * process may have died before it could say that it had written it. */
bool ledger_adopt(struct ledger *ledger, const struct store *store, const struct chain_tail *tail);

/*
 * Makes a file end where `head` says, given its tail: what lacks but its LF is completed, what is
 * torn is closed with `opening`, or with a recovery when that is NULL. An opening is written even
 * when nothing is torn. `head` is moved with what is written, as the shared one is.
 */
int ledger_mend(struct ledger *ledger, const struct store *store, struct head *head,
                const struct chain_tail *tail, struct audit_format_event *opening);

/* Brings what was written to `store` to the disk; -1 and errno as from sync_file, and unless it has
 * only not answered yet all that wait for a sync are told. */
int ledger_sync(struct ledger *ledger, const struct store *store);

/* Tells all that wait for a sync that one has failed. */
void ledger_count_failure(struct ledger *ledger, int error);

/* CLOCK_REALTIME in microseconds and CLOCK_BOOTTIME in milliseconds. */
uint64_t ledger_now_us(void);
uint64_t ledger_mono_ms(void);

#endif
