#include "mint.h"

#include <errno.h>
#include <krb5.h>
#include <krb5_asn1.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* RFC 4121 4.1.1: bindings (none) and flags of the initiator, as the authenticator's checksum. */
enum { CHECKSUM_TYPE = 0x8003, CHECKSUM_BYTES = 24, FLAG_MUTUAL = 2 };

static const unsigned char oid_krb5[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                         0xf7, 0x12, 0x01, 0x02, 0x02};
static const unsigned char oid_spnego[] = {0x06, 0x06, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x02};

/* One principal's ticket, with all of its tokens that stays the same. */
struct source {
    krb5_creds creds;
    krb5_crypto crypto;
    krb5_keyblock subkey;
    AP_REQ ap_req;
};

static krb5_context context;
static struct source *sources;
static size_t source_count;
static size_t source_next;
static krb5_data etype_negotiation;

static void need(krb5_error_code code, const char *what)
{
    if (code != 0) {
        const char *text = krb5_get_error_message(context, code);
        fprintf(stderr, "load: %s: %s\n", what, text);
        exit(1);
    }
}

/* RFC 4537: the enctypes that the initiator would like; every client in use sends them. */
static void make_etype_negotiation(void)
{
    static unsigned char etypes[] = {0x30, 0x06, 0x02, 0x01, 0x12, 0x02, 0x01, 0x11};
    AuthorizationDataElement element = {129, {sizeof etypes, etypes}};
    AuthorizationData list = {1, &element};
    size_t size = 0;
    krb5_error_code code = 0;
    ASN1_MALLOC_ENCODE(AuthorizationData, etype_negotiation.data, etype_negotiation.length, &list,
                       &size, code);
    need(code, "encoding");
}

static void source_open(struct source *source, const char *name, const char *service)
{
    krb5_ccache ccache;
    krb5_creds wanted = {0};
    krb5_creds *found = NULL;
    size_t used = 0;
    need(krb5_cc_resolve(context, name, &ccache), name);
    need(krb5_parse_name(context, service, &wanted.server), service);
    need(krb5_cc_get_principal(context, ccache, &wanted.client), name);
    if (krb5_cc_retrieve_cred(context, ccache, 0, &wanted, &source->creds) != 0) {
        need(krb5_get_credentials(context, 0, ccache, &wanted, &found), service);
        need(krb5_copy_creds_contents(context, found, &source->creds), name);
        krb5_free_creds(context, found);
    }
    krb5_free_cred_contents(context, &wanted);
    need(krb5_cc_close(context, ccache), name);
    need(krb5_crypto_init(context, &source->creds.session, 0, &source->crypto), name);
    need(krb5_generate_random_keyblock(context, source->creds.session.keytype, &source->subkey),
         name);
    source->ap_req.pvno = 5;
    source->ap_req.msg_type = krb_ap_req;
    source->ap_req.ap_options.mutual_required = 1;
    need(decode_Ticket(source->creds.ticket.data, source->creds.ticket.length,
                       &source->ap_req.ticket, &used),
         name);
}

void mint_open(char *const *ccaches, size_t count, const char *service)
{
    if (krb5_init_context(&context) != 0) {
        fputs("load: no Kerberos library context\n", stderr);
        exit(1);
    }
    sources = calloc(count, sizeof *sources);
    need(sources != NULL ? 0 : ENOMEM, "sources");
    make_etype_negotiation();
    for (; source_count < count; source_count++) {
        source_open(&sources[source_count], ccaches[source_count], service);
    }
}

void mint_close(void)
{
    for (size_t i = 0; i < source_count; i++) {
        free_Ticket(&sources[i].ap_req.ticket);
        krb5_free_keyblock_contents(context, &sources[i].subkey);
        krb5_crypto_destroy(context, sources[i].crypto);
        krb5_free_cred_contents(context, &sources[i].creds);
    }
    if (context != NULL) {
        krb5_data_free(&etype_negotiation);
        krb5_free_context(context);
    }
    free(sources);
}

/* A fresh authenticator, sealed with the session key, into the AP-REQ. */
static void seal(struct source *source, int ahead_s)
{
    static krb5uint32 sequence = 1;
    unsigned char flags[CHECKSUM_BYTES] = {16};
    unsigned char plain[TOKEN_MAX];
    size_t size = 0;
    krb5_timestamp now = 0;
    int32_t now_us = 0;
    flags[CHECKSUM_BYTES - 4] = FLAG_MUTUAL;
    Checksum checksum = {CHECKSUM_TYPE, {sizeof flags, flags}};
    AuthorizationDataElement if_relevant = {1, etype_negotiation};
    AuthorizationData authorization = {1, &if_relevant};
    need(krb5_us_timeofday(context, &now, &now_us), "clock");
    sequence++;
    const Authenticator authenticator = {.authenticator_vno = 5,
                                         .crealm = source->creds.client->realm,
                                         .cname = source->creds.client->name,
                                         .cksum = &checksum,
                                         .cusec = now_us,
                                         .ctime = now + ahead_s,
                                         .subkey = &source->subkey,
                                         .seq_number = &sequence,
                                         .authorization_data = &authorization};
    need(encode_Authenticator(plain + sizeof plain - 1, sizeof plain, &authenticator, &size),
         "encoding");
    need(krb5_encrypt_EncryptedData(context, source->crypto, KRB5_KU_AP_REQ_AUTH,
                                    plain + sizeof plain - size, size, 0,
                                    &source->ap_req.authenticator),
         "sealing");
}

static void prepend(struct token *token, const void *bytes, size_t len)
{
    need(len <= token->at ? 0 : ENOMEM, "token");
    token->at -= len;
    memcpy(token->room + token->at, bytes, len);
}

/* Everything from here to the end becomes the contents of one element. */
static void wrap(struct token *token, unsigned char tag)
{
    const size_t len = TOKEN_MAX - token->at;
    const unsigned char low = (unsigned char)len;
    const unsigned char high = (unsigned char)(len >> 8);
    if (len < 0x80) {
        prepend(token, (unsigned char[]){tag, low}, 2);
    } else if (len < 0x100) {
        prepend(token, (unsigned char[]){tag, 0x81, low}, 3);
    } else {
        prepend(token, (unsigned char[]){tag, 0x82, high, low}, 4);
    }
}

void mint(struct token *token, int ahead_s, bool raw)
{
    struct source *source = &sources[source_next++ % source_count];
    const krb5_data *ticket = &source->ap_req.ticket.enc_part.cipher;
    size_t size = 0;
    seal(source, ahead_s);
    need(encode_AP_REQ(token->room + TOKEN_MAX - 1, TOKEN_MAX, &source->ap_req, &size), "encoding");
    token->at = TOKEN_MAX - size;
    token->sealed_at = TOKEN_MAX - source->ap_req.authenticator.cipher.length;
    token->ticket_len = ticket->length;
    const unsigned char *found =
        memmem(token->room + token->at, size, ticket->data, ticket->length);
    need(found != NULL ? 0 : EINVAL, "ticket");
    token->ticket_at = (size_t)(found - token->room);
    free_EncryptedData(&source->ap_req.authenticator);
    prepend(token, "\x01", 2);
    prepend(token, oid_krb5, sizeof oid_krb5);
    wrap(token, 0x60);
    if (!raw) {
        wrap(token, 0x04);
        wrap(token, 0xa2);
        const unsigned char head[] = {0xa0, 2 + sizeof oid_krb5, 0x30, sizeof oid_krb5};
        prepend(token, oid_krb5, sizeof oid_krb5);
        prepend(token, head, sizeof head);
        wrap(token, 0x30);
        wrap(token, 0xa0);
        prepend(token, oid_spnego, sizeof oid_spnego);
        wrap(token, 0x60);
    }
}

size_t base64(char *out, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = out;
    for (size_t i = 0; i < len; i += 3) {
        const size_t left = len - i;
        uint32_t bits = (uint32_t)bytes[i] << 16;
        bits |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= left > 2 ? bytes[i + 2] : 0;
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[bits & 63] : '=';
    }
    *to = '\0';
    return (size_t)(to - out);
}
