#include "base/secret.h"
#include "serve/control.h"
#include "serve/snapshot.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static char dir[64];
static struct audit *audit;
static struct replay *replay;
static struct metrics *metrics;
static struct crew crew;
static struct snapshot_life life = {.started_s = 1};

static void open_all(void)
{
    char file[96];
    struct fault fault;

    cr_assert_eq(secret_init(), 0);
    strcpy(dir, "/tmp/spnegate-snapshot.XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(file, sizeof file, "%s/audit.jsonl", dir);
    const struct audit_options options = {.file = file, .state_dir = dir, .mode = 0640};
    cr_assert_eq(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault), 0, "%s", fault.what);
    cr_assert_eq(replay_open(dir, 1024, &replay, &fault), 0, "%s", fault.what);
    metrics = metrics_open();
    cr_assert_not_null(metrics);
}

static void close_all(void)
{
    static const char *const files[] = {"audit.jsonl", "audit.key", "audit.head", "replay.table",
                                        "replay.made"};
    char file[96];

    audit_close(audit);
    replay_close(replay);
    metrics_close(metrics);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", dir, files[i]);
        (void)unlink(file);
    }
    (void)rmdir(dir);
}

TestSuite(snapshot, .init = open_all, .fini = close_all);

/* What the supervisor would answer, as a reader of JSON sees it. */
static json_t *take(const struct generation *generation, const char *config_path)
{
    struct buf out = {.max = CONTROL_ANSWER_MAX};
    json_error_t error;
    const struct snapshot snapshot = {.config_path = config_path,
                                      .life = &life,
                                      .generation = generation,
                                      .crew = &crew,
                                      .metrics = metrics,
                                      .audit = audit,
                                      .replay = replay,
                                      .wanted = 2};

    snapshot_format(&snapshot, &out);
    cr_assert_not(out.failed);
    cr_assert_lt(out.len, CONTROL_ANSWER_MAX, "and its LF");
    json_t *root = json_loadb((const char *)out.ptr, out.len, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(root, "%s at byte %d: %.60s", error.text, error.position, out.ptr);
    buf_clear(&out);
    return root;
}

static json_int_t number(const json_t *root, const char *object, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(root, object), key));
}

Test(snapshot, is_whole_before_the_first_generation)
{
    json_t *root = take(NULL, "/etc/spnegate.yaml");

    cr_expect_eq(json_integer_value(json_object_get(root, "v")), 1);
    cr_expect_eq(json_integer_value(json_object_get(root, "pid")), getpid());
    cr_expect_eq(number(root, "audit", "next_seq"), 2, "chain.open and start are written");
    cr_expect_eq(number(root, "generation", "number"), 0);
    cr_expect_eq(json_array_size(json_object_get(root, "sites")), 0);
    cr_expect_eq(json_array_size(json_object_get(root, "problems")), 0);
    json_decref(root);
}

static void problem_is(const char *text)
{
    json_t *root = take(NULL, "/etc/spnegate.yaml");
    const json_t *problems = json_object_get(root, "problems");

    cr_expect_eq(json_array_size(problems), text == NULL ? 0 : 1);
    cr_expect(text == NULL || strstr(json_string_value(json_array_get(problems, 0)), text) != NULL,
              "%s", json_string_value(json_array_get(problems, 0)));
    json_decref(root);
}

Test(snapshot, tells_whether_the_trail_is_sealed)
{
    const struct audit_pace pace = {.seal_ms = 1000};
    const struct rlimit none = {0, RLIM_INFINITY};
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    struct audit_news news;
    json_t *root;
    char file[96];
    FILE *f;

    (void)audit_tick(audit, &pace, 1, &news);
    root = take(NULL, "/etc/spnegate.yaml");
    cr_expect_eq(number(root, "audit", "sealed"), 0);
    cr_expect_eq(number(root, "audit", "unsealed"), 2);
    json_decref(root);
    (void)signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    (void)audit_tick(audit, &pace, 1001, &news);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
    problem_is("cannot be sealed");

    (void)audit_tick(audit, &pace, 10000, &news);
    cr_assert_str_eq(news.fault.what, "");
    problem_is(NULL);
    root = take(NULL, "/etc/spnegate.yaml");
    cr_expect_leq(llabs(number(root, "audit", "sealed") - (json_int_t)time(NULL)), 60);
    cr_expect_eq(number(root, "audit", "unsealed"), 0);
    json_decref(root);

    (void)snprintf(file, sizeof file, "%s/audit.jsonl", dir);
    f = fopen(file, "a");
    cr_assert(f != NULL && fputs("{}\n", f) > 0 && fclose(f) == 0);
    cr_assert_eq(audit_append_event(audit, "audit", "reopen", NULL, NULL), REASON_OK);
    (void)audit_tick(audit, &pace, 20000, &news);
    problem_is("chain_broken, since the start: 1");
    root = take(NULL, "/etc/spnegate.yaml");
    cr_expect_eq(number(root, "audit", "broken"), 1);
    json_decref(root);
}

Test(snapshot, any_bytes_are_a_text)
{
    static const struct {
        const char *bytes;
        const char *text;
    } cases[] = {{"a\"b\\c", "a\"b\\c"},
                 {"\x01\x1f\x7f\n", "\x01\x1f\x7f\n"},
                 {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
                  "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
                 {"\xff", "\xef\xbf\xbd"},
                 {"\x80z", "\xef\xbf\xbdz"},
                 {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
                 {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
                 {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
                 {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
                 {"\xf5\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
                 {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *root = take(NULL, cases[i].bytes);

        cr_expect_str_eq(json_string_value(json_object_get(root, "configuration")), cases[i].text,
                         "%zu", i);
        json_decref(root);
    }
}

Test(snapshot, a_long_text_is_cut_on_a_code_point)
{
    char text[1024] = "x";

    for (size_t i = 1; i + 2 < sizeof text; i += 2) {
        memcpy(text + i, "\xc3\xbc", 3);
    }
    json_t *root = take(NULL, text);
    cr_expect_eq(json_string_length(json_object_get(root, "configuration")), 511);
    json_decref(root);
}

Test(snapshot, numbers_that_a_worker_made_up_are_still_numbers)
{
    crew.workers[0] = (struct crew_worker){.state = CREW_SERVING, .pid = 1};
    crew.workers[1] = crew.workers[0];
    (void)metrics_claim_listener(metrics, "/run/one.sock");
    for (unsigned slot = 0; slot < METRICS_LISTENER_COUNT; slot++) {
        metrics_disconnect(metrics, 0, slot); /* below zero: more than there can be */
        metrics_disconnect(metrics, 1, slot);
    }
    json_t *root = take(NULL, "");
    const json_t *list = json_object_get(root, "listeners");
    cr_assert_eq(json_array_size(list), 1);
    cr_expect_geq(json_integer_value(json_object_get(json_array_get(list, 0), "connections")), 0);
    json_decref(root);
    memset(&crew, 0, sizeof crew);
}

enum { MANY = 20000 };

Test(snapshot, of_more_sites_than_fit_it_shows_some_and_says_so)
{
    static const size_t counts[] = {3, 5000, MANY};
    static struct config config;
    static struct config_site sites[MANY];
    static struct keytab *keytabs[MANY];
    static struct generation_keytab loaded[MANY];
    static unsigned slots[MANY];
    static char ids[MANY][16];
    static char path[] = "/etc/spnegate/a-keytab-with-a-path-of-some-length/http.keytab";
    static char file[] = "audit.jsonl";
    static char principal[] = "HTTP/www.example.test@EXAMPLE.TEST";
    static struct keytab keytab;
    struct generation generation = {
        .number = 1, .config = &config, .keytabs = keytabs, .loaded = loaded, .site_slots = slots};

    config.sites.items = sites;
    config.audit.file = file;
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "site%u", i);
        sites[i] = (struct config_site){.id = ids[i], .keytab = path};
        keytabs[i] = i == 1 ? NULL : &keytab;
        loaded[i] = (struct generation_keytab){
            .count = 2, .newest = {{principal, 7}, {"host/www.example.test@EXAMPLE.TEST", 8}}};
    }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        config.sites.count = counts[i];
        generation_claim(&generation, metrics);
        metrics_count_decision(metrics, slots[2], REASON_REPLAY, 1);
        json_t *root = take(&generation, "");
        const json_t *list = json_object_get(root, "sites");
        const json_t *third = json_array_get(list, 2);
        const size_t shown = json_array_size(list);

        cr_expect_eq(json_is_true(json_object_get(root, "sites_cut")), counts[i] == MANY);
        cr_expect_eq(shown == counts[i], counts[i] != MANY, "%zu of %zu", shown, counts[i]);
        cr_expect_gt(shown, counts[i] == MANY ? 5000 : 0);
        cr_expect_eq(number(third, "decisions", "replay"), (json_int_t)i + 1);
        cr_expect_eq(json_integer_value(json_object_get(
                         json_object_get(json_object_get(third, "keytab"), "newest"), principal)),
                     7);
        cr_expect_str_eq(json_string_value(json_array_get(json_object_get(root, "problems"), 0)),
                         "sites without a keytab: 1, the first is site1");
        json_decref(root);
    }
}

Test(snapshot, a_site_that_is_gone_is_shown_as_long_as_it_counts)
{
    const unsigned slot = metrics_claim_site(metrics, "gone");

    (void)metrics_claim_site(metrics, "never asked for");
    metrics_count_decision(metrics, slot, REASON_OK, 60);
    metrics_count_decision(metrics, METRICS_SITE_NONE, REASON_NO_HOST, 60);
    metrics_count_decision(metrics, METRICS_SITE_OTHER, REASON_NTLM, 60);
    json_t *root = take(NULL, "");
    const json_t *list = json_object_get(root, "sites");
    cr_assert_eq(json_array_size(list), 1);
    cr_expect(json_is_true(json_object_get(json_array_get(list, 0), "gone")));
    cr_expect_eq(number(json_array_get(list, 0), "decisions", "ok"), 1);
    cr_expect_eq(number(root, "no_site", "no_host"), 1);
    cr_expect_eq(number(root, "other_sites", "ntlm"), 1);
    json_decref(root);
}
