#include "auth/acceptor.h"
#include "base/secret.h"
#include "cmd/cmd.h"
#include "conf/config.h"

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
};

const char *cmd_config_default(void)
{
    const char *path = getenv("SPNEGATE_CONFIG");
    return path != NULL && path[0] != '\0' ? path : CONFIG_PATH_DEFAULT;
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
    printf("spnegate %s\n%s, libsodium %s, jansson %s\n", SPNEGATE_VERSION, acceptor_version(),
           secret_version(), jansson_version_str());
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EX_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        print_version();
        return EX_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].word) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "spnegate: no such command: %s\nTry `spnegate --help`.\n", argv[1]);
    return EX_USAGE;
}
