/*
 * Any bytes as an Authorization and as a Host value: the answer is the one that regular expressions
 * give, what is accepted says the same when it is written again, and any bytes at all come back as
 * they were from base64.
 */
#include "wire/http.h"

#include "require.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <regex.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT = 600, CEILING = 300, SIZE_LIMIT = 1 << 16 };

#define B64    "[A-Za-z0-9+/]"
#define SCHEME "[Nn][Ee][Gg][Oo][Tt][Ii][Aa][Tt][Ee]"
#define TOKEN  "(" B64 "{4})*(" B64 "{4}|" B64 "[AQgw]==|" B64 "{2}[AEIMQUYcgkosw048]=)"
#define WORD   "[^[:cntrl:] ,]"
#define LABEL  "[A-Za-z0-9_-]+"

/* Of values without the blanks around them; each is matched whole. */
static struct {
    const char *text;
    regex_t compiled;
} patterns[] = {
    {.text = SCHEME "( (x|[^x])*)?"}, /* a dot would not be a NUL */
    {.text = SCHEME " +" TOKEN},
    {.text = SCHEME " *=*"},
    {.text = SCHEME " +" WORD "+"},
    {.text = "[!#$%&'*+.^_`|~A-Za-z0-9-]+( [^[:cntrl:]]*)?"},
    {.text = TOKEN},
    {.text = WORD "*"},
    {.text = "(" LABEL "(\\." LABEL ")*\\.?|\\[[0-9A-Fa-f:.]+])(:0*[1-9][0-9]*)?"},
};
enum pattern { NEGOTIATE, GOOD, EMPTY, ONE_TOKEN, ANY_SCHEME, BASE64, ONE_WORD, HOST };

static bool matches(enum pattern pattern, struct span s)
{
    static char text[SIZE_LIMIT + 1];
    regmatch_t match = {0, (regoff_t)s.len};
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    return regexec(&patterns[pattern].compiled, text, 1, &match, REG_STARTEND) == 0;
}

static void compile_patterns(void)
{
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        char whole[512];
        require(snprintf(whole, sizeof whole, "^(%s)$", patterns[i].text) < (int)sizeof whole);
        require(regcomp(&patterns[i].compiled, whole, REG_EXTENDED) == 0);
    }
}

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s = span_make(s.ptr + 1, s.len - 1);
    }
    return s;
}

static enum reason expected(struct span value)
{
    if (value.len == 0) {
        return REASON_NO_CREDENTIALS;
    }
    if (!matches(NEGOTIATE, value)) {
        return matches(ANY_SCHEME, value) ? REASON_OTHER_SCHEME : REASON_BAD_HEADER;
    }
    if (value.len > LIMIT) {
        return REASON_TOKEN_TOO_LARGE;
    }
    if (matches(GOOD, value)) {
        return REASON_OK;
    }
    return matches(ONE_TOKEN, value) && !matches(EMPTY, value) ? REASON_BAD_BASE64
                                                               : REASON_BAD_HEADER;
}

static void try_authorization(struct span value)
{
    static struct buf token = {.max = CEILING};
    static struct buf text;
    const struct span trimmed = trim(value);
    enum reason reason = http_parse_authorization(value, LIMIT, &token);
    if (reason == REASON_INTERNAL) {
        struct buf roomy = {0};
        require(token.len == 0);
        reason = http_parse_authorization(value, LIMIT, &roomy);
        require(reason != REASON_OK || roomy.len > CEILING - 3);
        buf_clear(&roomy);
    } else if (reason == REASON_OK) {
        buf_reset(&text);
        http_append_base64(&text, buf_span(&token));
        require(token.len > 0 && trimmed.len >= text.len);
        require(span_equal(buf_span(&text),
                           span_make(trimmed.ptr + (trimmed.len - text.len), text.len)));
    } else {
        require(token.len == 0);
    }
    require(reason == expected(trimmed));
}

/* The bytes as base64 with nothing around it. */
static void try_decode(struct span text)
{
    static struct buf bytes = {.max = 1 << 20};
    static struct buf again = {.max = 1 << 20};
    const enum reason reason = http_decode_base64(text, &bytes);
    if (matches(BASE64, text)) {
        buf_reset(&again);
        http_append_base64(&again, buf_span(&bytes));
        require(reason == REASON_OK && span_equal(buf_span(&again), text));
    } else {
        require(bytes.len == 0);
        require(reason == (matches(ONE_WORD, text) ? REASON_BAD_BASE64 : REASON_BAD_HEADER));
    }
}

/* The bytes as a token: what a server would send comes back, unless it has no room. */
static void try_base64(struct span bytes)
{
    static struct buf value = {.max = 1 << 20};
    static struct buf token = {.max = 1 << 20};
    struct buf narrow = {.max = bytes.len};
    buf_reset(&value);
    buf_append_str(&value, "Negotiate ");
    http_append_base64(&value, bytes);
    require(!value.failed && value.len == 10 + (bytes.len + 2) / 3 * 4);
    const enum reason reason = http_parse_authorization(buf_span(&value), value.len, &token);
    require(reason == (bytes.len > 0 ? REASON_OK : REASON_BAD_HEADER));
    require(span_equal(buf_span(&token), bytes));
    http_append_base64(&narrow, bytes);
    require(narrow.failed == (bytes.len > 0) && narrow.len == 0);
    buf_clear(&narrow);
}

/* What no expression says well: the numbers, and which literals are addresses. */
static bool is_host(struct span value)
{
    const unsigned char *bracket = memchr(value.ptr, ']', value.len);
    const unsigned char *from = bracket != NULL ? bracket : value.ptr;
    const unsigned char *end = value.ptr + value.len;
    const unsigned char *colon = memchr(from, ':', (size_t)(end - from));
    const size_t digits = colon == NULL ? 0 : (size_t)(end - colon) - 1;
    size_t len = (size_t)((colon == NULL ? end : colon) - value.ptr);
    char text[HTTP_HOST_BYTES + 1];
    struct in6_addr address;
    if (len > HTTP_HOST_MAX + 1 || digits > 5) {
        return false;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)len, (const char *)value.ptr);
    if (digits > 0 &&
        strtol((const char *)memcpy((char[6]){0}, colon + 1, digits), NULL, 10) > 65535) {
        return false;
    }
    if (text[0] == '[') {
        text[len - 1] = '\0';
        return inet_pton(AF_INET6, text + 1, &address) == 1;
    }
    if (text[len - 1] == '.') {
        text[--len] = '\0';
    }
    for (const char *label = text; label != NULL; label = strchr(label, '.')) {
        label += *label == '.';
        if (strcspn(label, ".") > 63) {
            return false;
        }
    }
    return len <= HTTP_HOST_MAX;
}

static void try_host(struct span value)
{
    char host[HTTP_HOST_BYTES];
    char again[HTTP_HOST_BYTES];
    memset(host, 'x', sizeof host);
    const enum reason reason = http_parse_host(value, host);
    require(memchr(host, '\0', sizeof host) != NULL);
    if (value.len == 0) {
        require(reason == REASON_NO_HOST && host[0] == '\0');
    } else if (!matches(HOST, value) || !is_host(value)) {
        require(reason == REASON_UNKNOWN_HOST && host[0] == '\0');
    } else {
        require(reason == REASON_OK && host[0] != '\0');
        for (size_t i = 0; host[i] != '\0'; i++) {
            require(host[i] == tolower(value.ptr[i]));
        }
        require(http_parse_host(span_of(host), again) == REASON_OK && strcmp(host, again) == 0);
        const size_t len = strlen(host);
        require(len == value.len || value.ptr[len] == ':' || value.ptr[len] == '.');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool compiled;
    if (!compiled) {
        compile_patterns();
        compiled = true;
    }
    if (size > SIZE_LIMIT) {
        return 0;
    }
    try_authorization(trim(span_make(data, size)));
    try_authorization(span_make(data, size));
    try_decode(span_make(data, size));
    try_base64(span_make(data, size));
    try_host(span_make(data, size));
    return 0;
}
