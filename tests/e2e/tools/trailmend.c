/*
 * Usage: trailmend [FAMILY] <lines >trail
 * Puts hashes, keys and signatures where the lines of a trail have zeros; FAMILY is a number that
 * gives other keys. With --key instead, prints the first public key of a family.
 */
#include "../../unit/trail_mend.h"

#include <stdio.h>

enum { LINE_BYTES = 1 << 17 };

static int mend_stream(uint64_t family)
{
    static char text[LINE_BYTES]; /* stray bytes and one line */
    struct mend mend = {.family = family};
    size_t stray = 0;
    size_t got;

    while (stray + 8192 < sizeof text && fgets(text + stray, 8192, stdin) != NULL) {
        got = strlen(text + stray);
        if (mend_line(&mend, text + stray, got, text, stray)) {
            (void)fwrite(text, 1, stray + got, stdout);
            stray = 0;
        } else {
            stray += got;
        }
    }
    (void)fwrite(text, 1, stray, stdout);
    return ferror(stdin) != 0 || fflush(stdout) != 0 ? 74 : 0;
}

int main(int argc, char **argv)
{
    const bool key = argc > 1 && strcmp(argv[1], "--key") == 0;
    const char *number = argc > 1 + key ? argv[1 + key] : "0";
    unsigned char public[32];
    unsigned char secret[64];
    char hex[65] = "";

    if (sodium_init() < 0) {
        return 70;
    }
    if (!key) {
        return mend_stream(strtoull(number, NULL, 10));
    }
    mend_key(strtoull(number, NULL, 10), 0, public, secret);
    mend_hex(hex, public, 32);
    return printf("%s\n", hex) < 0 ? 74 : 0;
}
