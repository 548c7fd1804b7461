/* Any bytes as an Authorization and as a Host value: what is accepted must say the same when it is
 * written again. */
#include "wire/http.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
    if (!truth) {
        abort();
    }
}

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

static void try_authorization(struct span value)
{
    enum { LIMIT = 600 };
    struct buf token = {0};
    struct buf text = {0};
    enum reason reason = http_parse_authorization(value, LIMIT, &token);
    struct span trimmed = trim(value);

    if (reason == REASON_OK) {
        http_append_base64(&text, buf_span(&token));
        require(token.len > 0 && trimmed.len >= text.len);
        require(span_equal(buf_span(&text),
                           span_make(trimmed.ptr + (trimmed.len - text.len), text.len)));
    } else {
        require(token.len == 0);
        require(reason == REASON_NO_CREDENTIALS || reason == REASON_OTHER_SCHEME ||
                reason == REASON_BAD_HEADER || reason == REASON_BAD_BASE64 ||
                reason == REASON_TOKEN_TOO_LARGE);
    }
    buf_clear(&token);
    buf_clear(&text);
}

static void try_host(struct span value)
{
    char host[HTTP_HOST_BYTES];
    char again[HTTP_HOST_BYTES];
    enum reason reason;

    memset(host, 'x', sizeof(host));
    reason = http_parse_host(value, host);
    require(memchr(host, '\0', sizeof(host)) != NULL);
    if (reason == REASON_OK) {
        require(host[0] != '\0');
        require(http_parse_host(span_of(host), again) == REASON_OK && strcmp(host, again) == 0);
    } else {
        require(host[0] == '\0');
        require(reason == REASON_UNKNOWN_HOST || (reason == REASON_NO_HOST && value.len == 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_authorization(span_make(data, size));
    try_host(span_make(data, size));
    return 0;
}
