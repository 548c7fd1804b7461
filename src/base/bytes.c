#include "base/bytes.h"

#include "base/secret.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { BUF_MAX_DEFAULT = 64 * 1024, BUF_CAPACITY_MIN = 256 };

struct span span_of(const char *text)
{
    return text == NULL ? (struct span){NULL, 0} : span_make(text, strlen(text));
}

bool span_equal(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static unsigned char to_lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
}

bool span_equal_nocase(struct span a, struct span b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (to_lower(a.ptr[i]) != to_lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

int span_copy(struct span s, char *out, size_t size)
{
    if (size == 0) {
        return -1;
    }
    out[0] = '\0';
    if (s.len >= size || (s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL)) {
        return -1;
    }
    if (s.len > 0) {
        memcpy(out, s.ptr, s.len);
    }
    out[s.len] = '\0';
    return 0;
}

static size_t buf_ceiling(const struct buf *b)
{
    return b->max == 0 ? BUF_MAX_DEFAULT : b->max;
}

int buf_reserve(struct buf *b, size_t more)
{
    if (b->failed) {
        return -1;
    }
    if (more <= b->capacity - b->len) {
        return 0;
    }
    const size_t ceiling = buf_ceiling(b);
    unsigned char *grown = NULL;
    size_t capacity = 0;
    if (b->len <= ceiling && more <= ceiling - b->len) {
        capacity = b->capacity < BUF_CAPACITY_MIN ? BUF_CAPACITY_MIN : b->capacity * 2;
        capacity = capacity < b->len + more ? b->len + more : capacity;
        capacity = capacity > ceiling ? ceiling : capacity;
        grown = malloc(capacity);
    }
    if (grown == NULL) {
        b->failed = true;
        return -1;
    }
    /* Not realloc(): it would leave a copy of what may be a secret behind. */
    if (b->len > 0) {
        memcpy(grown, b->ptr, b->len);
    }
    if (b->ptr != NULL) {
        secret_wipe(b->ptr, b->len);
        free(b->ptr);
    }
    b->ptr = grown;
    b->capacity = capacity;
    return 0;
}

void buf_append(struct buf *b, const void *bytes, size_t len)
{
    if (buf_reserve(b, len) == 0 && len > 0) {
        memcpy(b->ptr + b->len, bytes, len);
        b->len += len;
    }
}

void buf_append_byte(struct buf *b, unsigned char byte)
{
    buf_append(b, &byte, 1);
}

void buf_append_span(struct buf *b, struct span s)
{
    buf_append(b, s.ptr, s.len);
}

void buf_append_str(struct buf *b, const char *text)
{
    buf_append(b, text, strlen(text));
}

void buf_appendf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int need = vsnprintf(NULL, 0, format, args);
    if (need < 0) {
        b->failed = true;
    } else if (buf_reserve(b, (size_t)need + 1) == 0) { /* and vsnprintf's terminator */
        (void)vsnprintf((char *)b->ptr + b->len, (size_t)need + 1, format, again);
        b->len += (size_t)need;
    }
    va_end(again);
    va_end(args);
}

void buf_reset(struct buf *b)
{
    if (b->ptr != NULL) {
        secret_wipe(b->ptr, b->len);
    }
    b->len = 0;
    b->failed = false;
}

void buf_clear(struct buf *b)
{
    buf_reset(b);
    free(b->ptr);
    b->ptr = NULL;
    b->capacity = 0;
}
