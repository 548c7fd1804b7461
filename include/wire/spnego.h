/*
 * The client's token as it came over HTTP: SPNEGO (RFC 4178) or a raw krb5 token (RFC 4121, RFC
 * 1964), read by our own strict DER reader: definite and minimal lengths, bounded depth, no byte
 * left over. All input is untrusted; nothing is copied.
 */
#ifndef WIRE_SPNEGO_H
#define WIRE_SPNEGO_H

#include "base/bytes.h"
#include "base/reason.h"

#include <stdbool.h>

/* What spnego_inspect found; the spans borrow from the token. */
struct spnego_token {
    bool framed;         /* the client speaks SPNEGO: answer in SPNEGO, even if its token is bad */
    bool response;       /* it was a NegTokenResp: the reply names no supportedMech */
    struct span mech;    /* contents of the OID to echo as supportedMech: the first krb5 or MS-krb5
                            that the client listed; absent for a raw token and a NegTokenResp */
    struct span ap_req;  /* the AP-REQ's own DER bytes (0x6e ...), without any GSS frame */
    const char *offered; /* for the record: "krb5", "ntlm" or "other", the mechanism of the token */
};

/*
 * Finds the AP-REQ of a token. `*out` is written in every case (that is why `framed` can be used to
 * answer a refusal); ap_req only with REASON_OK, mech with OK and CONTINUE. Returns: OK; CONTINUE
 * (krb5 or MS-krb5 is listed, but the optimistic token is missing or another mechanism's); NTLM
 * (raw NTLMSSP; only NTLM, or NTLM and no Kerberos in the list; a NegTokenResp with NTLMSSP);
 * MECH_UNSUPPORTED (only NEGOEX or unknown mechanisms, a raw GSS token of another mechanism);
 * BAD_TOKEN (anything else: DER errors, bytes left over, an empty list, a bare AP-REQ, AP-REP,
 * KRB-ERROR, a NegTokenResp without token or with a negState that only an acceptor may send).
 */
enum reason spnego_inspect(struct span token, struct spnego_token *out);

/* What a token is on its outside. */
enum spnego_form {
    SPNEGO_FORM_OTHER,     /* nothing that is known, or broken */
    SPNEGO_FORM_INIT,      /* NegTokenInit, in its frame or without */
    SPNEGO_FORM_RESPONSE,  /* NegTokenResp */
    SPNEGO_FORM_KRB5,      /* a krb5 token in a GSS frame */
    SPNEGO_FORM_MECHANISM, /* another mechanism's token in a GSS frame */
    SPNEGO_FORM_NTLM,
    SPNEGO_FORM_NEGOEX,
    SPNEGO_FORM_AP_REQ, /* messages of Kerberos, without a frame */
    SPNEGO_FORM_AP_REP,
    SPNEGO_FORM_KRB_ERROR
};

enum { SPNEGO_MECHS_MAX = 64, SPNEGO_MECH_BYTES = 160 };

/* One layer of a token, for people; the spans borrow from the token, {NULL, 0} is not there. */
struct spnego_view {
    enum spnego_form form;
    struct span mechs[SPNEGO_MECHS_MAX]; /* contents of OIDs: listed, or the frame's, or the one
                                            that a NegTokenResp names */
    size_t mech_count;
    struct span flags; /* reqFlags: unused bits, then the bits */
    int state;         /* of a NegTokenResp: 0 completed, 1 incomplete, 2 reject, 3 request-mic;
                          -1 none */
    struct span token; /* what is inside: look at it next */
    struct span mic;   /* mechListMIC */
    bool hints;        /* negHints, which only acceptors send (NegTokenInit2) */
    size_t
        promised; /* bytes that its outermost length asks for, if it is cut or too long; else 0 */
};

/*
 * Tells what one layer of a token is, as strictly as spnego_inspect but without asking whether a
 * client may send it. False, with what was found so far, when it is not whole.
 */
bool spnego_look(struct span token, struct spnego_view *out);

/* "krb5 (1.2.840.113554.1.2.2)" in `out`; for an unknown OID the numbers alone, cut with "...". */
const char *spnego_mech_text(struct span oid, char out[SPNEGO_MECH_BYTES]);

/* Appends NegTokenResp accept-completed; `mech` and `response` (a GSS-framed krb5 token) may be
 * absent. */
void spnego_format_completed(struct buf *out, struct span mech, struct span response);

/* Appends NegTokenResp accept-incomplete that names `mech` and asks for its token. */
void spnego_format_incomplete(struct buf *out, struct span mech);

/* Appends NegTokenResp reject; `response` (a GSS-framed KRB-ERROR) may be absent. */
void spnego_format_reject(struct buf *out, struct span response);

#endif
