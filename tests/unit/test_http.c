#include "wire/http.h"

#include <criterion/criterion.h>

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_LIMIT = 1 << 20 };

static enum reason parse(const char *value, struct buf *token)
{
    return http_parse_authorization(span_of(value), NO_LIMIT, token);
}

/* Parses from memory of exactly this size, so that the sanitizer sees one byte too many. */
static enum reason parse_exact(const void *value, size_t len, size_t max, struct buf *token)
{
    unsigned char *copy = malloc(len == 0 ? 1 : len);
    enum reason reason;

    cr_assert_not_null(copy);
    if (len > 0) {
        memcpy(copy, value, len);
    }
    reason = http_parse_authorization(span_make(copy, len), max, token);
    free(copy);
    return reason;
}

static void assert_reason(enum reason got, enum reason want, const char *why)
{
    cr_assert(got == want, "%s: got %s, not %s", why, reason_info(got)->code,
              reason_info(want)->code);
}

Test(authorization, every_refusal_has_its_own_reason)
{
    static const struct {
        const char *value;
        enum reason want;
        const char *why;
    } cases[] = {
        {"", REASON_NO_CREDENTIALS, "empty"},
        {" ", REASON_NO_CREDENTIALS, "only a space"},
        {"\t \t", REASON_NO_CREDENTIALS, "only blanks"},
        {"Negotiate", REASON_BAD_HEADER, "the scheme alone"},
        {"negotiate ", REASON_BAD_HEADER, "the scheme and a space"},
        {"Negotiate     ", REASON_BAD_HEADER, "the scheme and spaces"},
        {"Negotiate =", REASON_BAD_HEADER, "padding of nothing"},
        {"Negotiate ==", REASON_BAD_HEADER, "padding of nothing, twice"},
        {"Negotiate ====", REASON_BAD_HEADER, "a group of padding only"},
        {"NegotiateYWJj", REASON_OTHER_SCHEME, "no space: another scheme's token"},
        {"Negotiat YWJj", REASON_OTHER_SCHEME, "one letter less"},
        {"Negotiates YWJj", REASON_OTHER_SCHEME, "one letter more"},
        {"Basic YWxpY2U6c2VjcmV0", REASON_OTHER_SCHEME, "Basic"},
        {"Basic", REASON_OTHER_SCHEME, "Basic alone"},
        {"Bearer a.b-c_d~e", REASON_OTHER_SCHEME, "Bearer"},
        {"Digest username=\"alice\", realm=\"x\"", REASON_OTHER_SCHEME, "Digest with parameters"},
        {"Digest username=\"\xc3\xa4\"", REASON_OTHER_SCHEME, "bytes over 127 in another scheme"},
        {"NTLM TlRMTVNTUAAB", REASON_OTHER_SCHEME, "the NTLM scheme"},
        {"!#$%&'*+-.^_`|~09azAZ x", REASON_OTHER_SCHEME, "every character that a scheme may have"},
        {"Basic a\x01z", REASON_BAD_HEADER, "a control byte in another scheme"},
        {"Basic a\x7fz", REASON_BAD_HEADER, "DEL in another scheme"},
        {"Basic\tYWJj", REASON_BAD_HEADER, "another scheme ended by a tab"},
        {"Negotiate\tYWJj", REASON_BAD_HEADER, "a tab for the space"},
        {"Negotiate \tYWJj", REASON_BAD_HEADER, "a tab after the space"},
        {"Negotiate, Basic YWJj", REASON_BAD_HEADER, "a comma in the scheme"},
        {"Negotiate=YWJj", REASON_BAD_HEADER, "no space but an equals sign"},
        {"Negotiate:YWJj", REASON_BAD_HEADER, "a colon after the scheme"},
        {"\"Negotiate\" YWJj", REASON_BAD_HEADER, "a quoted scheme"},
        {"=", REASON_BAD_HEADER, "no scheme at all"},
        {",", REASON_BAD_HEADER, "an empty list"},
        {"\xc3\xa4", REASON_BAD_HEADER, "a scheme of bytes over 127"},
        {"\x01", REASON_BAD_HEADER, "a control byte for the scheme"},
        {"Negotiate YWJj, Basic eDp5", REASON_BAD_HEADER, "two values folded into one"},
        {"Negotiate YWJj,Negotiate YWJj", REASON_BAD_HEADER, "the same value twice"},
        {"Negotiate YWJj,", REASON_BAD_HEADER, "a comma at the end"},
        {"Negotiate ,YWJj", REASON_BAD_HEADER, "a comma in front"},
        {"Negotiate YWJj YWJj", REASON_BAD_HEADER, "two tokens"},
        {"Negotiate YW Jj", REASON_BAD_HEADER, "a space in the token, whole groups otherwise"},
        {"Negotiate YWJ\nYWJj", REASON_BAD_HEADER, "a line end in the token"},
        {"Negotiate YWJj\r\nX: y", REASON_BAD_HEADER, "another header behind it"},
        {"Negotiate YWJ\x7f", REASON_BAD_HEADER, "DEL in the token"},
        {"Negotiate -_~., ", REASON_BAD_HEADER, "a comma after characters that are not base64"},
        {"Negotiate YWJjY", REASON_BAD_BASE64, "one character over"},
        {"Negotiate YWJjYW", REASON_BAD_BASE64, "padding left out, twice"},
        {"Negotiate YWJjYWI", REASON_BAD_BASE64, "padding left out, once"},
        {"Negotiate YQ=", REASON_BAD_BASE64, "one padding instead of two"},
        {"Negotiate YWI==", REASON_BAD_BASE64, "two paddings instead of one"},
        {"Negotiate YWJj=", REASON_BAD_BASE64, "padding after a whole group"},
        {"Negotiate YWJj====", REASON_BAD_BASE64, "a group of padding after a whole one"},
        {"Negotiate Y===", REASON_BAD_BASE64, "three paddings"},
        {"Negotiate YQ==YWJj", REASON_BAD_BASE64, "padding in the middle"},
        {"Negotiate YWI=YWJj", REASON_BAD_BASE64, "one padding in the middle"},
        {"Negotiate =YWJ", REASON_BAD_BASE64, "padding in front"},
        {"Negotiate ===YWJj=", REASON_BAD_BASE64, "three paddings in front"},
        {"Negotiate Y=Jj", REASON_BAD_BASE64, "padding within a group"},
        {"Negotiate YW=j", REASON_BAD_BASE64, "padding and then a character"},
        {"Negotiate YR==", REASON_BAD_BASE64, "a bit after the end, two paddings"},
        {"Negotiate YWJ=", REASON_BAD_BASE64, "a bit after the end, one padding"},
        {"Negotiate YWJ-", REASON_BAD_BASE64, "token68, but not this alphabet: -"},
        {"Negotiate YWJ_", REASON_BAD_BASE64, "token68, but not this alphabet: _"},
        {"Negotiate Y~==", REASON_BAD_BASE64, "token68, but not this alphabet: ~"},
        {"Negotiate .WI=", REASON_BAD_BASE64, "token68, but not this alphabet: ."},
        {"Negotiate !!!!", REASON_BAD_BASE64, "neither token68 nor base64"},
        {"Negotiate YWJ\xff", REASON_BAD_BASE64, "a byte over 127"},
    };
    struct buf token = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum reason got = parse_exact(cases[i].value, strlen(cases[i].value), NO_LIMIT, &token);

        assert_reason(got, cases[i].want, cases[i].why);
        cr_assert_eq(token.len, 0, "%s: bytes were left in the token", cases[i].why);
    }
    buf_clear(&token);
}

Test(authorization, an_absent_value_is_no_credentials)
{
    struct buf token = {0};

    assert_reason(http_parse_authorization(span_make(NULL, 0), NO_LIMIT, &token),
                  REASON_NO_CREDENTIALS, "absent");
    buf_clear(&token);
}

Test(authorization, decodes_what_clients_send)
{
    static const char *const good[] = {
        "Negotiate YWJj",   "negotiate YWJj",       "NEGOTIATE YWJj",     "nEGOTIATE      YWJj",
        "Negotiate YWJj  ", " \t Negotiate YWJj\t", "Negotiate YWJj \t ",
    };
    struct buf token = {0};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_reason(parse_exact(good[i], strlen(good[i]), NO_LIMIT, &token), REASON_OK, good[i]);
        cr_assert(span_equal(buf_span(&token), span_of("abc")), "%s", good[i]);
    }
    assert_reason(parse("Negotiate YQ==", &token), REASON_OK, "two paddings");
    cr_assert(span_equal(buf_span(&token), span_of("a")));
    assert_reason(parse("Negotiate YWI=", &token), REASON_OK, "one padding");
    cr_assert(span_equal(buf_span(&token), span_of("ab")));
    buf_clear(&token);
}

Test(authorization, a_nul_in_the_value_is_a_control_byte)
{
    struct buf token = {0};

    assert_reason(parse_exact("Negotiate YWJj\0", 15, NO_LIMIT, &token), REASON_BAD_HEADER, "end");
    assert_reason(parse_exact("Nego\0tiate YWJj", 15, NO_LIMIT, &token), REASON_BAD_HEADER, "mid");
    assert_reason(parse_exact("\0", 1, NO_LIMIT, &token), REASON_BAD_HEADER, "alone");
    buf_clear(&token);
}

/* What one byte in place of a base64 character makes of a header that is good otherwise. */
static enum reason expected(unsigned byte, unsigned place, const char text[8])
{
    unsigned char bytes[6];
    size_t len;
    bool trimmed = (byte == ' ' && (place == 0 || place == 7)) || (byte == '\t' && place == 7);

    if (trimmed) {
        return REASON_BAD_BASE64; /* seven characters are left */
    }
    if (byte < 0x20 || byte == 0x7f || byte == ' ' || byte == ',') {
        return REASON_BAD_HEADER;
    }
    /* libsodium 1.0.18 takes some bytes over 127 for base64: it sees them as negative numbers. */
    return byte < 128 && sodium_base642bin(bytes, sizeof(bytes), text, 8, NULL, &len, NULL,
                                           sodium_base64_VARIANT_ORIGINAL) == 0
               ? REASON_OK
               : REASON_BAD_BASE64;
}

Test(authorization, every_byte_in_every_place_of_two_groups_agrees_with_libsodium)
{
    struct buf token = {0};

    for (unsigned place = 0; place < 8; place++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            char value[] = "Negotiate YWJjZGVm";
            unsigned char want[6];
            size_t want_len = 0;
            enum reason reason;

            value[10 + place] = (char)byte;
            reason = parse_exact(value, 18, NO_LIMIT, &token);
            assert_reason(reason, expected(byte, place, value + 10), value);
            if (reason == REASON_OK) {
                (void)sodium_base642bin(want, sizeof(want), value + 10, 8, NULL, &want_len, NULL,
                                        sodium_base64_VARIANT_ORIGINAL);
            }
            cr_assert(span_equal(buf_span(&token), span_make(want, want_len)), "byte %u at %u",
                      byte, place);
        }
    }
    buf_clear(&token);
}

Test(authorization, all_last_groups_agree_with_libsodium)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf token = {0};
    char value[32];

    for (unsigned i = 0; i < 64 * 64; i++) {
        for (unsigned padding = 1; padding <= 2; padding++) {
            unsigned char want[16];
            size_t want_len = 0;
            bool good;

            (void)snprintf(value, sizeof(value), "Negotiate QUJD%c%c%c=", alphabet[i % 64],
                           alphabet[i / 64], padding == 2 ? '=' : alphabet[(i * 7) % 64]);
            good = sodium_base642bin(want, sizeof(want), value + 10, 8, NULL, &want_len, NULL,
                                     sodium_base64_VARIANT_ORIGINAL) == 0;
            assert_reason(parse_exact(value, 18, NO_LIMIT, &token),
                          good ? REASON_OK : REASON_BAD_BASE64, value);
            cr_assert(!good || span_equal(buf_span(&token), span_make(want, want_len)), "%s",
                      value);
        }
    }
    buf_clear(&token);
}

Test(authorization, every_length_without_its_padding_is_refused)
{
    struct buf token = {0};

    for (size_t len = 1; len <= 8; len++) {
        for (size_t padding = 0; padding <= 4; padding++) {
            char value[64] = "Negotiate ";
            size_t wanted = len % 3 == 0 ? 0 : 3 - len % 3;
            size_t chars = (len * 8 + 5) / 6;

            memset(value + 10, 'A', chars);
            memset(value + 10 + chars, '=', padding);
            assert_reason(parse_exact(value, 10 + chars + padding, NO_LIMIT, &token),
                          padding == wanted ? REASON_OK : REASON_BAD_BASE64, value);
        }
    }
    buf_clear(&token);
}

Test(authorization, the_limit_counts_the_whole_value_of_negotiate_only)
{
    struct buf token = {0};

    assert_reason(parse_exact("Negotiate YWJj", 14, 14, &token), REASON_OK, "exactly max");
    assert_reason(parse_exact("Negotiate YWJj", 14, 13, &token), REASON_TOKEN_TOO_LARGE, "max + 1");
    assert_reason(parse_exact("Negotiate YWJj,", 15, 13, &token), REASON_TOKEN_TOO_LARGE,
                  "the size is looked at before the token");
    assert_reason(parse_exact("Basic YWJjYWJj", 14, 13, &token), REASON_OTHER_SCHEME,
                  "another scheme");
    assert_reason(parse_exact("Negotiate", 9, 0, &token), REASON_TOKEN_TOO_LARGE, "no room at all");
    buf_clear(&token);
}

Test(authorization, a_token_over_the_ceiling_of_its_buf_is_internal_and_leaves_the_buf_usable)
{
    struct buf token = {.max = 300};
    char value[10 + 404];

    memcpy(value, "Negotiate ", 10);
    memset(value + 10, 'A', 404);
    assert_reason(parse_exact(value, sizeof(value), NO_LIMIT, &token), REASON_INTERNAL,
                  "303 bytes");
    cr_assert_eq(token.len, 0);
    assert_reason(parse_exact(value, 10 + 400, NO_LIMIT, &token), REASON_OK, "300 bytes");
    cr_assert_eq(token.len, 300);
    buf_clear(&token);
}

Test(authorization, the_old_token_is_gone_after_a_failure)
{
    struct buf token = {0};

    assert_reason(parse("Negotiate c2VjcmV0", &token), REASON_OK, "a token");
    assert_reason(parse("Negotiate c2VjcmV-", &token), REASON_BAD_BASE64, "a bad one");
    cr_assert_eq(token.len, 0);
    cr_assert_neq(memcmp(token.ptr, "secre", 5), 0, "the bytes are still there");
    buf_clear(&token);
}

Test(base64, round_trips_and_agrees_with_libsodium_for_every_length)
{
    unsigned char bytes[300];
    char want[512];
    struct buf out = {0};
    struct buf token = {0};

    randombytes_buf(bytes, sizeof(bytes));
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        buf_reset(&out);
        http_append_base64(&out, span_make(bytes, len));
        sodium_bin2base64(want, sizeof(want), bytes, len, sodium_base64_VARIANT_ORIGINAL);
        cr_assert(span_equal(buf_span(&out), span_of(want)), "%zu bytes", len);
        if (len > 0) {
            buf_reset(&out);
            buf_append_str(&out, "Negotiate ");
            http_append_base64(&out, span_make(bytes, len));
            assert_reason(parse_exact(out.ptr, out.len, NO_LIMIT, &token), REASON_OK, want);
            cr_assert(span_equal(buf_span(&token), span_make(bytes, len)), "%zu bytes", len);
        }
    }
    buf_clear(&out);
    buf_clear(&token);
}

Test(base64, a_token_of_48_kilobytes_round_trips)
{
    enum { SIZE = 48 * 1024 };
    unsigned char *bytes = malloc(SIZE);
    struct buf out = {.max = NO_LIMIT};
    struct buf token = {0};

    cr_assert_not_null(bytes);
    randombytes_buf(bytes, SIZE);
    buf_append_str(&out, "Negotiate ");
    http_append_base64(&out, span_make(bytes, SIZE));
    assert_reason(parse_exact(out.ptr, out.len, 96 * 1024, &token), REASON_OK, "48 KiB");
    cr_assert(span_equal(buf_span(&token), span_make(bytes, SIZE)));
    free(bytes);
    buf_clear(&out);
    buf_clear(&token);
}

Test(base64, alone_it_has_nothing_around_it)
{
    static const struct {
        const char *text;
        enum reason want;
    } cases[] = {
        {"YWJj", REASON_OK},          {"YQ==", REASON_OK},          {"", REASON_BAD_BASE64},
        {"=", REASON_BAD_BASE64},     {"==", REASON_BAD_BASE64},    {"====", REASON_BAD_BASE64},
        {"YWJ", REASON_BAD_BASE64},   {" YWJj", REASON_BAD_HEADER}, {"YWJj\n", REASON_BAD_HEADER},
        {"YWJj,", REASON_BAD_HEADER},
    };
    struct buf token = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len = strlen(cases[i].text);
        char *copy = malloc(len == 0 ? 1 : len);

        cr_assert_not_null(copy);
        memcpy(copy, cases[i].text, len);
        assert_reason(http_decode_base64(span_make(copy, len), &token), cases[i].want,
                      cases[i].text);
        cr_assert_eq(token.len > 0, cases[i].want == REASON_OK, "%s", cases[i].text);
        free(copy);
    }
    buf_clear(&token);
}

Test(base64, what_does_not_fit_fails_and_writes_nothing)
{
    struct buf out = {.max = 7};

    http_append_base64(&out, span_of("abcdef"));
    cr_assert(out.failed);
    cr_assert_eq(out.len, 0);
    buf_clear(&out);
    http_append_base64(&out, span_make("x", SIZE_MAX));
    cr_assert(out.failed, "a length that would overflow");
    buf_clear(&out);
}

Test(host, normalises_what_it_accepts)
{
    static const struct {
        const char *value;
        const char *want;
    } cases[] = {
        {"www.example.test", "www.example.test"},
        {"WWW.Example.TEST", "www.example.test"},
        {"www.example.test.", "www.example.test"},
        {"www.example.test:443", "www.example.test"},
        {"www.example.test.:8080", "www.example.test"},
        {"www.example.test:1", "www.example.test"},
        {"www.example.test:65535", "www.example.test"},
        {"www.example.test:00080", "www.example.test"},
        {"localhost", "localhost"},
        {"x", "x"},
        {"x.", "x"},
        {"my_host-1.example.test", "my_host-1.example.test"},
        {"xn--bcher-kva.example.test", "xn--bcher-kva.example.test"},
        {"127.0.0.1:8080", "127.0.0.1"},
        {"[::1]", "[::1]"},
        {"[::1]:8080", "[::1]"},
        {"[2001:DB8::A]:1", "[2001:db8::a]"},
        {"[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char host[HTTP_HOST_BYTES] = "old";

        assert_reason(http_parse_host(span_of(cases[i].value), host), REASON_OK, cases[i].value);
        cr_assert_str_eq(host, cases[i].want);
    }
}

Test(host, refuses_what_no_host_is)
{
    static const struct {
        const char *value;
        const char *why;
    } cases[] = {
        {".", "a dot only"},
        {"..", "dots only"},
        {".www", "an empty label in front"},
        {"www..test", "an empty label in the middle"},
        {"www.test..", "two dots at the end"},
        {":80", "a port only"},
        {".:80", "a dot and a port"},
        {"www:", "an empty port"},
        {"www:0", "port 0"},
        {"www:65536", "a port over 65535"},
        {"www:000080", "six digits"},
        {"www:99999999999999999999", "a port that overflows"},
        {"www:8x", "a letter in the port"},
        {"www:-1", "a sign in the port"},
        {"www:+1", "a plus in the port"},
        {"www: 80", "a space in the port"},
        {"www:80:80", "two ports"},
        {"::1", "an IPv6 address without brackets"},
        {"[::1", "no closing bracket"},
        {"[", "a bracket only"},
        {"[]", "nothing in brackets"},
        {"[]:80", "nothing in brackets, and a port"},
        {"::1]", "no opening bracket"},
        {"[::1]x", "something after the bracket"},
        {"[::1]x80", "no colon before the port"},
        {"[::1].", "a dot after the bracket"},
        {"[::1]:", "an empty port after the bracket"},
        {"[::1]:x", "a bad port after the bracket"},
        {"[[::1]]", "brackets in brackets"},
        {"[::1%25lo]", "a zone"},
        {"[::1%lo]", "a zone, not escaped"},
        {"[v1.x]", "an address of the future"},
        {"[www.test]", "a host in brackets"},
        {"[127.0.0.1]", "IPv4 in brackets"},
        {"[1:2:3:4:5:6:7:8:9]", "nine groups"},
        {"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", "longer than any address"},
        {"x[::1]", "brackets after something"},
        {" www", "a space in front"},
        {"www ", "a space behind"},
        {"www\t", "a tab"},
        {"w w", "a space"},
        {"www/x", "a path"},
        {"www?x", "a query"},
        {"www#x", "a fragment"},
        {"alice@www", "a user"},
        {"a,b", "two values"},
        {"www%2etest", "an escaped dot"},
        {"*", "a pattern"},
        {"*.test", "a pattern for subdomains"},
        {"w\xc3\xa4.test", "bytes over 127"},
        {"www\x7f", "DEL"},
        {"www\r\nX: y", "another header"},
        {"..\\..\\x", "a path of another system"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char host[HTTP_HOST_BYTES] = "old";
        size_t len = strlen(cases[i].value);
        char *copy = malloc(len);

        cr_assert_not_null(copy);
        memcpy(copy, cases[i].value, len);
        assert_reason(http_parse_host(span_make(copy, len), host), REASON_UNKNOWN_HOST,
                      cases[i].why);
        cr_assert_str_eq(host, "", "%s", cases[i].why);
        free(copy);
    }
}

Test(host, absent_and_empty_are_no_host)
{
    char host[HTTP_HOST_BYTES] = "old";

    assert_reason(http_parse_host(span_make(NULL, 0), host), REASON_NO_HOST, "absent");
    cr_assert_str_eq(host, "");
    assert_reason(http_parse_host(span_of(""), host), REASON_NO_HOST, "empty");
}

Test(host, every_byte_is_either_a_hosts_or_refused)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char value[] = "a?b";
        char host[HTTP_HOST_BYTES];
        bool good = (byte < 128 && isalnum((int)byte)) || byte == '-' || byte == '_' || byte == '.';

        value[1] = (char)byte;
        assert_reason(http_parse_host(span_make(value, 3), host),
                      good ? REASON_OK : REASON_UNKNOWN_HOST, value);
        cr_assert(!good || host[1] == tolower((int)byte));
    }
}

Test(host, labels_end_at_63_and_hosts_at_253)
{
    char value[300];
    char host[HTTP_HOST_BYTES];

    memset(value, 'a', sizeof(value));
    assert_reason(http_parse_host(span_make(value, 63), host), REASON_OK, "63");
    assert_reason(http_parse_host(span_make(value, 64), host), REASON_UNKNOWN_HOST, "64");
    for (size_t i = 1; i < sizeof(value); i += 2) {
        value[i] = '.';
    }
    assert_reason(http_parse_host(span_make(value, 253), host), REASON_OK, "253");
    cr_assert_eq(strlen(host), 253);
    assert_reason(http_parse_host(span_make(value, 254), host), REASON_OK, "253 and a final dot");
    cr_assert_eq(strlen(host), 253);
    assert_reason(http_parse_host(span_make(value, 255), host), REASON_UNKNOWN_HOST, "255");
    value[253] = 'a';
    assert_reason(http_parse_host(span_make(value, 254), host), REASON_UNKNOWN_HOST, "254");
    cr_assert_str_eq(host, "");
}

TestSuite(authorization, .timeout = 60);
TestSuite(base64, .timeout = 60);
TestSuite(host, .timeout = 60);
