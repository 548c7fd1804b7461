#include "serve/guard.h"

#include <stdio.h>
#include <string.h>

/* FastCGI 1.0, section 8 */
enum { VERSION = 1, TYPE_BEGIN = 1, TYPE_PARAMS = 4, TYPE_STDIN = 5, TYPE_MANAGEMENT_FROM = 9 };
enum { KEEP_CONN = 1 };
enum { CHUNK_BYTES = 65528 }; /* the largest content that needs no padding */

static const struct {
    const char *code;
    const char *text;
} causes[GUARD_COUNT] = {
#define CAUSE(id, code, text) {code, text},
#include "serve/guard.def"
#undef CAUSE
};

const char *guard_code(enum guard_cause cause)
{
    return causes[cause].code;
}

const char *guard_text(enum guard_cause cause)
{
    return causes[cause].text;
}

void guard_start(struct guard *guard, const struct guard_rules *rules)
{
    const bool stdin_may_follow = guard->begun && guard->role == GUARD_AUTHORIZER;
    const uint16_t id = guard->id;
    struct buf params = guard->params;
    buf_reset(&params);
    params.max = rules->params_max;
    *guard = (struct guard){.rules = rules,
                            .params = params,
                            .silent = true,
                            .trailing_stdin = stdin_may_follow,
                            .trailing_id = id};
}

enum guard_cause guard_end(const struct guard *guard)
{
    return guard->silent ? GUARD_EMPTY : GUARD_CUT;
}

void guard_clear(struct guard *guard)
{
    buf_clear(&guard->params);
    *guard = (struct guard){0};
}

static size_t content_length(const struct guard *guard)
{
    return (size_t)guard->head[4] << 8 | guard->head[5];
}

static uint16_t record_id(const struct guard *guard)
{
    return (uint16_t)(guard->head[2] << 8 | guard->head[3]);
}

/* Which records may come where; the heart of the guard. */
static enum guard_cause check_head(struct guard *guard)
{
    const unsigned char type = guard->head[1];
    const size_t len = content_length(guard);
    const uint16_t id = record_id(guard);
    if (guard->head[0] != VERSION) {
        return GUARD_VERSION;
    }
    if (id == 0 || type >= TYPE_MANAGEMENT_FROM) {
        return GUARD_MANAGEMENT;
    }
    if (!guard->begun) {
        if (type == TYPE_STDIN && len == 0 && guard->trailing_stdin && id == guard->trailing_id) {
            return GUARD_NONE;
        }
        guard->id = id;
        return type != TYPE_BEGIN           ? GUARD_TYPE
               : len != sizeof guard->begin ? GUARD_BEGIN
                                            : GUARD_NONE;
    }
    if (id != guard->id) {
        return GUARD_ID;
    }
    if (type != (guard->params_done ? TYPE_STDIN : TYPE_PARAMS)) {
        return GUARD_TYPE;
    }
    return type == TYPE_STDIN && len > 0 ? GUARD_BODY : GUARD_NONE;
}

static enum guard_cause take_begin(struct guard *guard)
{
    const unsigned role = (unsigned)guard->begin[0] << 8 | guard->begin[1];
    if (role != GUARD_RESPONDER && role != GUARD_AUTHORIZER) {
        return GUARD_ROLE;
    }
    guard->role = (enum guard_role)role;
    guard->keep = (guard->begin[2] & KEEP_CONN) != 0;
    guard->begun = true;
    return GUARD_NONE;
}

/*
 * Parameters that decide: with two of them, who reads the first and who the last would disagree.
 * Returns the bit of this one, 0 for one that does not decide.
 */
static unsigned decider_bit(const struct guard_rules *rules, struct span parameter)
{
#define DECIDER(text)                                                                              \
    {                                                                                              \
        (const unsigned char *)(text), sizeof(text) - 1                                            \
    }
    static const struct span deciders[] = {
        DECIDER("HTTP_AUTHORIZATION"), DECIDER("HTTP_COOKIE"), DECIDER("HTTP_HOST"),
        DECIDER("REMOTE_ADDR"),        DECIDER("HTTPS"),       DECIDER("REQUEST_URI"),
        DECIDER("REQUEST_METHOD"),     DECIDER("UNIQUE_ID"),
    };
#undef DECIDER
    enum { COUNT = sizeof deciders / sizeof deciders[0] };
    for (unsigned i = 0; i < COUNT; i++) {
        if (span_equal(parameter, deciders[i])) {
            return 1U << i;
        }
    }
    for (unsigned i = 0; i < GUARD_ALSO_MAX; i++) {
        if (span_equal(parameter, rules->also[i])) {
            return 1U << (COUNT + i);
        }
    }
    return 0;
}

/* One length of a pair: one byte, or four with the top bit set. */
static int read_length(struct span params, size_t *at, size_t *len)
{
    if (*at >= params.len) {
        return -1;
    }
    const unsigned char first = params.ptr[*at];
    if (first < 0x80) {
        *len = first;
        *at += 1;
        return 0;
    }
    if (params.len - *at < 4) {
        return -1;
    }
    const unsigned char *p = params.ptr + *at;
    *len = (size_t)(p[0] & 0x7f) << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    *at += 4;
    return 0;
}

static enum guard_cause check_pair(struct guard *guard, struct span parameter, struct span value,
                                   unsigned *seen)
{
    const struct span shown = {parameter.ptr, parameter.len > GUARD_PARAMETER_MAX
                                                  ? (size_t)GUARD_PARAMETER_MAX
                                                  : parameter.len};
    (void)span_copy(shown, guard->culprit, sizeof guard->culprit);
    if (parameter.len == 0 || parameter.len > GUARD_PARAMETER_MAX ||
        memchr(parameter.ptr, '=', parameter.len) != NULL ||
        memchr(parameter.ptr, '\0', parameter.len) != NULL ||
        (value.len > 0 && memchr(value.ptr, '\0', value.len) != NULL)) {
        return GUARD_PARAMETER;
    }
    const unsigned bit = decider_bit(guard->rules, parameter);
    const bool again = (*seen & bit) != 0;
    *seen |= bit;
    return again ? GUARD_DUPLICATE : GUARD_NONE;
}

/* The pair that begins at `*at`; -1: it does not end inside what was sent. */
static int read_pair(struct span params, size_t *at, struct span *parameter, struct span *value)
{
    size_t parameter_len = 0;
    size_t value_len = 0;
    if (read_length(params, at, &parameter_len) != 0 || read_length(params, at, &value_len) != 0 ||
        parameter_len > params.len - *at || value_len > params.len - *at - parameter_len) {
        return -1;
    }
    *parameter = span_make(params.ptr + *at, parameter_len);
    *value = span_make(params.ptr + *at + parameter_len, value_len);
    *at += parameter_len + value_len;
    return 0;
}

/* All parameters are there: every length inside what was sent, to the last byte. */
static enum guard_cause check_params(struct guard *guard)
{
    const struct span params = buf_span(&guard->params);
    unsigned seen = 0;
    size_t at = 0;
    while (at < params.len) {
        struct span parameter;
        struct span value;
        if (read_pair(params, &at, &parameter, &value) != 0) {
            guard->culprit[0] = '\0'; /* it holds the one before, which was good */
            return GUARD_LENGTH;
        }
        const enum guard_cause cause = check_pair(guard, parameter, value, &seen);
        if (cause != GUARD_NONE) {
            return cause;
        }
    }
    guard->culprit[0] = '\0';
    return GUARD_NONE;
}

struct span guard_find(const struct guard *guard, struct span parameter)
{
    const struct span params = buf_span(&guard->params);
    struct span found;
    struct span value;
    for (size_t at = 0; at < params.len && read_pair(params, &at, &found, &value) == 0;) {
        if (span_equal(found, parameter)) {
            return value;
        }
    }
    return (struct span){NULL, 0};
}

/* Content bytes of the record whose head was checked. */
static enum guard_cause take_content(struct guard *guard, struct span content)
{
    if (guard->head[1] == TYPE_BEGIN) {
        memcpy(guard->begin + guard->begin_len, content.ptr, content.len);
        guard->begin_len += content.len;
        return guard->begin_len == sizeof guard->begin ? take_begin(guard) : GUARD_NONE;
    }
    const bool fits = content.len <= guard->params.max - guard->params.len;
    buf_append_span(&guard->params, content);
    return !guard->params.failed ? GUARD_NONE : fits ? GUARD_MEMORY : GUARD_TOO_LARGE;
}

/* The record is over, padding and all. */
static enum guard_cause take_end(struct guard *guard, bool *done)
{
    guard->head_len = 0;
    const unsigned char type = guard->head[1];
    if (!guard->begun) {
        guard->trailing_stdin = false; /* it came; it is none of the next request's bytes */
        guard->silent = true;
        return GUARD_NONE;
    }
    if (content_length(guard) > 0) {
        return GUARD_NONE;
    }
    if (type == TYPE_PARAMS) {
        guard->params_done = true;
        *done = guard->role == GUARD_AUTHORIZER;
        return check_params(guard);
    }
    *done = true;
    return GUARD_NONE;
}

/* Takes what it can of the record's current part; returns how much that was. */
static size_t take_some(struct guard *guard, struct span bytes, enum guard_cause *cause)
{
    size_t n = 0;
    if (guard->head_len < GUARD_HEADER_BYTES) {
        n = GUARD_HEADER_BYTES - guard->head_len;
        n = n > bytes.len ? bytes.len : n;
        memcpy(guard->head + guard->head_len, bytes.ptr, n);
        guard->head_len += n;
        guard->silent = false;
        if (guard->head_len == GUARD_HEADER_BYTES) {
            guard->content_left = content_length(guard);
            guard->padding_left = guard->head[6];
            *cause = check_head(guard);
        }
    } else if (guard->content_left > 0) {
        n = guard->content_left > bytes.len ? bytes.len : guard->content_left;
        guard->content_left -= n;
        *cause = take_content(guard, span_make(bytes.ptr, n));
    } else {
        n = guard->padding_left > bytes.len ? bytes.len : guard->padding_left;
        guard->padding_left -= n;
    }
    return n;
}

enum guard_state guard_read(struct guard *guard, struct span bytes, size_t *used,
                            enum guard_cause *cause)
{
    size_t at = 0;
    bool done = false;
    *cause = GUARD_NONE;
    while (at < bytes.len && !done) {
        at += take_some(guard, span_make(bytes.ptr + at, bytes.len - at), cause);
        if (*cause == GUARD_NONE && guard->head_len == GUARD_HEADER_BYTES &&
            guard->content_left == 0 && guard->padding_left == 0) {
            *cause = take_end(guard, &done);
        }
        if (*cause != GUARD_NONE) {
            return GUARD_BAD;
        }
    }
    *used = at;
    return done ? GUARD_DONE : GUARD_MORE;
}

static void put_head(unsigned char *head, unsigned char type, uint16_t id, size_t len)
{
    head[0] = VERSION;
    head[1] = type;
    head[2] = (unsigned char)(id >> 8);
    head[3] = (unsigned char)id;
    head[4] = (unsigned char)(len >> 8);
    head[5] = (unsigned char)len;
    head[6] = head[7] = 0;
}

static void add_part(struct guard_records *out, unsigned char *bytes, size_t len)
{
    out->parts[out->count++] = (struct iovec){bytes, len};
    out->len += len;
}

int guard_format(const struct guard *guard, struct guard_records *out)
{
    size_t left = guard->params.len;
    if (left > (size_t)GUARD_CHUNKS_MAX * CHUNK_BYTES) {
        return -1;
    }
    out->count = out->len = 0;
    put_head(out->begin, TYPE_BEGIN, guard->id, GUARD_HEADER_BYTES);
    memset(out->begin + GUARD_HEADER_BYTES, 0, GUARD_HEADER_BYTES);
    out->begin[GUARD_HEADER_BYTES + 1] = (unsigned char)guard->role;
    out->begin[GUARD_HEADER_BYTES + 2] = KEEP_CONN; /* libfcgi must not close what it reads */
    add_part(out, out->begin, sizeof out->begin);
    for (unsigned char(*head)[GUARD_HEADER_BYTES] = out->heads;; head++) {
        const size_t len = left > CHUNK_BYTES ? CHUNK_BYTES : left;
        put_head(*head, TYPE_PARAMS, guard->id, len);
        add_part(out, *head, GUARD_HEADER_BYTES);
        if (len == 0) {
            return 0;
        }
        add_part(out, guard->params.ptr + (guard->params.len - left), len);
        left -= len;
    }
}
