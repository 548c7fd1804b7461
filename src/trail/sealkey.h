/*
 * The keys that seal the trail, one an epoch, each erased when its seal is on the disk. They lie in
 * `<state_dir>/audit.key`, and in memory that only the supervisor can read. The file changes in two
 * steps, so that the key that the trail has announced is in it at any moment: first it holds the
 * present key and the next one, and when the seal that announces the next one is on the disk, that
 * one alone.
 */
#ifndef TRAIL_SEALKEY_H
#define TRAIL_SEALKEY_H

#include "base/fault.h"
#include "base/secret.h"
#include "trail/chain.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What is no secret; the rest is in `page`. */
struct sealkey {
    char path[512];
    struct sealkey_page *page; /* zeros in a child */
    bool found;                /* there is a key */
    bool has_next;             /* and the next one, on the disk as well */
    uint64_t epoch;
    char chain[17]; /* "" before a chain has begun */
    unsigned char first[SECRET_SIGN_PUBLIC_BYTES];
    unsigned char current[SECRET_SIGN_PUBLIC_BYTES];
    unsigned char next[SECRET_SIGN_PUBLIC_BYTES];
    uint64_t from;        /* the first record that no seal covers */
    uint64_t durable_seq; /* a record that was on the disk when `current` became that */
    unsigned char durable_hash[CHAIN_HASH_BYTES];
};

/* Reads the file; `found` says whether there is one. -1 and a fault when it is none of ours. */
int sealkey_open(const char *state_dir, struct sealkey *out, struct fault *fault);

/* Wipes all; harmless when nothing is open. */
void sealkey_close(struct sealkey *keys);

/* Makes the first key, and gives its file to uid:gid unless uid is -1. */
int sealkey_make(struct sealkey *keys, uid_t uid, gid_t gid, struct fault *fault);

/* The first step: makes the next key and writes both. Does nothing when that is done already. */
int sealkey_prepare(struct sealkey *keys, struct fault *fault);

/*
 * The second step: `chain` is on the disk up to the record (`seq`, `hash`), with the seal before
 * `from` that announced the next key; so that key becomes the present one, and the one before is
 * gone. Without a next key it was the chain's opening that announced the first one. On -1 nothing
 * has changed and it can be tried again.
 */
int sealkey_turn(struct sealkey *keys, const char chain[17], uint64_t from, uint64_t seq,
                 const unsigned char hash[CHAIN_HASH_BYTES], struct fault *fault);

/* Signs with the present key. */
void sealkey_sign(const struct sealkey *keys, unsigned char out[SECRET_SIGNATURE_BYTES],
                  struct span bytes);

#endif
