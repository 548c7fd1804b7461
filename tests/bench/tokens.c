#include "tokens.h"

#include "mint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char **stock;
static size_t stock_count;
static size_t stock_size;
static bool without_spnego;

static _Noreturn void die(void)
{
    fputs("load: out of memory\n", stderr);
    exit(1);
}

static char *make(void)
{
    static struct token token;
    static char text[TOKEN_TEXT_BYTES];
    mint(&token, 0, without_spnego);
    base64(text, token.room + token.at, TOKEN_MAX - token.at);
    char *copy = strdup(text);
    if (copy == NULL) {
        die();
    }
    return copy;
}

void tokens_open(size_t count, bool raw)
{
    without_spnego = raw;
    for (size_t i = 0; i < count; i++) {
        token_return(make());
    }
}

char *token_take(void)
{
    return stock_count > 0 ? stock[--stock_count] : make();
}

void token_spend(char *text)
{
    free(text);
}

void token_return(char *text)
{
    if (stock_count == stock_size) {
        stock_size = stock_size * 2 + 64;
        stock = realloc(stock, stock_size * sizeof *stock);
        if (stock == NULL) {
            die();
        }
    }
    stock[stock_count++] = text;
}

void tokens_close(void)
{
    while (stock_count > 0) {
        free(stock[--stock_count]);
    }
    free(stock);
    stock = NULL;
    stock_size = 0;
}
