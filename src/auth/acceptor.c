#include "auth/acceptor.h"

#include "base/secret.h"

#include <errno.h>
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>
#include <krb5_asn1.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a key can open, without the key: enough to say beforehand why a ticket will not be opened.
 */
struct key_entry {
    uint32_t kvno;
    int32_t enctype;
};

/* One principal of the keytab with a credential of its own, so that no other's keys are ever tried.
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
    bool weak_allowed;
};

static int compare_services(const void *a, const void *b)
{
    return strcmp(((const struct service *)a)->principal, ((const struct service *)b)->principal);
}

static int compare_principal(const void *principal, const void *service)
{
    return strcmp(principal, ((const struct service *)service)->principal);
}

static struct service *find_service(const struct acceptor *acceptor, const char *principal)
{
    if (acceptor->count == 0) {
        return NULL;
    }
    return bsearch(principal, acceptor->services, acceptor->count, sizeof *acceptor->services,
                   compare_principal);
}

/* Adds one key to its service's keytab in memory; the service is found or begun. */
static krb5_error_code add_key(struct acceptor *acceptor, const struct keytab_key *key,
                               struct service *service)
{
    krb5_keytab_entry entry;
    memset(&entry, 0, sizeof entry);
    krb5_error_code code = krb5_parse_name(acceptor->context, key->principal, &entry.principal);
    if (code != 0) {
        return code;
    }
    entry.vno = (krb5_kvno)key->kvno;
    entry.timestamp = key->timestamp_s;
    code = krb5_keyblock_init(acceptor->context, key->enctype, key->key, key->key_len,
                              &entry.keyblock);
    if (code == 0) {
        code = krb5_kt_add_entry(acceptor->context, service->keytab, &entry);
        krb5_free_keyblock_contents(acceptor->context, &entry.keyblock);
    }
    krb5_free_principal(acceptor->context, entry.principal);
    if (code == 0) {
        service->keys[service->key_count++] = (struct key_entry){key->kvno, key->enctype};
        service->kvno_newest = service->kvno_newest < key->kvno ? key->kvno : service->kvno_newest;
    }
    return code;
}

static krb5_error_code import_credential(struct acceptor *acceptor, struct service *service)
{
    krb5_principal principal = NULL;
    krb5_error_code code = krb5_parse_name(acceptor->context, service->principal, &principal);
    if (code != 0) {
        return code;
    }
    OM_uint32 minor = 0;
    const OM_uint32 major =
        gss_krb5_import_cred(&minor, NULL, principal, service->keytab, &service->credential);
    krb5_free_principal(acceptor->context, principal);
    return major == GSS_S_COMPLETE ? 0 : (minor != 0 ? (krb5_error_code)minor : EINVAL);
}

/* Makes one service of all its keys in the keytab; 0, or libkrb5's code when none of them can be
 * used. */
static krb5_error_code open_service(struct acceptor *acceptor, const struct keytab *keytab,
                                    const char *principal)
{
    static _Atomic unsigned long serial;
    struct service *service = &acceptor->services[acceptor->count];
    *service = (struct service){.credential = GSS_C_NO_CREDENTIAL};
    acceptor->count++; /* from here on acceptor_close clears it */
    char label[64];
    (void)snprintf(label, sizeof label, "MEMORY:spnegate-%lu", atomic_fetch_add(&serial, 1));
    service->principal = strdup(principal);
    service->keys = calloc(keytab->count, sizeof *service->keys);
    if (service->principal == NULL || service->keys == NULL) {
        return ENOMEM;
    }
    krb5_error_code code = krb5_kt_resolve(acceptor->context, label, &service->keytab);
    krb5_error_code refused = 0;
    for (size_t i = 0; i < keytab->count && code == 0; i++) {
        if (strcmp(keytab->keys[i].principal, principal) == 0) {
            const krb5_error_code one = add_key(acceptor, &keytab->keys[i], service);
            code = one == ENOMEM ? one : 0;
            refused = one != 0 ? one : refused;
        }
    }
    if (code == 0 && service->key_count == 0) {
        code = refused;
    }
    return code == 0 ? import_credential(acceptor, service) : code;
}

static void close_service(struct acceptor *acceptor, struct service *service)
{
    OM_uint32 minor = 0;
    (void)gss_release_cred(&minor, &service->credential);
    if (service->keytab != NULL) {
        (void)krb5_kt_close(acceptor->context, service->keytab);
    }
    free(service->principal);
    free(service->keys);
    *service = (struct service){0};
}

/* A service that cannot be used at all (its enctypes are unknown here) is left out, unless it is
 * the last. */
static int open_services(struct acceptor *acceptor, const struct keytab *keytab, const char *where,
                         struct fault *fault)
{
    krb5_error_code last = 0;
    for (size_t i = 0; i < keytab->count; i++) {
        const char *principal = keytab->keys[i].principal;
        bool seen = false;
        for (size_t j = 0; j < acceptor->count && !seen; j++) {
            seen = strcmp(acceptor->services[j].principal, principal) == 0;
        }
        if (seen) {
            continue;
        }
        const krb5_error_code code = open_service(acceptor, keytab, principal);
        if (code == ENOMEM) {
            return fault_set(fault, where, "no memory for the keytab's keys");
        }
        if (code != 0) {
            last = code;
            acceptor->count--;
            close_service(acceptor, &acceptor->services[acceptor->count]);
        }
    }
    if (acceptor->count == 0) {
        const char *text = krb5_get_error_message(acceptor->context, last);
        (void)fault_set(fault, where, "libkrb5 can use none of the keytab's keys: %s", text);
        krb5_free_error_message(acceptor->context, text);
        return -1;
    }
    return 0;
}

int acceptor_open(const struct keytab *keytab, const char *where, bool weak_allowed,
                  struct acceptor **out, struct fault *fault)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (acceptor == NULL) {
        return fault_set(fault, where, "no memory");
    }
    acceptor->weak_allowed = weak_allowed;
    const krb5_error_code code = krb5_init_context(&acceptor->context);
    if (code != 0) {
        acceptor->context = NULL;
        (void)fault_set(fault, "krb5.conf", "libkrb5 cannot start (error %d): look at krb5.conf",
                        (int)code);
        goto out;
    }
    acceptor->count = 0;
    acceptor->services = calloc(keytab->count, sizeof *acceptor->services);
    if (acceptor->services == NULL) {
        (void)fault_set(fault, where, "no memory");
        goto out;
    }
    if (open_services(acceptor, keytab, where, fault) != 0) {
        goto out;
    }
    qsort(acceptor->services, acceptor->count, sizeof *acceptor->services, compare_services);
    *out = acceptor;
    return 0;
out:
    acceptor_close(acceptor);
    return -1;
}

void acceptor_close(struct acceptor *acceptor)
{
    if (acceptor == NULL) {
        return;
    }
    for (size_t i = 0; i < acceptor->count; i++) {
        close_service(acceptor, &acceptor->services[i]);
    }
    free(acceptor->services);
    if (acceptor->context != NULL) {
        krb5_free_context(acceptor->context);
    }
    free(acceptor);
}

int acceptor_warm(struct fault *fault)
{
    /* An AP-REQ without content: refused, but only after libkrb5 has made this thread's context. */
    unsigned char empty[] = {0x6e, 0x00};
    gss_buffer_desc input = {sizeof empty, empty};
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    gss_ctx_id_t context = GSS_C_NO_CONTEXT;
    OM_uint32 minor = 0;
    const OM_uint32 major =
        gss_accept_sec_context(&minor, &context, GSS_C_NO_CREDENTIAL, &input,
                               GSS_C_NO_CHANNEL_BINDINGS, NULL, NULL, &output, NULL, NULL, NULL);
    OM_uint32 ignored = 0;
    (void)gss_release_buffer(&ignored, &output);
    (void)gss_delete_sec_context(&ignored, &context, GSS_C_NO_BUFFER);
    if (major == GSS_S_COMPLETE) {
        return fault_set(fault, "libgssapi", "it accepted an empty token");
    }
    return 0;
}

uint32_t acceptor_skew_s(void)
{
    krb5_context context = NULL;
    time_t skew = 300;
    if (krb5_init_context(&context) == 0) {
        skew = krb5_get_max_time_skew(context);
        krb5_free_context(context);
    }
    return skew > 0 && skew < 86400 ? (uint32_t)skew : 300;
}

const char *acceptor_version(void)
{
    return heimdal_version;
}

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

/* The ticket's cleartext into the result; -1 when its service does not fit what any keytab holds.
 */
static int read_claims(const AP_REQ *ap_req, struct acceptor_result *out)
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

/* Looks up the ticket's cleartext among our own keys; `*service` is set with OK. */
static enum reason find_key(const struct acceptor *acceptor, struct acceptor_result *out,
                            struct service **service)
{
    struct service *found = find_service(acceptor, out->claimed_service);
    if (found == NULL) {
        describe_keys(acceptor, NULL, out->keytab_has, sizeof out->keytab_has);
        return REASON_UNKNOWN_SERVICE;
    }
    out->kvno_newest = found->kvno_newest;
    bool kvno = false;
    bool both = false;
    for (size_t i = 0; i < found->key_count; i++) {
        /* A ticket without kvno, or with 0, fits every version. */
        const bool fits = out->claimed_kvno <= 0 || out->claimed_kvno == found->keys[i].kvno;
        kvno = kvno || fits;
        both = both || (fits && found->keys[i].enctype == out->claimed_enctype);
    }
    if (!both) {
        describe_keys(acceptor, found, out->keytab_has, sizeof out->keytab_has);
        return kvno ? REASON_UNKNOWN_ENCTYPE : REASON_UNKNOWN_KVNO;
    }
    if (!acceptor->weak_allowed &&
        (keytab_enctype_weak(out->claimed_enctype) || keytab_enctype_weak(out->session_enctype))) {
        return REASON_WEAK_ENCTYPE;
    }
    *service = found;
    return REASON_OK;
}

/* Reads the AP-REQ itself: every byte must be its own. */
static enum reason inspect(const struct acceptor *acceptor, struct span bytes,
                           struct acceptor_result *out, struct service **service)
{
    AP_REQ ap_req;
    size_t used = 0;
    const int code = decode_AP_REQ(bytes.ptr, bytes.len, &ap_req, &used);
    if (code != 0) {
        return code == ENOMEM ? REASON_INTERNAL : REASON_BAD_TOKEN;
    }
    enum reason reason = REASON_BAD_TOKEN;
    if (used == bytes.len && read_claims(&ap_req, out) == 0) {
        out->authenticator.max = bytes.len;
        buf_append(&out->authenticator, ap_req.authenticator.cipher.data,
                   ap_req.authenticator.cipher.length);
        reason = out->authenticator.failed     ? REASON_INTERNAL
                 : out->authenticator.len == 0 ? REASON_BAD_TOKEN
                                               : find_key(acceptor, out, service);
    }
    free_AP_REQ(&ap_req);
    return reason;
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
    if (GSS_ROUTINE_ERROR(major) == GSS_S_BAD_BINDINGS) {
        return REASON_CB_MISMATCH;
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

enum reason acceptor_accept(const struct acceptor *acceptor, struct span ap_req, uint64_t now_s,
                            struct acceptor_result *out)
{
    struct service *service = NULL;
    enum reason reason = inspect(acceptor, ap_req, out, &service);
    if (reason != REASON_OK) {
        return reason;
    }
    gss_buffer_desc input = {ap_req.len, (void *)(uintptr_t)ap_req.ptr};
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    gss_ctx_id_t context = GSS_C_NO_CONTEXT;
    gss_name_t source = GSS_C_NO_NAME;
    OM_uint32 minor = 0;
    OM_uint32 flags = 0;
    OM_uint32 lifetime_s = 0;
    /* No place for delegated credentials: they are dropped by the library. */
    const OM_uint32 major = gss_accept_sec_context(&minor, &context, service->credential, &input,
                                                   GSS_C_NO_CHANNEL_BINDINGS, &source, NULL,
                                                   &output, &flags, &lifetime_s, NULL);
    if (major == GSS_S_COMPLETE) {
        out->mutual = (flags & GSS_C_MUTUAL_FLAG) != 0;
        out->deleg = (flags & GSS_C_DELEG_FLAG) != 0;
        out->ticket_end_s = lifetime_s == GSS_C_INDEFINITE ? 0 : now_s + lifetime_s;
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
}

void acceptor_result_free(struct acceptor_result *result)
{
    acceptor_result_clear(result);
    buf_clear(&result->reply);
    buf_clear(&result->authenticator);
}
