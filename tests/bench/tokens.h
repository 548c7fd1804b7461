/* The tokens of good requests: fresh ones, made beforehand or when they are needed. */
#ifndef BENCH_TOKENS_H
#define BENCH_TOKENS_H

#include <stdbool.h>
#include <stddef.h>

/* Makes `count` tokens now, in SPNEGO or (`raw`) without it; more are made when they are taken. */
void tokens_open(size_t count, bool raw);

/* A token as text that nobody was sent yet; it is the caller's, who ends it with one of these. */
char *token_take(void);

/* It was decided on. */
void token_spend(char *text);

/* Nobody has looked at it: it is as good as fresh. */
void token_return(char *text);

/* Frees what is left. */
void tokens_close(void);

#endif
