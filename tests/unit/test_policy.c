#include "auth/policy.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* An identity as identity_read leaves it. */
static struct identity identity_of(const char *principal)
{
    struct identity id = {.components = 1};
    (void)snprintf(id.principal, sizeof id.principal, "%s", principal);
    id.realm_at = (size_t)(strchr(id.principal, '@') - id.principal) + 1;
    return id;
}

static char a_test[] = "A.TEST";
static char b_test[] = "B.TEST";
static char alice_b[] = "alice@B.TEST";
static char bob_c[] = "bob@C.TEST";
static char where[3][4] = {"x:1", "x:2", "x:3"};
static char *realm_a[] = {a_test};
static char *realm_b[] = {b_test};
static char *two[] = {alice_b, bob_c};
static struct config_rule rules[] = {
    {.where = where[0], .realms = {realm_a, 1}},
    {.where = where[1], .principals = {two, 2}},
    {.where = where[2], .realms = {realm_b, 1}, .principals = {two, 2}},
};

static enum reason check(const char *principal, size_t rule_count, const char **granted_by)
{
    const struct config_site site = {.rules = {rules, rule_count}};
    const struct config_rule *rule = NULL;
    const struct identity id = identity_of(principal);
    const enum reason reason = policy_check(&site, &id, &rule);
    cr_assert_eq(rule != NULL, reason == REASON_OK);
    *granted_by = rule != NULL ? rule->where : "";
    return reason;
}

Test(policy, only_a_rule_grants_and_the_first_that_does_is_named)
{
    static const struct {
        const char *principal;
        size_t rules;
        enum reason reason;
        const char *where;
    } cases[] = {
        {"alice@A.TEST", 0, REASON_REALM_NOT_ALLOWED, ""},
        {"alice@A.TEST", 1, REASON_OK, "x:1"},
        {"host/www@A.TEST", 1, REASON_OK, "x:1"},
        {"alice@a.test", 1, REASON_REALM_NOT_ALLOWED, ""},
        {"alice@A.TEST.EVIL", 1, REASON_REALM_NOT_ALLOWED, ""},
        {"alice@EVIL.A.TEST", 1, REASON_REALM_NOT_ALLOWED, ""},
        {"alice@B.TEST", 2, REASON_OK, "x:2"},
        {"Alice@B.TEST", 2, REASON_NO_RULE, ""},
        {"carol@B.TEST", 3, REASON_NO_RULE, ""},
        {"alice@C.TEST", 3, REASON_NO_RULE, ""},
        {"bob@C.TEST", 3, REASON_OK, "x:2"},
        {"alice@D.TEST", 3, REASON_REALM_NOT_ALLOWED, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *granted_by = NULL;
        cr_assert_eq(check(cases[i].principal, cases[i].rules, &granted_by), cases[i].reason, "%s",
                     cases[i].principal);
        cr_assert_str_eq(granted_by, cases[i].where);
    }
}

Test(policy, keys_of_one_rule_are_and)
{
    const struct config_site site = {.rules = {&rules[2], 1}};
    const struct config_rule *rule = NULL;
    struct identity id = identity_of("alice@B.TEST");
    cr_assert_eq(policy_check(&site, &id, &rule), REASON_OK);
    id = identity_of("bob@C.TEST");
    cr_assert_eq(policy_check(&site, &id, &rule), REASON_NO_RULE, "listed, but of another realm");
}

Test(policy, a_rule_without_keys_grants_nobody)
{
    static struct config_rule empty[] = {{.where = where[0]}};
    const struct config_site site = {.rules = {empty, 1}};
    const struct config_rule *rule = NULL;
    const struct identity id = identity_of("alice@A.TEST");
    cr_assert_neq(policy_check(&site, &id, &rule), REASON_OK);
}
