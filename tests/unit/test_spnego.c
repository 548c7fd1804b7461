#include "wire/spnego.h"

#include <criterion/criterion.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Tokens are written as hexadecimal with "TAG{...}" for an element, whose length build() puts in;
 * blanks do not count. "\"text\"" stands for its characters.
 */
#define OID_KRB5    "2a864886f712010202"
#define OID_MS_KRB5 "2a864882f712010202"
#define SPNEGO      "06{2b0601050502}"
#define KRB5        "06{" OID_KRB5 "}"
#define MS_KRB5     "06{" OID_MS_KRB5 "}"
#define NTLM        "06{2b06010401823702020a}"
#define NEGOEX      "06{2b06010401823702021e}"
#define OTHER       "06{2b0601040182370202ff01}"
#define NTLMSSP     "\"NTLMSSP\" 00 01000000 b7820862"

#define AP_REQ       "6e{30{ a0{0201 05} a1{0201 0e} a2{03{00 20000000}} }}"
#define FRAME(inner) "60{" KRB5 inner "}"
#define GOOD         FRAME("0100" AP_REQ)
#define WHOLE(inner) "60{" SPNEGO inner "}"
#define INIT(fields) WHOLE("a0{30{" fields "}}")
#define MECHS(list)  "a0{30{" list "}}"
#define TOKEN(bytes) "a2{04{" bytes "}}"
#define RESP(fields) "a1{30{" fields "}}"

#define ZEROS_20 "0000000000000000000000000000000000000000"
#define ZEROS_200                                                                                  \
    ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20

#define WINDOWS_LIST MS_KRB5 KRB5 NEGOEX NTLM

enum { NO_LIMIT = 1 << 20 };

static unsigned hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = strchr(digits, c);

    cr_assert(c != '\0' && at != NULL, "not a hexadecimal digit: %c", c);
    return (unsigned)(at - digits);
}

static void append_length(struct buf *out, size_t len)
{
    unsigned char bytes[4] = {(unsigned char)(len >> 24), (unsigned char)(len >> 16),
                              (unsigned char)(len >> 8), (unsigned char)len};
    size_t count = len < 0x80 ? 0 : len < 0x100 ? 1 : len < 0x10000 ? 2 : len < 0x1000000 ? 3 : 4;

    buf_append_byte(out, (unsigned char)(count == 0 ? len : 0x80 + count));
    buf_append(out, bytes + 4 - count, count);
}

static const char *build_into(struct buf *out, const char *text)
{
    while (*text != '\0' && *text != '}') {
        if (*text == ' ') {
            text++;
        } else if (*text == '"') {
            for (text++; *text != '"'; text++) {
                buf_append_byte(out, (unsigned char)*text);
            }
            text++;
        } else {
            buf_append_byte(out, (unsigned char)(hex_digit(text[0]) << 4 | hex_digit(text[1])));
            text += 2;
        }
        if (*text == '{') {
            struct buf inner = {.max = NO_LIMIT};

            text = build_into(&inner, text + 1);
            cr_assert(*text == '}', "an element is not closed");
            append_length(out, inner.len);
            buf_append_span(out, buf_span(&inner));
            buf_clear(&inner);
            text++;
        }
    }
    return text;
}

static void build(struct buf *out, const char *text)
{
    out->max = NO_LIMIT;
    buf_reset(out);
    cr_assert(*build_into(out, text) == '\0' && !out->failed, "cannot build %s", text);
}

/* A copy of exactly this size, so that the sanitizer sees one byte too many. */
static unsigned char *copy_exact(const void *bytes, size_t len)
{
    unsigned char *copy = malloc(len == 0 ? 1 : len);

    cr_assert_not_null(copy);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    return copy;
}

static void assert_reason(enum reason got, enum reason want, const char *why)
{
    cr_assert(got == want, "%s: got %s, not %s", why, reason_info(got)->code,
              reason_info(want)->code);
}

static void assert_bytes(struct span got, const char *want, const char *why)
{
    struct buf bytes = {0};

    build(&bytes, want);
    cr_assert(span_equal(got, buf_span(&bytes)), "%s: %zu bytes, not those wanted", why, got.len);
    buf_clear(&bytes);
}

static bool lies_within(struct span inner, struct span outer)
{
    return inner.ptr >= outer.ptr && inner.len <= outer.len &&
           (size_t)(inner.ptr - outer.ptr) <= outer.len - inner.len;
}

/* What holds for every token whatever is in it. */
static void assert_sound(enum reason reason, const struct spnego_token *t, struct span token,
                         const char *why)
{
    bool has_mech = t->mech.len > 0;

    cr_assert(reason == REASON_OK || reason == REASON_CONTINUE || reason == REASON_NTLM ||
                  reason == REASON_MECH_UNSUPPORTED || reason == REASON_BAD_TOKEN,
              "%s: reason %s", why, reason_info(reason)->code);
    cr_assert_eq(t->ap_req.ptr != NULL, reason == REASON_OK, "%s", why);
    cr_assert_eq(has_mech,
                 reason == REASON_CONTINUE || (reason == REASON_OK && t->framed && !t->response),
                 "%s", why);
    cr_assert(!has_mech || lies_within(t->mech, token), "%s: mech is outside", why);
    cr_assert(!t->response || t->framed, "%s", why);
    if (reason == REASON_OK) {
        cr_assert(lies_within(t->ap_req, token), "%s: ap_req is outside", why);
        cr_assert(t->ap_req.len >= 2 && t->ap_req.ptr[0] == 0x6e, "%s", why);
        cr_assert_eq(t->ap_req.ptr + t->ap_req.len <= token.ptr + token.len, true, "%s", why);
        cr_assert_str_eq(t->offered, "krb5");
    }
    cr_assert(strcmp(t->offered, "krb5") == 0 || strcmp(t->offered, "ntlm") == 0 ||
              strcmp(t->offered, "other") == 0);
}

static enum reason inspect(struct span token, struct spnego_token *out, const char *why)
{
    enum reason reason;

    memset(out, 0xa5, sizeof(*out)); /* everything must be written */
    reason = spnego_inspect(token, out);
    assert_sound(reason, out, token, why);
    return reason;
}

struct refusal {
    const char *token;
    enum reason want;
    bool framed;
    const char *why;
};

static void check_refusals(const struct refusal *cases, size_t count)
{
    struct buf built = {0};

    for (size_t i = 0; i < count; i++) {
        struct spnego_token t;
        unsigned char *copy;

        build(&built, cases[i].token);
        copy = copy_exact(built.ptr, built.len);
        assert_reason(inspect(span_make(copy, built.len), &t, cases[i].why), cases[i].want,
                      cases[i].why);
        cr_assert_eq(t.framed, cases[i].framed, "%s: framed is %d", cases[i].why, t.framed);
        free(copy);
    }
    buf_clear(&built);
}

#define CHECK_REFUSALS(cases) check_refusals(cases, sizeof(cases) / sizeof((cases)[0]))

Test(inspect, finds_the_ap_req_of_what_clients_send)
{
    static const struct {
        const char *token;
        const char *mech; /* "" : none */
        bool framed;
        bool response;
        const char *why;
    } cases[] = {
        {INIT(MECHS(KRB5) TOKEN(GOOD)), OID_KRB5, true, false, "curl, Firefox, Chromium"},
        {INIT(MECHS(WINDOWS_LIST) TOKEN(GOOD)), OID_MS_KRB5, true, false, "Windows"},
        {INIT(MECHS(MS_KRB5) TOKEN(GOOD)), OID_MS_KRB5, true, false, "MS-krb5 alone"},
        {INIT(MECHS(KRB5 MS_KRB5) TOKEN(GOOD)), OID_KRB5, true, false, "krb5 before MS-krb5"},
        {INIT(MECHS(KRB5 NTLM) TOKEN(GOOD)), OID_KRB5, true, false, "krb5 before NTLM"},
        {INIT(MECHS(KRB5 OTHER) TOKEN(GOOD)), OID_KRB5, true, false, "krb5 before unknown"},
        {INIT(MECHS(KRB5 KRB5) TOKEN(GOOD)), OID_KRB5, true, false, "krb5 twice"},
        {INIT(MECHS(KRB5) "a1{03{0176}}" TOKEN(GOOD)), OID_KRB5, true, false, "Java, reqFlags"},
        {INIT(MECHS(KRB5) "a1{03{00}}" TOKEN(GOOD)), OID_KRB5, true, false, "no flag set"},
        {INIT(MECHS(KRB5) "a1{03{0000000000}}" TOKEN(GOOD)), OID_KRB5, true, false, "32 flags"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{04{0102}}"), OID_KRB5, true, false, "mechListMIC"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{0481c8" ZEROS_200 "}"), OID_KRB5, true, false,
         "long MIC"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{04{}}"), OID_KRB5, true, false, "empty mechListMIC"},
        {INIT(MECHS(KRB5) "a1{03{00}}" TOKEN(GOOD) "a3{04{00}}"), OID_KRB5, true, false,
         "all four"},
        {GOOD, "", false, false, "raw krb5: elinks, perl"},
        {RESP(TOKEN(GOOD)), "", true, true, "NegTokenResp with a token only"},
        {RESP("a0{0a{01}}" TOKEN(GOOD)), "", true, true, "accept-incomplete"},
        {RESP("a0{0a{01}} a1{" KRB5 "}" TOKEN(GOOD)), "", true, true, "supportedMech"},
        {RESP("a1{" MS_KRB5 "}" TOKEN(GOOD)), "", true, true, "no negState"},
        {RESP(TOKEN(GOOD) "a3{04{0102}}"), "", true, true, "mechListMIC in a response"},
    };
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spnego_token t;

        build(&built, cases[i].token);
        assert_reason(inspect(buf_span(&built), &t, cases[i].why), REASON_OK, cases[i].why);
        assert_bytes(t.ap_req, AP_REQ, cases[i].why);
        assert_bytes(t.mech, cases[i].mech, cases[i].why);
        cr_assert_eq(t.framed, cases[i].framed, "%s", cases[i].why);
        cr_assert_eq(t.response, cases[i].response, "%s", cases[i].why);
    }
    buf_clear(&built);
}

Test(inspect, asks_for_kerberos_by_the_oid_that_was_listed)
{
    static const struct {
        const char *token;
        const char *mech;
        const char *offered;
        const char *why;
    } cases[] = {
        {INIT(MECHS(KRB5)), OID_KRB5, "krb5", "krb5 without a token"},
        {INIT(MECHS(MS_KRB5 KRB5)), OID_MS_KRB5, "krb5", "MS-krb5 without a token"},
        {INIT(MECHS(KRB5) "a1{03{00}} a3{04{00}}"), OID_KRB5, "krb5", "everything but a token"},
        {INIT(MECHS(NTLM KRB5) TOKEN(NTLMSSP)), OID_KRB5, "ntlm", "NTLM first, then krb5"},
        {INIT(MECHS(NTLM MS_KRB5 KRB5) TOKEN(NTLMSSP)), OID_MS_KRB5, "ntlm", "then MS-krb5"},
        {INIT(MECHS(NTLM KRB5)), OID_KRB5, "ntlm", "NTLM first without a token"},
        {INIT(MECHS(NTLM KRB5) TOKEN(GOOD)), OID_KRB5, "ntlm", "a krb5 token as NTLM's"},
        {INIT(MECHS(NEGOEX MS_KRB5 NTLM) TOKEN("\"NEGOEXTS\"")), OID_MS_KRB5, "other", "NEGOEX"},
        {INIT(MECHS(OTHER NTLM KRB5) TOKEN("00")), OID_KRB5, "other", "unknown first"},
        {INIT(MECHS(OTHER KRB5) TOKEN("")), OID_KRB5, "other", "an empty foreign token"},
        {INIT(MECHS(SPNEGO KRB5)), OID_KRB5, "other", "SPNEGO lists itself"},
    };
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spnego_token t;

        build(&built, cases[i].token);
        assert_reason(inspect(buf_span(&built), &t, cases[i].why), REASON_CONTINUE, cases[i].why);
        assert_bytes(t.mech, cases[i].mech, cases[i].why);
        cr_assert_str_eq(t.offered, cases[i].offered, "%s", cases[i].why);
        cr_assert(t.framed && !t.response, "%s", cases[i].why);
    }
    buf_clear(&built);
}

Test(inspect, tells_ntlm_and_foreign_mechanisms_from_bad_tokens)
{
    static const struct refusal cases[] = {
        {NTLMSSP, REASON_NTLM, false, "raw NTLM"},
        {"\"NTLMSSP\" 00", REASON_NTLM, false, "the signature of NTLM alone"},
        {INIT(MECHS(NTLM) TOKEN(NTLMSSP)), REASON_NTLM, true, "NTLM only"},
        {INIT(MECHS(NTLM)), REASON_NTLM, true, "NTLM without a token"},
        {INIT(MECHS(NEGOEX NTLM) TOKEN("\"NEGOEXTS\"")), REASON_NTLM, true, "NEGOEX and NTLM"},
        {INIT(MECHS(KRB5) TOKEN(NTLMSSP)), REASON_NTLM, true, "NTLM where krb5 was announced"},
        {INIT(MECHS(WINDOWS_LIST) TOKEN(NTLMSSP)), REASON_NTLM, true, "the same from Windows"},
        {RESP(TOKEN(NTLMSSP)), REASON_NTLM, true, "NegTokenResp with NTLM"},
        {RESP("a0{0a{01}} a1{" NTLM "}" TOKEN(NTLMSSP)), REASON_NTLM, true, "the same in full"},
        {"60{" NTLM NTLMSSP "}", REASON_NTLM, false, "NTLM in a GSS frame"},
        {INIT(MECHS(NEGOEX) TOKEN("\"NEGOEXTS\"")), REASON_MECH_UNSUPPORTED, true, "NEGOEX only"},
        {INIT(MECHS(OTHER)), REASON_MECH_UNSUPPORTED, true, "an unknown mechanism only"},
        {INIT(MECHS(OTHER NEGOEX) TOKEN(NTLMSSP)), REASON_MECH_UNSUPPORTED, true,
         "a token of NTLM, but it is not listed"},
        {INIT(MECHS(SPNEGO)), REASON_MECH_UNSUPPORTED, true, "SPNEGO in SPNEGO"},
        {"60{" OTHER "0100}", REASON_MECH_UNSUPPORTED, false, "a raw token of another mechanism"},
        {"60{" MS_KRB5 "0100" AP_REQ "}", REASON_MECH_UNSUPPORTED, false, "raw with MS-krb5's OID"},
        {"60{" NEGOEX "}", REASON_MECH_UNSUPPORTED, false, "raw NEGOEX"},
    };

    CHECK_REFUSALS(cases);
}

Test(inspect, says_which_mechanism_a_refused_token_is_of)
{
    static const struct {
        const char *token;
        const char *offered;
    } cases[] = {
        {NTLMSSP, "ntlm"},
        {INIT(MECHS(NTLM) TOKEN(NTLMSSP)), "ntlm"},
        {INIT(MECHS(NEGOEX NTLM)), "ntlm"},
        {INIT(MECHS(KRB5) TOKEN(NTLMSSP)), "ntlm"},
        {RESP(TOKEN(NTLMSSP)), "ntlm"},
        {"60{" NTLM NTLMSSP "}", "ntlm"},
        {INIT(MECHS(NEGOEX)), "other"},
        {"60{" OTHER "00}", "other"},
        {"00", "other"},
        {INIT(MECHS(KRB5) TOKEN("00")), "krb5"},
        {FRAME("0200 6f{30{}}"), "krb5"},
    };
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spnego_token t;

        build(&built, cases[i].token);
        (void)inspect(buf_span(&built), &t, cases[i].token);
        cr_assert_str_eq(t.offered, cases[i].offered, "%s", cases[i].token);
    }
    buf_clear(&built);
}

Test(inspect, refuses_a_broken_kerberos_frame)
{
    static const struct refusal cases[] = {
        {AP_REQ, REASON_BAD_TOKEN, false, "a bare AP-REQ"},
        {FRAME("0200 6f{30{}}"), REASON_BAD_TOKEN, false, "raw AP-REP"},
        {FRAME("0300 7e{30{}}"), REASON_BAD_TOKEN, false, "raw KRB-ERROR"},
        {FRAME("0200" AP_REQ), REASON_BAD_TOKEN, false, "AP-REP's id before an AP-REQ"},
        {FRAME("0001" AP_REQ), REASON_BAD_TOKEN, false, "the id in the wrong order"},
        {FRAME("0101" AP_REQ), REASON_BAD_TOKEN, false, "an unknown id"},
        {FRAME("0100 6f{30{}}"), REASON_BAD_TOKEN, false, "AP-REQ's id before an AP-REP"},
        {FRAME("0100 4e{30{}}"), REASON_BAD_TOKEN, false, "an AP-REQ that is not constructed"},
        {FRAME("0100"), REASON_BAD_TOKEN, false, "an id and nothing else"},
        {FRAME("01"), REASON_BAD_TOKEN, false, "half an id"},
        {FRAME(""), REASON_BAD_TOKEN, false, "an OID and nothing else"},
        {FRAME(AP_REQ), REASON_BAD_TOKEN, false, "no id"},
        {FRAME("0100" AP_REQ "00"), REASON_BAD_TOKEN, false, "a byte after the AP-REQ"},
        {GOOD "00", REASON_BAD_TOKEN, false, "a byte after the frame"},
        {FRAME("0100" AP_REQ AP_REQ), REASON_BAD_TOKEN, false, "two AP-REQs"},
        {"60{" KRB5 KRB5 "0100" AP_REQ "}", REASON_BAD_TOKEN, false, "two OIDs"},
        {"60{}", REASON_BAD_TOKEN, false, "an empty frame"},
        {INIT(MECHS(KRB5) TOKEN("")), REASON_BAD_TOKEN, true, "an empty mechToken"},
        {INIT(MECHS(KRB5) TOKEN(AP_REQ)), REASON_BAD_TOKEN, true, "an AP-REQ without a frame"},
        {INIT(MECHS(KRB5) TOKEN("60{" MS_KRB5 "0100" AP_REQ "}")), REASON_BAD_TOKEN, true,
         "MS-krb5's OID inside"},
        {INIT(MECHS(MS_KRB5) TOKEN("60{" MS_KRB5 "0100" AP_REQ "}")), REASON_BAD_TOKEN, true,
         "MS-krb5's OID inside its own token"},
        {INIT(MECHS(KRB5) TOKEN("60{" NTLM NTLMSSP "}")), REASON_BAD_TOKEN, true, "framed NTLM"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0200 6f{30{}}"))), REASON_BAD_TOKEN, true, "AP-REP"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0300 7e{30{}}"))), REASON_BAD_TOKEN, true, "KRB-ERROR"},
        {INIT(MECHS(KRB5) TOKEN(GOOD "00")), REASON_BAD_TOKEN, true, "a byte after the frame"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0100" AP_REQ "0000"))), REASON_BAD_TOKEN, true,
         "bytes after the AP-REQ"},
        {INIT(MECHS(KRB5) TOKEN(INIT(MECHS(KRB5) TOKEN(GOOD)))), REASON_BAD_TOKEN, true,
         "SPNEGO as mechToken"},
        {INIT(MECHS(KRB5) TOKEN("\"NTLMSSP\"")), REASON_BAD_TOKEN, true, "half NTLM's signature"},
    };

    CHECK_REFUSALS(cases);
}

Test(inspect, refuses_a_broken_neg_token_init)
{
    static const struct refusal cases[] = {
        {INIT(""), REASON_BAD_TOKEN, true, "no list of mechanisms"},
        {INIT(MECHS("") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an empty list"},
        {INIT("a0{}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "[0] holds nothing"},
        {INIT(TOKEN(GOOD)), REASON_BAD_TOKEN, true, "only a token"},
        {INIT(TOKEN(GOOD) MECHS(KRB5)), REASON_BAD_TOKEN, true, "wrong order"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) TOKEN(GOOD)), REASON_BAD_TOKEN, true, "two tokens"},
        {INIT(MECHS(KRB5) MECHS(KRB5) TOKEN(GOOD)), REASON_BAD_TOKEN, true, "two lists"},
        {INIT("a0{30{" KRB5 "} 30{" KRB5 "}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "two in [0]"},
        {INIT("a0{" KRB5 "}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a list that is no sequence"},
        {INIT("a0{31{" KRB5 "}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a set for the list"},
        {INIT(MECHS(KRB5 "0500") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "NULL in the list"},
        {INIT(MECHS(KRB5 "06{}") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an empty OID"},
        {INIT(MECHS(KRB5 "06{2a80}") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an OID cut in an arc"},
        {INIT(MECHS(KRB5 "06{2a86}") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an arc without end"},
        {INIT(MECHS(KRB5 "06{802a}") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a padded first arc"},
        {INIT(MECHS(KRB5 "06{2a8001}") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a padded arc"},
        {INIT(MECHS(KRB5 "26{2a}") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a constructed OID"},
        {INIT(MECHS(KRB5 "06052a") TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an OID past its list"},
        {INIT(MECHS(KRB5) "a2{24{04{" GOOD "}}}"), REASON_BAD_TOKEN, true, "constructed string"},
        {INIT(MECHS(KRB5) "a2{0c{" GOOD "}}"), REASON_BAD_TOKEN, true, "UTF8String for the token"},
        {INIT(MECHS(KRB5) "a2{" GOOD "}"), REASON_BAD_TOKEN, true, "no OCTET STRING"},
        {INIT(MECHS(KRB5) "a2{}"), REASON_BAD_TOKEN, true, "[2] holds nothing"},
        {INIT(MECHS(KRB5) "82{" GOOD "}"), REASON_BAD_TOKEN, true, "implicit tagging"},
        {INIT(MECHS(KRB5) "a2{04{" GOOD "} 00}"), REASON_BAD_TOKEN, true, "a byte over in [2]"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "00"), REASON_BAD_TOKEN, true, "a byte after the fields"},
        {INIT(MECHS(KRB5) "a1{03{}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "empty BIT STRING"},
        {INIT(MECHS(KRB5) "a1{03{0876}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "8 unused bits"},
        {INIT(MECHS(KRB5) "a1{03{0800}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "8, none set"},
        {INIT(MECHS(KRB5) "a1{03{01}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "unused bits of none"},
        {INIT(MECHS(KRB5) "a1{03{0177}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an unused bit set"},
        {INIT(MECHS(KRB5) "a1{04{0076}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "reqFlags no bits"},
        {INIT(MECHS(NTLM) "a1{03{}}"), REASON_BAD_TOKEN, true, "bad flags count before NTLM"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{30{a0{1b{\"x\"}}}}"), REASON_BAD_TOKEN, true,
         "negHints, which only an acceptor sends"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a4{04{00}}"), REASON_BAD_TOKEN, true, "a field [4]"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{04{00}} a3{04{00}}"), REASON_BAD_TOKEN, true, "two MICs"},
        {INIT(MECHS(KRB5) "a3{04{00}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "MIC before token"},
        {INIT(MECHS(KRB5) TOKEN(GOOD)) "00", REASON_BAD_TOKEN, true, "a byte after everything"},
        {WHOLE("a0{30{" MECHS(KRB5) TOKEN(GOOD) "} 00}"), REASON_BAD_TOKEN, true, "after 0x30"},
        {WHOLE("a0{30{" MECHS(KRB5) TOKEN(GOOD) "}} 00"), REASON_BAD_TOKEN, true, "after 0xa0"},
        {WHOLE("a0{" MECHS(KRB5) TOKEN(GOOD) "}"), REASON_BAD_TOKEN, true, "no sequence"},
        {WHOLE("30{" MECHS(KRB5) TOKEN(GOOD) "}"), REASON_BAD_TOKEN, true, "no choice"},
        {WHOLE(RESP(TOKEN(GOOD))), REASON_BAD_TOKEN, true, "NegTokenResp in a frame"},
        {WHOLE(""), REASON_BAD_TOKEN, true, "only SPNEGO's OID"},
        {"a0{30{" MECHS(KRB5) TOKEN(GOOD) "}}", REASON_BAD_TOKEN, true, "no frame"},
        {"61{" SPNEGO "a0{30{" MECHS(KRB5) TOKEN(GOOD) "}}}", REASON_BAD_TOKEN, false, "tag 0x61"},
        {"40{" SPNEGO "a0{30{" MECHS(KRB5) TOKEN(GOOD) "}}}", REASON_BAD_TOKEN, false, "tag 0x40"},
        {"60{06{2b060105050280}}", REASON_BAD_TOKEN, false, "SPNEGO's OID and an arc without end"},
    };

    CHECK_REFUSALS(cases);
}

Test(inspect, refuses_a_broken_neg_token_resp)
{
    static const struct refusal cases[] = {
        {RESP(""), REASON_BAD_TOKEN, true, "empty"},
        {RESP("a0{0a{01}}"), REASON_BAD_TOKEN, true, "no token"},
        {RESP("a0{0a{01}} a1{" KRB5 "}"), REASON_BAD_TOKEN, true, "only a mechanism"},
        {RESP("a0{0a{00}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "accept-completed"},
        {RESP("a0{0a{02}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "reject"},
        {RESP("a0{0a{02}}"), REASON_BAD_TOKEN, true, "our own reject comes back"},
        {RESP("a0{0a{03}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "request-mic"},
        {RESP("a0{0a{ff}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a negative state"},
        {RESP("a0{0a{0001}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a padded state"},
        {RESP("a0{0a{0100}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a state of two bytes"},
        {RESP("a0{0a{}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an empty state"},
        {RESP("a0{02{01}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "INTEGER for the state"},
        {RESP("a1{06{}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an empty OID"},
        {RESP("a1{06{2a86}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an arc without end"},
        {RESP(TOKEN("")), REASON_BAD_TOKEN, true, "an empty token"},
        {RESP(TOKEN("00")), REASON_BAD_TOKEN, true, "rubbish for a token"},
        {RESP(TOKEN(AP_REQ)), REASON_BAD_TOKEN, true, "an AP-REQ without a frame"},
        {RESP(TOKEN(FRAME("0300 7e{30{}}"))), REASON_BAD_TOKEN, true, "KRB-ERROR"},
        {RESP(TOKEN(INIT(MECHS(KRB5) TOKEN(GOOD)))), REASON_BAD_TOKEN, true, "a NegTokenInit"},
        {RESP(TOKEN(GOOD) "a0{0a{01}}"), REASON_BAD_TOKEN, true, "wrong order"},
        {RESP(TOKEN(GOOD)) "00", REASON_BAD_TOKEN, true, "a byte after everything"},
        {RESP(TOKEN(GOOD) "a4{04{00}}"), REASON_BAD_TOKEN, true, "a field [4]"},
        {"a1{" TOKEN(GOOD) "}", REASON_BAD_TOKEN, true, "no sequence"},
        {"a1{}", REASON_BAD_TOKEN, true, "an empty choice"},
        {"a2{30{" TOKEN(GOOD) "}}", REASON_BAD_TOKEN, false, "a third choice"},
    };

    CHECK_REFUSALS(cases);
}

Test(inspect, refuses_lengths_that_der_does_not_have)
{
    static const struct refusal cases[] = {
        {"", REASON_BAD_TOKEN, false, "nothing"},
        {"60", REASON_BAD_TOKEN, false, "a tag"},
        {"6080", REASON_BAD_TOKEN, false, "an indefinite length and nothing"},
        {"6080" SPNEGO "a0{30{" MECHS(KRB5) TOKEN(GOOD) "}} 0000", REASON_BAD_TOKEN, false,
         "an indefinite length"},
        {WHOLE("a080 30{" MECHS(KRB5) TOKEN(GOOD) "} 0000"), REASON_BAD_TOKEN, true,
         "an indefinite length inside"},
        {INIT(MECHS(KRB5) "a280 04{" GOOD "} 0000"), REASON_BAD_TOKEN, true, "deeper inside"},
        {INIT("a0 810d 30{" KRB5 "}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "13 in two bytes"},
        {INIT("a0 82000d 30{" KRB5 "}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "13 in three bytes"},
        {INIT("a0 8400000d 30{" KRB5 "}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "13 in four bytes"},
        {INIT("a0{30 810b" KRB5 "}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "a list, not minimal"},
        {INIT("a0{30{06 8109 " OID_KRB5 "}}" TOKEN(GOOD)), REASON_BAD_TOKEN, true, "an OID's"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{04817f 00000000000000" ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20
                  ZEROS_20 ZEROS_20 "}"),
         REASON_BAD_TOKEN, true, "127 in two bytes"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{048200c8" ZEROS_200 "}"), REASON_BAD_TOKEN, true,
         "200 in three bytes"},
        {INIT(MECHS(KRB5) TOKEN(GOOD) "a3{04840000 00c8" ZEROS_200 "}"), REASON_BAD_TOKEN, true,
         "200 in five bytes"},
        {"60 8200 81", REASON_BAD_TOKEN, false, "129 in three bytes, cut"},
        {"60 84ffffffff" SPNEGO, REASON_BAD_TOKEN, true, "4 GiB - 1"},
        {"60 8480000000" SPNEGO, REASON_BAD_TOKEN, true, "2 GiB"},
        {"60 850100000000" SPNEGO, REASON_BAD_TOKEN, false, "five bytes of length"},
        {"60 88ffffffffffffffff" SPNEGO, REASON_BAD_TOKEN, false, "eight bytes of length"},
        {"60 ff" SPNEGO, REASON_BAD_TOKEN, false, "the length byte that is reserved"},
        {"60 84ffff", REASON_BAD_TOKEN, false, "a cut length"},
        {WHOLE("a084ffffffff 30{}"), REASON_BAD_TOKEN, true, "4 GiB - 1 inside"},
        {INIT(MECHS(KRB5) "a2{0484fffffff0" GOOD "}"), REASON_BAD_TOKEN, true, "4 GiB of token"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0100 6e84fffffffe 00"))), REASON_BAD_TOKEN, true,
         "4 GiB of AP-REQ"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0100 6e80 0000"))), REASON_BAD_TOKEN, true,
         "an AP-REQ of indefinite length"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0100 6e810101"))), REASON_BAD_TOKEN, true,
         "an AP-REQ's length, not minimal"},
        {INIT(MECHS(KRB5) TOKEN(FRAME("0100 6e0201"))), REASON_BAD_TOKEN, true,
         "an AP-REQ one byte past its frame"},
        {"7f600b" SPNEGO, REASON_BAD_TOKEN, false, "a tag number in a second byte"},
        {"1f{}", REASON_BAD_TOKEN, false, "the tag 0x1f"},
        {"0000", REASON_BAD_TOKEN, false, "end of contents"},
        {"30{}", REASON_BAD_TOKEN, false, "a sequence"},
        {"ffffffff", REASON_BAD_TOKEN, false, "ones"},
        {"\"GET / HTTP/1.1\"", REASON_BAD_TOKEN, false, "text"},
    };

    CHECK_REFUSALS(cases);
}

Test(inspect, an_absent_token_is_a_bad_one)
{
    struct spnego_token t;

    assert_reason(inspect(span_make(NULL, 0), &t, "absent"), REASON_BAD_TOKEN, "absent");
    cr_assert_not(t.framed);
}

Test(inspect, a_list_may_have_64_mechanisms_and_no_more)
{
    static const struct {
        unsigned count;
        enum reason want;
    } cases[] = {{64, REASON_CONTINUE}, {65, REASON_BAD_TOKEN}, {600, REASON_BAD_TOKEN}};
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf text = {.max = NO_LIMIT};
        struct spnego_token t;

        buf_append_str(&text, "60{" SPNEGO "a0{30{a0{30{");
        for (unsigned n = 1; n < cases[i].count; n++) {
            buf_append_str(&text, OTHER);
        }
        buf_append(&text, KRB5 "}}}}}", sizeof(KRB5 "}}}}}"));
        build(&built, (const char *)text.ptr);
        assert_reason(inspect(buf_span(&built), &t, "list"), cases[i].want, "list");
        buf_clear(&text);
    }
    buf_clear(&built);
}

Test(inspect, deep_nesting_is_refused_without_following_it)
{
    static const char *const tags[] = {"60{", "a0{", "a1{", "30{", "04{", "06{"};
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        struct buf text = {.max = NO_LIMIT};
        struct spnego_token t;

        buf_append_str(&text, i == 0 ? "" : "60{" SPNEGO);
        for (unsigned n = 0; n < 1000; n++) {
            buf_append_str(&text, tags[i]);
        }
        for (unsigned n = 0; n < 1000; n++) {
            buf_append_byte(&text, '}');
        }
        buf_append(&text, i == 0 ? "" : "}", i == 0 ? 1 : 2);
        build(&built, (const char *)text.ptr);
        assert_reason(inspect(buf_span(&built), &t, tags[i]), REASON_BAD_TOKEN, tags[i]);
        buf_clear(&text);
    }
    buf_clear(&built);
}

Test(inspect, a_large_ap_req_is_found_whole)
{
    static const size_t sizes[] = {0, 1, 100, 127, 128, 255, 256, 4000, 65535, 65536, 100000};
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct buf text = {.max = NO_LIMIT};
        struct spnego_token t;

        buf_append_str(&text, "60{" SPNEGO "a0{30{" MECHS(KRB5) "a2{04{60{" KRB5 "0100 6e{");
        for (size_t n = 0; n < sizes[i]; n++) {
            buf_append_str(&text, "5a");
        }
        buf_append(&text, "}}}}}}}", sizeof("}}}}}}}"));
        build(&built, (const char *)text.ptr);
        assert_reason(inspect(buf_span(&built), &t, "large"), REASON_OK, "large");
        cr_assert(t.ap_req.len > sizes[i] && t.ap_req.len <= sizes[i] + 6);
        cr_assert(t.ap_req.ptr + t.ap_req.len == built.ptr + built.len);
        buf_clear(&text);
    }
    buf_clear(&built);
}

static const char *const whole_tokens[] = {
    INIT(MECHS(KRB5) TOKEN(GOOD)),
    INIT(MECHS(WINDOWS_LIST) "a1{03{0176}}" TOKEN(GOOD) "a3{04{0102}}"),
    GOOD,
    RESP("a0{0a{01}} a1{" KRB5 "}" TOKEN(GOOD)),
};

Test(hostile, every_truncation_is_a_bad_token)
{
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(whole_tokens) / sizeof(whole_tokens[0]); i++) {
        build(&built, whole_tokens[i]);
        for (size_t len = 0; len < built.len; len++) {
            unsigned char *copy = copy_exact(built.ptr, len);
            struct spnego_token t;

            assert_reason(inspect(span_make(copy, len), &t, "cut"), REASON_BAD_TOKEN, "cut");
            cr_assert(t.framed == (i != 2) || len < 10, "cut at %zu", len);
            free(copy);
        }
    }
    buf_clear(&built);
}

Test(hostile, bytes_after_a_token_make_it_bad)
{
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(whole_tokens) / sizeof(whole_tokens[0]); i++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            struct spnego_token t;

            build(&built, whole_tokens[i]);
            buf_append_byte(&built, (unsigned char)byte);
            assert_reason(inspect(buf_span(&built), &t, "longer"), REASON_BAD_TOKEN, "longer");
        }
    }
    buf_clear(&built);
}

/* With every changed byte the token is refused or the AP-REQ stays where it was. */
static void check_changed(struct buf *built, size_t at, unsigned char byte, struct span ap_req)
{
    unsigned char old = built->ptr[at];
    unsigned char *copy;
    struct spnego_token t;
    enum reason reason;
    size_t start = (size_t)(ap_req.ptr - built->ptr);

    built->ptr[at] = byte;
    copy = copy_exact(built->ptr, built->len);
    reason = inspect(span_make(copy, built->len), &t, "changed");
    if (reason == REASON_OK) {
        cr_assert_eq((size_t)(t.ap_req.ptr - copy), start, "0x%02x at %zu", byte, at);
        cr_assert_eq(t.ap_req.len, ap_req.len, "0x%02x at %zu", byte, at);
        cr_assert(at != start && at != start + 1, "0x%02x as the AP-REQ's header", byte);
    } else {
        cr_assert(byte == old || at < start + 2 || at >= start + ap_req.len,
                  "0x%02x at %zu, inside the AP-REQ, is not for us to refuse", byte, at);
    }
    free(copy);
    built->ptr[at] = old;
}

Test(hostile, no_changed_byte_moves_the_ap_req)
{
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(whole_tokens) / sizeof(whole_tokens[0]); i++) {
        struct spnego_token t;

        build(&built, whole_tokens[i]);
        assert_reason(inspect(buf_span(&built), &t, "whole"), REASON_OK, "whole");
        for (size_t at = 0; at < built.len; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                if (byte != built.ptr[at]) {
                    check_changed(&built, at, (unsigned char)byte, t.ap_req);
                }
            }
        }
    }
    buf_clear(&built);
}

Test(format, completed_has_only_the_parts_that_there_are)
{
    struct buf oid = {0};
    struct buf out = {0};

    build(&oid, OID_MS_KRB5);
    spnego_format_completed(&out, buf_span(&oid), span_of("reply"));
    assert_bytes(buf_span(&out), RESP("a0{0a{00}} a1{" MS_KRB5 "} a2{04{\"reply\"}}"), "both");
    buf_reset(&out);
    spnego_format_completed(&out, buf_span(&oid), span_make(NULL, 0));
    assert_bytes(buf_span(&out), RESP("a0{0a{00}} a1{" MS_KRB5 "}"), "mech");
    buf_reset(&out);
    spnego_format_completed(&out, span_make(NULL, 0), span_of("reply"));
    assert_bytes(buf_span(&out), RESP("a0{0a{00}} a2{04{\"reply\"}}"), "response");
    buf_reset(&out);
    spnego_format_completed(&out, span_make(NULL, 0), span_make(NULL, 0));
    assert_bytes(buf_span(&out), "a1 07 30 05 a0 03 0a 01 00", "neither");
    buf_reset(&out);
    spnego_format_completed(&out, span_of(""), span_of(""));
    assert_bytes(buf_span(&out), "a1 07 30 05 a0 03 0a 01 00", "empty is absent");
    buf_clear(&out);
    buf_clear(&oid);
}

Test(format, incomplete_names_the_mechanism)
{
    struct buf oid = {0};
    struct buf out = {0};

    build(&oid, OID_KRB5);
    spnego_format_incomplete(&out, buf_span(&oid));
    assert_bytes(buf_span(&out),
                 "a1 14 30 12 a0 03 0a 01 01 a1 0b 06 09 2a 86 48 86 f7 12 01 02 02", "krb5");
    buf_clear(&out);
    buf_clear(&oid);
}

Test(format, reject_may_carry_an_error)
{
    struct buf out = {0};

    spnego_format_reject(&out, span_make(NULL, 0));
    assert_bytes(buf_span(&out), "a1 07 30 05 a0 03 0a 01 02", "plain");
    buf_reset(&out);
    spnego_format_reject(&out, span_of("error"));
    assert_bytes(buf_span(&out), "a1 10 30 0e a0 03 0a 01 02 a2 07 04 05 \"error\"", "KRB-ERROR");
    buf_clear(&out);
}

Test(format, lengths_are_minimal_at_every_size)
{
    struct buf text = {.max = NO_LIMIT};
    struct buf response = {.max = NO_LIMIT};
    struct buf out = {.max = NO_LIMIT};

    for (size_t size = 1; size < 70000; size += size < 300 ? 1 : size < 65200 ? 6400 : 7) {
        buf_reset(&response);
        buf_reset(&text);
        buf_reset(&out);
        buf_append_str(&text, "a1{30{ a0{0a{00}} a2{04{\"");
        for (size_t n = 0; n < size; n++) {
            buf_append_byte(&response, 'x');
        }
        buf_append_span(&text, buf_span(&response));
        buf_append(&text, "\"}}}}", sizeof("\"}}}}"));
        spnego_format_completed(&out, span_make(NULL, 0), buf_span(&response));
        assert_bytes(buf_span(&out), (const char *)text.ptr, "size");
    }
    buf_clear(&text);
    buf_clear(&response);
    buf_clear(&out);
}

Test(format, what_does_not_fit_fails_the_buf)
{
    struct buf out = {.max = 8};

    spnego_format_reject(&out, span_make(NULL, 0));
    cr_assert(out.failed);
    buf_clear(&out);
}

/* What spnego_look says of one layer, for people. */
static bool look(const char *text, struct buf *built, struct spnego_view *out)
{
    build(built, text);
    memset(out, 0xa5, sizeof(*out)); /* everything that counts must be written */
    return spnego_look(buf_span(built), out);
}

Test(look, says_what_each_form_is)
{
    static const struct {
        const char *token;
        enum spnego_form form;
        bool whole;
    } cases[] = {
        {INIT(MECHS(KRB5) TOKEN(GOOD)), SPNEGO_FORM_INIT, true},
        {"a0{30{" MECHS(KRB5) "}}", SPNEGO_FORM_INIT, true},
        {INIT(MECHS("")), SPNEGO_FORM_INIT, false},
        {INIT(MECHS(KRB5) "a1{03{08 00}}"), SPNEGO_FORM_INIT, false},
        {INIT(MECHS(KRB5) "a2{03{00}}"), SPNEGO_FORM_INIT, false},
        {RESP("a0{0a{01}}" TOKEN(GOOD)), SPNEGO_FORM_RESPONSE, true},
        {RESP("a0{0a{04}}"), SPNEGO_FORM_RESPONSE, false},
        {RESP("a1{06{80}}"), SPNEGO_FORM_RESPONSE, false},
        {GOOD, SPNEGO_FORM_KRB5, true},
        {"60{" KRB5 "01}", SPNEGO_FORM_KRB5, false},
        {"60{" OTHER "0102}", SPNEGO_FORM_MECHANISM, true},
        {NTLMSSP, SPNEGO_FORM_NTLM, true},
        {"\"NEGOEXTS\" 00", SPNEGO_FORM_NEGOEX, true},
        {AP_REQ, SPNEGO_FORM_AP_REQ, true},
        {AP_REQ "00", SPNEGO_FORM_AP_REQ, false},
        {"6f{00}", SPNEGO_FORM_AP_REP, true},
        {"7e{00}", SPNEGO_FORM_KRB_ERROR, true},
        {"\"garbage\"", SPNEGO_FORM_OTHER, false},
        {"30{00}", SPNEGO_FORM_OTHER, false},
        {"", SPNEGO_FORM_OTHER, false},
        {"60", SPNEGO_FORM_OTHER, false},
    };
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spnego_view v;

        cr_assert_eq(look(cases[i].token, &built, &v), cases[i].whole, "%s", cases[i].token);
        cr_assert_eq(v.form, cases[i].form, "%s: form %d", cases[i].token, v.form);
    }
    buf_clear(&built);
}

Test(look, gives_every_part_of_an_init)
{
    struct buf built = {0};
    struct spnego_view v;

    cr_assert(
        look(INIT(MECHS(WINDOWS_LIST) "a1{03{01 62}}" TOKEN(GOOD) "a3{04{0102}}"), &built, &v));
    cr_assert_eq(v.mech_count, 4);
    assert_bytes(v.mechs[0], OID_MS_KRB5, "first");
    assert_bytes(v.mechs[1], OID_KRB5, "second");
    assert_bytes(v.flags, "0162", "reqFlags");
    assert_bytes(v.token, GOOD, "mechToken");
    assert_bytes(v.mic, "0102", "mechListMIC");
    cr_assert(!v.hints && v.state == -1 && v.promised == 0);
    cr_assert(look(INIT(MECHS(KRB5) "a3{30{}}"), &built, &v));
    cr_assert(v.hints && v.mic.ptr == NULL && v.token.ptr == NULL);
    buf_clear(&built);
}

Test(look, gives_every_part_of_an_answer_and_of_a_krb5_frame)
{
    struct buf built = {0};
    struct spnego_view v;

    cr_assert(look(RESP("a0{0a{02}} a1{" NTLM "}" TOKEN("07") "a3{04{}}"), &built, &v));
    cr_assert_eq(v.state, 2);
    cr_assert_eq(v.mech_count, 1);
    assert_bytes(v.token, "07", "token");
    cr_assert(v.mic.ptr != NULL && v.mic.len == 0);
    cr_assert(look("60{" MS_KRB5 "0300 7e{00}}", &built, &v));
    cr_assert_eq(v.form, SPNEGO_FORM_KRB5);
    assert_bytes(v.mechs[0], OID_MS_KRB5, "the frame's");
    assert_bytes(v.token, "7e{00}", "behind the token id");
    buf_clear(&built);
}

Test(look, a_list_that_is_too_long_is_not_whole)
{
    char text[4096] = "60{06{2b0601050502} a0{30{a0{30{";
    struct buf built = {0};
    struct spnego_view v;

    for (size_t i = 0; i < SPNEGO_MECHS_MAX; i++) {
        strcat(text, "06{2a03}");
    }
    size_t at = strlen(text);
    strcpy(text + at, "}}}}}");
    cr_assert(look(text, &built, &v));
    cr_assert_eq(v.mech_count, SPNEGO_MECHS_MAX);
    strcpy(text + at, "06{2a03}}}}}}");
    cr_assert(!look(text, &built, &v));
    cr_assert_eq(v.mech_count, SPNEGO_MECHS_MAX, "and nothing is written behind the list");
    buf_clear(&built);
}

/* Every part lies in the token, wherever it is cut, and the cut is told from the length. */
Test(look, a_cut_token_is_still_called_what_it_is)
{
    struct buf built = {0};

    for (size_t i = 0; i < sizeof(whole_tokens) / sizeof(whole_tokens[0]); i++) {
        build(&built, whole_tokens[i]);
        for (size_t len = 0; len <= built.len; len++) {
            unsigned char *copy = copy_exact(built.ptr, len);
            struct spnego_view v;
            bool whole = spnego_look(span_make(copy, len), &v);

            cr_assert_eq(whole, len == built.len, "cut at %zu", len);
            cr_assert(whole || len < 4 || v.promised == built.len, "cut at %zu: %zu", len,
                      v.promised);
            cr_assert(len < 20 || v.form != SPNEGO_FORM_OTHER, "cut at %zu", len);
            for (size_t n = 0; n < v.mech_count; n++) {
                cr_assert(lies_within(v.mechs[n], span_make(copy, len)));
            }
            cr_assert(v.token.ptr == NULL || lies_within(v.token, span_make(copy, len)));
            free(copy);
        }
    }
    buf_clear(&built);
}

Test(look, mechanisms_have_names_and_numbers)
{
    static const struct {
        const char *oid;
        const char *text;
    } cases[] = {
        {OID_KRB5, "krb5 (1.2.840.113554.1.2.2)"},
        {OID_MS_KRB5, "MS-krb5 (1.2.840.48018.1.2.2)"},
        {"2b06010401823702020a", "NTLM (1.3.6.1.4.1.311.2.2.10)"},
        {"2b06010401823702021e", "NEGOEX (1.3.6.1.4.1.311.2.2.30)"},
        {"2b0601050502", "SPNEGO (1.3.6.1.5.5.2)"},
        {"2a0304", "1.2.3.4"},
        {"00", "0.0"},
        {"4f", "1.39"},
        {"50", "2.0"},
        {"8837", "2.999"},
        {"2a81ffffffffffffffff7f", "1.2.18446744073709551615"},
        {"2a82ffffffffffffffff7f", "1.2..."},
    };
    struct buf built = {0};
    char text[SPNEGO_MECH_BYTES];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        build(&built, cases[i].oid);
        cr_assert_str_eq(spnego_mech_text(buf_span(&built), text), cases[i].text);
    }
    buf_reset(&built);
    for (size_t i = 0; i < 4 * SPNEGO_MECH_BYTES; i++) {
        buf_append_byte(&built, 0x7f);
    }
    cr_assert(strlen(spnego_mech_text(buf_span(&built), text)) < SPNEGO_MECH_BYTES);
    cr_assert_str_eq(text + strlen(text) - 3, "...");
    buf_clear(&built);
}

TestSuite(inspect, .timeout = 60);
TestSuite(hostile, .timeout = 100);
TestSuite(look, .timeout = 60);
TestSuite(format, .timeout = 100);
