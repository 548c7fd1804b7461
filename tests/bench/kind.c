#include "kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct kind_info kinds[KIND_COUNT] = {
#define KIND(id, status, text) {#id, status, text},
    KINDS
#undef KIND
};

/* FastCGI 1.0, section 8 */
enum { BEGIN = 1, PARAMS = 4, STDIN = 5, GET_VALUES = 9, KEEP_CONN = 1, CONTENT_MAX = 65528 };

enum { AHEAD_S = 7200 };

static struct token stock;       /* in time, and never sent as it is */
static struct token stock_ahead; /* of a clock that is ahead */
static size_t flips;

void bytes_add(struct bytes *bytes, const void *more, size_t len)
{
    if (bytes->size - bytes->len < len) {
        bytes->size = (bytes->len + len) * 2;
        bytes->ptr = realloc(bytes->ptr, bytes->size);
        if (bytes->ptr == NULL) {
            fputs("load: out of memory\n", stderr);
            exit(1);
        }
    }
    if (len > 0) {
        memcpy(bytes->ptr + bytes->len, more, len);
        bytes->len += len;
    }
}

static void add_length(struct bytes *out, size_t len)
{
    const unsigned char wide[] = {(unsigned char)(len >> 24 | 0x80), (unsigned char)(len >> 16),
                                  (unsigned char)(len >> 8), (unsigned char)len};
    bytes_add(out, len < 0x80 ? wide + 3 : wide, len < 0x80 ? 1 : 4);
}

static void add_pair(struct bytes *out, const char *parameter, const void *value, size_t len)
{
    add_length(out, strlen(parameter));
    add_length(out, len);
    bytes_add(out, parameter, strlen(parameter));
    bytes_add(out, value, len);
}

static void add_text(struct bytes *out, const char *parameter, const char *value)
{
    add_pair(out, parameter, value, strlen(value));
}

static void add_record(struct bytes *out, unsigned char type, unsigned char id, const void *content,
                       size_t len)
{
    const unsigned char head[] = {1, type, 0, id, (unsigned char)(len >> 8), (unsigned char)len,
                                  0, 0};
    bytes_add(out, head, sizeof head);
    bytes_add(out, content, len);
}

void kind_open(bool raw)
{
    mint(&stock, 0, raw);
    mint(&stock_ahead, AHEAD_S, raw);
}

/* Base64 of the stock token with one bit turned for this once, another bit each time. */
static void flipped(char *text, size_t at, size_t len)
{
    const size_t bit = flips++ % (len * 8);
    const unsigned char mask = (unsigned char)(1u << bit % 8);
    stock.room[at + bit / 8] ^= mask;
    base64(text, stock.room + stock.at, TOKEN_MAX - stock.at);
    stock.room[at + bit / 8] ^= mask;
}

/* What follows "Negotiate ". */
static void bad_token(enum kind kind, char text[TOKEN_TEXT_BYTES])
{
    static const char ntlm[] = "NTLMSSP\0\1\0\0\0\7\202\10\242\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const size_t len = TOKEN_MAX - stock.at;
    unsigned char garbage[512];
    switch (kind) {
    case KIND_wrong_key:
        flipped(text, stock.ticket_at, stock.ticket_len);
        break;
    case KIND_altered:
        flipped(text, stock.sealed_at, TOKEN_MAX - stock.sealed_at);
        break;
    case KIND_truncated:
        base64(text, stock.room + stock.at, len / 4 * 3);
        break;
    case KIND_skew:
        base64(text, stock_ahead.room + stock_ahead.at, TOKEN_MAX - stock_ahead.at);
        break;
    case KIND_ntlm:
        base64(text, (const unsigned char *)ntlm, sizeof ntlm - 1);
        break;
    case KIND_garbage:
        for (size_t i = 0; i < sizeof garbage; i++) {
            garbage[i] = (unsigned char)(i * 37 + 11);
        }
        base64(text, garbage, sizeof garbage);
        break;
    default:
        base64(text, stock.room + stock.at, len);
        if (kind == KIND_base64) {
            text[strlen(text) - 5] = '*';
        }
    }
}

static void add_authorization(struct bytes *out, enum kind kind, const char *token)
{
    static char value[TOKEN_TEXT_BYTES + 10] = "Negotiate ";
    if (kind == KIND_none) {
        return;
    }
    if (kind == KIND_scheme) {
        add_text(out, "HTTP_AUTHORIZATION", "Basic YWxpY2U6YWxpY2VhbGljZQ==");
    } else if (kind == KIND_good || kind == KIND_replay) {
        (void)snprintf(value + 10, sizeof value - 10, "%s", token);
        add_text(out, "HTTP_AUTHORIZATION", value);
    } else {
        bad_token(kind, value + 10);
        add_text(out, "HTTP_AUTHORIZATION", value);
    }
}

static void add_params(struct bytes *out, enum kind kind, const struct style *style,
                       const char *token)
{
    static const char filler[] = "HTTP_X_FILLER";
    add_text(out, "SERVER_SOFTWARE", "load/1");
    add_text(out, "SERVER_PROTOCOL", "HTTP/1.1");
    add_text(out, "REMOTE_ADDR", "127.0.0.1");
    add_text(out, "REMOTE_PORT", "40000");
    add_text(out, "REQUEST_METHOD", "GET");
    add_text(out, "REQUEST_URI", "/secure/page");
    add_text(out, "HTTP_HOST", kind == KIND_host ? "elsewhere.example.test" : style->host);
    if (kind == KIND_duplicate) {
        add_text(out, "HTTP_HOST", style->host);
    }
    add_authorization(out, kind, token);
    if (style->bytes > out->len + sizeof filler + 5) {
        const size_t len = style->bytes - out->len - sizeof filler - 5;
        char *value = malloc(len);
        if (value != NULL) {
            memset(value, 'x', len);
            add_pair(out, filler, value, len);
            free(value);
        }
    }
}

void kind_request(enum kind kind, enum role role, const struct style *style, const char *token,
                  struct bytes *out)
{
    static struct bytes params;
    const unsigned char begin[8] = {0, (unsigned char)role, style->keep ? KEEP_CONN : 0};
    out->len = 0;
    params.len = 0;
    if (kind == KIND_management) {
        add_pair(&params, "FCGI_MPXS_CONNS", "", 0);
        add_record(out, GET_VALUES, 0, params.ptr, params.len);
        return;
    }
    add_record(out, BEGIN, 1, begin, sizeof begin);
    add_params(&params, kind, style, token);
    for (size_t at = 0; at < params.len; at += CONTENT_MAX) {
        const size_t left = params.len - at;
        add_record(out, PARAMS, 1, params.ptr + at, left < CONTENT_MAX ? left : CONTENT_MAX);
    }
    if (kind == KIND_cut) {
        out->len = out->len / 2;
        return;
    }
    add_record(out, PARAMS, 1, NULL, 0);
    if (role == ROLE_RESPONDER) {
        add_record(out, STDIN, 1, NULL, 0);
    }
}
