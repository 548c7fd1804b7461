#include "base/secret.h"
#include "trail/verify.h"
#include "trail_build.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---- verifying what lies in memory */

struct memory {
    const char *text;
    size_t len;
    size_t at;
    size_t piece; /* at most so many bytes at once; 0: all */
    bool fails;   /* at the end */
};

static ssize_t memory_read(void *from, void *out, size_t len)
{
    struct memory *m = from;
    size_t n = m->len - m->at;

    n = n < len ? n : len;
    n = m->piece != 0 && m->piece < n ? m->piece : n;
    if (n == 0 && m->fails) {
        return -1;
    }
    memcpy(out, m->text + m->at, n);
    m->at += n;
    return (ssize_t)n;
}

static const struct verify_options none = {.key_count = 0};

static struct verify_file file_of(const char *text, size_t len,
                                  const struct verify_options *options)
{
    struct memory memory = {.text = text, .len = len};
    struct verify_source source = {memory_read, &memory};
    struct verify_file file = {.path = "f"};

    cr_assert_eq(verify_segment(&source, options, &file.segment), 0);
    return file;
}

static struct verify_segment segment_of(const char *text, size_t len)
{
    return file_of(text, len, &none).segment;
}

/* Whether a file by itself has anything wrong with it. */
static bool wrong(const struct verify_segment *s)
{
    return s->why[0] != '\0' || s->marks[VERIFY_CUT].count != 0 ||
           s->marks[VERIFY_LOST].count != 0 || s->marks[VERIFY_UNPROVEN].count != 0;
}

struct seen {
    unsigned levels[VERIFY_TAMPERED + 1];
    char text[VERIFY_TAMPERED + 1][700]; /* the first of each */
    uint64_t seq[VERIFY_TAMPERED + 1];
    unsigned chains;
    struct verify_chain chain; /* the last one */
};

static void on_finding(void *to, const struct verify_finding *finding)
{
    struct seen *seen = to;

    if (seen->levels[finding->level]++ == 0) {
        snprintf(seen->text[finding->level], sizeof(seen->text[0]), "%s", finding->text);
        seen->seq[finding->level] = finding->seq;
    }
}

static void on_chain(void *to, const struct verify_chain *chain)
{
    struct seen *seen = to;

    seen->chains++;
    seen->chain = *chain;
}

static struct seen set_of(struct verify_file *files, size_t count,
                          const struct verify_options *options)
{
    struct seen seen = {.chains = 0};
    const struct verify_listener listener = {on_finding, on_chain, &seen};

    verify_set(files, count, options, &listener);
    return seen;
}

static bool refused(const struct seen *seen)
{
    return seen->levels[VERIFY_TAMPERED] != 0 || seen->levels[VERIFY_INCOMPLETE] != 0;
}

/* All files of a trail. */
static void files_of(const struct trail *t, struct verify_file files[SEGMENTS],
                     const struct verify_options *options)
{
    for (size_t i = 0; i < t->files; i++) {
        files[i] = file_of(t->text + t->starts[i], t->starts[i + 1] - t->starts[i], options);
    }
}

static struct seen trail_of(const struct trail *t, const struct verify_options *options)
{
    struct verify_file files[SEGMENTS];

    files_of(t, files, options);
    return set_of(files, t->files, options);
}

/* The first public key of a family. */
static struct verify_options key_of(uint64_t family)
{
    struct verify_options options = {.key_count = 1};
    unsigned char secret[64];

    mend_key(family, 0, options.keys[0], secret);
    return options;
}

/* Where line `n` of the text begins; the length is its last byte's place. */
static char *line_at(const struct trail *t, size_t n)
{
    char *at = t->text;

    while (n-- > 0) {
        at = (char *)memchr(at, '\n', t->len - (size_t)(at - t->text)) + 1;
    }
    return at;
}

static size_t line_len(const struct trail *t, const char *line)
{
    return (size_t)((char *)memchr(line, '\n', t->len - (size_t)(line - t->text)) - line) + 1;
}

static size_t line_count(const struct trail *t)
{
    size_t count = 0;

    for (size_t i = 0; i < t->len; i++) {
        count += t->text[i] == '\n';
    }
    return count;
}

/* The file that a place of the text is in. */
static size_t file_at(const struct trail *t, const char *place)
{
    size_t i = 0;

    while (t->starts[i + 1] <= (size_t)(place - t->text)) {
        i++;
    }
    return i;
}

/* Long: every byte of a trail changed, in every way for some lines */
static bool is_long(void)
{
    return getenv("SPNEGATE_LONG") != NULL;
}

/* A trail, what its files say, and what they say with one of them changed. */
static struct {
    struct trail t;
    struct verify_file files[SEGMENTS];
} good;

static void good_make(void)
{
    cr_assert(secret_init() == 0);
    good.t = trail_build(0);
    files_of(&good.t, good.files, &none);
}

static void good_free(void)
{
    free(good.t.text);
}

/* The set with file `i` holding other bytes. */
static struct seen with_file(size_t i, const char *text, size_t len,
                             const struct verify_options *options)
{
    struct verify_file files[SEGMENTS];

    memcpy(files, good.files, sizeof(files));
    files[i] = file_of(text, len, options);
    return set_of(files, SEGMENTS, options);
}

/* File `i` with `cut` bytes at `place` replaced by `put`. */
static struct seen with_edit(const char *place, size_t cut, const char *put, size_t put_len)
{
    static char text[TRAIL_BYTES];
    size_t i = file_at(&good.t, place);
    const char *start = good.t.text + good.t.starts[i];
    size_t before = (size_t)(place - start);
    size_t after = good.t.starts[i + 1] - good.t.starts[i] - before - cut;

    memcpy(text, start, before);
    memcpy(text + before, put, put_len);
    memcpy(text + before + put_len, place + cut, after);
    return with_file(i, text, before + put_len + after, &none);
}

TestSuite(attack, .init = good_make, .fini = good_free, .timeout = 3000);
TestSuite(set, .init = good_make, .fini = good_free);

/* ---- good trails */

Test(set, is_good_in_any_order)
{
    const struct verify_options options = key_of(0);
    struct verify_file files[SEGMENTS];
    struct seen seen;

    for (size_t i = 0; i < SEGMENTS; i++) {
        cr_assert(!wrong(&good.files[i].segment), "file %zu: %s", i, good.files[i].segment.why);
        files[i] = good.files[(i * 5 + 3) % SEGMENTS];
    }
    seen = set_of(files, SEGMENTS, &options);
    cr_expect(!refused(&seen) && seen.levels[VERIFY_UNDECIDED] == 0, "%s",
              seen.text[VERIFY_TAMPERED]);
    cr_expect_eq(seen.chains, 1);
    cr_expect_eq(seen.chain.records, good.t.seq);
    cr_expect_eq(seen.chain.files, SEGMENTS);
    cr_expect(seen.chain.whole && seen.chain.anchored && seen.chain.sealed);
    cr_expect_eq(seen.chain.unsealed, good.t.seq - good.t.from);
    cr_expect_eq(seen.chain.sealed_seq, good.t.from - 1);
    cr_expect_eq(seen.chain.seals, good.t.epoch);
    cr_expect_gt(seen.levels[VERIFY_NOTE], 0, "torn bytes are told");
}

Test(set, is_good_one_file_at_a_time)
{
    for (size_t i = 0; i < SEGMENTS; i++) {
        struct verify_file file = good.files[i];
        struct seen seen = set_of(&file, 1, &none);

        cr_expect(!refused(&seen) && seen.levels[VERIFY_UNDECIDED] == 0);
        cr_expect_eq(seen.chain.whole, i == 0);
        cr_expect_not(seen.chain.anchored);
        cr_expect(strstr(seen.text[VERIFY_NOTE], "not anchored") != NULL);
    }
}

Test(set, cannot_anchor_a_later_file_alone)
{
    const struct verify_options options = key_of(0);
    struct verify_file file = good.files[3];
    struct seen seen = set_of(&file, 1, &options);

    cr_expect_not(refused(&seen));
    cr_expect_eq(seen.levels[VERIFY_UNDECIDED], 1);
}

Test(set, anchors_a_later_file_by_a_key_that_was_kept_later)
{
    struct verify_options options = {.key_count = 1};
    struct verify_file file = good.files[3];
    struct seen seen;

    memcpy(options.keys[0], file.segment.opening.bytes, VERIFY_KEY_BYTES);
    seen = set_of(&file, 1, &options);
    cr_expect(!refused(&seen) && seen.levels[VERIFY_UNDECIDED] == 0 && seen.chain.anchored);
}

Test(set, tells_several_chains_apart)
{
    struct verify_options options = key_of(0);
    struct verify_options both = key_of(0);
    struct trail other;
    struct verify_file files[4];
    struct seen seen;

    trail_begin(&other);
    other.chain = "0123456789abcdef";
    other.len = 0;
    other.seq = 0;
    trail_put(&other,
              "\"event\":\"chain.open\",\"mono\":1,\"boot_id\":\"b\",\"epoch\":0,\"pk\":\"" Z64
              "\"");
    trail_mend(&other, 7);
    files[0] = good.files[1];
    files[1] = file_of(other.text, other.len, &none);
    files[2] = good.files[0];
    seen = set_of(files, 3, &none);
    cr_expect_eq(seen.chains, 2);
    cr_expect_not(refused(&seen));
    seen = set_of(files, 3, &options);
    cr_expect_eq(seen.levels[VERIFY_TAMPERED], 1, "the second one has another key");
    memcpy(both.keys[both.key_count++], key_of(7).keys[0], VERIFY_KEY_BYTES);
    seen = set_of(files, 3, &both);
    cr_expect_not(refused(&seen));
    free(other.text);
}

Test(set, passes_over_the_same_file_twice)
{
    struct verify_file files[SEGMENTS + 1];
    struct seen seen;

    memcpy(files, good.files, sizeof(good.files));
    files[SEGMENTS] = good.files[4];
    seen = set_of(files, SEGMENTS + 1, &none);
    cr_expect_not(refused(&seen));
    cr_expect_eq(seen.chain.records, good.t.seq);
}

Test(set, reads_the_same_in_pieces_of_any_size)
{
    static const size_t pieces[] = {1, 7, 300, 4095, 4096, 65536};
    const char *start = good.t.text + good.t.starts[1];

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct memory memory = {start, good.t.starts[2] - good.t.starts[1], 0, pieces[i], false};
        struct verify_source source = {memory_read, &memory};
        struct verify_segment s;

        cr_assert_eq(verify_segment(&source, &none, &s), 0);
        cr_expect_eq(memcmp(&s, &good.files[1].segment, sizeof(s)), 0, "%zu", pieces[i]);
    }
}

Test(set, says_when_it_cannot_read)
{
    struct memory memory = {good.t.text, 3000, 0, 100, true};
    struct verify_source source = {memory_read, &memory};
    struct verify_segment s;

    cr_expect_eq(verify_segment(&source, &none, &s), -1);
    cr_expect_gt(s.records, 0);
}

/* ---- the attacks of docs/audit.md */

Test(attack, any_byte_changed)
{
    /* By default a sample, another place in each line; all of them take minutes. */
    const size_t step = is_long() ? 1 : 67;
    static char text[TRAIL_BYTES];
    size_t changed = 0;

    for (size_t i = 0; i < SEGMENTS; i++) {
        const size_t len = good.t.starts[i + 1] - good.t.starts[i];

        memcpy(text, good.t.text + good.t.starts[i], len);
        for (size_t at = i % step; at < len; at += step) {
            struct verify_segment s;

            text[at] ^= (char)(1 << (at / step % 7));
            s = segment_of(text, len);
            cr_assert(wrong(&s), "byte %zu of file %zu", at, i);
            text[at] ^= (char)(1 << (at / step % 7));
            changed++;
        }
    }
    cr_log_info("%zu bytes changed", changed);
}

Test(attack, any_byte_of_some_lines_changed_to_any_value)
{
    static const char *const kinds[] = {"chain.open",   "lifecycle",      "\"auth\"",
                                        "\"seal\"",     "recovery",       "segment.close",
                                        "segment.open", "{\"v\":1,\"se\n"};

    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        const char *found = memmem(good.t.text, good.t.len, kinds[k], strlen(kinds[k]));
        const size_t i = file_at(&good.t, found);
        const char *start = good.t.text + good.t.starts[i];
        const size_t len = good.t.starts[i + 1] - good.t.starts[i];
        const char *begin = found;
        static char text[TRAIL_BYTES];
        size_t end;

        while (begin > start && begin[-1] != '\n') {
            begin--;
        }
        memcpy(text, start, len);
        end = (size_t)(begin - start) + line_len(&good.t, begin);
        for (size_t at = (size_t)(begin - start); at < end; at += is_long() ? 1 : 41) {
            const char was = text[at];

            for (int value = 0; value < 256; value++) {
                struct verify_segment s;

                if ((char)value == was) {
                    continue;
                }
                text[at] = (char)value;
                /* What follows can only hide it, not show it. */
                s = segment_of(text, end < len ? end + line_len(&good.t, start + end) : end);
                cr_assert(wrong(&s), "%s: byte %zu as %d", kinds[k], at, value);
            }
            text[at] = was;
        }
    }
}

Test(attack, any_record_deleted)
{
    const size_t count = line_count(&good.t);

    for (size_t n = 0; n < count; n++) {
        const char *line = line_at(&good.t, n);
        struct seen seen = with_edit(line, line_len(&good.t, line), "", 0);

        /* The last one of all is the exception. */
        cr_assert_eq(refused(&seen), n + 1 < count, "line %zu", n);
    }
}

Test(attack, any_two_neighbours_swapped)
{
    const size_t count = line_count(&good.t);

    for (size_t n = 0; n + 1 < count; n++) {
        const char *line = line_at(&good.t, n);
        const size_t len = line_len(&good.t, line);
        const char *next = line + len;
        const size_t next_len = line_len(&good.t, next);
        char text[9000];
        struct seen seen;

        if (file_at(&good.t, line) != file_at(&good.t, next)) {
            continue;
        }
        memcpy(text, next, next_len);
        memcpy(text + next_len, line, len);
        seen = with_edit(line, len + next_len, text, len + next_len);
        cr_assert(refused(&seen), "line %zu", n);
    }
}

Test(attack, any_record_twice)
{
    const size_t count = line_count(&good.t);

    for (size_t n = 0; n < count; n++) {
        const char *line = line_at(&good.t, n);
        struct seen seen = with_edit(line, 0, line, line_len(&good.t, line));

        cr_assert(refused(&seen), "line %zu", n);
    }
}

Test(attack, cut_within_any_record)
{
    const size_t count = line_count(&good.t);

    for (size_t n = 0; n < count; n++) {
        const char *line = line_at(&good.t, n);
        const size_t i = file_at(&good.t, line);
        const size_t before = (size_t)(line - good.t.text) - good.t.starts[i];
        const size_t len = line_len(&good.t, line);
        const size_t cuts[] = {1, len / 3, len / 2, len - 2, len - 1};

        for (size_t k = 0; k < 5; k++) {
            struct verify_segment s = segment_of(good.t.text + good.t.starts[i], before + cuts[k]);

            cr_assert(wrong(&s), "line %zu, %zu of %zu bytes", n, cuts[k], len);
        }
    }
}

/* At the end of a record nothing is wrong with what is left: only what was known before tells. */
Test(attack, cut_after_any_record_shows_by_the_next_file_the_head_or_the_age_of_the_seal)
{
    struct verify_options head = {.has_head = true};
    struct verify_options age = {.max_seal_age_s = 60};
    const size_t count = line_count(&good.t);

    head.head_seq = good.t.seq - 1;
    memcpy(head.head_hash, good.files[SEGMENTS - 1].segment.hash, VERIFY_HASH_BYTES);
    age.now_s = verify_seconds(good.files[SEGMENTS - 1].segment.sealed_ts) + 60;
    for (size_t n = 0; n < count; n++) {
        const char *line = line_at(&good.t, n);
        const size_t i = file_at(&good.t, line);
        const size_t len =
            (size_t)(line - good.t.text) + line_len(&good.t, line) - good.t.starts[i];
        struct verify_file last = file_of(good.t.text + good.t.starts[i], len, &head);
        struct verify_file files[SEGMENTS];
        struct seen alone;
        struct seen seen;

        if (memmem(line, line_len(&good.t, line), "\"event\"", 7) == NULL) {
            continue; /* torn bytes */
        }
        cr_assert_not(wrong(&last.segment), "line %zu", n);
        memcpy(files, good.files, sizeof(files));
        files[i] = last;
        alone = set_of(files, i + 1, &none);
        cr_assert_not(refused(&alone), "line %zu: the exception", n);
        seen = set_of(files, i + 1, &head);
        cr_assert_eq(refused(&seen), n + 1 < count, "line %zu: by the head", n);
        seen = set_of(files, i + 1, &age);
        cr_assert_eq(refused(&seen), alone.chain.sealed_seq < good.t.from - 1,
                     "line %zu: by the age of the seal", n);
        seen = with_file(i, good.t.text + good.t.starts[i], len, &none);
        cr_assert_eq(refused(&seen),
                     len < good.t.starts[i + 1] - good.t.starts[i] && i + 1 < SEGMENTS,
                     "line %zu: by the next file", n);
    }
}

/* Replaces the text of record 30's user in a copy, so that everything from there on is to be made
 * anew. */
static struct trail altered(void)
{
    struct trail t = good.t;
    char *user;

    t.text = malloc(TRAIL_BYTES);
    memcpy(t.text, good.t.text, good.t.len);
    user = memmem(line_at(&t, 30), 400, "alice\"", 6);
    cr_assert(user != NULL);
    memcpy(user, "mallo", 5);
    return t;
}

static void zero_values(struct trail *t, size_t from, const char *key, size_t len)
{
    char *at = t->text + from;

    while ((at = memmem(at, t->len - (size_t)(at - t->text), key, strlen(key))) != NULL) {
        at += strlen(key);
        memset(at, '0', len);
    }
}

/* What ties the records from `from` on to those before, to be made anew. */
static void unseal(struct trail *t, size_t from)
{
    zero_values(t, from, "\"prev_h\":\"", 64);
    zero_values(t, from, ",\"sig\":\"", 128);
}

/* With the keys of all epochs anything goes; with those from now on, nothing before. */
Test(attack, history_sealed_anew_with_the_key_of_today)
{
    struct trail t = altered();
    const size_t from = (size_t)(line_at(&t, 30) - t.text);
    struct mend mend = {.family = 0};
    struct seen seen;

    /* Hashes alone: the first seal after the change says so. */
    zero_values(&t, from, "\"prev_h\":\"", 64);
    mend_text(&mend, t.text, t.len);
    seen = trail_of(&t, &none);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "signature") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    cr_expect_leq(seen.seq[VERIFY_TAMPERED], 30 + SEAL_EVERY);

    /* Every signature made anew, by keys that are not those that were announced. */
    unseal(&t, from);
    mend = (struct mend){.family = 5};
    mend_text(&mend, t.text, t.len);
    seen = trail_of(&t, &none);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "signature") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);

    /* And announced, from the seal before the change on: that seal no longer fits. */
    zero_values(&t, 0, "\"next_pk\":\"", 64);
    zero_values(&t, 0, "\"pk\":\"", 64);
    memcpy(memmem(t.text, t.len, "\"pk\":\"", 6), memmem(good.t.text, good.t.len, "\"pk\":\"", 6),
           6 + 64);
    unseal(&t, from);
    mend = (struct mend){.family = 5};
    mend_text(&mend, t.text, t.len);
    seen = trail_of(&t, &none);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "signature") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    free(t.text);
}

Test(attack, one_seal_of_today_over_all_history)
{
    struct trail t;
    struct seen seen;

    trail_begin(&t);
    while (t.seq < 40) {
        trail_auth(&t);
    }
    t.epoch = 9;
    trail_seal(&t);
    trail_mend(&t, 0);
    seen = trail_of(&t, &none);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "epoch 9, and 0 is due") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    free(t.text);
}

/* The exceptions: what was not sealed yet, and what comes after the key was stolen. */
Test(attack, records_since_the_last_seal_are_not_held)
{
    struct trail t = altered();
    struct mend mend = {.family = 0};
    const char *last = line_at(&t, line_count(&t) - 1);
    struct seen seen;

    memcpy(t.text, good.t.text, good.t.len);
    memcpy(memmem(last, line_len(&t, last), "alice\"", 6), "mallo", 5);
    mend_text(&mend, t.text, t.len);
    seen = trail_of(&t, &none);
    cr_expect_not(refused(&seen));
    free(t.text);
}

Test(attack, a_whole_new_chain_shows_by_its_first_key)
{
    struct trail t = trail_build(99);
    struct verify_options options = key_of(0);
    struct seen seen = trail_of(&t, &none);

    cr_expect_not(refused(&seen), "the exception");
    seen = trail_of(&t, &options);
    cr_expect_eq(seen.levels[VERIFY_TAMPERED], 1);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "another key") != NULL);
    free(t.text);
}

Test(attack, a_file_left_out)
{
    for (size_t i = 0; i < SEGMENTS; i++) {
        struct verify_file files[SEGMENTS];
        struct verify_options options = key_of(0);
        struct seen seen;

        memcpy(files, good.files, sizeof(files));
        memmove(files + i, files + i + 1, (SEGMENTS - 1 - i) * sizeof(files[0]));
        seen = set_of(files, SEGMENTS - 1, &options);
        if (i == 0) {
            cr_expect_eq(seen.levels[VERIFY_UNDECIDED], 1, "it cannot be anchored");
        } else {
            cr_expect_eq(seen.levels[VERIFY_INCOMPLETE], i + 1 < SEGMENTS, "file %zu", i);
        }
        cr_expect_eq(seen.levels[VERIFY_TAMPERED], 0);
        cr_expect_eq(seen.chain.whole, i + 1 == SEGMENTS);
    }
}

Test(attack, a_file_of_another_history)
{
    struct trail t = altered();
    struct mend mend = {.family = 0};
    struct verify_file files[SEGMENTS + 1];
    struct seen seen;

    /* Everything made anew with all keys: good by itself, and no part of the other. */
    unseal(&t, 0);
    mend_text(&mend, t.text, t.len);
    memcpy(files, good.files, sizeof(good.files));
    files[2] = file_of(t.text + t.starts[2], t.starts[3] - t.starts[2], &none);
    cr_assert_not(wrong(&files[2].segment), "%s", files[2].segment.why);
    seen = set_of(files, SEGMENTS, &none);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "prev_h is not") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    memcpy(files, good.files, sizeof(good.files));
    files[SEGMENTS] = file_of(t.text + t.starts[2], t.starts[3] - t.starts[2], &none);
    seen = set_of(files, SEGMENTS + 1, &none);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "another history") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    free(t.text);
}

Test(attack, records_hidden_as_torn_bytes)
{
    const char *line = line_at(&good.t, 5);
    const char *torn = memmem(good.t.text, good.t.len, "{\"v\":1,\"se\n", 11);
    struct seen seen;

    seen = with_edit(line + 20, 1, "", 0);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "it is no record") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    seen = with_edit(line, 0, "stray\n", 6);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "does not account for it") != NULL);
    seen = with_edit(torn, 11, "", 0);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "there are none") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    seen = with_edit(torn, 1, "x", 1);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "does not account for it") != NULL);
    seen = with_edit(torn, 0, "x\n", 2);
    cr_expect(refused(&seen));
}

/* ---- rules, each broken in a trail whose hashes are right */

/* A trail of two files from `edit` on; what is wrong with it. */
#define OPEN "\"event\":\"chain.open\",\"mono\":1,\"boot_id\":\"b\",\"epoch\":0,\"pk\":\"" Z64 "\""
#define SEAL(epoch, from, n)                                                                       \
    "\"event\":\"seal\",\"mono\":1,\"epoch\":" epoch ",\"from\":" from ",\"n\":" n                 \
    ",\"next_pk\":\"" Z64 "\",\"sig\":\"" Z128 "\""
#define SEGMENT(prev, epoch)                                                                       \
    "\"event\":\"segment.open\",\"mono\":1,\"prev_seq\":" prev ",\"prev_h\":\"" Z64                \
    "\",\"epoch\":" epoch ",\"pk\":\"" Z64 "\""
#define AUTH  "\"event\":\"auth\",\"outcome\":\"granted\""
#define CLOSE "\"event\":\"segment.close\",\"mono\":1"

enum { LINES_MAX = 6 };

#define Z63 "000000000000000000000000000000000000000000000000000000000000000"

static const struct rule {
    const char *why; /* NULL: nothing is wrong; else a part of what is said */
    uint64_t first;  /* seq */
    const char *lines[LINES_MAX];
    enum verify_kind kind; /* with VERIFY_KINDS: no such mark is wanted */
} rules[] = {
    {NULL, 0, {OPEN, AUTH, SEAL("0", "0", "2"), AUTH, SEAL("1", "3", "1")}, VERIFY_KINDS},
    {NULL, 0, {OPEN, SEAL("0", "0", "1"), CLOSE}, VERIFY_KINDS},
    {NULL, 9, {SEGMENT("8", "4"), SEAL("4", "8", "2"), AUTH}, VERIFY_KINDS},
    {NULL, 9, {SEGMENT("8", "4"), SEAL("4", "1", "9"), AUTH}, VERIFY_KINDS},
    {NULL,
     0,
     {OPEN, "\"event\":\"later\",\"list\":[\"a\",\"b\"],\"x\":-1.5,\"y\":\"\""},
     VERIFY_KINDS},
    {"does not begin with", 0, {AUTH}, VERIFY_KINDS},
    {"does not begin with", 4, {SEAL("0", "0", "4")}, VERIFY_KINDS},
    {"not record 0", 1, {OPEN}, VERIFY_KINDS},
    {"not record 0",
     0,
     {"\"event\":\"chain.open\",\"mono\":1,\"boot_id\":\"b\",\"epoch\":1,\"pk\":\"" Z64 "\""},
     VERIFY_KINDS},
    {"lacks a field", 0, {"\"event\":\"chain.open\",\"mono\":1,\"epoch\":0"}, VERIFY_KINDS},
    {"lacks a field",
     0,
     {"\"event\":\"chain.open\",\"epoch\":00,\"pk\":\"" Z64 "\""},
     VERIFY_KINDS},
    {"lacks a field",
     3,
     {"\"event\":\"segment.open\",\"prev_seq\":2,\"epoch\":0,\"pk\":\"" Z64 "\""},
     VERIFY_KINDS},
    {"prev_seq is not", 3, {SEGMENT("3", "0")}, VERIFY_KINDS},
    {"prev_seq is not", 0, {SEGMENT("0", "0")}, VERIFY_KINDS},
    {"stands within it", 0, {OPEN, OPEN}, VERIFY_KINDS},
    {"stands within it", 0, {OPEN, SEGMENT("0", "0")}, VERIFY_KINDS},
    {"does not follow a seal", 0, {OPEN, CLOSE}, VERIFY_KINDS},
    {"after segment.close", 0, {OPEN, SEAL("0", "0", "1"), CLOSE, AUTH}, VERIFY_KINDS},
    {"do not fit together", 0, {OPEN, SEAL("0", "0", "2")}, VERIFY_KINDS},
    {"do not fit together", 0, {OPEN, SEAL("0", "1", "0")}, VERIFY_KINDS},
    {"do not fit together", 0, {OPEN, SEAL("0", "7", "0")}, VERIFY_KINDS},
    {"not from where the one before ended", 0, {OPEN, AUTH, SEAL("0", "1", "1")}, VERIFY_KINDS},
    {"not from where the one before ended",
     0,
     {OPEN, SEAL("0", "0", "1"), SEAL("1", "0", "2")},
     VERIFY_KINDS},
    {"not from where the one before ended",
     9,
     {SEGMENT("8", "4"), AUTH, SEAL("4", "10", "1")},
     VERIFY_KINDS},
    {"and 0 is due", 0, {OPEN, SEAL("1", "0", "1")}, VERIFY_KINDS},
    {"and 1 is due", 0, {OPEN, SEAL("0", "0", "1"), AUTH, SEAL("0", "2", "1")}, VERIFY_KINDS},
    {"lacks a field",
     0,
     {OPEN, "\"event\":\"seal\",\"epoch\":0,\"from\":0,\"n\":1,\"next_pk\":\"" Z64 "\""},
     VERIFY_KINDS},
    {"lacks a field", 0, {OPEN, SEAL("18446744073709551615", "0", "1")}, VERIFY_KINDS},
    {"lacks a field", 0, {OPEN, SEAL("18446744073709551616", "0", "1")}, VERIFY_KINDS},
    {"signature is not", 0, {OPEN, SEAL("0", "0", "1") ",\"more\":1"}, VERIFY_KINDS},
    {"signature is not",
     0,
     {OPEN,
      "\"event\":\"seal\",\"epoch\":0,\"from\":0,\"n\":1,\"next_pk\":\"" Z64 "\",\"sig\":\"00\""},
     VERIFY_KINDS},
    {"kind that is not known",
     0,
     {OPEN, "\"event\":\"recovery\",\"result\":\"other\""},
     VERIFY_KINDS},
    {"kind that is not known", 0, {OPEN, "\"event\":\"recovery\""}, VERIFY_KINDS},
    {"the daemon itself found",
     0,
     {OPEN,
      "\"event\":\"recovery\",\"result\":\"chain_broken\",\"prev_seq\":0,\"prev_h\":\"" Z64 "\""},
     VERIFY_KINDS},
    {"here the daemon itself",
     0,
     {OPEN, "!x\n",
      "\"event\":\"recovery\",\"result\":\"chain_broken\",\"prev_seq\":0,\"prev_h\":\"" Z64
      "\",\"torn_bytes\":1,\"torn_sha256\":\"" Z64 "\""},
     VERIFY_TORN},
    {"there are none",
     0,
     {OPEN,
      "\"event\":\"recovery\",\"result\":\"torn\",\"torn_bytes\":3,\"torn_sha256\":\"" Z64 "\""},
     VERIFY_KINDS},
    {"does not account for it", 0, {OPEN, "\"event\":\"auth", AUTH}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"other\":\"auth\""}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\",\"n\":1,\"n\":1"}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\",\"n\":\"1\""}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\",\"n\""}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\",\"y\":{}"}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\",\"y\":[1]"}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\",\"y\":[\"1\""}, VERIFY_KINDS},
    {"no record after it accounts", 0, {OPEN, "\"event\":\"x\" "}, VERIFY_KINDS},
    {NULL,
     0,
     {OPEN, "\"event\":\"lifecycle\",\"action\":\"start\",\"clean\":false",
      "\"event\":\"lifecycle\",\"action\":\"stop\"",
      "\"event\":\"lifecycle\",\"action\":\"start\",\"clean\":true"},
     VERIFY_KINDS},
    {NULL,
     0,
     {OPEN, "\"event\":\"lifecycle\",\"action\":\"start\",\"clean\":true",
      "\"event\":\"lifecycle\",\"action\":\"start\",\"clean\":true"},
     VERIFY_UNCLEAN},
    {NULL,
     4,
     {SEGMENT("3", "1"), "\"event\":\"lifecycle\",\"action\":\"start\",\"clean\":false"},
     VERIFY_UNCLEAN},
};

/* Lines as a trail; "@N" before the fields sets the next seq. */
static struct trail lines_build(const char *const *lines, size_t count, uint64_t first)
{
    struct trail t;

    trail_begin(&t);
    t.len = 0;
    t.seq = first;
    for (size_t i = 0; i < count && lines[i] != NULL; i++) {
        const char *line = lines[i];

        if (line[0] == '@') {
            t.seq = strtoull(line + 1, (char **)&line, 10);
        } else if (line[0] == '<') { /* back in time, in seconds */
            t.time_s -= strtoull(line + 1, (char **)&line, 10);
        } else if (line[0] == '>') {
            t.time_s += strtoull(line + 1, (char **)&line, 10);
        }
        if (line[0] == '!') {
            trail_bytes(&t, line + 1);
        } else {
            trail_put(&t, "%s", line);
        }
    }
    trail_mend(&t, 0);
    return t;
}

Test(rule, is_told_when_it_is_broken)
{
    cr_assert(secret_init() == 0);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *rule = &rules[i];
        struct trail t = lines_build(rule->lines, LINES_MAX, rule->first);
        struct verify_segment s = segment_of(t.text, t.len);

        if (rule->why == NULL) {
            cr_expect_str_eq(s.why, "", "rule %zu", i);
        } else {
            cr_expect(strstr(s.why, rule->why) != NULL, "rule %zu: not \"%s\" but \"%s\"", i,
                      rule->why, s.why);
        }
        for (unsigned k = 0; k < VERIFY_KINDS; k++) {
            cr_expect_eq(s.marks[k].count, k == rule->kind, "rule %zu: mark %u", i, k);
        }
        free(t.text);
    }
}

/* Half a line, and on it a record that somebody else wrote: no crash leaves that. */
Test(rule, a_record_is_not_torn_bytes)
{
    static const char *const lines[LINES_MAX] = {OPEN, AUTH};
    struct trail t = lines_build(lines, LINES_MAX, 0);
    struct mend mend = {.family = 0};
    char stray[2048] = "{\"v\":1,\"seq\":1,";
    unsigned char hash[32];
    char digits[65];
    const char *record = line_at(&t, 1);
    const size_t len = strlen(stray) + line_len(&t, record);
    struct verify_segment s;

    cr_assert(secret_init() == 0 && len < sizeof(stray));
    memcpy(stray + strlen(stray), record, line_len(&t, record));
    (void)crypto_hash_sha256(hash, (const unsigned char *)stray, len - 1);
    secret_hex(digits, hash, sizeof(hash));
    t.len = (size_t)(record - t.text);
    t.seq = 1;
    trail_put(&t,
              "\"event\":\"recovery\",\"result\":\"torn\",\"torn_bytes\":%zu,"
              "\"torn_sha256\":\"%s\"",
              len - 1, digits);
    mend_text(&mend, t.text, t.len);
    memmove((char *)record + len, record, t.len - (size_t)(record - t.text));
    memcpy((char *)record, stray, len);
    t.len += len;
    s = segment_of(t.text, t.len);
    cr_expect(strstr(s.why, "it ends like a record") != NULL, "%s", s.why);
    cr_expect_eq(s.why_line, 2);
    free(t.text);
}

/* A record that fits stands in the place of the one after it; then the daemon says that it noticed,
 * if `true_hash`. */
static struct trail noticed_build(bool true_hash)
{
    static const char *const lines[LINES_MAX] = {
        OPEN,
        AUTH,
        SEAL("0", "0", "2"),
        AUTH,
        AUTH,
        "\"event\":\"recovery\",\"result\":\"chain_broken\",\"prev_seq\":4,\"prev_h\":\"" Z64 "\""};
    struct trail t = lines_build(lines, LINES_MAX, 0);
    char *forged = line_at(&t, 3);
    const size_t len = line_len(&t, forged);
    const char *last = line_at(&t, 5);
    const size_t at = (size_t)(forged + len - t.text);
    struct mend mend = {.family = 0};

    if (true_hash) {
        memcpy(mend_find(line_at(&t, 5), line_len(&t, last), "\"prev_h\":\""), last - 67, 64);
        mend_text(&mend, t.text, t.len);
    }
    memmove(forged + len, forged, t.len - at + len);
    t.len += len;
    return t;
}

Test(rule, says_what_is_left_of_a_file_with_a_bad_record)
{
    struct verify_options head = {.has_head = true, .head_seq = 3};
    struct trail t = noticed_build(true);
    struct verify_file file = file_of(t.text, t.len, &none);
    struct seen seen = set_of(&file, 1, &none);
    const unsigned notes = seen.levels[VERIFY_NOTE];

    cr_assert(secret_init() == 0);
    cr_expect(strstr(seen.text[VERIFY_TAMPERED], "it stands after record 3") != NULL, "%s",
              seen.text[VERIFY_TAMPERED]);
    cr_expect_eq(file.segment.why_line, 5);
    cr_expect_eq(file.segment.noticed_line, 7);
    cr_expect_eq(file.segment.noticed_seq, 5);
    cr_expect(seen.chain.broken && seen.chain.last_seq == 3);
    cr_expect(strstr(seen.text[VERIFY_UNDECIDED], "nothing in it after record 2, ") != NULL, "%s",
              seen.text[VERIFY_UNDECIDED]);

    memcpy(head.head_hash, file.segment.hash, VERIFY_HASH_BYTES);
    file = file_of(t.text, t.len, &head);
    seen = set_of(&file, 1, &head);
    cr_expect(strstr(seen.text[VERIFY_UNDECIDED], "nothing in it after record 3, ") != NULL, "%s",
              seen.text[VERIFY_UNDECIDED]);
    free(t.text);

    t = noticed_build(false);
    file = file_of(t.text, t.len, &none);
    seen = set_of(&file, 1, &none);
    cr_expect_eq(file.segment.noticed_line, 0, "anybody may have written that one");
    cr_expect_eq(seen.levels[VERIFY_NOTE], notes - 1);
    free(t.text);
}

/* Behind a gap a file brings a key of its own: its seals prove nothing. */
Test(attack, a_bad_file_behind_a_gap_is_not_called_proven)
{
    struct trail forged = trail_build(7);
    struct verify_file files[2];
    struct seen seen;
    size_t len;

    files[0] = good.files[0];
    len = forged.starts[4] - forged.starts[3];
    forged.text[forged.starts[4] - 200] ^= 1;
    files[1] = file_of(forged.text + forged.starts[3], len, &none);
    cr_assert(files[1].segment.why[0] != '\0' && files[1].segment.seals > 0);
    seen = set_of(files, 2, &none);
    cr_expect_eq(seen.levels[VERIFY_TAMPERED], 1);
    cr_expect(strstr(seen.text[VERIFY_UNDECIDED], "nothing in it is proven") != NULL, "%s",
              seen.text[VERIFY_UNDECIDED]);
    cr_expect_eq(seen.chain.sealed_seq, good.files[0].segment.sealed_seq);
    free(forged.text);
}

Test(attack, forged_records_that_fit_are_not_called_good)
{
    struct trail t = altered();
    char *from = line_at(&t, line_count(&t) - 3);
    char *last = line_at(&t, line_count(&t) - 1);
    struct mend mend = {.family = 0};
    struct seen seen;
    char words[64];

    memcpy(t.text, good.t.text, good.t.len);
    (void)sodium_hex2bin(mend.prev, 32, from - 67, 64, NULL, NULL, NULL);
    memcpy(memmem(from, line_len(&t, from), "alice\"", 6), "mallo", 5);
    mend_text(&mend, from, (size_t)(last - from)); /* the last one stays */
    seen = trail_of(&t, &none);
    cr_expect_eq(seen.seq[VERIFY_TAMPERED], good.t.seq - 1);
    cr_expect(seen.chain.broken);
    (void)snprintf(words, sizeof(words), "after record %llu, ",
                   (unsigned long long)good.t.from - 1);
    cr_expect(strstr(seen.text[VERIFY_UNDECIDED], words) != NULL, "%s not in %s", words,
              seen.text[VERIFY_UNDECIDED]);
    free(t.text);
}

/* Two files that are good by themselves and follow each other, but not with these seals. */
Test(rule, joins_files_by_their_seals_too)
{
    static const char *const rows[][5] = {
        {SEGMENT("3", "1"), SEAL("1", "3", "2"), NULL, NULL},
        {SEGMENT("3", "1"), AUTH, AUTH, NULL},
        {SEGMENT("3", "3"), SEAL("3", "3", "2"), NULL, "announces another key"},
        {"\"event\":\"segment.open\",\"mono\":1,\"prev_seq\":3,\"prev_h\":\"" Z64
         "\",\"epoch\":1,\"pk\":\"1" Z63 "\"",
         AUTH, NULL, "announces another key"},
        {SEGMENT("3", "1"), SEAL("1", "2", "3"), NULL, "from 2 on, and not from 3"},
        {SEGMENT("3", "1"), SEAL("1", "4", "1"), NULL, NULL, "the records 3 to 3"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const lines[] = {OPEN,       AUTH,       SEAL("0", "0", "2"), CLOSE,
                                     rows[i][0], rows[i][1], rows[i][2]};
        struct trail t = lines_build(lines, 7, 0);
        const size_t first = (size_t)(line_at(&t, 4) - t.text);
        struct verify_file files[] = {file_of(t.text, first, &none),
                                      file_of(t.text + first, t.len - first, &none)};
        struct seen seen;

        cr_assert(!wrong(&files[0].segment) && !wrong(&files[1].segment), "%s",
                  files[1].segment.why);
        seen = set_of(files, 2, &none);
        for (size_t k = 3; k < 5; k++) {
            const enum verify_level level = k == 3 ? VERIFY_TAMPERED : VERIFY_INCOMPLETE;

            cr_expect_eq(seen.levels[level], rows[i][k] != NULL ? 1 : 0, "row %zu", i);
            cr_expect(rows[i][k] == NULL || strstr(seen.text[level], rows[i][k]) != NULL,
                      "row %zu: %s", i, seen.text[level]);
        }
        free(t.text);
    }
}

/* On a full disk the daemon may turn to the next file without having finished its last line. */
Test(rule, an_unfinished_line_is_none_that_is_missing_where_the_next_file_goes_on_before_it)
{
    static const char *const rows[][2] = {
        {SEGMENT("2", "1"), AUTH}, {CLOSE, SEGMENT("3", "1")}, {AUTH, SEGMENT("3", "1")}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const lines[] = {OPEN, AUTH, SEAL("0", "0", "2"), rows[i][0], rows[i][1]};
        struct trail t = lines_build(lines, 5, 0);
        const size_t first = (size_t)(line_at(&t, i == 0 ? 3 : 4) - t.text);
        char cut[4096];
        struct verify_file files[2];
        struct verify_file twice[3];
        struct seen seen;

        /* In the last row a whole record is cut, too. */
        const size_t len = i < 2 ? first : (size_t)(line_at(&t, 3) - t.text);

        memcpy(cut, t.text, len);
        memcpy(cut + len, "{\"v\":1,\"seq\":", 13);
        files[0] = file_of(cut, len + 13, &none);
        files[1] = file_of(t.text + first, t.len - first, &none);
        seen = set_of(files, 2, &none);
        cr_expect_eq(refused(&seen), i > 0, "row %zu", i);
        twice[0] = twice[1] = files[0];
        twice[2] = files[1];
        seen = set_of(twice, 3, &none);
        cr_expect_eq(refused(&seen), i > 0, "row %zu, with a copy", i);
        memcpy(files[1].segment.chain, "ffffffffffffffff", 16);
        seen = set_of(files, 2, &none);
        cr_expect(refused(&seen), "row %zu, with a file of another chain", i);
        free(t.text);
    }
}

/* ---- what the daemon itself found missing */

#define LOST(from)                                                                                 \
    "\"event\":\"recovery\",\"result\":\"records_missing\",\"lost_from\":" from                    \
    ",\"lost_h\":\"" Z64 "\""

Test(lost, records_are_told_and_the_chain_goes_on)
{
    static const char *const lines[] = {OPEN, AUTH, "@10" LOST("9"), AUTH, SEAL("0", "0", "12")};
    struct trail t = lines_build(lines, 5, 0);
    struct verify_options head = {.has_head = true, .head_seq = 5};
    struct verify_file file = file_of(t.text, t.len, &head);
    struct seen seen = set_of(&file, 1, &head);

    cr_expect_str_eq(file.segment.why, "");
    cr_expect_eq(file.segment.marks[VERIFY_LOST].count, 8);
    cr_expect_eq(file.segment.marks[VERIFY_UNPROVEN].count, 0);
    cr_expect_eq(seen.levels[VERIFY_INCOMPLETE], 2, "the gap and the head within it");
    cr_expect_eq(seen.levels[VERIFY_TAMPERED], 0);
    free(t.text);
}

/* A file that was cut in the middle of a line. */
Test(lost, records_behind_a_torn_line_are_told_too)
{
    static const char *const lines[] = {OPEN,
                                        AUTH,
                                        "!{\"v\":1,\"se\n",
                                        "@10" LOST("9") ",\"torn_bytes\":10,\"torn_sha256\":\"" Z64
                                                        "\"",
                                        AUTH,
                                        SEAL("0", "0", "12")};
    struct trail t = lines_build(lines, 6, 0);
    struct verify_segment s = segment_of(t.text, t.len);

    cr_expect_str_eq(s.why, "");
    cr_expect_eq(s.marks[VERIFY_LOST].count, 8);
    cr_expect_eq(s.marks[VERIFY_TORN].count, 1);
    cr_expect_eq(s.seals, 1);
    free(t.text);
}

Test(lost, seals_leave_the_next_ones_unproven)
{
    static const char *const lines[] = {OPEN, "@10" LOST("9"),      SEAL("2", "7", "4"),
                                        AUTH, SEAL("3", "12", "1"), SEAL("4", "14", "0")};
    struct trail t = lines_build(lines, 5, 0);
    struct verify_segment s = segment_of(t.text, t.len);

    cr_expect_str_eq(s.why, "");
    cr_expect_eq(s.marks[VERIFY_UNPROVEN].count, 2);
    cr_expect_eq(s.marks[VERIFY_UNSEALED].count, 7);
    cr_expect_eq(s.seals, 0);
    free(t.text);
    t = lines_build(lines, 6, 0);
    s = segment_of(t.text, t.len);
    cr_expect(strstr(s.why, "figures") != NULL, "a bad one after them is still told: %s", s.why);
    free(t.text);
}

Test(lost, nothing_else_passes_for_it)
{
    static const char *const rows[][3] = {{OPEN, AUTH, "@10" LOST("8")},
                                          {OPEN, AUTH, "@2" LOST("1")},
                                          {OPEN, AUTH, "@2" LOST("0")},
                                          {OPEN, AUTH,
                                           "@10\"event\":\"recovery\",\"result\":"
                                           "\"records_missing\",\"lost_from\":9"},
                                          {OPEN, AUTH, "@10" AUTH}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct trail t = lines_build(rows[i], 3, 0);
        struct verify_segment s = segment_of(t.text, t.len);

        cr_expect_str_neq(s.why, "", "row %zu", i);
        free(t.text);
    }
}

/* ---- clocks, heads and ages */

Test(clock, is_told_when_it_goes_back_and_not_when_a_request_waited)
{
    static const char stop[] = ">10\"event\":\"lifecycle\",\"action\":\"stop\"";
    static const char stop_2_s_before[] = "<3\"event\":\"lifecycle\",\"action\":\"stop\"";
    static const char stop_3_s_before[] = "<4\"event\":\"lifecycle\",\"action\":\"stop\"";
    static const char *const rows[][4] = {{OPEN, ">500" AUTH, "<61" AUTH, AUTH},
                                          {OPEN, ">500" AUTH, "<62" AUTH, AUTH},
                                          {OPEN, stop, stop_2_s_before, AUTH},
                                          {OPEN, stop, stop_3_s_before, AUTH},
                                          {OPEN, stop, "<4" AUTH, AUTH}};
    static const uint64_t counts[] = {0, 1, 0, 1, 0};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct trail t = lines_build(rows[i], 4, 0);
        struct verify_segment s = segment_of(t.text, t.len);

        cr_expect_eq(s.marks[VERIFY_BACKWARD].count, counts[i], "row %zu", i);
        cr_expect_str_eq(s.why, "");
        free(t.text);
    }
}

Test(seconds, are_those_of_the_c_library)
{
    static const struct {
        const char *ts;
        uint64_t s;
    } rows[] = {{"1970-01-01T00:00:00.000000Z", 0},
                {"0000-01-01T00:00:00.000000Z", 0},
                {"1999-12-31T23:59:59.999999Z", 946684799},
                {"2000-02-29T00:00:00.000000Z", 951782400},
                {"2000-03-01T00:00:00.000000Z", 951868800},
                {"2026-01-31T12:34:56.000000Z", 1769862896},
                {"2100-03-01T00:00:00.000000Z", 4107542400},
                {"9999-12-31T23:59:59.000000Z", UINT64_C(253402300799)}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect_eq(verify_seconds(rows[i].ts), rows[i].s, "%s", rows[i].ts);
    }
}

Test(set, head_with_another_hash_is_tampering)
{
    struct verify_options head = {.has_head = true, .head_seq = 77};
    struct seen seen = trail_of(&good.t, &head);

    cr_expect_eq(seen.levels[VERIFY_TAMPERED], 1);
    head.head_seq = 5000;
    seen = trail_of(&good.t, &head);
    cr_expect_eq(seen.levels[VERIFY_INCOMPLETE], 1);
}

Test(set, head_before_the_files_cannot_be_decided)
{
    struct verify_options head = {.has_head = true, .head_seq = 3};
    struct verify_file file = good.files[4];
    struct seen seen = set_of(&file, 1, &head);

    cr_expect_eq(seen.levels[VERIFY_UNDECIDED], 1);
    cr_expect_not(refused(&seen));
}

Test(set, without_a_seal_is_too_old_for_any_age)
{
    static const char *const lines[] = {OPEN, AUTH};
    struct trail t = lines_build(lines, 2, 0);
    struct verify_options age = {.max_seal_age_s = 60};
    struct verify_file file = file_of(t.text, t.len, &age);
    struct seen seen = set_of(&file, 1, &age);

    cr_expect_eq(seen.levels[VERIFY_INCOMPLETE], 1);
    cr_expect_eq(seen.chain.unsealed, 2);
    free(t.text);
}

Test(options, take_only_their_form)
{
    struct verify_options options = {.key_count = 0};
    char key[] = Z64;

    cr_assert(secret_init() == 0);
    key[0] = 'A';
    cr_expect_eq(verify_options_key(&options, key), -1, "upper case");
    key[0] = '0';
    cr_expect_eq(verify_options_key(&options, key + 1), -1, "too short");
    for (unsigned i = 0; i < VERIFY_KEYS_MAX; i++) {
        cr_expect_eq(verify_options_key(&options, key), 0);
    }
    cr_expect_eq(verify_options_key(&options, key), -1, "too many");
    cr_expect_eq(verify_options_head(&options, "1"), -1);
    cr_expect_eq(verify_options_head(&options, "x:" Z64), -1);
    cr_expect_eq(verify_options_head(&options, ":" Z64), -1);
    cr_expect_eq(verify_options_head(&options, "1:" Z64 "0"), -1);
    cr_expect_eq(verify_options_head(&options, "1:" Z64), 0);
    cr_expect_eq(verify_options_head(&options, "1:" Z64), -1, "twice");
}

/* ---- bytes that are no trail at all */

Test(stray, is_bounded)
{
    char *text = malloc(1 << 20);
    struct verify_segment s;

    cr_assert(text != NULL && secret_init() == 0);
    memset(text, 'a', 1 << 20);
    s = segment_of(text, 1 << 20);
    cr_expect(strstr(s.why, "does not end") != NULL, "%s", s.why);
    for (size_t i = 99; i < 1 << 20; i += 100) {
        text[i] = '\n';
    }
    s = segment_of(text, 1 << 20);
    cr_expect(strstr(s.why, "nor is what follows") != NULL, "%s", s.why);
    cr_expect_eq(s.why_line, 1);
    s = segment_of(text, 1000);
    cr_expect(strstr(s.why, "no record after it") != NULL, "%s", s.why);
    s = segment_of(text, 50);
    cr_expect_eq(s.marks[VERIFY_CUT].count, 50);
    s = segment_of(text, 0);
    cr_expect(!wrong(&s) && s.records == 0);
    free(text);
}

Test(stray, of_64_kib_can_be_accounted_for)
{
    struct trail t;
    struct verify_segment s;

    for (unsigned more = 0; more < 2; more++) {
        trail_begin(&t);
        for (unsigned i = 0; i < 65536 + more; i++) {
            trail_bytes(&t, i % 4000 == 3999 ? "\n" : "a");
        }
        trail_bytes(&t, "\n");
        trail_put(&t,
                  "\"event\":\"recovery\",\"result\":\"torn\",\"torn_bytes\":%u,"
                  "\"torn_sha256\":\"" Z64 "\"",
                  65536 + more);
        trail_mend(&t, 0);
        s = segment_of(t.text, t.len);
        cr_expect_eq(s.why[0] == '\0', more == 0, "%s", s.why);
        free(t.text);
    }
}
