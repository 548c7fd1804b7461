/* The part of `check` that looks at sites: keytabs, services and rules. */
#ifndef CMD_CHECK_SITES_H
#define CMD_CHECK_SITES_H

#include "cmd/report.h"
#include "conf/config.h"

void check_sites(struct report *report, const struct config *config);

#endif
