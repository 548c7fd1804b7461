/* Any bytes on a connection: read whole or in pieces, the guard's verdicts and parameters are the
 * same. */
#include "serve/guard.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX = 2048, REQUESTS_MAX = 8 };

static const struct guard_rules rules = {.params_max = MAX};

/* What one way of reading saw: for each request its verdict and a digest of what passed. */
struct verdicts {
    size_t count;
    enum guard_state states[REQUESTS_MAX];
    enum guard_cause causes[REQUESTS_MAX];
    size_t lengths[REQUESTS_MAX];
};

static void note(struct verdicts *v, enum guard_state state, enum guard_cause cause, size_t len)
{
    v->states[v->count] = state;
    v->causes[v->count] = cause;
    v->lengths[v->count] = len;
    v->count++;
}

/* Every length must lie inside: what passed is walked as libfcgi will walk it. */
static void walk(struct span params)
{
    size_t at = 0;
    while (at < params.len) {
        size_t lengths[2];
        for (size_t i = 0; i < 2; i++) {
            const unsigned char first = params.ptr[at++];
            lengths[i] = first;
            if (first >= 0x80) {
                const unsigned char *p = params.ptr + at;
                lengths[i] =
                    (size_t)(first & 0x7f) << 24 | (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
                at += 3;
            }
        }
        if (lengths[0] == 0 || lengths[0] > GUARD_PARAMETER_MAX ||
            memchr(params.ptr + at, '=', lengths[0]) != NULL ||
            memchr(params.ptr + at, 0, lengths[0] + lengths[1]) != NULL) {
            abort();
        }
        at += lengths[0] + lengths[1];
    }
    if (at != params.len) {
        abort();
    }
}

static struct verdicts read_all(const uint8_t *data, size_t size, size_t step)
{
    struct verdicts v = {0};
    struct guard guard = {0};
    size_t at = 0;
    guard_start(&guard, &rules);
    while (at < size && v.count < REQUESTS_MAX) {
        const size_t len = size - at < step ? size - at : step;
        size_t used = 0;
        enum guard_cause cause = GUARD_NONE;
        const enum guard_state state = guard_read(&guard, span_make(data + at, len), &used, &cause);
        if (state == GUARD_BAD) {
            note(&v, state, cause, 0);
            break;
        }
        if (used > len || (state == GUARD_MORE && used != len)) {
            abort();
        }
        at += used;
        if (state == GUARD_DONE) {
            walk(buf_span(&guard.params));
            note(&v, state, cause, guard.params.len);
            guard_start(&guard, &rules);
        }
    }
    guard_clear(&guard);
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct verdicts whole = read_all(data, size, size);
    for (size_t step = 1; step < 12; step += 5) {
        const struct verdicts pieces = read_all(data, size, step);
        if (pieces.count != whole.count ||
            memcmp(pieces.states, whole.states, sizeof whole.states) != 0 ||
            memcmp(pieces.causes, whole.causes, sizeof whole.causes) != 0 ||
            memcmp(pieces.lengths, whole.lengths, sizeof whole.lengths) != 0) {
            abort();
        }
    }
    return 0;
}
