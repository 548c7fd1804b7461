/*
 * The keys of an acceptor, as acceptor.c makes them, and the steps of an accept, which
 * acceptor_accept.c takes and acceptor_explain.c tells.
 */
#ifndef AUTH_ACCEPTOR_KEYS_H
#define AUTH_ACCEPTOR_KEYS_H

#include "auth/acceptor.h"

#include <gssapi/gssapi.h>
#include <krb5.h>
#include <krb5_asn1.h>
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

/*
 * A key made ready: deriving what a ticket's key is used for costs more than opening the ticket.
 * Belongs to one thread, as krb5_crypto does.
 */
struct ready_key {
    const struct key_entry *key; /* NULL: free */
    krb5_crypto crypto;
};

enum { READY_KEYS = 8 };

struct acceptor_thread {
    krb5_context context;
    struct ready_key ready[READY_KEYS];
    size_t next; /* to be replaced */
};

/* The key made ready for this thread, which keeps it; NULL: no memory. */
krb5_crypto acceptor_ready_key(struct acceptor_thread *thread, const struct key_entry *key);

/* Gives up all that was made ready for this thread. */
void acceptor_forget_keys(struct acceptor_thread *thread);

/* The service with this unparsed principal, or NULL. */
struct service *acceptor_find(const struct acceptor *acceptor, const char *principal);

/* The steps, as acceptor_accept.c describes them. */
int acceptor_read_claims(const AP_REQ *ap_req, struct acceptor_result *out);
enum reason acceptor_inspect(const struct acceptor *acceptor, const AP_REQ *ap_req,
                             struct acceptor_result *out, const struct service **service);
int acceptor_open_ticket(struct acceptor_thread *thread, const struct service *service,
                         const Ticket *ticket, EncTicketPart *part,
                         const struct acceptor_result *out);
void acceptor_close_ticket(EncTicketPart *part);
bool acceptor_transited_is_plain(const EncTicketPart *part);
void acceptor_read_figures(const EncTicketPart *part, uint64_t now_s, struct acceptor_result *out);
int acceptor_open_authenticator(krb5_context context, const EncTicketPart *part,
                                const EncryptedData *sealed, Authenticator *authenticator);
void acceptor_close_authenticator(Authenticator *authenticator);
enum reason acceptor_check_session_key(const struct acceptor_options *options, int32_t claimed,
                                       const struct acceptor_result *out);
enum reason acceptor_read_authenticator(const struct acceptor_options *options,
                                        const Authenticator *authenticator, uint64_t now_s,
                                        enum reason reason, struct acceptor_result *out);

#endif
