/* The keys of an acceptor, as acceptor.c makes them and acceptor_accept.c uses them. */
#ifndef AUTH_ACCEPTOR_KEYS_H
#define AUTH_ACCEPTOR_KEYS_H

#include "auth/acceptor.h"

#include <gssapi/gssapi.h>
#include <krb5.h>
#include <stdbool.h>
#include <stdint.h>

/* One key of a service: to see beforehand whether a ticket can be opened, and to look into it
 * afterwards. */
struct key_entry {
    uint32_t kvno;
    int32_t enctype;
    krb5_keyblock block;
};

/*
 * One principal of the keytab with a credential of its own, so that no other's keys are ever tried.
 */
struct service {
    char *principal;
    struct key_entry *keys;
    size_t key_count;
    uint32_t kvno_newest;
    krb5_keytab keytab;
    gss_cred_id_t credential;
};

struct acceptor {
    krb5_context context;     /* for opening and closing only */
    struct service *services; /* sorted by principal */
    size_t count;
    struct acceptor_options options;
};

struct acceptor_thread {
    krb5_context context;
};

/* The service with this unparsed principal, or NULL. */
struct service *acceptor_find(const struct acceptor *acceptor, const char *principal);

#endif
