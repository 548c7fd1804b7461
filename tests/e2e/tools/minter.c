/*
 * usage: minter SERVICE CCACHE...
 *
 * Prints fresh tokens for the service in base64, one a line, each of the next cache's user, until
 * nobody reads them any more.
 */
#include "../../bench/mint.h"

#include <signal.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    static struct token token;
    static char text[TOKEN_TEXT_BYTES];
    if (argc < 3) {
        fputs("usage: minter SERVICE CCACHE...\n", stderr);
        return 64;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    mint_open(argv + 2, (size_t)argc - 2, argv[1]);
    do {
        mint(&token, 0, false);
        (void)base64(text, token.room + token.at, TOKEN_MAX - token.at);
    } while (puts(text) >= 0 && fflush(stdout) == 0);
    mint_close();
    return 0;
}
