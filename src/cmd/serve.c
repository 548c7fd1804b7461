#include "cmd/cmd.h"
#include "serve/supervise.h"

#include <stdio.h>

static void print_help(void)
{
    printf(
        "Usage: spnegate serve [-c FILE]\n"
        "Serves sign-in requests in the foreground until SIGTERM.\n\n"
        "  -c, --config=FILE  the configuration (default: $SPNEGATE_CONFIG, or %s)\n"
        "      --help         show this and exit\n\n"
        "SIGHUP loads configuration and keytabs anew (a broken one is refused and the old one\n"
        "serves on) and opens the audit file anew; SIGUSR1 only opens the audit file anew;\n"
        "SIGTERM finishes what is under way and stops; a second one stops at once.\n"
        "Exit status (sysexits): 0 stopped, 64 usage, 66 no configuration or keytab, 70 a defect,\n"
        "71 system error, 73 cannot create, 74 audit file, 75 already running, 77 permission,\n"
        "78 configuration.\n",
        cmd_config_default());
}

int cmd_serve(int argc, char **argv)
{
    const char *config = NULL;
    const int status = cmd_options(argc, argv, print_help, &config);
    return status >= 0 ? status : supervise_run(config);
}
