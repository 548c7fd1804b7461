#include "auth/policy.h"

#include <stdbool.h>
#include <string.h>

static bool contains(const struct config_strings *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether a listed principal is of this realm; the text after its last @ (an earlier one is
 * quoted). */
static bool names_realm(const struct config_rule *rule, const char *realm)
{
    if (contains(&rule->realms, realm)) {
        return true;
    }
    for (size_t i = 0; i < rule->principals.count; i++) {
        const char *at = strrchr(rule->principals.items[i], '@');
        if (at != NULL && strcmp(at + 1, realm) == 0) {
            return true;
        }
    }
    return false;
}

static bool grants(const struct config_rule *rule, const struct identity *identity)
{
    /* The loader refuses a rule without keys; should one come here, it grants nobody. */
    if (rule->realms.count == 0 && rule->principals.count == 0) {
        return false;
    }
    return (rule->realms.count == 0 || contains(&rule->realms, identity_realm(identity))) &&
           (rule->principals.count == 0 || contains(&rule->principals, identity->principal));
}

enum reason policy_check(const struct config_site *site, const struct identity *identity,
                         const struct config_rule **rule)
{
    bool named = false;
    *rule = NULL;
    for (size_t i = 0; i < site->rules.count; i++) {
        const struct config_rule *candidate = &site->rules.items[i];
        if (grants(candidate, identity)) {
            *rule = candidate;
            return REASON_OK;
        }
        named = named || names_realm(candidate, identity_realm(identity));
    }
    return named ? REASON_NO_RULE : REASON_REALM_NOT_ALLOWED;
}
