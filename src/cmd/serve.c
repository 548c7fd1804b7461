#include "cmd/cmd.h"
#include "serve/supervise.h"

#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>

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
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *config = cmd_config_default();
    for (int c = getopt_long(argc, argv, "c:", options, NULL); c != -1;
         c = getopt_long(argc, argv, "c:", options, NULL)) {
        switch (c) {
        case 'c':
            config = optarg;
            break;
        case 'h':
            print_help();
            return EX_OK;
        default:
            return EX_USAGE;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "spnegate serve: too many arguments: %s\n", argv[optind]);
        return EX_USAGE;
    }
    return supervise_run(config);
}
