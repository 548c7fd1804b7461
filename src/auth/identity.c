#include "auth/identity.h"

#include <stdbool.h>
#include <string.h>

/* One character of a quoted name; quoting as libkrb5's, so that its parser gives back the same
 * principal. */
static int put_quoted(char *out, size_t size, size_t *at, unsigned char c)
{
    char quoted = '\0';
    switch (c) {
    case '\n':
        quoted = 'n';
        break;
    case '\t':
        quoted = 't';
        break;
    case '\b':
        quoted = 'b';
        break;
    case '\0':
        quoted = '0';
        break;
    case '\\':
    case '/':
    case '@':
        quoted = (char)c;
        break;
    default:
        break;
    }
    if (*at + (quoted != '\0' ? 2 : 1) >= size) {
        return -1;
    }
    if (quoted != '\0') {
        out[(*at)++] = '\\';
        c = (unsigned char)quoted;
    }
    out[(*at)++] = (char)c;
    return 0;
}

static int put_part(char *out, size_t size, size_t *at, struct span part)
{
    for (size_t i = 0; i < part.len; i++) {
        if (put_quoted(out, size, at, part.ptr[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

int identity_unparse(const struct span *components, size_t count, struct span realm, char *out,
                     size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            if (at + 1 >= size) {
                return -1;
            }
            out[at++] = '/';
        }
        if (put_part(out, size, &at, components[i]) != 0) {
            return -1;
        }
    }
    if (at + 1 >= size) {
        return -1;
    }
    out[at++] = '@';
    if (put_part(out, size, &at, realm) != 0) {
        return -1;
    }
    out[at] = '\0';
    return 0;
}

/* The principal inside an exported name: 04 01, OID length and OID, name length, name; nothing
 * after it. */
static struct span exported_principal(struct span token)
{
    static const unsigned char krb5[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                         0xf7, 0x12, 0x01, 0x02, 0x02};
    const struct span none = {NULL, 0};
    const size_t head = 4 + sizeof krb5 + 4;
    const unsigned char *p = token.ptr;
    if (token.len < head || p[0] != 0x04 || p[1] != 0x01 || p[2] != 0 || p[3] != sizeof krb5 ||
        memcmp(p + 4, krb5, sizeof krb5) != 0) {
        return none;
    }
    const unsigned char *n = p + 4 + sizeof krb5;
    const size_t len = (size_t)n[0] << 24 | (size_t)n[1] << 16 | (size_t)n[2] << 8 | n[3];
    return len == token.len - head ? span_make(n + 4, len) : none;
}

/* Length of the UTF-8 character at `p` if it is one that may stand in a principal, else 0. */
static size_t good_character(const unsigned char *p, size_t len)
{
    if (p[0] < 0x80) {
        return p[0] >= 0x20 && p[0] != 0x7f ? 1 : 0;
    }
    size_t need = 0;
    unsigned code = 0;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        need = 2;
        code = p[0] & 0x1fu;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        need = 3;
        code = p[0] & 0x0fu;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        need = 4;
        code = p[0] & 0x07u;
    }
    if (need == 0 || need > len) {
        return 0;
    }
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (p[i] & 0x3fu);
    }
    static const unsigned smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    /*
     * C1 controls, line separators, invisible characters and the marks that turn the direction of
     * text deceive a reader.
     */
    const bool deceiving =
        (code >= 0x80 && code <= 0x9f) || code == 0x61c || (code >= 0x200b && code <= 0x200f) ||
        (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) || code == 0xfeff;
    return code < smallest[need] || code > 0x10ffff || surrogate || deceiving ? 0 : need;
}

/* Component or realm: not empty, no quoted character (libkrb5 quotes every space, too). */
static bool good_part(const char *part, size_t len)
{
    if (len == 0 || part[0] == ' ' || part[len - 1] == ' ') {
        return false;
    }
    for (size_t i = 0; i < len;) {
        const size_t step = good_character((const unsigned char *)part + i, len - i);
        if (step == 0 || part[i] == '\\') {
            return false;
        }
        i += step;
    }
    return true;
}

static bool good_principal(struct identity *id)
{
    const char *text = id->principal;
    if (strchr(text, '\\') != NULL) {
        return false;
    }
    /* Nothing is quoted, so the only @ is the one before the realm. */
    const char *at = strchr(text, '@');
    if (at == NULL || strchr(at + 1, '@') != NULL || !good_part(at + 1, strlen(at + 1))) {
        return false;
    }
    id->realm_at = (size_t)(at + 1 - text);
    id->components = 0;
    for (const char *part = text; part <= at;) {
        const size_t len = strcspn(part, "/@");
        if (!good_part(part, len)) {
            return false;
        }
        id->components++;
        part += len + 1;
    }
    return strncmp(text, "WELLKNOWN/", 10) != 0;
}

enum reason identity_read(struct span exported, struct identity *out)
{
    *out = (struct identity){0};
    const struct span principal = exported_principal(exported);
    if (principal.len == 0 || principal.len >= sizeof out->principal) {
        return REASON_NO_PRINCIPAL;
    }
    memcpy(out->principal, principal.ptr, principal.len);
    out->principal[principal.len] = '\0';
    if (memchr(principal.ptr, '\0', principal.len) != NULL || !good_principal(out)) {
        return REASON_NAME_REFUSED;
    }
    return REASON_OK;
}

void identity_apply_realms(struct identity *identity, const struct config_site *site)
{
    size_t len = strlen(identity->principal);
    for (size_t i = 0; i < site->realms.count; i++) {
        const struct config_realm *realm = &site->realms.items[i];
        if (realm->user == CONFIG_USER_STRIP && identity->components == 1 &&
            strcmp(realm->realm, identity_realm(identity)) == 0) {
            len = identity->realm_at - 1;
        }
    }
    memcpy(identity->user, identity->principal, len);
    identity->user[len] = '\0';
}
