#include "trail/line.h"

#include <stdbool.h>
#include <string.h>

size_t line_u64(char *out, uint64_t value)
{
    char digits[20];
    size_t len = 0;

    do {
        digits[sizeof(digits) - ++len] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    memcpy(out, digits + sizeof(digits) - len, len);
    return len;
}

void line_put(struct line *l, const char *bytes, size_t len)
{
    memcpy(l->out + l->len, bytes, len);
    l->len += len;
}

void line_put_u64(struct line *l, uint64_t value)
{
    l->len += line_u64(l->out + l->len, value);
}

void line_put_i64(struct line *l, int64_t value)
{
    if (value < 0) {
        l->out[l->len++] = '-';
        line_put_u64(l, 0 - (uint64_t)value);
    } else {
        line_put_u64(l, (uint64_t)value);
    }
}

void line_digits(char *out, uint64_t value, size_t count)
{
    while (count-- > 0) {
        out[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

void line_put_date(struct line *l, uint64_t seconds)
{
    static const uint64_t last = UINT64_C(253402300799);
    uint64_t s = seconds > last ? last : seconds;
    uint64_t day = s / 86400;
    uint64_t second = s % 86400;
    /* Years counted from March, so that the leap day is the last of its year; eras of 400 years. */
    uint64_t shifted = day + 719468;
    uint64_t era = shifted / 146097;
    uint64_t day_of_era = shifted % 146097;
    uint64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t march_month = (5 * day_of_year + 2) / 153;
    uint64_t month = march_month < 10 ? march_month + 3 : march_month - 9;
    char *out = l->out + l->len;

    line_digits(out, era * 400 + year_of_era + (month <= 2 ? 1 : 0), 4);
    out[4] = '-';
    line_digits(out + 5, month, 2);
    out[7] = '-';
    line_digits(out + 8, day_of_year - (153 * march_month + 2) / 5 + 1, 2);
    out[10] = 'T';
    line_digits(out + 11, second / 3600, 2);
    out[13] = ':';
    line_digits(out + 14, second / 60 % 60, 2);
    out[16] = ':';
    line_digits(out + 17, second % 60, 2);
    l->len += 19;
}

static size_t tail_bytes(const unsigned char *p, size_t len, size_t want)
{
    for (size_t i = 1; i <= want; i++) {
        if (i >= len || (p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return want;
}

/* One code point in UTF-8 (RFC 3629); its length, or 0 when the bytes are none. */
static size_t decode(const unsigned char *p, size_t len, uint32_t *out)
{
    size_t more = p[0] < 0x80 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    static const unsigned char mask[] = {0x7f, 0x1f, 0x0f, 0x07};
    uint32_t code;

    if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || tail_bytes(p, len, more) != more) {
        return 0;
    }
    code = (uint32_t)p[0] & mask[more];
    for (size_t i = 1; i <= more; i++) {
        code = code << 6 | (p[i] & 0x3fU);
    }
    if (code < smallest[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return 0;
    }
    *out = code;
    return more + 1;
}

static size_t escape_unit(char *out, uint32_t unit)
{
    static const char hex[] = "0123456789abcdef";

    out[0] = '\\';
    out[1] = 'u';
    for (size_t i = 0; i < 4; i++) {
        out[2 + i] = hex[unit >> (12 - 4 * i) & 15];
    }
    return 6;
}

static size_t escape(char out[12], uint32_t code)
{
    if (code == '"' || code == '\\') {
        out[0] = '\\';
        out[1] = (char)code;
        return 2;
    }
    if (code >= 0x10000) {
        size_t len = escape_unit(out, 0xd800 + ((code - 0x10000) >> 10));
        return len + escape_unit(out + len, 0xdc00 + (code & 0x3ff));
    }
    return escape_unit(out, code);
}

/* Whether a byte stands for itself in a line. */
static bool plain(unsigned char c)
{
    static const uint64_t set[] = {UINT64_C(0xfffffffb00000000), UINT64_C(0x7fffffffefffffff), 0,
                                   0};

    return (set[c >> 6] >> (c & 63) & 1) != 0;
}

/* Whether eight bytes all stand for themselves; "no" may be wrong, "yes" never is. */
static bool plain_eight(uint64_t eight)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    /* A borrow out of a byte that is too small, or equal, sets a highest bit. */
    uint64_t bad = eight | (eight - ones * 0x20) | ((eight ^ ones * '"') - ones) |
                   ((eight ^ ones * '\\') - ones) | ((eight ^ ones * 0x7f) - ones);

    return (bad & ones << 7) == 0;
}

/* The plain bytes at the beginning of `len`, as far as there is room; returns their number. */
static size_t put_plain(struct line *l, const unsigned char *p, size_t len, size_t limit)
{
    size_t most = len < limit - l->len ? len : limit - l->len;
    char *out = l->out + l->len;
    size_t count = 0;

    for (; most - count >= 8; count += 8) {
        uint64_t eight;

        memcpy(&eight, p + count, 8);
        if (!plain_eight(eight)) {
            break;
        }
        memcpy(out + count, &eight, 8);
    }
    for (; count < most && plain(p[count]); count++) {
        out[count] = (char)p[count];
    }
    l->len += count;
    return count;
}

void line_put_text(struct line *l, unsigned bit, struct span s, size_t max)
{
    size_t limit = l->max - l->reserve - 1; /* less the closing quote */
    size_t at = 0;

    l->out[l->len++] = '"';
    while (at < s.len) {
        uint32_t code = 0xfffd;
        char text[12];
        size_t used;
        size_t len;

        at += put_plain(l, s.ptr + at, (s.len < max ? s.len : max) - at, limit);
        if (at == s.len || at == max || l->len == limit) {
            break;
        }
        used = decode(s.ptr + at, s.len - at, &code);
        len = escape(text, code);
        if (at + (used == 0 ? 1 : used) > max || l->len + len > limit) {
            break;
        }
        if (used == 0) {
            l->mangled |= UINT64_C(1) << bit;
            used = 1;
        }
        line_put(l, text, len);
        at += used;
    }
    if (at < s.len) {
        l->cut |= UINT64_C(1) << bit;
    }
    l->out[l->len++] = '"';
}
