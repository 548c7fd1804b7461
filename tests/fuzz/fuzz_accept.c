/*
 * Any bytes as a token, down to libkrb5's accept, for sites of three kinds. Whoever is accepted has
 * a ticket that one of the keytab's keys opens, which holds now, and an authenticator of now that
 * the ticket's session key opens, both of the same principal, and that principal is what is said:
 * both parts are read here once more. Nothing weak is accepted where it must not be, no principal
 * has a control byte, and a result that was cleared says nothing of the one before.
 *
 * At the end it says how many tokens reached libkrb5, and fails if they were too few: then the
 * mutator or the seeds do not fit any more.
 */
#include "auth/acceptor.h"
#include "wire/spnego.h"

#include "accept_realm.h"
#include "require.h"

#include <gssapi/gssapi.h>
#include <string.h>
#include <unistd.h>

enum { BIND_SEED = 0x42, ENOUGH_PERCENT = 10, ENOUGH_RUNS = 1000 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum site { STRONG, REQUIRING, LAX, SITES };

static struct binding_list bindings;
static struct acceptor_options options[SITES];
static struct acceptor *acceptors[SITES];
static struct acceptor_thread *thread;
static struct acceptor_result result; /* one for all, as a thread of the daemon has */

static struct {
    unsigned long runs;
    unsigned long inspected; /* an AP-REQ was found */
    unsigned long reached;   /* libkrb5 was asked */
    unsigned long opened;    /* a key of ours opened the ticket */
    unsigned long granted;   /* the accept said OK */
    unsigned long refused;   /* the accept said NAME_REFUSED */
    unsigned long forgotten; /* principals that libgssapi leaked */
} counts;

/*
 * Heimdal's own leak: libgssapi forgets the principal that it copied for its caller when it refuses
 * a token after that, for example for delegated credentials that cannot be read. So the principals
 * that are copied during an accept are counted here, in front of libkrb5, and the one that was
 * forgotten is freed; leaks of ours stay leaks.
 */
enum { COPIES_MAX = 8 };
static krb5_principal copies[COPIES_MAX]; /* NULL: free */

static bool asking; /* the accept is under way */

krb5_error_code krb5_copy_principal(krb5_context context, krb5_const_principal from,
                                    krb5_principal *out)
{
    krb5_principal copy = calloc(1, sizeof *copy);
    (void)context;
    require(copy != NULL && copy_Principal(from, copy) == 0);
    for (size_t i = 0; i < COPIES_MAX && asking; i++) {
        if (copies[i] == NULL) {
            copies[i] = copy;
            break;
        }
        require(i + 1 < COPIES_MAX);
    }
    *out = copy;
    return 0;
}

void krb5_free_principal(krb5_context context, krb5_principal principal)
{
    (void)context;
    for (size_t i = 0; i < COPIES_MAX && principal != NULL; i++) {
        copies[i] = copies[i] != principal ? copies[i] : NULL;
    }
    if (principal != NULL) {
        free_Principal(principal);
        free(principal);
    }
}

/* After a refusal: at most one was forgotten. */
static void free_forgotten(void)
{
    size_t forgotten = 0;
    for (size_t i = 0; i < COPIES_MAX; i++) {
        if (copies[i] != NULL) {
            krb5_free_principal(NULL, copies[i]);
            forgotten++;
        }
    }
    require(forgotten <= 1);
    counts.forgotten += forgotten;
}

static bool asked; /* libkrb5, for the token under test */

/* The linker brings the acceptor's call here. */
OM_uint32 __real_gss_accept_sec_context(OM_uint32 *minor, gss_ctx_id_t *context,
                                        gss_const_cred_id_t credential, const gss_buffer_t input,
                                        const gss_channel_bindings_t channel, gss_name_t *source,
                                        gss_OID *mech, gss_buffer_t output, OM_uint32 *flags,
                                        OM_uint32 *time_s, gss_cred_id_t *delegated);
OM_uint32 __wrap_gss_accept_sec_context(OM_uint32 *minor, gss_ctx_id_t *context,
                                        gss_const_cred_id_t credential, const gss_buffer_t input,
                                        const gss_channel_bindings_t channel, gss_name_t *source,
                                        gss_OID *mech, gss_buffer_t output, OM_uint32 *flags,
                                        OM_uint32 *time_s, gss_cred_id_t *delegated);

OM_uint32 __wrap_gss_accept_sec_context(OM_uint32 *minor, gss_ctx_id_t *context,
                                        gss_const_cred_id_t credential, const gss_buffer_t input,
                                        const gss_channel_bindings_t channel, gss_name_t *source,
                                        gss_OID *mech, gss_buffer_t output, OM_uint32 *flags,
                                        OM_uint32 *time_s, gss_cred_id_t *delegated)
{
    asked = asking = true;
    const OM_uint32 major = __real_gss_accept_sec_context(
        minor, context, credential, input, channel, source, mech, output, flags, time_s, delegated);
    asking = false;
    if (GSS_ERROR(major)) {
        free_forgotten();
    } else {
        memset(copies, 0, sizeof copies); /* they are the acceptor's, and the context's */
    }
    return major;
}

static void say_counts(void)
{
    const double share = counts.runs > 0 ? 100.0 * (double)counts.reached / (double)counts.runs : 0;
    (void)fprintf(stderr,
                  "accept: %lu tokens, %lu with an AP-REQ, %lu reached libkrb5 (%.1f %%), %lu with "
                  "a ticket that was opened, %lu granted, %lu with a principal that was refused; "
                  "libgssapi leaked %lu\n",
                  counts.runs, counts.inspected, counts.reached, share, counts.opened,
                  counts.granted, counts.refused, counts.forgotten);
    for (size_t i = 0; i < SITES; i++) {
        acceptor_close(acceptors[i]);
    }
    acceptor_thread_close(thread);
    acceptor_result_free(&result);
    realm_close();
    if (counts.runs >= ENOUGH_RUNS && (share < ENOUGH_PERCENT || counts.granted == 0)) {
        (void)fprintf(stderr, "accept: this is not enough\n");
        _exit(1);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static unsigned char bnd[1][BINDING_BYTES];
    static const struct acceptor_options kinds[SITES] = {
        [STRONG] = {"strong", false, CONFIG_BINDING_OFF, &bindings},
        [REQUIRING] = {"requiring", false, CONFIG_BINDING_REQUIRE, &bindings},
        [LAX] = {"lax", true, CONFIG_BINDING_ALLOW, &bindings},
    };
    struct buf file = {0};
    struct keytab *keytab = NULL;
    struct fault fault;
    (void)argc;
    (void)argv;
    memset(bnd, BIND_SEED, sizeof bnd);
    bindings = (struct binding_list){bnd, 1};
    realm_open();
    realm_put_keytab(&file);
    require(keytab_parse(buf_span(&file), "keytab", &keytab, &fault) == 0);
    require(keytab->count == REALM_KEYS);
    for (size_t i = 0; i < SITES; i++) {
        options[i] = kinds[i];
        require(acceptor_open(keytab, &options[i], &acceptors[i], &fault) == 0);
    }
    require(acceptor_thread_open(&thread, &fault) == 0);
    keytab_free(keytab);
    buf_clear(&file);
    acceptor_result_clear(&result);
    (void)atexit(say_counts);
    return 0;
}

static void require_cleared(const struct acceptor_result *r, size_t replied)
{
    require(r->identity.principal[0] == '\0' && r->identity.user[0] == '\0');
    require(r->identity.realm_at == 0 && r->identity.components == 0);
    require(r->reply.len == 0 && !r->reply.failed);
    require(r->authenticator.len == 0 && !r->authenticator.failed);
    require(!r->claimed && r->claimed_service[0] == '\0' && r->claimed_realm[0] == '\0');
    require(r->claimed_kvno == -1 && r->claimed_enctype == 0 && r->session_enctype == 0);
    require(r->kvno_newest == -1 && r->keytab_has[0] == '\0');
    require(!r->has_gss && r->gss_major == 0 && r->gss_minor == 0 && r->gss_text[0] == '\0');
    require(!r->mutual && !r->deleg && r->ticket_end_s == 0 && r->expired_s == -1);
    require(!r->has_skew && r->skew_s == 0 && r->ctime_us == 0);
    require(r->binding == ACCEPTOR_BINDING_ABSENT);
    for (size_t i = 0; i < replied; i++) {
        require(r->reply.ptr[i] == 0); /* wiped */
    }
}

/* The principal as Heimdal writes it, quoted, of a name and a realm. */
static char *unparse(PrincipalName name, char *realm)
{
    Principal principal = {name, realm};
    char *text = NULL;
    require(krb5_unparse_name(realm_context(), &principal, &text) == 0);
    return text;
}

static bool same_name(const PrincipalName *a, const PrincipalName *b)
{
    bool same = a->name_string.len == b->name_string.len;
    for (size_t i = 0; same && i < a->name_string.len; i++) {
        same = strcmp(a->name_string.val[i], b->name_string.val[i]) == 0;
    }
    return same;
}

/* Nothing in the text is quoted, or a control byte, and its parts are those of the ticket. */
static void check_principal(const char *text, const EncTicketPart *ticket)
{
    const PrincipalName *name = &ticket->cname;
    const char *at = text;
    require(name->name_string.len > 0 && ticket->crealm[0] != '\0');
    for (size_t i = 0; i < name->name_string.len; i++) {
        const char *part = name->name_string.val[i];
        const size_t len = strlen(part);
        require(len > 0 && strncmp(at, part, len) == 0 && strpbrk(part, "@/\\") == NULL);
        at += len;
        require(*at == (i + 1 < name->name_string.len ? '/' : '@'));
        at++;
    }
    require(strcmp(at, ticket->crealm) == 0 && strpbrk(at, "@/\\") == NULL);
    for (const char *p = text; *p != '\0'; p++) {
        require((unsigned char)*p >= 0x20 && *p != 0x7f);
    }
}

/* What must be true of a token whose sender was accepted. */
static void check_accepted(const struct realm_token *token, enum site site, enum reason reason)
{
    const EncTicketPart *ticket = &token->ticket;
    const Authenticator *authenticator = &token->authenticator;
    const EncryptedData *sealed = &token->ap_req.ticket.enc_part;
    const int64_t start = ticket->starttime != NULL ? *ticket->starttime : ticket->authtime;
    const int64_t off = (int64_t)authenticator->ctime - REALM_NOW_S;
    require(token->has_ticket && token->has_authenticator);
    require(token->ap_req.ticket.sname.name_string.len == 2);
    require(strcmp(token->ap_req.ticket.sname.name_string.val[0], "HTTP") == 0);
    require(strcmp(token->ap_req.ticket.sname.name_string.val[1], token->key->host) == 0);
    require(start <= REALM_NOW_S + REALM_SKEW_S && ticket->flags.invalid == 0);
    require((int64_t)ticket->endtime >= REALM_NOW_S - REALM_SKEW_S);
    require(off <= REALM_SKEW_S && off >= -REALM_SKEW_S);
    require(same_name(&ticket->cname, &authenticator->cname));
    require(strcmp(ticket->crealm, authenticator->crealm) == 0);
    require(sealed->kvno == NULL || *sealed->kvno == 0 ||
            (uint32_t)*sealed->kvno == token->key->kvno);
    if (site != LAX) {
        require(!keytab_enctype_weak(token->key->enctype));
        require(!keytab_enctype_weak(ticket->key.keytype));
    }
    require(result.session_enctype == ticket->key.keytype);
    require(result.claimed_enctype == token->key->enctype);
    require(span_equal(buf_span(&result.authenticator),
                       span_make(token->ap_req.authenticator.cipher.data,
                                 token->ap_req.authenticator.cipher.length)));
    char *principal = unparse(ticket->cname, ticket->crealm);
    require(result.identity.principal[0] != '\0');
    require(strcmp(result.identity.principal, principal) == 0);
    free(principal);
    if (reason == REASON_OK) {
        check_principal(result.identity.principal, ticket);
    }
}

/* RFC 4121 4.1.1, by its own reading. */
static bool is_bound(const Authenticator *authenticator, bool *rightly)
{
    static const unsigned char none[BINDING_BYTES];
    const Checksum *sum = authenticator->cksum;
    const unsigned char *p = sum != NULL ? sum->checksum.data : NULL;
    *rightly = false;
    if (sum == NULL || (int)sum->cksumtype != 0x8003 || sum->checksum.length < 20 || p[0] != 16 ||
        p[1] != 0 || p[2] != 0 || p[3] != 0 || memcmp(p + 4, none, sizeof none) == 0) {
        return false;
    }
    *rightly = memcmp(p + 4, bindings.items[0], BINDING_BYTES) == 0;
    return true;
}

static void check_binding(const struct realm_token *token, enum site site)
{
    bool rightly = false;
    const bool bound = is_bound(&token->authenticator, &rightly);
    switch (result.binding) {
    case ACCEPTOR_BINDING_ABSENT:
        require(site == STRONG);
        break;
    case ACCEPTOR_BINDING_NONE:
        require(site == LAX && !bound);
        break;
    case ACCEPTOR_BINDING_MATCHED:
        require(site != STRONG && rightly);
        break;
    default:
        require(false); /* nobody is accepted with those */
    }
    const bool told = site != STRONG && token->authenticator.cusec >= 0;
    require(result.ctime_us / 1000000 == (told ? (uint64_t)token->authenticator.ctime : 0));
}

/* The only reason to find no principal in a ticket that was accepted. */
static bool is_too_long(const struct realm_token *token)
{
    require(token != NULL && token->has_ticket);
    char *principal = unparse(token->ticket.cname, token->ticket.crealm);
    const bool too_long = strlen(principal) >= IDENTITY_TEXT_BYTES;
    free(principal);
    return too_long;
}

static enum reason accept_once(enum site site, struct span ap_req, const struct realm_token *token)
{
    const struct acceptor_ask ask = {.now_s = REALM_NOW_S, .ctime = site == REQUIRING};
    asked = false;
    const enum reason reason = acceptor_accept(acceptors[site], thread, ap_req, &ask, &result);
    const bool accepted = reason == REASON_OK || reason == REASON_NAME_REFUSED;
    require(reason != REASON_INTERNAL);
    require(!accepted || (asked && token != NULL));
    require(reason != REASON_NO_PRINCIPAL || is_too_long(token));
    if (accepted) {
        check_accepted(token, site, reason);
        check_binding(token, site);
    }
    counts.reached += site == LAX && asked ? 1 : 0;
    counts.granted += site == LAX && reason == REASON_OK ? 1 : 0;
    counts.refused += site == LAX && reason == REASON_NAME_REFUSED ? 1 : 0;
    const size_t replied = result.reply.len;
    acceptor_result_clear(&result);
    require_cleared(&result, replied);
    return reason;
}

static void accept_everywhere(struct span ap_req, const struct realm_token *token)
{
    enum reason reasons[SITES];
    for (size_t i = 0; i < SITES; i++) {
        reasons[i] = accept_once((enum site)i, ap_req, token);
    }
    /* Who may enter where more is asked for may enter where less is. */
    require(reasons[REQUIRING] != REASON_OK || reasons[STRONG] == REASON_OK);
    require(reasons[REQUIRING] != REASON_OK || reasons[LAX] == REASON_OK);
    require(reasons[STRONG] != REASON_OK || reasons[LAX] == REASON_OK ||
            reasons[LAX] == REASON_CB_MISMATCH);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spnego_token found;
    struct realm_token token;
    counts.runs++;
    if (spnego_inspect(span_make(data, size), &found) != REASON_OK) {
        return 0;
    }
    counts.inspected++;
    const bool read = realm_token_read(found.ap_req, &token) == 0;
    counts.opened += read && token.key != NULL ? 1 : 0;
    accept_everywhere(found.ap_req, read ? &token : NULL);
    if (read) {
        realm_token_free(&token);
    }
    return 0;
}
