#include "conf/config.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The linker sends our objects' allocations here; libyaml's and the C library's stay as they are.
 */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
char *__wrap_strdup(const char *text);

static long allocations_left = -1; /* negative: no failure is planned */

static bool allocation_fails(void)
{
    if (allocations_left < 0) {
        return false;
    }
    if (allocations_left == 0) {
        return true;
    }
    allocations_left--;
    return false;
}

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

char *__wrap_strdup(const char *text)
{
    return allocation_fails() ? NULL : __real_strdup(text);
}

/* A configuration file of this process, removed at the end of the test. */
struct place {
    char dir[64];
    char path[96];
};

static void place_open(struct place *place)
{
    (void)snprintf(place->dir, sizeof place->dir, "/tmp/spnegate-config-XXXXXX");
    cr_assert_not_null(mkdtemp(place->dir));
    (void)snprintf(place->path, sizeof place->path, "%s/c.yaml", place->dir);
}

static void place_write(const struct place *place, const void *bytes, size_t len)
{
    int fd = open(place->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
    cr_assert_eq(close(fd), 0);
}

static void place_clear(const struct place *place)
{
    (void)unlink(place->path);
    cr_assert_eq(rmdir(place->dir), 0);
}

static int load_bytes(const void *bytes, size_t len, struct config **out, struct fault *fault)
{
    struct place place;
    int r = -1;

    place_open(&place);
    place_write(&place, bytes, len);
    r = config_load(place.path, out, fault);
    place_clear(&place);
    return r;
}

static int load_text(const char *text, struct config **out, struct fault *fault)
{
    return load_bytes(text, strlen(text), out, fault);
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;

    cr_assert_not_null(file, "%s", path);
    text = calloc(1, 1 << 16);
    cr_assert_not_null(text);
    *len = fread(text, 1, (1 << 16) - 1, file);
    cr_assert_eq(fclose(file), 0);
    return text;
}

static char *read_good(size_t *len)
{
    const char *data = getenv("TEST_DATA");
    char path[512];

    cr_assert_not_null(data, "TEST_DATA names the directory tests/data");
    (void)snprintf(path, sizeof path, "%s/config/good.yaml", data);
    return read_file(path, len);
}

static struct config *load_good(void)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};
    size_t len = 0;
    char *text = read_good(&len);

    cr_assert_eq(load_bytes(text, len, &config, &fault), 0, "%s: %s", fault.where, fault.what);
    free(text);
    return config;
}

static struct config *load_or_fail(const char *text)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};

    cr_assert_eq(load_text(text, &config, &fault), 0, "%s: %s", fault.where, fault.what);
    return config;
}

#define LISTEN "listen:\n  - unix: /run/s.sock\n"
#define SITE   "sites:\n  - name: one\n    hosts: [a.example.test]\n    keytab: /k\n"

Test(good, every_key_of_the_top_level_is_read)
{
    struct config *config = load_good();
    const struct passwd *daemon = getpwnam("daemon");

    cr_assert_str_eq(config->user, "daemon");
    cr_assert_eq(config->uid, daemon->pw_uid);
    cr_assert_eq(config->gid, daemon->pw_gid);
    cr_assert_str_eq(config->runtime_dir, "/run/gate");
    cr_assert_str_eq(config->state_dir, "/var/lib/gate");
    cr_assert_eq(config->workers, 3);
    cr_assert_eq(config->threads, 16);
    cr_assert_eq(config->sandbox, CONFIG_SANDBOX_BEST_EFFORT);
    cr_assert_eq(config->log_level, CONFIG_LOG_DEBUG);
    cr_assert_eq(config->limits.request_bytes, 65536);
    cr_assert_eq(config->limits.header_bytes, 32768);
    cr_assert_eq(config->limits.deadline_ms, 750);
    cr_assert_eq(config->limits.connections, 77);
    cr_assert_eq(config->limits.waiting, 78);
    cr_assert_eq(config->replay_entries, 4096);
    cr_assert_str_eq(config->audit.file, "/var/log/gate/trail.jsonl");
    cr_assert_eq(config->audit.mode, 0600);
    cr_assert_eq(config->audit.sync, CONFIG_SYNC_COMMIT);
    cr_assert_eq(config->audit.failures.rate, 7);
    cr_assert_eq(config->audit.failures.burst, 8);
    cr_assert_eq(config->audit.min_free_bytes, 9 << 20);
    cr_assert_eq(config->audit.request_ids.count, 2);
    cr_assert_str_eq(config->audit.request_ids.items[1], "REQUEST_ID");
    cr_assert_str_eq(strrchr(config->path, '/'), "/c.yaml");
    config_free(config);
}

Test(good, every_key_of_a_listener_is_read)
{
    struct config *config = load_good();
    const struct config_listener *one = &config->listeners.items[0];
    const struct config_listener *two = &config->listeners.items[1];
    const struct config_listener *three = &config->listeners.items[2];
    const struct config_listener *four = &config->listeners.items[3];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&two->sockaddr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&three->sockaddr;

    cr_assert_eq(config->listeners.count, 4);
    cr_assert_eq(one->kind, CONFIG_LISTEN_UNIX);
    cr_assert_str_eq(one->address, "/run/gate/lighttpd.sock");
    cr_assert_str_eq(strrchr(one->where, '/'), "/c.yaml:17:5");
    cr_assert_eq(one->mode, 0666);
    cr_assert(one->has_group);
    cr_assert_eq(one->gid, getgrnam("daemon")->gr_gid);
    cr_assert_eq(one->sites.count, 2);
    cr_assert_eq(one->sites.items[0], 0);
    cr_assert_eq(one->sites.items[1], 1);
    cr_assert(one->peers.limited);
    cr_assert_eq(one->peers.count, 2);
    cr_assert_eq(one->peers.uids[0], getpwnam("daemon")->pw_uid);
    cr_assert_eq(one->peers.uids[1], 0);
    cr_assert_eq(two->kind, CONFIG_LISTEN_TCP);
    cr_assert_str_eq(two->address, "127.0.0.1:991");
    cr_assert_eq(two->sockaddr_len, sizeof *v4);
    cr_assert_eq(v4->sin_family, AF_INET);
    cr_assert_eq(ntohs(v4->sin_port), 991);
    cr_assert_eq(ntohl(v4->sin_addr.s_addr), INADDR_LOOPBACK);
    cr_assert_eq(two->sites.count, 3);
    cr_assert_eq(two->sites.items[2], 2);
    cr_assert_null(two->forwarded.method);
    cr_assert_not(two->peers.limited);
    cr_assert_eq(v6->sin6_family, AF_INET6);
    cr_assert_eq(ntohs(v6->sin6_port), 992);
    cr_assert(IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr));
    cr_assert_eq(three->allow_remote.count, 2);
    cr_assert_str_eq(three->allow_remote.items[0], "192.0.2.7");
    cr_assert_str_eq(three->allow_remote.items[1], "2001:db8::1");
    cr_assert_str_eq(three->forwarded.method, "HTTP_X_FORWARDED_METHOD");
    cr_assert_str_eq(three->forwarded.uri, "HTTP_X_FORWARDED_URI");
    cr_assert_str_eq(three->forwarded.peer, "HTTP_X_REAL_IP");
    cr_assert_eq(three->sites.count, 1);
    cr_assert_eq(three->sites.items[0], 2);
    cr_assert_str_eq(two->repeat_id, "UNIQUE_ID");
    cr_assert_null(three->repeat_id);
    cr_assert_eq(four->kind, CONFIG_LISTEN_FD);
    cr_assert_str_eq(four->address, "web");
    cr_assert_eq(four->peers.count, 1);
    cr_assert_eq(four->sites.count, 3);
    config_free(config);
}

Test(good, every_key_of_a_site_is_read)
{
    struct config *config = load_good();
    const struct config_site *site = &config->sites.items[0];

    cr_assert_eq(config->sites.count, 3);
    cr_assert_str_eq(site->id, "intranet");
    cr_assert_str_eq(strrchr(site->where, '/'), "/c.yaml:30:5");
    cr_assert_eq(site->hosts.count, 3);
    cr_assert_str_eq(site->hosts.items[0], "www.example.test");
    cr_assert_str_eq(site->hosts.items[1], "*.intranet.example.test");
    cr_assert_str_eq(site->hosts.items[2], "[2001:db8::5]");
    cr_assert_str_eq(site->keytab, "/etc/gate/http.keytab");
    cr_assert_str_eq(strrchr(site->keytab_where, '/'), "/c.yaml:32:13");
    cr_assert_not(site->services_any);
    cr_assert_eq(site->services.count, 2);
    cr_assert_str_eq(site->services.items[0], "HTTP/www.example.test");
    cr_assert_str_eq(site->services.items[1], "HTTP/alias.example.test@EXAMPLE.TEST");
    cr_assert_eq(site->enctypes, CONFIG_ENCTYPES_ANY);
    cr_assert_eq(site->channel_binding, CONFIG_BINDING_REQUIRE);
    cr_assert_eq(site->certificates.count, 2);
    cr_assert_str_eq(site->certificates.items[1], "/etc/gate/new.pem");
    cr_assert_eq(config->sites.items[1].channel_binding, CONFIG_BINDING_OFF);
    cr_assert_eq(site->realms.count, 2);
    cr_assert_str_eq(site->realms.items[0].realm, "EXAMPLE.TEST");
    cr_assert_eq(site->realms.items[0].user, CONFIG_USER_STRIP);
    cr_assert_str_eq(site->realms.items[1].realm, "PARTNER.TEST");
    cr_assert_eq(site->realms.items[1].user, CONFIG_USER_FULL);
    cr_assert(config->sites.items[1].services_any);
    cr_assert_eq(config->sites.items[2].rules.count, 0);
    cr_assert_str_eq(config->sites.items[2].hosts.items[0], "*");
    config_free(config);
}

Test(good, every_key_of_a_rule_is_read)
{
    struct config *config = load_good();
    const struct config_rule *rules = config->sites.items[0].rules.items;

    cr_assert_eq(config->sites.items[0].rules.count, 3);
    cr_assert_str_eq(rules[0].where, "c.yaml:39");
    cr_assert_eq(rules[0].realms.count, 1);
    cr_assert_str_eq(rules[0].realms.items[0], "EXAMPLE.TEST");
    cr_assert_eq(rules[0].principals.count, 0);
    cr_assert_str_eq(rules[1].where, "c.yaml:40");
    cr_assert_eq(rules[1].realms.count, 0);
    cr_assert_eq(rules[1].principals.count, 2);
    cr_assert_str_eq(rules[1].principals.items[0], "alice@PARTNER.TEST");
    cr_assert_str_eq(rules[1].principals.items[1], "b\\@b@PARTNER.TEST");
    cr_assert_eq(rules[2].realms.count, 2);
    cr_assert_str_eq(rules[2].realms.items[1], "TWO.TEST");
    cr_assert_eq(rules[2].principals.count, 1);
    cr_assert_str_eq(rules[2].principals.items[0], "carol/admin@ONE.TEST");
    cr_assert_eq(config->sites.items[1].rules.items[0].realms.count, 2);
    config_free(config);
}

Test(defaults, are_those_of_the_manual)
{
    struct config *config = load_or_fail(LISTEN SITE);
    const struct config_listener *listener = &config->listeners.items[0];
    const struct config_site *site = &config->sites.items[0];

    cr_assert_null(config->user);
    cr_assert_str_eq(config->runtime_dir, "/run/spnegate");
    cr_assert_str_eq(config->state_dir, "/var/lib/spnegate");
    cr_assert_eq(config->workers, 0);
    cr_assert_eq(config->threads, 8);
    cr_assert_eq(config->sandbox, CONFIG_SANDBOX_REQUIRED);
    cr_assert_eq(config->log_level, CONFIG_LOG_INFO);
    cr_assert_eq(config->limits.request_bytes, 131072);
    cr_assert_eq(config->limits.header_bytes, 98304);
    cr_assert_eq(config->limits.deadline_ms, 5000);
    cr_assert_eq(config->limits.connections, 1024);
    cr_assert_eq(config->limits.waiting, 1024);
    cr_assert_eq(config->replay_entries, 1048576);
    cr_assert_str_eq(config->audit.file, "/var/log/spnegate/audit.jsonl");
    cr_assert_eq(config->audit.mode, 0640);
    cr_assert_eq(config->audit.sync, CONFIG_SYNC_WRITE);
    cr_assert_eq(config->audit.failures.rate, 50);
    cr_assert_eq(config->audit.failures.burst, 500);
    cr_assert_eq(config->audit.min_free_bytes, 64 << 20);
    cr_assert_eq(config->audit.seal_every_ms, 60000);
    cr_assert_eq(config->audit.rotate_size_bytes, 0);
    cr_assert_eq(config->audit.rotate_age_ms, 0);
    cr_assert_eq(listener->mode, 0660);
    cr_assert_not(listener->has_group);
    cr_assert_not(listener->peers.limited);
    cr_assert_eq(listener->sites.count, 1);
    cr_assert_eq(listener->allow_remote.count, 0);
    cr_assert_not(site->services_any);
    cr_assert_eq(site->services.count, 0);
    cr_assert_eq(site->enctypes, CONFIG_ENCTYPES_STRONG);
    cr_assert_eq(site->realms.count, 0);
    cr_assert_eq(site->rules.count, 0);
    config_free(config);
}

Test(values, may_be_written_in_several_ways)
{
    static const struct {
        const char *why;
        const char *text;
    } rows[] = {
        {"json is yaml, and needs no line end",
         "{\"listen\": [{\"unix\": \"/s\"}], \"threads\": 4, \"sites\": [{\"name\": \"one\", "
         "\"hosts\": [\"a.example.test\"], \"keytab\": \"/k\"}]}"},
        {"workers by the word", "workers: auto\n" LISTEN SITE},
        {"a mode without quotes", "listen:\n  - unix: /s\n    mode: 0600\n" SITE},
        {"a mode of three digits", "listen:\n  - unix: /s\n    mode: 660\n" SITE},
        {"hours are within a minute's ceiling only as minutes",
         "limits: {deadline: 1m}\n" LISTEN SITE},
        {"bytes have a unit too", "limits: {header: 4096B}\n" LISTEN SITE},
        {"an empty allow list", LISTEN SITE "    allow: []\n"},
        {"an allow key without anything", LISTEN SITE "    allow:\n"},
        {"an explicit document", "---\n" LISTEN SITE "...\n"},
        {"a byte order mark", "\xEF\xBB\xBF" LISTEN SITE},
        {"windows line ends", "listen:\r\n  - unix: /s\r\nsites:\r\n  - name: one\r\n"
                              "    hosts: [a.example.test]\r\n    keytab: /k\r\n"},
        {"the sites before the listeners that refer to them",
         SITE "listen:\n  - unix: /s\n    sites: [one]\n"},
        {"the same host on different listeners",
         "listen:\n  - {unix: /s, sites: one}\n  - {unix: /t, sites: two}\n" SITE
         "  - {name: two, hosts: [a.example.test], keytab: /k}\n"},
        {"loopback is more than one address", "listen:\n  - tcp: 127.9.9.9:65535\n" SITE},
        {"an inherited socket may be of either kind",
         "listen:\n  - {socket: web, peers: root}\n"
         "  - {socket: api, allow_remote: [192.0.2.1], sites: one}\n" SITE},
        {"a TCP listener on IPv6's loopback", "listen:\n  - tcp: '[::1]:1'\n" SITE},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = NULL;
        struct fault fault = {"", ""};

        cr_expect_eq(load_text(rows[i].text, &config, &fault), 0, "%s: %s: %s", rows[i].why,
                     fault.where, fault.what);
        config_free(config);
    }
}

struct bad {
    const char *at; /* line:column */
    const char *needle;
    const char *text;
};

static void expect_bad(const struct bad *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct config *config = NULL;
        struct fault fault = {"", ""};
        const char *base = NULL;
        int r = load_text(rows[i].text, &config, &fault);

        cr_expect_eq(r, -1, "row %zu is accepted: %s", i, rows[i].text);
        cr_expect_null(config, "row %zu", i);
        config_free(config);
        base = strrchr(fault.where, '/');
        base = base != NULL ? base : "/";
        cr_expect(strncmp(base, "/c.yaml:", 8) == 0 && strcmp(base + 8, rows[i].at) == 0,
                  "row %zu: at %s instead of %s: %s", i, base, rows[i].at, fault.what);
        cr_expect_not_null(strstr(fault.what, rows[i].needle), "row %zu: no \"%s\" in \"%s\"", i,
                           rows[i].needle, fault.what);
    }
}

#define EXPECT_BAD(rows) expect_bad(rows, sizeof(rows) / sizeof(rows)[0])

Test(bad, yaml_is_refused_where_it_breaks)
{
    static const struct bad rows[] = {
        {"1:1", "is empty", ""},
        {"1:1", "no configuration", "# nothing\n"},
        {"1:1", "must be keys", "just words\n"},
        {"1:1", "must be keys", "- a\n"},
        {"2:1", "not valid YAML", "listen: [\n"},
        {"1:9", "not valid YAML", "listen:\t- x\n"},
        {"1:7", "one line", "user: x\n  y: z\n"},
        {"3:2", "not valid YAML", "user:\n  x: y\n z: z\n"},
        {"1:7", "UTF-8", "user: \xff\n"},
        {"1:8", "UTF-8", "user: a\xc0\xaf\n"},
        {"1:7", "UTF-8", "user: \xed\xa0\x80\n"},
        {"1:7", "UTF-8", "user: \x01\n"},
        {"1:7", "control byte", "user: \"a\\0b\"\n"},
        {"1:7", "control byte", "user: \"a\\nb\"\n"},
        {"1:7", "control byte", "user: \"a\\x7fb\"\n"},
        {"1:7", "anchors", "user: &a daemon\n"},
        {"2:7", "aliases", "# x\nuser: *a\n"},
        {"1:7", "tags", "user: !!str daemon\n"},
        {"1:7", "tags", "user: ! daemon\n"},
        {"1:9", "tags", "listen: !x []\n"},
        {"1:1", "directives", "%YAML 1.1\n---\nuser: x\n"},
        {"3:1", "second document", "user: x\n\n---\nuser: y\n"},
        {"2:1", "second time", "user: x\nuser: y\n"},
        {"1:26", "first at 1:10", "limits: {\"header\": 1KiB, \"h\\u0065ader\": 2KiB}\n"},
        {"1:3", "single word", "? [a]\n: b\n"},
        {"1:7", "one line", "user: a\n  b\n"},
        {"1:7", "one line", "user: \"a\n  b\"\n"},
        {"1:7", "one line", "user: |\n  a\n"},
        {"1:22", "too deep", "user: [[[[[[[[[[[[[[[[[[\n"},
        {"1:10", "end it with a newline", "threads: 8"},
        {"1:10", "end it with a newline", "threads: 8 \t "},
        {"3:12", "end it with a newline", "sites:\n  - a: 1\n    hosts: x"},
        {"1:6", "end it with a newline", "user:"},
    };

    EXPECT_BAD(rows);
}

Test(bad, nul_is_refused_where_it_stands)
{
    static const char text[] = "user: x\nwor\0kers: 1\n";
    struct config *config = NULL;
    struct fault fault = {"", ""};

    cr_assert_eq(load_bytes(text, sizeof text - 1, &config, &fault), -1);
    cr_assert_not_null(strstr(fault.where, "c.yaml:2:4"), "%s", fault.where);
    cr_assert_not_null(strstr(fault.what, "NUL"));
}

Test(good, tells_how_the_trail_is_sealed_and_rotated)
{
    static const char text[] =
        "audit: {seal_every: 10s, rotate_size: 1GiB, rotate_age: 1176h}\n" LISTEN SITE;
    struct config *config = load_or_fail(text);

    cr_expect_eq(config->audit.seal_every_ms, 10000);
    cr_expect_eq(config->audit.rotate_size_bytes, (size_t)1 << 30);
    cr_expect_eq(config->audit.rotate_age_ms, 1176U * 3600000);
    config_free(config);
}

Test(bad, keys_are_refused_with_a_hint)
{
    static const struct bad rows[] = {
        {"7:5", "unknown key \"keytabb\" (did you mean \"keytab\"?)",
         LISTEN SITE "    keytabb: /k\n"},
        {"1:1", "(did you mean \"threads\"?)", "thread: 8\n"},
        {"1:1", "(did you mean \"listen\"?)", "lsiten: 8\n"},
        {"1:1", "unknown key \"entirely_else\" in the top level", "entirely_else: 8\n"},
        {"1:1", "(it belongs into \"limits\")", "deadline: 5s\n"},
        {"1:10", "(it belongs into the top level)", "limits: {threads: 5s}\n"},
        {"1:1", "unknown key \"\"", "'': 5\n"},
        {"1:1", "unknown key \"<<\"", "<<: 5\n"},
        {"1:1", "reserved for a later version", "node: {}\n"},
        {"1:14", "`error` or `warning` or `info` or `debug`", "log: {level: 7}\n" LISTEN SITE},
        {"7:5", "reserved for a later version", LISTEN SITE "    session: {}\n"},
        {"7:5", "reserved for a later version", LISTEN SITE "    exempt: [/x]\n"},
        {"3:16", "is a parameter that clients can choose",
         "listen:\n  - tcp: 127.0.0.1:991\n    repeat_id: HTTP_X_REQUEST_ID\n" SITE},
        {"3:16", "is a parameter that clients can choose",
         "listen:\n  - tcp: 127.0.0.1:991\n    repeat_id: REMOTE_PORT\n" SITE},
        {"3:16", "is a parameter that clients can choose",
         "listen:\n  - tcp: 127.0.0.1:991\n    repeat_id: HTTPS\n" SITE},
        {"3:16", "is a parameter that clients can choose",
         "listen:\n  - tcp: 127.0.0.1:991\n    repeat_id: SCRIPT_URL\n" SITE},
        {"3:16", "only capital letters, digits and _",
         "listen:\n  - tcp: 127.0.0.1:991\n    repeat_id: unique_id\n" SITE},
        {"7:22", "needs `certificates`", LISTEN SITE "    channel_binding: require\n"},
        {"7:22", "needs `certificates`", LISTEN SITE "    channel_binding: allow\n"},
        {"7:19", "nothing uses them with `channel_binding: off`",
         LISTEN SITE "    certificates: [/c.pem]\n"},
        {"8:20", "is not an absolute path",
         LISTEN SITE "    channel_binding: allow\n    certificates: [c.pem]\n"},
        {"1:1", "missing key \"sites\"", LISTEN},
        {"1:1", "missing key \"listen\"", SITE},
        {"4:5", "missing key \"keytab\"",
         LISTEN "sites:\n  - name: x\n    hosts: [a.example.test]\n"},
        {"4:5", "missing key \"name\"",
         LISTEN "sites:\n  - keytab: /k\n    hosts: [a.example.test]\n"},
        {"4:5", "missing key \"hosts\"", LISTEN "sites:\n  - keytab: /k\n    name: x\n"},
        {"7:11", "missing key \"realms\"", LISTEN SITE "    user: {}\n"},
    };

    EXPECT_BAD(rows);
}

Test(bad, values_are_refused_with_what_is_expected)
{
    static const struct bad rows[] = {
        {"1:10", "2 to 256", "threads: 1\n" LISTEN SITE},
        {"1:10", "2 to 256", "threads: 257\n" LISTEN SITE},
        {"1:10", "2 to 256", "threads: 4294967304\n" LISTEN SITE},
        {"1:10", "not a number", "threads: 99999999999999999999\n" LISTEN SITE},
        {"1:10", "not a number", "threads: 010\n" LISTEN SITE},
        {"1:10", "not a number", "threads: -1\n" LISTEN SITE},
        {"1:10", "not a number", "threads: 8.0\n" LISTEN SITE},
        {"1:10", "not a number", "threads: 0x8\n" LISTEN SITE},
        {"1:9", "no value", "threads:\n" LISTEN SITE},
        {"1:10", "single value", "threads: [8]\n" LISTEN SITE},
        {"1:10", "single value", "threads: {a: b}\n" LISTEN SITE},
        {"1:10", "1 to 256", "workers: 0\n" LISTEN SITE},
        {"1:10", "not a number", "workers: many\n" LISTEN SITE},
        {"1:20", "100ms to 60s", "limits: {deadline: 99ms}\n" LISTEN SITE},
        {"1:20", "100ms to 60s", "limits: {deadline: 8h}\n" LISTEN SITE},
        {"1:20", "not a duration", "limits: {deadline: 5}\n" LISTEN SITE},
        {"1:20", "not a duration", "limits: {deadline: 5 s}\n" LISTEN SITE},
        {"1:20", "not a duration", "limits: {deadline: 1d}\n" LISTEN SITE},
        {"1:20", "not a duration", "limits: {deadline: 18446744073709551615h}\n" LISTEN SITE},
        {"1:19", "1KiB to 192KiB", "limits: {request: 1023B}\n" LISTEN SITE},
        {"1:19", "1KiB to 192KiB", "limits: {request: 193KiB}\n" LISTEN SITE},
        {"1:19", "not a size", "limits: {request: 64}\n" LISTEN SITE},
        {"1:19", "not a size", "limits: {request: 64KB}\n" LISTEN SITE},
        {"1:19", "not a size", "limits: {request: 64kib}\n" LISTEN SITE},
        {"1:19", "not a size", "limits: {request: 17179869184GiB}\n" LISTEN SITE},
        {"1:18", "larger than a whole request",
         "limits: {header: 8KiB, request: 4KiB}\n" LISTEN SITE},
        {"1:9", "must be keys", "limits: 5\n" LISTEN SITE},
        {"1:7", "must be keys", "audit:\n" LISTEN SITE},
        {"1:19", "8 to 67108864", "replay: {entries: 7}\n" LISTEN SITE},
        {"1:15", "`write` or `commit`", "audit: {sync: off}\n" LISTEN SITE},
        {"1:10", "`required` or `best-effort` or `off`", "sandbox: on\n" LISTEN SITE},
        {"1:10", "(did you mean \"required\"?)", "sandbox: require\n" LISTEN SITE},
        {"1:15", "everybody", "audit: {mode: \"0642\"}\n" LISTEN SITE},
        {"1:15", "the owner", "audit: {mode: \"0440\"}\n" LISTEN SITE},
        {"1:15", "octal", "audit: {mode: \"0680\"}\n" LISTEN SITE},
        {"1:15", "octal", "audit: {mode: 1777}\n" LISTEN SITE},
        {"1:15", "octal", "audit: {mode: 0o640}\n" LISTEN SITE},
        {"1:15", "octal", "audit: {mode: 40}\n" LISTEN SITE},
        {"1:21", "out of range, 1000ms to 900s", "audit: {seal_every: 16m}\n" LISTEN SITE},
        {"1:21", "out of range, 1000ms to 900s", "audit: {seal_every: 500ms}\n" LISTEN SITE},
        {"1:22", "out of range, 16KiB to 1048576MiB", "audit: {rotate_size: 15KiB}\n" LISTEN SITE},
        {"1:21", "out of range, 1000ms to 4233600s", "audit: {rotate_age: 1177h}\n" LISTEN SITE},
        {"1:15", "absolute", "audit: {file: audit.jsonl}\n" LISTEN SITE},
        {"1:15", "no . and ..", "audit: {file: /var/../audit.jsonl}\n" LISTEN SITE},
        {"1:12", "at its end", "state_dir: /var/lib/\n" LISTEN SITE},
        {"1:12", "no value", "state_dir: ''\n" LISTEN SITE},
        {"1:7", "there is no user \"nobody-has-this\"", "user: nobody-has-this\n" LISTEN SITE},
    };

    EXPECT_BAD(rows);
}

Test(bad, listeners_are_refused)
{
    static const struct bad rows[] = {
        {"1:9", "the list is empty", "listen: []\n" SITE},
        {"1:8", "not nothing", "listen:\n" SITE},
        {"1:9", "a list is expected", "listen: {unix: /s}\n" SITE},
        {"2:5", "must be keys", "listen:\n  - /s\n" SITE},
        {"2:5", "exactly one", "listen:\n  - mode: 0660\n" SITE},
        {"2:5", "exactly one", "listen:\n  - unix: /s\n    tcp: 127.0.0.1:991\n" SITE},
        {"2:11", "absolute", "listen:\n  - unix: s\n" SITE},
        {"2:11", "107",
         "listen:\n  - unix: "
         "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" SITE},
        {"3:5", "second time (first at", "listen:\n  - unix: /s\n  - unix: /s\n" SITE},
        {"3:5", "second time (first at", "listen:\n  - tcp: '[::1]:9'\n  - tcp: '[0::1]:9'\n" SITE},
        {"2:5", "daemon's own", "listen:\n  - unix: /run/spnegate/control.sock\n" SITE},
        {"2:10", "a port", "listen:\n  - tcp: 127.0.0.1\n" SITE},
        {"2:10", "1 to 65535", "listen:\n  - tcp: 127.0.0.1:0\n" SITE},
        {"2:10", "1 to 65535", "listen:\n  - tcp: 127.0.0.1:65536\n" SITE},
        {"2:10", "1 to 65535", "listen:\n  - tcp: 127.0.0.1:+9\n" SITE},
        {"2:10", "numeric", "listen:\n  - tcp: localhost:991\n" SITE},
        {"2:10", "numeric", "listen:\n  - tcp: ::1:991\n" SITE},
        {"2:10", "[::1]:991", "listen:\n  - tcp: '[::1:991'\n" SITE},
        {"2:10", "not a loopback", "listen:\n  - tcp: 192.0.2.1:991\n" SITE},
        {"2:10", "not a loopback", "listen:\n  - tcp: 0.0.0.0:991\n" SITE},
        {"2:10", "not a loopback", "listen:\n  - tcp: '[::]:991'\n" SITE},
        {"2:10", "not a loopback", "listen:\n  - tcp: '[::ffff:127.0.0.1]:991'\n" SITE},
        {"3:5", "unix listeners only", "listen:\n  - tcp: 127.0.0.1:9\n    mode: 0660\n" SITE},
        {"3:5", "unix listeners only", "listen:\n  - tcp: 127.0.0.1:9\n    peers: [root]\n" SITE},
        {"3:5", "unix listeners only", "listen:\n  - socket: web\n    mode: 0660\n" SITE},
        {"3:5", "unix listeners only", "listen:\n  - socket: web\n    group: daemon\n" SITE},
        {"2:5", "exactly one", "listen:\n  - socket: web\n    unix: /s\n" SITE},
        {"2:5", "exactly one", "listen:\n  - socket: web\n    tcp: 127.0.0.1:991\n" SITE},
        {"2:13", "letters, digits", "listen:\n  - socket: web:two\n" SITE},
        {"2:13", "letters, digits", "listen:\n  - socket: descriptor 0\n" SITE},
        {"2:13", "single value", "listen:\n  - socket: [web]\n" SITE},
        {"3:5", "second time (first at", "listen:\n  - socket: web\n  - socket: web\n" SITE},
        {"3:5", "tcp listeners only",
         "listen:\n  - unix: /s\n    allow_remote: [192.0.2.1]\n" SITE},
        {"3:19", "list is empty", "listen:\n  - tcp: 0.0.0.0:9\n    allow_remote: []\n" SITE},
        {"3:20", "wildcard", "listen:\n  - tcp: 0.0.0.0:9\n    allow_remote: [0.0.0.0]\n" SITE},
        {"3:20", "in disguise",
         "listen:\n  - tcp: 0.0.0.0:9\n    allow_remote: ['::ffff:192.0.2.1']\n" SITE},
        {"3:20", "no network",
         "listen:\n  - tcp: 0.0.0.0:9\n    allow_remote: [192.0.2.0/24]\n" SITE},
        {"3:12", "list is empty", "listen:\n  - unix: /s\n    peers: []\n" SITE},
        {"3:19", "there is no user",
         "listen:\n  - unix: /s\n    peers: [root, nobody-has-this]\n" SITE},
        {"3:12", "there is no group", "listen:\n  - unix: /s\n    group: nobody-has-this\n" SITE},
        {"3:12", "list is empty", "listen:\n  - unix: /s\n    sites: []\n" SITE},
        {"3:13", "there is no site \"two\"", "listen:\n  - unix: /s\n    sites: [two]\n" SITE},
        {"3:18", "a second time", "listen:\n  - unix: /s\n    sites: [one, one]\n" SITE},
        {"3:22", "never the host", "listen:\n  - unix: /s\n    forwarded: {uri: HTTP_HOST}\n" SITE},
        {"3:22", "never credentials",
         "listen:\n  - unix: /s\n    forwarded: {uri: HTTP_AUTHORIZATION}\n" SITE},
        {"3:22", "capital letters", "listen:\n  - unix: /s\n    forwarded: {uri: X-Uri}\n" SITE},
        {"3:17", "unknown key \"host\"",
         "listen:\n  - unix: /s\n    forwarded: {host: HTTP_X_FORWARDED_HOST}\n" SITE},
    };

    EXPECT_BAD(rows);
}

#define SITE_WITH(lines) LISTEN "sites:\n  - name: one\n    keytab: /k\n" lines

Test(bad, sites_are_refused)
{
    static const struct bad rows[] = {
        {"3:8", "list is empty", LISTEN "sites: []\n"},
        {"4:5", "must be keys", LISTEN "sites:\n  - one\n"},
        {"4:11", "letters, digits",
         LISTEN "sites:\n  - name: a b\n    keytab: /k\n    hosts: [a]\n"},
        {"6:13", "no value", SITE_WITH("    hosts: ['']\n")},
        {"6:13", "no port", SITE_WITH("    hosts: ['a.example.test:443']\n")},
        {"6:13", "first label only", SITE_WITH("    hosts: ['a*.example.test']\n")},
        {"6:13", "first label only", SITE_WITH("    hosts: ['*.*.example.test']\n")},
        {"6:13", "empty label", SITE_WITH("    hosts: [a..test]\n")},
        {"6:13", "empty label", SITE_WITH("    hosts: ['*..test']\n")},
        {"6:13", "hyphen", SITE_WITH("    hosts: [-a.test]\n")},
        {"6:13", "only letters", SITE_WITH("    hosts: ['a b.test']\n")},
        {"6:13", "only letters", SITE_WITH("    hosts: [\xC3\xA4.test]\n")},
        {"6:13", "brackets", SITE_WITH("    hosts: ['[::1']\n")},
        {"6:13", "brackets", SITE_WITH("    hosts: ['::1']\n")},
        {"6:13", "no suffix", SITE_WITH("    hosts: ['*.127.0.0.1']\n")},
        {"6:13", "is a number", SITE_WITH("    hosts: ['1.2.3']\n")},
        {"6:12", "not keys", SITE_WITH("    hosts: {a: b}\n")},
        {"6:13", "single value", SITE_WITH("    hosts: [[a]]\n")},
        {"6:21", "first at 6:13", SITE_WITH("    hosts: [a.test, A.test.]\n")},
        {"5:13", "absolute", LISTEN "sites:\n  - name: one\n    keytab: k\n    hosts: [a.test]\n"},
        {"7:15", "word `any`", SITE_WITH("    hosts: [a.test]\n    services: HTTP/a.test\n")},
        {"7:15", "list is empty", SITE_WITH("    hosts: [a.test]\n    services: []\n")},
        {"7:16", "not a service", SITE_WITH("    hosts: [a.test]\n    services: [host/a.test]\n")},
        {"7:16", "no host name", SITE_WITH("    hosts: [a.test]\n    services: ['HTTP/*']\n")},
        {"7:16", "not a realm", SITE_WITH("    hosts: [a.test]\n    services: [HTTP/a.test@]\n")},
        {"7:15", "`strong` or `any`", SITE_WITH("    hosts: [a.test]\n    enctypes: weak\n")},
        {"7:15", "(did you mean \"strong\"?)",
         SITE_WITH("    hosts: [a.test]\n    enctypes: stronk\n")},
        {"7:31", "`strip` or `full`",
         SITE_WITH("    hosts: [a.test]\n    user: {realms: {ONE.TEST: yes}}\n")},
        {"7:44", "only one realm",
         SITE_WITH("    hosts: [a.test]\n    user: {realms: {A.TEST: strip, B.TEST: strip}}\n")},
        {"7:20", "each with strip or full",
         SITE_WITH("    hosts: [a.test]\n    user: {realms: {}}\n")},
        {"7:21", "not a realm",
         SITE_WITH("    hosts: [a.test]\n    user: {realms: {a/b: full}}\n")},
        {"7:36", "(first at 6:13)",
         SITE_WITH("    hosts: [a.test]\n  - {name: two, keytab: /k, hosts: a.test}\n")},
        {"7:5", "a second site \"one\"",
         SITE_WITH("    hosts: [a.test]\n  - {name: one, keytab: /k, hosts: b.test}\n")},
    };

    EXPECT_BAD(rows);
}

Test(bad, rules_are_refused)
{
    static const struct bad rows[] = {
        {"7:12", "a list is expected", LISTEN SITE "    allow: any\n"},
        {"7:12", "a list is expected", LISTEN SITE "    allow: ''\n"},
        {"7:12", "a list is expected", LISTEN SITE "    allow: {realm: A}\n"},
        {"7:13", "everybody", LISTEN SITE "    allow: [{}]\n"},
        {"7:13", "must be keys", LISTEN SITE "    allow: [A.TEST]\n"},
        {"7:14", "must be keys", LISTEN SITE "    allow: [ ~]\n"},
        {"7:14", "did you mean \"realm\"", LISTEN SITE "    allow: [{realms: A}]\n"},
        {"7:21", "list is empty", LISTEN SITE "    allow: [{realm: []}]\n"},
        {"7:21", "not a realm", LISTEN SITE "    allow: [{realm: '*'}]\n"},
        {"7:21", "no value", LISTEN SITE "    allow: [{realm: ''}]\n"},
        {"7:25", "needs its realm", LISTEN SITE "    allow: [{principal: alice}]\n"},
        {"7:25", "needs its realm", LISTEN SITE "    allow: [{principal: 'alice\\@A'}]\n"},
        {"7:25", "nothing after", LISTEN SITE "    allow: [{principal: 'alice@'}]\n"},
        {"7:25", "nothing before", LISTEN SITE "    allow: [{principal: '@A'}]\n"},
        {"7:25", "a second @", LISTEN SITE "    allow: [{principal: 'a@b@C'}]\n"},
        {"7:25", "backslash at its end", LISTEN SITE "    allow: [{principal: 'a@b\\'}]\n"},
        {"7:25", "no pattern", LISTEN SITE "    allow: [{principal: '*@A'}]\n"},
        {"7:33", "needs its realm", LISTEN SITE "    allow: [{principal: [a@A.B, b]}]\n"},
    };

    EXPECT_BAD(rows);
}

Test(file, that_others_may_write_is_refused)
{
    static const struct {
        mode_t mode;
        int result;
    } rows[] = {{0600, 0}, {0644, 0}, {0444, 0}, {0620, -1}, {0602, -1}, {0666, -1}};
    struct place place;

    place_open(&place);
    place_write(&place, LISTEN SITE, strlen(LISTEN SITE));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = NULL;
        struct fault fault = {"", ""};

        cr_assert_eq(chmod(place.path, rows[i].mode), 0);
        cr_expect_eq(config_load(place.path, &config, &fault), rows[i].result, "mode %o",
                     (unsigned)rows[i].mode);
        if (rows[i].result != 0) {
            cr_expect_str_eq(fault.where, place.path);
            cr_expect_not_null(strstr(fault.what, "written by group or others"), "%s", fault.what);
        }
        config_free(config);
    }
    place_clear(&place);
}

Test(file, of_somebody_else_is_refused)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};
    struct place place;

    if (geteuid() != 0) {
        cr_skip_test("only root can give a file away");
    }
    place_open(&place);
    place_write(&place, LISTEN SITE, strlen(LISTEN SITE));
    cr_assert_eq(chown(place.path, getpwnam("daemon")->pw_uid, 0), 0);
    cr_expect_eq(config_load(place.path, &config, &fault), -1);
    cr_expect_not_null(strstr(fault.what, "must belong to root"), "%s", fault.what);
    config_free(config);
    place_clear(&place);
}

Test(file, that_is_none_is_refused)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};
    struct place place;

    place_open(&place);
    cr_expect_eq(config_load(place.path, &config, &fault), -1);
    cr_expect_not_null(strstr(fault.what, "No such file"), "%s", fault.what);
    cr_expect_eq(config_load(place.dir, &config, &fault), -1);
    cr_expect_not_null(strstr(fault.what, "not a regular file"), "%s", fault.what);
    cr_assert_eq(mkfifo(place.path, 0600), 0);
    cr_expect_eq(config_load(place.path, &config, &fault), -1);
    cr_expect_not_null(strstr(fault.what, "not a regular file"), "%s", fault.what);
    place_clear(&place);
}

Test(file, has_a_ceiling)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};
    size_t max = 1 << 20;
    char *text = malloc(max + 1);

    cr_assert_not_null(text);
    memset(text, '#', max + 1);
    memcpy(text + max - strlen("\n" LISTEN SITE), "\n" LISTEN SITE, strlen("\n" LISTEN SITE));
    text[max] = '\n';
    cr_expect_eq(load_bytes(text, max, &config, &fault), 0, "%s: %s", fault.where, fault.what);
    config_free(config);
    config = NULL;
    cr_expect_eq(load_bytes(text, max + 1, &config, &fault), -1);
    cr_expect_not_null(strstr(fault.what, "too large"), "%s", fault.what);
    free(text);
}

Test(file, of_too_many_values_is_refused)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};
    size_t count = 250000;
    char *text = malloc(count * 4);

    cr_assert_not_null(text);
    for (size_t i = 0; i < count; i++) {
        memcpy(text + i * 4, "- a\n", 4);
    }
    cr_expect_eq(load_bytes(text, count * 4, &config, &fault), -1);
    cr_expect_not_null(strstr(fault.what, "too many values"), "%s", fault.what);
    cr_expect_not_null(strstr(fault.where, "c.yaml:200000:3"), "%s", fault.where);
    free(text);
}

static bool has_text(const struct config_strings *all, const char *text)
{
    for (size_t i = 0; i < all->count; i++) {
        if (strcmp(all->items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/*
 * Fewer entries are fine as long as the key itself is still there: a key that vanishes grants more.
 */
static void expect_part(const struct config_strings *part, const struct config_strings *whole,
                        size_t cut)
{
    cr_expect_eq(part->count == 0, whole->count == 0, "cut at %zu", cut);
    for (size_t i = 0; i < part->count; i++) {
        cr_expect(has_text(whole, part->items[i]), "cut at %zu gives %s", cut, part->items[i]);
    }
}

static void expect_no_more(const struct config *part, const struct config *whole, size_t cut)
{
    cr_expect_leq(part->sites.count, whole->sites.count);
    for (size_t i = 0; i < part->sites.count; i++) {
        const struct config_site *a = &part->sites.items[i];
        const struct config_site *b = &whole->sites.items[i];

        cr_expect_str_eq(a->id, b->id);
        cr_expect_str_eq(a->keytab, b->keytab);
        expect_part(&a->hosts, &b->hosts, cut);
        cr_expect_leq(a->rules.count, b->rules.count);
        for (size_t j = 0; j < a->rules.count; j++) {
            cr_expect_str_eq(a->rules.items[j].where, b->rules.items[j].where);
            expect_part(&a->rules.items[j].realms, &b->rules.items[j].realms, cut);
            expect_part(&a->rules.items[j].principals, &b->rules.items[j].principals, cut);
        }
    }
}

Test(cut, grants_nothing_that_the_whole_does_not)
{
    struct config *whole = load_good();
    struct place place;
    size_t len = 0;
    size_t loaded = 0;
    char *text = read_good(&len);

    place_open(&place);
    for (size_t cut = 0; cut < len; cut++) {
        struct config *config = NULL;
        struct fault fault = {"", ""};

        place_write(&place, text, cut);
        if (config_load(place.path, &config, &fault) == 0) {
            expect_no_more(config, whole, cut);
            config_free(config);
            loaded++;
        } else {
            cr_expect_null(config);
            cr_expect_neq(fault.what[0], '\0', "cut at %zu", cut);
        }
    }
    /* The file ends with three keys of one line each; before them a cut hits a half site. */
    cr_expect_leq(loaded, 3, "%zu cuts load", loaded);
    place_clear(&place);
    free(text);
    config_free(whole);
}

Test(memory, may_run_out_at_every_allocation)
{
    struct place place;
    size_t len = 0;
    char *text = read_good(&len);
    long nth = 0;
    int r = -1;

    place_open(&place);
    place_write(&place, text, len);
    for (nth = 0; r != 0 && nth < 2000; nth++) {
        struct config *config = NULL;
        struct fault fault = {"", ""};

        allocations_left = nth;
        r = config_load(place.path, &config, &fault);
        allocations_left = -1;
        if (r != 0) {
            cr_expect_null(config);
            cr_expect_not_null(strstr(fault.what, "out of memory"), "allocation %ld: %s", nth,
                               fault.what);
        }
        config_free(config);
    }
    cr_expect_eq(r, 0);
    cr_expect_gt(nth, 200, "only %ld allocations were seen to fail", nth);
    place_clear(&place);
    free(text);
}

Test(find_site, prefers_exact_to_the_longest_suffix_to_any)
{
    static const struct {
        const char *host;
        const char *site; /* NULL: none */
    } rows[] = {
        {"www.example.test", "exact"},
        {"a.intranet.example.test", "long"},
        {"a.b.intranet.example.test", "long"},
        {"intranet.example.test", "short"},
        {"other.example.test", "short"},
        {"xintranet.example.test", "short"},
        {"a.www.example.test", "short"},
        {"example.test", "any"},
        {"xexample.test", "any"},
        {"[::1]", "any"},
        {"[2001:db8::5]", "exact"},
        {"127.0.0.1", "any"},
        {".example.test", "any"},
        {"", NULL},
        {"*", NULL},
        {"*.example.test", NULL},
    };
    struct config *config =
        load_or_fail("listen: [{unix: /s}, {unix: /t, sites: [short]}]\n"
                     "sites:\n"
                     "  - {name: any, hosts: ['*'], keytab: /k}\n"
                     "  - {name: short, hosts: ['*.example.test'], keytab: /k}\n"
                     "  - {name: long, hosts: ['*.intranet.example.test'], keytab: /k}\n"
                     "  - {name: exact, hosts: [www.example.test, '[2001:db8::5]'], keytab: /k}\n");

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct config_site *site =
            config_find_site(config, &config->listeners.items[0], rows[i].host);

        cr_expect_eq(site == NULL, rows[i].site == NULL, "%s", rows[i].host);
        if (site != NULL && rows[i].site != NULL) {
            cr_expect_str_eq(site->id, rows[i].site, "%s", rows[i].host);
        }
    }
    config_free(config);
}

Test(find_site, stays_within_what_the_listener_serves)
{
    struct config *config = load_good();
    const struct config_listener *web = &config->listeners.items[0];
    const struct config_listener *remote = &config->listeners.items[2];
    char host[600];

    cr_assert_str_eq(config_find_site(config, web, "www.example.test")->id, "intranet");
    cr_assert_str_eq(config_find_site(config, web, "wiki.example.test")->id, "wiki");
    cr_assert_str_eq(config_find_site(config, remote, "wiki.example.test")->id, "rest");
    cr_assert_null(config_find_site(config, web, "elsewhere.test"));
    memset(host, 'a', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    cr_assert_null(config_find_site(config, remote, host));
    host[254] = '\0';
    cr_assert_null(config_find_site(config, remote, host));
    host[253] = '\0';
    cr_assert_not_null(config_find_site(config, remote, host));
    config_free(config);
}

Test(find_site, finds_each_of_many)
{
    size_t count = 3000;
    size_t size = count * 64 + 256;
    char *text = calloc(1, size);
    size_t len = (size_t)snprintf(text, size, "listen: [{unix: /s}]\nsites:\n");
    struct config *config = NULL;

    for (size_t i = 0; i < count; i++) {
        len += (size_t)snprintf(text + len, size - len,
                                "- {name: s%zu, hosts: [h%zu.test], keytab: /k}\n", i, i);
    }
    config = load_or_fail(text);
    for (size_t i = 0; i < count; i++) {
        char host[32];

        (void)snprintf(host, sizeof host, "h%zu.test", i);
        cr_assert_eq(config_find_site(config, &config->listeners.items[0], host),
                     &config->sites.items[i]);
    }
    config_free(config);
    free(text);
}

Test(find_site, finds_none_for_a_host_of_two_sites_on_an_inherited_listener)
{
    struct config *config = load_or_fail(
        "listen:\n  - {unix: /s, sites: [two, one]}\n  - {unix: /t, sites: [three]}\n" SITE
        "  - {name: two, hosts: ['*.example.test'], keytab: /k}\n"
        "  - {name: three, hosts: [b.test, a.example.test], keytab: /k}\n");
    size_t all[] = {0, 1, 2};
    const struct config_listener inherited = {.kind = CONFIG_LISTEN_FD, .sites = {all, 3}};

    cr_assert_str_eq(config_find_site(config, &inherited, "b.test")->id, "three");
    cr_assert_str_eq(config_find_site(config, &inherited, "c.example.test")->id, "two");
    cr_assert_null(config_find_site(config, &inherited, "a.example.test"));
    cr_assert_str_eq(config_find_site(config, &config->listeners.items[0], "a.example.test")->id,
                     "one");
    cr_assert_str_eq(config_find_site(config, &config->listeners.items[1], "a.example.test")->id,
                     "three");
    cr_assert_null(config_find_site(config, &config->listeners.items[1], "c.example.test"));
    config_free(config);
}

static void replace_all(char *text, const char *from, const char *to)
{
    cr_assert_eq(strlen(from), strlen(to));
    cr_assert_not_null(strstr(text, from), "%s", from);
    for (char *p = strstr(text, from); p != NULL; p = strstr(p, from)) {
        memcpy(p, to, strlen(to));
    }
}

Test(example, of_deploy_loads_with_every_default_that_it_shows)
{
    struct config *shown = NULL;
    struct config *defaults = load_or_fail(LISTEN SITE);
    struct fault fault = {"", ""};
    char path[512];
    size_t len = 0;
    char *text = NULL;

    (void)snprintf(path, sizeof path, "%s/../../deploy/spnegate.yaml", getenv("TEST_DATA"));
    text = read_file(path, &len);
    /* Accounts that need not be on the machine of the test; same lengths. */
    replace_all(text, "user: spnegate", "user: daemon  ");
    replace_all(text, "group: www-data", "group: daemon  ");
    cr_assert_eq(load_bytes(text, len, &shown, &fault), 0, "%s: %s", fault.where, fault.what);
    cr_expect_str_eq(shown->runtime_dir, defaults->runtime_dir);
    cr_expect_str_eq(shown->state_dir, defaults->state_dir);
    cr_expect_eq(shown->workers, defaults->workers);
    cr_expect_eq(shown->threads, defaults->threads);
    cr_expect_eq(shown->sandbox, defaults->sandbox);
    cr_expect_eq(shown->log_level, defaults->log_level);
    cr_expect_eq(shown->limits.request_bytes, defaults->limits.request_bytes);
    cr_expect_eq(shown->limits.header_bytes, defaults->limits.header_bytes);
    cr_expect_eq(shown->limits.deadline_ms, defaults->limits.deadline_ms);
    cr_expect_eq(shown->limits.connections, defaults->limits.connections);
    cr_expect_eq(shown->limits.waiting, defaults->limits.waiting);
    cr_expect_eq(shown->replay_entries, defaults->replay_entries);
    cr_expect_str_eq(shown->audit.file, defaults->audit.file);
    cr_expect_eq(shown->audit.mode, defaults->audit.mode);
    cr_expect_eq(shown->audit.sync, defaults->audit.sync);
    cr_expect_eq(shown->listeners.items[0].mode, 0660);
    cr_expect_eq(shown->sites.items[0].enctypes, CONFIG_ENCTYPES_STRONG);
    config_free(shown);
    config_free(defaults);
    free(text);
}
