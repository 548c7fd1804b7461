/* What an accept would find, told without one. */
#include "auth/acceptor.h"
#include "auth/acceptor_keys.h"

#include <krb5_asn1.h>
#include <string.h>

enum { CHECKSUM_GSS = 0x8003, BND_AT = 4, FLAGS_AT = BND_AT + BINDING_BYTES, COMPONENTS_MAX = 16 };

static int unparse(const PrincipalName *name, const char *realm, char *out, size_t size)
{
    struct span components[COMPONENTS_MAX];
    const size_t count = name->name_string.len;
    if (count > COMPONENTS_MAX) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        components[i] = span_of(name->name_string.val[i]);
    }
    return identity_unparse(components, count, span_of(realm), out, size);
}

/* The ticket's client, judged as libgssapi's exported name of it would be. */
static enum reason read_client(const EncTicketPart *part, struct identity *out)
{
    static const unsigned char head[] = {0x04, 0x01, 0x00, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48,
                                         0x86, 0xf7, 0x12, 0x01, 0x02, 0x02, 0x00, 0x00};
    unsigned char exported[sizeof head + 2 + IDENTITY_TEXT_BYTES];
    char *principal = (char *)exported + sizeof head + 2;
    if (unparse(&part->cname, part->crealm, principal, IDENTITY_TEXT_BYTES) != 0) {
        return REASON_NO_PRINCIPAL;
    }
    const size_t len = strlen(principal);
    memcpy(exported, head, sizeof head);
    exported[sizeof head] = (unsigned char)(len >> 8);
    exported[sizeof head + 1] = (unsigned char)len;
    return identity_read(span_make(exported, sizeof head + 2 + len), out);
}

static void view_ticket(const EncTicketPart *part, struct acceptor_view *view)
{
    view->opened = true;
    view->auth_s = part->authtime;
    view->start_s = part->starttime != NULL ? *part->starttime : part->authtime;
    view->end_s = part->endtime;
    view->renew_s = part->renew_till != NULL ? *part->renew_till : 0;
    view->addresses = part->caddr != NULL ? part->caddr->len : 0;
}

/* RFC 4121 section 4.1.1: the binding and the flags of the checksum. */
static void view_authenticator(const Authenticator *authenticator, struct acceptor_view *view)
{
    static const unsigned char unbound[BINDING_BYTES];
    const Checksum *checksum = authenticator->cksum;
    view->made = true;
    view->made_s = authenticator->ctime;
    if (checksum == NULL || (int)checksum->cksumtype != CHECKSUM_GSS ||
        checksum->checksum.length < FLAGS_AT + 4) {
        return;
    }
    const unsigned char *bytes = checksum->checksum.data;
    const unsigned char *flags = bytes + FLAGS_AT;
    view->bound = memcmp(bytes + BND_AT, unbound, sizeof unbound) != 0;
    view->has_flags = true;
    view->flags = (uint32_t)flags[0] | (uint32_t)flags[1] << 8 | (uint32_t)flags[2] << 16 |
                  (uint32_t)flags[3] << 24;
}

/* The times of the ticket, as libkrb5 holds them against the clock. */
static enum reason check_times(const EncTicketPart *part, const struct acceptor_view *view,
                               int64_t now_s, int64_t skew_s)
{
    if (view->start_s - now_s > skew_s || part->flags.invalid) {
        return REASON_TICKET_NOT_YET_VALID;
    }
    return now_s - view->end_s > skew_s ? REASON_TICKET_EXPIRED : REASON_OK;
}

/* The authenticator must be of the ticket's client. */
static bool is_same_client(const EncTicketPart *part, const Authenticator *authenticator)
{
    char ticket[IDENTITY_TEXT_BYTES];
    char sender[IDENTITY_TEXT_BYTES];
    return unparse(&part->cname, part->crealm, ticket, sizeof ticket) == 0 &&
           unparse(&authenticator->cname, authenticator->crealm, sender, sizeof sender) == 0 &&
           strcmp(ticket, sender) == 0;
}

/* In the order of an accept: clock, client, session key, name, channel bindings. */
static enum reason judge(const struct acceptor *acceptor, const AP_REQ *decoded,
                         const EncTicketPart *part, const Authenticator *authenticator,
                         const struct acceptor_ask *ask, struct acceptor_result *out)
{
    const int64_t skew_s = krb5_get_max_time_skew(acceptor->context);
    const int64_t off_s = (int64_t)authenticator->ctime - (int64_t)ask->now_s;
    if (!is_same_client(part, authenticator)) {
        return REASON_GSS_ERROR;
    }
    enum reason reason = read_client(part, &out->identity);
    if (off_s > skew_s || -off_s > skew_s) {
        reason = REASON_CLOCK_SKEW;
    } else if (reason == REASON_OK || reason == REASON_NAME_REFUSED) {
        const enum reason session =
            acceptor_check_session_key(&acceptor->options, decoded->authenticator.etype, out);
        reason = session != REASON_OK ? session : reason;
    }
    return reason == REASON_OK || reason == REASON_NAME_REFUSED || reason == REASON_CLOCK_SKEW
               ? acceptor_read_authenticator(&acceptor->options, authenticator, ask->now_s, reason,
                                             out)
               : reason;
}

/* Looks into an opened ticket. */
static enum reason explain_opened(const struct acceptor *acceptor, struct acceptor_thread *thread,
                                  const AP_REQ *decoded, const EncTicketPart *part,
                                  const struct acceptor_ask *ask, struct acceptor_result *out,
                                  struct acceptor_view *view)
{
    Authenticator authenticator;
    view_ticket(part, view);
    acceptor_read_figures(part, ask->now_s, out);
    (void)read_client(part, &out->identity);
    const enum reason times =
        check_times(part, view, (int64_t)ask->now_s, krb5_get_max_time_skew(acceptor->context));
    if (acceptor_open_authenticator(thread->context, part, &decoded->authenticator,
                                    &authenticator) != 0) {
        return times != REASON_OK ? times : REASON_WRONG_KEY;
    }
    view_authenticator(&authenticator, view);
    const enum reason reason =
        times != REASON_OK ? times : judge(acceptor, decoded, part, &authenticator, ask, out);
    acceptor_close_authenticator(&authenticator);
    return reason;
}

static enum reason explain_decoded(const struct acceptor *acceptor, struct acceptor_thread *thread,
                                   const AP_REQ *decoded, uint64_t now_s,
                                   struct acceptor_result *out, struct acceptor_view *view)
{
    const struct acceptor_ask ask = {.now_s = now_s};
    const struct service *service = NULL;
    EncTicketPart part;
    view->use_session_key = decoded->ap_options.use_session_key;
    view->mutual_required = decoded->ap_options.mutual_required;
    view->ticket_bytes = decoded->ticket.enc_part.cipher.length;
    view->authenticator_bytes = decoded->authenticator.cipher.length;
    if (acceptor == NULL) {
        return acceptor_read_claims(decoded, out) == 0 ? REASON_KEYTAB_UNAVAILABLE
                                                       : REASON_BAD_TOKEN;
    }
    enum reason reason = acceptor_inspect(acceptor, decoded, out, &service);
    if (reason != REASON_OK) {
        return reason;
    }
    if (acceptor_open_ticket(thread, service, &decoded->ticket, &part, out) != 0) {
        return REASON_WRONG_KEY;
    }
    reason = explain_opened(acceptor, thread, decoded, &part, &ask, out, view);
    reason = acceptor_transited_is_plain(&part) ? reason : REASON_BAD_TOKEN;
    acceptor_close_ticket(&part);
    return reason;
}

enum reason acceptor_explain(const struct acceptor *acceptor, struct acceptor_thread *thread,
                             struct span ap_req, uint64_t now_s, struct acceptor_result *out,
                             struct acceptor_view *view)
{
    AP_REQ decoded;
    size_t used = 0;
    *view = (struct acceptor_view){0};
    if (decode_AP_REQ(ap_req.ptr, ap_req.len, &decoded, &used) != 0) {
        return REASON_BAD_TOKEN;
    }
    const enum reason reason = used == ap_req.len
                                   ? explain_decoded(acceptor, thread, &decoded, now_s, out, view)
                                   : REASON_BAD_TOKEN;
    free_AP_REQ(&decoded);
    return reason;
}

bool acceptor_read_error(struct span error, struct acceptor_error *out)
{
    KRB_ERROR decoded;
    size_t used = 0;
    krb5_context context = NULL;
    *out = (struct acceptor_error){0};
    if (decode_KRB_ERROR(error.ptr, error.len, &decoded, &used) != 0) {
        return false;
    }
    out->code = decoded.error_code;
    out->server_s = decoded.stime;
    if (unparse(&decoded.sname, decoded.realm, out->service, sizeof out->service) != 0) {
        out->service[0] = '\0';
    }
    free_KRB_ERROR(&decoded);
    if (out->code >= 0 && out->code < 128 && krb5_init_context(&context) == 0) {
        const char *text =
            krb5_get_error_message(context, out->code + (krb5_error_code)ERROR_TABLE_BASE_krb5);
        (void)span_copy(span_of(text), out->text, sizeof out->text);
        krb5_free_error_message(context, text);
        krb5_free_context(context);
    }
    return used == error.len;
}
