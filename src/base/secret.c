#include "base/secret.h"

#include <sodium.h>

_Static_assert(SECRET_SHA256_BYTES == crypto_hash_sha256_BYTES, "SHA-256 has 32 bytes");
_Static_assert(SECRET_KEY_BYTES == crypto_generichash_KEYBYTES, "keys have 32 bytes");
_Static_assert(SECRET_HASH_BYTES == crypto_generichash_BYTES, "keyed hashes have 32 bytes");

int secret_init(void)
{
    return sodium_init() < 0 ? -1 : 0;
}

const char *secret_version(void)
{
    return sodium_version_string();
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
    crypto_hash_sha256_state state;
    (void)crypto_hash_sha256_init(&state);
    for (size_t i = 0; i < count; i++) {
        (void)crypto_hash_sha256_update(&state, parts[i].ptr, parts[i].len);
    }
    (void)crypto_hash_sha256_final(&state, out);
}

void secret_hash(unsigned char out[SECRET_HASH_BYTES], const unsigned char *key, struct span bytes)
{
    (void)crypto_generichash(out, SECRET_HASH_BYTES, bytes.ptr, bytes.len, key, SECRET_KEY_BYTES);
}

void secret_hex(char *out, const unsigned char *bytes, size_t len)
{
    (void)sodium_bin2hex(out, 2 * len + 1, bytes, len);
}
