#include "trail/verify.h"

#include "base/secret.h"
#include "trail/chain.h"
#include "trail/verify_line.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static_assert((int)VERIFY_HASH_BYTES == (int)CHAIN_HASH_BYTES &&
                  (int)VERIFY_KEY_BYTES == (int)SECRET_SIGN_PUBLIC_BYTES,
              "the chain's hashes and keys");

enum { WINDOW_BYTES = 2 * (CHAIN_STRAY_MAX + AUDIT_RECORD_MAX) };

/* One file while it is read. */
struct walk {
    const struct verify_options *options;
    struct verify_segment *out;
    size_t stray;        /* in `window`: where the bytes begin that are no record yet */
    size_t line;         /* the line after them; the same if there are none */
    size_t end;          /* of what was read */
    uint64_t lines;      /* the number of that line */
    uint64_t stray_line; /* and of the first one that is no record */
    bool keys_lost;      /* records with seals may be missing: who has the next key is not known */
    bool after_seal;     /* the record before is a seal */
    bool running;        /* a start without a stop */
    char ts_top[VERIFY_TS_BYTES];       /* the latest time */
    char ts_event_top[VERIFY_TS_BYTES]; /* of the daemon's own records */
    unsigned char window[WINDOW_BYTES];
};

static void mark(struct walk *walk, enum verify_kind kind, uint64_t count, uint64_t seq)
{
    struct verify_mark *m = &walk->out->marks[kind];

    if (m->count == 0) {
        m->line = walk->lines;
        m->seq = seq;
    }
    m->count += count;
}

/* The first bad record; what follows is searched only. Always false. */
static bool fault(struct walk *walk, uint64_t line, const struct verify_line *record,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));

static bool fault(struct walk *walk, uint64_t line, const struct verify_line *record,
                  const char *format, ...)
{
    struct verify_segment *out = walk->out;
    va_list args;

    va_start(args, format);
    (void)vsnprintf(out->why, sizeof(out->why), format, args);
    va_end(args);
    out->why_line = line;
    out->why_has_seq = record != NULL;
    out->why_seq = record != NULL ? record->parsed.seq : 0;
    return false;
}

/* A field that such a record must have. */
static bool lacks(struct walk *walk, const struct verify_line *line)
{
    return fault(walk, walk->lines, line,
                 "this %.*s lacks a field that it must have, or one is not "
                 "of its form",
                 (int)line->event.len, (const char *)line->event.ptr);
}

uint64_t verify_seconds(const char ts[VERIFY_TS_BYTES])
{
    uint64_t part[6] = {0};
    static const unsigned char at[6] = {0, 5, 8, 11, 14, 17};
    uint64_t march_year;
    uint64_t march_month;
    uint64_t days;

    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < (i == 0 ? 4 : 2); k++) {
            part[i] = part[i] * 10 + (uint64_t)(ts[at[i] + k] - '0');
        }
    }
    /* Years from March on, so that the leap day is the last one, and 400 more, so that nothing is
     * negative; 1970-01-01 is then day 865565. */
    march_year = part[0] + 400 - (part[1] <= 2 ? 1 : 0);
    march_month = (part[1] + 9) % 12;
    days = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400 +
           (153 * march_month + 2) / 5 + part[2];
    days = days < 865566 ? 0 : days - 865566;
    return days * 86400 + part[3] * 3600 + part[4] * 60 + part[5];
}

/* Whether `ts` is more than `by_s` before `top`, which it then becomes, as it does when it is
 * later. */
static bool went_back(char top[VERIFY_TS_BYTES], const char *ts, uint64_t by_s)
{
    int order = top[0] == '\0' ? 1 : memcmp(ts, top, VERIFY_TS_BYTES - 1);
    bool back = order < 0 && verify_seconds(ts) + by_s < verify_seconds(top);

    if (order > 0 || back) {
        memcpy(top, ts, VERIFY_TS_BYTES - 1);
        top[VERIFY_TS_BYTES - 1] = '\0';
    }
    return back;
}

static void look_at_clock(struct walk *walk, const struct verify_line *line)
{
    bool event = !verify_line_is(line, "auth");
    bool back = went_back(walk->ts_top, line->ts, VERIFY_CLOCK_S);

    if (event && went_back(walk->ts_event_top, line->ts, VERIFY_CLOCK_EVENT_S)) {
        back = true;
    }
    if (back) {
        mark(walk, VERIFY_BACKWARD, 1, line->parsed.seq);
    }
}

/* The first record of a file: what it follows, and the key of the next seal. */
static bool opening(struct walk *walk, const struct verify_line *line,
                    unsigned char before[VERIFY_HASH_BYTES])
{
    struct verify_segment *out = walk->out;
    uint64_t prev_seq;

    out->opens_chain = verify_line_is(line, "chain.open");
    if (!out->opens_chain && !verify_line_is(line, "segment.open")) {
        return fault(walk, walk->lines, line,
                     "the file does not begin with chain.open or segment.open: what was before "
                     "this record is missing");
    }
    if (!verify_line_number(line, LINE_EPOCH, &out->opening.epoch) ||
        !verify_line_hex(line, LINE_PK, out->opening.bytes, VERIFY_KEY_BYTES)) {
        return lacks(walk, line);
    }
    if (out->opens_chain) {
        memset(before, 0, VERIFY_HASH_BYTES);
        out->from_known = true;
        if (line->parsed.seq != 0 || out->opening.epoch != 0) {
            return fault(walk, walk->lines, line, "chain.open is not record 0 with epoch 0");
        }
    } else {
        if (!verify_line_number(line, LINE_PREV_SEQ, &prev_seq) ||
            !verify_line_hex(line, LINE_PREV_H, before, VERIFY_HASH_BYTES)) {
            return lacks(walk, line);
        }
        if (line->parsed.seq == 0 || prev_seq != line->parsed.seq - 1) {
            return fault(walk, walk->lines, line, "prev_seq is not the record before it");
        }
    }
    memcpy(out->chain, line->parsed.chain, sizeof(out->chain));
    memcpy(out->before, before, VERIFY_HASH_BYTES);
    memcpy(out->first_ts, line->ts, VERIFY_TS_BYTES - 1);
    out->first_seq = line->parsed.seq;
    out->next = out->opening;
    return true;
}

/* The daemon says that records are missing: the chain goes on after the last one it knew. */
static bool recovery_after_loss(struct walk *walk, const struct verify_line *line,
                                unsigned char before[VERIFY_HASH_BYTES])
{
    struct verify_segment *out = walk->out;
    uint64_t lost;

    if (!verify_line_number(line, LINE_LOST_FROM, &lost) ||
        !verify_line_hex(line, LINE_LOST_H, before, VERIFY_HASH_BYTES)) {
        return lacks(walk, line);
    }
    if (lost <= out->last_seq || lost == UINT64_MAX || line->parsed.seq != lost + 1) {
        return fault(walk, walk->lines, line,
                     "lost_from is not the record before this one, or nothing is missing");
    }
    mark(walk, VERIFY_LOST, lost - out->last_seq, line->parsed.seq);
    walk->keys_lost = true;
    if (walk->options->has_head && walk->options->head_seq > out->last_seq &&
        walk->options->head_seq <= lost) {
        out->head_lost = true;
    }
    return true;
}

/* Which hash the record must follow; false when it stands at the wrong place. */
static bool place(struct walk *walk, const struct verify_line *line,
                  unsigned char before[VERIFY_HASH_BYTES])
{
    const struct verify_segment *out = walk->out;
    uint64_t seq = line->parsed.seq;

    if (out->records == 0) {
        return opening(walk, line, before);
    }
    if (out->closed) {
        return fault(walk, walk->lines, line, "it stands after segment.close, the end of its file");
    }
    if (memcmp(line->parsed.chain, out->chain, sizeof(out->chain)) != 0) {
        return fault(walk, walk->lines, line, "it is of another chain, %s", line->parsed.chain);
    }
    if (verify_line_is(line, "chain.open") || verify_line_is(line, "segment.open")) {
        return fault(walk, walk->lines, line,
                     "such a record begins a file, and this one stands "
                     "within it");
    }
    if (verify_line_is(line, "recovery") &&
        verify_line_says(line, LINE_RESULT, "records_missing")) {
        return recovery_after_loss(walk, line, before);
    }
    if (seq <= out->last_seq) {
        return fault(walk, walk->lines, line,
                     "it stands after record %" PRIu64
                     ": out of order, or a second time, or that one is false",
                     out->last_seq);
    }
    if (seq > out->last_seq + 1) {
        return fault(
            walk, walk->lines, line, "%" PRIu64 " record%s missing before it, from %" PRIu64 " on",
            seq - out->last_seq - 1, seq == out->last_seq + 2 ? " is" : "s are", out->last_seq + 1);
    }
    memcpy(before, out->hash, VERIFY_HASH_BYTES);
    return true;
}

/* Bytes before it that are no record: exactly those that it names. */
static bool accounts(struct walk *walk, const struct verify_line *line)
{
    struct span stray = span_make(walk->window + walk->stray, walk->line - walk->stray);
    unsigned char hash[SECRET_SHA256_BYTES];
    unsigned char named[SECRET_SHA256_BYTES];
    uint64_t bytes;
    bool may = verify_line_is(line, "chain.open") || verify_line_is(line, "segment.open") ||
               verify_line_is(line, "recovery");
    bool says = line->values[LINE_TORN_BYTES].ptr != NULL ||
                line->values[LINE_TORN_SHA256].ptr != NULL ||
                verify_line_says(line, LINE_RESULT, "torn");

    if (stray.len == 0) {
        return !says || !may ||
               fault(walk, walk->lines, line, "it speaks of torn bytes, and there are none");
    }
    stray.len--; /* the LF that ends them was added */
    secret_sha256(hash, &stray, 1);
    if (!may || !verify_line_number(line, LINE_TORN_BYTES, &bytes) || bytes != stray.len ||
        !verify_line_hex(line, LINE_TORN_SHA256, named, sizeof(named)) ||
        memcmp(named, hash, sizeof(hash)) != 0) {
        return fault(walk, walk->stray_line, NULL,
                     "it is no record, and the record after it (line %" PRIu64 ", seq %" PRIu64
                     ") does not account for it",
                     walk->lines, line->parsed.seq);
    }
    if (chain_hides_record(stray)) {
        return fault(walk, walk->stray_line, NULL,
                     "it ends like a record, which no torn line does: the record after it (line "
                     "%" PRIu64 ", seq %" PRIu64 ") hides one",
                     walk->lines, line->parsed.seq);
    }
    mark(walk, VERIFY_TORN, 1, line->parsed.seq);
    return true;
}

static bool seal_signed(const struct walk *walk, const struct verify_line *line)
{
    static const char label[] = "audit-seal-v1"; /* hashed with its NUL */
    const struct span sig = line->values[LINE_SIG];
    const char *end = line->text + line->parsed.body_len;
    const size_t tail = sizeof(",\"sig\":\"") - 1 + 2 * (size_t)SECRET_SIGNATURE_BYTES + 1;
    const struct span parts[] = {span_make(label, sizeof(label)),
                                 span_make(walk->out->hash, VERIFY_HASH_BYTES),
                                 span_make(line->text, line->parsed.body_len - tail)};
    unsigned char signature[SECRET_SIGNATURE_BYTES];
    unsigned char hash[SECRET_SHA256_BYTES];

    if ((const char *)sig.ptr + sig.len + 1 != end ||
        !verify_line_hex(line, LINE_SIG, signature, sizeof(signature))) {
        return false;
    }
    secret_sha256(hash, parts, 3);
    return secret_sign_verify(signature, walk->out->next.bytes, span_make(hash, sizeof(hash)));
}

/* A seal: which records it covers, by which key, and whose turn is next. */
static bool seal(struct walk *walk, const struct verify_line *line)
{
    struct verify_segment *out = walk->out;
    struct verify_key next;
    uint64_t seq = line->parsed.seq;
    uint64_t epoch;
    uint64_t from;
    uint64_t count;
    bool proven = true;

    if (!verify_line_number(line, LINE_EPOCH, &epoch) ||
        !verify_line_number(line, LINE_FROM, &from) || !verify_line_number(line, LINE_N, &count) ||
        !verify_line_hex(line, LINE_NEXT_PK, next.bytes, sizeof(next.bytes)) ||
        epoch == UINT64_MAX || line->values[LINE_SIG].ptr == NULL) {
        return lacks(walk, line);
    }
    if (count == 0 || from > seq || seq - from != count) {
        return fault(walk, walk->lines, line, "the seal's own figures do not fit together");
    }
    if (walk->keys_lost && epoch > out->next.epoch) {
        proven = false;
    } else if (epoch != out->next.epoch) {
        return fault(walk, walk->lines, line,
                     "the seal is of epoch %" PRIu64 ", and %" PRIu64 " is due", epoch,
                     out->next.epoch);
    }
    if (proven ? (out->from_known ? from != out->from : from > out->first_seq) : from < out->from) {
        return fault(walk, walk->lines, line,
                     "the seal covers the records from %" PRIu64 " on, and not from where the one "
                     "before ended",
                     from);
    }
    if (proven && !seal_signed(walk, line)) {
        return fault(walk, walk->lines, line,
                     "the signature is not by the key that was announced for this seal");
    }
    if (proven && out->marks[VERIFY_UNPROVEN].count == 0) {
        out->first_from = out->seals == 0 ? from : out->first_from;
        out->seals++;
        out->sealed_seq = seq;
        memcpy(out->sealed_ts, line->ts, VERIFY_TS_BYTES - 1);
    } else {
        mark(walk, VERIFY_UNPROVEN, 1, seq);
        if (from > out->from) {
            mark(walk, VERIFY_UNSEALED, from - out->from, seq);
        }
    }
    next.epoch = epoch + 1;
    out->next = next;
    out->from = seq + 1;
    out->from_known = true;
    walk->keys_lost = false;
    return true;
}

static void lifecycle(struct walk *walk, const struct verify_line *line)
{
    if (verify_line_says(line, LINE_ACTION, "stop")) {
        walk->running = false;
    } else if (verify_line_says(line, LINE_ACTION, "start")) {
        /* Before the first start of a chain there was nothing to be stopped. */
        if (walk->running ||
            (verify_line_says(line, LINE_CLEAN, "false") && line->parsed.seq > 1)) {
            mark(walk, VERIFY_UNCLEAN, 1, line->parsed.seq);
        }
        walk->running = true;
    }
}

/* What a record means for those after it; its hash fits. */
static bool meaning(struct walk *walk, const struct verify_line *line)
{
    bool sealed = walk->after_seal;

    walk->after_seal = false;
    if (verify_line_is(line, "auth")) {
        return true;
    }
    if (verify_line_is(line, "seal")) {
        walk->after_seal = true;
        return seal(walk, line);
    }
    if (verify_line_is(line, "segment.close")) {
        walk->out->closed = true;
        return sealed || fault(walk, walk->lines, line, "segment.close does not follow a seal");
    }
    if (verify_line_is(line, "lifecycle")) {
        lifecycle(walk, line);
    }
    if (verify_line_is(line, "recovery") && !verify_line_says(line, LINE_RESULT, "torn") &&
        !verify_line_says(line, LINE_RESULT, "records_missing")) {
        const bool broken = verify_line_says(line, LINE_RESULT, "chain_broken");

        walk->out->noticed_line = broken ? walk->lines : 0;
        return fault(
            walk, walk->lines, line,
            broken
                ? "here the daemon itself found that the file was changed: nothing since the last "
                  "seal before it is proven, and the rest of this file was not read"
                : "a recovery of a kind that is not known");
    }
    return true;
}

/* The next line of the window is a record. */
static bool record(struct walk *walk, const struct verify_line *line)
{
    const struct verify_options *options = walk->options;
    struct verify_segment *out = walk->out;
    unsigned char before[VERIFY_HASH_BYTES];

    if (!accounts(walk, line) || !place(walk, line, before)) {
        return false;
    }
    if (!chain_line_follows(line->text, &line->parsed, before)) {
        return fault(walk, walk->lines, line,
                     "its hash does not fit: this record was changed, or one before it that no "
                     "good seal covers");
    }
    if (!meaning(walk, line)) {
        return false;
    }
    look_at_clock(walk, line);
    if (options->has_head && line->parsed.seq == options->head_seq) {
        out->head_met = memcmp(line->parsed.hash, options->head_hash, VERIFY_HASH_BYTES) == 0;
        out->head_differs = !out->head_met;
    }
    memcpy(out->hash, line->parsed.hash, VERIFY_HASH_BYTES);
    memcpy(out->last_ts, line->ts, VERIFY_TS_BYTES - 1);
    out->last_seq = line->parsed.seq;
    out->records++;
    return true;
}

/* Behind the first bad record nothing is proven, but the daemon may have written that it noticed.
 */
static void search(struct walk *walk, const struct verify_line *line)
{
    unsigned char before[VERIFY_HASH_BYTES];

    if (verify_line_is(line, "recovery") && verify_line_says(line, LINE_RESULT, "chain_broken") &&
        verify_line_hex(line, LINE_PREV_H, before, sizeof(before)) &&
        chain_line_follows(line->text, &line->parsed, before)) {
        walk->out->noticed_line = walk->lines;
        walk->out->noticed_seq = line->parsed.seq;
    }
}

/* The line that ends before `next` in the window; false when no more are wanted. */
static bool take_line(struct walk *walk, size_t next)
{
    struct verify_segment *out = walk->out;
    const bool searching = out->why[0] != '\0';
    struct verify_line line;

    if (verify_line_read((const char *)walk->window + walk->line, next - walk->line, &line) == 0) {
        if (searching) {
            search(walk, &line);
        } else {
            (void)record(walk, &line);
        }
        walk->stray = next;
    } else if (searching) {
        walk->stray = next;
    } else if (walk->stray == walk->line) {
        walk->stray_line = walk->lines;
    }
    walk->line = next;
    walk->lines++;
    if (next - walk->stray > CHAIN_STRAY_MAX + 1) {
        (void)fault(walk, walk->stray_line, NULL, "it is no record, nor is what follows it");
        walk->stray = next;
    }
    return out->noticed_line == 0;
}

/* What lies after the last record. */
static void finish(struct walk *walk)
{
    if (walk->stray < walk->line) {
        (void)fault(walk, walk->stray_line, NULL,
                    "it is no record, and no record after it accounts for it");
    } else if (walk->line < walk->end) {
        mark(walk, VERIFY_CUT, walk->end - walk->line, 0);
    }
}

int verify_segment(const struct verify_source *source, const struct verify_options *options,
                   struct verify_segment *out)
{
    struct walk walk = {.options = options, .out = out, .lines = 1};
    size_t scan = 0;

    *out = (struct verify_segment){.records = 0};
    for (;;) {
        const unsigned char *lf = memchr(walk.window + scan, '\n', walk.end - scan);
        size_t end = lf != NULL ? (size_t)(lf - walk.window) : walk.end;
        ssize_t n;

        /* Also with its end in sight, so that it is the same in whatever pieces the file comes. */
        if (end - walk.line > CHAIN_STRAY_MAX) {
            if (out->why[0] == '\0') {
                (void)fault(&walk, walk.lines, NULL, "it is no record: it does not end");
            }
            return 0;
        }
        if (lf != NULL) {
            scan = end + 1;
            if (!take_line(&walk, scan)) {
                return 0;
            }
            continue;
        }
        memmove(walk.window, walk.window + walk.stray, walk.end - walk.stray);
        walk.line -= walk.stray;
        walk.end -= walk.stray;
        walk.stray = 0;
        scan = walk.end;
        n = source->read(source->from, walk.window + walk.end, sizeof(walk.window) - walk.end);
        if (n < 0) {
            return -1;
        }
        if (n == 0) {
            if (out->why[0] == '\0') {
                finish(&walk);
            }
            return 0;
        }
        walk.end += (size_t)n;
    }
}
