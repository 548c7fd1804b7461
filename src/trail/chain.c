#include "trail/chain.h"

#include "base/secret.h"
#include "trail/audit_format.h"
#include "trail/line.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static_assert((int)CHAIN_HASH_BYTES == (int)SECRET_SHA256_BYTES, "the chain is SHA-256");

static const char seq_key[] = "{\"v\":1,\"seq\":";
static const char hash_key[] = {',', '"', 'h', '"', ':', '"'};
static const char line_end[] = {'"', '}', '\n'};

static void record_hash(unsigned char out[CHAIN_HASH_BYTES],
                        const unsigned char prev[CHAIN_HASH_BYTES], const char *line, size_t len)
{
    static const char label[] = "audit-rec-v1"; /* hashed with its NUL */
    struct span parts[] = {span_make(label, sizeof(label)), span_make(prev, CHAIN_HASH_BYTES),
                           span_make(line, len)};

    secret_sha256(out, parts, 3);
}

size_t chain_close(char line[AUDIT_RECORD_MAX], size_t len,
                   const unsigned char prev[CHAIN_HASH_BYTES], unsigned char hash[CHAIN_HASH_BYTES])
{
    record_hash(hash, prev, line, len);
    memcpy(line + len, hash_key, sizeof(hash_key));
    secret_hex(line + len + sizeof(hash_key), hash, CHAIN_HASH_BYTES);
    memcpy(line + len + sizeof(hash_key) + 64, line_end, sizeof(line_end));
    return len + FORMAT_TAIL_BYTES;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Lower case only, as we write it. */
static int hex_parse(const char *text, unsigned char *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_value(text[2 * i]);
        int low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0) {
            return -1;
        }
        out[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

/* Canonical decimal digits from `*at` on, which is moved past them. */
static int u64_parse(const char *text, size_t len, size_t *at, uint64_t *out)
{
    size_t start = *at;
    size_t i = start;
    uint64_t value = 0;

    for (; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');

        if (value > (UINT64_MAX - digit) / 10) {
            return -1;
        }
        value = value * 10 + digit;
    }
    if (i == start || (text[start] == '0' && i > start + 1)) {
        return -1;
    }
    *at = i;
    *out = value;
    return 0;
}

/* The text right after `key` in a body; quotes inside values are always escaped, so that no value
 * can look like a key. */
static const char *after_key(const char *line, size_t body_len, const char *key)
{
    const char *found = memmem(line, body_len, key, strlen(key));

    return found == NULL ? NULL : found + strlen(key);
}

/* The hexadecimal text after `key`; -1 when there is none. */
static int hex_field(const char *line, size_t body_len, const char *key, unsigned char *out,
                     size_t bytes)
{
    const char *text = after_key(line, body_len, key);

    if (text == NULL || (size_t)(line + body_len - text) < 2 * bytes + 1 ||
        text[2 * bytes] != '"') {
        return -1;
    }
    return hex_parse(text, out, bytes);
}

/* The number after `key`; -1 when there is none. */
static int u64_field(const char *line, size_t body_len, const char *key, uint64_t *out)
{
    const char *text = after_key(line, body_len, key);
    size_t at = 0;

    return text == NULL ? -1 : u64_parse(text, (size_t)(line + body_len - text), &at, out);
}

static bool event_is(const char *event, size_t room, const char *text)
{
    size_t len = strlen(text);

    return room > len && memcmp(event, text, len) == 0 && event[len] == '"';
}

/* Whether `seq_key` and `hash_key` name the record right before this one. */
static bool prev_field(const char *line, struct chain_line *parsed, const char *seq_key_text,
                       const char *hash_key_text)
{
    uint64_t seq = 0;

    return u64_field(line, parsed->body_len, seq_key_text, &seq) == 0 && parsed->seq > 0 &&
           seq == parsed->seq - 1 &&
           hex_field(line, parsed->body_len, hash_key_text, parsed->prev, CHAIN_HASH_BYTES) == 0;
}

/* A recovery that whoever writes next may write; all others are the supervisor's. */
static bool is_torn(const char *line, size_t body_len)
{
    const char *result = after_key(line, body_len, ",\"result\":\"");

    return result != NULL && event_is(result, (size_t)(line + body_len - result), "torn");
}

static void mark_parse(const char *line, struct chain_line *parsed)
{
    static const char prev_seq[] = ",\"prev_seq\":";
    static const char prev_h[] = ",\"prev_h\":\"";
    const char *event = after_key(line, parsed->body_len, ",\"event\":\"");
    size_t room = event == NULL ? 0 : (size_t)(line + parsed->body_len - event);
    const char *pk = ",\"pk\":\"";
    uint64_t more = 0;

    if (event_is(event, room, "chain.open")) {
        parsed->mark = CHAIN_OPENING;
        parsed->has_prev = parsed->seq == 0; /* it follows zeros */
    } else if (event_is(event, room, "segment.open")) {
        parsed->mark = CHAIN_SEGMENT_OPEN;
        parsed->has_prev = prev_field(line, parsed, prev_seq, prev_h);
    } else if (event_is(event, room, "seal")) {
        parsed->mark = CHAIN_SEAL;
        pk = ",\"next_pk\":\"";
        more = 1;
    } else if (event_is(event, room, "segment.close")) {
        parsed->mark = CHAIN_SEGMENT_CLOSE;
        return;
    } else if (event_is(event, room, "recovery")) {
        parsed->has_prev = prev_field(line, parsed, prev_seq, prev_h) ||
                           prev_field(line, parsed, ",\"lost_from\":", ",\"lost_h\":\"");
        parsed->mark =
            !parsed->has_prev && is_torn(line, parsed->body_len) ? CHAIN_RECORD : CHAIN_JUMP;
        return;
    } else {
        return;
    }
    parsed->has_key =
        u64_field(line, parsed->body_len, ",\"epoch\":", &parsed->epoch) == 0 &&
        hex_field(line, parsed->body_len, pk, parsed->public_key, sizeof(parsed->public_key)) == 0;
    parsed->epoch += more;
}

int chain_line_parse(const char *line, size_t len, struct chain_line *out)
{
    static const char ts_key[] = ",\"ts\":\"";
    static const char chain_key[] = "\",\"chain\":\"";
    struct chain_line parsed = {0};
    unsigned char id[8];
    size_t at = sizeof(seq_key) - 1;
    size_t chain_at;

    if (len > AUDIT_RECORD_MAX || len < at + 20 + 27 + 40 + FORMAT_TAIL_BYTES ||
        memcmp(line, seq_key, at) != 0 || u64_parse(line, len, &at, &parsed.seq) != 0 ||
        memcmp(line + at, ts_key, sizeof(ts_key) - 1) != 0) {
        return -1;
    }
    chain_at = at + sizeof(ts_key) - 1 + 27;
    if (memcmp(line + chain_at, chain_key, sizeof(chain_key) - 1) != 0) {
        return -1;
    }
    chain_at += sizeof(chain_key) - 1;
    if (hex_parse(line + chain_at, id, sizeof(id)) != 0 ||
        memcmp(line + chain_at + 16, "\",\"", 3) != 0) {
        return -1;
    }
    memcpy(parsed.chain, line + chain_at, 16);
    parsed.body_len = len - FORMAT_TAIL_BYTES;
    if (memcmp(line + parsed.body_len, hash_key, sizeof(hash_key)) != 0 ||
        hex_parse(line + parsed.body_len + 6, parsed.hash, CHAIN_HASH_BYTES) != 0 ||
        memcmp(line + len - sizeof(line_end), line_end, sizeof(line_end)) != 0) {
        return -1;
    }
    for (size_t i = 0; i < len - 1; i++) {
        if (line[i] < 0x20 || line[i] > 0x7e) {
            return -1;
        }
    }
    mark_parse(line, &parsed);
    *out = parsed;
    return 0;
}

bool chain_line_follows(const char *line, const struct chain_line *parsed,
                        const unsigned char prev[CHAIN_HASH_BYTES])
{
    unsigned char hash[CHAIN_HASH_BYTES];

    record_hash(hash, prev, line, parsed->body_len);
    return memcmp(hash, parsed->hash, sizeof(hash)) == 0;
}

int chain_line_stray(const char *line, const struct chain_line *parsed, uint64_t *out)
{
    uint64_t torn;

    if (after_key(line, parsed->body_len, ",\"torn_bytes\":") == NULL) {
        *out = 0;
        return 0;
    }
    if (u64_field(line, parsed->body_len, ",\"torn_bytes\":", &torn) != 0 ||
        torn > CHAIN_STRAY_MAX) {
        return -1;
    }
    *out = torn + 1;
    return 0;
}

bool chain_line_torn_fits(const char *line, const struct chain_line *parsed, struct span torn)
{
    unsigned char said[CHAIN_HASH_BYTES];
    unsigned char hash[CHAIN_HASH_BYTES];

    secret_sha256(hash, &torn, 1);
    return hex_field(line, parsed->body_len, ",\"torn_sha256\":\"", said, sizeof(said)) == 0 &&
           memcmp(said, hash, sizeof(hash)) == 0;
}

bool chain_hides_record(struct span torn)
{
    while (torn.len > 0) {
        const unsigned char *lf = memchr(torn.ptr, '\n', torn.len);
        const size_t len = lf != NULL ? (size_t)(lf - torn.ptr) : torn.len;
        const size_t end = FORMAT_TAIL_BYTES - 1; /* without its LF */
        unsigned char hash[CHAIN_HASH_BYTES];

        if (len >= end) {
            const char *tail = (const char *)torn.ptr + len - end;

            if (memcmp(tail, hash_key, sizeof(hash_key)) == 0 &&
                hex_parse(tail + sizeof(hash_key), hash, sizeof(hash)) == 0 &&
                memcmp(tail + end - 2, line_end, 2) == 0) {
                return true;
            }
        }
        torn.ptr += lf != NULL ? len + 1 : len;
        torn.len -= lf != NULL ? len + 1 : len;
    }
    return false;
}

int chain_read_at(int fd, void *out, size_t len, uint64_t offset)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, (char *)out + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? ESTALE : errno; /* it shrank while we read */
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

/* The complete line that ends at `end`. */
static enum chain_state line_before(int fd, uint64_t end, struct chain_line *out)
{
    char text[AUDIT_RECORD_MAX];
    size_t len = end < sizeof(text) ? (size_t)end : sizeof(text);
    const char *lf;
    size_t start;

    if (len == 0) {
        return CHAIN_MISFIT;
    }
    if (chain_read_at(fd, text, len, end - len) != 0) {
        return CHAIN_UNREADABLE;
    }
    lf = memrchr(text, '\n', len - 1);
    start = lf == NULL ? 0 : (size_t)(lf - text) + 1;
    return chain_line_parse(text + start, len - start, out) == 0 ? CHAIN_OK : CHAIN_MISFIT;
}

/* Finds the hash that the line at `start` follows: in the line itself when it begins a file or
 * comes after a loss, else in the record before. */
static enum chain_state prev_find(int fd, const char *line, const struct chain_line *parsed,
                                  uint64_t start, unsigned char out[CHAIN_HASH_BYTES])
{
    bool opens = parsed->mark == CHAIN_OPENING || parsed->mark == CHAIN_SEGMENT_OPEN;
    struct chain_line before;
    enum chain_state state;
    uint64_t stray;

    if (chain_line_stray(line, parsed, &stray) != 0 || stray > start) {
        return CHAIN_MISFIT;
    }
    if (stray == start || parsed->mark == CHAIN_JUMP) {
        if (!parsed->has_prev || (stray == start && !opens)) {
            return CHAIN_MISFIT;
        }
        memcpy(out, parsed->prev, CHAIN_HASH_BYTES);
        return CHAIN_OK;
    }
    state = line_before(fd, start - stray, &before);
    if (state != CHAIN_OK) {
        return state;
    }
    if (before.seq + 1 != parsed->seq || strcmp(before.chain, parsed->chain) != 0) {
        return CHAIN_MISFIT;
    }
    memcpy(out, before.hash, CHAIN_HASH_BYTES);
    return CHAIN_OK;
}

/* Whether `piece` agrees with the beginning of record `seq` as far as it goes. */
static bool begins_record(struct span piece, uint64_t seq)
{
    char begin[sizeof(seq_key) + 20 + 1];
    size_t len = sizeof(seq_key) - 1;

    memcpy(begin, seq_key, len);
    len += line_u64(begin + len, seq);
    begin[len++] = ',';
    return memcmp(piece.ptr, begin, piece.len < len ? piece.len : len) == 0;
}

/* Whether each line of stray bytes is the beginning of record `seq`; the last, unfinished one may
 * be anything (a host that lost power) unless `all`. */
static bool stray_plausible(struct span stray, uint64_t seq, bool all)
{
    size_t start = 0;

    if (stray.len > CHAIN_STRAY_MAX) {
        return false;
    }
    while (start < stray.len) {
        const unsigned char *lf = memchr(stray.ptr + start, '\n', stray.len - start);
        size_t end = lf == NULL ? stray.len : (size_t)(lf - stray.ptr);

        if (end == start || ((lf != NULL || all) &&
                             !begins_record(span_make(stray.ptr + start, end - start), seq))) {
            return false;
        }
        start = end + 1;
    }
    return true;
}

/* Start of the line that ends at `end` within the window. */
static size_t line_start(const unsigned char *window, size_t end)
{
    const unsigned char *lf = memrchr(window, '\n', end - 1);

    return lf == NULL ? 0 : (size_t)(lf - window) + 1;
}

/* Looks for the last complete record in the window that ends where the file does. */
static enum chain_state window_scan(int fd, const unsigned char *window, size_t len,
                                    uint64_t expected, struct chain_tail *tail)
{
    const unsigned char *lf = len == 0 ? NULL : memrchr(window, '\n', len);
    size_t end = lf == NULL ? 0 : (size_t)(lf - window) + 1;
    size_t start = 0;
    enum chain_state state;

    tail->stray = span_make(window + end, len - end);
    for (; end > 0; end = start) {
        start = line_start(window, end);
        if (chain_line_parse((const char *)window + start, end - start, &tail->last) == 0) {
            break;
        }
    }
    if (end == 0) {
        struct span all = span_make(window, len);

        if (!stray_plausible(all, expected, true)) {
            return CHAIN_FOREIGN;
        }
        tail->stray = all;
        return CHAIN_OK;
    }
    if (!stray_plausible(span_make(window + end, len - end), tail->last.seq + 1, false)) {
        return CHAIN_FOREIGN;
    }
    state = prev_find(fd, (const char *)window + start, &tail->last, tail->size - len + start,
                      tail->prev);
    if (state != CHAIN_OK) {
        return state;
    }
    if (!chain_line_follows((const char *)window + start, &tail->last, tail->prev)) {
        return CHAIN_MISFIT;
    }
    tail->found = true;
    tail->stray = span_make(window + end, len - end);
    return CHAIN_OK;
}

enum chain_state chain_tail_read(int fd, uint64_t expected,
                                 unsigned char scratch[CHAIN_SCRATCH_BYTES], struct chain_tail *out)
{
    struct chain_tail tail = {.found = false};
    struct stat st;
    enum chain_state state;
    size_t len;

    if (fstat(fd, &st) != 0) {
        return CHAIN_UNREADABLE;
    }
    tail.size = (uint64_t)st.st_size;
    len = tail.size < CHAIN_SCRATCH_BYTES ? (size_t)tail.size : CHAIN_SCRATCH_BYTES;
    if (chain_read_at(fd, scratch, len, tail.size - len) != 0) {
        return CHAIN_UNREADABLE;
    }
    state = window_scan(fd, scratch, len, expected, &tail);
    *out = tail;
    return state;
}

enum chain_state chain_first_read(int fd, uint64_t *seq, uint64_t *time_s)
{
    char text[2 * AUDIT_RECORD_MAX];
    struct chain_line line;
    struct stat st;
    size_t start = 0;
    size_t len;

    if (fstat(fd, &st) != 0) {
        return CHAIN_UNREADABLE;
    }
    len = st.st_size < (off_t)sizeof(text) ? (size_t)st.st_size : sizeof(text);
    if (chain_read_at(fd, text, len, 0) != 0) {
        return CHAIN_UNREADABLE;
    }
    while (start < len) {
        const char *lf = memchr(text + start, '\n', len - start);
        size_t end = lf == NULL ? len : (size_t)(lf - text) + 1;

        if (chain_line_parse(text + start, end - start, &line) == 0) {
            const char *ts = after_key(text + start, line.body_len, ",\"ts\":\"");
            struct tm tm = {0};

            if (ts == NULL || strptime(ts, "%Y-%m-%dT%H:%M:%S", &tm) == NULL) {
                return CHAIN_MISFIT;
            }
            *seq = line.seq;
            *time_s = (uint64_t)timegm(&tm);
            return CHAIN_OK;
        }
        start = end;
    }
    return CHAIN_MISFIT;
}

bool chain_stray_completes(struct span stray, uint64_t seq,
                           const unsigned char prev[CHAIN_HASH_BYTES], struct chain_line *out)
{
    char line[AUDIT_RECORD_MAX];
    const unsigned char *lf = stray.len == 0 ? NULL : memrchr(stray.ptr, '\n', stray.len);
    size_t start = lf == NULL ? 0 : (size_t)(lf - stray.ptr) + 1;
    size_t len = stray.len - start;
    struct chain_line parsed;
    uint64_t before;

    if (len == 0 || len >= sizeof(line)) {
        return false;
    }
    memcpy(line, stray.ptr + start, len);
    line[len] = '\n';
    if (chain_line_parse(line, len + 1, &parsed) != 0 || parsed.seq != seq ||
        !chain_line_follows(line, &parsed, prev) || chain_line_stray(line, &parsed, &before) != 0 ||
        before != start) {
        return false;
    }
    *out = parsed;
    return true;
}
