/*
 * Whether an accepted service is the site's, and whether a proven principal may pass: rules only
 * grant, and what no rule grants is refused.
 */
#ifndef AUTH_POLICY_H
#define AUTH_POLICY_H

#include "auth/identity.h"
#include "base/reason.h"
#include "conf/config.h"

#include <stdbool.h>

/*
 * Whether tickets for `service` (unparsed, with its realm) may be used at the site: those of its
 * `services`, or by default HTTP/<host> of each exact host and, under a pattern, of `host`, the one
 * that was asked for (normalised; NULL: not known, any host that the pattern covers). A service
 * that is listed without a realm is listed in every realm.
 */
bool policy_has_service(const struct config_site *site, const char *host, const char *service);

/*
 * Tries the site's rules in order; on OK `*rule` is the one that grants. Otherwise
 * REALM_NOT_ALLOWED (no rule names the principal's realm) or NO_RULE (some rule does), and `*rule`
 * is NULL.
 */
enum reason policy_check(const struct config_site *site, const struct identity *identity,
                         const struct config_rule **rule);

#endif
