/*
 * Bytes: `struct span` borrows them, `struct buf` owns them.
 * A buf has a ceiling, fails stickily and is wiped when it is cleared; nothing here calls
 * realloc().
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Borrowed bytes, not terminated; {NULL, 0} means "not there". */
struct span {
    const unsigned char *ptr;
    size_t len;
};

/* Owned bytes; zero-initialised it is empty, with a ceiling of 64 KiB. */
struct buf {
    unsigned char *ptr;
    size_t len;
    size_t capacity;
    size_t max;
    bool failed;
};

/* A span over a C string without its terminator; NULL gives {NULL, 0}. */
struct span span_of(const char *text);

/* A span over `len` bytes at `ptr`. */
static inline struct span span_make(const void *ptr, size_t len)
{
    return (struct span){ptr, len};
}

/* Same length and same bytes; not for secrets. */
bool span_equal(struct span a, struct span b);

/* The same without regard to ASCII case. */
bool span_equal_nocase(struct span a, struct span b);

/* Copies a span into `out` with a terminator; -1 when it does not fit or holds NUL (out is then
 * ""). */
int span_copy(struct span s, char *out, size_t size);

/* The contents as a span. */
static inline struct span buf_span(const struct buf *b)
{
    return (struct span){b->ptr, b->len};
}

/*
 * Makes room for `more` further bytes; -1 (and failed for good) over the ceiling or out of memory.
 */
int buf_reserve(struct buf *b, size_t more);

/* Append; nothing happens once the buf has failed, so that callers look at `failed` once. */
void buf_append(struct buf *b, const void *bytes, size_t len);
void buf_append_byte(struct buf *b, unsigned char byte);
void buf_append_span(struct buf *b, struct span s);
void buf_append_str(struct buf *b, const char *text);
void buf_appendf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Forgets contents and failure but keeps the memory for the next use; the old contents are wiped.
 */
void buf_reset(struct buf *b);

/* Wipes, frees, and leaves an empty buf with the same ceiling. */
void buf_clear(struct buf *b);

#endif
