/*
 * Any bytes as a token: what is found must lie inside it, what is accepted must be what we write of
 * the same parts, and with a byte more or less it is accepted no longer. The bytes are put into
 * tokens of our own making, too, where what must be found is known. What we answer is compared with
 * what our own writer writes.
 */
#include "wire/spnego.h"

#include "require.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = 1 << 18 };

#define OID_KRB5    "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
#define OID_MS_KRB5 "\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"
#define OID_NTLM    "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"
#define OID_SPNEGO  "\x2b\x06\x01\x05\x05\x02"
#define BYTES(text) span_make(text, sizeof(text) - 1)

/* A token is written from its end: contents first, then the headers around them. */
struct writer {
    unsigned char *at;
    unsigned char *end;
};

static void put(struct writer *w, struct span s)
{
    w->at -= s.len;
    if (s.len > 0) {
        memcpy(w->at, s.ptr, s.len);
    }
}

/* The header of all that was written since the writer stood at `end`. */
static void close_element(struct writer *w, unsigned char tag, const unsigned char *end)
{
    size_t len = (size_t)(end - w->at);
    unsigned char more = 0;
    if (len < 0x80) {
        *--w->at = (unsigned char)len;
    } else {
        for (; len > 0; len >>= 8, more++) {
            *--w->at = (unsigned char)len;
        }
        *--w->at = 0x80 | more;
    }
    *--w->at = tag;
}

static void put_element(struct writer *w, unsigned char tag, struct span contents)
{
    const unsigned char *end = w->at;
    put(w, contents);
    close_element(w, tag, end);
}

static void put_field(struct writer *w, unsigned number, unsigned char tag, struct span contents)
{
    const unsigned char *end = w->at;
    if (contents.ptr != NULL) {
        put_element(w, tag, contents);
        close_element(w, (unsigned char)(0xa0 + number), end);
    }
}

static struct span written(const struct writer *w)
{
    return span_make(w->at, (size_t)(w->end - w->at));
}

static struct writer writer(void)
{
    static unsigned char room[ROOM];
    return (struct writer){room + sizeof room, room + sizeof room};
}

static bool lies_within(struct span inner, struct span outer)
{
    return inner.ptr >= outer.ptr && inner.len <= outer.len &&
           (size_t)(inner.ptr - outer.ptr) <= outer.len - inner.len;
}

/* NegTokenInit with this list, and flags, token and MIC where they are not absent. */
static struct span make_init(struct span list, struct span flags, struct span token,
                             struct span mic)
{
    struct writer w = writer();
    put_field(&w, 3, 0x04, mic);
    put_field(&w, 2, 0x04, token);
    put_field(&w, 1, 0x03, flags);
    put_field(&w, 0, 0x30, list);
    close_element(&w, 0x30, w.end);
    close_element(&w, 0xa0, w.end);
    put_element(&w, 0x06, BYTES(OID_SPNEGO));
    close_element(&w, 0x60, w.end);
    return written(&w);
}

static struct span make_response(struct span state, struct span mech, struct span token,
                                 struct span mic)
{
    struct writer w = writer();
    put_field(&w, 3, 0x04, mic);
    put_field(&w, 2, 0x04, token);
    put_field(&w, 1, 0x06, mech);
    put_field(&w, 0, 0x0a, state);
    close_element(&w, 0x30, w.end);
    close_element(&w, 0xa1, w.end);
    return written(&w);
}

/* Whether it begins like SPNEGO, with a header in DER's one form; the rest may not be there. */
static bool is_framed(struct span token)
{
    const unsigned char *p = token.ptr;
    const size_t count = token.len < 2 || p[1] < 0x80 ? 0 : p[1] & 0x7f;
    const struct span oid = BYTES("\x06\x06" OID_SPNEGO);
    const size_t rest = 2 + count;
    if (token.len < rest || (p[1] >= 0x80 && (count == 0 || count > 4 || p[2] == 0)) ||
        (count == 1 && p[2] < 0x80)) {
        return false;
    }
    return p[0] == 0xa0 || p[0] == 0xa1 ||
           (p[0] == 0x60 && token.len - rest >= oid.len && memcmp(p + rest, oid.ptr, oid.len) == 0);
}

/* What holds for every token. */
static enum reason inspect(struct span token, struct spnego_token *t)
{
    const enum reason reason = spnego_inspect(token, t);
    const bool krb5 = strcmp(t->offered, "krb5") == 0;
    const bool ntlm = strcmp(t->offered, "ntlm") == 0;
    require(krb5 || ntlm || strcmp(t->offered, "other") == 0);
    require((t->ap_req.ptr != NULL) == (reason == REASON_OK));
    require(t->framed == is_framed(token));
    require(t->response == (t->framed && token.ptr[0] == 0xa1));
    require((t->mech.len > 0) ==
            (reason == REASON_CONTINUE || (reason == REASON_OK && t->framed && !t->response)));
    if (t->mech.len > 0) {
        require(lies_within(t->mech, token));
        require(span_equal(t->mech, BYTES(OID_KRB5)) || span_equal(t->mech, BYTES(OID_MS_KRB5)));
    }
    switch (reason) {
    case REASON_OK:
        require(krb5 && lies_within(t->ap_req, token) && t->ap_req.ptr[0] == 0x6e);
        break;
    case REASON_CONTINUE:
        require(t->framed && !t->response);
        break;
    case REASON_NTLM:
        require(ntlm);
        break;
    case REASON_MECH_UNSUPPORTED:
        require(!t->response && strcmp(t->offered, "other") == 0);
        break;
    default:
        require(reason == REASON_BAD_TOKEN);
    }
    return reason;
}

/* Takes the next element off `*in` whatever form its length has; absent if it is another one. */
static struct span take(struct span *in, unsigned char tag)
{
    size_t at = 2;
    size_t len;
    if (in->len < 2 || in->ptr[0] != tag) {
        return span_make(NULL, 0);
    }
    len = in->ptr[1];
    if (len >= 0x80) {
        const size_t count = len & 0x7f;
        for (len = 0; at < 2 + count; at++) {
            require(at < in->len);
            len = len << 8 | in->ptr[at];
        }
    }
    require(len <= in->len - at);
    const struct span contents = span_make(in->ptr + at, len);
    *in = span_make(contents.ptr + len, in->len - at - len);
    return contents;
}

static void take_fields(struct span in, const unsigned char types[4], struct span items[4])
{
    in = take(&in, 0x30);
    for (unsigned i = 0; i < 4; i++) {
        struct span wrapped = take(&in, (unsigned char)(0xa0 + i));
        items[i] = take(&wrapped, types[i]);
    }
}

static void check_frame(struct span frame, struct span ap_req)
{
    struct span in = ap_req;
    const struct span contents = take(&in, 0x6e);
    struct writer w = writer();
    put_element(&w, 0x6e, contents);
    put(&w, BYTES("\x01\x00"));
    put_element(&w, 0x06, BYTES(OID_KRB5));
    close_element(&w, 0x60, w.end);
    require(span_equal(written(&w), frame));
}

/* DER has one form for everything: what was accepted is what we write of the same parts. */
static void check_form(struct span token, enum reason reason, const struct spnego_token *t)
{
    static const unsigned char init_types[4] = {0x30, 0x03, 0x04, 0x04};
    static const unsigned char response_types[4] = {0x0a, 0x06, 0x04, 0x04};
    struct span items[4] = {{NULL, 0}, {NULL, 0}, token, {NULL, 0}};
    struct span in = token;
    if (t->response) {
        take_fields(take(&in, 0xa1), response_types, items);
        require(span_equal(make_response(items[0], items[1], items[2], items[3]), token));
    } else if (t->framed) {
        in = take(&in, 0x60);
        (void)take(&in, 0x06);
        take_fields(take(&in, 0xa0), init_types, items);
        require(span_equal(make_init(items[0], items[1], items[2], items[3]), token));
        for (struct span list = items[0]; list.len > 0;) {
            const unsigned char *start = list.ptr;
            struct writer w = writer();
            put_element(&w, 0x06, take(&list, 0x06));
            require(span_equal(written(&w), span_make(start, (size_t)(list.ptr - start))));
        }
    }
    if (reason == REASON_OK) {
        check_frame(items[2], t->ap_req);
    }
}

/* The bytes as the token inside SPNEGO: there they are what they are outside. */
static void try_as_mech_token(struct span bytes)
{
    static const char *const lists[] = {"\x06\x09" OID_KRB5,
                                        "\x06\x09" OID_MS_KRB5 "\x06\x09" OID_KRB5,
                                        "\x06\x0a" OID_NTLM "\x06\x09" OID_KRB5};
    struct spnego_token alone;
    struct spnego_token t;
    const enum reason reason = inspect(bytes, &alone);
    const bool raw = reason == REASON_OK && !alone.framed;
    const bool ntlm = bytes.len >= 8 && memcmp(bytes.ptr, "NTLMSSP", 8) == 0;
    const enum reason expected = raw ? REASON_OK : ntlm ? REASON_NTLM : REASON_BAD_TOKEN;
    const struct span absent = {NULL, 0};
    for (size_t i = 0; i < 3; i++) {
        require(inspect(make_init(span_of(lists[i]), BYTES("\x01\x02"), bytes, bytes), &t) ==
                (i == 2 ? REASON_CONTINUE : expected));
        require(t.framed && !t.response && (!raw || i == 2 || span_equal(t.ap_req, alone.ap_req)));
        require(t.mech.len == 0 || t.mech.ptr[3] == (i == 1 ? 0x82 : 0x86));
        require(inspect(make_init(span_of(lists[i]), absent, absent, absent), &t) ==
                REASON_CONTINUE);
    }
    require(inspect(make_response(BYTES("\x01"), absent, bytes, bytes), &t) == expected);
    require(t.response && (!raw || span_equal(t.ap_req, alone.ap_req)));
    for (unsigned char state = 0; state < 4; state++) {
        require(inspect(make_response(span_make(&state, 1), BYTES(OID_KRB5), bytes, absent), &t) ==
                (state == 1 ? expected : REASON_BAD_TOKEN));
    }
}

/* A contents of an OID whose arcs all end, without zeros in front. */
static bool is_oid(struct span oid)
{
    for (size_t i = 0; i < oid.len; i++) {
        if (oid.ptr[i] == 0x80 && (i == 0 || oid.ptr[i - 1] < 0x80)) {
            return false;
        }
    }
    return oid.len > 0 && oid.ptr[oid.len - 1] < 0x80;
}

/* The bytes as flags, an OID and a state, each where nothing else is wrong. */
static void try_as_fields(struct span bytes)
{
    const struct span absent = {NULL, 0};
    const struct span krb5 = BYTES("\x06\x09" OID_KRB5);
    struct spnego_token t;
    const bool flags = bytes.len > 0 && bytes.ptr[0] < 8 && (bytes.len > 1 || bytes.ptr[0] == 0) &&
                       (bytes.ptr[bytes.len - 1] << (8 - bytes.ptr[0]) & 0xff) == 0;
    require(inspect(make_init(krb5, bytes, absent, absent), &t) ==
            (flags ? REASON_CONTINUE : REASON_BAD_TOKEN));
    require(inspect(make_response(absent, bytes, BYTES("NTLMSSP\0"), absent), &t) ==
            (is_oid(bytes) ? REASON_NTLM : REASON_BAD_TOKEN));
    require(inspect(make_response(bytes, absent, BYTES("NTLMSSP\0"), absent), &t) ==
            (bytes.len == 1 && bytes.ptr[0] == 1 ? REASON_NTLM : REASON_BAD_TOKEN));

    struct writer w = writer();
    put(&w, krb5);
    put_element(&w, 0x06, bytes);
    unsigned char list[8192];
    const struct span two = written(&w);
    if (two.len <= sizeof list) {
        memcpy(list, two.ptr, two.len);
        require(inspect(make_init(span_make(list, two.len), absent, absent, absent), &t) ==
                (is_oid(bytes) ? REASON_CONTINUE : REASON_BAD_TOKEN));
    }
}

/* As many mechanisms as bytes; more than 64 are too many. */
static void try_list_of(size_t count)
{
    struct span absent = {NULL, 0};
    unsigned char list[3 * 66];
    struct spnego_token t;
    for (size_t i = 0; i < count; i++) {
        memcpy(list + 3 * i, "\x06\x01\x55", 3);
    }
    const enum reason expected =
        count == 0 || count > 64 ? REASON_BAD_TOKEN : REASON_MECH_UNSUPPORTED;
    require(inspect(make_init(span_make(list, 3 * count), absent, absent, absent), &t) == expected);
}

static void check_reply(struct buf *reply, unsigned char state, struct span mech,
                        struct span response)
{
    const struct span absent = {NULL, 0};
    const struct span expected = make_response(span_make(&state, 1), mech.len > 0 ? mech : absent,
                                               response.len > 0 ? response : absent, absent);
    require(!reply->failed && span_equal(buf_span(reply), expected));
    buf_reset(reply);
}

/* What we answer is what our own writer writes. */
static void try_replies(struct span mech, struct span response)
{
    static struct buf reply = {.max = ROOM};
    const struct span absent = {NULL, 0};
    spnego_format_completed(&reply, mech, response);
    check_reply(&reply, 0, mech, response);
    spnego_format_incomplete(&reply, mech);
    check_reply(&reply, 1, mech, absent);
    spnego_format_reject(&reply, response);
    check_reply(&reply, 2, absent, response);
}

/* One byte more or less, and it is whole no longer. */
static void try_longer_and_shorter(struct span token)
{
    static unsigned char copy[1 << 14];
    struct spnego_token t;
    if (token.len < sizeof copy) {
        memcpy(copy, token.ptr, token.len);
        copy[token.len] = 0;
        require(inspect(span_make(copy, token.len + 1), &t) == REASON_BAD_TOKEN);
        require(inspect(span_make(copy, token.len - 1), &t) == REASON_BAD_TOKEN);
    }
}

/* What people are told of it: every part lies in the token, and what may be sent is whole. */
static void try_look(struct span token, enum reason reason)
{
    struct spnego_view v;
    const bool whole = spnego_look(token, &v);
    const struct span parts[] = {v.flags, v.token, v.mic};
    require(whole || (reason != REASON_OK && reason != REASON_CONTINUE));
    require(v.mech_count <= SPNEGO_MECHS_MAX && (!whole || v.form != SPNEGO_FORM_OTHER));
    for (size_t i = 0; i < v.mech_count; i++) {
        require(lies_within(v.mechs[i], token));
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        require(parts[i].ptr == NULL || lies_within(parts[i], token));
    }
    if (v.token.len > 0) {
        try_look(v.token, REASON_BAD_TOKEN);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char large[1 << 17];
    const struct span token = span_make(data, size);
    struct spnego_token t;
    const enum reason reason = inspect(token, &t);
    if (reason == REASON_OK || reason == REASON_CONTINUE) {
        check_form(token, reason, &t);
        try_longer_and_shorter(token);
    }
    try_look(token, reason);
    try_as_mech_token(token);
    try_as_fields(token);
    try_list_of(size % 66);
    try_replies(t.mech, token);
    if (size > 2 && data[size - 1] == 0xff) { /* and now and then a large one */
        try_replies(token, span_make(large, (size_t)data[size - 2] << 9 | data[size - 3]));
    }
    return 0;
}
