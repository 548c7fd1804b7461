#include "cmd/audit_show.h"

#include "base/log.h"
#include "base/reason.h"
#include "trail/verify.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { QUOTE_BYTES = 2600, STRAY_SHOWN = 300 };

static json_t *parse(const char *line, size_t len)
{
    json_t *record = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

    if (!json_is_object(record) || !json_is_string(json_object_get(record, "event"))) {
        json_decref(record);
        return NULL;
    }
    return record;
}

static bool is(const json_t *record, const char *field, const char *text)
{
    const json_t *value = json_object_get(record, field);

    return json_is_string(value) && json_string_length(value) == strlen(text) &&
           strcmp(json_string_value(value), text) == 0;
}

/* Seconds of its time, or what is later than everything when it has none. */
static uint64_t seconds_of(const json_t *record)
{
    const json_t *ts = json_object_get(record, "ts");

    for (size_t i = 0; json_is_string(ts) && i < VERIFY_TS_BYTES - 1; i++) {
        const char form = "dddd-dd-ddTdd:dd:dd.ddddddZ"[i];
        const char c = json_string_value(ts)[i];

        if (form == 'd' ? c < '0' || c > '9' : c != form) {
            return UINT64_MAX;
        }
    }
    return json_is_string(ts) ? verify_seconds(json_string_value(ts)) : UINT64_MAX;
}

static bool wanted(const struct audit_show_filter *filter, const json_t *record)
{
    return (filter->user == NULL || is(record, "user", filter->user) ||
            is(record, "principal", filter->user)) &&
           (filter->reason == NULL || is(record, "reason", filter->reason)) &&
           (filter->site == NULL || is(record, "site", filter->site));
}

enum audit_show_match audit_show_match(const struct audit_show_filter *filter, const char *line,
                                       size_t len)
{
    json_t *record = parse(line, len);
    enum audit_show_match match = AUDIT_SHOW_YES;
    uint64_t seconds;

    if (record == NULL) {
        return match;
    }
    seconds = seconds_of(record);
    if (seconds < filter->since_s) {
        match = filter->since_s - seconds > VERIFY_CLOCK_S ? AUDIT_SHOW_OLD : AUDIT_SHOW_NO;
    } else if (!wanted(filter, record)) {
        match = AUDIT_SHOW_NO;
    }
    json_decref(record);
    return match;
}

static enum reason find_reason(const char *code)
{
    unsigned i = 0;

    while (i < REASON_COUNT && strcmp(reason_info((enum reason)i)->code, code) != 0) {
        i++;
    }
    return (enum reason)i;
}

bool audit_show_reason_known(const char *code)
{
    return find_reason(code) != REASON_COUNT;
}

/* A text as one word: as it is where that is plain, else in quotes and escaped. */
static void put_span(struct span text)
{
    char quoted[QUOTE_BYTES];
    bool plain = text.len > 0;

    for (size_t i = 0; i < text.len; i++) {
        plain = plain && text.ptr[i] > 0x20 && text.ptr[i] < 0x7f && text.ptr[i] != '"' &&
                text.ptr[i] != '\\';
    }
    if (plain) {
        (void)fwrite(text.ptr, 1, text.len, stdout);
    } else {
        (void)fputs(log_quote(text, quoted, sizeof quoted), stdout);
    }
}

static void put_value(const json_t *value)
{
    if (json_is_string(value)) {
        put_span(span_make(json_string_value(value), json_string_length(value)));
    } else if (json_is_integer(value)) {
        printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_boolean(value)) {
        (void)fputs(json_is_true(value) ? "true" : "false", stdout);
    } else {
        (void)putchar('-'); /* absent */
    }
}

static void put_field(const json_t *record, const char *field)
{
    (void)putchar(' ');
    put_value(json_object_get(record, field));
}

/* The beginning of a hint: what is wrong, without the next step. */
static void put_hint(const char *code)
{
    const enum reason reason = find_reason(code);
    const char *hint = reason == REASON_COUNT ? "" : reason_info(reason)->hint;

    if (reason == REASON_COUNT || reason_info(reason)->outcome == OUTCOME_GRANTED) {
        return;
    }
    printf(" - %.*s", (int)strcspn(hint, ":;("), hint);
}

static const char *colour_of(const json_t *record)
{
    static const struct {
        const char *outcome;
        const char *colour;
    } rows[] = {{"granted", "\033[32m"},
                {"challenged", "\033[36m"},
                {"denied", "\033[33m"},
                {"failed", "\033[31m"},
                {"error", "\033[1;31m"}};

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (is(record, "outcome", rows[i].outcome)) {
            return rows[i].colour;
        }
    }
    return "\033[2m";
}

static void put_decision(const json_t *record, bool colours)
{
    const json_t *reason = json_object_get(record, "reason");
    const json_t *user = json_object_get(record, "user");
    const json_t *uri = json_object_get(record, "uri");

    (void)fputs(colours ? colour_of(record) : "", stdout);
    put_field(record, "outcome");
    put_field(record, "reason");
    (void)fputs(colours ? "\033[0m " : " ", stdout);
    put_value(user != NULL ? user : json_object_get(record, "principal"));
    put_field(record, "site");
    put_field(record, "peer");
    put_field(record, "http_method");
    put_field(record, "host");
    if (uri != NULL) {
        put_field(record, "uri");
    }
    if (json_object_get(record, "rule") != NULL) {
        (void)fputs(" by", stdout);
        put_field(record, "rule");
    }
    if (json_is_string(reason)) {
        put_hint(json_string_value(reason));
    }
}

/* A record of the daemon itself: the fields that say something to people. */
static void put_event(const json_t *record, bool colours)
{
    static const char *const bare[] = {"action", "result"};
    static const char *const named[] = {
        "site",       "reason",   "n",       "epoch",   "from", "prev_seq", "lost_from",
        "torn_bytes", "first_ts", "last_ts", "version", "pid",  "clean",    "detail"};

    (void)fputs(colours ? colour_of(record) : "", stdout);
    put_field(record, "event");
    (void)fputs(colours ? "\033[0m" : "", stdout);
    for (size_t i = 0; i < sizeof bare / sizeof bare[0]; i++) {
        if (json_object_get(record, bare[i]) != NULL) {
            put_field(record, bare[i]);
        }
    }
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        if (json_object_get(record, named[i]) != NULL) {
            printf(" %s=", named[i]);
            put_value(json_object_get(record, named[i]));
        }
    }
}

void audit_show_print(const char *line, size_t len, bool colours)
{
    json_t *record = parse(line, len);
    char quoted[QUOTE_BYTES];

    if (record == NULL) {
        printf("no record: %s%s\n",
               log_quote(span_make(line, len < STRAY_SHOWN ? len : STRAY_SHOWN), quoted,
                         sizeof quoted),
               len < STRAY_SHOWN ? "" : "...");
        return;
    }
    if (seconds_of(record) != UINT64_MAX) {
        printf("%.19sZ", json_string_value(json_object_get(record, "ts")));
    } else {
        (void)fputs("no-time", stdout);
    }
    if (is(record, "event", "auth")) {
        put_decision(record, colours);
    } else {
        put_event(record, colours);
    }
    (void)putchar('\n');
    json_decref(record);
}
