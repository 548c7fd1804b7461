#include "trail/verify.h"
#include "trail/verify_line.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 640 };

/* Files of one chain, in the order of their records, while they are joined. */
struct joint {
    const struct verify_options *options;
    const struct verify_listener *listener;
    struct verify_chain chain;
    const struct verify_file *last; /* the one before */
    struct verify_key next;         /* that the next seal must have */
    bool from_known;
    uint64_t from; /* the first record that no seal covers */
    bool tied;     /* the keys of the file that was added last come from the ones before it */
};

int verify_options_key(struct verify_options *options, const char *text)
{
    if (options->key_count == VERIFY_KEYS_MAX ||
        !verify_line_hex_text(span_of(text), options->keys[options->key_count], VERIFY_KEY_BYTES)) {
        return -1;
    }
    options->key_count++;
    return 0;
}

int verify_options_head(struct verify_options *options, const char *text)
{
    const char *colon = strchr(text, ':');

    if (colon == NULL || options->has_head ||
        !verify_line_number_text(span_make(text, (size_t)(colon - text)), &options->head_seq) ||
        !verify_line_hex_text(span_of(colon + 1), options->head_hash, VERIFY_HASH_BYTES)) {
        return -1;
    }
    options->has_head = true;
    return 0;
}

static void tell(const struct verify_listener *listener, struct verify_finding finding,
                 const char *format, ...) __attribute__((format(printf, 3, 4)));

static void tell(const struct verify_listener *listener, struct verify_finding finding,
                 const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    finding.text = text;
    listener->finding(listener->to, &finding);
}

/* A finding about a mark: where it was seen first. */
static struct verify_finding at_mark(const struct verify_file *file, enum verify_kind kind,
                                     enum verify_level level)
{
    const struct verify_mark *mark = &file->segment.marks[kind];

    return (struct verify_finding){.level = level,
                                   .path = file->path,
                                   .line = mark->line,
                                   .has_seq = kind != VERIFY_CUT,
                                   .seq = mark->seq};
}

static struct verify_finding at_start(const struct verify_file *file, enum verify_level level)
{
    return (struct verify_finding){.level = level,
                                   .path = file->path,
                                   .line = 1,
                                   .has_seq = true,
                                   .seq = file->segment.first_seq};
}

static const char *times(uint64_t count, char out[32])
{
    (void)snprintf(out, 32, count == 1 ? "once" : "%" PRIu64 " times, here first", count);
    return out;
}

/* The last record of a file that a seal or the head proves; false: there is none. */
static bool proven(const struct verify_segment *s, const struct verify_options *options,
                   uint64_t *seq)
{
    const bool head = s->head_met && (s->seals == 0 || options->head_seq > s->sealed_seq);

    *seq = head ? options->head_seq : s->sealed_seq;
    return head || s->seals > 0;
}

/* A file with a bad record: what is left of it. */
static void tell_bad(const struct verify_file *file, const struct verify_options *options,
                     bool tied, const struct verify_listener *to)
{
    const struct verify_segment *s = &file->segment;
    const struct verify_finding rest = {.level = VERIFY_UNDECIDED, .path = file->path};
    uint64_t seq;

    tell(to,
         (struct verify_finding){.level = VERIFY_TAMPERED,
                                 .path = file->path,
                                 .line = s->why_line,
                                 .has_seq = s->why_has_seq,
                                 .seq = s->why_seq},
         "%s", s->why);
    if (!tied) {
        tell(to, rest, "nothing in it is proven: nothing that is here proves its first key");
    } else if (proven(s, options, &seq)) {
        tell(to, rest,
             "nothing in it after record %" PRIu64
             ", the last one that a good seal or the head proves, is proven",
             seq);
    } else {
        tell(to, rest, "nothing in it is proven: no good seal comes before the fault");
    }
    if (s->noticed_line > s->why_line) {
        tell(to,
             (struct verify_finding){.level = VERIFY_NOTE,
                                     .path = file->path,
                                     .line = s->noticed_line,
                                     .has_seq = true,
                                     .seq = s->noticed_seq},
             "here the daemon itself says that it found the file changed (chain_broken)");
    }
}

/* An unfinished last line. On a full disk the daemon may turn to the next file without having
 * finished it, and then goes on there after the record before it. */
static void tell_cut(const struct verify_file *file, const struct verify_file *next,
                     const struct verify_listener *to)
{
    const struct verify_segment *s = &file->segment;
    const uint64_t count = s->marks[VERIFY_CUT].count;

    if (next != NULL && s->records > 0 && !s->closed &&
        next->segment.first_seq == s->last_seq + 1 &&
        memcmp(next->segment.before, s->hash, VERIFY_HASH_BYTES) == 0) {
        tell(to, at_mark(file, VERIFY_CUT, VERIFY_NOTE),
             "the last line is unfinished (%" PRIu64 " bytes), and the next file goes on after the "
             "record before it: the disk was full, or the daemon died",
             count);
        return;
    }
    tell(to, at_mark(file, VERIFY_CUT, VERIFY_INCOMPLETE),
         "the last line is unfinished (%" PRIu64 " bytes): it was cut, or the daemon died and "
         "has not been started since",
         count);
}

/* What a file says by itself, and, for its end, the next one. */
static void tell_file(const struct verify_file *file, const struct verify_file *next,
                      const struct verify_options *options, bool tied,
                      const struct verify_listener *to)
{
    const struct verify_segment *s = &file->segment;
    const struct verify_mark *m = s->marks;
    char often[32];

    if (file->unread[0] != '\0') {
        tell(to, (struct verify_finding){.level = VERIFY_UNDECIDED, .path = file->path},
             "it cannot be read to its end: %s", file->unread);
    }
    if (s->why[0] != '\0') {
        tell_bad(file, options, tied, to);
    }
    if (s->records == 0 && s->why[0] == '\0' && file->unread[0] == '\0' &&
        m[VERIFY_CUT].count == 0) {
        tell(to, (struct verify_finding){.level = VERIFY_NOTE, .path = file->path}, "it is empty");
    }
    if (m[VERIFY_CUT].count != 0) {
        tell_cut(file, next, to);
    }
    if (m[VERIFY_LOST].count != 0) {
        tell(to, at_mark(file, VERIFY_LOST, VERIFY_INCOMPLETE),
             "the daemon found %" PRIu64 " records missing before this one", m[VERIFY_LOST].count);
    }
    if (m[VERIFY_UNPROVEN].count != 0) {
        tell(to, at_mark(file, VERIFY_UNPROVEN, VERIFY_INCOMPLETE),
             "a seal that cannot be proven (%s): its key was announced in records that are missing",
             times(m[VERIFY_UNPROVEN].count, often));
    }
    if (m[VERIFY_UNSEALED].count != 0) {
        tell(to, at_mark(file, VERIFY_UNSEALED, VERIFY_INCOMPLETE),
             "the %" PRIu64 " records before the first that this seal covers are under no seal "
             "that is here",
             m[VERIFY_UNSEALED].count);
    }
    if (m[VERIFY_TORN].count != 0) {
        tell(to, at_mark(file, VERIFY_TORN, VERIFY_NOTE),
             "torn bytes of a crash (%s), accounted for by the record after them",
             times(m[VERIFY_TORN].count, often));
    }
    if (m[VERIFY_UNCLEAN].count != 0) {
        tell(to, at_mark(file, VERIFY_UNCLEAN, VERIFY_NOTE),
             "a start of the daemon that no stop came before (%s)",
             times(m[VERIFY_UNCLEAN].count, often));
    }
    if (m[VERIFY_BACKWARD].count != 0) {
        tell(to, at_mark(file, VERIFY_BACKWARD, VERIFY_NOTE), "the clock went back (%s)",
             times(m[VERIFY_BACKWARD].count, often));
    }
}

/* The first file of a chain: is its key one of those that are known? */
static void anchor(struct joint *joint, const struct verify_file *file)
{
    const struct verify_segment *s = &file->segment;
    const struct verify_options *options = joint->options;

    for (size_t i = 0; i < options->key_count; i++) {
        if (memcmp(options->keys[i], s->opening.bytes, VERIFY_KEY_BYTES) == 0) {
            joint->chain.anchored = true;
        }
    }
    if (joint->chain.anchored) {
        return;
    }
    if (options->key_count == 0) {
        tell(joint->listener, (struct verify_finding){.level = VERIFY_NOTE, .path = NULL},
             "chain %s is not anchored: keep its first key elsewhere, and give it with --key",
             s->chain);
    } else if (s->opens_chain) {
        tell(joint->listener, at_start(file, VERIFY_TAMPERED),
             "the chain begins with another key than the one that was given");
    } else {
        tell(
            joint->listener, at_start(file, VERIFY_UNDECIDED),
            "the chain's beginning is not among these files, so that the given key has no place in "
            "them: it cannot be anchored");
    }
}

/* Whether a file goes on where the one before ends; says so where it does not. */
static bool follows(struct joint *joint, const struct verify_file *file)
{
    const struct verify_segment *last = &joint->last->segment;
    const struct verify_segment *s = &file->segment;
    bool whole = last->why[0] == '\0' && joint->last->unread[0] == '\0';

    if (s->first_seq <= joint->chain.last_seq) {
        tell(joint->listener, at_start(file, VERIFY_TAMPERED),
             "%s goes up to record %" PRIu64 " already: another history of the same chain, or a "
             "copy of a part of it",
             joint->last->path, joint->chain.last_seq);
        return false;
    }
    if (s->first_seq - joint->chain.last_seq > 1) {
        if (whole) {
            tell(joint->listener, at_start(file, VERIFY_INCOMPLETE),
                 "the records %" PRIu64 " to %" PRIu64 " are missing between %s and this file",
                 joint->chain.last_seq + 1, s->first_seq - 1, joint->last->path);
        } else {
            tell(joint->listener, at_start(file, VERIFY_UNDECIDED),
                 "what comes before this record was not found in %s", joint->last->path);
        }
        return false;
    }
    if (memcmp(s->before, last->hash, VERIFY_HASH_BYTES) != 0) {
        tell(joint->listener, at_start(file, VERIFY_TAMPERED),
             "prev_h is not the hash of the last record of %s", joint->last->path);
        return false;
    }
    if (s->opening.epoch != joint->next.epoch ||
        memcmp(s->opening.bytes, joint->next.bytes, VERIFY_KEY_BYTES) != 0) {
        tell(joint->listener, at_start(file, VERIFY_TAMPERED),
             "it announces another key than the last seal before it");
        return false;
    }
    if (s->seals > 0 && joint->from_known && s->first_from > joint->from) {
        /* A daemon that has lost audit.head may know no better; the key is the right one. */
        tell(joint->listener, at_start(file, VERIFY_INCOMPLETE),
             "no seal names the records %" PRIu64 " to %" PRIu64 " as its own", joint->from,
             s->first_from - 1);
        return true;
    }
    if (s->seals > 0 && joint->from_known && s->first_from != joint->from) {
        tell(joint->listener, at_start(file, VERIFY_TAMPERED),
             "its first seal covers the records from %" PRIu64 " on, and not from %" PRIu64,
             s->first_from, joint->from);
        return false;
    }
    return true;
}

static void add(struct joint *joint, const struct verify_file *file)
{
    const struct verify_segment *s = &file->segment;
    struct verify_chain *chain = &joint->chain;

    chain->files++;
    chain->records += s->records;
    chain->seals += s->seals;
    chain->last_seq = s->last_seq;
    memcpy(chain->last_ts, s->last_ts, sizeof(chain->last_ts));
    if (s->seals > 0 && joint->tied) {
        chain->sealed = true;
        chain->sealed_seq = s->sealed_seq;
        memcpy(chain->sealed_ts, s->sealed_ts, sizeof(chain->sealed_ts));
    }
    joint->next = s->next;
    if (s->from_known) {
        joint->from_known = true;
        joint->from = s->from;
    }
    joint->last = file;
}

static void begin(struct joint *joint, const struct verify_file *file)
{
    const struct verify_segment *s = &file->segment;
    struct verify_chain *chain = &joint->chain;

    memcpy(chain->id, s->chain, sizeof(chain->id));
    memcpy(chain->first_ts, s->first_ts, sizeof(chain->first_ts));
    chain->first_seq = s->first_seq;
    chain->opening = s->opening;
    chain->whole = s->opens_chain;
    anchor(joint, file);
    joint->tied = chain->anchored || joint->options->key_count == 0 || !s->opens_chain;
    if (!s->opens_chain) {
        tell(joint->listener, at_start(file, VERIFY_NOTE),
             "the records before this one are not among these files");
    }
    add(joint, file);
}

/* The next file of the chain. */
static void join(struct joint *joint, const struct verify_file *file)
{
    const struct verify_segment *s = &file->segment;
    const struct verify_segment *last = &joint->last->segment;

    if (s->first_seq == last->first_seq && s->last_seq == last->last_seq &&
        memcmp(s->hash, last->hash, VERIFY_HASH_BYTES) == 0) {
        tell(joint->listener, at_start(file, VERIFY_NOTE), "it holds the same records as %s",
             joint->last->path);
        return;
    }
    if (!follows(joint, file)) {
        joint->chain.whole = false;
        joint->chain.broken = true;
        joint->tied = false;
        joint->from_known = false;
    }
    if (s->last_seq > joint->chain.last_seq) {
        add(joint, file);
    }
}

/* What nothing proves: that a chain has no records behind those that are here. */
static void tell_end(const struct joint *joint, bool head_met)
{
    const struct verify_options *options = joint->options;
    const struct verify_segment *last = &joint->last->segment;
    const struct verify_chain *chain = &joint->chain;
    const struct verify_finding whole = {.level = VERIFY_NOTE, .path = NULL};

    if (last->why[0] != '\0') {
        return;
    }
    if (last->closed) {
        tell(joint->listener,
             (struct verify_finding){.level = VERIFY_NOTE, .path = joint->last->path},
             "it ends with segment.close: the chain goes on in a file that is not here");
    }
    if (options->max_seal_age_s != 0) {
        return; /* who gives it says how much may be missing */
    }
    if (head_met) {
        tell(joint->listener, whole,
             "chain %s ends with record %" PRIu64 " here, and the head proves it up to record "
             "%" PRIu64 ": only a later one can tell that nothing was cut off behind it",
             chain->id, chain->last_seq, options->head_seq);
    } else {
        tell(joint->listener, whole,
             "chain %s ends with record %" PRIu64
             " here: only --head or --max-seal-age can tell that nothing was cut off behind it",
             chain->id, chain->last_seq);
    }
}

/* The file of the same chain after file `i` and copies of it; NULL when there is none. */
static const struct verify_file *file_after(const struct verify_file *files, size_t count, size_t i)
{
    const struct verify_segment *s = &files[i].segment;

    for (size_t k = i + 1; k < count && strcmp(files[k].segment.chain, s->chain) == 0; k++) {
        if (files[k].segment.first_seq > s->first_seq) {
            return &files[k];
        }
    }
    return NULL;
}

/* The files of one chain, from the first on; returns how many they are. */
static size_t tell_chain(const struct verify_file *files, size_t count,
                         const struct verify_options *options,
                         const struct verify_listener *listener)
{
    struct joint joint = {.options = options, .listener = listener};
    struct verify_chain *chain = &joint.chain;
    bool head_met = false;
    size_t i = 0;

    for (; i < count && strcmp(files[i].segment.chain, files[0].segment.chain) == 0; i++) {
        if (i == 0) {
            begin(&joint, &files[i]);
        } else {
            join(&joint, &files[i]);
        }
        tell_file(&files[i], file_after(files, count, i), options, joint.tied, listener);
        chain->broken = chain->broken || files[i].segment.why[0] != '\0';
        head_met = head_met || files[i].segment.head_met;
    }
    chain->unsealed = chain->last_seq - (chain->sealed ? chain->sealed_seq : chain->first_seq) +
                      (chain->sealed ? 0 : 1);
    chain->unproven = chain->unsealed;
    if (head_met && chain->last_seq - options->head_seq < chain->unsealed) {
        chain->unproven = chain->last_seq - options->head_seq;
    }
    tell_end(&joint, head_met);
    listener->chain(listener->to, chain);
    return i;
}

static void tell_head(const struct verify_file *files, size_t count,
                      const struct verify_options *options, const struct verify_listener *to)
{
    struct verify_finding finding = {
        .level = VERIFY_UNDECIDED, .has_seq = true, .seq = options->head_seq};
    uint64_t last = 0;

    for (size_t i = 0; i < count; i++) {
        const struct verify_segment *s = &files[i].segment;

        if (s->head_met) {
            return;
        }
        if (s->head_differs || s->head_lost) {
            finding.level = s->head_differs ? VERIFY_TAMPERED : VERIFY_INCOMPLETE;
            finding.path = files[i].path;
        }
        last = s->records > 0 && s->last_seq > last ? s->last_seq : last;
    }
    if (finding.path != NULL) {
        tell(to, finding,
             finding.level == VERIFY_TAMPERED ? "this record has another hash than the head"
                                              : "the head is among the records that are missing");
    } else if (last < options->head_seq) {
        finding.level = VERIFY_INCOMPLETE;
        tell(to, finding, "the head is not reached: the last good record is %" PRIu64, last);
    } else {
        tell(to, finding, "the head is not in these files");
    }
}

static void tell_age(const struct verify_file *files, size_t count,
                     const struct verify_options *options, const struct verify_listener *to)
{
    const struct verify_segment *newest = NULL;

    for (size_t i = 0; i < count; i++) {
        const struct verify_segment *s = &files[i].segment;

        if (s->seals > 0 &&
            (newest == NULL || memcmp(s->sealed_ts, newest->sealed_ts, VERIFY_TS_BYTES) > 0)) {
            newest = s;
        }
    }
    if (newest == NULL) {
        tell(to, (struct verify_finding){.level = VERIFY_INCOMPLETE},
             "there is no seal, and the newest may be at most %" PRIu64 " s old",
             options->max_seal_age_s);
    } else if (verify_seconds(newest->sealed_ts) + options->max_seal_age_s < options->now_s) {
        tell(to,
             (struct verify_finding){
                 .level = VERIFY_INCOMPLETE, .has_seq = true, .seq = newest->sealed_seq},
             "the newest seal, of %s, is more than %" PRIu64
             " s old: later records were cut off, or no daemon writes here",
             newest->sealed_ts, options->max_seal_age_s);
    }
}

static int compare(const void *left, const void *right)
{
    const struct verify_segment *a = &((const struct verify_file *)left)->segment;
    const struct verify_segment *b = &((const struct verify_file *)right)->segment;
    int order;

    if ((a->records == 0) != (b->records == 0)) {
        return a->records == 0 ? 1 : -1;
    }
    order = strcmp(a->chain, b->chain);
    if (order == 0 && a->first_seq != b->first_seq) {
        order = a->first_seq < b->first_seq ? -1 : 1;
    }
    if (order == 0 && a->last_seq != b->last_seq) {
        order = a->last_seq < b->last_seq ? -1 : 1;
    }
    return order;
}

void verify_set(struct verify_file *files, size_t count, const struct verify_options *options,
                const struct verify_listener *listener)
{
    size_t i = 0;

    qsort(files, count, sizeof(*files), compare);
    while (i < count && files[i].segment.records > 0) {
        i += tell_chain(files + i, count - i, options, listener);
    }
    for (; i < count; i++) {
        tell_file(&files[i], NULL, options, false, listener);
    }
    if (options->has_head) {
        tell_head(files, count, options, listener);
    }
    if (options->max_seal_age_s > 0) {
        tell_age(files, count, options, listener);
    }
}
