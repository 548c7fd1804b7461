#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum {
    COUNT_MAX = 10000000,
    SECONDS_MAX = 3600,
    PARALLEL_MAX = 10000,
    RATE_MAX = 1000000,
    PREMINT_MAX = 200000,
    WEIGHT_MAX = 1000,
};

static const char usage[] =
    "Usage: load [OPTION]... ADDRESS\n"
    "Loads the daemon at ADDRESS, the path of a unix socket or 127.0.0.1:PORT, with FastCGI\n"
    "requests, checks every answer, and prints how many there were and how long they took.\n\n"
    "  -n, --count N         requests; default 1000\n"
    "  -s, --seconds S       no new request after so many; default 60\n"
    "  -p, --parallel N      connections at once; default 1\n"
    "  -a, --rate N          so many requests a second, whatever the answers; a complete 503 is a\n"
    "                        right one then; --count is what --seconds make, --parallel the most\n"
    "  -r, --role ROLE       authorizer (default), responder, or both in turn\n"
    "  -k, --keep            many requests a connection\n"
    "  -m, --mix LIST        kinds and weights, as good:1,bad:1 (all bad kinds alike); default "
    "good\n"
    "  -e, --expect STATUS   of the good ones, when their tickets are not; default 200\n"
    "  -c, --ccache CACHE    with a ticket; repeated, the caches are used in turn\n"
    "  -S, --service SERVICE of the tickets; default HTTP/www.example.test@EXAMPLE.TEST\n"
    "  -H, --host HOST       of the requests; default www.example.test\n"
    "  -R, --raw             Kerberos tokens without SPNEGO\n"
    "  -P, --premint         make all tokens before the clock starts\n"
    "  -T, --tokens N        make so many; one that was answered 503 is used again\n"
    "  -b, --bytes N         pad the parameters to so many\n"
    "  -i, --pieces N        send so many bytes at a time, each when the last were read\n"
    "  -j, --json            the figures as one JSON object\n"
    "  -h, --help            this text\n\n"
    "Kinds:\n";

static const char usage_end[] =
    "\nExit status: 0 every answer was right, 1 one was not, 64 wrong usage.\n";

struct options options = {.count = 1000,
                          .seconds = 60,
                          .parallel = 1,
                          .roles = {[ROLE_AUTHORIZER] = true},
                          .expect = 200,
                          .service = "HTTP/www.example.test@EXAMPLE.TEST",
                          .style = {.host = "www.example.test"}};

static _Noreturn void misuse(const char *what, const char *text)
{
    fprintf(stderr, "load: %s: %s; see --help\n", what, text);
    exit(64);
}

static size_t number(const char *what, const char *text, size_t max)
{
    char *end = NULL;
    const unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value > max) {
        misuse(what, text);
    }
    return value;
}

static void read_role(const char *text)
{
    options.roles[ROLE_AUTHORIZER] = strcmp(text, "responder") != 0;
    options.roles[ROLE_RESPONDER] = strcmp(text, "authorizer") != 0;
    if (options.roles[ROLE_AUTHORIZER] && options.roles[ROLE_RESPONDER] &&
        strcmp(text, "both") != 0) {
        misuse("role", text);
    }
}

/* One item of --mix. The weights are multiplied, so that "bad" can be shared out evenly. */
static void read_weight(char *item)
{
    enum { BAD_COUNT = KIND_COUNT - 1 };
    char *colon = strchr(item, ':');
    const size_t weight = colon != NULL ? number("mix", colon + 1, WEIGHT_MAX) : 1;
    bool found = false;
    if (colon != NULL) {
        *colon = '\0';
    }
    for (size_t i = 0; i < KIND_COUNT; i++) {
        const bool is_bad = strcmp(item, "bad") == 0 && i != KIND_good;
        if (is_bad || strcmp(item, kinds[i].name) == 0) {
            options.weights[i] += is_bad ? weight : weight * BAD_COUNT;
            found = true;
        }
    }
    if (!found) {
        misuse("no such kind", item);
    }
}

static void read_mix(char *list)
{
    char *rest = NULL;
    for (char *item = strtok_r(list, ",", &rest); item != NULL; item = strtok_r(NULL, ",", &rest)) {
        read_weight(item);
    }
}

static void help(void)
{
    fputs(usage, stdout);
    for (size_t i = 0; i < KIND_COUNT; i++) {
        printf("  %-12s %s\n", kinds[i].name, kinds[i].text);
    }
    fputs(usage_end, stdout);
    exit(0);
}

static void read_option(int option)
{
    switch (option) {
    case 'n':
        options.count = number("count", optarg, COUNT_MAX);
        break;
    case 's':
        options.seconds = number("seconds", optarg, SECONDS_MAX);
        break;
    case 'p':
        options.parallel = number("parallel", optarg, PARALLEL_MAX);
        break;
    case 'a':
        options.rate = number("rate", optarg, RATE_MAX);
        break;
    case 'r':
        read_role(optarg);
        break;
    case 'k':
        options.style.keep = true;
        break;
    case 'm':
        read_mix(optarg);
        break;
    case 'e':
        options.expect = (int)number("expect", optarg, 999);
        break;
    case 'c':
        if (options.ccache_count == CCACHES_MAX) {
            misuse("too many caches", optarg);
        }
        options.ccaches[options.ccache_count++] = optarg;
        break;
    case 'S':
        options.service = optarg;
        break;
    case 'H':
        options.style.host = optarg;
        break;
    case 'R':
        options.raw = true;
        break;
    case 'P':
        options.premint = true;
        break;
    case 'T':
        options.tokens = number("tokens", optarg, PREMINT_MAX);
        break;
    case 'b':
        options.style.bytes = number("bytes", optarg, 1 << 20);
        break;
    case 'i':
        options.pieces = number("pieces", optarg, 1 << 20);
        break;
    case 'j':
        options.json = true;
        break;
    case 'h':
        help();
        break;
    default:
        exit(64);
    }
}

void options_read(int argc, char **argv)
{
    static const struct option longs[] = {{"count", required_argument, NULL, 'n'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"parallel", required_argument, NULL, 'p'},
                                          {"rate", required_argument, NULL, 'a'},
                                          {"role", required_argument, NULL, 'r'},
                                          {"keep", no_argument, NULL, 'k'},
                                          {"mix", required_argument, NULL, 'm'},
                                          {"expect", required_argument, NULL, 'e'},
                                          {"ccache", required_argument, NULL, 'c'},
                                          {"service", required_argument, NULL, 'S'},
                                          {"host", required_argument, NULL, 'H'},
                                          {"raw", no_argument, NULL, 'R'},
                                          {"premint", no_argument, NULL, 'P'},
                                          {"tokens", required_argument, NULL, 'T'},
                                          {"bytes", required_argument, NULL, 'b'},
                                          {"pieces", required_argument, NULL, 'i'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    for (int option = 0; option != -1;) {
        option = getopt_long(argc, argv, "n:s:p:a:r:km:e:c:S:H:RPT:b:i:jh", longs, NULL);
        if (option != -1) {
            read_option(option);
        }
    }
    bool mixed = false;
    for (size_t i = 0; i < KIND_COUNT; i++) {
        mixed = mixed || options.weights[i] > 0;
    }
    options.weights[KIND_good] += mixed ? 0 : 1;
    if (argc - optind != 1) {
        misuse("one address is needed", argc > optind ? argv[optind + 1] : "none is there");
    }
    options.address = argv[optind];
    if (options.address[0] != '/' && strncmp(options.address, "127.0.0.1:", 10) != 0) {
        misuse("only a path or 127.0.0.1:PORT", options.address);
    }
    if (strlen(options.address) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        misuse("too long", options.address);
    }
    if (options.rate > 0) {
        options.count = options.rate * options.seconds;
        if (options.count > COUNT_MAX || options.pieces > 0) {
            misuse("rate", "too many requests, or in pieces");
        }
    }
    if (options.premint && options.count > PREMINT_MAX) {
        misuse("count", "too many to make them beforehand");
    }
}
