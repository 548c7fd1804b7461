/*
 * Makes good trails for tests, written from the description of the format and not from the code:
 * takes lines whose hashes, keys and signatures are zeros, and puts the right ones there. What is
 * not zeros stays, right or wrong; only `h` is always made anew.
 */
#ifndef TESTS_TRAIL_MEND_H
#define TESTS_TRAIL_MEND_H

#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct mend {
    uint64_t family; /* another one has other keys */
    unsigned char prev[32];
};

static inline void mend_key(uint64_t family, uint64_t epoch, unsigned char public[32],
                            unsigned char secret[64])
{
    unsigned char number[16];
    unsigned char seed[32];

    memcpy(number, &family, 8);
    memcpy(number + 8, &epoch, 8);
    (void)crypto_hash_sha256(seed, number, sizeof(number));
    (void)crypto_sign_seed_keypair(public, secret, seed);
}

static inline void mend_hex(char *out, const unsigned char *bytes, size_t len)
{
    char text[2 * 64 + 1];

    sodium_bin2hex(text, sizeof(text), bytes, len);
    memcpy(out, text, 2 * len);
}

/* Where the value after `key` begins, or NULL. */
static inline char *mend_find(char *line, size_t len, const char *key)
{
    char *found = memmem(line, len, key, strlen(key));

    return found == NULL ? NULL : found + strlen(key);
}

static inline uint64_t mend_number(char *line, size_t len, const char *key)
{
    char *digits = mend_find(line, len, key);
    char text[21] = "";

    if (digits == NULL) {
        return 0;
    }
    strncpy(text, digits, (size_t)(line + len - digits) < 20 ? (size_t)(line + len - digits) : 20);
    return strtoull(text, NULL, 10);
}

/* The place of `bytes` in hexadecimal after `key`, if there is room for them; with `zeros` only
 * where all digits are 0. */
static inline char *mend_place(char *line, size_t len, const char *key, size_t bytes, bool zeros)
{
    char *place = mend_find(line, len, key);

    if (place == NULL || (size_t)(line + len - place) < 2 * bytes) {
        return NULL;
    }
    for (size_t i = 0; zeros && i < 2 * bytes; i++) {
        if (place[i] != '0') {
            return NULL;
        }
    }
    return place;
}

static inline void mend_put(char *line, size_t len, const char *key, const unsigned char *bytes,
                            size_t count)
{
    char *place = mend_place(line, len, key, count, true);

    if (place != NULL) {
        mend_hex(place, bytes, count);
    }
}

static inline void mend_hash(unsigned char out[32], const char *label, const unsigned char *prev,
                             const char *text, size_t len)
{
    crypto_hash_sha256_state state;

    (void)crypto_hash_sha256_init(&state);
    (void)crypto_hash_sha256_update(&state, (const unsigned char *)label, strlen(label) + 1);
    (void)crypto_hash_sha256_update(&state, prev, 32);
    (void)crypto_hash_sha256_update(&state, (const unsigned char *)text, len);
    (void)crypto_hash_sha256_final(&state, out);
}

/* The hash that the line follows. */
static inline void mend_prev(struct mend *mend, char *line, size_t len)
{
    const char *key = NULL;

    if (mend_find(line, len, "\"event\":\"chain.open\"") != NULL) {
        memset(mend->prev, 0, 32);
    } else if (mend_find(line, len, "\"event\":\"segment.open\"") != NULL) {
        key = "\"prev_h\":\"";
    } else if (mend_find(line, len, "\"result\":\"records_missing\"") != NULL) {
        key = "\"lost_h\":\"";
    }
    if (key != NULL) {
        char *place;

        mend_put(line, len, key, mend->prev, 32);
        place = mend_place(line, len, key, 32, false);
        if (place != NULL) {
            (void)sodium_hex2bin(mend->prev, 32, place, 64, NULL, NULL, NULL);
        }
    }
}

/* One line, LF included, after `stray` bytes that are no record; false when it has no place for its
 * hash, and so is no record. */
static inline bool mend_line(struct mend *mend, char *line, size_t len, const char *stray,
                             size_t stray_len)
{
    uint64_t epoch = mend_number(line, len, "\"epoch\":");
    unsigned char public[32];
    unsigned char secret[64];
    unsigned char bytes[64];
    unsigned char hash[32];
    char *sig;

    if (len < 74 || memcmp(line + len - 73, ",\"h\":\"", 6) != 0 ||
        memcmp(line + len - 3, "\"}\n", 3) != 0) {
        return false;
    }
    if (stray_len > 0) {
        (void)crypto_hash_sha256(bytes, (const unsigned char *)stray, stray_len - 1);
        mend_put(line, len, "\"torn_sha256\":\"", bytes, 32);
    }
    mend_prev(mend, line, len);
    mend_key(mend->family, epoch, public, secret);
    mend_put(line, len, "\"pk\":\"", public, 32);
    mend_key(mend->family, epoch + 1, public, secret);
    mend_put(line, len, "\"next_pk\":\"", public, 32);
    sig = mend_place(line, len, ",\"sig\":\"", 64, true);
    if (sig != NULL) {
        mend_key(mend->family, epoch, public, secret);
        mend_hash(hash, "audit-seal-v1", mend->prev, line,
                  (size_t)(sig - line) - strlen(",\"sig\":\""));
        (void)crypto_sign_detached(bytes, NULL, hash, 32, secret);
        mend_hex(sig, bytes, 64);
    }
    mend_hash(mend->prev, "audit-rec-v1", mend->prev, line, len - 73);
    mend_hex(line + len - 67, mend->prev, 32);
    return true;
}

/* All lines of a text, which may be those of several files one after the other. */
static inline void mend_text(struct mend *mend, char *text, size_t len)
{
    size_t stray = 0;
    size_t at = 0;

    while (at < len) {
        char *lf = memchr(text + at, '\n', len - at);
        size_t next;

        if (lf == NULL) {
            break;
        }
        next = (size_t)(lf - text) + 1;
        if (mend_line(mend, text + at, next - at, text + stray, at - stray)) {
            stray = next;
        }
        at = next;
    }
}

#endif
