/*
 * Any bytes on a connection. Whole or in pieces, the guard says the same about each request, and
 * the same as the rules read plainly by somebody who has all bytes at once. What passed goes
 * through libfcgi as the daemon drives it and must come out as it was sent, with nothing left over.
 *
 * The reserved byte of the first record, which nobody reads, is the input's own switch: see
 * struct options.
 */
#include "serve/guard.h"

#include "require.h"

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARAMS_MAX = 2048, REQUESTS_MAX = 8, CHUNK_BYTES = 65528, PIPE_BYTES = 256 * 1024 };

#define ALSO_FIRST "HTTP_X_ORIGINAL_URI"
#define ALSO_THIRD "ID"

static const struct guard_rules plain_rules = {.params_max = PARAMS_MAX};
static const struct guard_rules also_rules = {
    .params_max = PARAMS_MAX,
    .also = {{(const unsigned char *)ALSO_FIRST, sizeof(ALSO_FIRST) - 1},
             {NULL, 0},
             {(const unsigned char *)ALSO_THIRD, sizeof(ALSO_THIRD) - 1}},
};

/* Bit 0: the listener has deciders of its own. Bits 1 to 3: before libfcgi reads it, the request
 * grows to so many chunks of guard_format, less 8 bytes, and bits 4 to 7 more. */
struct options {
    const struct guard_rules *rules;
    size_t grown; /* to so many bytes of parameters; 0: as it is */
};

/* What the rules say of one request. */
struct verdict {
    enum guard_state state;
    enum guard_cause cause;
    enum guard_cause ended; /* MORE: what an end here means */
    size_t end;             /* DONE: the place behind it */
    unsigned id;
    unsigned role;
    unsigned keep;
    char culprit[GUARD_PARAMETER_MAX + 1];
    struct buf params;
};

/* ---- The rules read plainly -------------------------------------------------------------- */

struct record {
    unsigned version;
    unsigned type;
    unsigned id;
    size_t len;
    size_t whole;        /* with head and padding */
    struct span content; /* as much of it as is there */
};

static struct record look_at_record(struct span in)
{
    struct record r = {in.ptr[0],
                       in.ptr[1],
                       (unsigned)in.ptr[2] << 8 | in.ptr[3],
                       (size_t)in.ptr[4] << 8 | in.ptr[5],
                       0,
                       {NULL, 0}};
    r.whole = 8 + r.len + in.ptr[6];
    r.content = span_make(in.ptr + 8, r.len < in.len - 8 ? r.len : in.len - 8);
    return r;
}

/* One pair off `*in`; false if a length says more than there is. */
static bool take_pair(struct span *in, struct span pair[2])
{
    size_t lengths[2];
    for (size_t i = 0; i < 2; i++) {
        const size_t bytes = in->len > 0 && in->ptr[0] >= 0x80 ? 4 : 1;
        if (in->len < bytes) {
            return false;
        }
        lengths[i] = in->ptr[0] & 0x7f;
        for (size_t k = 1; k < bytes; k++) {
            lengths[i] = lengths[i] * 256 + in->ptr[k];
        }
        *in = span_make(in->ptr + bytes, in->len - bytes);
    }
    for (size_t i = 0; i < 2; i++) {
        if (in->len < lengths[i]) {
            return false;
        }
        pair[i] = span_make(in->ptr, lengths[i]);
        *in = span_make(in->ptr + lengths[i], in->len - lengths[i]);
    }
    return true;
}

static bool has_byte(struct span s, unsigned char byte)
{
    return s.len > 0 && memchr(s.ptr, byte, s.len) != NULL;
}

/* Whether a parameter that decides was there before; `counts` has a place for each. */
static bool seen_before(struct span parameter, bool also, unsigned *counts)
{
    static const char *const deciders[] = {"HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_HOST",
                                           "REMOTE_ADDR", "HTTPS", "REQUEST_URI", "REQUEST_METHOD",
                                           "UNIQUE_ID",
                                           /* only at such a listener: */
                                           ALSO_FIRST, ALSO_THIRD};
    for (size_t i = 0; i < (also ? 10 : 8); i++) {
        if (span_equal(parameter, span_of(deciders[i]))) {
            return counts[i]++ > 0;
        }
    }
    return false;
}

static enum guard_cause judge_params(bool also, struct verdict *v)
{
    struct span in = buf_span(&v->params);
    unsigned counts[10] = {0};
    while (in.len > 0) {
        struct span pair[2];
        if (!take_pair(&in, pair)) {
            return GUARD_LENGTH;
        }
        const bool bad = pair[0].len == 0 || pair[0].len > 256 || has_byte(pair[0], '=') ||
                         has_byte(pair[0], 0) || has_byte(pair[1], 0);
        if (bad || seen_before(pair[0], also, counts)) {
            const size_t shown = pair[0].len > 256 ? 256 : pair[0].len;
            (void)span_copy(span_make(pair[0].ptr, shown), v->culprit, sizeof v->culprit);
            return bad ? GUARD_PARAMETER : GUARD_DUPLICATE;
        }
    }
    return GUARD_NONE;
}

enum place { BEFORE_BEGIN, IN_PARAMS, IN_STDIN };

/* The first fault of a record, its content as far as it has come; takes the content over. */
static enum guard_cause judge_record(const struct record *r, enum place place, struct verdict *v)
{
    static const unsigned expected[] = {[BEFORE_BEGIN] = 1, [IN_PARAMS] = 4, [IN_STDIN] = 5};
    if (r->version != 1) {
        return GUARD_VERSION;
    }
    if (r->id == 0 || r->type > 8) {
        return GUARD_MANAGEMENT;
    }
    if (place != BEFORE_BEGIN && r->id != v->id) {
        return GUARD_ID;
    }
    if (r->type != expected[place]) {
        return GUARD_TYPE;
    }
    switch (place) {
    case BEFORE_BEGIN:
        if (r->len != 8) {
            return GUARD_BEGIN;
        }
        if (r->content.len == 8) {
            v->id = r->id;
            v->role = (unsigned)r->content.ptr[0] << 8 | r->content.ptr[1];
            v->keep = r->content.ptr[2] & 1;
            return v->role == 1 || v->role == 2 ? GUARD_NONE : GUARD_ROLE;
        }
        return GUARD_NONE;
    case IN_PARAMS:
        buf_append_span(&v->params, r->content);
        return v->params.failed ? GUARD_TOO_LARGE : GUARD_NONE;
    case IN_STDIN:
        break;
    }
    return r->len > 0 ? GUARD_BODY : GUARD_NONE;
}

/* Reads the request at `*at`; `before` is the one before it, whose empty STDIN may follow it. */
static void read_plainly(struct span data, bool also, const struct verdict *before,
                         struct verdict *v)
{
    enum place place = BEFORE_BEGIN;
    size_t at = before != NULL ? before->end : 0;
    bool stray = before != NULL && before->role == GUARD_AUTHORIZER;
    v->params.max = PARAMS_MAX;
    while (data.len - at >= 8) {
        const struct record r = look_at_record(span_make(data.ptr + at, data.len - at));
        const bool is_stray =
            stray && r.version == 1 && r.type == 5 && r.id == before->id && r.len == 0;
        v->cause = is_stray ? GUARD_NONE : judge_record(&r, place, v);
        if (v->cause != GUARD_NONE) {
            v->state = GUARD_BAD;
            return;
        }
        if (r.whole > data.len - at) {
            break;
        }
        at += r.whole;
        stray = false;
        if (is_stray) {
            continue;
        }
        if (place == BEFORE_BEGIN) {
            place = IN_PARAMS;
        } else if (r.len == 0) {
            v->cause = place == IN_PARAMS ? judge_params(also, v) : GUARD_NONE;
            v->state = v->cause != GUARD_NONE ? GUARD_BAD : GUARD_DONE;
            v->end = at;
            if (v->cause != GUARD_NONE || place == IN_STDIN || v->role == GUARD_AUTHORIZER) {
                return;
            }
            place = IN_STDIN;
        }
    }
    v->state = GUARD_MORE;
    v->ended = place == BEFORE_BEGIN && at == data.len ? GUARD_EMPTY : GUARD_CUT;
}

/* ---- libfcgi, driven as in serve/front ---------------------------------------------------- */

static struct {
    bool ready;
    int pipe[2];
    size_t pipe_bytes;
    int lowest; /* the descriptor that is opened next if none has leaked */
    FCGX_Request request;
} library;

static int next_descriptor(void)
{
    const int fd = dup(library.pipe[0]);
    require(fd >= 0 && close(fd) == 0);
    return fd;
}

static void open_library(void)
{
    require(FCGX_Init() == 0 && FCGX_InitRequest(&library.request, -1, 0) == 0);
    require(pipe2(library.pipe, O_CLOEXEC | O_NONBLOCK) == 0);
    (void)fcntl(library.pipe[1], F_SETPIPE_SZ, PIPE_BYTES); /* over a user's limit it fails */
    const int bytes = fcntl(library.pipe[1], F_GETPIPE_SZ);
    require(bytes > 0);
    library.pipe_bytes = (size_t)bytes;
    library.lowest = next_descriptor();
    library.ready = true;
}

/* The same pairs in the same order: libfcgi shows each as PARAMETER=VALUE, behind one of its own.
 */
static void check_decoded(const struct guard *guard, char **envp)
{
    struct span in = buf_span(&guard->params);
    struct span pair[2];
    require(*envp != NULL);
    require(strcmp(*envp++, guard->role == GUARD_AUTHORIZER ? "FCGI_ROLE=AUTHORIZER"
                                                            : "FCGI_ROLE=RESPONDER") == 0);
    for (; in.len > 0; envp++) {
        require(take_pair(&in, pair) && *envp != NULL);
        const struct span shown = span_of(*envp);
        require(shown.len == pair[0].len + 1 + pair[1].len);
        require(span_equal(span_make(shown.ptr, pair[0].len), pair[0]));
        require(shown.ptr[pair[0].len] == '=');
        require(span_equal(span_make(shown.ptr + pair[0].len + 1, pair[1].len), pair[1]));
    }
    require(*envp == NULL);
}

/* One more parameter, so long that the request fills its records as the options say, and of bytes
 * that show where each piece came from. */
static void grow(struct guard *guard, size_t total)
{
    static unsigned char filler[GUARD_CHUNKS_MAX * CHUNK_BYTES + 16];
    const size_t len = total - guard->params.len - 6;
    const unsigned char head[] = {1,
                                  (unsigned char)(0x80 | len >> 24),
                                  (unsigned char)(len >> 16),
                                  (unsigned char)(len >> 8),
                                  (unsigned char)len,
                                  'F'};
    for (size_t i = 0; filler[sizeof filler - 1] == 0; i++) {
        filler[i] = (unsigned char)(1 + i % 251);
    }
    guard->params.max = total;
    buf_append(&guard->params, head, sizeof head);
    buf_append(&guard->params, filler, len);
    require(!guard->params.failed && guard->params.len == total);
}

static void try_library(struct guard *guard, size_t grown)
{
    struct guard_records records;
    FCGX_Request *r = &library.request;
    if (grown > 0) {
        grow(guard, grown);
    }
    const size_t len = guard->params.len;
    const int formatted = guard_format(guard, &records);
    require(formatted == (len > (size_t)GUARD_CHUNKS_MAX * CHUNK_BYTES ? -1 : 0));
    if (formatted != 0) {
        return;
    }
    const size_t chunks = (len + CHUNK_BYTES - 1) / CHUNK_BYTES;
    require(records.len == 16 + len + 8 * (chunks + 1));
    if (records.len > library.pipe_bytes) {
        return;
    }
    require(writev(library.pipe[1], records.parts, (int)records.count) == (ssize_t)records.len);
    r->ipcFd = library.pipe[0];
    r->keepConnection = 1;
    r->appStatus = 0;
    require(FCGX_Accept_r(r) == 0 && FCGX_GetError(r->in) == 0);
    require(r->ipcFd == library.pipe[0] && r->keepConnection == 1);
    require(r->requestId == guard->id && r->role == (int)guard->role);
    check_decoded(guard, r->envp);
    /* Whoever wants more finds the pipe empty, and no record that libfcgi has put aside. */
    require(FCGX_GetChar(r->in) == EOF && FCGX_GetError(r->in) == EAGAIN);
    r->ipcFd = -1;
    r->keepConnection = 1;
    FCGX_Finish_r(r);
    require(next_descriptor() == library.lowest);
}

/* ---- The guard ---------------------------------------------------------------------------- */

static void check_verdict(const struct guard *guard, enum guard_state state, enum guard_cause cause,
                          size_t at, const struct verdict *v)
{
    require(state == v->state && cause == v->cause);
    switch (state) {
    case GUARD_MORE:
        require(guard_end(guard) == v->ended);
        break;
    case GUARD_DONE:
        require(at == v->end && guard->id == v->id && guard->role == v->role);
        require(guard->keep == (v->keep != 0) && guard->culprit[0] == '\0');
        require(span_equal(buf_span(&guard->params), buf_span(&v->params)));
        break;
    case GUARD_BAD:
        require(guard_code(cause)[0] != '\0' && guard_text(cause)[0] != '\0');
        require((cause != GUARD_PARAMETER && cause != GUARD_DUPLICATE) ||
                strcmp(guard->culprit, v->culprit) == 0);
        break;
    }
}

/* Reads in pieces of `step`; each request must get its verdict. */
static void read_pieces(struct span data, size_t step, const struct options *options,
                        const struct verdict *verdicts, size_t count)
{
    struct guard guard = {0};
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        enum guard_state state = GUARD_MORE;
        enum guard_cause cause = GUARD_NONE;
        guard_start(&guard, options->rules);
        while (at < data.len && state == GUARD_MORE) {
            const size_t len = data.len - at < step ? data.len - at : step;
            size_t used = 0;
            state = guard_read(&guard, span_make(data.ptr + at, len), &used, &cause);
            require(used <= len && (state != GUARD_MORE || used == len));
            at += used;
        }
        check_verdict(&guard, state, cause, at, &verdicts[i]);
        if (state == GUARD_DONE && step >= data.len) {
            try_library(&guard, options->grown);
        }
    }
    guard_clear(&guard);
}

static struct options read_options(struct span data)
{
    const unsigned bits = data.len > 7 ? data.ptr[7] : 0;
    const size_t chunks = bits >> 1 & 7;
    return (struct options){
        (bits & 1) != 0 ? &also_rules : &plain_rules,
        chunks == 0 || chunks > GUARD_CHUNKS_MAX ? 0 : chunks * CHUNK_BYTES - 8 + (bits >> 4)};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct verdict verdicts[REQUESTS_MAX]; /* their memory is used again */
    const struct span all = span_make(data, size);
    const struct options options = read_options(all);
    size_t count = 0;
    if (!library.ready) {
        open_library();
    }
    do {
        const struct buf kept = verdicts[count].params;
        verdicts[count] = (struct verdict){.params = kept};
        buf_reset(&verdicts[count].params);
        read_plainly(all, options.rules == &also_rules, count > 0 ? &verdicts[count - 1] : NULL,
                     &verdicts[count]);
        count++;
    } while (verdicts[count - 1].state == GUARD_DONE && count < REQUESTS_MAX);
    read_pieces(all, size, &options, verdicts, count);
    for (size_t step = 1; step < 12; step += 5) {
        read_pieces(all, step, &options, verdicts, count);
    }
    return 0;
}
