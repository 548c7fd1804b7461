#include "base/fault.h"
#include "base/secret.h"
#include "cmd/audit.h"
#include "cmd/cmd.h"
#include "conf/config.h"
#include "serve/supervise.h"
#include "trail/audit.h"

#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

static void print_help(void)
{
    printf(
        "Usage: spnegate audit init [-c FILE]\n"
        "Prints the first public key of the audit trail, and makes the key if there is none yet\n"
        "(and state_dir, as `spnegate serve` would).\n"
        "Keep what it prints on another host: `spnegate audit verify --key` then tells this\n"
        "trail from any other that could be put in its place. Run it as root or the daemon's "
        "user.\n\n"
        "  -c, --config=FILE  the configuration (default: $SPNEGATE_CONFIG, or %s)\n"
        "      --help         show this and exit\n\n"
        "Exit status: 0 printed, 64 usage, 73 the key cannot be made or read, 78 configuration.\n",
        CONFIG_PATH_DEFAULT);
}

int cmd_audit_init(int argc, char **argv)
{
    const char *path = NULL;
    struct config *config = NULL;
    struct fault fault = {"", ""};
    char key[AUDIT_KEY_BYTES];
    int status = cmd_options(argc, argv, print_help, &path);

    if (status >= 0) {
        return status;
    }
    if (secret_init() != 0) {
        (void)fprintf(stderr, "spnegate audit init: no randomness is to be had\n");
        return EX_OSERR;
    }
    if (config_load(path, &config, &fault) != 0) {
        (void)fprintf(stderr, "spnegate audit init: %s: %s\n", fault.where, fault.what);
        return EX_CONFIG;
    }
    const bool become = config->user != NULL && geteuid() == 0;
    status = supervise_make_state_dir(config, &fault);
    if (status == 0 &&
        audit_init_key(config->state_dir, config->audit.file, become ? config->uid : (uid_t)-1,
                       become ? config->gid : (gid_t)-1, key, &fault) == 0) {
        status = printf("%s\n", key) < 0 || fflush(stdout) != 0 ? EX_IOERR : EX_OK;
    } else {
        status = status != 0 ? status : EX_CANTCREAT;
        (void)fprintf(stderr, "spnegate audit init: %s: %s\n", fault.where, fault.what);
    }
    config_free(config);
    return status;
}
