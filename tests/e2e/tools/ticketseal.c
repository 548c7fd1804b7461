/*
 * Seals a service ticket with the service's own key, as a KDC would, for any client and with any
 * times, and stores it in a ticket cache, from which an ordinary client then uses it. So every
 * refusal of a ticket can be seen without waiting for it.
 *
 * The cache always says that the ticket is good for a day: what the client believes is not under
 * test, what is sealed inside is.
 */
#include <krb5.h>

#include <krb5_asn1.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { COMPONENTS_MAX = 2 };

static const char usage[] =
    "usage: ticketseal -k KEYTAB -c CCACHE [option]...\n"
    "  -u CLIENT      default alice@EXAMPLE.TEST; \\n, \\@ and \\/ as in krb5_parse_name\n"
    "  -U COMPONENT   the client is this one component, byte for byte, of realm EXAMPLE.TEST; with "
    "a\n"
    "                 second -U of these two\n"
    "  -R REALM       the realm of -U, byte for byte\n"
    "  -0             a byte 1 of the last -U is a byte 0 in the ticket\n"
    "  -s SERVICE     named in the ticket; default HTTP/www.example.test@EXAMPLE.TEST\n"
    "  -K SERVICE     whose key of the keytab seals it; default as -s\n"
    "  -r             seal with a random key instead\n"
    "  -n KVNO        of the key in the keytab; default the newest\n"
    "  -V KVNO        named in the ticket; default the key's\n"
    "  -e ENCTYPE     of the key in the keytab, by name; default the first that is found\n"
    "  -E ENCTYPE     of the session key; default as -e\n"
    "  -N ENCTYPE     named in the ticket, whatever the key is; a number\n"
    "  -a SECONDS     authenticated and started so long from now; default -60\n"
    "  -z SECONDS     ends so long from now; default 36000\n"
    "  -d BYTES       of authorization data that nobody needs to understand; default none\n"
    "  -t REALMS      transited on the way here, as they stand in the ticket\n"
    "  -y NUMBER      how those are written; default 1, DOMAIN-X500-COMPRESS\n"
    "  -T             the KDC has checked them\n";

struct options {
    const char *keytab;
    const char *ccache;
    const char *client;
    const char *components[COMPONENTS_MAX];
    size_t component_count;
    const char *realm;
    bool nul;
    const char *service;
    const char *key_service;
    bool random_key;
    int key_kvno;
    int kvno;
    const char *enctype;
    const char *session_enctype;
    int named_enctype;
    long start_s;
    long end_s;
    size_t data_bytes;
    const char *transited;
    int transited_type;
    bool transited_checked;
};

static krb5_context context;

static void need(krb5_error_code code, const char *what)
{
    if (code == 0)
        return;
    const char *text = krb5_get_error_message(context, code);
    fprintf(stderr, "ticketseal: %s: %s\n", what, text);
    krb5_free_error_message(context, text);
    exit(1);
}

static krb5_principal principal_parse(const char *text)
{
    krb5_principal principal;
    need(krb5_parse_name(context, text, &principal), text);
    return principal;
}

static krb5_principal client_make(const struct options *options)
{
    krb5_principal client;
    if (options->component_count == 0)
        return principal_parse(options->client);
    need(krb5_make_principal(context, &client, options->realm, options->components[0],
                             options->components[1], NULL),
         "client");
    return client;
}

static krb5_enctype enctype_parse(const char *text)
{
    krb5_enctype enctype = 0;
    if (text != NULL)
        need(krb5_string_to_enctype(context, text, &enctype), text);
    return enctype;
}

/* The service's key and its version. */
static krb5_keyblock key_find(const struct options *options, int *kvno)
{
    krb5_keytab keytab;
    krb5_keytab_entry entry;
    krb5_keyblock key;
    const char *service = options->key_service != NULL ? options->key_service : options->service;
    krb5_principal principal = principal_parse(service);

    need(krb5_kt_resolve(context, options->keytab, &keytab), options->keytab);
    need(krb5_kt_get_entry(context, keytab, principal, options->key_kvno,
                           enctype_parse(options->enctype), &entry),
         service);
    if (options->random_key)
        need(krb5_generate_random_keyblock(context, entry.keyblock.keytype, &key), "random key");
    else
        need(krb5_copy_keyblock_contents(context, &entry.keyblock, &key), "key");
    *kvno = options->kvno > 0 ? options->kvno : entry.vno;
    krb5_kt_free_entry(context, &entry);
    krb5_kt_close(context, keytab);
    krb5_free_principal(context, principal);
    return key;
}

/* So many bytes as one element of AD-IF-RELEVANT, as a PAC comes. */
static void data_fill(size_t bytes, AuthorizationData *data)
{
    size_t size = 0;
    int code;
    AuthorizationDataElement inner = {.ad_type = KRB5_AUTHDATA_OSF_DCE,
                                      .ad_data = {bytes, calloc(1, bytes)}};
    AuthorizationData relevant = {1, &inner};
    AuthorizationDataElement outer = {.ad_type = KRB5_AUTHDATA_IF_RELEVANT};

    ASN1_MALLOC_ENCODE(AuthorizationData, outer.ad_data.data, outer.ad_data.length, &relevant,
                       &size, code);
    need(code, "encoding");
    need(add_AuthorizationData(data, &outer), "authorization data");
    free(outer.ad_data.data);
    free(inner.ad_data.data);
}

static EncTicketPart part_fill(const struct options *options, krb5_principal client,
                               krb5_keyblock session)
{
    time_t now = time(NULL);
    static KerberosTime start;
    EncTicketPart part = {0};

    start = now + options->start_s;
    part.flags.initial = 1;
    part.flags.pre_authent = 1;
    part.key = session;
    part.crealm = client->realm;
    part.cname = client->name;
    part.flags.transited_policy_checked = options->transited_checked;
    part.transited.tr_type = options->transited_type;
    part.transited.contents.length = strlen(options->transited);
    part.transited.contents.data = (void *)(uintptr_t)options->transited;
    part.authtime = start;
    part.starttime = &start;
    part.endtime = now + options->end_s;
    return part;
}

/* The library has no way to write a NUL. */
static void nul_put(const struct options *options, unsigned char *plain, size_t length)
{
    const char *component = options->components[options->component_count - 1];
    const size_t size = strlen(component);
    unsigned char *found = memmem(plain, length, component, size);
    for (size_t i = 0; found != NULL && i < size; i++)
        found[i] = found[i] == 1 ? 0 : found[i];
}

static krb5_data ticket_seal(const struct options *options, krb5_principal client,
                             krb5_keyblock session)
{
    int kvno;
    size_t length = 0;
    size_t size = 0;
    unsigned char *plain = NULL;
    krb5_crypto crypto;
    krb5_data sealed = {0, NULL};
    krb5_error_code code;
    krb5_keyblock key = key_find(options, &kvno);
    krb5_principal service = principal_parse(options->service);
    EncTicketPart part = part_fill(options, client, session);
    AuthorizationData data = {0, NULL};
    Ticket ticket = {.tkt_vno = 5, .realm = service->realm, .sname = service->name};

    if (options->data_bytes > 0) {
        data_fill(options->data_bytes, &data);
        part.authorization_data = &data;
    }
    ASN1_MALLOC_ENCODE(EncTicketPart, plain, length, &part, &size, code);
    need(code, "encoding");
    if (options->nul)
        nul_put(options, plain, length);
    need(krb5_crypto_init(context, &key, 0, &crypto), "key");
    need(krb5_encrypt_EncryptedData(context, crypto, KRB5_KU_TICKET, plain, length, kvno,
                                    &ticket.enc_part),
         "sealing");
    if (options->named_enctype != 0)
        ticket.enc_part.etype = options->named_enctype;
    ASN1_MALLOC_ENCODE(Ticket, sealed.data, sealed.length, &ticket, &size, code);
    need(code, "encoding");
    krb5_crypto_destroy(context, crypto);
    krb5_free_keyblock_contents(context, &key);
    free(plain);
    free_AuthorizationData(&data);
    free_EncryptedData(&ticket.enc_part);
    krb5_free_principal(context, service);
    return sealed;
}

static void ticket_store(const struct options *options, krb5_principal client,
                         krb5_keyblock session, krb5_data ticket)
{
    time_t now = time(NULL);
    krb5_ccache ccache;
    krb5_creds creds = {.client = client,
                        .server = principal_parse(options->service),
                        .session = session,
                        .ticket = ticket};

    creds.times.authtime = now - 60;
    creds.times.starttime = now - 60;
    creds.times.endtime = now + 86400;
    creds.flags.b.initial = 1;
    need(krb5_cc_resolve(context, options->ccache, &ccache), options->ccache);
    need(krb5_cc_initialize(context, ccache, client), options->ccache);
    need(krb5_cc_store_cred(context, ccache, &creds), options->ccache);
    need(krb5_cc_close(context, ccache), options->ccache);
    krb5_free_principal(context, creds.server);
}

/* What is sealed of the client and of its way here. */
static bool client_option(int option, struct options *options)
{
    switch (option) {
    case 'U':
        if (options->component_count < COMPONENTS_MAX)
            options->components[options->component_count++] = optarg;
        break;
    case 'R':
        options->realm = optarg;
        break;
    case '0':
        options->nul = true;
        break;
    case 't':
        options->transited = optarg;
        break;
    case 'y':
        options->transited_type = (int)strtol(optarg, NULL, 10);
        break;
    case 'T':
        options->transited_checked = true;
        break;
    default:
        return false;
    }
    return true;
}

static void options_read(int argc, char **argv, struct options *options)
{
    int option;

    while ((option = getopt(argc, argv, "k:c:u:U:R:0s:K:rn:V:e:E:N:a:z:t:y:Td:")) != -1) {
        switch (option) {
        case 'k':
            options->keytab = optarg;
            break;
        case 'c':
            options->ccache = optarg;
            break;
        case 'u':
            options->client = optarg;
            break;
        case 's':
            options->service = optarg;
            break;
        case 'K':
            options->key_service = optarg;
            break;
        case 'r':
            options->random_key = true;
            break;
        case 'n':
            options->key_kvno = (int)strtol(optarg, NULL, 10);
            break;
        case 'V':
            options->kvno = (int)strtol(optarg, NULL, 10);
            break;
        case 'e':
            options->enctype = optarg;
            break;
        case 'E':
            options->session_enctype = optarg;
            break;
        case 'N':
            options->named_enctype = (int)strtol(optarg, NULL, 10);
            break;
        case 'a':
            options->start_s = strtol(optarg, NULL, 10);
            break;
        case 'z':
            options->end_s = strtol(optarg, NULL, 10);
            break;
        case 'd':
            options->data_bytes = strtoul(optarg, NULL, 10);
            break;
        default:
            if (!client_option(option, options)) {
                fputs(usage, stderr);
                exit(64);
            }
        }
    }
    if (options->keytab == NULL || options->ccache == NULL || optind != argc ||
        (options->nul && options->component_count == 0)) {
        fputs(usage, stderr);
        exit(64);
    }
}

int main(int argc, char **argv)
{
    struct options options = {.client = "alice@EXAMPLE.TEST",
                              .service = "HTTP/www.example.test@EXAMPLE.TEST",
                              .realm = "EXAMPLE.TEST",
                              .start_s = -60,
                              .end_s = 36000,
                              .transited = "",
                              .transited_type = DOMAIN_X500_COMPRESS};
    krb5_keyblock session;
    krb5_enctype enctype;

    options_read(argc, argv, &options);
    if (krb5_init_context(&context) != 0) {
        fputs("ticketseal: no Kerberos library context\n", stderr);
        return 1;
    }
    krb5_principal client = client_make(&options);
    enctype = enctype_parse(options.session_enctype);
    if (enctype == 0)
        enctype = enctype_parse(options.enctype);
    if (enctype == 0)
        enctype = KRB5_ENCTYPE_AES256_CTS_HMAC_SHA1_96;
    need(krb5_generate_random_keyblock(context, enctype, &session), "session key");
    krb5_data ticket = ticket_seal(&options, client, session);
    ticket_store(&options, client, session, ticket);
    krb5_data_free(&ticket);
    krb5_free_keyblock_contents(context, &session);
    krb5_free_principal(context, client);
    krb5_free_context(context);
    return 0;
}
