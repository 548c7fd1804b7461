#include "cmd/status.h"

#include "base/bytes.h"
#include "cmd/cmd.h"
#include "conf/config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    STATUS_GOOD = 0,
    STATUS_PROBLEM = 1,
    STATUS_NO_ANSWER = 2,
    ANSWER_MAX = 8 * 1024 * 1024,
    PATIENCE_S = 10, /* others may be before us */
};

/* What `serve` takes when the configuration does not say. */
#define RUNTIME_DIR_DEFAULT "/run/spnegate"

enum form { FORM_TEXT, FORM_JSON, FORM_METRICS };

struct options {
    const char *config;
    const char *socket; /* NULL: the configuration says */
    enum form form;
};

static void print_help(void)
{
    printf(
        "Usage: spnegate status [-c FILE] [--json | --metrics]\n"
        "Asks the running daemon how it is. Only root and the daemon's own user are answered.\n\n"
        "  -c, --config=FILE  its configuration (default: $SPNEGATE_CONFIG, or %s)\n"
        "  -s, --socket=PATH  its control socket (default: runtime_dir/control.sock)\n"
        "      --json         everything, as one JSON object (docs/status.md)\n"
        "      --metrics      for Prometheus\n"
        "      --help         show this and exit\n\n"
        "Exit status: 0 good, 1 something is wrong (a site without keytab, the audit trail\n"
        "cannot be written, the last reload was refused, ...), 2 no daemon answers, 64 usage.\n",
        CONFIG_PATH_DEFAULT);
}

/* -1 to go on, or the exit status. */
static int read_options(int argc, char **argv, struct options *out)
{
    enum { OPTION_JSON = 256, OPTION_METRICS };
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'}, {"socket", required_argument, NULL, 's'},
        {"json", no_argument, NULL, OPTION_JSON}, {"metrics", no_argument, NULL, OPTION_METRICS},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    struct options options = {.config = cmd_config_default()};
    opterr = 0;
    for (int c = getopt_long(argc, argv, ":c:s:h", longs, NULL); c != -1;
         c = getopt_long(argc, argv, ":c:s:h", longs, NULL)) {
        const enum form before = options.form;
        switch (c) {
        case 'c':
            options.config = optarg;
            break;
        case 's':
            options.socket = optarg;
            break;
        case OPTION_JSON:
        case OPTION_METRICS:
            options.form = c == OPTION_JSON ? FORM_JSON : FORM_METRICS;
            if (before != FORM_TEXT && before != options.form) {
                (void)fprintf(stderr, "spnegate status: --json or --metrics, not both\n");
                return EX_USAGE;
            }
            break;
        case 'h':
            print_help();
            return EX_OK;
        default:
            (void)fprintf(stderr, "spnegate status: %s: %s\nTry `spnegate status --help`.\n",
                          c == ':' ? "this option needs a value" : "no such option",
                          argv[optind - 1]);
            return EX_USAGE;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "spnegate status: too many arguments: %s\n", argv[optind]);
        return EX_USAGE;
    }
    *out = options;
    return -1;
}

/*
 * Where the daemon answers. A configuration that is broken by now is what its reload was refused
 * for: it is taken at its word for that, or else the daemon is looked for where most are.
 */
static int find_socket(const struct options *options, struct sockaddr_un *out)
{
    struct config *config = NULL;
    struct fault fault;
    const char *dir = RUNTIME_DIR_DEFAULT;
    char *said = NULL;
    int len = 0;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (options->socket != NULL) {
        len = snprintf(out->sun_path, sizeof out->sun_path, "%s", options->socket);
    } else {
        if (config_load(options->config, &config, &fault) == 0) {
            dir = config->runtime_dir;
        } else {
            said = config_find_path(options->config, NULL, "runtime_dir");
            dir = said != NULL ? said : dir;
            (void)fprintf(stderr,
                          "spnegate status: %s: %s\n"
                          "spnegate status: asking at %s/control.sock; --socket names another\n",
                          fault.where, fault.what, dir);
        }
        len = snprintf(out->sun_path, sizeof out->sun_path, "%s/control.sock", dir);
        config_free(config);
        free(said);
    }
    if (len < 0 || (size_t)len >= sizeof out->sun_path) {
        (void)fprintf(stderr, "spnegate status: the control socket's path is too long\n");
        return -1;
    }
    return 0;
}

static int read_all(int fd, struct buf *out)
{
    char bytes[16 * 1024];
    for (;;) {
        const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n == 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        buf_append(out, bytes, n > 0 ? (size_t)n : 0);
        if (out->failed) {
            errno = ENOMEM;
            return -1;
        }
    }
}

/* Asks, and has the whole answer in `out`. */
static int ask(const struct sockaddr_un *address, struct buf *out)
{
    static const char request[] = "status\n";
    static const struct timeval patience = {PATIENCE_S, 0};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
        connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 ||
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1 ||
        read_all(fd, out) != 0) {
        const int error = errno;
        (void)fprintf(stderr, "spnegate status: no daemon answers at %s: %s\n", address->sun_path,
                      error == EAGAIN   ? "it does not in time"
                      : error == EACCES ? "only root and the daemon's user may ask it"
                                        : strerror(error));
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    (void)close(fd);
    return 0;
}

uint64_t status_number(const json_t *object, const char *key)
{
    const json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

const char *status_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

int status_flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key)) ? 1 : 0;
}

uint64_t status_outcome(const json_t *decisions, enum outcome outcome)
{
    uint64_t sum = 0;
    for (int r = 0; r < REASON_COUNT; r++) {
        const struct reason_info *info = reason_info((enum reason)r);
        sum += info->outcome == outcome ? status_number(decisions, info->code) : 0;
    }
    return sum;
}

static int show(const json_t *root, enum form form)
{
    switch (form) {
    case FORM_TEXT:
        status_print_text(root);
        break;
    case FORM_JSON:
        if (json_dumpf(root, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) != 0) {
            return STATUS_NO_ANSWER;
        }
        (void)putchar('\n');
        break;
    case FORM_METRICS:
        status_print_metrics(root);
        break;
    }
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        (void)fprintf(stderr, "spnegate status: the output cannot be written\n");
        return STATUS_NO_ANSWER;
    }
    return json_array_size(json_object_get(root, "problems")) > 0 ? STATUS_PROBLEM : STATUS_GOOD;
}

int cmd_status(int argc, char **argv)
{
    struct options options;
    struct sockaddr_un address;
    struct buf answer = {.max = ANSWER_MAX};
    json_error_t error;
    const int usage = read_options(argc, argv, &options);
    if (usage >= 0) {
        return usage;
    }
    if (find_socket(&options, &address) != 0) {
        return STATUS_NO_ANSWER;
    }
    int status = STATUS_NO_ANSWER;
    if (ask(&address, &answer) == 0) {
        json_t *root = json_loadb((const char *)answer.ptr, answer.len, 0, &error);
        if (status_number(root, "v") == 1) {
            status = show(root, options.form);
        } else {
            (void)fprintf(stderr, "spnegate status: %s: %s\n", address.sun_path,
                          answer.len == 0 ? "it was closed without an answer; only root and the "
                                            "daemon's own user are answered"
                                          : "the answer is none of this version's");
        }
        json_decref(root);
    }
    buf_clear(&answer);
    return status;
}
