/*
 * The acceptor of one site: its keys, as credentials that never change, and the accept itself.
 * All of Kerberos and GSS is behind this header. Call nothing here before the last fork.
 */
#ifndef AUTH_ACCEPTOR_H
#define AUTH_ACCEPTOR_H

#include "auth/binding.h"
#include "auth/identity.h"
#include "auth/keytab.h"
#include "base/bytes.h"
#include "base/fault.h"
#include "base/reason.h"
#include "conf/config.h"

#include <stdbool.h>
#include <stdint.h>

struct acceptor;

/* What the authenticator says of the TLS channel; ABSENT if nobody looked. */
enum acceptor_binding {
    ACCEPTOR_BINDING_ABSENT,
    ACCEPTOR_BINDING_NONE,
    ACCEPTOR_BINDING_MATCHED,
    ACCEPTOR_BINDING_MISSING,
    ACCEPTOR_BINDING_MISMATCH
};

/* What one accept found out. Text is for the record; `claimed` is cleartext of the ticket, not
 * verified. */
struct acceptor_result {
    struct identity identity; /* with OK and NAME_REFUSED */
    struct buf reply;         /* GSS-framed AP-REP (mutual) or KRB-ERROR (clock skew), or empty */
    struct buf authenticator; /* the authenticator's cipher octets, for the replay table */
    bool claimed;             /* the AP-REQ was read: the fields down to session_enctype are set */
    char claimed_service[IDENTITY_TEXT_BYTES];
    char claimed_realm[IDENTITY_TEXT_BYTES];
    int64_t claimed_kvno; /* -1: the ticket names none */
    int32_t claimed_enctype;
    int32_t session_enctype;              /* the ticket's own once it could be opened */
    int64_t kvno_newest;                  /* the keytab's newest kvno of this service, -1: none */
    char keytab_has[IDENTITY_TEXT_BYTES]; /* instead, with the unknown_* reasons */
    bool has_gss;
    uint32_t gss_major;
    int32_t gss_minor;
    char gss_text[IDENTITY_TEXT_BYTES];
    bool mutual;
    bool deleg;
    uint64_t ticket_end_s; /* of a ticket that could be opened; 0: not known */
    int64_t expired_s;     /* how long ago that was; -1: it was not */
    bool has_skew;         /* with CLOCK_SKEW, if the authenticator could be opened */
    int64_t skew_s;        /* the client ahead is positive */
    uint64_t ctime_us;     /* the authenticator's own time, if it was asked for; else 0 */
    enum acceptor_binding binding;
};

/* What a site asks of its acceptor; the bindings are borrowed and must outlive it. */
struct acceptor_options {
    const char *where; /* the keytab's path, for faults */
    bool weak_allowed;
    enum config_binding channel_binding;
    const struct binding_list *bindings;
};

/*
 * Makes credentials from a keytab; the keytab may be freed after it. Refuses what libkrb5 cannot
 * use (an enctype that it does not know is left out; no usable key at all is a fault).
 */
int acceptor_open(const struct keytab *keytab, const struct acceptor_options *options,
                  struct acceptor **out, struct fault *fault);

/* NULL is allowed. */
void acceptor_close(struct acceptor *acceptor);

/*
 * What each request thread needs of libkrb5; opening it makes libkrb5 open what it opens once a
 * thread (krb5.conf, mechanisms). A thread uses its own only.
 */
struct acceptor_thread;
int acceptor_thread_open(struct acceptor_thread **out, struct fault *fault);

/* NULL is allowed. */
void acceptor_thread_close(struct acceptor_thread *thread);

/*
 * The clock skew that libkrb5 allows, in seconds; needs krb5.conf, so only after the last fork.
 * Over a day it is a fault: tokens must be remembered for twice that.
 */
int acceptor_skew_s(uint32_t *skew_s, struct fault *fault);

/* The versions of Heimdal's libraries as they say themselves. */
const char *acceptor_version(void);

/* What one accept is asked for. */
struct acceptor_ask {
    uint64_t now_s;
    bool ctime; /* the authenticator's time is wanted; it costs a decryption more */
};

/*
 * Accepts one AP-REQ (spnego_token.ap_req). `out` must have been cleared before; it is filled in as
 * far as the accept came. Returns OK; BAD_TOKEN, UNKNOWN_SERVICE, UNKNOWN_KVNO, UNKNOWN_ENCTYPE,
 * WEAK_ENCTYPE (cleartext against our own key table, before any decryption); WRONG_KEY,
 * TICKET_EXPIRED, TICKET_NOT_YET_VALID, CLOCK_SKEW, GSS_ERROR (libkrb5's word); NO_PRINCIPAL;
 * CB_MISSING, CB_MISMATCH (the authenticator against the site's bindings); NAME_REFUSED; INTERNAL
 * (no memory).
 */
enum reason acceptor_accept(const struct acceptor *acceptor, struct acceptor_thread *thread,
                            struct span ap_req, const struct acceptor_ask *ask,
                            struct acceptor_result *out);

/* What else there is to tell of an AP-REQ; nothing in it is secret. Times are seconds since 1970.
 */
struct acceptor_view {
    bool use_session_key; /* the two ap-options */
    bool mutual_required;
    size_t ticket_bytes; /* of the ciphers */
    size_t authenticator_bytes;
    bool opened; /* the ticket; then the fields down to addresses are set */
    int64_t auth_s;
    int64_t start_s;
    int64_t end_s;
    int64_t renew_s;  /* 0: not renewable */
    size_t addresses; /* that it is tied to; 0: any */
    bool made;        /* the authenticator was opened; then the fields below are set */
    int64_t made_s;   /* the client's time in it */
    bool bound;       /* it names a channel binding */
    bool has_flags;
    uint32_t flags; /* that the client asked for: GSS_C_*_FLAG */
};

/*
 * Tells what acceptor_accept would find, without an accept: fills in `out` as it does (no reply,
 * nothing of GSS) and `view`, as far as it comes, and returns the same reason, or one that
 * acceptor_accept comes to later: only libkrb5 checks the client's PAC and its path over realms.
 * Without an acceptor only the cleartext is read, and KEYTAB_UNAVAILABLE is returned.
 */
enum reason acceptor_explain(const struct acceptor *acceptor, struct acceptor_thread *thread,
                             struct span ap_req, uint64_t now_s, struct acceptor_result *out,
                             struct acceptor_view *view);

/* A KRB-ERROR (RFC 4120 5.9.1), as a peer sent it. */
struct acceptor_error {
    int32_t code;
    char text[IDENTITY_TEXT_BYTES];    /* libkrb5's words for the code */
    char service[IDENTITY_TEXT_BYTES]; /* of whom it speaks; "" if it does not fit */
    int64_t server_s;                  /* the sender's clock */
};

/* Reads the DER bytes of a KRB-ERROR (0x7e ...); false if they are none. */
bool acceptor_read_error(struct span error, struct acceptor_error *out);

/* Wipes and empties a result for its next use; buffers keep their memory. */
void acceptor_result_clear(struct acceptor_result *result);

/* The same and frees the memory. */
void acceptor_result_free(struct acceptor_result *result);

#endif
