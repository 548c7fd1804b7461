/*
 * What the daemon is compared with: a libfcgi authorizer that decides nothing. It answers each
 * request with the daemon's challenge; with a keytab it accepts the token by GSSAPI alone, without
 * replay table, rules or audit trail, and answers 200 or 401.
 */
#include <fcgiapp.h>
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKLOG = 1024, TOKEN_MAX = 64 * 1024, COUNT_MAX = 64 };

static const char usage[] =
    "usage: noop [option]... SOCKET\n"
    "  -w WORKERS   processes; default 1\n"
    "  -t THREADS   of each; default 1\n"
    "  -k KEYTAB    copied into memory; then tokens (Kerberos, without SPNEGO) are accepted\n"
    "  -s SERVICE   default HTTP/www.example.test@EXAMPLE.TEST\n";

static const char challenge[] = "Status: 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n"
                                "Cache-Control: no-store\r\nContent-Type: text/plain\r\n\r\n"
                                "Sign-in with Kerberos is required.";
static const char granted[] = "Status: 200 OK\r\nVariable-SPNEGATE: granted\r\n"
                              "Variable-REMOTE_USER: somebody\r\n\r\n";

static int listener;
static gss_cred_id_t credential = GSS_C_NO_CREDENTIAL;
static unsigned char sextets[256];

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "noop: %s\n", what);
    exit(1);
}

/* A credential whose keytab lies in memory. */
static void open_credential(const char *file, const char *service)
{
    krb5_context context;
    krb5_keytab from;
    krb5_keytab memory;
    krb5_keytab_entry entry;
    krb5_kt_cursor cursor;
    krb5_principal principal;
    OM_uint32 minor;
    if (krb5_init_context(&context) != 0 || krb5_parse_name(context, service, &principal) != 0 ||
        krb5_kt_resolve(context, file, &from) != 0 ||
        krb5_kt_resolve(context, "MEMORY:noop", &memory) != 0 ||
        krb5_kt_start_seq_get(context, from, &cursor) != 0) {
        die("the keytab cannot be opened");
    }
    while (krb5_kt_next_entry(context, from, &entry, &cursor) == 0) {
        if (krb5_kt_add_entry(context, memory, &entry) != 0) {
            die("the keytab cannot be copied");
        }
        krb5_kt_free_entry(context, &entry);
    }
    krb5_kt_end_seq_get(context, from, &cursor);
    krb5_kt_close(context, from);
    if (gss_krb5_import_cred(&minor, NULL, principal, memory, &credential) != GSS_S_COMPLETE) {
        die("there is no credential");
    }
}

static void prepare_base64(void)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (unsigned i = 0; i < 64; i++) {
        sextets[(unsigned char)digits[i]] = (unsigned char)i;
    }
}

static size_t decode_base64(const char *in, unsigned char *out)
{
    size_t len = 0;
    unsigned bits = 0;
    int have = 0;
    for (; *in != '\0' && *in != '=' && len < TOKEN_MAX; in++) {
        bits = bits << 6 | sextets[(unsigned char)*in];
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[len++] = (unsigned char)(bits >> have);
        }
    }
    return len;
}

static bool accept_token(const char *authorization, unsigned char *room)
{
    OM_uint32 minor;
    gss_ctx_id_t context = GSS_C_NO_CONTEXT;
    gss_name_t source = GSS_C_NO_NAME;
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    if (authorization == NULL || strncmp(authorization, "Negotiate ", 10) != 0) {
        return false;
    }
    gss_buffer_desc input = {decode_base64(authorization + 10, room), room};
    const OM_uint32 major =
        gss_accept_sec_context(&minor, &context, credential, &input, GSS_C_NO_CHANNEL_BINDINGS,
                               &source, NULL, &output, NULL, NULL, NULL);
    gss_release_name(&minor, &source);
    gss_release_buffer(&minor, &output);
    gss_delete_sec_context(&minor, &context, GSS_C_NO_BUFFER);
    return major == GSS_S_COMPLETE;
}

static void *serve(void *arg)
{
    FCGX_Request request;
    unsigned char *room = malloc(TOKEN_MAX);
    (void)arg;
    if (room == NULL || FCGX_InitRequest(&request, listener, 0) != 0) {
        die("no request");
    }
    while (FCGX_Accept_r(&request) == 0) {
        const bool grant = credential != GSS_C_NO_CREDENTIAL &&
                           accept_token(FCGX_GetParam("HTTP_AUTHORIZATION", request.envp), room);
        FCGX_PutStr(grant ? granted : challenge,
                    grant ? (int)sizeof granted - 1 : (int)sizeof challenge - 1, request.out);
        FCGX_Finish_r(&request);
    }
    free(room);
    return NULL;
}

static _Noreturn void work(long threads)
{
    pthread_t thread;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (long i = 1; i < threads; i++) {
        if (pthread_create(&thread, NULL, serve, NULL) != 0) {
            die("no thread");
        }
    }
    serve(NULL);
    die("the listener is gone");
}

int main(int argc, char **argv)
{
    const char *keytab = NULL;
    const char *service = "HTTP/www.example.test@EXAMPLE.TEST";
    long workers = 1;
    long threads = 1;
    int option;
    while ((option = getopt(argc, argv, "w:t:k:s:")) != -1) {
        switch (option) {
        case 'w':
            workers = strtol(optarg, NULL, 10);
            break;
        case 't':
            threads = strtol(optarg, NULL, 10);
            break;
        case 'k':
            keytab = optarg;
            break;
        case 's':
            service = optarg;
            break;
        default:
            optind = argc + 1;
        }
    }
    if (optind != argc - 1 || workers < 1 || workers > COUNT_MAX || threads < 1 ||
        threads > COUNT_MAX) {
        fputs(usage, stderr);
        return 64;
    }
    if (keytab != NULL) {
        open_credential(keytab, service);
    }
    prepare_base64();
    listener = FCGX_Init() == 0 ? FCGX_OpenSocket(argv[optind], BACKLOG) : -1;
    if (listener < 0) {
        die("the socket cannot be opened");
    }
    (void)signal(SIGTERM, SIG_DFL); /* libfcgi's own handler would go on */
    for (long i = 0; i < workers; i++) {
        const pid_t pid = fork();
        if (pid == 0) {
            work(threads);
        }
        if (pid < 0) {
            die("no process");
        }
    }
    while (wait(NULL) < 0) {
    }
    return 1; /* a worker ended: the others go, too */
}
