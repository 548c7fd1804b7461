/*
 * The supervisor: loads the configuration, binds, keeps what workers share, starts and replaces
 * workers, and changes generations on SIGHUP or when a keytab or krb5.conf changed. It never reads
 * a byte from a client.
 */
#ifndef SERVE_SUPERVISE_H
#define SERVE_SUPERVISE_H

#include "base/fault.h"
#include "conf/config.h"

#include <stdbool.h>

struct supervise_options {
    const char *config_path;
    const char *version;   /* of the program */
    bool accept_audit_gap; /* start although records are missing at the end of the audit trail */
};

/*
 * Runs the daemon in the foreground until it is told to stop; returns its exit status (sysexits).
 */
int supervise_run(const struct supervise_options *options);

/*
 * Makes state_dir if it is missing, as a start would: 0700, the configured user's. Returns 0, or
 * the exit status that the fault means.
 */
int supervise_make_state_dir(const struct config *config, struct fault *fault);

#endif
