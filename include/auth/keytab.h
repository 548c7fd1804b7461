/*
 * A keytab file read into memory by our own strict reader, without libkrb5: the supervisor reads it
 * before it forks, workers build their acceptor from it, `check` prints it. A file that does not
 * end at the end of an entry is refused (half written, or cut), where the library would silently
 * take what came before.
 */
#ifndef AUTH_KEYTAB_H
#define AUTH_KEYTAB_H

#include "base/bytes.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

enum { KEYTAB_FILE_MAX = 16 * 1024 * 1024 };

struct keytab_key {
    char *principal; /* unparsed with realm and with the quoting of krb5_unparse_name */
    uint32_t kvno;
    int32_t enctype;
    uint32_t timestamp_s; /* when the key was written into the keytab */
    unsigned char *key;
    size_t key_len;
};

struct keytab {
    struct keytab_key *keys; /* in the order of the file, deleted entries left out */
    size_t count;
};

/*
 * Reads the keytab at `path` (format 0x0502, at most KEYTAB_FILE_MAX bytes, at least one key).
 * The fault names the path and what is wrong: errno with our uid, the offset of the broken entry.
 */
int keytab_load(const char *path, struct keytab **out, struct fault *fault);

/* The same from bytes; `where` is the path for the fault. */
int keytab_parse(struct span file, const char *where, struct keytab **out, struct fault *fault);

/* Wipes the keys and frees; NULL is allowed. */
void keytab_free(struct keytab *keytab);

/* The usual word for an enctype ("aes256-cts-hmac-sha1-96"); "enctype-N" in `out` for an unknown
 * one. */
enum { KEYTAB_ENCTYPE_BYTES = 40 };
const char *keytab_enctype_text(int32_t enctype, char out[KEYTAB_ENCTYPE_BYTES]);

/* Whether an enctype is DES, 3DES or RC4. */
bool keytab_enctype_weak(int32_t enctype);

#endif
