#include "trail/verify_line.h"

#include <string.h>

static const struct {
    const char *name;
    enum { TEXT, BARE } kind;
} keys[LINE_KEYS] = {
    [LINE_ACTION] = {"action", TEXT},
    [LINE_CLEAN] = {"clean", BARE},
    [LINE_EPOCH] = {"epoch", BARE},
    [LINE_FROM] = {"from", BARE},
    [LINE_LOST_FROM] = {"lost_from", BARE},
    [LINE_LOST_H] = {"lost_h", TEXT},
    [LINE_N] = {"n", BARE},
    [LINE_NEXT_PK] = {"next_pk", TEXT},
    [LINE_PK] = {"pk", TEXT},
    [LINE_PREV_H] = {"prev_h", TEXT},
    [LINE_PREV_SEQ] = {"prev_seq", BARE},
    [LINE_RESULT] = {"result", TEXT},
    [LINE_SIG] = {"sig", TEXT},
    [LINE_TORN_BYTES] = {"torn_bytes", BARE},
    [LINE_TORN_SHA256] = {"torn_sha256", TEXT},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "2026-01-31T12:00:00.000000Z": the form only. */
static bool ts_good(const char *ts)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";

    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        if (form[i] == 'd' ? !is_digit(ts[i]) : ts[i] != form[i]) {
            return false;
        }
    }
    return true;
}

/* What is left of a body. */
struct rest {
    const char *at;
    const char *end;
};

static bool take(struct rest *rest, const char *bytes, size_t len)
{
    if ((size_t)(rest->end - rest->at) < len || memcmp(rest->at, bytes, len) != 0) {
        return false;
    }
    rest->at += len;
    return true;
}

/* A string up to its closing quote; what is escaped stays escaped. */
static bool take_text(struct rest *rest, struct span *out)
{
    const char *start = rest->at + 1;

    if (!take(rest, "\"", 1)) {
        return false;
    }
    while (rest->at < rest->end && *rest->at != '"') {
        rest->at += *rest->at == '\\' ? 2 : 1;
    }
    if (rest->at >= rest->end) {
        return false;
    }
    *out = span_make(start, (size_t)(rest->at - start));
    rest->at++;
    return true;
}

/* A word of lower-case letters, digits, "_", "." and "-": a key, a number, true or false. */
static struct span take_word(struct rest *rest)
{
    const char *start = rest->at;

    while (rest->at < rest->end && (is_digit(*rest->at) || (*rest->at >= 'a' && *rest->at <= 'z') ||
                                    strchr("_.-", *rest->at) != NULL)) {
        rest->at++;
    }
    return span_make(start, (size_t)(rest->at - start));
}

/* An array of strings, as `cut` and `mangled` are. */
static bool take_list(struct rest *rest)
{
    struct span item;

    if (!take(rest, "[", 1)) {
        return false;
    }
    do {
        if (!take_text(rest, &item)) {
            return false;
        }
    } while (take(rest, ",", 1));
    return take(rest, "]", 1);
}

static bool take_value(struct rest *rest, bool *text, struct span *out)
{
    *text = take_text(rest, out);
    if (*text) {
        return true;
    }
    *out = take_word(rest);
    return out->len > 0 || take_list(rest);
}

/* The fields up to the end of the body; a known one must be of its kind, and there once. */
static bool take_fields(struct rest *rest, struct verify_line *line)
{
    while (rest->at < rest->end) {
        struct span key;
        struct span value;
        bool text;
        size_t i = 0;

        if (!take(rest, ",\"", 2)) {
            return false;
        }
        key = take_word(rest);
        if (!take(rest, "\":", 2) || !take_value(rest, &text, &value)) {
            return false;
        }
        while (i < LINE_KEYS && !span_equal(key, span_of(keys[i].name))) {
            i++;
        }
        if (i == LINE_KEYS) {
            continue;
        }
        if (text != (keys[i].kind == TEXT) || value.len == 0 || line->values[i].ptr != NULL) {
            return false;
        }
        line->values[i] = value;
    }
    return true;
}

int verify_line_read(const char *text, size_t len, struct verify_line *out)
{
    static const char ts_key[] = ",\"ts\":\"";
    struct verify_line line = {.text = text};
    struct rest rest;
    struct span node;

    /* Beyond that no reader of JSON could tell one seq from the next. */
    if (chain_line_parse(text, len, &line.parsed) != 0 || line.parsed.seq >= INT64_MAX) {
        return -1;
    }
    rest = (struct rest){text, text + line.parsed.body_len};
    line.ts = (const char *)memchr(text + sizeof("{\"v\":1,") - 1, ',', line.parsed.body_len) +
              sizeof(ts_key) - 1;
    rest.at = line.ts + 27 + sizeof("\",\"chain\":\"") - 1 + 16;
    if (!ts_good(line.ts) || !take(&rest, "\",\"node\":", 9) || !take_text(&rest, &node) ||
        !take(&rest, ",\"event\":", 9) || !take_text(&rest, &line.event)) {
        return -1;
    }
    if (!verify_line_is(&line, "auth") && !take_fields(&rest, &line)) {
        return -1;
    }
    *out = line;
    return 0;
}

bool verify_line_is(const struct verify_line *line, const char *event)
{
    return span_equal(line->event, span_of(event));
}

bool verify_line_says(const struct verify_line *line, enum verify_line_key key, const char *word)
{
    return span_equal(line->values[key], span_of(word));
}

bool verify_line_number(const struct verify_line *line, enum verify_line_key key, uint64_t *out)
{
    return verify_line_number_text(line->values[key], out);
}

bool verify_line_hex(const struct verify_line *line, enum verify_line_key key, unsigned char *out,
                     size_t bytes)
{
    return verify_line_hex_text(line->values[key], out, bytes);
}

bool verify_line_number_text(struct span text, uint64_t *out)
{
    uint64_t value = 0;

    for (size_t i = 0; i < text.len; i++) {
        uint64_t digit = (uint64_t)text.ptr[i] - '0';

        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (text.len == 0 || (text.ptr[0] == '0' && text.len > 1)) {
        return false;
    }
    *out = value;
    return true;
}

static unsigned hex_value(unsigned char c)
{
    if (is_digit((char)c)) {
        return (unsigned)c - '0';
    }
    return c >= 'a' && c <= 'f' ? (unsigned)c - 'a' + 10 : 16;
}

bool verify_line_hex_text(struct span text, unsigned char *out, size_t bytes)
{
    unsigned bad = 0;

    if (text.len != 2 * bytes) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        bad |= hex_value(text.ptr[i]) & 16;
    }
    for (size_t i = 0; bad == 0 && i < bytes; i++) {
        out[i] = (unsigned char)(hex_value(text.ptr[2 * i]) << 4 | hex_value(text.ptr[2 * i + 1]));
    }
    return bad == 0;
}
