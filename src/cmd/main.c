#include "auth/acceptor.h"
#include "base/secret.h"
#include "cmd/cmd.h"
#include "conf/config.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct {
    const char *word;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", cmd_serve, "serve sign-in requests in the foreground"},
    {"check", cmd_check, "check configuration, keytabs, sockets and paths"},
    {"explain", cmd_explain, "say what a token or an audit record means"},
    {"status", cmd_status, "say how the running daemon is"},
    {"audit", cmd_audit, "prove or show the audit trail"},
};

const char *cmd_config_default(void)
{
    const char *path = getenv("SPNEGATE_CONFIG");
    return path != NULL && path[0] != '\0' ? path : CONFIG_PATH_DEFAULT;
}

int cmd_options(int argc, char **argv, void (*print_help)(void), const char **config)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *command = argv[0];
    const char *path = cmd_config_default();
    opterr = 0;
    for (int c = getopt_long(argc, argv, ":c:h", options, NULL); c != -1;
         c = getopt_long(argc, argv, ":c:h", options, NULL)) {
        switch (c) {
        case 'c':
            path = optarg;
            break;
        case 'h':
            print_help();
            return EX_OK;
        default:
            (void)fprintf(stderr, "spnegate %s: %s: %s\nTry `spnegate %s --help`.\n", command,
                          c == ':' ? "this option needs a value" : "no such option",
                          argv[optind - 1], command);
            return EX_USAGE;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "spnegate %s: too many arguments: %s\n", command, argv[optind]);
        return EX_USAGE;
    }
    *config = path;
    return -1;
}

static void print_usage(FILE *out)
{
    (void)fprintf(
        out, "Usage: spnegate COMMAND [OPTION...]\n"
             "The shared Kerberos sign-in of several web servers, as a FastCGI authorizer.\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        (void)fprintf(out, "  %-8s %s\n", commands[i].word, commands[i].help);
    }
    (void)fprintf(out, "\n  --help     show this and exit\n"
                       "  --version  show versions and exit\n\n"
                       "`spnegate COMMAND --help` tells more.\n");
}

static void print_version(void)
{
    char secret[64];

    secret_version(secret, sizeof secret);
    printf("spnegate %s\n%s, %s, jansson %s\n", SPNEGATE_VERSION, acceptor_version(), secret,
           jansson_version_str());
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EX_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        print_version();
        return EX_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].word) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "spnegate: no such %s: %s\nTry `spnegate --help`.\n",
                  argv[1][0] == '-' ? "option" : "command", argv[1]);
    return EX_USAGE;
}
