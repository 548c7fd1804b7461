#include "accept_realm.h"

#include "require.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SERVICE_REALM "EXAMPLE.TEST"

const struct realm_key realm_keys[REALM_KEYS] = {
    {"www.example.test", 3, KRB5_ENCTYPE_AES256_CTS_HMAC_SHA1_96, 32},
    {"www.example.test", 3, KRB5_ENCTYPE_AES128_CTS_HMAC_SHA1_96, 16},
    {"www.example.test", 3, KRB5_ENCTYPE_AES256_CTS_HMAC_SHA384_192, 32},
    {"www.example.test", 3, KRB5_ENCTYPE_AES128_CTS_HMAC_SHA256_128, 16},
    {"www.example.test", 3, KRB5_ENCTYPE_ARCFOUR_HMAC_MD5, 16},
    {"www.example.test", 3, KRB5_ENCTYPE_DES3_CBC_SHA1, 24},
    {"www.example.test", 2, KRB5_ENCTYPE_AES256_CTS_HMAC_SHA1_96, 32},
    {"intra.example.test", 1, KRB5_ENCTYPE_AES256_CTS_HMAC_SHA1_96, 32},
};

static krb5_context context;
static time_t clock_s = REALM_NOW_S;

/* These stand before libc's: libkrb5's clock is ours. */
time_t time(time_t *out)
{
    if (out != NULL) {
        *out = clock_s;
    }
    return clock_s;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    *now = (struct timeval){clock_s, 123456};
    return 0;
}

void realm_set_clock(time_t now_s)
{
    clock_s = now_s;
}

void realm_open(void)
{
    static const char text[] = "[libdefaults]\n"
                               "    default_realm = " SERVICE_REALM "\n"
                               "    dns_lookup_kdc = false\n"
                               "    dns_lookup_realm = false\n"
                               "    dns_canonicalize_hostname = false\n"
                               "    rdns = false\n"
                               "    default_keytab_name = MEMORY:none\n"
                               "    default_cc_name = MEMORY:none\n";
    char path[32];
    const int fd = memfd_create("krb5.conf", 0);
    require(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)(sizeof text - 1));
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    require(setenv("KRB5_CONFIG", path, 1) == 0);
    require(krb5_init_context(&context) == 0);
    krb5_timestamp now = 0;
    require(krb5_timeofday(context, &now) == 0 && now == REALM_NOW_S);
    require(krb5_get_max_time_skew(context) == REALM_SKEW_S);
}

void realm_close(void)
{
    krb5_free_context(context);
}

krb5_context realm_context(void)
{
    return context;
}

/* Any bytes do; each key has its own. */
static void key_bytes(const struct realm_key *key, unsigned char *out)
{
    for (size_t i = 0; i < key->bytes; i++) {
        out[i] = (unsigned char)((size_t)key->enctype * 7 + (size_t)key->kvno * 31 + i * 13 +
                                 (size_t)key->host[0]);
    }
}

krb5_keyblock realm_keyblock(const struct realm_key *key)
{
    unsigned char bytes[32];
    krb5_keyblock block;
    key_bytes(key, bytes);
    require(krb5_keyblock_init(context, key->enctype, bytes, key->bytes, &block) == 0);
    return block;
}

static void put_number(struct buf *out, size_t number, int bytes)
{
    while (bytes-- > 0) {
        buf_append_byte(out, (unsigned char)(number >> (8 * bytes)));
    }
}

static void put_counted(struct buf *out, const char *text)
{
    put_number(out, strlen(text), 2);
    buf_append_str(out, text);
}

void realm_put_keytab(struct buf *file)
{
    buf_append(file, "\x05\x02", 2);
    for (size_t i = 0; i < REALM_KEYS; i++) {
        const struct realm_key *key = &realm_keys[i];
        struct buf entry = {0};
        unsigned char bytes[32];
        key_bytes(key, bytes);
        put_number(&entry, 2, 2);
        put_counted(&entry, SERVICE_REALM);
        put_counted(&entry, "HTTP");
        put_counted(&entry, key->host);
        put_number(&entry, KRB5_NT_SRV_HST, 4);
        put_number(&entry, REALM_NOW_S - 86400, 4);
        put_number(&entry, key->kvno, 1);
        put_number(&entry, (size_t)key->enctype, 2);
        put_number(&entry, key->bytes, 2);
        buf_append(&entry, bytes, key->bytes);
        put_number(&entry, key->kvno, 4);
        put_number(file, entry.len, 4);
        buf_append_span(file, buf_span(&entry));
        buf_clear(&entry);
    }
}

/* Opens one sealed part; -1 if the key is not its key. */
static int decrypt(const krb5_keyblock *key, unsigned usage, const EncryptedData *sealed,
                   krb5_data *plain)
{
    krb5_crypto crypto = NULL;
    if (krb5_crypto_init(context, key, 0, &crypto) != 0) {
        return -1;
    }
    const krb5_error_code code = krb5_decrypt_EncryptedData(context, crypto, usage, sealed, plain);
    krb5_crypto_destroy(context, crypto);
    if (code != 0) {
        *plain = (krb5_data){0, NULL};
    }
    return code == 0 ? 0 : -1;
}

int realm_token_read(struct span ap_req, struct realm_token *out)
{
    size_t used = 0;
    memset(out, 0, sizeof *out);
    if (decode_AP_REQ(ap_req.ptr, ap_req.len, &out->ap_req, &used) != 0) {
        return -1;
    }
    const EncryptedData *sealed = &out->ap_req.ticket.enc_part;
    for (size_t i = 0; i < REALM_KEYS && out->key == NULL; i++) {
        if (realm_keys[i].enctype == sealed->etype) {
            krb5_keyblock block = realm_keyblock(&realm_keys[i]);
            if (decrypt(&block, KRB5_KU_TICKET, sealed, &out->ticket_plain) == 0) {
                out->key = &realm_keys[i];
            }
            krb5_free_keyblock_contents(context, &block);
        }
    }
    out->has_ticket =
        out->key != NULL && decode_EncTicketPart(out->ticket_plain.data, out->ticket_plain.length,
                                                 &out->ticket, &used) == 0;
    if (!out->has_ticket) {
        memset(&out->ticket, 0, sizeof out->ticket); /* the decoder has freed it */
    }
    out->has_authenticator =
        out->has_ticket &&
        decrypt(&out->ticket.key, KRB5_KU_AP_REQ_AUTH, &out->ap_req.authenticator, &out->plain) ==
            0 &&
        decode_Authenticator(out->plain.data, out->plain.length, &out->authenticator, &used) == 0;
    if (!out->has_authenticator) {
        memset(&out->authenticator, 0, sizeof out->authenticator);
    }
    return 0;
}

void realm_token_free(struct realm_token *token)
{
    free_AP_REQ(&token->ap_req);
    free_EncTicketPart(&token->ticket);
    free_Authenticator(&token->authenticator);
    krb5_data_free(&token->ticket_plain);
    krb5_data_free(&token->plain);
}

void realm_set_text(char **text, const char *to)
{
    free(*text);
    *text = strdup(to);
    require(*text != NULL);
}

void realm_set_bytes(heim_octet_string *bytes, const void *from, size_t len)
{
    free(bytes->data);
    bytes->data = malloc(len + 1);
    bytes->length = len;
    require(bytes->data != NULL);
    if (len > 0) {
        memcpy(bytes->data, from, len);
    }
}

void realm_set_name(PrincipalName *name, const char *const *components, size_t count)
{
    free_PrincipalName(name);
    memset(name, 0, sizeof *name);
    name->name_type = count > 1 ? KRB5_NT_SRV_HST : KRB5_NT_PRINCIPAL;
    name->name_string.val = calloc(count + 1, sizeof *name->name_string.val);
    require(name->name_string.val != NULL);
    for (size_t i = 0; i < count; i++) {
        realm_set_text(&name->name_string.val[i], components[i]);
    }
    name->name_string.len = (unsigned)count;
}

void realm_add_data(AuthorizationData **data, int32_t type, struct span bytes)
{
    if (*data == NULL) {
        *data = calloc(1, sizeof **data);
        require(*data != NULL);
    }
    AuthorizationDataElement element = {.ad_type = type};
    realm_set_bytes(&element.ad_data, bytes.ptr, bytes.len);
    require(add_AuthorizationData(*data, &element) == 0);
    free(element.ad_data.data);
}

void realm_set_checksum(Authenticator *authenticator, const unsigned char bnd[16], uint32_t flags,
                        struct span more)
{
    struct buf bytes = {0};
    static const unsigned char none[16];
    if (authenticator->cksum == NULL) {
        authenticator->cksum = calloc(1, sizeof *authenticator->cksum);
        require(authenticator->cksum != NULL);
    }
    buf_append(&bytes, "\x10\0\0", 4);
    buf_append(&bytes, bnd != NULL ? bnd : none, sizeof none);
    for (int i = 0; i < 4; i++) {
        buf_append_byte(&bytes, (unsigned char)(flags >> (8 * i)));
    }
    buf_append_span(&bytes, more);
    authenticator->cksum->cksumtype = 0x8003;
    realm_set_bytes(&authenticator->cksum->checksum, bytes.ptr, bytes.len);
    buf_clear(&bytes);
}

void realm_token_make(const struct realm_key *key, int32_t session_enctype, struct realm_token *out)
{
    static const char *const alice[] = {"alice"};
    const char *const service[] = {"HTTP", key->host};
    AP_REQ *ap_req = &out->ap_req;
    EncTicketPart *ticket = &out->ticket;
    Authenticator *authenticator = &out->authenticator;
    memset(out, 0, sizeof *out);
    ap_req->pvno = 5;
    ap_req->msg_type = krb_ap_req;
    ap_req->ticket.tkt_vno = 5;
    realm_set_text(&ap_req->ticket.realm, SERVICE_REALM);
    realm_set_name(&ap_req->ticket.sname, service, 2);
    ap_req->ticket.enc_part.kvno = calloc(1, sizeof *ap_req->ticket.enc_part.kvno);
    require(ap_req->ticket.enc_part.kvno != NULL);
    *ap_req->ticket.enc_part.kvno = (int)key->kvno;
    ticket->flags.pre_authent = 1;
    require(krb5_generate_random_keyblock(context, session_enctype, &ticket->key) == 0);
    realm_set_text(&ticket->crealm, SERVICE_REALM);
    realm_set_name(&ticket->cname, alice, 1);
    ticket->transited.tr_type = DOMAIN_X500_COMPRESS;
    ticket->authtime = REALM_NOW_S - 60;
    ticket->endtime = REALM_NOW_S + 36000;
    realm_set_text(&authenticator->crealm, SERVICE_REALM);
    realm_set_name(&authenticator->cname, alice, 1);
    authenticator->authenticator_vno = 5;
    authenticator->ctime = REALM_NOW_S;
    authenticator->cusec = 1;
    realm_set_checksum(authenticator, NULL, 0, (struct span){NULL, 0});
    out->key = key;
    out->has_ticket = out->has_authenticator = true;
}

void realm_token_encode(struct realm_token *token)
{
    size_t size = 0;
    int code = 0;
    if (token->has_ticket) {
        krb5_data_free(&token->ticket_plain);
        ASN1_MALLOC_ENCODE(EncTicketPart, token->ticket_plain.data, token->ticket_plain.length,
                           &token->ticket, &size, code);
        require(code == 0);
    }
    if (token->has_authenticator) {
        krb5_data_free(&token->plain);
        ASN1_MALLOC_ENCODE(Authenticator, token->plain.data, token->plain.length,
                           &token->authenticator, &size, code);
        require(code == 0);
    }
}

/* With a key that cannot seal, the cipher stays what it was. */
static void encrypt(const krb5_keyblock *key, unsigned usage, const krb5_data *plain,
                    EncryptedData *out)
{
    krb5_crypto crypto = NULL;
    EncryptedData sealed;
    if (plain->length == 0 || krb5_crypto_init(context, key, 0, &crypto) != 0) {
        return;
    }
    if (krb5_encrypt_EncryptedData(context, crypto, usage, plain->data, plain->length, 0,
                                   &sealed) == 0) {
        krb5_data_free(&out->cipher);
        out->cipher = sealed.cipher;
        out->etype = sealed.etype;
    }
    krb5_crypto_destroy(context, crypto);
}

void realm_token_seal(struct realm_token *token)
{
    if (token->key != NULL) {
        krb5_keyblock block = realm_keyblock(token->key);
        encrypt(&block, KRB5_KU_TICKET, &token->ticket_plain, &token->ap_req.ticket.enc_part);
        krb5_free_keyblock_contents(context, &block);
    }
    if (token->has_ticket) {
        encrypt(&token->ticket.key, KRB5_KU_AP_REQ_AUTH, &token->plain,
                &token->ap_req.authenticator);
    }
}

void realm_put_ap_req(struct buf *out, const struct realm_token *token)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    size_t size = 0;
    int code = 0;
    ASN1_MALLOC_ENCODE(AP_REQ, bytes, length, &token->ap_req, &size, code);
    if (code == 0) {
        buf_append(out, bytes, length);
        free(bytes);
    }
}

static void put_element(struct buf *out, unsigned char tag, struct span contents)
{
    int bytes = 0;
    for (size_t len = contents.len; len > 0; len >>= 8) {
        bytes++;
    }
    buf_append_byte(out, tag);
    if (contents.len >= 0x80) {
        buf_append_byte(out, (unsigned char)(0x80 | bytes));
        put_number(out, contents.len, bytes);
    } else {
        put_number(out, contents.len, 1);
    }
    buf_append_span(out, contents);
}

/* Puts an element around all that is in `out`. */
static void wrap(struct buf *out, unsigned char tag)
{
    struct buf inner = {0};
    buf_append_span(&inner, buf_span(out));
    buf_reset(out);
    put_element(out, tag, buf_span(&inner));
    buf_clear(&inner);
}

#define OID_KRB5    "\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
#define OID_MS      "\x06\x09\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"
#define OID_NEGOEX  "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x1e"
#define OID_NTLM    "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"
#define OID_SPNEGO  "\x06\x06\x2b\x06\x01\x05\x05\x02"
#define BYTES(text) span_make(text, sizeof(text) - 1)

void realm_put_token(struct buf *out, enum realm_form form, struct span ap_req)
{
    struct buf token = {0};
    struct buf list = {0};
    buf_append_span(&token, BYTES(OID_KRB5 "\x01\x00"));
    buf_append_span(&token, ap_req);
    wrap(&token, 0x60);
    if (form != FORM_RAW) {
        wrap(&token, 0x04);
        wrap(&token, 0xa2);
        if (form != FORM_RESPONSE) {
            put_element(&list, 0x30,
                        form == FORM_WINDOWS ? BYTES(OID_MS OID_KRB5 OID_NEGOEX OID_NTLM)
                                             : BYTES(OID_KRB5));
            wrap(&list, 0xa0);
        }
        buf_append_span(&list, buf_span(&token));
        wrap(&list, 0x30);
        wrap(&list, form == FORM_RESPONSE ? 0xa1 : 0xa0);
        buf_reset(&token);
        if (form != FORM_RESPONSE) {
            buf_append_span(&token, BYTES(OID_SPNEGO));
        }
        buf_append_span(&token, buf_span(&list));
        if (form != FORM_RESPONSE) {
            wrap(&token, 0x60);
        }
    }
    buf_append_span(out, buf_span(&token));
    buf_clear(&token);
    buf_clear(&list);
}
