/* Any bytes as a keytab: every key that is read has a principal, and a cut file is never more than
 * the whole. */
#include "auth/keytab.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keytab *keytab = NULL;
    struct fault fault;
    if (keytab_parse(span_make(data, size), "fuzz", &keytab, &fault) != 0) {
        return 0;
    }
    for (size_t i = 0; i < keytab->count; i++) {
        const struct keytab_key *key = &keytab->keys[i];
        if (strchr(key->principal, '@') == NULL || key->key_len == 0 || key->key == NULL) {
            abort();
        }
    }
    struct keytab *cut = NULL;
    if (keytab_parse(span_make(data, size - 1), "fuzz", &cut, &fault) == 0) {
        if (cut->count > keytab->count) {
            abort();
        }
        keytab_free(cut);
    }
    keytab_free(keytab);
    return 0;
}
