#include "cmd/explain.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

enum { LINE_MAX_BYTES = 64 * 1024 };

/* A text of the record in quotes, or NULL if there is none. */
static const char *text_of(const json_t *record, const char *field, char out[EXPLAIN_QUOTE_BYTES])
{
    const json_t *value = json_object_get(record, field);

    return json_is_string(value)
               ? explain_quote(span_make(json_string_value(value), json_string_length(value)), out)
               : NULL;
}

static bool number_of(const json_t *record, const char *field, int64_t *out)
{
    const json_t *value = json_object_get(record, field);

    *out = json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
    return json_is_integer(value);
}

static bool is_true(const json_t *record, const char *field)
{
    return json_is_true(json_object_get(record, field));
}

static bool is_text(const json_t *record, const char *field, const char *text)
{
    const json_t *value = json_object_get(record, field);

    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

static void say_text(const json_t *record, const char *field, const char *label)
{
    char quoted[EXPLAIN_QUOTE_BYTES];
    const char *text = text_of(record, field, quoted);

    if (text != NULL) {
        explain_line(1, label, "%s", text);
    }
}

/* Which request it was. */
static void say_request(const json_t *record)
{
    char method[EXPLAIN_QUOTE_BYTES];
    char host[EXPLAIN_QUOTE_BYTES];
    char uri[EXPLAIN_QUOTE_BYTES];
    char peer[EXPLAIN_QUOTE_BYTES];
    char site[EXPLAIN_QUOTE_BYTES];

    if (text_of(record, "host", host) == NULL) {
        (void)snprintf(host, sizeof host, "no host");
    }
    if (text_of(record, "http_method", method) != NULL && text_of(record, "uri", uri) != NULL) {
        explain_line(1, "request", "%s of %s, host %s", method, uri, host);
    } else {
        explain_line(1, "request", "host %s", host);
    }
    if (text_of(record, "peer", peer) != NULL) {
        explain_line(1, "from", "%s", peer);
    }
    explain_line(1, "site", "%s", text_of(record, "site", site) != NULL ? site : "none was found");
}

/* Who it was, and what the ticket was for. */
static void say_ticket(const json_t *record)
{
    char service[EXPLAIN_QUOTE_BYTES];
    char enctype[EXPLAIN_QUOTE_BYTES];
    int64_t kvno;

    say_text(record, "principal", "principal");
    say_text(record, "user", "user");
    say_text(record, "rule", "rule");
    if (text_of(record, "service", service) != NULL) {
        explain_line(1, "service", "%s, session key %s", service,
                     text_of(record, "enctype", enctype) != NULL ? enctype : "of unknown enctype");
    }
    if (text_of(record, "claimed_service", service) != NULL) {
        if (text_of(record, "claimed_enctype", enctype) == NULL) {
            (void)snprintf(enctype, sizeof enctype, "no enctype");
        }
        if (number_of(record, "claimed_kvno", &kvno)) {
            explain_line(1, "asked for", "%s, kvno %" PRId64 ", %s (not verified)", service, kvno,
                         enctype);
        } else {
            explain_line(1, "asked for", "%s, no kvno, %s (not verified)", service, enctype);
        }
    }
    say_text(record, "keytab_has", "the keytab has");
}

/* The figures: end of the ticket, clocks, keys. */
static void say_figures(const json_t *record)
{
    char quoted[EXPLAIN_QUOTE_BYTES];
    char duration[EXPLAIN_TIME_BYTES];
    int64_t kvno;
    int64_t newest;
    int64_t number;

    say_text(record, "ticket_end", "ticket ends");
    if (number_of(record, "expired_s", &number)) {
        explain_line(1, "expired", "since %s when the request came",
                     explain_duration(number, duration));
    }
    if (number_of(record, "skew_s", &number)) {
        explain_line(1, "clocks", "the client is %s %s this host",
                     explain_duration(number, duration), number >= 0 ? "ahead of" : "behind");
    }
    if (number_of(record, "kvno", &kvno) && number_of(record, "kvno_newest", &newest)) {
        explain_rotation(1, kvno, newest);
    }
    if (is_text(record, "cb", "none")) {
        explain_line(1, "channel binding", "the client sent none");
    } else if (is_text(record, "cb", "matched")) {
        explain_line(1, "channel binding", "it fits a certificate of the site");
    } else if (is_text(record, "cb", "missing")) {
        explain_line(1, "channel binding", "the client sent none, and the site requires one");
    } else if (is_text(record, "cb", "mismatch")) {
        explain_line(1, "channel binding", "it fits none of the site's certificates");
    }
    if (is_true(record, "deleg")) {
        explain_line(1, "delegation", "the client sent its credentials along; they were dropped");
    }
    if (number_of(record, "repeat_of", &number)) {
        explain_line(1, "repeat", "of record %" PRId64, number);
    }
    if (text_of(record, "gss_text", quoted) != NULL) {
        explain_line(1, "Kerberos says", "%s", quoted);
    }
}

/* The row of the table with this code; REASON_COUNT if there is none. */
static enum reason find_reason(const char *code)
{
    unsigned i = 0;

    while (i < REASON_COUNT && strcmp(reason_info((enum reason)i)->code, code) != 0) {
        i++;
    }
    return (enum reason)i;
}

/* A record of the daemon itself: start, reload, a keytab, the chain. */
static int say_event(const json_t *record)
{
    say_text(record, "event", "event");
    say_text(record, "action", "action");
    say_text(record, "result", "result");
    say_text(record, "detail", "detail");
    say_text(record, "reason", "reason");
    explain_line(1, "meaning", "a record of the daemon itself; nobody asked to sign in");
    if (is_text(record, "result", "chain_broken")) {
        explain_line(1, "next step",
                     "find out who wrote to the trail: nothing between the last seal before this "
                     "record and this record is proven, also what a later seal covers");
        return 1;
    }
    if (is_text(record, "result", "records_missing")) {
        explain_line(1, "next step",
                     "find out who shortened the trail: the daemon had written the records from "
                     "lost_from on");
        return 1;
    }
    return EX_OK;
}

/* Whether outcome and status, as far as they are there, are what the reason means. */
static bool outcome_fits(const json_t *record, const struct reason_info *info)
{
    int64_t status;

    return (json_object_get(record, "outcome") == NULL ||
            is_text(record, "outcome", outcome_text(info->outcome))) &&
           (!number_of(record, "status", &status) || status == info->status);
}

static int say_record(const json_t *record)
{
    const char *code = json_string_value(json_object_get(record, "reason"));
    char when[EXPLAIN_QUOTE_BYTES];
    char quoted[EXPLAIN_QUOTE_BYTES];
    int64_t seq;

    if (code == NULL && !json_is_string(json_object_get(record, "event"))) {
        explain_line(0, "record", "it has neither a reason nor an event: no record of spnegate");
        return EX_DATAERR;
    }
    (void)number_of(record, "seq", &seq);
    explain_line(0, "record", "%" PRId64 " of %s", seq,
                 text_of(record, "ts", when) != NULL ? when : "no time");
    if (code == NULL || is_text(record, "event", "suppressed")) {
        return say_event(record);
    }
    say_request(record);
    say_ticket(record);
    say_figures(record);
    const enum reason reason = find_reason(code);
    if (reason == REASON_COUNT) {
        explain_line(1, "reason", "%s, which this version does not know",
                     text_of(record, "reason", quoted));
        return 1;
    }
    if (!outcome_fits(record, reason_info(reason))) {
        explain_line(1, "forged", "its outcome and status are not those of its reason");
        (void)explain_reason(1, reason);
        return EX_DATAERR;
    }
    return explain_reason(1, reason);
}

static int explain_one(struct span line, size_t number)
{
    json_error_t error;
    char quoted[EXPLAIN_QUOTE_BYTES];
    json_t *record = line.len > LINE_MAX_BYTES
                         ? NULL
                         : json_loadb((const char *)line.ptr, line.len,
                                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    int status = EX_DATAERR;

    if (line.len > LINE_MAX_BYTES) {
        explain_line(0, "line", "%zu, no record: %zu bytes", number, line.len);
    } else if (record == NULL) {
        explain_line(0, "line", "%zu, no record: %s", number,
                     explain_quote(span_of(error.text), quoted));
    } else if (!json_is_object(record)) {
        explain_line(0, "line", "%zu, no record: no JSON object", number);
    } else {
        status = say_record(record);
    }
    json_decref(record);
    return status;
}

int explain_records(struct span text)
{
    int worst = EX_OK;

    for (size_t number = 1; text.len > 0; number++) {
        const unsigned char *end = memchr(text.ptr, '\n', text.len);
        const size_t len = end != NULL ? (size_t)(end - text.ptr) : text.len;
        const struct span line = span_make(text.ptr, len);

        text.ptr += end != NULL ? len + 1 : len;
        text.len -= end != NULL ? len + 1 : len;
        if (line.len == 0 || (line.len == 1 && line.ptr[0] == '\r')) {
            continue;
        }
        const int status = explain_one(line, number);

        worst = status > worst ? status : worst;
    }
    return worst;
}
