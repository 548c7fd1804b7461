#include "auth/policy.h"

#include <string.h>

/* "HTTP/host" matches in any realm, "HTTP/host@REALM" in that one. */
static bool service_matches(const char *listed, const char *service)
{
    const size_t len = strlen(listed);
    return strncmp(listed, service, len) == 0 &&
           (service[len] == '\0' || (service[len] == '@' && strchr(listed, '@') == NULL));
}

static bool host_has_service(const char *host, const char *service)
{
    return strncmp(service, "HTTP/", 5) == 0 && service_matches(host, service + 5);
}

/* Whether some host under the pattern ("*" or "*.suffix") has it. */
static bool pattern_has_service(const char *pattern, const char *service)
{
    const char *suffix = pattern + 1;
    const size_t len = strcspn(service, "@");
    return strncmp(service, "HTTP/", 5) == 0 && len > 5 + strlen(suffix) &&
           strncmp(service + len - strlen(suffix), suffix, strlen(suffix)) == 0;
}

bool policy_has_service(const struct config_site *site, const char *host, const char *service)
{
    bool has = site->services_any;
    for (size_t i = 0; i < site->services.count && !has; i++) {
        has = service_matches(site->services.items[i], service);
    }
    for (size_t i = 0; site->services.count == 0 && i < site->hosts.count && !has; i++) {
        const char *listed = site->hosts.items[i];
        has = listed[0] != '*' ? host_has_service(listed, service)
              : host != NULL   ? host_has_service(host, service)
                               : pattern_has_service(listed, service);
    }
    return has;
}

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
