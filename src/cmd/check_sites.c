#include "cmd/check_sites.h"

#include "auth/binding.h"
#include "auth/keytab.h"
#include "cmd/view.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PRINCIPALS_SHOWN = 8, SERVICE_BYTES = 600 };

/* One site and its keytab, as the steps below pass it on. */
struct subject {
    const struct config *config;
    const struct config_site *site;
    const struct keytab *keytab;
};

static void check_view(struct report *report, const struct subject *s, const char *path)
{
    char user[REPORT_ACCOUNT_BYTES];
    struct view view;

    view_try(s->config, VIEW_READ, path, &view);
    (void)report_user(view.uid, user);
    if (view.answer == VIEW_GRANTED) {
        report_line(report, REPORT_OK, "site %s: %s can read %s", s->site->id, user, path);
    } else if (view.answer == VIEW_REFUSED) {
        report_line(report, REPORT_FINDING, "site %s: %s cannot read %s: %s%s%s", s->site->id, user,
                    path, strerror(view.error), view.stopped[0] != '\0' ? ", at " : "",
                    view.stopped);
    } else {
        report_line(report, REPORT_UNDECIDED,
                    "site %s: whether the daemon's user can read %s is not known: %s", s->site->id,
                    path, strerror(view.error));
    }
}

static void check_file(struct report *report, const struct subject *s)
{
    char user[REPORT_ACCOUNT_BYTES];
    char group[REPORT_ACCOUNT_BYTES];
    const char *path = s->site->keytab;
    uid_t daemon = 0;
    struct stat st;

    if (stat(path, &st) != 0) {
        report_line(report, errno == EACCES ? REPORT_UNDECIDED : REPORT_FINDING,
                    "site %s: the keytab %s: %s", s->site->id, path, strerror(errno));
        return;
    }
    report_line(report, REPORT_OK, "site %s: keytab %s, owner %s, group %s, mode %04o", s->site->id,
                path, report_user(st.st_uid, user), report_group(st.st_gid, group),
                (unsigned)st.st_mode & 07777U);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        report_line(report, REPORT_FINDING,
                    "site %s: %s may be written by group or others: whoever can write it can sign "
                    "in as anybody; chmod go-w",
                    s->site->id, path);
    }
    if ((st.st_mode & S_IROTH) != 0) {
        report_line(
            report, REPORT_WARNING,
            "site %s: %s may be read by everybody: its keys are no longer secret; chmod o-r",
            s->site->id, path);
    }
    if (st.st_uid != 0 && view_user(s->config, &daemon) && st.st_uid != daemon) {
        report_line(report, REPORT_WARNING,
                    "site %s: %s belongs to %s, neither to root nor to the daemon's user",
                    s->site->id, path, user);
    }
}

static void show_keys(const struct keytab *keytab)
{
    for (size_t i = 0; i < keytab->count; i++) {
        const struct keytab_key *key = &keytab->keys[i];
        char enctype[KEYTAB_ENCTYPE_BYTES];
        char date[32] = "no date";
        time_t at = (time_t)key->timestamp_s;
        struct tm tm;

        if (at != 0 && gmtime_r(&at, &tm) != NULL) {
            (void)strftime(date, sizeof date, "%Y-%m-%d", &tm);
        }
        report_detail("%s kvno %u %s %s", key->principal, (unsigned)key->kvno,
                      keytab_enctype_text(key->enctype, enctype), date);
    }
}

/* Whether a key's principal is the service; a service without a realm is one in every realm. */
static bool is_service(const struct keytab_key *key, const char *service)
{
    size_t len = strlen(service);

    return strncmp(key->principal, service, len) == 0 &&
           (key->principal[len] == '\0' ||
            (key->principal[len] == '@' && strchr(service, '@') == NULL));
}

/* The principals of a keytab, each once, as far as they fit. */
static void list_principals(const struct keytab *keytab, char *out, size_t size)
{
    size_t shown = 0;
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < keytab->count && len < size; i++) {
        bool seen = false;

        for (size_t j = 0; j < i && !seen; j++) {
            seen = strcmp(keytab->keys[i].principal, keytab->keys[j].principal) == 0;
        }
        if (seen) {
            continue;
        }
        if (shown == PRINCIPALS_SHOWN) {
            (void)snprintf(out + len, size - len, " and more");
            return;
        }
        len += (size_t)snprintf(out + len, size - len, "%s%s", shown > 0 ? ", " : "",
                                keytab->keys[i].principal);
        shown++;
    }
}

static void check_service(struct report *report, const struct subject *s, const char *service)
{
    bool any = false;
    bool strong = false;

    for (size_t i = 0; i < s->keytab->count; i++) {
        if (is_service(&s->keytab->keys[i], service)) {
            any = true;
            strong = strong || !keytab_enctype_weak(s->keytab->keys[i].enctype);
        }
    }
    if (!any) {
        char principals[2048];

        list_principals(s->keytab, principals, sizeof principals);
        report_line(report, REPORT_FINDING, "site %s: no key for %s in %s, which has %s",
                    s->site->id, service, s->site->keytab, principals);
    } else if (!strong) {
        bool refused = s->site->enctypes == CONFIG_ENCTYPES_STRONG;

        report_line(report, refused ? REPORT_FINDING : REPORT_WARNING,
                    "site %s: %s has keys of weak enctypes only%s", s->site->id, service,
                    refused ? ", and `enctypes: strong` refuses them" : "");
    } else {
        report_line(report, REPORT_OK, "site %s: a key for %s", s->site->id, service);
    }
}

static bool has_strong_key(const struct keytab *keytab)
{
    for (size_t i = 0; i < keytab->count; i++) {
        if (!keytab_enctype_weak(keytab->keys[i].enctype)) {
            return true;
        }
    }
    return false;
}

/* Whether some key is for a host under "*" or "*.suffix". */
static bool has_key_under(const struct keytab *keytab, const char *pattern)
{
    const char *suffix = pattern + 1;
    size_t suffix_len = strlen(suffix);

    for (size_t i = 0; i < keytab->count; i++) {
        const char *principal = keytab->keys[i].principal;
        size_t len = strcspn(principal, "@");

        if (strncmp(principal, "HTTP/", 5) == 0 && len > 5 + suffix_len &&
            strncmp(principal + len - suffix_len, suffix, suffix_len) == 0) {
            return true;
        }
    }
    return false;
}

/* Without `services`, the hosts say which keys there must be. */
static void check_hosts(struct report *report, const struct subject *s)
{
    for (size_t i = 0; i < s->site->hosts.count; i++) {
        const char *host = s->site->hosts.items[i];
        char service[SERVICE_BYTES];

        if (host[0] != '*') {
            (void)snprintf(service, sizeof service, "HTTP/%s", host);
            check_service(report, s, service);
        } else if (!has_key_under(s->keytab, host)) {
            report_line(report, REPORT_WARNING, "site %s: no key for any host under %s in %s",
                        s->site->id, host, s->site->keytab);
        }
    }
}

static const char *realm_of(const char *principal)
{
    const char *at = strrchr(principal, '@');

    return at != NULL ? at + 1 : principal;
}

/* A realm's case counts: one that differs from a keytab's in nothing else is hardly another realm.
 */
static void check_realm(struct report *report, const struct subject *s, const char *where,
                        const char *realm)
{
    const char *like = NULL;

    for (size_t i = 0; i < s->keytab->count; i++) {
        const char *own = realm_of(s->keytab->keys[i].principal);

        if (strcmp(own, realm) == 0) {
            return;
        }
        like = strcasecmp(own, realm) == 0 ? own : like;
    }
    if (like != NULL) {
        report_line(report, REPORT_WARNING,
                    "site %s: %s: realm %s is not realm %s of %s: upper and lower case count, "
                    "and one of the two is wrong",
                    s->site->id, where, realm, like, s->site->keytab);
    }
}

static void check_realms(struct report *report, const struct subject *s)
{
    for (size_t i = 0; i < s->site->rules.count; i++) {
        const struct config_rule *rule = &s->site->rules.items[i];

        for (size_t j = 0; j < rule->realms.count; j++) {
            check_realm(report, s, rule->where, rule->realms.items[j]);
        }
        for (size_t j = 0; j < rule->principals.count; j++) {
            check_realm(report, s, rule->where, realm_of(rule->principals.items[j]));
        }
    }
    for (size_t i = 0; i < s->site->realms.count; i++) {
        check_realm(report, s, "user.realms", s->site->realms.items[i].realm);
    }
}

static void check_services(struct report *report, const struct subject *s)
{
    const struct config_strings *services = &s->site->services;

    if (s->site->services_any) {
        report_line(report, REPORT_WARNING,
                    "site %s: `services: any`: whoever runs another service of this keytab can "
                    "spend its users' tokens here",
                    s->site->id);
        if (s->site->enctypes == CONFIG_ENCTYPES_STRONG && !has_strong_key(s->keytab)) {
            report_line(report, REPORT_FINDING,
                        "site %s: %s has keys of weak enctypes only, and `enctypes: strong` "
                        "refuses them",
                        s->site->id, s->site->keytab);
        }
        return;
    }
    for (size_t i = 0; i < services->count; i++) {
        check_service(report, s, services->items[i]);
    }
    if (services->count == 0) {
        check_hosts(report, s);
    }
}

/* Whether a site before this one has the same keytab, whose keys were shown there. */
static const struct config_site *find_shown(const struct subject *s)
{
    for (const struct config_site *site = s->config->sites.items; site < s->site; site++) {
        if (strcmp(site->keytab, s->site->keytab) == 0) {
            return site;
        }
    }
    return NULL;
}

static void check_keytab(struct report *report, const struct subject *s)
{
    const struct config_site *shown = find_shown(s);
    struct keytab *keytab = NULL;
    struct fault fault = {"", ""};

    if (shown == NULL) {
        check_file(report, s);
        check_view(report, s, s->site->keytab);
    } else {
        report_line(report, REPORT_OK, "site %s: the keytab of site %s", s->site->id, shown->id);
    }
    if (keytab_load(s->site->keytab, &keytab, &fault) != 0) {
        /* Where we are not the daemon's user, our own lack of permission says nothing. */
        bool hidden = access(s->site->keytab, R_OK) != 0 && errno == EACCES;

        report_line(report, hidden ? REPORT_UNDECIDED : REPORT_FINDING, "site %s: %s: %s",
                    s->site->id, fault.where, fault.what);
        return;
    }
    if (shown == NULL) {
        show_keys(keytab);
    }
    check_services(report, &(struct subject){s->config, s->site, keytab});
    check_realms(report, &(struct subject){s->config, s->site, keytab});
    keytab_free(keytab);
}

static void check_certificates(struct report *report, const struct subject *s)
{
    const struct config_site *site = s->site;

    for (size_t i = 0; i < site->certificates.count; i++) {
        const char *path = site->certificates.items[i];
        struct binding_list bindings;
        struct fault fault = {"", ""};

        check_view(report, s, path);
        if (binding_load(&site->certificates.items[i], 1, &bindings, &fault) == 0) {
            report_line(report, REPORT_OK, "site %s: channel bindings of %s", site->id, path);
            binding_free(&bindings);
        } else {
            bool hidden = access(path, R_OK) != 0 && errno == EACCES;

            report_line(report, hidden ? REPORT_UNDECIDED : REPORT_FINDING, "site %s: %s: %s",
                        site->id, fault.where, fault.what);
        }
    }
}

void check_sites(struct report *report, const struct config *config)
{
    for (size_t i = 0; i < config->sites.count; i++) {
        const struct config_site *site = &config->sites.items[i];

        check_keytab(report, &(struct subject){config, site, NULL});
        check_certificates(report, &(struct subject){config, site, NULL});
        if (site->rules.count == 0) {
            report_line(report, REPORT_WARNING, "site %s: `allow` is empty: it grants nobody",
                        site->id);
        }
    }
}
