/*
 * The mutator of fuzz/accept: libFuzzer's own changes to the bytes would break nothing but the
 * ciphers, so the parts of a token are opened, changed inside, and sealed again.
 */
#include "accept_realm.h"

#include "require.h"
#include "wire/spnego.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static uint64_t state;

static unsigned pick(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 20) % below);
}

static int32_t pick_enctype(void)
{
    static const int32_t others[] = {0, 1, 2, 3, 7, 24, 25, 26, -128, 0x7fffffff};
    return pick(4) > 0 ? realm_keys[pick(REALM_KEYS)].enctype
                       : others[pick(sizeof others / sizeof others[0])];
}

static KerberosTime pick_time(void)
{
    static const int64_t from_now[] = {
        0,         1,    -1,   299,   300,   301,   -299,   -300,         -301,
        600,       -600, 3600, -3600, 36000, 86400, -86400, -REALM_NOW_S, -REALM_NOW_S - 1,
        4000000000};
    return (KerberosTime)(REALM_NOW_S + from_now[pick(sizeof from_now / sizeof from_now[0])]);
}

/* Bytes as libFuzzer changes them. */
static void mutate_bytes(heim_octet_string *bytes, size_t more)
{
    unsigned char room[REALM_ROOM];
    const size_t max = bytes->length + more < sizeof room ? bytes->length + more : sizeof room;
    const size_t len = bytes->length < max ? bytes->length : max;
    if (len > 0) {
        memcpy(room, bytes->data, len);
    }
    realm_set_bytes(bytes, room, LLVMFuzzerMutate(room, len, max));
}

static void mutate_text(char **text)
{
    static const char *const traps[] = {"",
                                        "alice",
                                        "bob",
                                        "alice@EXAMPLE.TEST",
                                        "EXAMPLE.TEST",
                                        "example.test",
                                        "EVIL.TEST",
                                        "ev\nil",
                                        "\x01",
                                        "a/b",
                                        "a\\b",
                                        " alice",
                                        "\xc3\xa9ric",
                                        "\xff\xfe",
                                        "\xe2\x80\xae",
                                        "WELLKNOWN",
                                        "ANONYMOUS",
                                        "\x7f",
                                        "\xc2\x85"};
    heim_octet_string bytes = {0, NULL};
    if (pick(2) == 0) {
        realm_set_text(text, traps[pick(sizeof traps / sizeof traps[0])]);
        return;
    }
    realm_set_bytes(&bytes, *text, strlen(*text));
    mutate_bytes(&bytes, pick(8) == 0 ? 600 : 8);
    ((char *)bytes.data)[bytes.length] = '\0'; /* there is room for it */
    realm_set_text(text, bytes.data);
    free(bytes.data);
}

static void mutate_name(PrincipalName *name)
{
    unsigned count = name->name_string.len;
    if (count == 0 || pick(4) == 0) {
        static const char *const parts[] = {
            "alice", "HTTP", "www.example.test", "WELLKNOWN", "ANONYMOUS", "", "x"};
        const char *components[24];
        count = pick(4) > 0 ? pick(4) : pick(24);
        for (unsigned i = 0; i < count; i++) {
            components[i] = parts[pick(sizeof parts / sizeof parts[0])];
        }
        realm_set_name(name, components, count);
        name->name_type = (NAME_TYPE)pick(12);
    } else {
        mutate_text(&name->name_string.val[pick(count)]);
    }
}

/* The authenticator says what the ticket says, so that the first check is not the last. */
static void follow(struct realm_token *token)
{
    if (token->has_ticket && token->has_authenticator && pick(4) > 0) {
        Authenticator *authenticator = &token->authenticator;
        free_PrincipalName(&authenticator->cname);
        require(copy_PrincipalName(&token->ticket.cname, &authenticator->cname) == 0);
        realm_set_text(&authenticator->crealm, token->ticket.crealm);
    }
}

/* Some element of authorization data, perhaps inside others. */
static void mutate_data(AuthorizationData **data)
{
    static const int32_t types[] = {1,  4,   5,   8,   64,  70,  71,  96,
                                    97, 128, 129, 141, 142, 143, 512, -1};
    if (*data != NULL && (*data)->len > 0 && pick(2) == 0) {
        AuthorizationDataElement *element = &(*data)->val[pick((*data)->len)];
        if (pick(4) == 0) {
            element->ad_type = types[pick(sizeof types / sizeof types[0])];
        } else {
            mutate_bytes(&element->ad_data, 64);
        }
        return;
    }
    struct buf bytes = {0};
    static const unsigned char pac[] = {1,  0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 16, 0, 0, 0,
                                        24, 0, 0, 0, 0, 0, 0, 0, 1,  2, 3, 4, 5,  6, 7, 8};
    buf_append(&bytes, pac, pick(sizeof pac + 1));
    int32_t type = types[pick(sizeof types / sizeof types[0])];
    for (unsigned depth = pick(4); depth > 0; depth--) {
        AuthorizationData inner = {0, NULL};
        AuthorizationDataElement element = {type, {bytes.len, bytes.ptr}};
        unsigned char *encoded = NULL;
        size_t length = 0;
        size_t size = 0;
        int code = 0;
        require(add_AuthorizationData(&inner, &element) == 0);
        ASN1_MALLOC_ENCODE(AuthorizationData, encoded, length, &inner, &size, code);
        require(code == 0);
        buf_reset(&bytes);
        buf_append(&bytes, encoded, length);
        free(encoded);
        free_AuthorizationData(&inner);
        type = pick(4) > 0 ? 1 : types[pick(sizeof types / sizeof types[0])];
    }
    realm_add_data(data, type, buf_span(&bytes));
    buf_clear(&bytes);
}

static void new_key(EncryptionKey *key)
{
    krb5_keyblock fresh;
    if (krb5_generate_random_keyblock(realm_context(), pick_enctype(), &fresh) == 0) {
        krb5_free_keyblock_contents(realm_context(), key);
        *key = fresh;
    }
}

static void mutate_transited(TransitedEncoding *transited)
{
    static const char *const lists[] = {"A.TEST", "A.TEST,B.TEST", "B.,A.TEST", "/EVIL,A.TEST",
                                        "A:B=C"};
    transited->tr_type = pick(4) > 0 ? DOMAIN_X500_COMPRESS : (int)pick(3);
    if (transited->contents.length == 0 || pick(4) == 0) {
        const char *list = lists[pick(sizeof lists / sizeof lists[0])];
        realm_set_bytes(&transited->contents, list, strlen(list));
    } else {
        mutate_bytes(&transited->contents, 32);
    }
}

static void mutate_ticket(EncTicketPart *ticket)
{
    unsigned flags;
    switch (pick(12)) {
    case 0:
        flags = TicketFlags2int(ticket->flags);
        ticket->flags = int2TicketFlags(flags ^ 1U << pick(32));
        break;
    case 1:
        new_key(&ticket->key);
        break;
    case 2:
        if (pick(2) == 0) {
            ticket->key.keytype = pick_enctype();
        } else {
            mutate_bytes(&ticket->key.keyvalue, 8);
        }
        break;
    case 3:
        mutate_text(&ticket->crealm);
        break;
    case 4:
    case 5:
        mutate_name(&ticket->cname);
        break;
    case 6:
        mutate_transited(&ticket->transited);
        break;
    case 7:
        ticket->authtime = pick_time();
        break;
    case 8:
        ticket->endtime = pick_time();
        break;
    case 9:
        ticket->starttime =
            ticket->starttime != NULL ? ticket->starttime : calloc(1, sizeof *ticket->starttime);
        require(ticket->starttime != NULL);
        *ticket->starttime = pick_time();
        break;
    case 10: {
        ticket->caddr = ticket->caddr != NULL ? ticket->caddr : calloc(1, sizeof *ticket->caddr);
        require(ticket->caddr != NULL);
        const unsigned char bytes[4] = {127, 0, 0, (unsigned char)pick(256)};
        HostAddress address = {.addr_type = pick(4) > 0 ? 2 : (int)pick(30)};
        realm_set_bytes(&address.address, bytes, pick(5));
        free_HostAddresses(ticket->caddr);
        *ticket->caddr = (HostAddresses){1, calloc(1, sizeof address)};
        require(ticket->caddr->val != NULL);
        ticket->caddr->val[0] = address;
        break;
    }
    default:
        mutate_data(&ticket->authorization_data);
    }
}

/* RFC 4121's checksum, with bindings and flags, and after it a KRB-CRED or what may look like one.
 */
static void mutate_checksum(Authenticator *authenticator)
{
    unsigned char bnd[16];
    unsigned char more[64] = {1,   0, (unsigned char)pick(64), 0, 0x76, (unsigned char)pick(60),
                              0x30};
    if (authenticator->cksum != NULL && pick(3) == 0) {
        mutate_bytes(&authenticator->cksum->checksum, 32);
    } else if (authenticator->cksum != NULL && pick(8) == 0) {
        authenticator->cksum->cksumtype = (CKSUMTYPE)pick(20);
    } else {
        memset(bnd, pick(3) == 0 ? 0x41 : 0x42, sizeof bnd);
        const bool bound = pick(2) == 0;
        const size_t behind = pick(2) == 0 ? 0 : pick(sizeof more);
        realm_set_checksum(authenticator, bound ? bnd : NULL,
                           pick(4) > 0 ? pick(64) : pick(1 << 15), span_make(more, behind));
    }
}

static void mutate_authenticator(Authenticator *authenticator)
{
    switch (pick(9)) {
    case 0:
        mutate_text(&authenticator->crealm);
        break;
    case 1:
        mutate_name(&authenticator->cname);
        break;
    case 2:
    case 3:
        mutate_checksum(authenticator);
        break;
    case 4:
        authenticator->ctime = pick_time();
        break;
    case 5:
        authenticator->cusec = pick(2) == 0 ? (int)pick(1000000) : (int)(pick(1 << 16) << 16);
        break;
    case 6:
        if (authenticator->subkey == NULL) {
            authenticator->subkey = calloc(1, sizeof *authenticator->subkey);
            require(authenticator->subkey != NULL);
            new_key(authenticator->subkey);
        } else if (pick(2) == 0) {
            new_key(authenticator->subkey);
        } else if (pick(2) == 0) {
            authenticator->subkey->keytype = pick_enctype();
        } else {
            mutate_bytes(&authenticator->subkey->keyvalue, 8);
        }
        break;
    case 7:
        authenticator->seq_number = authenticator->seq_number != NULL
                                        ? authenticator->seq_number
                                        : calloc(1, sizeof *authenticator->seq_number);
        require(authenticator->seq_number != NULL);
        *authenticator->seq_number = pick(2) == 0 ? pick(256) : pick(1U << 31) * 2 + 1;
        break;
    default:
        mutate_data(&authenticator->authorization_data);
    }
}

/* What stands around the sealed parts. */
static void mutate_cleartext(struct realm_token *token)
{
    AP_REQ *ap_req = &token->ap_req;
    Ticket *ticket = &ap_req->ticket;
    switch (pick(10)) {
    case 0:
        ap_req->pvno = (int)pick(8);
        break;
    case 1:
        ap_req->msg_type = (MESSAGE_TYPE)pick(40);
        break;
    case 2:
        ap_req->ap_options = int2APOptions(APOptions2int(ap_req->ap_options) ^ 1U << pick(32));
        break;
    case 3:
        ticket->tkt_vno = (int)pick(8);
        break;
    case 4:
        mutate_text(&ticket->realm);
        break;
    case 5:
        mutate_name(&ticket->sname);
        break;
    case 6:
        if (ticket->enc_part.kvno != NULL && pick(2) == 0) {
            free(ticket->enc_part.kvno);
            ticket->enc_part.kvno = NULL;
        } else if (ticket->enc_part.kvno != NULL) {
            *ticket->enc_part.kvno = (int)pick(5) - 1;
        }
        break;
    case 7:
        ticket->enc_part.etype = pick_enctype();
        break;
    case 8:
        ap_req->authenticator.etype = pick_enctype();
        break;
    default:
        mutate_bytes(pick(2) == 0 ? &ticket->enc_part.cipher : &ap_req->authenticator.cipher, 16);
    }
}

/* Another of our keys for the ticket, and its cleartext with it. */
static void change_key(struct realm_token *token)
{
    Ticket *ticket = &token->ap_req.ticket;
    token->key = &realm_keys[pick(REALM_KEYS)];
    if (pick(8) > 0) {
        const char *const service[] = {"HTTP", token->key->host};
        realm_set_name(&ticket->sname, service, 2);
        if (ticket->enc_part.kvno != NULL) {
            *ticket->enc_part.kvno = (int)token->key->kvno;
        }
    }
}

static void mutate_token(struct realm_token *token)
{
    for (unsigned rounds = 1 + pick(3); rounds > 0; rounds--) {
        switch (pick(4)) {
        case 0:
        case 1:
            if (token->has_ticket) {
                mutate_ticket(&token->ticket);
                follow(token);
            }
            break;
        case 2:
            if (token->has_authenticator) {
                mutate_authenticator(&token->authenticator);
            }
            break;
        default:
            if (pick(4) == 0) {
                change_key(token);
            }
        }
    }
    realm_token_encode(token);
    switch (pick(6)) {
    case 0:
        mutate_bytes(&token->ticket_plain, 32);
        break;
    case 1:
        mutate_bytes(&token->plain, 32);
        break;
    default:
        break;
    }
    realm_token_seal(token);
    if (pick(6) == 0) {
        mutate_cleartext(token);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    struct spnego_token found;
    struct realm_token token;
    state = (uint64_t)seed << 16 | 1;
    if (pick(8) == 0) {
        return LLVMFuzzerMutate(data, size, max);
    }
    enum realm_form form = (enum realm_form)pick(FORMS);
    if (spnego_inspect(span_make(data, size), &found) != REASON_OK ||
        realm_token_read(found.ap_req, &token) != 0) {
        if (pick(2) == 0) {
            return LLVMFuzzerMutate(data, size, max);
        }
        const size_t key = pick(REALM_KEYS);
        realm_token_make(&realm_keys[key], realm_keys[pick(REALM_KEYS)].enctype, &token);
    } else if (pick(4) > 0) {
        form = found.response ? FORM_RESPONSE : found.framed ? FORM_SPNEGO : FORM_RAW;
    }
    struct buf ap_req = {.max = 2 * REALM_ROOM};
    struct buf out = {.max = 2 * REALM_ROOM};
    mutate_token(&token);
    realm_put_ap_req(&ap_req, &token);
    realm_token_free(&token);
    realm_put_token(&out, form, buf_span(&ap_req));
    if (out.failed || ap_req.len == 0 || out.len > max) {
        size = LLVMFuzzerMutate(data, size, max);
    } else {
        memcpy(data, out.ptr, out.len);
        size = out.len;
    }
    buf_clear(&ap_req);
    buf_clear(&out);
    return size;
}
