/*
 * Fresh Kerberos tokens, as fast as the benches need them: the tickets are taken out of their
 * caches once, and each token is a new authenticator beside one of them. A failure ends the
 * program.
 */
#ifndef BENCH_MINT_H
#define BENCH_MINT_H

#include <stdbool.h>
#include <stddef.h>

enum { TOKEN_MAX = 16 * 1024, TOKEN_TEXT_BYTES = TOKEN_MAX / 3 * 4 + 8 };

/* Its bytes are the last ones of `room`, so that frames can be put in front. */
struct token {
    unsigned char room[TOKEN_MAX];
    size_t at;
    size_t ticket_at; /* the ticket's cipher, in `room` */
    size_t ticket_len;
    size_t sealed_at; /* the authenticator's cipher, which goes on to the end */
};

/* Opens the caches; the tickets in them, or that the KDC gives for them, are for `service`. */
void mint_open(char *const *ccaches, size_t count, const char *service);
void mint_close(void);

/*
 * Makes a token of the next cache in turn, whose clock is so far ahead: in SPNEGO, or (`raw`) in
 * the GSS frame of Kerberos alone.
 */
void mint(struct token *token, int ahead_s, bool raw);

/* Base64 of some bytes, with its NUL. Returns its length. */
size_t base64(char *out, const unsigned char *bytes, size_t len);

#endif
