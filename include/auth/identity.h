/*
 * Who a request is from: the principal as GSS exported it, and the user that the site makes of it.
 * The display form is never used: it is not injective.
 */
#ifndef AUTH_IDENTITY_H
#define AUTH_IDENTITY_H

#include "base/bytes.h"
#include "base/reason.h"
#include "conf/config.h"

enum { IDENTITY_TEXT_BYTES = 512 };

struct identity {
    char principal[IDENTITY_TEXT_BYTES]; /* whole, with realm; "" when nobody */
    char user[IDENTITY_TEXT_BYTES];      /* what the web server gets */
    size_t realm_at;                     /* the realm's place in `principal` */
    size_t components;
};

/* The realm, borrowed from `identity`. */
static inline const char *identity_realm(const struct identity *identity)
{
    return identity->principal + identity->realm_at;
}

/*
 * Reads an exported krb5 mechanism name (RFC 2743 3.2, RFC 4121) into `out`.
 * NO_PRINCIPAL if it is none or does not fit; NAME_REFUSED if a component or the realm is empty,
 * holds a quoted character (@ / \ and control bytes), is not UTF-8, holds a space or an invisible
 * character, or is anonymous. `out->principal` is then a printable form for the record.
 */
enum reason identity_read(struct span exported, struct identity *out);

/* Fills in `user` by the site's realm table: stripped of its realm or whole; needs a good
 * principal. */
void identity_apply_realms(struct identity *identity, const struct config_site *site);

/*
 * Writes components and realm as krb5_unparse_name does, with its quoting, into `out`;
 * -1 when it does not fit. The parts are untrusted bytes.
 */
int identity_unparse(const struct span *components, size_t count, struct span realm, char *out,
                     size_t size);

#endif
