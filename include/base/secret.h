/*
 * Cryptography and secrets: wiping, randomness, hashes, signatures. SHA-256 is nettle's, which uses
 * the processor's own instructions; all else is libsodium's.
 */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SECRET_SHA256_BYTES = 32,
    SECRET_KEY_BYTES = 32,
    SECRET_HASH_BYTES = 32,
    SECRET_SIGN_PUBLIC_BYTES = 32,
    SECRET_SIGN_KEY_BYTES = 64, /* its second half is the public key */
    SECRET_SIGNATURE_BYTES = 64
};

/*
 * Must be called once in each program before anything else here; -1 if no randomness is to be had.
 */
int secret_init(void);

/* The versions of libsodium and nettle that were loaded, into `out`. */
void secret_version(char *out, size_t size);

/* Overwrites memory in a way that the compiler keeps. */
void secret_wipe(void *ptr, size_t len);

/* Fills `out` with random bytes. */
void secret_random(void *out, size_t len);

/* SHA-256 over up to four parts one after the other. */
void secret_sha256(unsigned char out[SECRET_SHA256_BYTES], const struct span *parts, size_t count);

/* Keyed BLAKE2b-256 of `bytes`; keys are SECRET_KEY_BYTES long. */
void secret_hash(unsigned char out[SECRET_HASH_BYTES], const unsigned char *key, struct span bytes);

/* Lower-case hexadecimal of `len` bytes and a terminator into `out`, which holds 2 * len + 1. */
void secret_hex(char *out, const unsigned char *bytes, size_t len);

/* A new Ed25519 key. */
void secret_sign_make(unsigned char key[SECRET_SIGN_KEY_BYTES]);

/* The detached Ed25519 signature of `bytes`. */
void secret_sign(unsigned char out[SECRET_SIGNATURE_BYTES],
                 const unsigned char key[SECRET_SIGN_KEY_BYTES], struct span bytes);

/* Whether it is the one that the owner of `public_key` made of `bytes`. */
bool secret_sign_verify(const unsigned char signature[SECRET_SIGNATURE_BYTES],
                        const unsigned char public_key[SECRET_SIGN_PUBLIC_BYTES],
                        struct span bytes);

/*
 * Zeroed memory for keys of this process alone: a forked child reads zeros, a core dump leaves it
 * out, and it is not swapped out where the process may lock memory. NULL and errno.
 */
void *secret_page_open(size_t bytes);

/* Wipes and gives it back; NULL is allowed. */
void secret_page_close(void *page, size_t bytes);

#endif
