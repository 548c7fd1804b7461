#include "cmd/explain.h"

#include "base/log.h"
#include "base/secret.h"
#include "cmd/cmd.h"
#include "wire/http.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum {
    INPUT_MAX = 64 * 1024 * 1024,
    TOKEN_TEXT_MAX = 1024 * 1024,
    TOKEN_MAX = TOKEN_TEXT_MAX / 4 * 3,
    LINE_BYTES = 8192
};

struct options {
    const char *config;
    const char *host;
    const char *site;
    const char *input;
};

static void print_help(void)
{
    printf(
        "Usage: spnegate explain [-c FILE] [--host=HOST | --site=NAME] [TOKEN | FILE | -]\n"
        "Says in plain words what a token is and what would become of it, or what a line of the\n"
        "audit trail means. Nothing is signed in, remembered or changed.\n\n"
        "A token is given in base64, with or without `Negotiate ` or the header's field before\n"
        "it, or as a file of its bytes. From a file or standard input (the default) several\n"
        "lines of the audit trail may come. A word that is a file's path is that file.\n\n"
        "  -c, --config=FILE  the configuration (default: $SPNEGATE_CONFIG, or %s)\n"
        "      --host=HOST    for the site that serves this host\n"
        "      --site=NAME    for this site; default: those whose keytab knows the service\n"
        "      --help         show this and exit\n\n"
        "A token is a secret while its ticket lives: do not put one into a mail or a report.\n\n"
        "Exit status: 0 it was explained, 1 what is explained is or would be refused, 64 usage,\n"
        "65 it cannot be read as anything, 66 no such file, 78 configuration.\n",
        CONFIG_PATH_DEFAULT);
}

void explain_line(unsigned depth, const char *label, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) {
        line[0] = '\0';
    }
    va_end(args);
    printf("%*s%s: ", (int)depth * 2, "", label);
    for (const unsigned char *p = (const unsigned char *)line; *p != '\0'; p++) {
        if (*p >= 0x20 && *p < 0x7f) {
            (void)putchar(*p);
        } else {
            printf("\\x%02x", *p);
        }
    }
    (void)putchar('\n');
}

int explain_reason(unsigned depth, enum reason reason)
{
    const struct reason_info *info = reason_info(reason);
    const bool granted = info->outcome == OUTCOME_GRANTED;

    explain_line(depth, "reason", "%s (%s, status %d)", info->code, outcome_text(info->outcome),
                 info->status);
    explain_line(depth, granted ? "meaning" : "next step", "%s", info->hint);
    return granted || reason == REASON_CONTINUE ? EX_OK : 1;
}

const char *explain_quote(struct span text, char out[EXPLAIN_QUOTE_BYTES])
{
    return log_quote(text, out, EXPLAIN_QUOTE_BYTES);
}

const char *explain_date(int64_t seconds, char out[EXPLAIN_TIME_BYTES])
{
    const time_t at = (time_t)seconds;
    struct tm tm;

    if (gmtime_r(&at, &tm) == NULL ||
        strftime(out, EXPLAIN_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        (void)snprintf(out, EXPLAIN_TIME_BYTES, "second %" PRId64, seconds);
    }
    return out;
}

const char *explain_duration(int64_t seconds, char out[EXPLAIN_TIME_BYTES])
{
    const uint64_t s = seconds < 0 ? -(uint64_t)seconds : (uint64_t)seconds;

    if (s < 120) {
        (void)snprintf(out, EXPLAIN_TIME_BYTES, "%" PRIu64 " s", s);
    } else if (s < 86400) {
        (void)snprintf(out, EXPLAIN_TIME_BYTES, "%" PRIu64 " s (%" PRIu64 " h %" PRIu64 " min)", s,
                       s / 3600, s % 3600 / 60);
    } else {
        (void)snprintf(out, EXPLAIN_TIME_BYTES, "%" PRIu64 " s (%" PRIu64 " days %" PRIu64 " h)", s,
                       s / 86400, s % 86400 / 3600);
    }
    return out;
}

void explain_rotation(unsigned depth, int64_t kvno, int64_t newest)
{
    if (kvno <= 0 || newest < 0) {
        return;
    }
    if (kvno == newest) {
        explain_line(depth, "key", "kvno %" PRId64 ", the keytab's newest", kvno);
    } else if (kvno < newest) {
        explain_line(depth, "key",
                     "kvno %" PRId64 " while the keytab's newest is %" PRId64
                     ": the ticket is from before a change of the key; keep the old key until such "
                     "tickets have ended",
                     kvno, newest);
    } else {
        explain_line(depth, "key",
                     "kvno %" PRId64 " while the keytab's newest is %" PRId64
                     ": the realm has a newer key; export the keytab again",
                     kvno, newest);
    }
}

/* -1 to go on, or the exit status. */
static int read_options(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"host", required_argument, NULL, 'H'},
                                            {"site", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    opterr = 0;
    for (int c = getopt_long(argc, argv, ":c:h", options, NULL); c != -1;
         c = getopt_long(argc, argv, ":c:h", options, NULL)) {
        switch (c) {
        case 'c':
            o->config = optarg;
            break;
        case 'H':
            o->host = optarg;
            break;
        case 's':
            o->site = optarg;
            break;
        case 'h':
            print_help();
            return EX_OK;
        default:
            (void)fprintf(stderr, "spnegate explain: %s: %s\nTry `spnegate explain --help`.\n",
                          c == ':' ? "this option needs a value" : "no such option",
                          argv[optind - 1]);
            return EX_USAGE;
        }
    }
    if (argc - optind > 1 || (o->host != NULL && o->site != NULL)) {
        (void)fprintf(stderr, "spnegate explain: %s\nTry `spnegate explain --help`.\n",
                      argc - optind > 1 ? "one token or file at a time (quote `Negotiate TOKEN`)"
                                        : "--host and --site exclude each other");
        return EX_USAGE;
    }
    o->input = optind < argc ? argv[optind] : "-";
    return -1;
}

/* Reads all there is, up to the ceiling of `out`. */
static int read_all(int fd, const char *path, struct buf *out)
{
    unsigned char bytes[16384];
    ssize_t n;

    while ((n = read(fd, bytes, sizeof bytes)) != 0 && !out->failed) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            (void)fprintf(stderr, "spnegate explain: %s: %s\n", path, strerror(errno));
            return EX_NOINPUT;
        }
        buf_append(out, bytes, (size_t)n);
    }
    secret_wipe(bytes, sizeof bytes);
    if (out->failed) {
        (void)fprintf(stderr, "spnegate explain: %s: over %d bytes; give the lines in question\n",
                      path, INPUT_MAX);
        return EX_DATAERR;
    }
    return -1;
}

/* Whether an argument looks like a token or a record rather than a path. */
static bool is_text(const char *input)
{
    const size_t len = strlen(input);

    return input[0] == '{' || strchr(input, ' ') != NULL || len > 255 ||
           (len % 4 == 0 && input[0] != '/' &&
            strspn(input, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") ==
                len);
}

/* What is to be explained, into `out`; -1, or the exit status. */
static int read_input(const char *input, struct buf *out)
{
    const bool standard = strcmp(input, "-") == 0;
    struct stat st;
    int fd = STDIN_FILENO;

    if (!standard && stat(input, &st) != 0 && is_text(input)) {
        buf_append_str(out, input);
        return out->failed ? EX_OSERR : -1;
    }
    if (!standard) {
        fd = open(input, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0) {
            char quoted[EXPLAIN_QUOTE_BYTES];

            (void)fprintf(stderr, "spnegate explain: %s: %s\n",
                          explain_quote(span_of(input), quoted), strerror(errno));
            return EX_NOINPUT;
        }
    }
    const int status = read_all(fd, standard ? "standard input" : input, out);
    if (!standard) {
        (void)close(fd);
    }
    return status;
}

static bool take_word(struct span *text, const char *word)
{
    const size_t len = strlen(word);

    if (text->len < len || !span_equal_nocase(span_make(text->ptr, len), span_of(word))) {
        return false;
    }
    text->ptr += len;
    text->len -= len;
    while (text->len > 0 && (text->ptr[0] == ' ' || text->ptr[0] == '\t')) {
        text->ptr++;
        text->len--;
    }
    return true;
}

/* Without the blanks and line ends around it. */
static struct span trim(struct span s)
{
    while (s.len > 0 && strchr(" \t\r\n", s.ptr[0]) != NULL && s.ptr[0] != '\0') {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && strchr(" \t\r\n", s.ptr[s.len - 1]) != NULL && s.ptr[s.len - 1] != '\0') {
        s.len--;
    }
    return s;
}

/* A token as text: the header's field and the scheme may be there, and line ends in the base64. */
static int explain_text(const struct explain *e, struct span text)
{
    struct buf value = {.max = TOKEN_TEXT_MAX + 16};
    struct buf token = {.max = TOKEN_MAX};
    bool header = take_word(&text, "Authorization:") || take_word(&text, "WWW-Authenticate:") ||
                  take_word(&text, "Proxy-Authorization:");

    if (!header && memchr(text.ptr, ' ', text.len) == NULL &&
        !span_equal_nocase(text, span_of("Negotiate"))) {
        buf_append_str(&value, "Negotiate ");
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '\r' && text.ptr[i] != '\n') {
            buf_append_byte(&value, text.ptr[i]);
        }
    }
    enum reason reason = value.failed
                             ? REASON_TOKEN_TOO_LARGE
                             : http_parse_authorization(buf_span(&value), TOKEN_TEXT_MAX, &token);
    if (reason == REASON_OK && e->config != NULL && value.len > e->config->limits.header_bytes) {
        reason = REASON_TOKEN_TOO_LARGE;
    }
    int status = EX_DATAERR;
    if (reason == REASON_OK) {
        status = explain_token(e, buf_span(&token));
    } else {
        explain_line(0, "header", "%zu bytes, no token that can be looked at", value.len);
        (void)explain_reason(0, reason);
        status = reason == REASON_BAD_BASE64 || reason == REASON_BAD_HEADER ? EX_DATAERR : 1;
    }
    buf_clear(&value);
    buf_clear(&token);
    return status;
}

static bool is_record(struct span input)
{
    const struct span text = trim(input);

    return text.len > 0 && text.ptr[0] == '{';
}

/* A record, a token's bytes, or a token as text. */
static int explain_input(const struct explain *e, struct span input)
{
    const struct span text = trim(input);

    if (is_record(input)) {
        return explain_records(text);
    }
    for (size_t i = 0; i < text.len; i++) {
        const unsigned char c = text.ptr[i];

        if (c >= 0x7f || (c < 0x20 && c != '\t' && c != '\r' && c != '\n')) {
            return explain_token(e, input);
        }
    }
    if (text.len == 0) {
        (void)fprintf(stderr, "spnegate explain: there is nothing to explain\n");
        return EX_DATAERR;
    }
    return explain_text(e, text);
}

/* The configuration if there is one; EX_CONFIG if it was asked for, or is there, but cannot be
 * used. */
static int load_config(const struct options *o, struct explain *e)
{
    const char *variable = getenv("SPNEGATE_CONFIG");
    const char *path = o->config != NULL ? o->config : cmd_config_default();
    const bool asked = o->config != NULL || o->host != NULL || o->site != NULL ||
                       (variable != NULL && variable[0] != '\0');
    struct fault fault = {"", ""};

    if (config_load(path, &e->config, &fault) == 0) {
        return EX_OK;
    }
    e->config = NULL;
    if (!asked && access(path, R_OK) != 0) {
        return EX_OK;
    }
    (void)fprintf(stderr, "spnegate explain: %s: %s\n", fault.where, fault.what);
    return EX_CONFIG;
}

int cmd_explain(int argc, char **argv)
{
    struct options o = {0};
    struct buf input = {.max = INPUT_MAX};
    int status = read_options(argc, argv, &o);

    if (status >= 0) {
        return status;
    }
    if (secret_init() != 0) {
        (void)fprintf(stderr, "spnegate explain: no randomness is to be had\n");
        return EX_OSERR;
    }
    status = read_input(o.input, &input);
    if (status < 0) {
        struct explain e = {.host = o.host, .site = o.site, .now_s = (uint64_t)time(NULL)};
        const bool record = is_record(buf_span(&input));
        const int config = record ? EX_OK : load_config(&o, &e);

        status = explain_input(&e, buf_span(&input));
        status = config != EX_OK ? config : status;
        config_free(e.config);
    }
    buf_clear(&input);
    return fflush(stdout) != 0 ? EX_IOERR : status;
}
