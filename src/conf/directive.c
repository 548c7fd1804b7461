#include "conf/directive.h"

#include "conf/read.h"
#include "conf/value.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_CONFIG(field)   offsetof(struct config, field)
#define IN_LISTENER(field) offsetof(struct config_listener, field)
#define IN_SITE(field)     offsetof(struct config_site, field)
#define IN_RULE(field)     offsetof(struct config_rule, field)

#define RESERVED_KEY(in, word)                                                                     \
    {                                                                                              \
        .scope = (in), .key = (word), .presence = RESERVED                                         \
    }

/* Sites stand before listeners, which refer to them. */
static const struct directive table[] = {
    {SCOPE_TOP, "user", OPTIONAL, read_user, 0,
     .help = "the user to become after the start as root"},
    {SCOPE_TOP, "runtime_dir", OPTIONAL, read_text, IN_CONFIG(runtime_dir),
     .help = "the directory of the sockets", .check = value_path},
    {SCOPE_TOP, "state_dir", OPTIONAL, read_text, IN_CONFIG(state_dir),
     .help = "the directory of what outlives a restart", .check = value_path},
    {SCOPE_TOP, "workers", OPTIONAL, read_workers, IN_CONFIG(workers), .help = "processes, or auto",
     .min = 1, .max = 256},
    {SCOPE_TOP, "threads", OPTIONAL, read_number, IN_CONFIG(threads),
     .help = "threads of one worker", .min = 2, .max = 256},
    {SCOPE_TOP, "sandbox", OPTIONAL, read_word, IN_CONFIG(sandbox),
     .help = "whether workers must be confined", .words = {"required", "best-effort", "off"}},
    {SCOPE_TOP, "limits", OPTIONAL, read_map, 0, .help = "ceilings", .inside = SCOPE_LIMITS},
    {SCOPE_TOP, "replay", OPTIONAL, read_map, 0, .help = "the replay table",
     .inside = SCOPE_REPLAY},
    {SCOPE_TOP, "audit", OPTIONAL, read_map, 0, .help = "the audit trail", .inside = SCOPE_AUDIT},
    {SCOPE_TOP, "log", OPTIONAL, read_map, 0, .help = "the daemon's own log", .inside = SCOPE_LOG},
    {SCOPE_TOP, "sites", REQUIRED, read_sites, 0, .help = "the list of sites"},
    {SCOPE_TOP, "listen", REQUIRED, read_listeners, 0, .help = "the list of listeners"},
    RESERVED_KEY(SCOPE_TOP, "admin"),
    RESERVED_KEY(SCOPE_TOP, "bootstrap"),
    RESERVED_KEY(SCOPE_TOP, "krb5_conf"),
    RESERVED_KEY(SCOPE_TOP, "node"),

    {SCOPE_LIMITS, "request", OPTIONAL, read_size, IN_CONFIG(limits.request_bytes),
     .help = "all parameters of a request", .min = 1024, .max = 192UL << 10},
    {SCOPE_LIMITS, "header", OPTIONAL, read_size, IN_CONFIG(limits.header_bytes),
     .help = "the value of Authorization", .min = 256, .max = 192UL << 10},
    {SCOPE_LIMITS, "deadline", OPTIONAL, read_duration, IN_CONFIG(limits.deadline_ms),
     .help = "the time for one request", .min = 100, .max = 60000},
    {SCOPE_LIMITS, "connections", OPTIONAL, read_number, IN_CONFIG(limits.connections),
     .help = "connections of one listener", .min = 1, .max = 65536},
    {SCOPE_LIMITS, "waiting", OPTIONAL, read_number, IN_CONFIG(limits.waiting),
     .help = "complete requests of one listener that wait", .min = 1, .max = 65536},

    {SCOPE_REPLAY, "entries", OPTIONAL, read_number64, IN_CONFIG(replay_entries),
     .help = "logins that are remembered", .min = 8, .max = 1UL << 26},

    {SCOPE_AUDIT, "file", OPTIONAL, read_text, IN_CONFIG(audit.file),
     .help = "the audit trail's file", .check = value_path},
    {SCOPE_AUDIT, "mode", OPTIONAL, read_mode, IN_CONFIG(audit.mode), .help = "the file's mode",
     .min = 0600, .max = 0775},
    {SCOPE_AUDIT, "sync", OPTIONAL, read_word, IN_CONFIG(audit.sync),
     .help = "when a record is safe", .words = {"write", "commit"}},
    {SCOPE_AUDIT, "seal_every", OPTIONAL, read_duration, IN_CONFIG(audit.seal_every_ms),
     .help = "the time between two seals", .min = 1000, .max = 900000},
    {SCOPE_AUDIT, "rotate_size", OPTIONAL, read_size, IN_CONFIG(audit.rotate_size_bytes),
     .help = "the size at which another file is begun", .min = 16384, .max = 1UL << 40},
    {SCOPE_AUDIT, "rotate_age", OPTIONAL, read_duration, IN_CONFIG(audit.rotate_age_ms),
     .help = "the age at which another file is begun", .min = 1000, .max = 3600000UL * 24 * 49},
    {SCOPE_AUDIT, "request_ids", OPTIONAL, read_texts, IN_CONFIG(audit.request_ids),
     .help = "parameters with the web server's id of a request", .check = value_parameter},
    {SCOPE_AUDIT, "failures", OPTIONAL, read_map, 0,
     .help = "how many of strangers' failures are recorded", .inside = SCOPE_FAILURES},
    {SCOPE_AUDIT, "min_free", OPTIONAL, read_size, IN_CONFIG(audit.min_free_bytes),
     .help = "the free space below which strangers' failures are only counted", .max = 1UL << 40},
    RESERVED_KEY(SCOPE_AUDIT, "session_hits"),

    {SCOPE_FAILURES, "rate", OPTIONAL, read_number, IN_CONFIG(audit.failures.rate),
     .help = "records a second", .min = 1, .max = 1000000},
    {SCOPE_FAILURES, "burst", OPTIONAL, read_number, IN_CONFIG(audit.failures.burst),
     .help = "records at once", .min = 1, .max = 1000000},

    {SCOPE_LOG, "level", OPTIONAL, read_word, IN_CONFIG(log_level), .help = "how much is told",
     .words = {"error", "warning", "info", "debug"}},

    {SCOPE_SITE, "name", REQUIRED, read_text, IN_SITE(id),
     .help = "what the site is called in the trail", .check = value_identifier},
    {SCOPE_SITE, "hosts", REQUIRED, read_texts, IN_SITE(hosts), .help = "the list of host names",
     .normalise = value_host_pattern},
    {SCOPE_SITE, "keytab", REQUIRED, read_text, IN_SITE(keytab),
     .help = "the file of the service's keys", .check = value_path},
    {SCOPE_SITE, "services", OPTIONAL, read_services, 0, .help = "the service principals",
     .check = value_service},
    {SCOPE_SITE, "enctypes", OPTIONAL, read_word, IN_SITE(enctypes),
     .help = "which ciphers may be used", .words = {"strong", "any"}},
    {SCOPE_SITE, "channel_binding", OPTIONAL, read_word, IN_SITE(channel_binding),
     .help = "the tie to the TLS certificate", .words = {"off", "allow", "require"}},
    {SCOPE_SITE, "certificates", OPTIONAL, read_texts, IN_SITE(certificates),
     .help = "the list of the site's certificates, PEM files", .check = value_path},
    {SCOPE_SITE, "user", OPTIONAL, read_map, 0, .help = "how users are called",
     .inside = SCOPE_SITE_USER},
    {SCOPE_SITE, "allow", OPTIONAL, read_rules, 0, .help = "the list of who may pass"},
    RESERVED_KEY(SCOPE_SITE, "tls"),
    RESERVED_KEY(SCOPE_SITE, "session"),
    RESERVED_KEY(SCOPE_SITE, "basic"),
    RESERVED_KEY(SCOPE_SITE, "delegation"),
    RESERVED_KEY(SCOPE_SITE, "exempt"),
    RESERVED_KEY(SCOPE_SITE, "optional"),

    {SCOPE_SITE_USER, "realms", REQUIRED, read_realms, 0,
     .help = "realms, each with strip or full"},

    {SCOPE_RULE, "realm", OPTIONAL, read_texts, IN_RULE(realms), .help = "whole realms",
     .check = value_realm},
    {SCOPE_RULE, "principal", OPTIONAL, read_texts, IN_RULE(principals), .help = "whole principals",
     .check = value_principal},
    RESERVED_KEY(SCOPE_RULE, "group"),

    {SCOPE_LISTENER, "unix", OPTIONAL, read_unix, 0, .help = "the path of a socket",
     .check = value_path},
    {SCOPE_LISTENER, "tcp", OPTIONAL, read_tcp, 0, .help = "a numeric address and a port"},
    {SCOPE_LISTENER, "socket", OPTIONAL, read_socket, 0,
     .help = "the name of a socket that the service manager passes", .check = value_identifier},
    {SCOPE_LISTENER, "mode", OPTIONAL, read_mode, IN_LISTENER(mode), .help = "the socket's mode",
     .max = 0777},
    {SCOPE_LISTENER, "group", OPTIONAL, read_group, 0, .help = "the socket's group"},
    {SCOPE_LISTENER, "sites", OPTIONAL, read_listener_sites, 0,
     .help = "the sites that are served"},
    {SCOPE_LISTENER, "forwarded", OPTIONAL, read_map, 0,
     .help = "parameters that name the real request", .inside = SCOPE_FORWARDED},
    {SCOPE_LISTENER, "peers", OPTIONAL, read_peers, 0, .help = "users that may connect"},
    {SCOPE_LISTENER, "allow_remote", OPTIONAL, read_texts, IN_LISTENER(allow_remote),
     .help = "addresses that may connect", .normalise = value_address},
    {SCOPE_LISTENER, "repeat_id", OPTIONAL, read_text, IN_LISTENER(repeat_id),
     .help = "the parameter that is equal within one client request",
     .check = value_server_parameter},
    RESERVED_KEY(SCOPE_LISTENER, "admin"),
    RESERVED_KEY(SCOPE_LISTENER, "bootstrap"),

    {SCOPE_FORWARDED, "method", OPTIONAL, read_text, IN_LISTENER(forwarded.method),
     .help = "the parameter with the method", .check = value_parameter},
    {SCOPE_FORWARDED, "uri", OPTIONAL, read_text, IN_LISTENER(forwarded.uri),
     .help = "the parameter with the URI", .check = value_parameter},
    {SCOPE_FORWARDED, "peer", OPTIONAL, read_text, IN_LISTENER(forwarded.peer),
     .help = "the parameter with the client's address", .check = value_parameter},
};

enum { TABLE_COUNT = sizeof table / sizeof table[0], SUGGEST_MAX = 32, NEAR = 2 };

const struct directive *directive_row(size_t at)
{
    return at < TABLE_COUNT ? &table[at] : NULL;
}

static const char *scope_text(enum scope scope)
{
    switch (scope) {
    case SCOPE_TOP:
        return "the top level";
    case SCOPE_LISTENER:
        return "an item of \"listen\"";
    case SCOPE_FORWARDED:
        return "\"forwarded\"";
    case SCOPE_LIMITS:
        return "\"limits\"";
    case SCOPE_REPLAY:
        return "\"replay\"";
    case SCOPE_AUDIT:
        return "\"audit\"";
    case SCOPE_FAILURES:
        return "\"failures\"";
    case SCOPE_LOG:
        return "\"log\"";
    case SCOPE_SITE:
        return "an item of \"sites\"";
    case SCOPE_SITE_USER:
        return "a site's \"user\"";
    case SCOPE_RULE:
        return "an item of \"allow\"";
    }
    return "";
}

int reader_fault(const struct reader *r, const struct tree_node *node, const char *format, ...)
{
    char where[sizeof r->fault->where];
    char what[sizeof r->fault->what];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    (void)snprintf(where, sizeof where, "%s:%u:%u", r->path, node->line, node->column);
    return fault_set(r->fault, where, "%s", what);
}

char *reader_where(const struct reader *r, const struct tree_node *node)
{
    size_t size = strlen(r->path) + 32;
    char *where = malloc(size);

    if (where == NULL) {
        (void)fault_set(r->fault, r->path, "out of memory");
        return NULL;
    }
    (void)snprintf(where, size, "%s:%u:%u", r->path, node->line, node->column);
    return where;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swapped neighbours between two short words. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t cost[SUGGEST_MAX + 1][SUGGEST_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > SUGGEST_MAX || b_len > SUGGEST_MAX) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        cost[0][j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        cost[i][0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            cost[i][j] = least(cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
                               least(cost[i - 1][j], cost[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                cost[i][j] = least(cost[i][j], cost[i - 2][j - 2] + 1);
            }
        }
    }
    return cost[a_len][b_len];
}

bool directive_is_near(const char *text, const char *word)
{
    size_t distance = edit_distance(text, word);

    return distance <= NEAR && distance < strlen(word);
}

static int fault_unknown(const struct reader *r, enum scope scope, const struct tree_node *key)
{
    const struct directive *nearest = NULL;
    const struct directive *elsewhere = NULL;
    size_t nearest_distance = NEAR + 1;

    for (size_t i = 0; i < TABLE_COUNT; i++) {
        const struct directive *d = &table[i];
        size_t distance = 0;

        if (d->presence == RESERVED) {
            continue;
        }
        if (d->scope != scope) {
            elsewhere = strcmp(d->key, key->text) == 0 ? d : elsewhere;
            continue;
        }
        distance = edit_distance(key->text, d->key);
        if (distance < nearest_distance && directive_is_near(key->text, d->key)) {
            nearest = d;
            nearest_distance = distance;
        }
    }
    if (elsewhere != NULL && nearest_distance > 1) {
        return reader_fault(r, key, "unknown key \"%s\" in %s (it belongs into %s)", key->text,
                            scope_text(scope), scope_text(elsewhere->scope));
    }
    if (nearest != NULL) {
        return reader_fault(r, key, "unknown key \"%s\" (did you mean \"%s\"?)", key->text,
                            nearest->key);
    }
    return reader_fault(r, key, "unknown key \"%.64s\" in %s", key->text, scope_text(scope));
}

static int check_key(const struct reader *r, enum scope scope, const struct tree_node *key)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (table[i].scope != scope || strcmp(table[i].key, key->text) != 0) {
            continue;
        }
        if (table[i].presence == RESERVED) {
            return reader_fault(r, key, "the key \"%s\" is reserved for a later version",
                                key->text);
        }
        return 0;
    }
    return fault_unknown(r, scope, key);
}

int directive_read(struct reader *r, enum scope scope, const struct tree_node *map, void *object)
{
    if (map->kind != TREE_MAP) {
        return reader_fault(r, map, "%s must be keys with values, not %s", scope_text(scope),
                            map->kind == TREE_LIST ? "a list" : "a single value");
    }
    for (const struct tree_node *value = map->first; value != NULL; value = value->next) {
        if (check_key(r, scope, value->key) != 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        const struct directive *d = &table[i];
        const struct tree_node *value = NULL;

        if (d->scope != scope || d->presence == RESERVED) {
            continue;
        }
        value = tree_find(map, d->key);
        if (value == NULL && d->presence == REQUIRED) {
            return reader_fault(r, map, "missing key \"%s\" in %s: %s", d->key, scope_text(scope),
                                d->help);
        }
        if (value != NULL && d->read(r, d, value, (char *)object + d->offset) != 0) {
            return -1;
        }
    }
    return 0;
}
