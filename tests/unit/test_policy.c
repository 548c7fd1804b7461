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

Test(policy, a_service_is_the_sites_when_a_host_or_the_list_has_it)
{
    static char exact[] = "www.a.test";
    static char under[] = "*.b.test";
    static char every[] = "*";
    static char listed[] = "HTTP/lb.a.test";
    static char of_realm[] = "HTTP/other.a.test@A.TEST";
    static char *hosts[] = {exact, under};
    static char *all[] = {every};
    static char *services[] = {listed, of_realm};
    static const struct config_site plain = {.hosts = {hosts, 2}};
    static const struct config_site any_host = {.hosts = {all, 1}};
    static const struct config_site aliased = {.hosts = {hosts, 2}, .services = {services, 2}};
    static const struct config_site open = {.hosts = {hosts, 2}, .services_any = true};
    static const struct {
        const struct config_site *site;
        const char *host;
        const char *service;
        bool has;
    } cases[] = {
        {&plain, "www.a.test", "HTTP/www.a.test@A.TEST", true},
        {&plain, "www.a.test", "HTTP/www.a.test@B.TEST", true},
        {&plain, "x.b.test", "HTTP/www.a.test@A.TEST", true},
        {&plain, "x.b.test", "HTTP/x.b.test@A.TEST", true},
        {&plain, "x.b.test", "HTTP/y.b.test@A.TEST", false},
        {&plain, NULL, "HTTP/y.b.test@A.TEST", true},
        {&plain, NULL, "HTTP/.b.test@A.TEST", false},
        {&plain, NULL, "HTTP/y.b.test.evil@A.TEST", false},
        {&plain, NULL, "HTTP/evil@y.b.test", false},
        {&plain, "www.a.test", "HTTP/www.a.test.evil@A.TEST", false},
        {&plain, "www.a.test", "HTTP/www.a@A.TEST", false},
        {&plain, "www.a.test", "http/www.a.test@A.TEST", false},
        {&plain, "www.a.test", "host/www.a.test@A.TEST", false},
        {&plain, "www.a.test", "HTTP/lb.a.test@A.TEST", false},
        {&any_host, "z.test", "HTTP/z.test@A.TEST", true},
        {&any_host, "z.test", "HTTP/www.a.test@A.TEST", false},
        {&any_host, NULL, "HTTP/www.a.test@A.TEST", true},
        {&any_host, NULL, "HTTP/@A.TEST", false},
        {&aliased, "www.a.test", "HTTP/lb.a.test@A.TEST", true},
        {&aliased, "www.a.test", "HTTP/lb.a.test@B.TEST", true},
        {&aliased, "www.a.test", "HTTP/www.a.test@A.TEST", false},
        {&aliased, "www.a.test", "HTTP/other.a.test@A.TEST", true},
        {&aliased, "www.a.test", "HTTP/other.a.test@B.TEST", false},
        {&aliased, "www.a.test", "HTTP/other.a.test@A.TEST.EVIL", false},
        {&open, "www.a.test", "host/whatever@B.TEST", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_eq(policy_has_service(cases[i].site, cases[i].host, cases[i].service),
                     cases[i].has, "case %zu: %s", i, cases[i].service);
    }
}
