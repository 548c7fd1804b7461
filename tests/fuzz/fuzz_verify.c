/*
 * Any bytes as one or several files of a trail (a byte 0x1e ends one), as they are and with their
 * hashes, keys and signatures put right: read in pieces they say the same as at once, what is good
 * does not stay good when a byte of it changes, and joined they tell no more than each file can
 * have.
 */
#include "../unit/trail_mend.h"
#include "require.h"
#include "trail/verify.h"

#include <stdio.h>

enum { FILES_MAX = 4, FINDINGS_MAX = 16, SEPARATOR = 0x1e };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory {
    const char *text;
    size_t len;
    size_t at;
    size_t piece;
};

static ssize_t memory_read(void *from, void *out, size_t len)
{
    struct memory *m = from;
    size_t n = m->len - m->at;

    n = n < len ? n : len;
    n = m->piece < n ? m->piece : n;
    if (m->piece == 0) {
        return -1;
    }
    memcpy(out, m->text + m->at, n);
    m->at += n;
    return (ssize_t)n;
}

static int read_in(const char *text, size_t len, size_t piece, const struct verify_options *options,
                   struct verify_segment *out)
{
    struct memory memory = {text, len, 0, piece};
    const struct verify_source source = {memory_read, &memory};

    return verify_segment(&source, options, out);
}

static bool wrong(const struct verify_segment *s)
{
    return s->why[0] != '\0' || s->marks[VERIFY_CUT].count != 0;
}

static void check_file(char *text, size_t len, const struct verify_options *options,
                       struct verify_file *out)
{
    struct verify_segment again;

    *out = (struct verify_file){.path = "file"};
    require(read_in(text, len, SIZE_MAX, options, &out->segment) == 0);
    require(read_in(text, len, 1 + len % 61, options, &again) == 0);
    require(memcmp(&out->segment, &again, sizeof again) == 0);
    require(read_in(text, len, 0, options, &again) == -1);
    require(memchr(out->segment.why, '\0', sizeof out->segment.why) != NULL);
    if (!wrong(&out->segment) && len > 0) {
        const size_t at = (len * 7919) % len + (len * 31) % (len - (len * 7919) % len);

        text[at] ^= 1;
        require(read_in(text, len, SIZE_MAX, options, &again) == 0);
        require(wrong(&again));
        text[at] ^= 1;
    }
}

static void on_finding(void *to, const struct verify_finding *finding)
{
    unsigned *findings = to;

    require(finding->text[0] != '\0' && finding->level <= VERIFY_TAMPERED);
    require(++*findings <= FINDINGS_MAX * FILES_MAX);
}

static void on_chain(void *to, const struct verify_chain *chain)
{
    (void)to;
    require(chain->files > 0 && chain->records > 0 && chain->last_seq >= chain->first_seq);
    require(chain->unsealed <= chain->last_seq - chain->first_seq + 1);
    require(strlen(chain->id) == 16 && strlen(chain->last_ts) == VERIFY_TS_BYTES - 1);
}

static void check_files(char *text, size_t size, bool mended)
{
    static const struct verify_options given = {.key_count = 1,
                                                .has_head = true,
                                                .head_seq = 5,
                                                .max_seal_age_s = 60,
                                                .now_s = UINT64_C(1769904000)};
    const struct verify_options options = size % 2 == 0 ? (struct verify_options){0} : given;
    struct verify_file files[FILES_MAX];
    struct mend mend = {.family = 0};
    unsigned findings = 0;
    const struct verify_listener listener = {on_finding, on_chain, &findings};
    size_t count = 0;
    size_t at = 0;

    while (count < FILES_MAX && at < size) {
        const char *end = memchr(text + at, SEPARATOR, size - at);
        const size_t len = end == NULL ? size - at : (size_t)(end - text) - at;

        if (mended) {
            mend_text(&mend, text + at, len);
        }
        check_file(text + at, len, &options, &files[count++]);
        at += len + 1;
    }
    verify_set(files, count, &options, &listener);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    require(text != NULL && sodium_init() >= 0);
    memcpy(text, data, size);
    check_files(text, size, false);
    check_files(text, size, true);
    free(text);
    return 0;
}
