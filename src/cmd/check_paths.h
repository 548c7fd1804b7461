/* The parts of `check` that look at sockets, directories and the audit file. */
#ifndef CMD_CHECK_PATHS_H
#define CMD_CHECK_PATHS_H

#include "cmd/report.h"
#include "conf/config.h"

/* Where the listeners will be: what is there now, and whether they can be made. */
void check_listeners(struct report *report, const struct config *config);

/* runtime_dir and state_dir. */
void check_directories(struct report *report, const struct config *config);

void check_audit(struct report *report, const struct config *config);

#endif
