/*
 * spnegate-relay: what Apache's mod_fcgid starts in place of the daemon, which it cannot reach by
 * itself. It needs no privileges and no keys, and libc is all it links, so that each of Apache's
 * many processes of it stays small.
 */
#include "relay/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum { TIMEOUT_DEFAULT_S = 10, TIMEOUT_MAX_S = 3600 };

static void print_usage(FILE *out)
{
    (void)fprintf(out,
                  "Usage: spnegate-relay [OPTION...] SOCKET\n"
                  "Joins each connection that arrives on descriptor 0, a listening socket, to the\n"
                  "daemon's SOCKET: an absolute path, or ADDRESS:PORT on loopback. Started by\n"
                  "Apache's mod_fcgid:\n\n"
                  "  FcgidAccessChecker \"/usr/sbin/spnegate-relay /run/spnegate/apache.sock\"\n\n"
                  "  --timeout SECONDS  close what is not answered by then; default %d\n"
                  "  --help             show this and exit\n"
                  "  --version          show the version and exit\n",
                  TIMEOUT_DEFAULT_S);
}

static int usage_error(const char *what, const char *which)
{
    (void)fprintf(stderr, "spnegate-relay: %s%s%s\nTry `spnegate-relay --help`.\n", what,
                  which == NULL ? "" : ": ", which == NULL ? "" : which);
    return EX_USAGE;
}

static int parse_timeout(const char *text, unsigned long *seconds)
{
    char *rest = NULL;
    *seconds = strtoul(text, &rest, 10);
    return text[0] >= '1' && text[0] <= '9' && *rest == '\0' && *seconds <= TIMEOUT_MAX_S ? 0 : -1;
}

/* An exit status, or -1: go on. */
static int read_options(int argc, char **argv, unsigned long *timeout_s)
{
    static const struct option options[] = {{"timeout", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {NULL, 0, NULL, 0}};
    opterr = 0;
    for (int c = getopt_long(argc, argv, ":t:hV", options, NULL); c != -1;
         c = getopt_long(argc, argv, ":t:hV", options, NULL)) {
        switch (c) {
        case 't':
            if (parse_timeout(optarg, timeout_s) != 0) {
                return usage_error("not a number of seconds from 1 to 3600", optarg);
            }
            break;
        case 'h':
            print_usage(stdout);
            return EX_OK;
        case 'V':
            (void)printf("spnegate-relay %s\n", SPNEGATE_VERSION);
            return EX_OK;
        default:
            return usage_error(c == ':' ? "this option needs a value" : "no such option",
                               argv[optind - 1]);
        }
    }
    return -1;
}

/* Whatever was open in the web server is none of our business, and nobody reads our memory. */
static void shed(void)
{
    const struct rlimit none = {0, 0};
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    /* If the web server's process manager dies without a word, nobody else would end us. */
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
}

static bool is_listening(int fd)
{
    int listening = 0;
    socklen_t len = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening != 0;
}

int main(int argc, char **argv)
{
    struct relay_target target;
    unsigned long timeout_s = TIMEOUT_DEFAULT_S;
    const int status = read_options(argc, argv, &timeout_s);
    if (status >= 0) {
        return status;
    }
    if (argc - optind != 1) {
        return usage_error(optind == argc ? "no SOCKET is given" : "too many arguments", NULL);
    }
    const char *wrong = relay_target_parse(argv[optind], &target);
    if (wrong != NULL) {
        return usage_error(wrong, argv[optind]);
    }
    if (!is_listening(STDIN_FILENO)) {
        return usage_error("descriptor 0 is not a listening socket; mod_fcgid starts this program",
                           NULL);
    }
    const int flags = fcntl(STDIN_FILENO, F_GETFL);
    if (flags < 0 || fcntl(STDIN_FILENO, F_SETFL, flags | O_NONBLOCK) != 0) {
        (void)fprintf(stderr, "spnegate-relay: descriptor 0: %s\n", strerror(errno));
        return EX_OSERR;
    }
    shed();
    if (relay_run(STDIN_FILENO, &target, timeout_s * 1000) != 0) {
        (void)fprintf(stderr, "spnegate-relay: polling: %s\n", strerror(errno));
        return EX_OSERR;
    }
    return EX_OK;
}
