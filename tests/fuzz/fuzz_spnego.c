/* Any bytes as a token: what is found must lie inside it, and the same AP-REQ in other clothes must
 * be found again. */
#include "wire/spnego.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
    if (!truth) {
        abort();
    }
}

static bool lies_within(struct span inner, struct span outer)
{
    return inner.ptr >= outer.ptr && inner.ptr + inner.len <= outer.ptr + outer.len;
}

/* A raw krb5 frame that was found whole, carried by a NegTokenResp of our own making. */
static void try_wrapped(struct span frame, struct span ap_req)
{
    struct buf reply = {.max = 1 << 20};
    struct spnego_token t;
    unsigned char *state;

    spnego_format_completed(&reply, span_make(NULL, 0), frame);
    require(!reply.failed);
    require(spnego_inspect(buf_span(&reply), &t) == REASON_BAD_TOKEN && t.response);
    state = memmem(reply.ptr, reply.len, "\xa0\x03\x0a\x01\x00", 5);
    require(state != NULL);
    state[4] = 1; /* accept-incomplete, as an initiator says it */
    require(spnego_inspect(buf_span(&reply), &t) == REASON_OK);
    require(span_equal(t.ap_req, ap_req));
    buf_clear(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span token = span_make(data, size);
    struct spnego_token t;
    enum reason reason = spnego_inspect(token, &t);

    require((t.ap_req.ptr != NULL) == (reason == REASON_OK));
    require(t.framed || !t.response);
    require(t.mech.len == 0 || (t.framed && lies_within(t.mech, token)));
    if (reason == REASON_OK) {
        require(lies_within(t.ap_req, token) && t.ap_req.ptr[0] == 0x6e);
        require(strcmp(t.offered, "krb5") == 0);
        if (!t.framed) {
            try_wrapped(token, t.ap_req);
        }
    } else {
        require(reason == REASON_CONTINUE || reason == REASON_NTLM ||
                reason == REASON_MECH_UNSUPPORTED || reason == REASON_BAD_TOKEN);
    }
    return 0;
}
