#include "base/reason.h"
#include "trail/audit.h"
#include "trail/audit_format.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The framework's own takes a microsecond even where it holds. */
#define require(truth, ...)                                                                        \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            cr_assert_fail(__VA_ARGS__);                                                           \
        }                                                                                          \
    } while (0)

enum { ALONE_SURE = 3000 }; /* what a text is sure of that is the only one */

static const char chain_id[] = "0123456789abcdef";

/* The texts of a record, in the order of the line. */
static const struct text {
    const char *key;
    size_t offset;
    size_t max;
    size_t sure; /* bytes of output that nobody can take away */
} texts[] = {
    {"gss_text", offsetof(struct audit_record, gss_text), 256, 64},
    {"ticket_realm", offsetof(struct audit_record, ticket_realm), 256, 64},
    {"keytab_has", offsetof(struct audit_record, keytab_has), 256, 64},
    {"principal", offsetof(struct audit_record, principal), 256, 256},
    {"user", offsetof(struct audit_record, user), 256, 256},
    {"service", offsetof(struct audit_record, service), 256, 128},
    {"claimed_service", offsetof(struct audit_record, claimed_service), 256, 96},
    {"claimed_enctype", offsetof(struct audit_record, claimed_enctype), 256, 32},
    {"enctype", offsetof(struct audit_record, enctype), 256, 32},
    {"site", offsetof(struct audit_record, site), 256, 64},
    {"rule", offsetof(struct audit_record, rule), 256, 96},
    {"server", offsetof(struct audit_record, server), 256, 48},
    {"sock", offsetof(struct audit_record, sock), 256, 108},
    {"peer", offsetof(struct audit_record, peer), 256, 64},
    {"http_method", offsetof(struct audit_record, http_method), 256, 32},
    {"host", offsetof(struct audit_record, host), 256, 256},
    {"uri", offsetof(struct audit_record, uri), 512, 256},
    {"req", offsetof(struct audit_record, request_id), 64, 64},
    {"trace", offsetof(struct audit_record, trace), 32, 32},
    {"token_fp", offsetof(struct audit_record, token_fp), 16, 16},
};
enum { TEXTS = sizeof(texts) / sizeof(texts[0]) };

static struct span *text_of(struct audit_record *record, const struct text *text)
{
    return (struct span *)((char *)record + text->offset);
}

static struct audit_record record_empty(void)
{
    struct audit_record record;

    audit_record_init(&record);
    record.reason = REASON_OK;
    record.time_us = UINT64_C(1763755863123456);
    return record;
}

/* Formats, looks at the bytes, closes the line, and parses it. The caller frees it. */
static json_t *parse(const struct audit_record *record, const char *node, size_t *len_out)
{
    char line[AUDIT_RECORD_MAX];
    json_error_t error;
    json_t *object;
    size_t len;

    memset(line, 'X', sizeof(line));
    len = audit_format(line, 7, chain_id, node, record);
    cr_assert_leq(len, AUDIT_RECORD_MAX - 73);
    for (size_t i = 0; i < len; i++) {
        require(line[i] >= 0x20 && line[i] < 0x7f, "byte %zu is %d", i, line[i]);
    }
    if (len < sizeof(line)) {
        cr_assert(line[len] == 'X', "nothing is written past the end");
    }
    line[len] = '}';
    object = json_loadb(line, len + 1, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    cr_assert(object != NULL, "%s: %.*s", error.text, (int)len + 1, line);
    if (len_out != NULL) {
        *len_out = len;
    }
    return object;
}

static bool listed(const json_t *object, const char *list, const char *key)
{
    const json_t *names = json_object_get(object, list);
    size_t i;
    const json_t *item;

    json_array_foreach(names, i, item)
    {
        if (strcmp(json_string_value(item), key) == 0) {
            return true;
        }
    }
    return false;
}

static void expect_keys(json_t *object, const char *expected)
{
    char keys[2048] = "";
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        strcat(keys, key);
        strcat(keys, " ");
    }
    cr_expect_str_eq(keys, expected);
}

static void expect_text(const json_t *object, const char *key, const char *value)
{
    const char *found = json_string_value(json_object_get(object, key));

    cr_expect(found != NULL && strcmp(found, value) == 0, "%s is %s, not %s", key,
              found == NULL ? "absent" : found, value);
}

static void expect_number(const json_t *object, const char *key, json_int_t value)
{
    const json_t *found = json_object_get(object, key);

    cr_expect(json_is_integer(found) && json_integer_value(found) == value, "%s is %lld", key,
              (long long)json_integer_value(found));
}

Test(format, leaves_out_what_is_absent)
{
    struct audit_record record = record_empty();
    json_t *object = parse(&record, "web1", NULL);

    expect_keys(object, "v seq ts chain node event outcome reason status ");
    expect_number(object, "v", 1);
    expect_number(object, "seq", 7);
    expect_text(object, "ts", "2025-11-21T20:11:03.123456Z");
    expect_text(object, "chain", chain_id);
    expect_text(object, "node", "web1");
    expect_text(object, "event", "auth");
    expect_text(object, "outcome", "granted");
    expect_text(object, "reason", "ok");
    expect_number(object, "status", 200);
    json_decref(object);
}

Test(format, writes_every_field_in_the_fixed_order)
{
    struct audit_record record = record_empty();
    json_t *object;

    record.reason = REASON_UNKNOWN_KVNO;
    record.method = "negotiate";
    record.mech = "krb5";
    record.cb = "matched";
    record.has_gss = true;
    record.gss_major = 0xffffffff;
    record.gss_minor = INT32_MIN;
    record.ticket_end_s = 1763791200;
    record.kvno = 0;
    record.kvno_newest = INT64_MAX;
    record.expired_s = 0;
    record.has_skew = true;
    record.skew_s = INT64_MIN;
    record.mutual = AUDIT_TRUE;
    record.deleg = AUDIT_FALSE;
    record.repeat_of = 41;
    record.claimed_kvno = 3;
    record.peer_port = 51514;
    record.tls = AUDIT_TRUE;
    record.us = 412;
    for (size_t i = 0; i < TEXTS; i++) {
        *text_of(&record, &texts[i]) = span_of(texts[i].key);
    }
    record.peer = span_of("127.0.0.1");
    object = parse(&record, "web1", NULL);
    expect_keys(
        object,
        "v seq ts chain node event outcome reason status method mech gss_major gss_minor "
        "gss_text ticket_realm ticket_end kvno kvno_newest keytab_has expired_s skew_s "
        "mutual deleg repeat_of principal user service claimed_service claimed_kvno "
        "claimed_enctype enctype cb site rule server sock peer peer_port tls http_method host "
        "uri req trace token_fp us ");
    for (size_t i = 0; i < TEXTS; i++) {
        expect_text(object, texts[i].key,
                    strcmp(texts[i].key, "peer") == 0 ? "127.0.0.1" : texts[i].key);
    }
    expect_text(object, "outcome", "failed");
    expect_text(object, "reason", "unknown_kvno");
    expect_number(object, "status", 401);
    expect_text(object, "method", "negotiate");
    expect_text(object, "mech", "krb5");
    expect_text(object, "cb", "matched");
    expect_number(object, "gss_major", 0xffffffffLL);
    expect_number(object, "gss_minor", INT32_MIN);
    expect_text(object, "ticket_end", "2025-11-22T06:00:00Z");
    expect_number(object, "kvno", 0);
    expect_number(object, "kvno_newest", INT64_MAX);
    expect_number(object, "expired_s", 0);
    expect_number(object, "skew_s", INT64_MIN);
    cr_expect(json_is_true(json_object_get(object, "mutual")));
    cr_expect(json_is_false(json_object_get(object, "deleg")));
    expect_number(object, "repeat_of", 41);
    expect_number(object, "claimed_kvno", 3);
    expect_number(object, "peer_port", 51514);
    cr_expect(json_is_true(json_object_get(object, "tls")));
    expect_number(object, "us", 412);
    json_decref(object);
}

Test(format, writes_each_text_alone)
{
    for (size_t i = 0; i < TEXTS; i++) {
        struct audit_record record = record_empty();
        char keys[128];
        json_t *object;

        *text_of(&record, &texts[i]) = span_of("::1");
        object = parse(&record, "web1", NULL);
        snprintf(keys, sizeof(keys), "v seq ts chain node event outcome reason status %s ",
                 texts[i].key);
        expect_keys(object, keys);
        expect_text(object, texts[i].key, "::1");
        json_decref(object);
    }
}

Test(format, tells_empty_from_absent)
{
    struct audit_record record = record_empty();
    json_t *object;

    record.host = span_of("");
    object = parse(&record, "web1", NULL);
    expect_text(object, "host", "");
    json_decref(object);
}

Test(format, knows_every_reason)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        struct audit_record record = record_empty();
        json_t *object;

        record.reason = (enum reason)i;
        object = parse(&record, "web1", NULL);
        expect_text(object, "reason", reason_info((enum reason)i)->code);
        expect_text(object, "outcome", outcome_text(reason_info((enum reason)i)->outcome));
        expect_number(object, "status", reason_info((enum reason)i)->status);
        json_decref(object);
    }
}

Test(format, writes_the_date_of_any_second_as_the_c_library_does)
{
    static const uint64_t seconds[] = {1,          951782399,  951782400,  951868800,   1709164800,
                                       1735689599, 1735689600, 4107542400, 253402300799};

    for (size_t i = 0; i < 20000 + sizeof(seconds) / sizeof(seconds[0]); i++) {
        struct audit_record record = record_empty();
        uint64_t s = i < 20000 ? 1 + i * 12670115 : seconds[i - 20000];
        time_t t = (time_t)s;
        char expected[64];
        char line[AUDIT_RECORD_MAX];
        struct tm tm;

        strftime(expected, sizeof(expected), "\"ts\":\"%Y-%m-%dT%H:%M:%S.000009Z\"",
                 gmtime_r(&t, &tm));
        record.time_us = s * 1000000 + 9;
        line[audit_format(line, 1, chain_id, "n", &record)] = '\0';
        cr_assert(strstr(line, expected) != NULL, "%s: %s", expected, line);
    }
}

Test(format, holds_a_clock_past_the_year_9999_to_its_last_second)
{
    struct audit_record record = record_empty();
    json_t *object;

    record.time_us = UINT64_MAX;
    record.ticket_end_s = UINT64_MAX;
    object = parse(&record, "web1", NULL);
    expect_text(object, "ts", "9999-12-31T23:59:59.551615Z");
    expect_text(object, "ticket_end", "9999-12-31T23:59:59Z");
    json_decref(object);
}

/*
 * One well-formed UTF-8 sequence by the table of well-formed byte sequences; 0 when there is none.
 */
static size_t sequence(const unsigned char *p, size_t len)
{
    static const struct {
        unsigned char first, last, low, high;
        size_t length;
    } rows[] = {
        {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};

    if (p[0] < 0x80) {
        return 1; /* the first row, without looking for it */
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (p[0] < rows[i].first || p[0] > rows[i].last) {
            continue;
        }
        if (rows[i].length > len) {
            return 0;
        }
        for (size_t k = 1; k < rows[i].length; k++) {
            unsigned char low = k == 1 ? rows[i].low : 0x80;
            unsigned char high = k == 1 ? rows[i].high : 0xbf;

            if (p[k] < low || p[k] > high) {
                return 0;
            }
        }
        return rows[i].length;
    }
    return 0;
}

/* How many bytes a code point takes in a line, by what JSON must and we want to escape. */
static size_t cost(const char *p, size_t len)
{
    if (len == 1) {
        return *p == '"' || *p == '\\' ? 2 : *p < 0x20 || *p == 0x7f ? 6 : 1;
    }
    return len == 4 ? 12 : 6;
}

/*
 * Checks one text of a parsed record against the input: a repaired beginning of it that ends on a
 * code point, the whole when it is not in `cut`, and not shorter than what it is sure of: `alone`
 * that is more, but beside long numbers not all that one of escapes may need.
 */
static void check_text(const json_t *object, const char *key, struct span in, size_t max,
                       size_t sure, bool alone)
{
    const json_t *value = json_object_get(object, key);
    const char *got = json_string_value(value);
    size_t got_len = json_string_length(value);
    size_t at = 0;
    size_t out = 0;
    size_t spent = 0;
    bool repaired = false;
    size_t used = 0;

    cr_assert(json_is_string(value), "%s is missing", key);
    while (out < got_len) {
        require(at < in.len, "%s is longer than its input", key);
        used = sequence(in.ptr + at, in.len - at);
        if (used == 0) {
            require(out + 3 <= got_len && memcmp(got + out, "\xef\xbf\xbd", 3) == 0,
                    "%s: byte %zu is not repaired", key, at);
            repaired = true;
            spent += 6;
            out += 3;
            at += 1;
        } else {
            require(out + used <= got_len && memcmp(got + out, in.ptr + at, used) == 0,
                    "%s: byte %zu is altered", key, at);
            spent += cost(got + out, used);
            out += used;
            at += used;
        }
    }
    cr_assert(at <= max, "%s: %zu of %zu bytes", key, at, max);
    cr_assert_eq(listed(object, "mangled", key), repaired, "%s repaired: %d", key, repaired);
    cr_assert_eq(listed(object, "cut", key), at < in.len, "%s: %zu of %zu bytes", key, at, in.len);
    if (at < in.len) {
        used = sequence(in.ptr + at, in.len - at);
        cr_assert(at + (used == 0 ? 1 : used) > max || spent + 12 > (alone ? ALONE_SURE : sure),
                  "%s is cut after %zu bytes for nothing", key, at);
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t fill_random(unsigned char *out, size_t size, uint64_t *state)
{
    static const char *const pieces[] = {
        "a",        "\"",       "\\",           "\xc3\xa9",     "\xe2\x82\xac", "\xf0\x9f\x98\x80",
        "\xc0\xaf", "\xe0\x80", "\xed\xa0\x80", "\xf4\x90\x80", "\xef\xbf\xbd", "\xe2\x80\xae",
        "\x7f",     "\n",       "\x1b[2J",      "\xc2\x9b",     "\xff",         "\xf0\x9f\x98"};
    static const size_t lengths[] = {0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 513};
    size_t want =
        next_random(state) % 2 == 0 ? lengths[next_random(state) % 14] : next_random(state) % size;
    unsigned kind = (unsigned)(next_random(state) % 4);
    size_t len = 0;

    while (len < want && len + 8 < size) {
        const char *piece = pieces[next_random(state) % (sizeof(pieces) / sizeof(pieces[0]))];

        if (kind == 0) {
            out[len++] = (unsigned char)next_random(state);
        } else if (kind == 1) {
            out[len++] = (unsigned char)(0x20 + next_random(state) % 0x5f);
        } else if (kind == 2) {
            memcpy(out + len, piece, strlen(piece));
            len += strlen(piece);
        } else {
            out[len++] = 0;
        }
    }
    return len;
}

static bool request_id_ok(struct span s)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-";

    for (size_t i = 0; i < s.len; i++) {
        if (memchr(allowed, s.ptr[i], sizeof(allowed) - 1) == NULL) {
            return false;
        }
    }
    return s.len > 0 && s.len <= 64;
}

static struct span before_any(struct span s, const char *stop)
{
    size_t i = 0;

    while (i < s.len && (s.ptr[i] == '\0' || strchr(stop, s.ptr[i]) == NULL)) {
        i++;
    }
    return span_make(s.ptr, i);
}

static void check_random(struct audit_record *record, const json_t *object, bool alone)
{
    for (size_t i = 0; i < TEXTS; i++) {
        struct span in = *text_of(record, &texts[i]);
        const char *key = texts[i].key;

        if (in.ptr == NULL) {
            cr_assert(json_object_get(object, key) == NULL);
        } else if (strcmp(key, "req") == 0 && !request_id_ok(in)) {
            cr_assert(json_object_get(object, key) == NULL);
            cr_assert(listed(object, "mangled", key));
        } else if (strcmp(key, "peer") == 0) {
            /* Never an address here. */
            cr_assert(listed(object, "mangled", key));
        } else {
            in = strcmp(key, "uri") == 0      ? before_any(in, "?#")
                 : strcmp(key, "server") == 0 ? before_any(in, " ")
                                              : in;
            check_text(object, key, in, texts[i].max, texts[i].sure, alone);
        }
    }
}

/* Numbers and booleans of any value, each there or not; `expect` says what jansson must read. */
static void fill_numbers(struct audit_record *record, uint64_t *state, json_t *expect)
{
    const struct {
        const char *key;
        int64_t *member;
    } counts[] = {{"kvno", &record->kvno},
                  {"kvno_newest", &record->kvno_newest},
                  {"expired_s", &record->expired_s},
                  {"claimed_kvno", &record->claimed_kvno},
                  {"peer_port", &record->peer_port}};
    const struct {
        const char *key;
        enum audit_bool *member;
    } bools[] = {{"mutual", &record->mutual}, {"deleg", &record->deleg}, {"tls", &record->tls}};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        if (next_random(state) % 2 == 0) {
            *counts[i].member = (int64_t)(next_random(state) >> (1 + next_random(state) % 63));
            json_object_set_new(expect, counts[i].key, json_integer(*counts[i].member));
        }
    }
    for (size_t i = 0; i < sizeof(bools) / sizeof(bools[0]); i++) {
        *bools[i].member = (enum audit_bool)(next_random(state) % 3);
        if (*bools[i].member != AUDIT_ABSENT) {
            json_object_set_new(expect, bools[i].key, json_boolean(*bools[i].member == AUDIT_TRUE));
        }
    }
    record->has_gss = next_random(state) % 2 == 0;
    record->gss_major = (uint32_t)next_random(state);
    record->gss_minor = (int32_t)next_random(state);
    record->has_skew = next_random(state) % 2 == 0;
    record->skew_s = (int64_t)next_random(state) >> next_random(state) % 63;
    record->repeat_of = next_random(state) % 2 * (next_random(state) >> 1);
    if (record->has_gss) {
        json_object_set_new(expect, "gss_major", json_integer(record->gss_major));
        json_object_set_new(expect, "gss_minor", json_integer(record->gss_minor));
    }
    if (record->has_skew) {
        json_object_set_new(expect, "skew_s", json_integer(record->skew_s));
    }
    if (record->repeat_of != 0) {
        json_object_set_new(expect, "repeat_of", json_integer((json_int_t)record->repeat_of));
    }
}

/* What is no text in a record, against what was put there. */
static void check_numbers(const json_t *object, const json_t *expect)
{
    static const char *const keys[] = {"kvno",      "kvno_newest", "expired_s", "claimed_kvno",
                                       "peer_port", "mutual",      "deleg",     "tls",
                                       "gss_major", "gss_minor",   "skew_s",    "repeat_of"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const json_t *found = json_object_get(object, keys[i]);
        const json_t *wanted = json_object_get(expect, keys[i]);

        cr_assert((found == NULL && wanted == NULL) || json_equal(found, wanted), "%s", keys[i]);
    }
}

/* The longest text of what needs the most, with every number there and as long as it gets. */
Test(format, a_text_alone_is_sure_of_most_of_the_line)
{
    static const unsigned char zeros[600];
    struct audit_record record = record_empty();
    const json_t *uri;
    json_t *object;

    record.kvno = record.kvno_newest = record.expired_s = record.claimed_kvno = INT64_MAX;
    record.peer_port = record.us = INT64_MAX;
    record.mutual = record.deleg = record.tls = AUDIT_FALSE;
    record.has_gss = record.has_skew = true;
    record.gss_major = UINT32_MAX;
    record.gss_minor = INT32_MIN;
    record.skew_s = INT64_MIN;
    record.repeat_of = UINT64_MAX >> 1;
    record.uri = span_make(zeros, sizeof(zeros));
    object = parse(&record, "web1", NULL);
    uri = json_object_get(object, "uri");
    cr_assert_geq(json_string_length(uri) * 6 + 12, ALONE_SURE, "%zu", json_string_length(uri));
    cr_assert(listed(object, "cut", "uri"));
    json_decref(object);
}

/* Long: ten million random records, which take half an hour */
Test(format, survives_random_bytes_in_every_text, .timeout = 20000)
{
    const unsigned rounds = getenv("SPNEGATE_LONG") != NULL ? 10000000 : 6000;
    static unsigned char bytes[TEXTS][700];
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

    for (unsigned round = 0; round < rounds; round++) {
        struct audit_record record = record_empty();
        size_t only = round % 2 == 0 ? round / 2 % TEXTS : TEXTS;
        json_t *expect = json_object();
        json_t *object;

        for (size_t i = 0; i < TEXTS; i++) {
            if (only == TEXTS || only == i) {
                size_t len = fill_random(bytes[i], sizeof(bytes[i]), &state);
                *text_of(&record, &texts[i]) = span_make(bytes[i], len);
            }
        }
        record.us = 1;
        fill_numbers(&record, &state, expect);
        object = parse(&record, "web1", NULL);
        check_random(&record, object, only != TEXTS);
        check_numbers(object, expect);
        expect_number(object, "us", 1);
        json_decref(object);
        json_decref(expect);
    }
}

Test(format, gives_every_field_its_share_of_the_worst_record)
{
    static unsigned char bad[1024];
    struct audit_record record = record_empty();
    char node[256];
    size_t len;
    json_t *object;

    memset(bad, 0xff, sizeof(bad));
    memset(node, 0xff, sizeof(node) - 1);
    node[sizeof(node) - 1] = '\0';
    for (size_t i = 0; i < TEXTS; i++) {
        *text_of(&record, &texts[i]) = span_make(bad, sizeof(bad));
    }
    record.method = node;
    record.mech = node;
    record.cb = node;
    record.has_gss = record.has_skew = true;
    record.gss_major = UINT32_MAX;
    record.gss_minor = INT32_MIN;
    record.skew_s = INT64_MIN;
    record.ticket_end_s = record.repeat_of = record.time_us = UINT64_MAX;
    record.repeat_of = INT64_MAX; /* all that jansson reads */
    record.kvno = record.kvno_newest = record.expired_s = record.claimed_kvno = INT64_MAX;
    record.peer_port = record.us = INT64_MAX;
    record.mutual = record.deleg = record.tls = AUDIT_FALSE;
    object = parse(&record, node, &len);
    for (size_t i = 0; i < TEXTS; i++) {
        const char *key = texts[i].key;

        if (strcmp(key, "req") != 0) {
            check_text(object, key, span_make(bad, sizeof(bad)), texts[i].max, texts[i].sure,
                       false);
        }
        cr_expect(listed(object, "mangled", key), "%s", key);
    }
    expect_number(object, "us", INT64_MAX);
    expect_number(object, "peer_port", INT64_MAX);
    cr_expect(listed(object, "cut", "node") && listed(object, "mangled", "node"));
    cr_expect(listed(object, "cut", "method") && listed(object, "mangled", "mech"));
    cr_expect_gt(len, 3500);
    json_decref(object);
}

Test(format, gives_every_field_its_share_of_records_of_any_length)
{
    static unsigned char bad[600];

    memset(bad, 0xff, sizeof(bad));
    for (size_t len = 0; len < sizeof(bad); len++) {
        struct audit_record record = record_empty();
        json_t *object;

        for (size_t i = 0; i < TEXTS; i++) {
            *text_of(&record, &texts[i]) = span_make(bad, len);
        }
        record.us = 1;
        object = parse(&record, "web1", NULL);
        for (size_t i = 0; i < TEXTS; i++) {
            if (strcmp(texts[i].key, "req") != 0 &&
                (len > 0 || strcmp(texts[i].key, "peer") != 0)) {
                check_text(object, texts[i].key, span_make(bad, len), texts[i].max, texts[i].sure,
                           false);
            }
        }
        expect_number(object, "us", 1);
        json_decref(object);
    }
}

Test(format, writes_nul_as_an_escape)
{
    struct audit_record record = record_empty();
    char line[AUDIT_RECORD_MAX];

    record.host = span_make("a\0b\x7f", 4);
    line[audit_format(line, 1, chain_id, "n", &record)] = '\0';
    cr_expect(strstr(line, ",\"host\":\"a\\u0000b\\u007f\"") != NULL, "%s", line);
}

Test(format, takes_256_bytes_of_a_text_and_512_of_a_uri)
{
    static const struct {
        size_t len;
        bool cut;
    } rows[] = {{255, false}, {256, false}, {257, true}};
    char text[600];

    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct audit_record record = record_empty();
        json_t *object;

        record.host = span_make(text, rows[i].len);
        record.uri = span_make(text, 2 * rows[i].len);
        object = parse(&record, "n", NULL);
        cr_expect_eq(listed(object, "cut", "host"), rows[i].cut);
        cr_expect_eq(listed(object, "cut", "uri"), rows[i].cut);
        cr_expect_eq(json_string_length(json_object_get(object, "uri")),
                     rows[i].cut ? 512 : 2 * rows[i].len);
        json_decref(object);
    }
}

Test(format, never_cuts_within_a_code_point)
{
    struct audit_record record = record_empty();
    char text[300];
    json_t *object;

    memset(text, 'a', sizeof(text));
    memcpy(text + 254, "\xe2\x82\xac", 3);
    record.host = span_make(text, 260);
    object = parse(&record, "n", NULL);
    cr_expect_eq(json_string_length(json_object_get(object, "host")), 254);
    cr_expect(listed(object, "cut", "host"));
    cr_expect_not(listed(object, "mangled", "host"));
    json_decref(object);
}

Test(format, treats_some_fields_in_their_own_way)
{
    static const struct {
        const char *key;
        const char *in;
        const char *out; /* NULL: left out */
        bool mangled;
        const char *why;
    } rows[] = {
        {"uri", "/a?b=c", "/a", false, "no query"},
        {"uri", "/a#b?c", "/a", false, "no fragment"},
        {"uri", "/a?b#c", "/a", false, "no query with a fragment"},
        {"uri", "?x", "", false, "nothing but a query"},
        {"server", "lighttpd/1.4.69 (x)", "lighttpd/1.4.69", false, "up to the first space"},
        {"peer", "127.0.0.1", "127.0.0.1", false, "IPv4 as it is"},
        {"peer", "0:0:0:0:0:0:0:1", "::1", false, "IPv6 shortened"},
        {"peer", "2001:DB8::00A", "2001:db8::a", false, "IPv6 in lower case"},
        {"peer", "127.0.0.01", "127.0.0.01", true, "no IPv4"},
        {"peer", "127.0.0.1 ", "127.0.0.1 ", true, "bytes after it"},
        {"peer", "unix:", "unix:", true, "no address"},
        {"peer", "", "", true, "empty"},
        {"peer", "fe80::1%lo", "fe80::1%lo", true, "an interface"},
        {"req", "01JD-a.b_c:d@e", "01JD-a.b_c:d@e", false, "all that is allowed"},
        {"req", "", NULL, true, "empty"},
        {"req", "a b", NULL, true, "a space"},
        {"req", "a\"", NULL, true, "a quote"},
        {"req", "a\xc3\xa9", NULL, true, "not ASCII"},
        {"req", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false, "64 bytes"},
        {"req", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL, true,
         "65 bytes"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct audit_record record = record_empty();
        const char *out;
        json_t *object;

        for (size_t k = 0; k < TEXTS; k++) {
            if (strcmp(texts[k].key, rows[i].key) == 0) {
                *text_of(&record, &texts[k]) = span_of(rows[i].in);
            }
        }
        object = parse(&record, "n", NULL);
        out = json_string_value(json_object_get(object, rows[i].key));
        cr_expect((out == NULL) == (rows[i].out == NULL) &&
                      (out == NULL || strcmp(out, rows[i].out) == 0),
                  "%s: %s", rows[i].why, out == NULL ? "absent" : out);
        cr_expect_eq(listed(object, "mangled", rows[i].key), rows[i].mangled, "%s", rows[i].why);
        cr_expect_not(listed(object, "cut", rows[i].key), "%s", rows[i].why);
        json_decref(object);
    }
}

Test(format, refuses_a_request_id_with_nul)
{
    struct audit_record record = record_empty();
    json_t *object;

    record.request_id = span_make("a\0b", 3);
    object = parse(&record, "n", NULL);
    cr_expect(json_object_get(object, "req") == NULL && listed(object, "mangled", "req"));
    json_decref(object);
}

Test(format, writes_an_event_with_the_worst_texts)
{
    char line[AUDIT_RECORD_MAX];
    static char bad[2000];
    const struct audit_format_u64 most = {true, INT64_MAX};
    struct audit_format_event event = {.time_us = 1,
                                       .mono_ms = INT64_MAX,
                                       .pid = INT64_MAX,
                                       .uid = most,
                                       .clean = AUDIT_FALSE,
                                       .prev_seq = most,
                                       .epoch = most,
                                       .from = most,
                                       .n = INT64_MAX,
                                       .first_us = UINT64_MAX,
                                       .last_us = UINT64_MAX,
                                       .torn_bytes = most,
                                       .lost_from = most};
    json_t *object;
    size_t len;

    memset(bad, 0xff, sizeof(bad));
    event.event = event.action = event.result = event.detail = span_make(bad, sizeof(bad));
    event.prev_h = event.torn_sha256 = event.lost_h = span_make(bad, sizeof(bad));
    event.site = event.reason = event.version = event.boot_id = span_make(bad, sizeof(bad));
    event.pk = event.next_pk = span_make(bad, sizeof(bad));
    len = audit_format_event(line, INT64_MAX, chain_id, "web1", &event);
    cr_assert_leq(len, FORMAT_BODY_MAX);
    line[len] = '}';
    object = json_loadb(line, len + 1, JSON_REJECT_DUPLICATES, NULL);
    cr_assert(object != NULL);
    expect_keys(object, "v seq ts chain node event mono site reason action result detail version "
                        "pid uid boot_id clean prev_seq prev_h epoch pk from n next_pk first_ts "
                        "last_ts torn_bytes torn_sha256 lost_from lost_h cut mangled ");
    expect_text(object, "last_ts", "9999-12-31T23:59:59.551615Z");
    cr_expect(json_is_false(json_object_get(object, "clean")));
    expect_number(object, "torn_bytes", INT64_MAX);
    cr_expect(listed(object, "cut", "detail") && listed(object, "mangled", "torn_sha256"));
    json_decref(object);
}

Test(format, writes_an_event_without_what_is_absent)
{
    char line[AUDIT_RECORD_MAX];
    struct audit_format_event event = {.event = span_of("keytab"), .action = span_of("changed")};
    size_t len = audit_format_event(line, 3, chain_id, "web1", &event);

    line[len] = '\0';
    cr_expect_str_eq(line, "{\"v\":1,\"seq\":3,\"ts\":\"1970-01-01T00:00:00.000000Z\","
                           "\"chain\":\"0123456789abcdef\",\"node\":\"web1\","
                           "\"event\":\"keytab\",\"action\":\"changed\"");
}
