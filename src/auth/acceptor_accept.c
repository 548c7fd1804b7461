#include "auth/acceptor.h"
#include "auth/acceptor_keys.h"
#include "base/secret.h"

#include <errno.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5_asn1.h>
#include <stdio.h>
#include <string.h>

/* "kvno 3 aes256-cts-hmac-sha1-96, kvno 2 ..." of one service, or every principal when there is
 * none. */
static void describe_keys(const struct acceptor *acceptor, const struct service *service, char *out,
                          size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    const size_t count = service != NULL ? service->key_count : acceptor->count;
    for (size_t i = 0; i < count && at < size; i++) {
        char text[KEYTAB_ENCTYPE_BYTES];
        int n = 0;
        if (service != NULL) {
            n = snprintf(out + at, size - at, "%skvno %u %s", i > 0 ? ", " : "",
                         service->keys[i].kvno,
                         keytab_enctype_text(service->keys[i].enctype, text));
        } else {
            n = snprintf(out + at, size - at, "%s%s", i > 0 ? ", " : "",
                         acceptor->services[i].principal);
        }
        at += n > 0 ? (size_t)n : 0;
    }
}

/*
 * The ticket's cleartext into the result; -1 when its service does not fit what any keytab holds.
 */
int acceptor_read_claims(const AP_REQ *ap_req, struct acceptor_result *out)
{
    const Ticket *ticket = &ap_req->ticket;
    const EncryptedData *part = &ticket->enc_part;
    struct span components[16];
    const size_t count = ticket->sname.name_string.len;
    if (count > sizeof components / sizeof components[0]) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        components[i] = span_of(ticket->sname.name_string.val[i]);
    }
    if (identity_unparse(components, count, span_of(ticket->realm), out->claimed_service,
                         sizeof out->claimed_service) != 0 ||
        identity_unparse(NULL, 0, span_of(ticket->realm), out->claimed_realm,
                         sizeof out->claimed_realm) != 0) {
        out->claimed_service[0] = '\0';
        return -1;
    }
    memmove(out->claimed_realm, out->claimed_realm + 1, strlen(out->claimed_realm));
    out->claimed_kvno = part->kvno != NULL ? (int64_t)(uint32_t)*part->kvno : -1;
    out->claimed_enctype = part->etype;
    out->session_enctype = ap_req->authenticator.etype;
    out->claimed = true;
    return 0;
}

/* A ticket without kvno, or with 0, fits every version. */
static bool kvno_fits(const struct key_entry *key, const struct acceptor_result *out)
{
    return out->claimed_kvno <= 0 || out->claimed_kvno == key->kvno;
}

static bool fits(const struct key_entry *key, const struct acceptor_result *out)
{
    return kvno_fits(key, out) && key->enctype == out->claimed_enctype;
}

/* Looks up the ticket's cleartext among our own keys; `*service` is set with OK. */
static enum reason find_key(const struct acceptor *acceptor, struct acceptor_result *out,
                            const struct service **service)
{
    const struct service *found = acceptor_find(acceptor, out->claimed_service);
    if (found == NULL) {
        describe_keys(acceptor, NULL, out->keytab_has, sizeof out->keytab_has);
        return REASON_UNKNOWN_SERVICE;
    }
    out->kvno_newest = found->kvno_newest;
    bool kvno = false;
    bool both = false;
    for (size_t i = 0; i < found->key_count; i++) {
        kvno = kvno || kvno_fits(&found->keys[i], out);
        both = both || fits(&found->keys[i], out);
    }
    if (!both) {
        describe_keys(acceptor, found, out->keytab_has, sizeof out->keytab_has);
        return kvno ? REASON_UNKNOWN_ENCTYPE : REASON_UNKNOWN_KVNO;
    }
    if (!acceptor->options.weak_allowed &&
        (keytab_enctype_weak(out->claimed_enctype) || keytab_enctype_weak(out->session_enctype))) {
        return REASON_WEAK_ENCTYPE;
    }
    *service = found;
    return REASON_OK;
}

/* Looks at the AP-REQ's cleartext: a key of ours must fit. */
enum reason acceptor_inspect(const struct acceptor *acceptor, const AP_REQ *ap_req,
                             struct acceptor_result *out, const struct service **service)
{
    const heim_octet_string *cipher = &ap_req->authenticator.cipher;
    if (cipher->length == 0 || acceptor_read_claims(ap_req, out) != 0) {
        return REASON_BAD_TOKEN;
    }
    out->authenticator.max = cipher->length;
    buf_append(&out->authenticator, cipher->data, cipher->length);
    return out->authenticator.failed ? REASON_INTERNAL : find_key(acceptor, out, service);
}

/* Decrypts the ticket with one key; -1 when it is not this one. */
static int open_with(struct acceptor_thread *thread, const Ticket *ticket,
                     const struct key_entry *key, EncTicketPart *part)
{
    const krb5_crypto crypto = acceptor_ready_key(thread, key);
    krb5_data plain = {0, NULL};
    size_t used = 0;
    int r = -1;
    if (crypto != NULL && krb5_decrypt_EncryptedData(thread->context, crypto, KRB5_KU_TICKET,
                                                     &ticket->enc_part, &plain) == 0) {
        r = decode_EncTicketPart(plain.data, plain.length, part, &used) == 0 ? 0 : -1;
        secret_wipe(plain.data, plain.length);
        krb5_data_free(&plain);
    }
    return r;
}

void acceptor_read_figures(const EncTicketPart *part, uint64_t now_s, struct acceptor_result *out)
{
    out->session_enctype = part->key.keytype;
    out->ticket_end_s = part->endtime > 0 ? (uint64_t)part->endtime : 0;
    out->expired_s =
        part->endtime > 0 && out->ticket_end_s < now_s ? (int64_t)(now_s - out->ticket_end_s) : -1;
}

/*
 * What only the ticket itself tells: its end, and the session key's enctype, which the AP-REQ's
 * cleartext may give falsely. Returns -1 if the ticket cannot be opened; else `part` is to be
 * closed.
 */
int acceptor_open_ticket(struct acceptor_thread *thread, const struct service *service,
                         const Ticket *ticket, EncTicketPart *part,
                         const struct acceptor_result *out)
{
    for (size_t i = 0; i < service->key_count; i++) {
        const struct key_entry *key = &service->keys[i];
        if (fits(key, out) && open_with(thread, ticket, key, part) == 0) {
            return 0;
        }
    }
    return -1;
}

void acceptor_close_ticket(EncTicketPart *part)
{
    secret_wipe(part->key.keyvalue.data, part->key.keyvalue.length);
    free_EncTicketPart(part);
}

/* Decrypts the authenticator with the ticket's session key. */
int acceptor_open_authenticator(krb5_context context, const EncTicketPart *part,
                                const EncryptedData *sealed, Authenticator *authenticator)
{
    krb5_crypto crypto = NULL;
    krb5_data plain = {0, NULL};
    size_t used = 0;
    int r = -1;
    if (krb5_crypto_init(context, &part->key, 0, &crypto) != 0) {
        return -1;
    }
    if (krb5_decrypt_EncryptedData(context, crypto, KRB5_KU_AP_REQ_AUTH, sealed, &plain) == 0) {
        r = decode_Authenticator(plain.data, plain.length, authenticator, &used) == 0 ? 0 : -1;
        secret_wipe(plain.data, plain.length); /* may hold a subkey */
        krb5_data_free(&plain);
    }
    krb5_crypto_destroy(context, crypto);
    return r;
}

void acceptor_close_authenticator(Authenticator *authenticator)
{
    if (authenticator->subkey != NULL) {
        secret_wipe(authenticator->subkey->keyvalue.data, authenticator->subkey->keyvalue.length);
    }
    free_Authenticator(authenticator);
}

/* RFC 4121 section 4.1.1: a length of 16 in four octets, then Bnd, all 0 when nothing was bound. */
static enum acceptor_binding compare_binding(const struct acceptor_options *options,
                                             const Authenticator *authenticator)
{
    enum { CHECKSUM_GSS = 0x8003, BND_AT = 4 };
    static const unsigned char length[BND_AT] = {BINDING_BYTES};
    static const unsigned char unbound[BINDING_BYTES];
    const Checksum *checksum = authenticator->cksum;
    const unsigned char *bytes = checksum != NULL ? checksum->checksum.data : NULL;
    if (checksum == NULL || (int)checksum->cksumtype != CHECKSUM_GSS ||
        checksum->checksum.length < BND_AT + BINDING_BYTES ||
        memcmp(bytes, length, sizeof length) != 0 ||
        memcmp(bytes + BND_AT, unbound, sizeof unbound) == 0) {
        return options->channel_binding == CONFIG_BINDING_REQUIRE ? ACCEPTOR_BINDING_MISSING
                                                                  : ACCEPTOR_BINDING_NONE;
    }
    return binding_matches(options->bindings, bytes + BND_AT) ? ACCEPTOR_BINDING_MATCHED
                                                              : ACCEPTOR_BINDING_MISMATCH;
}

/* The GSS frame of a krb5 token is 60 len OID id id; gives what comes behind the two id bytes. */
static struct span unframe(struct span token, unsigned char id)
{
    static const unsigned char krb5[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                         0xf7, 0x12, 0x01, 0x02, 0x02};
    for (size_t at = 2; at <= 6 && at + sizeof krb5 + 2 <= token.len; at++) {
        const unsigned char *p = token.ptr + at;
        if (memcmp(p, krb5, sizeof krb5) == 0 && p[sizeof krb5] == id && p[sizeof krb5 + 1] == 0) {
            return span_make(p + sizeof krb5 + 2, token.len - at - sizeof krb5 - 2);
        }
    }
    return (struct span){NULL, 0};
}

/* CONTINUE means that libkrb5 answers with a KRB-ERROR; which one decides. */
static enum reason classify_error_token(const gss_buffer_desc *output, struct acceptor_result *out)
{
    const struct span error = unframe(span_make(output->value, output->length), 0x03);
    KRB_ERROR decoded;
    size_t used = 0;
    if (error.len == 0 || decode_KRB_ERROR(error.ptr, error.len, &decoded, &used) != 0) {
        return REASON_GSS_ERROR;
    }
    const krb5_error_code code = (krb5_error_code)(decoded.error_code + ERROR_TABLE_BASE_krb5);
    free_KRB_ERROR(&decoded);
    out->gss_minor = code;
    if (code == KRB5KRB_AP_ERR_TKT_NYV) {
        return REASON_TICKET_NOT_YET_VALID;
    }
    if (code != KRB5KRB_AP_ERR_SKEW) {
        return REASON_GSS_ERROR;
    }
    buf_append(&out->reply, output->value, output->length);
    return out->reply.failed ? REASON_INTERNAL : REASON_CLOCK_SKEW;
}

static enum reason classify(OM_uint32 major, OM_uint32 minor, const gss_buffer_desc *output,
                            struct acceptor_result *out)
{
    if (major == GSS_S_CONTINUE_NEEDED) {
        return classify_error_token(output, out);
    }
    switch ((krb5_error_code)minor) {
    case ENOMEM:
        return REASON_INTERNAL;
    case KRB5KRB_AP_ERR_TKT_EXPIRED:
        return REASON_TICKET_EXPIRED;
    case KRB5KRB_AP_ERR_TKT_NYV:
        return REASON_TICKET_NOT_YET_VALID;
    case KRB5KRB_AP_ERR_SKEW:
        return REASON_CLOCK_SKEW;
    case KRB5KRB_AP_ERR_BAD_INTEGRITY:
    case KRB5KRB_AP_ERR_MODIFIED:
        return REASON_WRONG_KEY;
    default:
        break;
    }
    return GSS_ROUTINE_ERROR(major) == GSS_S_DEFECTIVE_TOKEN ? REASON_BAD_TOKEN : REASON_GSS_ERROR;
}

/* libgssapi's words for both codes, for the record. */
static void describe_status(OM_uint32 major, OM_uint32 minor, struct acceptor_result *out)
{
    const OM_uint32 codes[] = {major, minor};
    const int kinds[] = {GSS_C_GSS_CODE, GSS_C_MECH_CODE};
    size_t at = 0;
    for (size_t i = 0; i < 2; i++) {
        gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
        OM_uint32 ignored = 0;
        OM_uint32 more = 0;
        if (codes[i] != 0 && gss_display_status(&ignored, codes[i], kinds[i], GSS_KRB5_MECHANISM,
                                                &more, &text) == GSS_S_COMPLETE) {
            const int n = snprintf(out->gss_text + at, sizeof out->gss_text - at, "%s%.*s",
                                   at > 0 ? ": " : "", (int)text.length, (char *)text.value);
            at += n > 0 && (size_t)n < sizeof out->gss_text - at ? (size_t)n : 0;
        }
        (void)gss_release_buffer(&ignored, &text);
    }
}

/* After COMPLETE: who it is. COMPLETE without a principal has been seen when memory is short. */
static enum reason read_identity(gss_name_t source, struct acceptor_result *out)
{
    OM_uint32 minor = 0;
    gss_buffer_desc exported = GSS_C_EMPTY_BUFFER;
    if (source == GSS_C_NO_NAME || gss_export_name(&minor, source, &exported) != GSS_S_COMPLETE) {
        return REASON_NO_PRINCIPAL;
    }
    const enum reason reason =
        identity_read(span_make(exported.value, exported.length), &out->identity);
    (void)gss_release_buffer(&minor, &exported);
    return reason;
}

/* Libkrb5's verdict on an AP-REQ for one service. */
static enum reason accept_token(const struct service *service, struct span ap_req,
                                struct acceptor_result *out)
{
    gss_buffer_desc input = {ap_req.len, (void *)(uintptr_t)ap_req.ptr};
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    gss_ctx_id_t context = GSS_C_NO_CONTEXT;
    gss_name_t source = GSS_C_NO_NAME;
    OM_uint32 minor = 0;
    OM_uint32 flags = 0;
    enum reason reason = REASON_GSS_ERROR;
    /*
     * No place for delegated credentials: they are dropped by the library. No bindings: it cannot
     * tell none from the right ones, and knows one certificate only; see compare_binding.
     */
    const OM_uint32 major = gss_accept_sec_context(&minor, &context, service->credential, &input,
                                                   GSS_C_NO_CHANNEL_BINDINGS, &source, NULL,
                                                   &output, &flags, NULL, NULL);
    if (major == GSS_S_COMPLETE) {
        out->mutual = (flags & GSS_C_MUTUAL_FLAG) != 0;
        out->deleg = (flags & GSS_C_DELEG_FLAG) != 0;
        buf_append(&out->reply, output.value, output.length);
        reason = out->reply.failed ? REASON_INTERNAL : read_identity(source, out);
    } else {
        out->has_gss = true;
        out->gss_major = major;
        out->gss_minor = (int32_t)minor;
        reason = classify(major, minor, &output, out);
        describe_status(major, (OM_uint32)out->gss_minor, out);
    }
    (void)gss_release_name(&minor, &source);
    (void)gss_release_buffer(&minor, &output);
    (void)gss_delete_sec_context(&minor, &context, GSS_C_NO_BUFFER);
    return reason;
}

/* The session key as the ticket has it, which must be what the cleartext says. */
enum reason acceptor_check_session_key(const struct acceptor_options *options, int32_t claimed,
                                       const struct acceptor_result *out)
{
    if (!options->weak_allowed && keytab_enctype_weak(out->session_enctype)) {
        return REASON_WEAK_ENCTYPE;
    }
    return claimed == out->session_enctype ? REASON_OK : REASON_BAD_TOKEN;
}

/* What only the authenticator tells. */
enum reason acceptor_read_authenticator(const struct acceptor_options *options,
                                        const Authenticator *authenticator, uint64_t now_s,
                                        enum reason reason, struct acceptor_result *out)
{
    if (reason == REASON_CLOCK_SKEW) {
        out->has_skew = true;
        out->skew_s = (int64_t)authenticator->ctime - (int64_t)now_s;
        return reason;
    }
    if (authenticator->ctime > 0 && authenticator->cusec >= 0) {
        out->ctime_us =
            (uint64_t)authenticator->ctime * 1000000 + (uint64_t)authenticator->cusec % 1000000;
    }
    if (options->channel_binding != CONFIG_BINDING_OFF) {
        out->binding = compare_binding(options, authenticator);
    }
    return out->binding == ACCEPTOR_BINDING_MISSING    ? REASON_CB_MISSING
           : out->binding == ACCEPTOR_BINDING_MISMATCH ? REASON_CB_MISMATCH
                                                       : reason;
}

/* What the opened ticket and authenticator say, after libkrb5's verdict `reason`. */
static enum reason look_inside(const struct acceptor_options *options,
                               struct acceptor_thread *thread, const AP_REQ *decoded,
                               const EncTicketPart *part, const struct acceptor_ask *ask,
                               enum reason reason, struct acceptor_result *out)
{
    const bool accepted = reason == REASON_OK || reason == REASON_NAME_REFUSED;
    Authenticator authenticator;
    acceptor_read_figures(part, ask->now_s, out);
    if (accepted) {
        const enum reason session =
            acceptor_check_session_key(options, decoded->authenticator.etype, out);
        if (session != REASON_OK) {
            return session;
        }
    }
    const bool wanted = ask->ctime || options->channel_binding != CONFIG_BINDING_OFF;
    if (!(accepted && wanted) && reason != REASON_CLOCK_SKEW) {
        return reason;
    }
    if (acceptor_open_authenticator(thread->context, part, &decoded->authenticator,
                                    &authenticator) != 0) {
        return accepted ? REASON_INTERNAL : reason; /* libkrb5 could, with the same key */
    }
    reason = acceptor_read_authenticator(options, &authenticator, ask->now_s, reason, out);
    acceptor_close_authenticator(&authenticator);
    return reason;
}

/*
 * libkrb5 reads them only when no KDC has checked them, and then they must be a list as KDCs write
 * it: no empty parts, no quoting, no control bytes. RFC 4120 section 3.3.3.2 has more forms.
 */
bool acceptor_transited_is_plain(const EncTicketPart *part)
{
    const heim_octet_string *realms = &part->transited.contents;
    const unsigned char *bytes = realms->data;
    bool empty = realms->length > 0;
    if (part->flags.transited_policy_checked) {
        return true;
    }
    for (size_t i = 0; i < realms->length; i++) {
        const unsigned char c = bytes[i];
        if (c < 0x20 || c > 0x7e || c == '\\' || (c == ',' && empty)) {
            return false;
        }
        empty = c == ',' || (empty && c == ' ');
    }
    return !empty;
}

/* What the cleartext says, libkrb5's verdict, and what the opened ticket says, in this order. */
static enum reason accept_decoded(const struct acceptor *acceptor, struct acceptor_thread *thread,
                                  const AP_REQ *decoded, struct span ap_req,
                                  const struct acceptor_ask *ask, struct acceptor_result *out)
{
    const struct service *service = NULL;
    EncTicketPart part;
    enum reason reason = acceptor_inspect(acceptor, decoded, out, &service);
    if (reason != REASON_OK) {
        return reason;
    }
    int opened = acceptor_open_ticket(thread, service, &decoded->ticket, &part, out);
    if (opened == 0 && !acceptor_transited_is_plain(&part)) {
        acceptor_close_ticket(&part);
        return REASON_BAD_TOKEN;
    }
    reason = accept_token(service, ap_req, out);
    const bool accepted = reason == REASON_OK || reason == REASON_NAME_REFUSED;
    if (opened != 0 && accepted) {
        /* libkrb5 could, with the same key: one made ready when memory was short stays broken. */
        acceptor_forget_keys(thread);
        opened = acceptor_open_ticket(thread, service, &decoded->ticket, &part, out);
    }
    if (opened != 0) {
        return accepted ? REASON_INTERNAL : reason;
    }
    reason = look_inside(&acceptor->options, thread, decoded, &part, ask, reason, out);
    acceptor_close_ticket(&part);
    return reason;
}

enum reason acceptor_accept(const struct acceptor *acceptor, struct acceptor_thread *thread,
                            struct span ap_req, const struct acceptor_ask *ask,
                            struct acceptor_result *out)
{
    AP_REQ decoded;
    size_t used = 0;
    const int code = decode_AP_REQ(ap_req.ptr, ap_req.len, &decoded, &used);
    if (code != 0) {
        return code == ENOMEM ? REASON_INTERNAL : REASON_BAD_TOKEN;
    }
    const enum reason reason = used == ap_req.len
                                   ? accept_decoded(acceptor, thread, &decoded, ap_req, ask, out)
                                   : REASON_BAD_TOKEN;
    free_AP_REQ(&decoded);
    return reason;
}

void acceptor_result_clear(struct acceptor_result *result)
{
    buf_reset(&result->reply);
    buf_reset(&result->authenticator);
    /* Field by field: the texts are 3 KiB that need no wiping on every request. */
    result->identity.principal[0] = '\0';
    result->identity.user[0] = '\0';
    result->identity.realm_at = 0;
    result->identity.components = 0;
    result->claimed = false;
    result->claimed_service[0] = '\0';
    result->claimed_realm[0] = '\0';
    result->claimed_kvno = -1;
    result->claimed_enctype = 0;
    result->session_enctype = 0;
    result->kvno_newest = -1;
    result->keytab_has[0] = '\0';
    result->has_gss = false;
    result->gss_major = 0;
    result->gss_minor = 0;
    result->gss_text[0] = '\0';
    result->mutual = false;
    result->deleg = false;
    result->ticket_end_s = 0;
    result->expired_s = -1;
    result->has_skew = false;
    result->skew_s = 0;
    result->ctime_us = 0;
    result->binding = ACCEPTOR_BINDING_ABSENT;
}

void acceptor_result_free(struct acceptor_result *result)
{
    acceptor_result_clear(result);
    buf_clear(&result->reply);
    buf_clear(&result->authenticator);
}
