/*
 * A client of its own for the tests: makes the token with Heimdal's GSSAPI, speaks HTTP/1.1 on one
 * connection, and verifies the token by which the server proves itself.
 *
 * For each request it prints one line: the status, and "verified", "wrong" or "none" for the
 * server's token. Exit status 1 if the connection or GSSAPI failed, 64 for wrong usage.
 */
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <gssapi/gssapi_spnego.h>

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LIST_MAX = 16 };

static const char usage[] =
    "usage: gssclient [option]... ADDRESS PORT PATH\n"
    "       gssclient -p [option]...\n"
    "  -p           print the token in base64, and connect to nobody\n"
    "  -s SERVICE   default HTTP@www.example.test\n"
    "  -H HOST      the Host header; default www.example.test\n"
    "  -m METHOD    default GET\n"
    "  -b BYTES     size of the body\n"
    "  -x HEADER    a further header, may be repeated\n"
    "  -c CCACHE    ticket cache; when repeated, the requests use them in turn\n"
    "  -n COUNT     requests on the connection, each with a fresh token\n"
    "  -t BASE64    send this token instead; an empty one sends no Authorization\n"
    "  -o SECONDS   the client's clock is so far ahead\n"
    "  -B TEXT      bind the token to this; \\xNN stands for a byte\n"
    "  -r           a Kerberos token without SPNEGO\n"
    "  -1           do not ask for mutual authentication\n"
    "  -v           print the response's body, too\n";

struct options {
    const char *service;
    const char *host;
    const char *method;
    size_t body_bytes;
    const char *headers[LIST_MAX];
    size_t header_count;
    const char *ccaches[LIST_MAX];
    size_t ccache_count;
    int requests;
    const char *token;
    int ahead_s;
    struct gss_channel_bindings_struct bindings; /* of length 0: none */
    bool raw;
    bool one_sided;
    bool verbose;
    bool print;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "gssclient: %s\n", what);
    exit(1);
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL)
        die("out of memory");
    return memory;
}

static char *base64_encode(const gss_buffer_desc *in)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *from = in->value;
    char *out = allocate((in->length + 2) / 3 * 4 + 1);
    char *to = out;

    for (size_t i = 0; i < in->length; i += 3) {
        size_t left = in->length - i;
        unsigned bits = (unsigned)from[i] << 16;
        bits |= left > 1 ? (unsigned)from[i + 1] << 8 : 0;
        bits |= left > 2 ? from[i + 2] : 0;
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[bits & 63] : '=';
    }
    *to = '\0';
    return out;
}

/* The caller frees out->value. */
static void base64_decode(const char *in, gss_buffer_t out)
{
    unsigned char *to = allocate(strlen(in) + 1);
    unsigned bits = 0;
    int have = 0;

    out->value = to;
    out->length = 0;
    for (; *in != '\0' && *in != '='; in++) {
        unsigned digit;
        if (*in >= 'A' && *in <= 'Z')
            digit = (unsigned)(*in - 'A');
        else if (*in >= 'a' && *in <= 'z')
            digit = (unsigned)(*in - 'a') + 26;
        else if (*in >= '0' && *in <= '9')
            digit = (unsigned)(*in - '0') + 52;
        else
            digit = *in == '+' ? 62 : 63;
        bits = bits << 6 | digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            to[out->length++] = (unsigned char)(bits >> have);
        }
    }
}

static _Noreturn void die_gss(const char *what, OM_uint32 major, OM_uint32 minor, gss_OID mech)
{
    OM_uint32 ignored;
    OM_uint32 more = 0;
    gss_buffer_desc text;

    fprintf(stderr, "gssclient: %s: %08x", what, major);
    if (gss_display_status(&ignored, minor, GSS_C_MECH_CODE, mech, &more, &text) == GSS_S_COMPLETE)
        fprintf(stderr, " %.*s", (int)text.length, (char *)text.value);
    fputc('\n', stderr);
    exit(1);
}

struct login {
    gss_ctx_id_t context;
    gss_name_t target;
    bool established;
};

static OM_uint32 login_step(const struct options *options, struct login *login, gss_buffer_t in,
                            gss_buffer_t out)
{
    OM_uint32 minor;
    gss_OID mech = options->raw ? GSS_KRB5_MECHANISM : GSS_SPNEGO_MECHANISM;
    struct gss_channel_bindings_struct bindings = options->bindings;
    OM_uint32 major = gss_init_sec_context(
        &minor, GSS_C_NO_CREDENTIAL, &login->context, login->target, mech,
        options->one_sided ? 0 : GSS_C_MUTUAL_FLAG, 0,
        options->bindings.application_data.length > 0 ? &bindings : GSS_C_NO_CHANNEL_BINDINGS, in,
        NULL, out, NULL, NULL);
    if (in == GSS_C_NO_BUFFER && GSS_ERROR(major))
        die_gss("no token", major, minor, mech);
    login->established = major == GSS_S_COMPLETE;
    return major;
}

/* The first token, base64; the caller frees it. */
static char *login_start(const struct options *options, struct login *login)
{
    OM_uint32 minor;
    gss_buffer_desc service = {strlen(options->service), (void *)(size_t)options->service};
    gss_buffer_desc token = GSS_C_EMPTY_BUFFER;

    OM_uint32 major = gss_import_name(&minor, &service, GSS_C_NT_HOSTBASED_SERVICE, &login->target);
    if (major != GSS_S_COMPLETE)
        die_gss("bad service", major, minor, GSS_C_NO_OID);
    login_step(options, login, GSS_C_NO_BUFFER, &token);
    char *encoded = base64_encode(&token);
    gss_release_buffer(&minor, &token);
    return encoded;
}

static const char *login_finish(const struct options *options, struct login *login,
                                const char *reply)
{
    OM_uint32 minor;
    gss_buffer_desc in;
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;

    if (reply == NULL || login->context == GSS_C_NO_CONTEXT)
        return "none";
    base64_decode(reply, &in);
    OM_uint32 major = login->established ? GSS_S_FAILURE : login_step(options, login, &in, &out);
    free(in.value);
    gss_release_buffer(&minor, &out);
    return major == GSS_S_COMPLETE ? "verified" : "wrong";
}

static void login_clear(struct login *login)
{
    OM_uint32 minor;
    gss_delete_sec_context(&minor, &login->context, GSS_C_NO_BUFFER);
    gss_release_name(&minor, &login->target);
    login->established = false;
}

static FILE *dial(const char *address, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *to;

    if (getaddrinfo(address, port, &hints, &to) != 0)
        die("the address must be a numeric one");
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, to->ai_addr, to->ai_addrlen) != 0)
        die(strerror(errno));
    freeaddrinfo(to);
    FILE *connection = fdopen(fd, "r+");
    if (connection == NULL)
        die(strerror(errno));
    return connection;
}

static void request_send(const struct options *options, const char *path, const char *token,
                         FILE *to)
{
    fprintf(to, "%s %s HTTP/1.1\r\nHost: %s\r\n", options->method, path, options->host);
    if (token[0] != '\0')
        fprintf(to, "Authorization: Negotiate %s\r\n", token);
    for (size_t i = 0; i < options->header_count; i++)
        fprintf(to, "%s\r\n", options->headers[i]);
    if (options->body_bytes > 0)
        fprintf(to, "Content-Length: %zu\r\n", options->body_bytes);
    fputs("\r\n", to);
    for (size_t i = 0; i < options->body_bytes; i++)
        fputc('a' + (int)(i % 26), to);
    if (fflush(to) != 0)
        die("the server closed the connection");
}

struct response {
    int status;
    char *reply; /* the token of WWW-Authenticate, or NULL */
    bool chunked;
    size_t length;
};

static bool line_read(FILE *from, char **line, size_t *room)
{
    ssize_t length = getline(line, room, from);
    if (length < 0)
        return false;
    (*line)[strcspn(*line, "\r\n")] = '\0';
    return true;
}

static void header_read(FILE *from, struct response *response)
{
    static const char challenge[] = "WWW-Authenticate: Negotiate ";
    char *line = NULL;
    size_t room = 0;

    if (!line_read(from, &line, &room) || strncmp(line, "HTTP/1.1 ", 9) != 0)
        die("no response");
    response->status = (int)strtol(line + 9, NULL, 10);
    while (line_read(from, &line, &room) && line[0] != '\0') {
        if (strncasecmp(line, challenge, sizeof challenge - 1) == 0) {
            free(response->reply);
            response->reply = strdup(line + sizeof challenge - 1);
        } else if (strncasecmp(line, "Content-Length: ", 16) == 0) {
            response->length = strtoul(line + 16, NULL, 10);
        } else if (strcasecmp(line, "Transfer-Encoding: chunked") == 0) {
            response->chunked = true;
        }
    }
    free(line);
}

static void bytes_pass(FILE *from, size_t length, bool show)
{
    for (; length > 0; length--) {
        int byte = fgetc(from);
        if (byte == EOF)
            die("the response's body was cut");
        if (show)
            putchar(byte);
    }
}

static void body_read(FILE *from, const struct response *response, bool show)
{
    char *line = NULL;
    size_t room = 0;

    if (!response->chunked)
        bytes_pass(from, response->length, show);
    while (response->chunked && line_read(from, &line, &room)) {
        size_t length = strtoul(line, NULL, 16);
        bytes_pass(from, length, show);
        if (!line_read(from, &line, &room) || length == 0)
            break;
    }
    free(line);
}

static void one_request(const struct options *options, const char *path, FILE *connection)
{
    struct login login = {GSS_C_NO_CONTEXT, GSS_C_NO_NAME, false};
    struct response response = {0};
    char *fresh = options->token == NULL ? login_start(options, &login) : NULL;

    request_send(options, path, fresh != NULL ? fresh : options->token, connection);
    header_read(connection, &response);
    if (strcmp(options->method, "HEAD") != 0)
        body_read(connection, &response, options->verbose);
    printf("%d %s\n", response.status, login_finish(options, &login, response.reply));
    free(response.reply);
    free(fresh);
    login_clear(&login);
}

static void ccache_use(const struct options *options, int request)
{
    if (options->ccache_count > 0)
        setenv("KRB5CCNAME", options->ccaches[(size_t)request % options->ccache_count], 1);
}

/* In place. */
static void unescape(char *text, gss_buffer_t out)
{
    char *to = text;
    out->value = text;
    for (char *from = text; *from != '\0'; to++) {
        unsigned int byte = 0;
        if (sscanf(from, "\\x%2x", &byte) == 1) {
            *to = (char)byte;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    out->length = (size_t)(to - text);
}

static void add(const char *list[LIST_MAX], size_t *count, const char *item)
{
    if (*count == LIST_MAX)
        die("too many options of one kind");
    list[(*count)++] = item;
}

static void options_read(int argc, char **argv, struct options *options)
{
    int option;

    while ((option = getopt(argc, argv, "ps:H:m:b:x:c:n:t:o:B:r1v")) != -1) {
        switch (option) {
        case 'p':
            options->print = true;
            break;
        case 's':
            options->service = optarg;
            break;
        case 'H':
            options->host = optarg;
            break;
        case 'm':
            options->method = optarg;
            break;
        case 'b':
            options->body_bytes = strtoul(optarg, NULL, 10);
            break;
        case 'x':
            add(options->headers, &options->header_count, optarg);
            break;
        case 'c':
            add(options->ccaches, &options->ccache_count, optarg);
            break;
        case 'n':
            options->requests = (int)strtol(optarg, NULL, 10);
            break;
        case 't':
            options->token = optarg;
            break;
        case 'o':
            options->ahead_s = (int)strtol(optarg, NULL, 10);
            break;
        case 'B':
            unescape(optarg, &options->bindings.application_data);
            break;
        case 'r':
            options->raw = true;
            break;
        case '1':
            options->one_sided = true;
            break;
        case 'v':
            options->verbose = true;
            break;
        default:
            fputs(usage, stderr);
            exit(64);
        }
    }
    if (argc - optind != (options->print ? 0 : 3)) {
        fputs(usage, stderr);
        exit(64);
    }
}

int main(int argc, char **argv)
{
    struct options options = {.service = "HTTP@www.example.test",
                              .host = "www.example.test",
                              .method = "GET",
                              .requests = 1};

    options_read(argc, argv, &options);
    if (options.ahead_s != 0 && gsskrb5_set_time_offset(options.ahead_s) != GSS_S_COMPLETE)
        die("the clock could not be set ahead");
    ccache_use(&options, 0);
    if (options.print) {
        struct login login = {GSS_C_NO_CONTEXT, GSS_C_NO_NAME, false};
        char *token = login_start(&options, &login);
        puts(token);
        free(token);
        login_clear(&login);
        return 0;
    }
    FILE *connection = dial(argv[optind], argv[optind + 1]);
    for (int i = 0; i < options.requests; i++) {
        ccache_use(&options, i);
        one_request(&options, argv[optind + 2], connection);
    }
    fclose(connection);
    return 0;
}
