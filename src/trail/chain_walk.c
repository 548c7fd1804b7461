#include "trail/chain.h"

#include <errno.h>
#include <string.h>

/* A line within a window of the file. */
struct piece {
    const char *line;
    size_t len; /* with its LF */
};

/*
 * Whether the complete line `at` is the next record of the walk, given the stray bytes between the
 * record before and it.
 */
static bool is_next(const struct chain_walk *walk, struct piece at, struct span stray,
                    struct chain_line *parsed)
{
    uint64_t accounted = 0;

    if (chain_line_parse(at.line, at.len, parsed) != 0 || parsed->seq != walk->next_seq ||
        strcmp(parsed->chain, walk->chain) != 0 ||
        !chain_line_follows(at.line, parsed, walk->hash) ||
        chain_line_stray(at.line, parsed, &accounted) != 0 || accounted != stray.len) {
        return false;
    }
    stray.len -= stray.len > 0 ? 1 : 0; /* its LF */
    return accounted == 0 ||
           (!chain_hides_record(stray) && chain_line_torn_fits(at.line, parsed, stray));
}

/* Whether the walk may pass this line; a seal of our own is taken note of. */
static bool may_pass(struct chain_walk *walk, const struct chain_line *parsed)
{
    if (parsed->mark == CHAIN_RECORD) {
        return true;
    }
    if (!walk->has_own || memcmp(parsed->hash, walk->own, CHAIN_HASH_BYTES) != 0) {
        return false;
    }
    walk->own_seen = true;
    return true;
}

/* Walks along one window, which begins where the walk stands. */
static enum chain_state window_walk(struct chain_walk *walk, const char *window, size_t len)
{
    const uint64_t base = walk->offset;
    size_t from = 0; /* where bytes that are no record begin */
    size_t at = 0;

    while (at < len) {
        const char *lf = memchr(window + at, '\n', len - at);
        struct piece line = {window + at, lf == NULL ? 0 : (size_t)(lf + 1 - (window + at))};
        struct chain_line parsed;

        if (lf == NULL) {
            break;
        }
        at += line.len;
        if (!is_next(walk, line, span_make(window + from, at - line.len - from), &parsed)) {
            continue; /* torn bytes may have an LF among them */
        }
        if (!may_pass(walk, &parsed)) {
            return CHAIN_MISFIT;
        }
        from = at;
        walk->offset = base + at;
        walk->next_seq++;
        memcpy(walk->hash, parsed.hash, CHAIN_HASH_BYTES);
    }
    return CHAIN_OK;
}

enum chain_state chain_walk(int fd, uint64_t end, uint64_t most,
                            unsigned char scratch[CHAIN_SCRATCH_BYTES], struct chain_walk *walk)
{
    const uint64_t begin = walk->offset;

    while (walk->offset < end && walk->offset - begin < most) {
        const uint64_t before = walk->offset;
        size_t len = end - before < CHAIN_SCRATCH_BYTES ? (size_t)(end - before)
                                                        : (size_t)CHAIN_SCRATCH_BYTES;

        if (chain_read_at(fd, scratch, len, before) != 0) {
            return CHAIN_UNREADABLE;
        }
        if (window_walk(walk, (const char *)scratch, len) != CHAIN_OK) {
            return CHAIN_MISFIT;
        }
        if (walk->offset == before) {
            return len == CHAIN_SCRATCH_BYTES ? CHAIN_MISFIT : CHAIN_OK;
        }
    }
    return walk->offset > end ? CHAIN_MISFIT : CHAIN_OK;
}

/* Takes note of a line on the way back; true when there is no need to go on. */
static bool anchor_look(struct chain_anchor *anchor, bool *last, const struct chain_line *parsed,
                        uint64_t end)
{
    if (*last) {
        anchor->closed = parsed->mark == CHAIN_SEGMENT_CLOSE;
        *last = false;
    }
    if (parsed->mark == CHAIN_RECORD || parsed->mark == CHAIN_SEGMENT_CLOSE) {
        return false;
    }
    if (anchor->walk.offset == 0) {
        memcpy(anchor->walk.chain, parsed->chain, sizeof(anchor->walk.chain));
        memcpy(anchor->walk.hash, parsed->hash, CHAIN_HASH_BYTES);
        anchor->walk.offset = end;
        anchor->walk.next_seq = parsed->seq + 1;
    }
    anchor->jumped = anchor->jumped || parsed->mark == CHAIN_JUMP;
    anchor->key = *parsed;
    return parsed->has_key;
}

enum chain_state chain_anchor_find(int fd, uint64_t end, unsigned char scratch[CHAIN_SCRATCH_BYTES],
                                   struct chain_anchor *out)
{
    struct chain_anchor anchor = {.closed = false};
    bool last = true;

    while (end > 0) {
        size_t len = end < CHAIN_SCRATCH_BYTES ? (size_t)end : (size_t)CHAIN_SCRATCH_BYTES;
        const uint64_t base = end - len;
        size_t at = len;

        if (chain_read_at(fd, scratch, len, base) != 0) {
            return CHAIN_UNREADABLE;
        }
        while (at > 0) {
            const unsigned char *lf = memrchr(scratch, '\n', at - 1);
            size_t start = lf == NULL ? 0 : (size_t)(lf - scratch) + 1;
            struct chain_line parsed;

            if (start == 0 && base > 0) {
                break; /* it may begin before the window */
            }
            if (chain_line_parse((const char *)scratch + start, at - start, &parsed) == 0 &&
                anchor_look(&anchor, &last, &parsed, base + at)) {
                *out = anchor;
                return CHAIN_OK;
            }
            at = start;
        }
        if (at == len) {
            return CHAIN_MISFIT; /* a line that is no record fills the window */
        }
        end = base + at;
    }
    return CHAIN_MISFIT;
}
