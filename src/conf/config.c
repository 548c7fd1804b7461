#include "conf/config.h"

#include "conf/directive.h"
#include "conf/tree.h"
#include "conf/value.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, ERROR_BYTES = 128 };

static void free_strings(struct config_strings *strings)
{
    for (size_t i = 0; i < strings->count; i++) {
        free(strings->items[i]);
    }
    free(strings->items);
}

static void free_site(struct config_site *site)
{
    free(site->id);
    free(site->where);
    free_strings(&site->hosts);
    free(site->keytab);
    free(site->keytab_where);
    free_strings(&site->services);
    free_strings(&site->certificates);
    for (size_t i = 0; i < site->realms.count; i++) {
        free(site->realms.items[i].realm);
    }
    free(site->realms.items);
    for (size_t i = 0; i < site->rules.count; i++) {
        free(site->rules.items[i].where);
        free_strings(&site->rules.items[i].realms);
        free_strings(&site->rules.items[i].principals);
    }
    free(site->rules.items);
}

static void free_listener(struct config_listener *listener)
{
    free(listener->address);
    free(listener->where);
    free(listener->sites.items);
    free(listener->repeat_id);
    free(listener->forwarded.method);
    free(listener->forwarded.uri);
    free(listener->forwarded.peer);
    free(listener->peers.uids);
    free_strings(&listener->allow_remote);
}

void config_free(struct config *config)
{
    if (config == NULL) {
        return;
    }
    for (size_t i = 0; i < config->sites.count; i++) {
        free_site(&config->sites.items[i]);
    }
    for (size_t i = 0; i < config->listeners.count; i++) {
        free_listener(&config->listeners.items[i]);
    }
    free(config->path);
    free(config->user);
    free(config->sites.items);
    free(config->listeners.items);
    free(config->hosts.items);
    free(config->runtime_dir);
    free(config->state_dir);
    free(config->audit.file);
    free_strings(&config->audit.request_ids);
    free(config);
}

static struct config *make_defaults(const char *path)
{
    struct config *config = calloc(1, sizeof *config);

    if (config == NULL) {
        return NULL;
    }
    config->path = strdup(path);
    config->runtime_dir = strdup("/run/spnegate");
    config->state_dir = strdup("/var/lib/spnegate");
    config->audit.file = strdup("/var/log/spnegate/audit.jsonl");
    config->audit.mode = 0640;
    config->audit.sync = CONFIG_SYNC_WRITE;
    config->sandbox = CONFIG_SANDBOX_REQUIRED;
    config->log_level = CONFIG_LOG_INFO;
    config->audit.seal_every_ms = 60000;
    config->workers = 0;
    config->threads = 8;
    config->limits.request_bytes = (size_t)128 * 1024;
    config->limits.header_bytes = (size_t)96 * 1024;
    config->limits.deadline_ms = 5000;
    config->limits.connections = 1024;
    config->limits.waiting = 1024;
    config->audit.failures.rate = 50;
    config->audit.failures.burst = 500;
    config->audit.min_free_bytes = (size_t)64 << 20;
    config->replay_entries = 1048576;
    if (config->path == NULL || config->runtime_dir == NULL || config->state_dir == NULL ||
        config->audit.file == NULL) {
        config_free(config);
        return NULL;
    }
    return config;
}

static int fault_errno(struct fault *fault, const char *path, const char *what)
{
    char text[ERROR_BYTES];

    return fault_set(fault, path, "%s: %s", what, strerror_r(errno, text, sizeof text));
}

/* Whoever can write this file decides who may pass. */
static int check_file(const struct stat *st, const char *path, struct fault *fault)
{
    if (!S_ISREG(st->st_mode)) {
        return fault_set(fault, path, "is not a regular file");
    }
    if (st->st_uid != 0 && st->st_uid != geteuid()) {
        return fault_set(fault, path, "belongs to uid %u; it must belong to root or to uid %u",
                         (unsigned)st->st_uid, (unsigned)geteuid());
    }
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return fault_set(fault, path, "may be written by group or others (mode %04o)",
                         (unsigned)st->st_mode & 07777U);
    }
    if (st->st_size > FILE_BYTES_MAX) {
        return fault_set(fault, path, "is too large: more than %d bytes", FILE_BYTES_MAX);
    }
    return 0;
}

/* Reads to the end of the file, whatever its size was a moment ago. */
static int read_all(int fd, const char *path, struct buf *out, struct fault *fault)
{
    unsigned char chunk[8192];

    for (;;) {
        ssize_t len = read(fd, chunk, sizeof chunk);

        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len < 0) {
            return fault_errno(fault, path, "cannot be read");
        }
        if (len == 0) {
            return 0;
        }
        if (out->len + (size_t)len > FILE_BYTES_MAX) {
            return fault_set(fault, path, "is too large: more than %d bytes", FILE_BYTES_MAX);
        }
        buf_append(out, chunk, (size_t)len);
        if (out->failed) {
            return fault_set(fault, path, "out of memory");
        }
    }
}

static int load_file(const char *path, struct buf *out, struct fault *fault)
{
    struct stat st;
    int fd = -1;
    int r = -1;

    /* Non-blocking, so that a FIFO at the path is refused and not waited for. */
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return fault_errno(fault, path, "cannot be opened");
    }
    if (fstat(fd, &st) != 0) {
        r = fault_errno(fault, path, "cannot be examined");
    } else if (check_file(&st, path, fault) == 0) {
        r = read_all(fd, path, out, fault);
    }
    (void)close(fd);
    return r;
}

static int compare_hosts(const void *left, const void *right)
{
    const struct config_host *a = left;
    const struct config_host *b = right;
    int order = strcmp(a->host, b->host);

    return order != 0 ? order : (a->site > b->site) - (a->site < b->site);
}

static int compare_host_text(const void *host, const void *entry)
{
    return strcmp(host, ((const struct config_host *)entry)->host);
}

static int compare_indices(const void *left, const void *right)
{
    size_t a = *(const size_t *)left;
    size_t b = *(const size_t *)right;

    return (a > b) - (a < b);
}

static int index_hosts(struct reader *r)
{
    struct config *config = r->config;
    size_t count = 0;

    for (size_t i = 0; i < config->sites.count; i++) {
        count += config->sites.items[i].hosts.count;
    }
    assert(count > 0);
    config->hosts.items = calloc(count, sizeof *config->hosts.items);
    if (config->hosts.items == NULL) {
        return fault_set(r->fault, r->path, "out of memory");
    }
    for (size_t i = 0; i < config->sites.count; i++) {
        const struct config_strings *hosts = &config->sites.items[i].hosts;

        for (size_t j = 0; j < hosts->count; j++) {
            config->hosts.items[config->hosts.count++] = (struct config_host){hosts->items[j], i};
        }
    }
    qsort(config->hosts.items, count, sizeof *config->hosts.items, compare_hosts);
    return 0;
}

/* The neighbours in config.hosts with one host, from the first of them on. */
static size_t count_same(const struct config *config, const struct config_host *first)
{
    const struct config_host *end = config->hosts.items + config->hosts.count;
    const struct config_host *next = first + 1;

    while (next < end && strcmp(next->host, first->host) == 0) {
        next++;
    }
    return (size_t)(next - first);
}

static bool serves(const struct config_listener *listener, size_t site)
{
    return bsearch(&site, listener->sites.items, listener->sites.count, sizeof site,
                   compare_indices) != NULL;
}

/* What a listener serves when it does not say so is everything. */
static int complete_sites(struct reader *r, struct config_listener *listener)
{
    struct config_indices *sites = &listener->sites;

    if (sites->count == 0) {
        sites->items = calloc(r->config->sites.count, sizeof *sites->items);
        if (sites->items == NULL) {
            return fault_set(r->fault, r->path, "out of memory");
        }
        for (size_t i = 0; i < r->config->sites.count; i++) {
            sites->items[sites->count++] = i;
        }
    }
    qsort(sites->items, sites->count, sizeof *sites->items, compare_indices);
    return 0;
}

/* The place where a site lists a host, or lists it the second time. */
static const struct tree_node *host_node(const struct tree_node *root, const struct config *config,
                                         const struct config_host *host, bool second)
{
    const struct tree_node *site = tree_find(root, "sites")->first;
    const struct config_strings *hosts = &config->sites.items[host->site].hosts;
    const struct tree_node *node = NULL;

    for (size_t i = 0; i < host->site; i++) {
        site = site->next;
    }
    node = tree_find(site, "hosts");
    if (node->kind == TREE_SCALAR) {
        return node;
    }
    node = node->first;
    for (size_t i = 0; i < hosts->count; i++, node = node->next) {
        if (strcmp(hosts->items[i], host->host) == 0) {
            if (!second) {
                break;
            }
            second = false;
        }
    }
    return node;
}

/* A listener must not have to choose between two places of one host. */
static int check_host(struct reader *r, const struct tree_node *root,
                      const struct config_listener *listener, const struct config_host *same,
                      size_t count)
{
    const struct config_host *first = NULL;

    for (size_t i = 0; i < count; i++) {
        const struct tree_node *at = NULL;
        const struct tree_node *again = NULL;

        if (!serves(listener, same[i].site)) {
            continue;
        }
        if (first == NULL) {
            first = &same[i];
            continue;
        }
        at = host_node(root, r->config, first, false);
        again = host_node(root, r->config, &same[i], first->site == same[i].site);
        return reader_fault(r, again,
                            "hosts: \"%.128s\" a second time for the listener %s (first at %u:%u)",
                            first->host, listener->address, at->line, at->column);
    }
    return 0;
}

static int check_hosts(struct reader *r, const struct tree_node *root)
{
    const struct config *config = r->config;
    size_t count = 0;

    for (size_t i = 0; i < config->hosts.count; i += count) {
        count = count_same(config, &config->hosts.items[i]);
        for (size_t j = 0; j < config->listeners.count && count > 1; j++) {
            if (check_host(r, root, &config->listeners.items[j], &config->hosts.items[i], count) !=
                0) {
                return -1;
            }
        }
    }
    return 0;
}

static bool same_address(const struct config_listener *a, const struct config_listener *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    if (a->kind == CONFIG_LISTEN_TCP) {
        return a->sockaddr_len == b->sockaddr_len &&
               memcmp(&a->sockaddr, &b->sockaddr, a->sockaddr_len) == 0;
    }
    return strcmp(a->address, b->address) == 0;
}

static int check_listeners(struct reader *r, const struct tree_node *root)
{
    const struct tree_node *item = tree_find(root, "listen")->first;
    struct config *config = r->config;

    for (size_t i = 0; i < config->listeners.count; i++, item = item->next) {
        struct config_listener *listener = &config->listeners.items[i];
        size_t dir = strlen(config->runtime_dir);

        for (size_t j = 0; j < i; j++) {
            if (same_address(&config->listeners.items[j], listener)) {
                return reader_fault(r, item, "listen: the address %s a second time (first at %s)",
                                    listener->address, config->listeners.items[j].where);
            }
        }
        if (listener->kind == CONFIG_LISTEN_UNIX &&
            strncmp(listener->address, config->runtime_dir, dir) == 0 &&
            strcmp(listener->address + dir, "/control.sock") == 0) {
            return reader_fault(r, item, "unix: %s is the daemon's own", listener->address);
        }
        if (complete_sites(r, listener) != 0) {
            return -1;
        }
    }
    return 0;
}

static int check_ids(struct reader *r)
{
    const struct config_site *sites = r->config->sites.items;
    size_t count = r->config->sites.count;
    struct config_host *ids = calloc(count, sizeof *ids);
    int result = 0;

    if (ids == NULL) {
        return fault_set(r->fault, r->path, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = (struct config_host){sites[i].id, i};
    }
    qsort(ids, count, sizeof *ids, compare_hosts);
    for (size_t i = 1; i < count && result == 0; i++) {
        if (strcmp(ids[i - 1].host, ids[i].host) == 0) {
            result = fault_set(r->fault, sites[ids[i].site].where,
                               "name: a second site \"%s\" (the first at %s)", ids[i].host,
                               sites[ids[i - 1].site].where);
        }
    }
    free(ids);
    return result;
}

static int check_limits(struct reader *r, const struct tree_node *root)
{
    const struct tree_node *limits = tree_find(root, "limits");
    const struct tree_node *header = limits != NULL ? tree_find(limits, "header") : NULL;

    /* A default that is larger than a small `request` simply never takes effect. */
    if (header != NULL && r->config->limits.header_bytes > r->config->limits.request_bytes) {
        return reader_fault(r, header, "header: may not be larger than a whole request");
    }
    return 0;
}

/* What says which certificates a site shows, and what is done with that, stand together or not at
 * all. */
static int check_bindings(struct reader *r, const struct tree_node *root)
{
    const struct tree_node *item = tree_find(root, "sites")->first;

    for (size_t i = 0; i < r->config->sites.count; i++, item = item->next) {
        const struct config_site *site = &r->config->sites.items[i];
        bool off = site->channel_binding == CONFIG_BINDING_OFF;

        if (off && site->certificates.count > 0) {
            return reader_fault(r, tree_find(item, "certificates"),
                                "certificates: nothing uses them with `channel_binding: off`");
        }
        if (!off && site->certificates.count == 0) {
            return reader_fault(r, tree_find(item, "channel_binding"),
                                "channel_binding: needs `certificates`, the list of PEM files that "
                                "the web server shows for this site");
        }
    }
    return 0;
}

int config_load(const char *path, struct config **out, struct fault *fault)
{
    const char *slash = strrchr(path, '/');
    struct reader r = {.path = path, .base = slash != NULL ? slash + 1 : path, .fault = fault};
    struct buf file = {.max = FILE_BYTES_MAX};
    struct tree *tree = NULL;
    int result = -1;

    if (load_file(path, &file, fault) != 0 ||
        tree_parse(buf_span(&file), path, &tree, fault) != 0) {
        goto out;
    }
    r.config = make_defaults(path);
    if (r.config == NULL) {
        result = fault_set(fault, path, "out of memory");
        goto out;
    }
    if (directive_read(&r, SCOPE_TOP, tree->root, r.config) != 0 || check_ids(&r) != 0 ||
        check_limits(&r, tree->root) != 0 || check_listeners(&r, tree->root) != 0 ||
        check_bindings(&r, tree->root) != 0 || index_hosts(&r) != 0 ||
        check_hosts(&r, tree->root) != 0) {
        goto out;
    }
    *out = r.config;
    r.config = NULL;
    result = 0;
out:
    config_free(r.config);
    tree_free(tree);
    buf_clear(&file);
    return result;
}

char *config_find_path(const char *path, const char *section, const char *key)
{
    struct buf file = {.max = FILE_BYTES_MAX};
    struct tree *tree = NULL;
    struct fault fault;
    char *found = NULL;

    if (load_file(path, &file, &fault) == 0 &&
        tree_parse(buf_span(&file), path, &tree, &fault) == 0) {
        const struct tree_node *map = section != NULL ? tree_find(tree->root, section) : tree->root;
        const struct tree_node *node = map != NULL ? tree_find(map, key) : NULL;
        const bool absolute = node != NULL && node->kind == TREE_SCALAR && node->text[0] == '/';

        found = absolute ? strdup(node->text) : NULL;
    }
    tree_free(tree);
    buf_clear(&file);
    return found;
}

/* Whether `path` is `dir` or lies below it, as they are written. */
static bool is_below(const char *path, const char *dir)
{
    const size_t len = strlen(dir);

    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

int config_audit_dir(const struct config *config, char *dir, size_t size, struct fault *fault)
{
    const char *file = config->audit.file;
    const char *slash = strrchr(file, '/');
    const char *secret = NULL;

    if (slash == NULL || slash == file ||
        span_copy(span_make(file, (size_t)(slash - file)), dir, size) != 0) {
        return fault_set(fault, file, "needs a directory of its own");
    }
    secret = is_below(config->state_dir, dir) ? config->state_dir : secret;
    for (size_t i = 0; i < config->sites.count; i++) {
        const char *keytab = config->sites.items[i].keytab;

        secret = is_below(keytab, dir) ? keytab : secret;
    }
    if (secret != NULL) {
        return fault_set(fault, file, "needs a directory of its own: workers could read %s, too",
                         secret);
    }
    return 0;
}

/* Whether the listener knows `host`; then `*site` is its site, or NULL when there are two. */
static bool find_host(const struct config *config, const struct config_listener *listener,
                      const char *host, const struct config_site **site)
{
    const struct config_host *entry = bsearch(host, config->hosts.items, config->hosts.count,
                                              sizeof *config->hosts.items, compare_host_text);
    const struct config_host *found = NULL;
    size_t count = 0;

    if (entry == NULL) {
        return false;
    }
    while (entry > config->hosts.items && strcmp(entry[-1].host, host) == 0) {
        entry--;
    }
    count = count_same(config, entry);
    for (size_t i = 0; i < count; i++) {
        if (serves(listener, entry[i].site)) {
            *site = found == NULL ? &config->sites.items[entry[i].site] : NULL;
            found = &entry[i];
        }
    }
    return found != NULL;
}

const struct config_site *config_find_site(const struct config *config,
                                           const struct config_listener *listener, const char *host)
{
    char pattern[VALUE_HOST_BYTES];
    size_t len = strlen(host);
    const struct config_site *site = NULL;

    /* A host with a star would find the patterns themselves. */
    if (len == 0 || len >= sizeof pattern || strchr(host, '*') != NULL) {
        return NULL;
    }
    if (find_host(config, listener, host, &site)) {
        return site;
    }
    memcpy(pattern, host, len + 1);
    /* From the left, so that the longest suffix comes first. */
    for (size_t i = 1; i < len; i++) {
        if (pattern[i] != '.') {
            continue;
        }
        pattern[i - 1] = '*';
        if (find_host(config, listener, pattern + i - 1, &site)) {
            return site;
        }
    }
    return find_host(config, listener, "*", &site) ? site : NULL;
}
