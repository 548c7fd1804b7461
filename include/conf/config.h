/*
 * The configuration: one YAML file, read whole, checked whole, and never changed after that.
 * Everything here is data; who may read a keytab or bind an address is found out by those who do
 * it.
 */
#ifndef CONF_CONFIG_H
#define CONF_CONFIG_H

#include "base/bytes.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define CONFIG_PATH_DEFAULT "/etc/spnegate/spnegate.yaml"

enum config_sync { CONFIG_SYNC_WRITE, CONFIG_SYNC_COMMIT };
enum config_realm_user { CONFIG_USER_FULL, CONFIG_USER_STRIP };
enum config_binding { CONFIG_BINDING_OFF, CONFIG_BINDING_ALLOW, CONFIG_BINDING_REQUIRE };
enum config_enctypes { CONFIG_ENCTYPES_STRONG, CONFIG_ENCTYPES_ANY };
enum config_log { CONFIG_LOG_ERROR, CONFIG_LOG_WARNING, CONFIG_LOG_INFO, CONFIG_LOG_DEBUG };
enum config_sandbox { CONFIG_SANDBOX_REQUIRED, CONFIG_SANDBOX_BEST_EFFORT, CONFIG_SANDBOX_OFF };
enum config_listen { CONFIG_LISTEN_UNIX, CONFIG_LISTEN_TCP, CONFIG_LISTEN_FD };

/* A list of owned strings. */
struct config_strings {
    char **items;
    size_t count;
};

/* A list of indices into config.sites. */
struct config_indices {
    size_t *items;
    size_t count;
};

struct config_listener {
    enum config_listen kind;
    char *address; /* as written: a path, HOST:PORT, or the name of an inherited descriptor */
    char *where;   /* file:line:column */
    struct sockaddr_storage sockaddr; /* TCP: parsed; numeric addresses only, no DNS */
    socklen_t sockaddr_len;
    mode_t mode;    /* unix; default 0660 */
    bool has_group; /* unix: gid is to be set */
    gid_t gid;
    struct config_indices sites; /* ascending; always filled in, by default with all */
    char *repeat_id;             /* NULL: none */
    struct {
        char *method; /* parameter names; NULL: not forwarded */
        char *uri;
        char *peer;
    } forwarded;
    struct {
        bool limited; /* unix: only these users may connect; known of an inherited one when open */
        uid_t *uids;
        size_t count;
    } peers;
    struct config_strings allow_remote; /* TCP: further numeric addresses that may connect */
};

/* One item of `allow`; every key that is there must match ("and"), one entry of a key's list is
 * enough ("or"). */
struct config_rule {
    char *where; /* "spnegate.yaml:34", for the record: the file's last component and the line */
    struct config_strings realms;
    struct config_strings principals; /* unparsed principals with realm, compared whole */
};

struct config_realm {
    char *realm;
    enum config_realm_user user;
};

struct config_site {
    char *id; /* the key `name` */
    char *where;
    struct config_strings hosts; /* lower case, no port, no trailing dot; "*.suffix"; "*" */
    char *keytab;
    char *keytab_where;
    bool services_any;
    struct config_strings services;      /* "HTTP/host" or "HTTP/host@REALM"; empty: HTTP/<host> */
    enum config_enctypes enctypes;       /* default strong */
    enum config_binding channel_binding; /* default off */
    struct config_strings certificates;  /* PEM files; none with off, else at least one */
    struct {
        struct config_realm *items;
        size_t count;
    } realms; /* an unlisted realm stays full */
    struct {
        struct config_rule *items;
        size_t count;
    } rules; /* empty grants nobody */
};

/* One host or pattern of a site. */
struct config_host {
    const char *host; /* the site's */
    size_t site;
};

struct config {
    char *path;
    char *user; /* NULL: stay who we are */
    uid_t uid;  /* of `user`, looked up at load */
    gid_t gid;
    struct {
        struct config_listener *items;
        size_t count;
    } listeners;
    char *runtime_dir;           /* default /run/spnegate */
    char *state_dir;             /* default /var/lib/spnegate */
    unsigned workers;            /* 0: one for each CPU online */
    unsigned threads;            /* 8 */
    enum config_sandbox sandbox; /* default required */
    enum config_log log_level;   /* default info */
    struct {
        size_t request_bytes; /* 128 KiB: all parameters of one request */
        size_t header_bytes;  /* 96 KiB: the value of Authorization */
        unsigned deadline_ms; /* 5000 */
        unsigned connections; /* 1024, for each listener */
        unsigned waiting;     /* 1024, complete requests that no thread serves yet, as well */
    } limits;
    uint64_t replay_entries; /* 1048576 */
    struct {
        char *file;  /* default /var/log/spnegate/audit.jsonl */
        mode_t mode; /* 0640 */
        enum config_sync sync;
        /* Parameters with the web server's own id of a request, the first that is there counts;
         * default UNIQUE_ID, REQUEST_ID, HTTP_X_REQUEST_ID. */
        struct config_strings request_ids;
        struct {
            unsigned rate;     /* 50 a second */
            unsigned burst;    /* 500 */
        } failures;            /* of strangers, that are recorded; more are counted */
        size_t min_free_bytes; /* 64 MiB: with less, strangers' failures are only counted; 0: off */
        unsigned seal_every_ms;   /* 60000 */
        size_t rotate_size_bytes; /* 0: never */
        unsigned rotate_age_ms;   /* 0: never */
    } audit;
    struct {
        struct config_site *items;
        size_t count;
    } sites;
    struct {
        struct config_host *items; /* of all sites, sorted; for config_find_site alone */
        size_t count;
    } hosts;
};

/*
 * Reads, checks and returns the configuration at `path` in `*out`; free it with config_free.
 * -1 and a fault whose `where` is file:line:column for: what YAML refuses, NUL, aliases, tags,
 * several documents, unknown keys (with "did you mean"), duplicates, wrong types, values out of
 * range, keys that are missing, files that group or others may write, or that somebody else than
 * root or us owns.
 */
int config_load(const char *path, struct config **out, struct fault *fault);

/*
 * The absolute path that a configuration gives for `key` in `section` (NULL: at the top), although
 * config_load may refuse it for something else; the caller frees it. NULL when it gives none, or is
 * no document that could be read.
 */
char *config_find_path(const char *path, const char *section, const char *key);

/*
 * The directory of the audit file, which workers may read and add to. -1 and a fault when there is
 * something that they must not read, `state_dir` or a keytab, as the paths are written, or when it
 * is the root.
 */
int config_audit_dir(const struct config *config, char *dir, size_t size, struct fault *fault);

/* NULL is allowed. */
void config_free(struct config *config);

/*
 * The site that a listener serves for `host` (lower case, no port, no trailing dot): exact beats
 * the longest suffix beats "*"; NULL when there is none. A listener that was not configured (an
 * inherited one) may serve two sites with the same host: for that host there is none either.
 */
const struct config_site *config_find_site(const struct config *config,
                                           const struct config_listener *listener,
                                           const char *host);

#endif
