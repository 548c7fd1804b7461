/* The kinds of request that load sends, one good and many bad, and what each must be answered. */
#ifndef BENCH_KIND_H
#define BENCH_KIND_H

#include "mint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* KIND(id, status, text): the status that must be answered, 0 for "closed without a byte". */
#define KINDS                                                                                      \
    KIND(good, 200, "a fresh token")                                                               \
    KIND(none, 401, "no Authorization: a bare challenge, counted and not recorded")                \
    KIND(scheme, 401, "another scheme than Negotiate")                                             \
    KIND(base64, 401, "a token that is not base64")                                                \
    KIND(garbage, 401, "a token that is no DER")                                                   \
    KIND(truncated, 401, "the first three quarters of a token")                                    \
    KIND(wrong_key, 401, "a flipped bit in the ticket's cipher")                                   \
    KIND(altered, 401, "a flipped bit in the authenticator's cipher")                              \
    KIND(skew, 401, "an authenticator of a clock two hours ahead")                                 \
    KIND(ntlm, 401, "NTLM")                                                                        \
    KIND(replay, 401, "a good token that has just been answered")                                  \
    KIND(host, 403, "a host that no site has")                                                     \
    KIND(management, 0, "a management record")                                                     \
    KIND(duplicate, 0, "a parameter that decides, twice")                                          \
    KIND(cut, 0, "a request that ends in the middle")

enum kind {
#define KIND(id, status, text) KIND_##id,
    KINDS
#undef KIND
        KIND_COUNT
};

struct kind_info {
    const char *name;
    int status;
    const char *text;
};

extern const struct kind_info kinds[KIND_COUNT];

enum role { ROLE_RESPONDER = 1, ROLE_AUTHORIZER = 2 };

/* What all requests of one run have in common. */
struct style {
    const char *host;
    size_t bytes; /* of parameters: padded up to that many */
    bool keep;
};

/* A growing string of bytes; out of memory ends the program. */
struct bytes {
    unsigned char *ptr;
    size_t len;
    size_t size;
};

void bytes_add(struct bytes *bytes, const void *more, size_t len);

/*
 * Makes the altered tokens that bad requests share; they are never accepted, and so are as good the
 * thousandth time.
 */
void kind_open(bool raw);

/* Writes a request of this kind into `out`; `token` is the text for good and replay. */
void kind_request(enum kind kind, enum role role, const struct style *style, const char *token,
                  struct bytes *out);

#endif
