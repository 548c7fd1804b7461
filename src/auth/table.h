/* The replay table's file: made whole, taken over from another size, and known after a power cut.
 */
#ifndef AUTH_TABLE_H
#define AUTH_TABLE_H

#include "base/boot.h"
#include "base/fault.h"
#include "base/secret.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The file: one page of header, then groups of GROUP_SLOTS slots. An authenticator's keyed hash
 * names its group; within it the slots are searched one after the other. There are twice as many
 * slots as entries are promised, and groups are so large that a group overflows (and refuses)
 * practically only when the whole table is full, and a principal's share of it only when the
 * principal holds an eighth of what is promised: with groups of 64 a principal with a twentieth was
 * refused now and then.
 */
enum { TABLE_HEADER_BYTES = 4096, GROUP_SLOTS = 256 };

struct header {
    char magic[16];
    uint64_t groups;
    uint64_t ready; /* written last when a table is made */
    unsigned char key[SECRET_KEY_BYTES];
    uint64_t made_us; /* nothing from before that is remembered */
    uint64_t lost;    /* there was a table before, and its entries are not here */
    _Atomic uint64_t
        forgotten_s;          /* the latest authenticator's time of an entry that was given up */
    char boot[BOOT_ID_BYTES]; /* the start of the host since which it is in use */
    uint64_t settled;         /* 1: all that it ever held is on the disk */
};

/*
 * An empty or run-out slot has expires_s in the past. `expires_s` is written last: a worker that
 * dies while it writes leaves a slot that is still empty, and it had not granted anything yet.
 */
struct slot {
    uint64_t id; /* of the authenticator; its low bits name the group, too */
    uint64_t seq;
    uint32_t principal;
    uint32_t context; /* 0: nothing repeats this */
    uint32_t arrived_s;
    uint32_t expires_s;
};

_Static_assert(sizeof(struct slot) == 32, "two slots a cache line");
_Static_assert(sizeof(struct header) <= TABLE_HEADER_BYTES, "the header has its page");

/* A table in use. Workers can write what is mapped, and nothing else of this. */
struct table {
    struct header *header; /* the mapped file */
    struct slot *slots;
    size_t bytes;
    uint64_t groups;
};

/*
 * Opens `state_dir`/replay.table for at least `entries` live entries, or makes it, and begins with
 * its use: a table that was in use when the host went down may lack entries, and counts as lost.
 */
int table_open(const char *state_dir, uint64_t entries, struct table *out, struct fault *fault);

/* Unmaps it. */
void table_close(struct table *table);

/* Ends its use: all that it holds goes to the disk. */
void table_settle(const struct table *table);

/* The first slot of an identity's group. */
size_t table_group(uint64_t groups, uint64_t id);

/* Notes that the entry, of which nothing will be known any more, was there. */
void table_forget(struct header *header, const struct slot *slot);

#endif
