/*
 * Writes the seeds of fuzz/accept: accept_seeds DIRECTORY. Tokens as Heimdal's initiator makes them
 * of tickets that are sealed here, and tokens that no initiator makes, all for the keys and the
 * time of accept_realm.c. Needed only when those change.
 */
#include "accept_realm.h"

#include "require.h"
#include "wire/spnego.h"

#include <errno.h>
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <gssapi/gssapi_spnego.h>
#include <string.h>

static const char *directory;

static void write_seed(const char *seed, struct span bytes)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", directory, seed);
    FILE *file = fopen(path, "w");
    require(file != NULL && fwrite(bytes.ptr, 1, bytes.len, file) == bytes.len);
    require(fclose(file) == 0);
}

/* ---- tokens of Heimdal's initiator */

struct real {
    const char *seed;
    size_t key;
    int32_t session_enctype;
    bool spnego;
    OM_uint32 flags;
    int bind; /* the byte that the bindings are made of; 0: none */
    int ahead_s;
};

/* The ticket goes into the cache that the initiator looks into. */
static void store_ticket(const struct real *real)
{
    struct realm_token token;
    krb5_context context = realm_context();
    krb5_ccache cache;
    krb5_creds creds = {0};
    size_t size = 0;
    int code = 0;
    realm_token_make(&realm_keys[real->key], real->session_enctype, &token);
    realm_token_encode(&token);
    realm_token_seal(&token);
    char service[64];
    (void)snprintf(service, sizeof service, "HTTP/%s@EXAMPLE.TEST", token.key->host);
    require(krb5_parse_name(context, "alice@EXAMPLE.TEST", &creds.client) == 0);
    require(krb5_parse_name(context, service, &creds.server) == 0);
    require(krb5_copy_keyblock_contents(context, &token.ticket.key, &creds.session) == 0);
    creds.times.authtime = token.ticket.authtime;
    creds.times.endtime = token.ticket.endtime;
    ASN1_MALLOC_ENCODE(Ticket, creds.ticket.data, creds.ticket.length, &token.ap_req.ticket, &size,
                       code);
    require(code == 0);
    require(krb5_cc_resolve(context, "MEMORY:none", &cache) == 0);
    require(krb5_cc_initialize(context, cache, creds.client) == 0);
    require(krb5_cc_store_cred(context, cache, &creds) == 0);
    (void)krb5_cc_close(context, cache);
    krb5_free_cred_contents(context, &creds);
    realm_token_free(&token);
}

static void make_real(const struct real *real, gss_buffer_t out)
{
    char service[64];
    OM_uint32 minor = 0;
    gss_name_t target = GSS_C_NO_NAME;
    gss_ctx_id_t context = GSS_C_NO_CONTEXT;
    unsigned char bytes[8];
    struct gss_channel_bindings_struct bindings = {.application_data = {sizeof bytes, bytes}};
    memset(bytes, real->bind, sizeof bytes);
    (void)snprintf(service, sizeof service, "HTTP/%s@EXAMPLE.TEST", realm_keys[real->key].host);
    gss_buffer_desc text = {strlen(service), service};
    store_ticket(real);
    realm_set_clock(REALM_NOW_S + real->ahead_s);
    require(gss_import_name(&minor, &text, GSS_KRB5_NT_PRINCIPAL_NAME, &target) == GSS_S_COMPLETE);
    const OM_uint32 major =
        gss_init_sec_context(&minor, GSS_C_NO_CREDENTIAL, &context, target,
                             real->spnego ? GSS_SPNEGO_MECHANISM : GSS_KRB5_MECHANISM, real->flags,
                             0, real->bind != 0 ? &bindings : GSS_C_NO_CHANNEL_BINDINGS,
                             GSS_C_NO_BUFFER, NULL, out, NULL, NULL);
    realm_set_clock(REALM_NOW_S);
    require(!GSS_ERROR(major) && out->length > 0);
    (void)gss_delete_sec_context(&minor, &context, GSS_C_NO_BUFFER);
    (void)gss_release_name(&minor, &target);
}

static void write_reals(void)
{
    enum {
        AES256 = KRB5_ENCTYPE_AES256_CTS_HMAC_SHA1_96,
        AES128 = KRB5_ENCTYPE_AES128_CTS_HMAC_SHA1_96,
        AES256_SHA2 = KRB5_ENCTYPE_AES256_CTS_HMAC_SHA384_192,
        AES128_SHA2 = KRB5_ENCTYPE_AES128_CTS_HMAC_SHA256_128,
        RC4 = KRB5_ENCTYPE_ARCFOUR_HMAC_MD5,
        DES3 = KRB5_ENCTYPE_DES3_CBC_SHA1,
        MUTUAL = GSS_C_MUTUAL_FLAG,
    };
    static const struct real reals[] = {
        {"spnego-aes256", 0, AES256, true, 0, 0, 0},
        {"spnego-aes256-mutual", 0, AES256, true, MUTUAL, 0, 0},
        {"raw-aes256", 0, AES256, false, 0, 0, 0},
        {"raw-aes256-mutual", 0, AES256, false, MUTUAL | GSS_C_REPLAY_FLAG, 0, 0},
        {"spnego-aes128-mutual", 1, AES128, true, MUTUAL, 0, 0},
        {"spnego-aes256-sha2-mutual", 2, AES256_SHA2, true, MUTUAL, 0, 0},
        {"spnego-aes128-sha2", 3, AES128_SHA2, true, 0, 0, 0},
        {"spnego-rc4-mutual", 4, RC4, true, MUTUAL, 0, 0},
        {"raw-des3", 5, DES3, false, 0, 0, 0},
        {"spnego-rc4-ticket", 4, AES256, true, 0, 0, 0},
        {"spnego-rc4-session", 0, RC4, true, 0, 0, 0},
        {"spnego-kvno-2", 6, AES256, true, 0, 0, 0},
        {"spnego-other-service", 7, AES128, true, MUTUAL, 0, 0},
        {"spnego-bound-to-another", 0, AES256, true, MUTUAL, 'A', 0},
        {"spnego-dce", 0, AES256, true, MUTUAL | GSS_C_DCE_STYLE, 0, 0},
        {"spnego-ahead", 0, AES256, true, MUTUAL, 0, 3600},
        {"raw-behind", 0, AES256, false, 0, 0, -3600},
        {"spnego-a-little-ahead", 0, AES256, true, 0, 0, 200},
    };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        gss_buffer_desc bytes = GSS_C_EMPTY_BUFFER;
        OM_uint32 minor = 0;
        make_real(&reals[i], &bytes);
        write_seed(reals[i].seed, span_make(bytes.value, bytes.length));
        (void)gss_release_buffer(&minor, &bytes);
    }
}

/* ---- tokens of our own */

#define NAME(...)                                                                                  \
    (const char *const[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)
#define BYTES(...) span_make((unsigned char[]){__VA_ARGS__}, sizeof((unsigned char[]){__VA_ARGS__}))

static bool is(const char *what, const char *text)
{
    return strcmp(what, text) == 0;
}

static void set_client(struct realm_token *t, const char *const *components, size_t count)
{
    realm_set_name(&t->ticket.cname, components, count);
    realm_set_name(&t->authenticator.cname, components, count);
}

static bool change_client(const char *what, struct realm_token *t)
{
    char text[600] = {0};
    if (is(what, "other-client")) { /* than the ticket's */
        realm_set_name(&t->authenticator.cname, NAME("bob"));
    } else if (is(what, "odd-client")) {
        set_client(t, NAME("alice@EXAMPLE.TEST"));
    } else if (is(what, "control")) {
        set_client(t, NAME("al\nice"));
    } else if (is(what, "anonymous")) {
        set_client(t, NAME("WELLKNOWN", "ANONYMOUS"));
    } else if (is(what, "machine")) {
        set_client(t, NAME("HTTP", "other.example.test"));
    } else if (is(what, "long-client")) {
        set_client(t, NAME(memset(text, 'x', 500)));
    } else {
        return false;
    }
    return true;
}

static bool change_ticket(const char *what, struct realm_token *t)
{
    EncTicketPart *ticket = &t->ticket;
    if (is(what, "if-relevant")) {
        realm_add_data(&ticket->authorization_data, 1,
                       BYTES(0x30, 0x15, 0x30, 0x13, 0xa0, 0x04, 0x02, 0x02, 0x02, 0x00, 0xa1, 0x0b,
                             0x04, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 9));
    } else if (is(what, "pac")) {
        realm_add_data(&ticket->authorization_data, 1,
                       BYTES(0x30, 0x16, 0x30, 0x14, 0xa0, 0x04, 0x02, 0x02, 0x00, 0x80, 0xa1, 0x0c,
                             0x04, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    } else if (is(what, "expired")) {
        ticket->endtime = REALM_NOW_S - 3600;
    } else if (is(what, "not-yet-valid")) {
        ticket->authtime = REALM_NOW_S + 3600;
    } else if (is(what, "invalid")) {
        ticket->flags.invalid = 1;
    } else {
        return false;
    }
    return true;
}

static bool change_authenticator(const char *what, struct realm_token *t)
{
    static const unsigned char right[] = "BBBBBBBBBBBBBBBB";
    static const unsigned char wrong[] = "AAAAAAAAAAAAAAAA";
    const struct span nothing = {NULL, 0};
    Authenticator *authenticator = &t->authenticator;
    if (is(what, "bound")) {
        realm_set_checksum(authenticator, right, 0, nothing);
    } else if (is(what, "bound-wrongly")) {
        realm_set_checksum(authenticator, wrong, 0, nothing);
    } else if (is(what, "delegating")) { /* what cannot be read */
        realm_set_checksum(authenticator, NULL, 1, BYTES(1, 0, 4, 0, 0x76, 0x02, 0x30, 0x00));
    } else if (is(what, "without-checksum")) {
        free_Checksum(authenticator->cksum);
        free(authenticator->cksum);
        authenticator->cksum = NULL;
    } else if (is(what, "enctypes")) { /* RFC 4537, as MIT's initiator sends them */
        realm_add_data(&authenticator->authorization_data, 129,
                       BYTES(0x30, 0x06, 0x02, 0x01, 0x12, 0x02, 0x01, 0x11));
    } else if (is(what, "subkey")) {
        authenticator->subkey = calloc(1, sizeof *authenticator->subkey);
        require(authenticator->subkey != NULL);
        require(krb5_generate_random_keyblock(realm_context(), t->ticket.key.keytype,
                                              authenticator->subkey) == 0);
    } else {
        return false;
    }
    return true;
}

/* What stands around the sealed parts, after they were sealed. */
static bool change_cleartext(const char *what, AP_REQ *ap_req)
{
    Ticket *ticket = &ap_req->ticket;
    char text[600] = {0};
    if (is(what, "unknown-service")) {
        realm_set_name(&ticket->sname, NAME("HTTP", "stranger.example.test"));
    } else if (is(what, "long-service")) {
        realm_set_name(&ticket->sname, NAME("HTTP", memset(text, 'x', sizeof text - 1)));
    } else if (is(what, "17-components")) {
        realm_set_name(&ticket->sname, NAME("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11",
                                            "12", "13", "14", "15", "16", "17"));
    } else if (is(what, "unknown-kvno")) {
        *ticket->enc_part.kvno = 9;
    } else if (is(what, "without-kvno")) {
        free(ticket->enc_part.kvno);
        ticket->enc_part.kvno = NULL;
    } else if (is(what, "other-enctype")) {
        ap_req->authenticator.etype = KRB5_ENCTYPE_AES128_CTS_HMAC_SHA1_96;
    } else if (is(what, "wrong-key")) {
        memset(ticket->enc_part.cipher.data, 0x55, 16);
    } else if (is(what, "empty-authenticator")) {
        ap_req->authenticator.cipher.length = 0;
    } else {
        return false;
    }
    return true;
}

static void write_made(const char *what, enum realm_form form)
{
    static const char *const forms[FORMS] = {"spnego", "raw", "windows", "response"};
    struct realm_token token;
    struct buf ap_req = {0};
    struct buf out = {0};
    char seed[64];
    realm_token_make(&realm_keys[0], realm_keys[0].enctype, &token);
    const bool inside = change_client(what, &token) || change_ticket(what, &token) ||
                        change_authenticator(what, &token);
    realm_token_encode(&token);
    realm_token_seal(&token);
    require(change_cleartext(what, &token.ap_req) || inside || is(what, "plain"));
    realm_put_ap_req(&ap_req, &token);
    realm_put_token(&out, form, buf_span(&ap_req));
    (void)snprintf(seed, sizeof seed, "%s-made-%s", forms[form], what);
    write_seed(seed, buf_span(&out));
    buf_clear(&ap_req);
    buf_clear(&out);
    realm_token_free(&token);
}

/* Not an AP-REQ where one should be. */
static void write_empty(void)
{
    struct buf out = {0};
    realm_put_token(&out, FORM_RAW, BYTES(0x6e, 0x00));
    write_seed("raw-made-empty", buf_span(&out));
    buf_clear(&out);
}

int main(int argc, char **argv)
{
    static const char *const made[] = {"bound",
                                       "bound-wrongly",
                                       "delegating",
                                       "without-checksum",
                                       "if-relevant",
                                       "pac",
                                       "enctypes",
                                       "subkey",
                                       "expired",
                                       "not-yet-valid",
                                       "invalid",
                                       "other-client",
                                       "odd-client",
                                       "control",
                                       "anonymous",
                                       "machine",
                                       "long-client",
                                       "long-service",
                                       "17-components",
                                       "unknown-service",
                                       "unknown-kvno",
                                       "without-kvno",
                                       "other-enctype",
                                       "wrong-key",
                                       "empty-authenticator"};
    if (argc != 2) {
        (void)fprintf(stderr, "usage: accept_seeds DIRECTORY\n");
        return 64;
    }
    directory = argv[1];
    realm_open();
    write_reals();
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        write_made(made[i], FORM_SPNEGO);
    }
    for (int form = 0; form < FORMS; form++) {
        write_made("plain", (enum realm_form)form);
    }
    write_empty();
    realm_close();
    return 0;
}
