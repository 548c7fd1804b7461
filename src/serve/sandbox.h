/*
 * The sandbox: what the kernel refuses the daemon from the start, so that code which an attacker
 * runs in a worker reaches neither the keytabs nor other processes nor the network. Landlock
 * confines files, a seccomp filter confines system calls; both are for life and inherited.
 */
#ifndef SERVE_SANDBOX_H
#define SERVE_SANDBOX_H

#include "base/fault.h"
#include "conf/config.h"

/*
 * For the supervisor, once it is the configured user: neither it nor its workers gain privileges by
 * executing, can be traced by processes of the same user, or (unless `sandbox: off`) can execute
 * anything. -1 with `sandbox: required` where the kernel cannot do that.
 */
int sandbox_supervisor(const struct config *config, struct fault *fault);

/*
 * For a worker, before it has threads and before it touches libkrb5: from here on it reads only
 * what libkrb5 needs, creates, reads and appends to files only where the audit file is, maps no
 * code and makes only system calls that workers make; any other ends it with SIGSYS. Returns 0 if
 * that is in force, or the configuration lets it be incomplete: `missing->what` says what is
 * missing, "" for nothing. Otherwise the exit status that the fault in `*missing` means.
 */
int sandbox_worker(const struct config *config, struct fault *missing);

#endif
