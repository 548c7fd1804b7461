#include "wire/http.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

/* Has a bit that no value of six bits has, so that one OR over a whole token finds it. */
enum { NOT_BASE64 = 0x80 };

enum { HOST_LABEL_MAX = 63, PORT_DIGITS_MAX = 5, PORT_MAX = 65535 };

/* clang-format off */
#define XX NOT_BASE64
static const unsigned char sextets[256] = {
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, 62, XX, XX, XX, 63,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, XX, XX, XX, XX, XX, XX,
    XX,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, XX, XX, XX, XX, XX,
    XX, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX,
};
#undef XX
/* clang-format on */

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(unsigned char c)
{
    return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

/* RFC 9110 5.6.2: what a scheme is made of. */
static bool is_tchar(unsigned char c)
{
    return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static struct span skip(struct span s, size_t count)
{
    return span_make(s.ptr + count, s.len - count);
}

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s = skip(s, 1);
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

static bool has_control(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (is_control(s.ptr[i])) {
            return true;
        }
    }
    return false;
}

/* Why a text is not the base64 of one token: not one token at all, or one that is not base64. */
static enum reason explain_token(struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = text.ptr[i];

        if (is_control(c) || c == ' ' || c == ',') {
            return REASON_BAD_HEADER;
        }
    }
    return REASON_BAD_BASE64;
}

/* Whole groups without padding. The error is looked at once at the end: no branch a group. */
static bool decode_groups(const unsigned char *in, size_t groups, unsigned char *out)
{
    unsigned char seen = 0;

    for (size_t i = 0; i < groups; i++, in += 4, out += 3) {
        unsigned char a = sextets[in[0]];
        unsigned char b = sextets[in[1]];
        unsigned char c = sextets[in[2]];
        unsigned char d = sextets[in[3]];
        uint32_t bits = (uint32_t)a << 18 | (uint32_t)b << 12 | (uint32_t)c << 6 | d;

        seen |= a | b | c | d;
        out[0] = (unsigned char)(bits >> 16);
        out[1] = (unsigned char)(bits >> 8);
        out[2] = (unsigned char)bits;
    }
    return (seen & NOT_BASE64) == 0;
}

/* The last group, which has 1 or 2 characters of padding; the bits it does not use must be 0. */
static bool decode_padded(const unsigned char *in, size_t padding, unsigned char *out)
{
    unsigned char a = sextets[in[0]];
    unsigned char b = sextets[in[1]];
    unsigned char c = padding == 2 ? 0 : sextets[in[2]];
    uint32_t bits = (uint32_t)a << 18 | (uint32_t)b << 12 | (uint32_t)c << 6;

    out[0] = (unsigned char)(bits >> 16);
    if (padding == 1) {
        out[1] = (unsigned char)(bits >> 8);
    }
    return ((a | b | c) & NOT_BASE64) == 0 && (bits & (padding == 2 ? 0xffff : 0xff)) == 0;
}

/* Decodes a text of more than 0 characters into `token`, which is empty and stays so on failure. */
static enum reason decode_base64(struct span text, struct buf *token)
{
    size_t padding = 0;
    size_t groups;
    bool good;

    if (text.len % 4 != 0) {
        return explain_token(text);
    }
    while (padding < 2 && text.ptr[text.len - 1 - padding] == '=') {
        padding++;
    }
    if (buf_reserve(token, text.len / 4 * 3) != 0) {
        return REASON_INTERNAL;
    }
    groups = text.len / 4 - (padding > 0);
    good = decode_groups(text.ptr, groups, token->ptr);
    if (padding > 0) {
        good = decode_padded(text.ptr + groups * 4, padding, token->ptr + groups * 3) && good;
    }
    token->len = text.len / 4 * 3 - padding;
    if (!good) {
        buf_reset(token);
        return explain_token(text);
    }
    return REASON_OK;
}

/* Whether there is nothing but padding, which encodes nothing and is no token68 either. */
static bool is_blank(struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '=') {
            return false;
        }
    }
    return true;
}

enum reason http_decode_base64(struct span text, struct buf *out)
{
    buf_reset(out);
    return text.len == 0 ? REASON_BAD_BASE64 : decode_base64(text, out);
}

enum reason http_parse_authorization(struct span value, size_t max, struct buf *token)
{
    struct span text = trim(value);
    struct span scheme = {text.ptr, 0};

    buf_reset(token);
    if (text.len == 0) {
        return REASON_NO_CREDENTIALS;
    }
    while (scheme.len < text.len && is_tchar(text.ptr[scheme.len])) {
        scheme.len++;
    }
    text = skip(text, scheme.len);
    if (scheme.len == 0 || (text.len > 0 && text.ptr[0] != ' ')) {
        return REASON_BAD_HEADER;
    }
    if (!span_equal_nocase(scheme, span_of("Negotiate"))) {
        return has_control(text) ? REASON_BAD_HEADER : REASON_OTHER_SCHEME;
    }
    if (scheme.len + text.len > max) {
        return REASON_TOKEN_TOO_LARGE;
    }
    while (text.len > 0 && text.ptr[0] == ' ') {
        text = skip(text, 1);
    }
    if (is_blank(text)) {
        return REASON_BAD_HEADER;
    }
    return decode_base64(text, token);
}

/* A port as it may follow a host: 1 to 65535 in up to five digits. */
static bool is_port(struct span s)
{
    uint32_t port = 0;

    if (s.len > PORT_DIGITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (!is_digit(s.ptr[i])) {
            return false;
        }
        port = port * 10 + (uint32_t)(s.ptr[i] - '0');
    }
    return port > 0 && port <= PORT_MAX;
}

/* Letters, digits, "-" and "_" in labels of 1 to 63, so an IPv4 address as well. */
static bool is_host(struct span s)
{
    size_t label = 0;

    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '.') {
            if (label == 0) {
                return false;
            }
            label = 0;
        } else if (is_alnum(s.ptr[i]) || s.ptr[i] == '-' || s.ptr[i] == '_') {
            if (++label > HOST_LABEL_MAX) {
                return false;
            }
        } else {
            return false;
        }
    }
    return label > 0;
}

/* An IPv6 address in the brackets that split_port has seen; no zone, which means something on one
 * host only. */
static bool is_literal(struct span s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;

    return span_copy(span_make(s.ptr + 1, s.len - 2), text, sizeof(text)) == 0 &&
           inet_pton(AF_INET6, text, &address) == 1;
}

/* Cuts `value` at the colon before a port, if there is one; false if what follows is no port. */
static bool split_port(struct span value, struct span *host)
{
    const unsigned char *end = value.ptr + value.len;
    const unsigned char *colon;

    if (value.ptr[0] == '[') {
        colon = memchr(value.ptr, ']', value.len);
        if (colon == NULL) {
            return false;
        }
        colon++;
    } else {
        colon = memchr(value.ptr, ':', value.len);
    }
    *host = value;
    if (colon == NULL || colon == end) {
        return true;
    }
    host->len = (size_t)(colon - value.ptr);
    return colon[0] == ':' && is_port(span_make(colon + 1, (size_t)(end - colon) - 1));
}

enum reason http_parse_host(struct span value, char host[HTTP_HOST_BYTES])
{
    struct span found;
    bool literal;

    host[0] = '\0';
    if (value.len == 0) {
        return REASON_NO_HOST;
    }
    if (!split_port(value, &found)) {
        return REASON_UNKNOWN_HOST;
    }
    literal = value.ptr[0] == '[';
    if (!literal && found.len > 0 && found.ptr[found.len - 1] == '.') {
        found.len--;
    }
    if (found.len > HTTP_HOST_MAX || !(literal ? is_literal(found) : is_host(found))) {
        return REASON_UNKNOWN_HOST;
    }
    for (size_t i = 0; i < found.len; i++) {
        unsigned char c = found.ptr[i];

        host[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    host[found.len] = '\0';
    return REASON_OK;
}

void http_append_base64(struct buf *out, struct span bytes)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = bytes.ptr;
    size_t left = bytes.len;
    unsigned char *to;

    if (buf_reserve(out, left > SIZE_MAX / 2 ? SIZE_MAX : (left + 2) / 3 * 4) != 0 || left == 0) {
        return;
    }
    to = out->ptr + out->len;
    out->len += (left + 2) / 3 * 4;
    for (; left > 0; in += 3, to += 4) {
        size_t count = left < 3 ? left : 3;
        uint32_t bits = (uint32_t)in[0] << 16;

        bits |= count > 1 ? (uint32_t)in[1] << 8 : 0;
        bits |= count > 2 ? in[2] : 0;
        to[0] = (unsigned char)alphabet[bits >> 18];
        to[1] = (unsigned char)alphabet[bits >> 12 & 0x3f];
        to[2] = (unsigned char)(count > 1 ? alphabet[bits >> 6 & 0x3f] : '=');
        to[3] = (unsigned char)(count > 2 ? alphabet[bits & 0x3f] : '=');
        left -= count;
    }
}
