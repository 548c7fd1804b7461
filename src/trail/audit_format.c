#include "trail/audit_format.h"

#include "trail/line.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <string.h>

enum kind {
    KIND_SPAN,
    KIND_STRING,    /* const char * */
    KIND_COUNT,     /* int64_t, negative: absent */
    KIND_POSITIVE,  /* uint64_t, 0: absent */
    KIND_SECONDS,   /* uint64_t seconds since 1970 as a date, 0: absent */
    KIND_BOOL,      /* enum audit_bool */
    KIND_GSS_MAJOR, /* the rest is present when a flag beside it says so */
    KIND_GSS_MINOR,
    KIND_SKEW,
    KIND_GIVEN,  /* struct audit_format_u64 */
    KIND_MICROS, /* uint64_t microseconds since 1970 as a date, 0: absent */
};

struct field {
    const char *key; /* `,"field":` */
    size_t key_len;
    enum kind kind;
    size_t offset; /* of the member */
    size_t max;    /* bytes of input that are looked at */
    size_t keep;   /* bytes of output that are this field's, whatever the others hold */
};

/*
 * The fields of a decision in the order of the line: T(field, member, kind, max, keep) for texts,
 * N(field, member, kind) for numbers. A text may use more than `keep` as long as every later field
 * keeps its own: that is why no record is ever too long.
 */
#define RECORD_FIELDS(T, N)                                                                        \
    T(method, method, STRING, 16, 16)                                                              \
    T(mech, mech, STRING, 16, 16)                                                                  \
    N(gss_major, gss_major, GSS_MAJOR)                                                             \
    N(gss_minor, gss_minor, GSS_MINOR)                                                             \
    T(gss_text, gss_text, SPAN, 256, 64)                                                           \
    T(ticket_realm, ticket_realm, SPAN, 256, 64)                                                   \
    N(ticket_end, ticket_end_s, SECONDS)                                                           \
    N(kvno, kvno, COUNT)                                                                           \
    N(kvno_newest, kvno_newest, COUNT)                                                             \
    T(keytab_has, keytab_has, SPAN, 256, 64)                                                       \
    N(expired_s, expired_s, COUNT)                                                                 \
    N(skew_s, skew_s, SKEW)                                                                        \
    N(mutual, mutual, BOOL)                                                                        \
    N(deleg, deleg, BOOL)                                                                          \
    N(repeat_of, repeat_of, POSITIVE)                                                              \
    T(principal, principal, SPAN, 256, 256)                                                        \
    T(user, user, SPAN, 256, 256)                                                                  \
    T(service, service, SPAN, 256, 128)                                                            \
    T(claimed_service, claimed_service, SPAN, 256, 96)                                             \
    N(claimed_kvno, claimed_kvno, COUNT)                                                           \
    T(claimed_enctype, claimed_enctype, SPAN, 256, 32)                                             \
    T(enctype, enctype, SPAN, 256, 32)                                                             \
    T(cb, cb, STRING, 16, 16)                                                                      \
    T(site, site, SPAN, 256, 64)                                                                   \
    T(rule, rule, SPAN, 256, 96)                                                                   \
    T(server, server, SPAN, 256, 48)                                                               \
    T(sock, sock, SPAN, 256, 108)                                                                  \
    T(peer, peer, SPAN, 256, 64)                                                                   \
    N(peer_port, peer_port, COUNT)                                                                 \
    N(tls, tls, BOOL)                                                                              \
    T(http_method, http_method, SPAN, 256, 32)                                                     \
    T(host, host, SPAN, 256, 256)                                                                  \
    T(uri, uri, SPAN, 512, 256)                                                                    \
    T(req, request_id, SPAN, 64, 64)                                                               \
    T(trace, trace, SPAN, 32, 32)                                                                  \
    T(token_fp, token_fp, SPAN, 16, 16)                                                            \
    N(us, us, COUNT)

#define EVENT_FIELDS(T, N)                                                                         \
    T(event, event, SPAN, 64, 64)                                                                  \
    N(mono, mono_ms, POSITIVE)                                                                     \
    T(site, site, SPAN, 256, 64)                                                                   \
    T(reason, reason, SPAN, 64, 64)                                                                \
    T(action, action, SPAN, 256, 128)                                                              \
    T(result, result, SPAN, 256, 128)                                                              \
    T(detail, detail, SPAN, 256, 256)                                                              \
    T(version, version, SPAN, 64, 32)                                                              \
    N(pid, pid, POSITIVE)                                                                          \
    N(uid, uid, GIVEN)                                                                             \
    T(boot_id, boot_id, SPAN, 36, 36)                                                              \
    N(clean, clean, BOOL)                                                                          \
    N(prev_seq, prev_seq, GIVEN)                                                                   \
    T(prev_h, prev_h, SPAN, 64, 64)                                                                \
    N(epoch, epoch, GIVEN)                                                                         \
    T(pk, pk, SPAN, 64, 64)                                                                        \
    N(from, from, GIVEN)                                                                           \
    N(n, n, POSITIVE)                                                                              \
    T(next_pk, next_pk, SPAN, 64, 64)                                                              \
    N(first_ts, first_us, MICROS)                                                                  \
    N(last_ts, last_us, MICROS)                                                                    \
    N(torn_bytes, torn_bytes, GIVEN)                                                               \
    T(torn_sha256, torn_sha256, SPAN, 64, 64)                                                      \
    N(lost_from, lost_from, GIVEN)                                                                 \
    T(lost_h, lost_h, SPAN, 64, 64)

#define KEY_LEN(field) (sizeof(",\"" #field "\":") - 1)
#define RECORD_TEXT(field, member, kind, max, keep)                                                \
    {",\"" #field "\":",                                                                           \
     KEY_LEN(field),                                                                               \
     KIND_##kind,                                                                                  \
     offsetof(struct audit_record, member),                                                        \
     (max),                                                                                        \
     (keep)},
#define EVENT_TEXT(field, member, kind, max, keep)                                                 \
    {",\"" #field "\":",                                                                           \
     KEY_LEN(field),                                                                               \
     KIND_##kind,                                                                                  \
     offsetof(struct audit_format_event, member),                                                  \
     (max),                                                                                        \
     (keep)},
/* These hold any number, any date with its quotes, and "false"; of an event, with microseconds. */
#define RECORD_NUMBER(field, member, kind) RECORD_TEXT(field, member, kind, 0, 22)
#define EVENT_NUMBER(field, member, kind)  EVENT_TEXT(field, member, kind, 0, 29)
/* Members as long as a field may become: key, quotes and the bytes kept. */
#define TEXT_NEED(field, member, kind, max, keep) char field[KEY_LEN(field) + 2 + (keep)];
#define NUMBER_NEED(field, member, kind)          char field[KEY_LEN(field) + 2 + 29];
/* And as its name, once in `cut` and once in `mangled`. */
#define TEXT_NAMES(field, member, kind, max, keep) char field[2 * sizeof(",\"" #field)];
#define NUMBER_NAMES(field, member, kind)

static const struct field record_fields[] = {RECORD_FIELDS(RECORD_TEXT, RECORD_NUMBER)};
static const struct field event_fields[] = {EVENT_FIELDS(EVENT_TEXT, EVENT_NUMBER)};
static const struct field node_field = {",\"node\":", KEY_LEN(node), KIND_STRING, 0, 256, 64};

/* These have no use but their size. */
struct record_need {
    RECORD_FIELDS(TEXT_NEED, NUMBER_NEED)
};
struct record_names {
    RECORD_FIELDS(TEXT_NAMES, NUMBER_NAMES)
};
struct event_need {
    EVENT_FIELDS(TEXT_NEED, NUMBER_NEED)
};
struct event_names {
    EVENT_FIELDS(TEXT_NAMES, NUMBER_NAMES)
};

enum {
    RECORD_COUNT = sizeof(record_fields) / sizeof(record_fields[0]),
    EVENT_COUNT = sizeof(event_fields) / sizeof(event_fields[0]),
    NODE_BIT = 63,
    CODE_MAX = 48, /* longest outcome or reason */
    NAMES_NEED = sizeof(",\"cut\":[]") + sizeof(",\"mangled\":[]") + 2 * sizeof(",\"node\""),
    RECORD_NAMES = NAMES_NEED + sizeof(struct record_names),
    EVENT_NAMES = NAMES_NEED + sizeof(struct event_names),
    HEAD_NEED = sizeof("{\"v\":1,\"seq\":") + 20 + sizeof(",\"ts\":\"\"") + 27 +
                sizeof(",\"chain\":\"\"") + 16 + KEY_LEN(node) + 2 + 64,
    DECISION_NEED = sizeof(",\"event\":\"auth\",\"outcome\":\"\",\"reason\":\"\",\"status\":") +
                    CODE_MAX + CODE_MAX + 20,
};

static_assert(HEAD_NEED + DECISION_NEED + RECORD_NAMES + sizeof(struct record_need) <=
                  FORMAT_BODY_MAX,
              "a decision fits, whatever it holds");
static_assert(HEAD_NEED + EVENT_NAMES + sizeof(struct event_need) <= FORMAT_BODY_MAX,
              "an event fits, whatever it holds");
static_assert((int)RECORD_COUNT < (int)NODE_BIT && (int)EVENT_COUNT <= (int)RECORD_COUNT,
              "one bit a field");

/* A field that is there. */
struct item {
    unsigned index;
    unsigned need; /* bytes it is sure of: as much as it can use of its share */
    struct span text;
};

/* "YYYY-MM-DDTHH:MM:SS.ffffffZ". */
static void put_micros(struct line *l, uint64_t micros)
{
    line_put_date(l, micros / 1000000);
    l->out[l->len] = '.';
    line_digits(l->out + l->len + 1, micros % 1000000, 6);
    l->out[l->len + 7] = 'Z';
    l->len += 8;
}

static void put_number(struct line *l, const struct field *f, const void *member)
{
    uint64_t value = 0;
    uint32_t narrow = 0;

    switch (f->kind) {
    case KIND_BOOL:
        if (*(const enum audit_bool *)member == AUDIT_TRUE) {
            line_put(l, "true", 4);
        } else {
            line_put(l, "false", 5);
        }
        break;
    case KIND_GSS_MAJOR:
        memcpy(&narrow, member, sizeof(narrow));
        line_put_u64(l, narrow);
        break;
    case KIND_GSS_MINOR:
        memcpy(&narrow, member, sizeof(narrow));
        line_put_i64(l, (int32_t)narrow);
        break;
    case KIND_SECONDS:
        memcpy(&value, member, sizeof(value));
        line_put(l, "\"", 1);
        line_put_date(l, value);
        line_put(l, "Z\"", 2);
        break;
    case KIND_MICROS:
        memcpy(&value, member, sizeof(value));
        line_put(l, "\"", 1);
        put_micros(l, value);
        line_put(l, "\"", 1);
        break;
    case KIND_GIVEN:
        line_put_u64(l, ((const struct audit_format_u64 *)member)->value);
        break;
    case KIND_COUNT:
    case KIND_SKEW:
        memcpy(&value, member, sizeof(value));
        line_put_i64(l, (int64_t)value);
        break;
    default:
        memcpy(&value, member, sizeof(value));
        line_put_u64(l, value);
        break;
    }
}

/* Whether the field is there, and its bytes when it is a text. */
static bool present(const struct field *f, const void *base, const void *member, struct span *text)
{
    switch (f->kind) {
    case KIND_SPAN:
        *text = *(const struct span *)member;
        return text->ptr != NULL;
    case KIND_STRING:
        *text = span_of(*(const char *const *)member);
        return text->ptr != NULL;
    case KIND_COUNT:
        return *(const int64_t *)member >= 0;
    case KIND_POSITIVE:
    case KIND_SECONDS:
    case KIND_MICROS:
        return *(const uint64_t *)member != 0;
    case KIND_BOOL:
        return *(const enum audit_bool *)member != AUDIT_ABSENT;
    case KIND_GSS_MAJOR:
    case KIND_GSS_MINOR:
        return ((const struct audit_record *)base)->has_gss;
    case KIND_SKEW:
        return ((const struct audit_record *)base)->has_skew;
    case KIND_GIVEN:
        return ((const struct audit_format_u64 *)member)->given;
    }
    return false;
}

/* The fields that are there, into `items`; reserves what they are sure of; returns their number. */
static unsigned collect(struct line *l, const struct field *fields, unsigned count,
                        const void *base, struct item *items)
{
    unsigned found = 0;

    for (unsigned i = 0; i < count; i++) {
        const struct field *f = &fields[i];
        struct item *item = &items[found];
        size_t keep = f->keep;

        item->text = (struct span){NULL, 0};
        if (!present(f, base, (const char *)base + f->offset, &item->text)) {
            continue;
        }
        if (item->text.ptr != NULL && item->text.len < keep / 6) {
            keep = item->text.len * 6; /* no byte needs more */
        }
        item->index = i;
        item->need = (unsigned)(f->key_len + 2 + keep);
        l->reserve += item->need;
        found++;
    }
    return found;
}

static void put_items(struct line *l, const struct field *fields, const void *base,
                      const struct item *items, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct field *f = &fields[items[i].index];

        l->reserve -= items[i].need;
        line_put(l, f->key, f->key_len);
        if (items[i].text.ptr != NULL) {
            line_put_text(l, items[i].index, items[i].text, f->max);
        } else {
            put_number(l, f, (const char *)base + f->offset);
        }
    }
}

static void put_names(struct line *l, const char *key, uint64_t bits, const struct field *fields,
                      unsigned count)
{
    char separator = '[';

    if (bits == 0) {
        return;
    }
    line_put(l, key, strlen(key));
    if ((bits >> NODE_BIT & 1) != 0) {
        line_put(l, "[\"node\"", 7);
        separator = ',';
    }
    for (unsigned i = 0; i < count; i++) {
        if ((bits >> i & 1) != 0) {
            l->out[l->len++] = separator;
            /* The key without its comma and colon. */
            line_put(l, fields[i].key + 1, fields[i].key_len - 2);
            separator = ',';
        }
    }
    l->out[l->len++] = ']';
}

/* v, seq, ts, chain and node. */
static void put_head(struct line *l, uint64_t seq, uint64_t time_us, const char *chain,
                     const char *node)
{
    line_put(l, "{\"v\":1,\"seq\":", 13);
    line_put_u64(l, seq);
    line_put(l, ",\"ts\":\"", 7);
    put_micros(l, time_us);
    line_put(l, "\",\"chain\":\"", 11);
    line_put(l, chain, strnlen(chain, 16));
    line_put(l, "\"", 1);
    line_put(l, node_field.key, node_field.key_len);
    line_put_text(l, NODE_BIT, span_of(node), node_field.max);
}

static void put_code(struct line *l, const char *key, const char *code)
{
    line_put(l, key, strlen(key));
    line_put(l, code, strnlen(code, CODE_MAX));
    line_put(l, "\"", 1);
}

static struct span until(struct span s, char stop)
{
    const unsigned char *found = s.len == 0 ? NULL : memchr(s.ptr, stop, s.len);

    return found == NULL ? s : span_make(s.ptr, (size_t)(found - s.ptr));
}

/* An address as everybody writes it, into `out`; false when it is none. */
static bool canonical_peer(struct span s, char out[INET6_ADDRSTRLEN], struct span *peer)
{
    unsigned char address[sizeof(struct in6_addr)];

    if (span_copy(s, out, INET6_ADDRSTRLEN) != 0) {
        return false;
    }
    if (inet_pton(AF_INET, out, address) == 1) {
        *peer = s; /* there is one way only to write these */
        return true;
    }
    if (inet_pton(AF_INET6, out, address) != 1 ||
        inet_ntop(AF_INET6, address, out, INET6_ADDRSTRLEN) == NULL) {
        return false;
    }
    *peer = span_of(out);
    return true;
}

static bool request_id_good(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = s.ptr[i];
        bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

        if (!alphanumeric && (c == '\0' || strchr("._:@-", c) == NULL)) {
            return false;
        }
    }
    return s.len >= 1 && s.len <= 64;
}

static void mark_mangled(struct line *l, size_t offset)
{
    for (unsigned i = 0; i < RECORD_COUNT; i++) {
        if (record_fields[i].offset == offset) {
            l->mangled |= UINT64_C(1) << i;
        }
    }
}

size_t audit_format(char out[AUDIT_RECORD_MAX], uint64_t seq, const char *chain, const char *node,
                    const struct audit_record *record)
{
    const struct reason_info *info = reason_info(record->reason);
    struct line l = {.out = out, .max = FORMAT_BODY_MAX};
    struct item items[RECORD_COUNT];
    unsigned count;
    struct audit_record r = *record;
    char peer[INET6_ADDRSTRLEN];

    r.uri = until(until(r.uri, '?'), '#');
    r.server = until(r.server, ' ');
    if (r.peer.ptr != NULL && !canonical_peer(record->peer, peer, &r.peer)) {
        mark_mangled(&l, offsetof(struct audit_record, peer));
    }
    if (r.request_id.ptr != NULL && !request_id_good(r.request_id)) {
        mark_mangled(&l, offsetof(struct audit_record, request_id));
        r.request_id = (struct span){NULL, 0};
    }
    l.reserve = RECORD_NAMES + DECISION_NEED;
    count = collect(&l, record_fields, RECORD_COUNT, &r, items);
    put_head(&l, seq, r.time_us, chain, node);
    l.reserve -= DECISION_NEED;
    put_code(&l, ",\"event\":\"auth\",\"outcome\":\"", outcome_text(info->outcome));
    put_code(&l, ",\"reason\":\"", info->code);
    line_put(&l, ",\"status\":", 10);
    line_put_u64(&l, (uint64_t)info->status);
    put_items(&l, record_fields, &r, items, count);
    put_names(&l, ",\"cut\":", l.cut, record_fields, RECORD_COUNT);
    put_names(&l, ",\"mangled\":", l.mangled, record_fields, RECORD_COUNT);
    return l.len;
}

size_t audit_format_event(char out[AUDIT_RECORD_MAX], uint64_t seq, const char *chain,
                          const char *node, const struct audit_format_event *event)
{
    struct line l = {.out = out, .max = FORMAT_BODY_MAX, .reserve = EVENT_NAMES};
    struct item items[EVENT_COUNT];
    unsigned count = collect(&l, event_fields, EVENT_COUNT, event, items);

    put_head(&l, seq, event->time_us, chain, node);
    put_items(&l, event_fields, event, items, count);
    put_names(&l, ",\"cut\":", l.cut, event_fields, EVENT_COUNT);
    put_names(&l, ",\"mangled\":", l.mangled, event_fields, EVENT_COUNT);
    return l.len;
}

void audit_record_init(struct audit_record *record)
{
    *record = (struct audit_record){.reason = REASON_INTERNAL,
                                    .kvno = -1,
                                    .kvno_newest = -1,
                                    .expired_s = -1,
                                    .claimed_kvno = -1,
                                    .peer_port = -1,
                                    .us = -1};
}
