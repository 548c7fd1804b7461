#include "base/secret.h"

#include <nettle/sha2.h>
#include <nettle/version.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/mman.h>

_Static_assert(SECRET_SHA256_BYTES == SHA256_DIGEST_SIZE, "SHA-256 has 32 bytes");
_Static_assert(SECRET_KEY_BYTES == crypto_generichash_KEYBYTES, "keys have 32 bytes");
_Static_assert(SECRET_HASH_BYTES == crypto_generichash_BYTES, "keyed hashes have 32 bytes");

_Static_assert(SECRET_SIGN_PUBLIC_BYTES == crypto_sign_ed25519_PUBLICKEYBYTES &&
                   SECRET_SIGN_KEY_BYTES == crypto_sign_ed25519_SECRETKEYBYTES &&
                   SECRET_SIGNATURE_BYTES == crypto_sign_ed25519_BYTES,
               "Ed25519");

int secret_init(void)
{
    return sodium_init() < 0 ? -1 : 0;
}

void secret_version(char *out, size_t size)
{
    (void)snprintf(out, size, "libsodium %s, nettle %d.%d", sodium_version_string(),
                   nettle_version_major(), nettle_version_minor());
}

void secret_wipe(void *ptr, size_t len)
{
    sodium_memzero(ptr, len);
}

void secret_random(void *out, size_t len)
{
    randombytes_buf(out, len);
}

void secret_sha256(unsigned char out[SECRET_SHA256_BYTES], const struct span *parts, size_t count)
{
    struct sha256_ctx state;
    sha256_init(&state);
    for (size_t i = 0; i < count; i++) {
        sha256_update(&state, parts[i].len, parts[i].ptr);
    }
    sha256_digest(&state, SECRET_SHA256_BYTES, out);
    secret_wipe(&state, sizeof state); /* keys are hashed, too */
}

void secret_hash(unsigned char out[SECRET_HASH_BYTES], const unsigned char *key, struct span bytes)
{
    (void)crypto_generichash(out, SECRET_HASH_BYTES, bytes.ptr, bytes.len, key, SECRET_KEY_BYTES);
}

void secret_hex(char *out, const unsigned char *bytes, size_t len)
{
    (void)sodium_bin2hex(out, 2 * len + 1, bytes, len);
}

void secret_sign_make(unsigned char key[SECRET_SIGN_KEY_BYTES])
{
    unsigned char public_key[SECRET_SIGN_PUBLIC_BYTES];
    (void)crypto_sign_ed25519_keypair(public_key, key);
}

void secret_sign(unsigned char out[SECRET_SIGNATURE_BYTES],
                 const unsigned char key[SECRET_SIGN_KEY_BYTES], struct span bytes)
{
    (void)crypto_sign_ed25519_detached(out, NULL, bytes.ptr, bytes.len, key);
}

bool secret_sign_verify(const unsigned char signature[SECRET_SIGNATURE_BYTES],
                        const unsigned char public_key[SECRET_SIGN_PUBLIC_BYTES], struct span bytes)
{
    return crypto_sign_ed25519_verify_detached(signature, bytes.ptr, bytes.len, public_key) == 0;
}

void *secret_page_open(size_t bytes)
{
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return NULL;
    }
    if (madvise(page, bytes, MADV_WIPEONFORK) != 0 || madvise(page, bytes, MADV_DONTDUMP) != 0) {
        (void)munmap(page, bytes);
        return NULL;
    }
    (void)sodium_mlock(page, bytes); /* best effort: RLIMIT_MEMLOCK may be nothing */
    return page;
}

void secret_page_close(void *page, size_t bytes)
{
    if (page != NULL) {
        (void)sodium_munlock(page, bytes); /* wipes, too */
        (void)munmap(page, bytes);
    }
}
