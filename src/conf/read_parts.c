/* Sites and listeners: the readers of read.h that make whole parts of the configuration. */
#include "conf/read.h"

#include "conf/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTENERS_MAX = 64 };

static int out_of_memory(struct reader *r)
{
    return fault_set(r->fault, r->path, "out of memory");
}

static int check_items(struct reader *r, const struct directive *d, const struct tree_node *node)
{
    if (node->kind != TREE_LIST) {
        return reader_fault(r, node, "%s: a list is expected here, not %s", d->key,
                            node->kind == TREE_MAP  ? "keys"
                            : node->text[0] != '\0' ? "a single value"
                                                    : "nothing");
    }
    if (node->count == 0) {
        return reader_fault(r, node, "%s: the list is empty", d->key);
    }
    return 0;
}

READER(read_services)
{
    struct config_site *site = field;

    if (node->kind == TREE_SCALAR && strcmp(node->text, "any") == 0) {
        site->services_any = true;
        return 0;
    }
    if (node->kind != TREE_LIST) {
        return reader_fault(r, node, "%s: a list is expected here, or the word `any`", d->key);
    }
    return read_texts(r, d, node, &site->services);
}

static int read_realm(struct reader *r, const struct directive *d, const struct tree_node *value,
                      struct config_realm *out)
{
    const char *complaint = value_realm(value->key->text);

    if (complaint != NULL) {
        return reader_fault(r, value->key, "%s: \"%.128s\" %s", d->key, value->key->text,
                            complaint);
    }
    if (value->kind != TREE_SCALAR ||
        (strcmp(value->text, "strip") != 0 && strcmp(value->text, "full") != 0)) {
        return reader_fault(r, value, "%s: a realm is followed by `strip` or `full`", d->key);
    }
    out->user = strcmp(value->text, "strip") == 0 ? CONFIG_USER_STRIP : CONFIG_USER_FULL;
    out->realm = strdup(value->key->text);
    return out->realm != NULL ? 0 : out_of_memory(r);
}

READER(read_realms)
{
    struct config_site *site = field;
    const struct tree_node *stripped = NULL;

    if (node->kind != TREE_MAP || node->count == 0) {
        return reader_fault(r, node, "%s: realms are expected here, each with strip or full",
                            d->key);
    }
    site->realms.items = calloc(node->count, sizeof *site->realms.items);
    if (site->realms.items == NULL) {
        return out_of_memory(r);
    }
    for (const struct tree_node *value = node->first; value != NULL; value = value->next) {
        struct config_realm *realm = &site->realms.items[site->realms.count];

        if (read_realm(r, d, value, realm) != 0) {
            return -1;
        }
        site->realms.count++;
        if (realm->user != CONFIG_USER_STRIP) {
            continue;
        }
        /* alice@ONE and alice@TWO would become the same user. */
        if (stripped != NULL) {
            return reader_fault(r, value, "%s: only one realm may be stripped (the other: line %u)",
                                d->key, stripped->line);
        }
        stripped = value;
    }
    return 0;
}

static int read_rule(struct reader *r, const struct tree_node *item, struct config_rule *rule)
{
    size_t size = strlen(r->base) + 16;

    if (item->kind == TREE_MAP && item->count == 0) {
        return reader_fault(r, item, "allow: a rule without keys (it would let everybody pass)");
    }
    rule->where = malloc(size);
    if (rule->where == NULL) {
        return out_of_memory(r);
    }
    (void)snprintf(rule->where, size, "%s:%u", r->base, item->line);
    return directive_read(r, SCOPE_RULE, item, rule);
}

READER(read_rules)
{
    struct config_site *site = field;

    /* `allow:` without anything, and `[]`, grant nobody; so does a site without the key. */
    if ((node->kind == TREE_SCALAR && node->plain && node->text[0] == '\0') ||
        (node->kind == TREE_LIST && node->count == 0)) {
        return 0;
    }
    if (check_items(r, d, node) != 0) {
        return -1;
    }
    site->rules.items = calloc(node->count, sizeof *site->rules.items);
    if (site->rules.items == NULL) {
        return out_of_memory(r);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        if (read_rule(r, item, &site->rules.items[site->rules.count++]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int read_site(struct reader *r, const struct tree_node *item, struct config_site *site)
{
    const struct tree_node *keytab = tree_find(item, "keytab");

    site->where = reader_where(r, item);
    if (site->where == NULL) {
        return -1;
    }
    if (keytab != NULL) {
        site->keytab_where = reader_where(r, keytab);
        if (site->keytab_where == NULL) {
            return -1;
        }
    }
    return directive_read(r, SCOPE_SITE, item, site);
}

READER(read_sites)
{
    struct config *config = field;

    if (check_items(r, d, node) != 0) {
        return -1;
    }
    config->sites.items = calloc(node->count, sizeof *config->sites.items);
    if (config->sites.items == NULL) {
        return out_of_memory(r);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        if (read_site(r, item, &config->sites.items[config->sites.count++]) != 0) {
            return -1;
        }
    }
    return 0;
}

READER(read_unix)
{
    struct config_listener *listener = field;

    if (read_text(r, d, node, &listener->address) != 0) {
        return -1;
    }
    if (strlen(listener->address) > VALUE_SOCKET_PATH_MAX) {
        return reader_fault(r, node, "%s: the path has more than %d bytes, which no socket can",
                            d->key, VALUE_SOCKET_PATH_MAX);
    }
    listener->kind = CONFIG_LISTEN_UNIX;
    return 0;
}

READER(read_tcp)
{
    struct config_listener *listener = field;
    const char *complaint = NULL;

    if (node->kind != TREE_SCALAR) {
        return reader_fault(r, node, "%s: a single value is expected here", d->key);
    }
    complaint = value_endpoint(node->text, &listener->sockaddr, &listener->sockaddr_len);
    if (complaint != NULL) {
        return reader_fault(r, node, "%s: \"%.128s\" %s", d->key, node->text, complaint);
    }
    /* read_unix may have been here: the caller refuses both in one item. */
    free(listener->address);
    listener->address = strdup(node->text);
    listener->kind = CONFIG_LISTEN_TCP;
    return listener->address != NULL ? 0 : out_of_memory(r);
}

READER(read_socket)
{
    struct config_listener *listener = field;

    if (read_text(r, d, node, &listener->address) != 0) {
        return -1;
    }
    listener->kind = CONFIG_LISTEN_FD;
    return 0;
}

static int find_site(const struct config *config, const char *id, size_t *out)
{
    for (size_t i = 0; i < config->sites.count; i++) {
        if (strcmp(config->sites.items[i].id, id) == 0) {
            *out = i;
            return 0;
        }
    }
    return -1;
}

static int add_site(struct reader *r, const struct directive *d, const struct tree_node *item,
                    struct config_indices *sites)
{
    size_t site = 0;

    if (item->kind != TREE_SCALAR) {
        return reader_fault(r, item, "%s: the name of a site is expected here", d->key);
    }
    if (find_site(r->config, item->text, &site) != 0) {
        return reader_fault(r, item, "%s: there is no site \"%.64s\"", d->key, item->text);
    }
    for (size_t i = 0; i < sites->count; i++) {
        if (sites->items[i] == site) {
            return reader_fault(r, item, "%s: the site \"%.64s\" a second time", d->key,
                                item->text);
        }
    }
    sites->items[sites->count++] = site;
    return 0;
}

READER(read_listener_sites)
{
    struct config_listener *listener = field;
    struct config_indices *sites = &listener->sites;

    if (node->kind == TREE_LIST && check_items(r, d, node) != 0) {
        return -1;
    }
    sites->items = calloc(node->kind == TREE_LIST ? node->count : 1, sizeof *sites->items);
    if (sites->items == NULL) {
        return out_of_memory(r);
    }
    if (node->kind != TREE_LIST) {
        return add_site(r, d, node, sites);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        if (add_site(r, d, item, sites) != 0) {
            return -1;
        }
    }
    return 0;
}

/*
 * Keys that mean nothing, or too much, for the kind of listener. What an inherited socket is, is
 * found out when it is opened.
 */
static int check_listener_keys(struct reader *r, const struct tree_node *item,
                               enum config_listen kind)
{
    static const struct {
        const char *key;
        bool meant[CONFIG_LISTEN_FD + 1];
        const char *whose;
    } rows[] = {
        {"mode", {[CONFIG_LISTEN_UNIX] = true}, "unix"},
        {"group", {[CONFIG_LISTEN_UNIX] = true}, "unix"},
        {"peers", {[CONFIG_LISTEN_UNIX] = true, [CONFIG_LISTEN_FD] = true}, "unix"},
        {"allow_remote", {[CONFIG_LISTEN_TCP] = true, [CONFIG_LISTEN_FD] = true}, "tcp"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct tree_node *value = tree_find(item, rows[i].key);

        if (value != NULL && !rows[i].meant[kind]) {
            return reader_fault(r, value->key, "the key \"%s\" is for %s listeners only",
                                rows[i].key, rows[i].whose);
        }
    }
    return 0;
}

static int check_listener(struct reader *r, const struct tree_node *item,
                          const struct config_listener *listener)
{
    const struct tree_node *tcp = tree_find(item, "tcp");
    int kinds = (tcp != NULL ? 1 : 0) + (tree_find(item, "unix") != NULL ? 1 : 0) +
                (tree_find(item, "socket") != NULL ? 1 : 0);

    if (kinds != 1) {
        return reader_fault(
            r, item, "a listener has exactly one of the keys \"unix\", \"tcp\" and \"socket\"");
    }
    if (check_listener_keys(r, item, listener->kind) != 0) {
        return -1;
    }
    if (tcp != NULL && listener->allow_remote.count == 0 &&
        !value_endpoint_is_loopback(&listener->sockaddr)) {
        return reader_fault(r, tcp,
                            "tcp: \"%.64s\" is not a loopback address; "
                            "list who may connect in `allow_remote`",
                            tcp->text);
    }
    return 0;
}

static int read_listener(struct reader *r, const struct tree_node *item,
                         struct config_listener *listener)
{
    listener->mode = 0660;
    listener->where = reader_where(r, item);
    if (listener->where == NULL || directive_read(r, SCOPE_LISTENER, item, listener) != 0) {
        return -1;
    }
    return check_listener(r, item, listener);
}

READER(read_listeners)
{
    struct config *config = field;

    if (check_items(r, d, node) != 0) {
        return -1;
    }
    if (node->count > LISTENERS_MAX) {
        return reader_fault(r, node, "%s: more than %d listeners", d->key, LISTENERS_MAX);
    }
    config->listeners.items = calloc(node->count, sizeof *config->listeners.items);
    if (config->listeners.items == NULL) {
        return out_of_memory(r);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        if (read_listener(r, item, &config->listeners.items[config->listeners.count++]) != 0) {
            return -1;
        }
    }
    return 0;
}
