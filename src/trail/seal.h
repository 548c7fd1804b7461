/*
 * Seals: the supervisor's signatures over the chain, each with a key of its own. What is sealed was
 * recomputed from the file before, by a walk that remembers on its own where it stands: what lies
 * in shared memory is only compared with it.
 */
#ifndef TRAIL_SEAL_H
#define TRAIL_SEAL_H

#include "base/fault.h"
#include "trail/ledger.h"
#include "trail/sealkey.h"

#include <stdbool.h>
#include <stdint.h>

struct seal {
    struct sealkey keys;
    struct chain_walk walk;
    uint64_t from;    /* the first record that no seal covers */
    uint64_t own_seq; /* of the seal that `walk` may meet */
    uint64_t made_us; /* when the last seal was finished, since 1970; 0: none by this process */
    uint64_t broken;  /* how often the chain had to be given up */
    bool misfit;      /* the last time could not be recorded yet */
    bool announced;   /* the last seal is written, but its key's change is not finished: */
    uint64_t announced_seq;
    uint64_t announced_from;
    unsigned char announced_hash[CHAIN_HASH_BYTES];
};

/* Recomputes a part of what was appended, `most` bytes or a little more. Needs no lock. */
void seal_look(struct seal *seal, struct ledger *ledger, uint64_t most);

/* Whether there is anything to seal, or a seal to be finished. */
bool seal_is_due(const struct seal *seal, const struct ledger *ledger);

enum seal_proof {
    SEAL_UNREADABLE, /* what the file holds is not known */
    SEAL_PROVEN,
    SEAL_STUCK /* as far as the walk, but nothing can be written there */
};

/*
 * Under the lock: walks to the end of the file and compares it with the head. What does not fit is
 * given up, and that recorded (`chain_broken`), with a fault.
 */
enum seal_proof seal_prove(struct seal *seal, struct ledger *ledger, struct fault *fault);

/* The head as the walk has found it to be: what comes next follows that. */
struct head seal_end(const struct seal *seal, const struct ledger *ledger);

/*
 * Makes a seal: before the lock, under it, and after it. `text` says what was sealed ("" if
 * nothing), in one line; `fault` why not, or that the file had to be given up from some record on,
 * with `what` "" where all is well. The record of the seal has `flags` in its head.
 */
int seal_make(struct seal *seal, struct ledger *ledger, uint64_t flags, char text[AUDIT_SEAL_TEXT],
              struct fault *fault);

/* The three parts of it; a seal is told of when its key is gone. */
int seal_prepare(struct seal *seal, struct ledger *ledger, char text[AUDIT_SEAL_TEXT],
                 struct fault *fault);
int seal_write(struct seal *seal, struct ledger *ledger, uint64_t flags, struct fault *fault);
int seal_finish(struct seal *seal, struct ledger *ledger, char text[AUDIT_SEAL_TEXT],
                struct fault *fault);

/* The key that the next seal is made with, as an opening announces it. */
void seal_key(const struct seal *seal, uint64_t *epoch, char public_key[65]);

/* From here on the walk begins at the end of the ledger's file, after this line; under the lock. */
int seal_restart(struct seal *seal, const struct ledger *ledger, uint64_t next_seq,
                 const unsigned char hash[CHAIN_HASH_BYTES]);

#endif
