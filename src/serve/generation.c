#include "serve/generation.h"

#include "base/log.h"
#include "serve/listener.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

/* The descriptor of an equal listener in the generation before; -1: none, -2: same address, other
 * settings. */
static int find_open(const struct generation *before, const struct config_listener *listener)
{
    for (size_t i = 0; before != NULL && i < before->listener_count; i++) {
        const struct front_listener *old = &before->listeners[i];
        if (listener_equal(old->config, listener)) {
            return old->fd;
        }
        if (old->config->kind == listener->kind &&
            strcmp(old->config->address, listener->address) == 0) {
            return -2;
        }
    }
    return -1;
}

static int open_listener(struct generation *g, const struct generation *before,
                         const struct config_listener *listener, struct fault *fault)
{
    const size_t at = g->listener_count;
    /* An inherited one is looked at anew: other rules may have come with the configuration. */
    int fd = listener->kind == CONFIG_LISTEN_FD ? -1 : find_open(before, listener);
    if (fd == -2) {
        (void)fault_set(fault, listener->where, "%s has another mode or group now: restart needed",
                        listener->address);
        return EX_TEMPFAIL;
    }
    if (fd < 0) {
        const int status = listener_open(listener, &fd, fault);
        if (status != 0) {
            return status;
        }
    }
    g->listeners[at] = (struct front_listener){.fd = fd, .config = listener};
    g->listener_count++;
    return 0;
}

/* A listening socket on descriptor 0 serves every site. */
static int add_inherited(struct generation *g)
{
    static char address[] = "descriptor 0";
    static char where[] = "";
    const size_t sites = g->config->sites.count;
    g->inherited =
        (struct config_listener){.kind = CONFIG_LISTEN_FD, .address = address, .where = where};
    g->inherited.sites.items = calloc(sites, sizeof *g->inherited.sites.items);
    if (g->inherited.sites.items == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sites; i++) {
        g->inherited.sites.items[g->inherited.sites.count++] = i;
    }
    g->listeners[g->listener_count++] =
        (struct front_listener){.fd = STDIN_FILENO, .config = &g->inherited};
    return 0;
}

/* Asked here: workers cannot, once they are shut in. */
static int limit_descriptors(void)
{
    struct rlimit files;
    return getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < INT_MAX ? (int)files.rlim_cur
                                                                             : INT_MAX;
}

int generation_open(const char *path, const struct generation *before, struct generation **out,
                    struct fault *fault)
{
    static unsigned number;
    int status = EX_OSERR;
    struct generation *g = calloc(1, sizeof *g);
    if (g == NULL) {
        (void)fault_set(fault, path, "no memory");
        return status;
    }
    g->number = ++number;
    g->descriptors = limit_descriptors();
    if (config_load(path, &g->config, fault) != 0) {
        status = access(path, F_OK) != 0 && errno == ENOENT ? EX_NOINPUT : EX_CONFIG;
        goto out;
    }
    const size_t count = g->config->listeners.count;
    g->listener_count = 0;
    g->listeners = calloc(count + 1, sizeof *g->listeners);
    g->keytabs = calloc(g->config->sites.count, sizeof(struct keytab *));
    g->bindings = calloc(g->config->sites.count, sizeof *g->bindings);
    g->loaded = calloc(g->config->sites.count, sizeof *g->loaded);
    g->site_slots = calloc(g->config->sites.count, sizeof *g->site_slots);
    if (g->listeners == NULL || g->keytabs == NULL || g->bindings == NULL || g->loaded == NULL ||
        g->site_slots == NULL) {
        (void)fault_set(fault, path, "no memory");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        status = open_listener(g, before, &g->config->listeners.items[i], fault);
        if (status != 0) {
            goto out;
        }
    }
    status = listener_check_passed(g->config, fault);
    if (status != 0) {
        goto out;
    }
    if (listener_inherited() && add_inherited(g) != 0) {
        (void)fault_set(fault, path, "no memory");
        status = EX_OSERR;
        goto out;
    }
    *out = g;
    return 0;
out:
    generation_close(g, before, true);
    return status;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x9e3779b97f4a7c15u + (hash >> 29);
}

static uint64_t mix_stat(uint64_t hash, const struct stat *st)
{
    hash = mix(hash, st->st_ino);
    hash = mix(hash, (uint64_t)st->st_size);
    hash = mix(hash, (uint64_t)st->st_mtim.tv_sec);
    hash = mix(hash, (uint64_t)st->st_mtim.tv_nsec);
    hash = mix(hash, (uint64_t)st->st_ctim.tv_sec);
    return mix(hash, (uint64_t)st->st_ctim.tv_nsec);
}

static uint64_t mix_file(uint64_t hash, const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? mix_stat(hash, &st) : mix(hash, (uint64_t)errno);
}

static void note_key(struct generation_keytab *loaded, const struct keytab_key *key)
{
    size_t i = loaded->count; /* from behind: the keys of one principal mostly stand together */
    while (i > 0 && strcmp(loaded->newest[i - 1].principal, key->principal) != 0) {
        i--;
    }
    if (i > 0) {
        i--;
        loaded->newest[i].kvno =
            key->kvno > loaded->newest[i].kvno ? key->kvno : loaded->newest[i].kvno;
    } else if (loaded->count < GENERATION_PRINCIPALS_MAX) {
        loaded->newest[loaded->count].principal = key->principal;
        loaded->newest[loaded->count++].kvno = key->kvno;
    } else {
        loaded->cut = true;
    }
}

static int load_keytab(struct generation *g, size_t at, struct fault *fault)
{
    const char *path = g->config->sites.items[at].keytab;
    g->loaded[at].mark = mix_file(1, path);
    if (keytab_load(path, &g->keytabs[at], fault) != 0) {
        return -1;
    }
    for (size_t i = 0; i < g->keytabs[at]->count; i++) {
        note_key(&g->loaded[at], &g->keytabs[at]->keys[i]);
    }
    return 0;
}

int generation_load_files(struct generation *g, bool every, struct fault *fault)
{
    const size_t count = g->config->sites.count;
    size_t loaded = 0;
    g->files = generation_files(g);
    for (size_t i = 0; i < count; i++) {
        const struct config_site *site = &g->config->sites.items[i];
        if (site->channel_binding != CONFIG_BINDING_OFF &&
            binding_load(site->certificates.items, site->certificates.count, &g->bindings[i],
                         fault) != 0) {
            return -1;
        }
        if (load_keytab(g, i, fault) == 0) {
            loaded++;
        } else if (every) {
            return -1;
        } else {
            log_line(LOG_LEVEL_ERROR, "site %s has no keytab: %s: %s", site->id, fault->where,
                     fault->what);
        }
    }
    if (loaded == 0) {
        return fault_set(fault, g->config->path, "no keytab of any site can be loaded");
    }
    if (loaded < count) {
        log_line(LOG_LEVEL_WARNING,
                 "%zu of %zu sites have no keytab and answer keytab_unavailable; the others are "
                 "served",
                 count - loaded, count);
    }
    return 0;
}

void generation_claim(struct generation *g, struct metrics *metrics)
{
    for (size_t i = 0; i < g->config->sites.count; i++) {
        g->site_slots[i] = metrics_claim_site(metrics, g->config->sites.items[i].id);
    }
    for (size_t i = 0; i < g->listener_count; i++) {
        g->listeners[i].slot = metrics_claim_listener(metrics, g->listeners[i].config->address);
    }
}

bool generation_look(const struct generation *g, size_t site, uint64_t *mtime_s, bool *changed)
{
    struct stat st;
    const char *path = g->config->sites.items[site].keytab;
    const bool found = stat(path, &st) == 0;
    *changed = !found || mix_stat(1, &st) != g->loaded[site].mark;
    if (found) {
        *mtime_s = st.st_mtim.tv_sec > 0 ? (uint64_t)st.st_mtim.tv_sec : 0;
    }
    return found;
}

const char *generation_changed_keytab(const struct generation *g)
{
    for (size_t i = 0; i < g->config->sites.count; i++) {
        uint64_t mtime_s;
        bool changed;
        (void)generation_look(g, i, &mtime_s, &changed);
        if (changed) {
            return g->config->sites.items[i].keytab;
        }
    }
    return NULL;
}

void generation_limit_log(const struct generation *g)
{
    static const enum log_level levels[] = {[CONFIG_LOG_ERROR] = LOG_LEVEL_ERROR,
                                            [CONFIG_LOG_WARNING] = LOG_LEVEL_WARNING,
                                            [CONFIG_LOG_INFO] = LOG_LEVEL_INFO,
                                            [CONFIG_LOG_DEBUG] = LOG_LEVEL_DEBUG};
    log_limit(levels[g->config->log_level]);
}

uint64_t generation_files(const struct generation *g)
{
    uint64_t hash = 1;
    for (size_t i = 0; i < g->config->sites.count; i++) {
        const struct config_site *site = &g->config->sites.items[i];
        hash = mix_file(hash, site->keytab);
        for (size_t j = 0; j < site->certificates.count; j++) {
            hash = mix_file(hash, site->certificates.items[j]);
        }
    }
    /* As libkrb5 reads it: a list of paths with colons. */
    const char *list = getenv("KRB5_CONFIG");
    list = list != NULL ? list : "/etc/krb5.conf";
    while (*list != '\0') {
        char path[512];
        const size_t len = strcspn(list, ":");
        if (span_copy(span_make(list, len), path, sizeof path) == 0) {
            hash = mix_file(hash, path);
        }
        list += len + (list[len] == ':' ? 1 : 0);
    }
    return hash;
}

/* Whether `keeper` serves with this very descriptor. */
static bool is_kept(const struct generation *keeper, int fd)
{
    for (size_t i = 0; keeper != NULL && i < keeper->listener_count; i++) {
        if (keeper->listeners[i].fd == fd) {
            return true;
        }
    }
    return false;
}

void generation_close_listeners(struct generation *g, const struct generation *keeper)
{
    if (g == NULL || g == keeper) {
        return;
    }
    for (size_t i = 0; i < g->listener_count; i++) {
        if (g->listeners[i].config->kind != CONFIG_LISTEN_FD &&
            !is_kept(keeper, g->listeners[i].fd)) {
            (void)close(g->listeners[i].fd);
        }
    }
    g->listener_count = 0;
}

void generation_close(struct generation *g, const struct generation *keeper, bool unlink_paths)
{
    if (g == NULL) {
        return;
    }
    for (size_t i = 0; i < g->listener_count; i++) {
        const struct front_listener *listener = &g->listeners[i];
        if (listener->config->kind == CONFIG_LISTEN_FD || is_kept(keeper, listener->fd)) {
            continue;
        }
        if (unlink_paths) {
            listener_unlink(listener->config);
        }
        (void)close(listener->fd);
    }
    for (size_t i = 0; g->keytabs != NULL && i < g->config->sites.count; i++) {
        keytab_free(g->keytabs[i]);
    }
    for (size_t i = 0; g->bindings != NULL && i < g->config->sites.count; i++) {
        binding_free(&g->bindings[i]);
    }
    free(g->keytabs);
    free(g->bindings);
    free(g->loaded);
    free(g->site_slots);
    free(g->listeners);
    free(g->inherited.sites.items);
    config_free(g->config);
    free(g);
}
