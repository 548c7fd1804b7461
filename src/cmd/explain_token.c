#include "cmd/explain.h"

#include "auth/acceptor.h"
#include "wire/spnego.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

enum { LAYERS_MAX = 6, NTLM_HEAD = 12, LIST_BYTES = 4096 };

static const char *form_text(const struct spnego_view *v)
{
    switch (v->form) {
    case SPNEGO_FORM_INIT:
        return v->hints ? "an acceptor's first token (NegTokenInit2)"
                        : "a SPNEGO initiator's first token (NegTokenInit)";
    case SPNEGO_FORM_RESPONSE:
        return "a SPNEGO answer (NegTokenResp)";
    case SPNEGO_FORM_KRB5:
        return "a krb5 token in its GSS frame";
    case SPNEGO_FORM_MECHANISM:
        return "a GSS token of another mechanism";
    case SPNEGO_FORM_NTLM:
        return "NTLM";
    case SPNEGO_FORM_NEGOEX:
        return "NEGOEX";
    case SPNEGO_FORM_AP_REQ:
        return "an AP-REQ of Kerberos: a ticket and its authenticator";
    case SPNEGO_FORM_AP_REP:
        return "an AP-REP of Kerberos: an acceptor proves itself";
    case SPNEGO_FORM_KRB_ERROR:
        return "a KRB-ERROR of Kerberos: an acceptor or a KDC refuses";
    case SPNEGO_FORM_OTHER:
        break;
    }
    return "nothing that is known";
}

static void say_mechs(unsigned depth, const struct spnego_view *v)
{
    char list[LIST_BYTES] = "";
    size_t at = 0;

    for (size_t i = 0; i < v->mech_count && at < sizeof list; i++) {
        char text[SPNEGO_MECH_BYTES];

        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i > 0 ? ", " : "",
                               spnego_mech_text(v->mechs[i], text));
    }
    if (v->mech_count > 0) {
        explain_line(depth, v->mech_count > 1 ? "mechanisms" : "mechanism", "%s", list);
    }
}

/* The bits of ContextFlags, RFC 4178 4.2.1. */
static void say_flags(unsigned depth, struct span flags)
{
    static const char *const words[] = {"delegation", "mutual",          "replay",   "sequence",
                                        "anonymous",  "confidentiality", "integrity"};
    char list[128] = "";
    size_t at = 0;

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (flags.len > 1 && (flags.ptr[1] & (0x80U >> i)) != 0) {
            at +=
                (size_t)snprintf(list + at, sizeof list - at, "%s%s", at > 0 ? ", " : "", words[i]);
        }
    }
    explain_line(depth, "reqFlags", "%s", at > 0 ? list : "none is set");
}

static void say_spnego(unsigned depth, const struct spnego_view *v)
{
    static const char *const states[] = {"accept-completed", "accept-incomplete", "reject",
                                         "request-mic"};

    say_mechs(depth, v);
    if (v->flags.ptr != NULL) {
        say_flags(depth, v->flags);
    }
    if (v->state >= 0 && v->state <= 3) {
        explain_line(depth, "state", "%s", states[v->state]);
    }
    if (v->mic.ptr != NULL) {
        explain_line(depth, "mechListMIC", "%zu bytes", v->mic.len);
    }
    if (v->hints) {
        explain_line(depth, "hints", "yes (negHints)");
    }
    if (v->token.ptr == NULL) {
        explain_line(depth, "inside", "no token of a mechanism");
    }
}

static void say_ntlm(unsigned depth, struct span token)
{
    static const char *const types[] = {"negotiate", "challenge", "authenticate"};

    if (token.len < NTLM_HEAD) {
        explain_line(depth, "message", "cut before its type");
        return;
    }
    const unsigned char *p = token.ptr + 8;
    const unsigned long type = (unsigned long)p[0] | (unsigned long)p[1] << 8 |
                               (unsigned long)p[2] << 16 | (unsigned long)p[3] << 24;
    explain_line(depth, "message", "type %lu (%s)", type,
                 type >= 1 && type <= 3 ? types[type - 1] : "there is no such type");
}

/* The names of RFC 4120 7.5.9 that an acceptor or a KDC sends. */
static const char *error_name(int32_t code)
{
    static const struct {
        int32_t code;
        const char *name;
    } known[] = {
        {6, "KDC_ERR_C_PRINCIPAL_UNKNOWN"},
        {7, "KDC_ERR_S_PRINCIPAL_UNKNOWN"},
        {12, "KDC_ERR_POLICY"},
        {14, "KDC_ERR_ETYPE_NOSUPP"},
        {18, "KDC_ERR_CLIENT_REVOKED"},
        {23, "KDC_ERR_KEY_EXPIRED"},
        {24, "KDC_ERR_PREAUTH_FAILED"},
        {25, "KDC_ERR_PREAUTH_REQUIRED"},
        {29, "KDC_ERR_SVC_UNAVAILABLE"},
        {31, "KRB_AP_ERR_BAD_INTEGRITY"},
        {32, "KRB_AP_ERR_TKT_EXPIRED"},
        {33, "KRB_AP_ERR_TKT_NYV"},
        {34, "KRB_AP_ERR_REPEAT"},
        {35, "KRB_AP_ERR_NOT_US"},
        {36, "KRB_AP_ERR_BADMATCH"},
        {37, "KRB_AP_ERR_SKEW"},
        {38, "KRB_AP_ERR_BADADDR"},
        {39, "KRB_AP_ERR_BADVERSION"},
        {40, "KRB_AP_ERR_MSG_TYPE"},
        {41, "KRB_AP_ERR_MODIFIED"},
        {44, "KRB_AP_ERR_BADKEYVER"},
        {45, "KRB_AP_ERR_NOKEY"},
        {46, "KRB_AP_ERR_MUT_FAIL"},
        {48, "KRB_AP_ERR_METHOD"},
        {50, "KRB_AP_ERR_INAPP_CKSUM"},
        {52, "KRB_ERR_RESPONSE_TOO_BIG"},
        {60, "KRB_ERR_GENERIC"},
        {68, "KDC_ERR_WRONG_REALM"},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].code == code) {
            return known[i].name;
        }
    }
    return "no name is known";
}

static void say_error(unsigned depth, struct span token)
{
    struct acceptor_error error;
    char quoted[EXPLAIN_QUOTE_BYTES];
    char date[EXPLAIN_TIME_BYTES];

    if (!acceptor_read_error(token, &error)) {
        explain_line(depth, "error", "it is not whole");
        return;
    }
    explain_line(depth, "error", "%d, %s%s%s", (int)error.code, error_name(error.code),
                 error.text[0] != '\0' ? ": " : "", error.text);
    explain_line(depth, "service", "%s", explain_quote(span_of(error.service), quoted));
    explain_line(depth, "sender's clock", "%s", explain_date(error.server_s, date));
}

/* The AP-REQ's cleartext, which nobody has verified. */
static void say_ap_req(unsigned depth, struct span token)
{
    static struct acceptor_result claims; /* 3 KiB of texts; used once a call */
    struct acceptor_view view;
    char quoted[EXPLAIN_QUOTE_BYTES];
    char enctype[KEYTAB_ENCTYPE_BYTES];
    char kvno[32] = "no kvno";

    acceptor_result_clear(&claims);
    (void)acceptor_explain(NULL, NULL, token, 0, &claims, &view);
    if (!claims.claimed) {
        explain_line(depth, "ticket", "it cannot be read");
        return;
    }
    if (claims.claimed_kvno >= 0) {
        (void)snprintf(kvno, sizeof kvno, "kvno %lld", (long long)claims.claimed_kvno);
    }
    explain_line(depth, "ap-options", "%s%s%s",
                 view.mutual_required ? "mutual required" : "no mutual",
                 view.use_session_key ? ", use session key" : "", "");
    explain_line(depth, "ticket", "for %s, %s, %s, %zu bytes",
                 explain_quote(span_of(claims.claimed_service), quoted), kvno,
                 keytab_enctype_text(claims.claimed_enctype, enctype), view.ticket_bytes);
    explain_line(depth, "realm", "%s", explain_quote(span_of(claims.claimed_realm), quoted));
    explain_line(depth, "authenticator", "session key %s as the cleartext says, %zu bytes",
                 keytab_enctype_text(claims.session_enctype, enctype), view.authenticator_bytes);
    acceptor_result_free(&claims);
}

static void say_krb5(unsigned depth, const struct spnego_view *v)
{
    say_mechs(depth, v);
    if (v->token.ptr != NULL && v->token.len > 0) {
        const unsigned char *id = v->token.ptr - 2;
        const char *text = id[1] != 0   ? "unknown"
                           : id[0] == 1 ? "AP-REQ"
                           : id[0] == 2 ? "AP-REP"
                           : id[0] == 3 ? "KRB-ERROR"
                                        : "unknown";
        explain_line(depth, "token id", "%02x %02x (%s)", id[0], id[1], text);
    }
}

static void say_layer(unsigned depth, const struct spnego_view *v, struct span token)
{
    switch (v->form) {
    case SPNEGO_FORM_INIT:
    case SPNEGO_FORM_RESPONSE:
        say_spnego(depth, v);
        break;
    case SPNEGO_FORM_KRB5:
        say_krb5(depth, v);
        break;
    case SPNEGO_FORM_MECHANISM:
        say_mechs(depth, v);
        break;
    case SPNEGO_FORM_NTLM:
        say_ntlm(depth, token);
        break;
    case SPNEGO_FORM_AP_REQ:
        say_ap_req(depth, token);
        break;
    case SPNEGO_FORM_KRB_ERROR:
        say_error(depth, token);
        break;
    case SPNEGO_FORM_NEGOEX:
    case SPNEGO_FORM_AP_REP:
    case SPNEGO_FORM_OTHER:
        break;
    }
}

/* Layer by layer; the form of the outermost. */
static enum spnego_form say_layers(struct span token)
{
    enum spnego_form outer = SPNEGO_FORM_OTHER;

    for (unsigned depth = 0; depth < LAYERS_MAX && token.ptr != NULL; depth++) {
        static struct spnego_view view; /* 1 KiB of spans */
        const bool whole = spnego_look(token, &view);

        outer = depth == 0 ? view.form : outer;
        explain_line(depth, depth == 0 ? "token" : "inside", "%zu bytes, %s%s", token.len,
                     form_text(&view),
                     whole || view.form == SPNEGO_FORM_OTHER ? "" : ", but cut or not well-formed");
        if (!whole && view.form != SPNEGO_FORM_AP_REQ) {
            say_mechs(depth + 1, &view);
            if (view.promised > 0 && view.form != SPNEGO_FORM_OTHER) {
                explain_line(depth + 1, "length", "%zu bytes, where its own length says %zu",
                             token.len, view.promised);
            }
            break;
        }
        say_layer(depth + 1, &view, token);
        token = view.token;
    }
    return outer;
}

int explain_token(const struct explain *e, struct span token)
{
    static struct spnego_token found;
    const enum spnego_form outer = say_layers(token);
    const enum reason reason = spnego_inspect(token, &found);
    int status;

    if (reason == REASON_OK) {
        status = explain_sites(e, found.ap_req);
        explain_line(0, "warning",
                     "whoever has this token can use it while its ticket lives, until it was used "
                     "once; treat it as a password");
    } else {
        status = explain_reason(0, reason);
    }
    return outer == SPNEGO_FORM_OTHER && reason == REASON_BAD_TOKEN ? EX_DATAERR : status;
}
