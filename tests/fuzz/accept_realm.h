/*
 * The realm of fuzz/accept: a time that stands still, keys that protect nothing, and tokens taken
 * apart and sealed again with them.
 */
#ifndef FUZZ_ACCEPT_REALM_H
#define FUZZ_ACCEPT_REALM_H

#include "auth/keytab.h"
#include "base/bytes.h"

#include <krb5.h>
#include <krb5_asn1.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REALM_NOW_S = 1700000000, REALM_SKEW_S = 300, REALM_ROOM = 1 << 16 };

struct realm_key {
    const char *host; /* of the service HTTP/host@EXAMPLE.TEST */
    uint32_t kvno;
    int32_t enctype;
    size_t bytes;
};

enum { REALM_KEYS = 8 };
extern const struct realm_key realm_keys[REALM_KEYS];

/* What goes around an AP-REQ. */
enum realm_form { FORM_SPNEGO, FORM_RAW, FORM_WINDOWS, FORM_RESPONSE, FORMS };

/* One AP-REQ, and what could be opened of it. */
struct realm_token {
    AP_REQ ap_req;
    const struct realm_key *key; /* that the ticket was opened with; NULL: none */
    krb5_data ticket_plain;
    bool has_ticket; /* and what was in it could be read */
    EncTicketPart ticket;
    krb5_data plain; /* the authenticator's; empty if it could not be opened */
    bool has_authenticator;
    Authenticator authenticator;
};

/* Makes a krb5.conf of its own and libkrb5's context; ends the program if it cannot. */
void realm_open(void);
void realm_close(void);
krb5_context realm_context(void);

/* The clock of this program, which libkrb5 asks too; REALM_NOW_S unless it is set. */
void realm_set_clock(time_t now_s);

/* All keys as a keytab file. */
void realm_put_keytab(struct buf *file);
krb5_keyblock realm_keyblock(const struct realm_key *key);

/* Reads an AP-REQ and opens what the keys open; -1 if it is none. */
int realm_token_read(struct span ap_req, struct realm_token *out);
void realm_token_free(struct realm_token *token);

/* alice's, which is good, as an ordinary client would make it. */
void realm_token_make(const struct realm_key *key, int32_t session_enctype,
                      struct realm_token *out);

/* What was read of both parts becomes their plain bytes again. */
void realm_token_encode(struct realm_token *token);

/* The plain bytes of both parts, where there are any, become their ciphers. */
void realm_token_seal(struct realm_token *token);

/* Appends the AP-REQ's bytes; and a token around an AP-REQ. */
void realm_put_ap_req(struct buf *out, const struct realm_token *token);
void realm_put_token(struct buf *out, enum realm_form form, struct span ap_req);

/* Small parts of a token; what was there is freed. */
void realm_set_name(PrincipalName *name, const char *const *components, size_t count);
void realm_set_text(char **text, const char *to);
void realm_set_bytes(heim_octet_string *bytes, const void *from, size_t len);
void realm_add_data(AuthorizationData **data, int32_t type, struct span bytes);

/* The authenticator's checksum for GSS (RFC 4121 4.1.1): bindings, flags, and what follows them. */
void realm_set_checksum(Authenticator *authenticator, const unsigned char bnd[16], uint32_t flags,
                        struct span more);

#endif
