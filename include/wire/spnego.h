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

/* Appends NegTokenResp accept-completed; `mech` and `response` (a GSS-framed krb5 token) may be
 * absent. */
void spnego_format_completed(struct buf *out, struct span mech, struct span response);

/* Appends NegTokenResp accept-incomplete that names `mech` and asks for its token. */
void spnego_format_incomplete(struct buf *out, struct span mech);

/* Appends NegTokenResp reject; `response` (a GSS-framed KRB-ERROR) may be absent. */
void spnego_format_reject(struct buf *out, struct span response);

#endif
