/* Mechanisms in words. */
#include "wire/spnego.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The numbers of an OID with dots between; false when one or all of them are too long. */
static bool put_numbers(struct span oid, char *out, size_t size)
{
    uint64_t arc = 0;
    size_t at = 0;

    for (size_t i = 0; i < oid.len; i++) {
        int n;

        if (arc > UINT64_MAX >> 7) {
            return false;
        }
        arc = arc << 7 | (oid.ptr[i] & 0x7f);
        if ((oid.ptr[i] & 0x80) != 0) {
            continue;
        }
        if (at == 0) { /* the first two are one: 40 * a + b, a <= 2 */
            uint64_t a = arc >= 80 ? 2 : arc / 40;

            n = snprintf(out, size, "%u.%llu", (unsigned)a, (unsigned long long)(arc - 40 * a));
        } else {
            n = snprintf(out + at, size - at, ".%llu", (unsigned long long)arc);
        }
        if (n < 0 || (size_t)n >= size - at) {
            return false;
        }
        at += (size_t)n;
        arc = 0;
    }
    return true;
}

const char *spnego_mech_text(struct span oid, char out[SPNEGO_MECH_BYTES])
{
    static const struct {
        const char *numbers;
        const char *text;
    } known[] = {
        {"1.2.840.113554.1.2.2", "krb5"},   {"1.2.840.48018.1.2.2", "MS-krb5"},
        {"1.3.6.1.4.1.311.2.2.10", "NTLM"}, {"1.3.6.1.4.1.311.2.2.30", "NEGOEX"},
        {"1.3.6.1.5.5.2", "SPNEGO"},        {"1.2.840.113554.1.2.2.3", "krb5 user-to-user"},
        {"1.3.6.1.5.2.5", "IAKERB"},
    };
    char numbers[SPNEGO_MECH_BYTES - 32] = "";
    bool whole = put_numbers(oid, numbers, sizeof(numbers));

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (whole && strcmp(numbers, known[i].numbers) == 0) {
            (void)snprintf(out, SPNEGO_MECH_BYTES, "%s (%s)", known[i].text, numbers);
            return out;
        }
    }
    (void)snprintf(out, SPNEGO_MECH_BYTES, "%s%s", numbers, whole ? "" : "...");
    return out;
}
