#include "cmd/cmd.h"
#include "serve/supervise.h"

#include <stdio.h>
#include <string.h>

static void print_help(void)
{
    printf(
        "Usage: spnegate serve [-c FILE] [--accept-audit-gap]\n"
        "Serves sign-in requests in the foreground until SIGTERM.\n\n"
        "  -c, --config=FILE       the configuration (default: $SPNEGATE_CONFIG, or %s)\n"
        "      --accept-audit-gap  start although records are missing at the end of the audit\n"
        "                          file; that is recorded\n"
        "      --help              show this and exit\n\n"
        "SIGHUP loads configuration and keytabs anew (a broken one is refused and the old one\n"
        "serves on) and opens the audit file anew if it was renamed; SIGUSR1 does only that;\n"
        "SIGTERM finishes what is under way and stops; a second one stops at once.\n"
        "Exit status (sysexits): 0 stopped, 64 usage, 66 no configuration or keytab, 70 a defect,\n"
        "71 system error, 73 cannot create, 74 audit file, 75 already running, 77 permission,\n"
        "78 configuration.\n",
        cmd_config_default());
}

/* Takes the option that only this subcommand has out of the list; returns whether it was there. */
static bool take_option(int *argc, char **argv, const char *option)
{
    int kept = 0;
    const int count = *argc;
    for (int i = 0; i < count; i++) {
        if (i == 0 || strcmp(argv[i], option) != 0) {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    *argc = kept;
    return kept < count;
}

int cmd_serve(int argc, char **argv)
{
    struct supervise_options options = {.version = SPNEGATE_VERSION};
    options.accept_audit_gap = take_option(&argc, argv, "--accept-audit-gap");
    const int status = cmd_options(argc, argv, print_help, &options.config_path);
    return status >= 0 ? status : supervise_run(&options);
}
