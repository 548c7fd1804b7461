#include "wire/spnego.h"

#include <stdint.h>
#include <string.h>

enum {
    TAG_BIT_STRING = 0x03,
    TAG_OCTET_STRING = 0x04,
    TAG_OID = 0x06,
    TAG_ENUMERATED = 0x0a,
    TAG_SEQUENCE = 0x30,
    TAG_GSS_FRAME = 0x60, /* [APPLICATION 0], RFC 2743 3.1 */
    TAG_AP_REQ = 0x6e,    /* [APPLICATION 14], RFC 4120 5.5.1 */
    TAG_AP_REP = 0x6f,
    TAG_KRB_ERROR = 0x7e,
    TAG_NEG_INIT = 0xa0,
    TAG_NEG_RESP = 0xa1,
};

enum { STATE_COMPLETED = 0, STATE_INCOMPLETE = 1, STATE_REJECT = 2 };

enum { LENGTH_BYTES_MAX = 4 };

enum mech { MECH_OTHER, MECH_SPNEGO, MECH_KRB5, MECH_MS_KRB5, MECH_NTLM };

/* The mechanisms that we tell apart, by the contents of their OIDs. */
static const struct {
    enum mech mech;
    unsigned char len;
    unsigned char oid[10];
} mechs[] = {
    {MECH_KRB5, 9, {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02}},
    {MECH_MS_KRB5, 9, {0x2a, 0x86, 0x48, 0x82, 0xf7, 0x12, 0x01, 0x02, 0x02}},
    {MECH_SPNEGO, 6, {0x2b, 0x06, 0x01, 0x05, 0x05, 0x02}},
    {MECH_NTLM, 10, {0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a}},
};

/* What counts in a mechTypes list. */
struct mech_list {
    enum mech first;
    bool has_ntlm;
    struct span kerberos; /* the first krb5 or MS-krb5 */
};

/* The elements of a NegTokenInit or a NegTokenResp, unwrapped; {NULL, 0} is one that is absent. */
struct neg_fields {
    struct span items[4];
};

static struct span skip(struct span s, size_t count)
{
    return span_make(s.ptr + count, s.len - count);
}

static bool starts_with(struct span s, const void *bytes, size_t len)
{
    return s.len >= len && memcmp(s.ptr, bytes, len) == 0;
}

static bool is_ntlmssp(struct span s)
{
    return starts_with(s, "NTLMSSP", sizeof("NTLMSSP"));
}

/* Moves `*in` past a tag and a length in the one form that DER has for them. No tag of ours has a
 * second byte, so the first is compared and that is all. What the length promises may not be there:
 * that is for the caller to see. */
static bool read_header(struct span *in, unsigned char *tag, size_t *len)
{
    struct span s = *in;
    size_t count;
    size_t value = 0;

    if (s.len < 2) {
        return false;
    }
    *tag = s.ptr[0];
    if (s.ptr[1] < 0x80) {
        *len = s.ptr[1];
        *in = skip(s, 2);
        return true;
    }
    count = s.ptr[1] & 0x7f;
    s = skip(s, 2);
    if (count == 0 || count > LENGTH_BYTES_MAX || count > s.len || s.ptr[0] == 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        value = value << 8 | s.ptr[i];
    }
    if (value < 0x80) {
        return false;
    }
    *len = value;
    *in = skip(s, count);
    return true;
}

/* Takes the next element, which must have this tag, off `*in`; `contents` may be `in`'s own. */
static bool take(struct span *in, unsigned char tag, struct span *contents)
{
    struct span s = *in;
    unsigned char found;
    size_t len;

    if (!read_header(&s, &found, &len) || found != tag || len > s.len) {
        return false;
    }
    *in = skip(s, len);
    *contents = span_make(s.ptr, len);
    return true;
}

/* The same for an element that must be all there is. */
static bool take_only(struct span in, unsigned char tag, struct span *contents)
{
    return take(&in, tag, contents) && in.len == 0;
}

/* Every arc ends inside the OID and none is padded with zero bits. */
static bool is_oid(struct span oid)
{
    bool at_start = true;

    for (size_t i = 0; i < oid.len; i++) {
        if (at_start && oid.ptr[i] == 0x80) {
            return false;
        }
        at_start = (oid.ptr[i] & 0x80) == 0;
    }
    return oid.len > 0 && at_start;
}

static bool take_oid(struct span *in, struct span *oid)
{
    return take(in, TAG_OID, oid) && is_oid(*oid);
}

/* A count of unused bits, then bytes whose unused bits are zero (X.690 11.2.1). A count alone is
 * its own last byte, which fails unless it is 0. */
static bool is_bit_string(struct span s)
{
    return s.len > 0 && s.ptr[0] <= 7 && (s.ptr[s.len - 1] & ((1U << s.ptr[0]) - 1)) == 0;
}

static enum mech mech_of(struct span oid)
{
    for (size_t i = 0; i < sizeof(mechs) / sizeof(mechs[0]); i++) {
        if (span_equal(oid, span_make(mechs[i].oid, mechs[i].len))) {
            return mechs[i].mech;
        }
    }
    return MECH_OTHER;
}

static bool is_kerberos(enum mech mech)
{
    return mech == MECH_KRB5 || mech == MECH_MS_KRB5;
}

static const char *offered_text(enum mech mech)
{
    return is_kerberos(mech) ? "krb5" : mech == MECH_NTLM ? "ntlm" : "other";
}

/* RFC 4121 4.1: frame, OID, token id 01 00, AP-REQ. Inside SPNEGO, too, the OID is krb5's own: no
 * client was seen to put Microsoft's there, and the acceptor does not know it. */
static bool read_ap_req(struct span frame, struct span *ap_req)
{
    struct span inner;
    struct span oid;
    struct span contents;

    if (!take_only(frame, TAG_GSS_FRAME, &inner) || !take_oid(&inner, &oid) ||
        mech_of(oid) != MECH_KRB5 || !starts_with(inner, "\x01\x00", 2)) {
        return false;
    }
    inner = skip(inner, 2);
    if (!take_only(inner, TAG_AP_REQ, &contents)) {
        return false;
    }
    *ap_req = inner;
    return true;
}

/* Reads a SEQUENCE of optional elements, each of type types[i] inside [i], in this order. */
static bool read_fields(struct span in, const unsigned char types[4], struct neg_fields *out)
{
    struct span sequence;
    struct span wrapped;

    *out = (struct neg_fields){{{NULL, 0}}};
    if (!take_only(in, TAG_SEQUENCE, &sequence)) {
        return false;
    }
    for (unsigned i = 0; i < 4 && sequence.len > 0; i++) {
        unsigned char context = (unsigned char)(TAG_NEG_INIT + i);

        if (sequence.ptr[0] == context && (!take(&sequence, context, &wrapped) ||
                                           !take_only(wrapped, types[i], &out->items[i]))) {
            return false;
        }
    }
    return sequence.len == 0;
}

static bool read_mech_list(struct span in, struct mech_list *out)
{
    *out = (struct mech_list){MECH_OTHER, false, {NULL, 0}};
    if (in.len == 0) {
        return false;
    }
    for (size_t i = 0; in.len > 0; i++) {
        struct span oid;
        enum mech mech;

        if (i == SPNEGO_MECHS_MAX || !take_oid(&in, &oid)) {
            return false;
        }
        mech = mech_of(oid);
        if (i == 0) {
            out->first = mech;
        }
        if (mech == MECH_NTLM) {
            out->has_ntlm = true;
        }
        if (is_kerberos(mech) && out->kerberos.ptr == NULL) {
            out->kerberos = oid;
        }
    }
    return true;
}

/* What a token says that is NTLM's or Kerberos' own, without SPNEGO around it. */
static enum reason inspect_mech_token(struct span token, struct spnego_token *out)
{
    if (is_ntlmssp(token)) {
        out->offered = "ntlm";
        return REASON_NTLM;
    }
    return read_ap_req(token, &out->ap_req) ? REASON_OK : REASON_BAD_TOKEN;
}

/* NegTokenInit, RFC 4178 4.2.1. */
static enum reason inspect_init(struct span in, struct spnego_token *out)
{
    static const unsigned char types[4] = {TAG_SEQUENCE, TAG_BIT_STRING, TAG_OCTET_STRING,
                                           TAG_OCTET_STRING};
    struct neg_fields fields;
    struct mech_list list;
    struct span token;
    enum reason reason;

    if (!take_only(in, TAG_NEG_INIT, &in) || !read_fields(in, types, &fields) ||
        !read_mech_list(fields.items[0], &list) ||
        (fields.items[1].ptr != NULL && !is_bit_string(fields.items[1]))) {
        return REASON_BAD_TOKEN;
    }
    token = fields.items[2];
    out->offered = offered_text(list.first);
    if (list.kerberos.ptr == NULL) {
        out->offered = list.has_ntlm ? "ntlm" : "other";
        return list.has_ntlm ? REASON_NTLM : REASON_MECH_UNSUPPORTED;
    }
    reason = is_kerberos(list.first) && token.ptr != NULL ? inspect_mech_token(token, out)
                                                          : REASON_CONTINUE;
    if (reason == REASON_OK || reason == REASON_CONTINUE) {
        out->mech = list.kerberos;
    }
    return reason;
}

/* NegTokenResp, RFC 4178 4.2.2: which mechanism it is about, its token says. */
static enum reason inspect_response(struct span token, struct spnego_token *out)
{
    static const unsigned char types[4] = {TAG_ENUMERATED, TAG_OID, TAG_OCTET_STRING,
                                           TAG_OCTET_STRING};
    struct neg_fields fields;
    struct span in;
    enum reason reason;

    if (!take_only(token, TAG_NEG_RESP, &in) || !read_fields(in, types, &fields)) {
        return REASON_BAD_TOKEN;
    }
    if (fields.items[0].ptr != NULL &&
        (fields.items[0].len != 1 || fields.items[0].ptr[0] != STATE_INCOMPLETE)) {
        return REASON_BAD_TOKEN;
    }
    if (fields.items[1].ptr != NULL && !is_oid(fields.items[1])) {
        return REASON_BAD_TOKEN;
    }
    reason = inspect_mech_token(fields.items[2], out);
    if (reason == REASON_OK) {
        out->offered = "krb5";
    }
    return reason;
}

/* A token in a GSS frame (RFC 2743 3.1): SPNEGO's first one, or a mechanism's own. */
static enum reason inspect_frame(struct span token, struct spnego_token *out)
{
    struct span inner;
    struct span oid;

    if (!take_only(token, TAG_GSS_FRAME, &inner) || !take_oid(&inner, &oid)) {
        return REASON_BAD_TOKEN;
    }
    switch (mech_of(oid)) {
    case MECH_SPNEGO:
        return inspect_init(inner, out);
    case MECH_KRB5:
        out->offered = "krb5";
        return read_ap_req(token, &out->ap_req) ? REASON_OK : REASON_BAD_TOKEN;
    case MECH_NTLM:
        out->offered = "ntlm";
        return REASON_NTLM;
    case MECH_MS_KRB5:
    case MECH_OTHER:
        break;
    }
    return REASON_MECH_UNSUPPORTED;
}

/* Whether the client speaks SPNEGO, even if the token was cut later on: then a refusal is put in
 * its language, because a client was seen to repeat itself for ever after a bare challenge. */
static bool is_spnego(struct span token)
{
    unsigned char tag;
    size_t len;
    struct span oid;

    if (!read_header(&token, &tag, &len)) {
        return false;
    }
    if (tag == TAG_GSS_FRAME) {
        return take(&token, TAG_OID, &oid) && mech_of(oid) == MECH_SPNEGO;
    }
    return tag == TAG_NEG_INIT || tag == TAG_NEG_RESP;
}

enum reason spnego_inspect(struct span token, struct spnego_token *out)
{
    *out = (struct spnego_token){.offered = "other"};
    if (is_ntlmssp(token)) {
        out->offered = "ntlm";
        return REASON_NTLM;
    }
    out->framed = is_spnego(token);
    out->response = out->framed && token.ptr[0] == TAG_NEG_RESP;
    return out->response ? inspect_response(token, out) : inspect_frame(token, out);
}

/* The OIDs of a mechTypes list into `out`. */
static bool look_at_list(struct span list, struct spnego_view *out)
{
    while (list.len > 0) {
        if (out->mech_count == SPNEGO_MECHS_MAX || !take_oid(&list, &out->mechs[out->mech_count])) {
            return false;
        }
        out->mech_count++;
    }
    return out->mech_count > 0;
}

/* NegTokenInit, or what acceptors send: [3] is then negHints, and [4] the mechListMIC. */
static bool look_at_init(struct span in, struct spnego_view *out)
{
    static const unsigned char types[4] = {TAG_SEQUENCE, TAG_BIT_STRING, TAG_OCTET_STRING,
                                           TAG_OCTET_STRING};
    static const unsigned char hinted[4] = {TAG_SEQUENCE, TAG_BIT_STRING, TAG_OCTET_STRING,
                                            TAG_SEQUENCE};
    struct neg_fields fields;

    if (!read_fields(in, types, &fields)) {
        if (!read_fields(in, hinted, &fields)) {
            return false;
        }
        out->hints = true;
        fields.items[3] = (struct span){NULL, 0};
    }
    out->flags = fields.items[1];
    out->token = fields.items[2];
    out->mic = fields.items[3];
    return look_at_list(fields.items[0], out) &&
           (out->flags.ptr == NULL || is_bit_string(out->flags));
}

static bool look_at_response(struct span in, struct spnego_view *out)
{
    static const unsigned char types[4] = {TAG_ENUMERATED, TAG_OID, TAG_OCTET_STRING,
                                           TAG_OCTET_STRING};
    struct neg_fields fields;

    if (!read_fields(in, types, &fields)) {
        return false;
    }
    if (fields.items[0].len == 1) {
        out->state = fields.items[0].ptr[0];
    }
    if (fields.items[1].ptr != NULL) {
        out->mechs[0] = fields.items[1];
        out->mech_count = 1;
    }
    out->token = fields.items[2];
    out->mic = fields.items[3];
    return (fields.items[0].ptr == NULL || (out->state >= 0 && out->state <= 3)) &&
           (out->mech_count == 0 || is_oid(out->mechs[0]));
}

/* A GSS frame: SPNEGO's, krb5's with its two bytes of token id, or another's. */
static bool look_at_frame(struct span in, struct spnego_view *out)
{
    struct span oid;

    if (!take_oid(&in, &oid)) {
        return false;
    }
    if (mech_of(oid) == MECH_SPNEGO) {
        out->form = SPNEGO_FORM_INIT;
        return take_only(in, TAG_NEG_INIT, &in) && look_at_init(in, out);
    }
    out->mechs[out->mech_count++] = oid;
    out->form = is_kerberos(mech_of(oid)) ? SPNEGO_FORM_KRB5 : SPNEGO_FORM_MECHANISM;
    if (out->form == SPNEGO_FORM_MECHANISM) {
        out->token = in;
        return true;
    }
    out->token = in.len < 2 ? in : skip(in, 2);
    return in.len >= 2;
}

/* The size that a token promises, and whose frame it is, when it ends too early or too late. */
static void look_at_cut(struct span token, struct spnego_view *out)
{
    struct span in = token;
    struct span oid;
    unsigned char tag;
    size_t len;

    if (!read_header(&in, &tag, &len)) {
        return;
    }
    out->promised = token.len - in.len + len;
    if (tag == TAG_GSS_FRAME && take_oid(&in, &oid)) {
        out->form = mech_of(oid) == MECH_SPNEGO ? SPNEGO_FORM_INIT
                    : is_kerberos(mech_of(oid)) ? SPNEGO_FORM_KRB5
                                                : SPNEGO_FORM_MECHANISM;
    }
}

static enum spnego_form form_of(unsigned char tag)
{
    switch (tag) {
    case TAG_NEG_INIT:
        return SPNEGO_FORM_INIT;
    case TAG_NEG_RESP:
        return SPNEGO_FORM_RESPONSE;
    case TAG_AP_REQ:
        return SPNEGO_FORM_AP_REQ;
    case TAG_AP_REP:
        return SPNEGO_FORM_AP_REP;
    case TAG_KRB_ERROR:
        return SPNEGO_FORM_KRB_ERROR;
    default:
        return SPNEGO_FORM_OTHER;
    }
}

bool spnego_look(struct span token, struct spnego_view *out)
{
    struct span contents;

    *out = (struct spnego_view){.state = -1};
    if (is_ntlmssp(token)) {
        out->form = SPNEGO_FORM_NTLM;
        return true;
    }
    if (starts_with(token, "NEGOEXTS", 8)) {
        out->form = SPNEGO_FORM_NEGOEX;
        return true;
    }
    if (token.len == 0) {
        return false;
    }
    out->form = form_of(token.ptr[0]);
    if (!take_only(token, token.ptr[0], &contents)) {
        look_at_cut(token, out);
        return false;
    }
    if (token.ptr[0] == TAG_GSS_FRAME) {
        return look_at_frame(contents, out);
    }
    return out->form == SPNEGO_FORM_INIT       ? look_at_init(contents, out)
           : out->form == SPNEGO_FORM_RESPONSE ? look_at_response(contents, out)
                                               : out->form != SPNEGO_FORM_OTHER;
}

/* How many bytes follow the first one of a length. */
static size_t length_more(size_t len)
{
    size_t count = 0;

    if (len >= 0x80) {
        for (; len > 0; len >>= 8) {
            count++;
        }
    }
    return count;
}

/* The size of an element with contents of this size; absent contents make no element. */
static size_t element_size(struct span contents)
{
    return contents.ptr == NULL ? 0 : 2 + length_more(contents.len) + contents.len;
}

static void append_header(struct buf *out, unsigned char tag, size_t len)
{
    size_t more = length_more(len);

    buf_append_byte(out, tag);
    buf_append_byte(out, (unsigned char)(more == 0 ? len : 0x80 | more));
    while (more-- > 0) {
        buf_append_byte(out, (unsigned char)(len >> (8 * more)));
    }
}

/* Element `tag` inside context tag [number], if there are contents. */
static void append_field(struct buf *out, unsigned number, unsigned char tag, struct span contents)
{
    if (contents.ptr != NULL) {
        append_header(out, (unsigned char)(TAG_NEG_INIT + number), element_size(contents));
        append_header(out, tag, contents.len);
        buf_append_span(out, contents);
    }
}

/* The size of what append_field writes. */
static size_t field_size(struct span contents)
{
    size_t inner = element_size(contents);

    return inner == 0 ? 0 : 2 + length_more(inner) + inner;
}

static void append_response(struct buf *out, unsigned char state, struct span mech,
                            struct span response)
{
    struct span negstate = {&state, 1};
    size_t size;

    mech = mech.len == 0 ? span_make(NULL, 0) : mech;
    response = response.len == 0 ? span_make(NULL, 0) : response;
    size = field_size(negstate) + field_size(mech) + field_size(response);
    append_header(out, TAG_NEG_RESP, 2 + length_more(size) + size);
    append_header(out, TAG_SEQUENCE, size);
    append_field(out, 0, TAG_ENUMERATED, negstate);
    append_field(out, 1, TAG_OID, mech);
    append_field(out, 2, TAG_OCTET_STRING, response);
}

void spnego_format_completed(struct buf *out, struct span mech, struct span response)
{
    append_response(out, STATE_COMPLETED, mech, response);
}

void spnego_format_incomplete(struct buf *out, struct span mech)
{
    append_response(out, STATE_INCOMPLETE, mech, span_make(NULL, 0));
}

void spnego_format_reject(struct buf *out, struct span response)
{
    append_response(out, STATE_REJECT, span_make(NULL, 0), response);
}
