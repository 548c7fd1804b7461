#include "base/secret.h"
#include "cmd/check_paths.h"
#include "cmd/check_sites.h"
#include "cmd/cmd.h"
#include "cmd/report.h"
#include "cmd/view.h"
#include "conf/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * An entry of the replay table lives for twice the clock skew that Kerberos allows, and a second.
 */
enum { REPLAY_KEEP_S = 2 * 300 + 1 };

static void print_help(void)
{
    printf("Usage: spnegate check [-c FILE]\n"
           "Checks the configuration and what it refers to: keytabs, sockets, directories, the\n"
           "audit file. Changes nothing. As root it tries what the configured user may do.\n\n"
           "  -c, --config=FILE  the configuration (default: $SPNEGATE_CONFIG, or %s)\n"
           "      --help         show this and exit\n\n"
           "Exit status: 0 good (there may be warnings), 1 there are findings, 2 something could\n"
           "not be decided, 64 usage.\n",
           CONFIG_PATH_DEFAULT);
}

static void check_user(struct report *report, const struct config *config)
{
    char user[REPORT_ACCOUNT_BYTES];

    if (config->user == NULL && geteuid() == 0) {
        report_line(report, REPORT_UNDECIDED,
                    "user: is missing, so root cannot tell whose permissions count; run this as "
                    "the daemon's user, or name it (a daemon that root starts needs it)");
    } else if (config->user == NULL) {
        report_line(report, REPORT_OK, "user: stays %s", report_user(geteuid(), user));
    } else if (config->uid == 0) {
        report_line(report, REPORT_WARNING, "user: the daemon would stay root");
    } else if (geteuid() != 0 && geteuid() != config->uid) {
        report_line(report, REPORT_UNDECIDED,
                    "user: only root and %s can tell what %s may do; run this as one of them",
                    config->user, report_user(config->uid, user));
    } else {
        report_line(report, REPORT_OK, "user: %s", report_user(config->uid, user));
    }
}

/* After the change of user a reload opens the file anew. */
static void check_reload(struct report *report, const struct config *config)
{
    char user[REPORT_ACCOUNT_BYTES];
    struct view view;

    view_try(config, VIEW_READ, config->path, &view);
    if (view.answer == VIEW_REFUSED) {
        report_line(report, REPORT_WARNING,
                    "configuration: %s cannot read it, so no reload will work: %s%s%s",
                    report_user(view.uid, user), strerror(view.error),
                    view.stopped[0] != '\0' ? ", at " : "", view.stopped);
    }
}

static void check_replay(struct report *report, const struct config *config)
{
    unsigned long long entries = (unsigned long long)config->replay_entries;

    report_line(report, REPORT_OK, "replay: %llu entries, %llu logins/s sustained", entries,
                entries / REPLAY_KEEP_S);
}

static int check_all(const char *path)
{
    struct report report = {0};
    struct fault fault = {"", ""};
    struct config *config = NULL;

    if (config_load(path, &config, &fault) != 0) {
        bool hidden = access(path, R_OK) != 0 && errno == EACCES;

        report_line(&report, hidden ? REPORT_UNDECIDED : REPORT_FINDING, "%s: %s", fault.where,
                    fault.what);
        return report_close(&report);
    }
    report_line(&report, REPORT_OK, "configuration: %s, %zu listeners, %zu sites", path,
                config->listeners.count, config->sites.count);
    check_user(&report, config);
    check_reload(&report, config);
    check_sites(&report, config);
    check_listeners(&report, config);
    check_directories(&report, config);
    check_audit(&report, config);
    check_replay(&report, config);
    config_free(config);
    return report_close(&report);
}

int cmd_check(int argc, char **argv)
{
    const char *config = NULL;
    const int status = cmd_options(argc, argv, print_help, &config);
    if (status >= 0) {
        return status;
    }
    if (secret_init() != 0) {
        (void)fprintf(stderr, "spnegate check: no randomness is to be had\n");
        return 2;
    }
    return check_all(config);
}
