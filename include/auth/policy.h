/* Whether a proven principal may pass: rules only grant, and what no rule grants is refused. */
#ifndef AUTH_POLICY_H
#define AUTH_POLICY_H

#include "auth/identity.h"
#include "base/reason.h"
#include "conf/config.h"

/*
 * Tries the site's rules in order; on OK `*rule` is the one that grants. Otherwise
 * REALM_NOT_ALLOWED (no rule names the principal's realm) or NO_RULE (some rule does), and `*rule`
 * is NULL.
 */
enum reason policy_check(const struct config_site *site, const struct identity *identity,
                         const struct config_rule **rule);

#endif
