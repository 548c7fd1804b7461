/*
 * Writes the daemon's own answer for every reason into a directory: CODE.end and, with a reply
 * token, CODE+reply.end; prints "CODE STATUS" for each reason.
 */
#include "serve/exchange.h"

#include <stdio.h>
#include <string.h>

static int write_answer(const char *directory, struct exchange *x, enum reason reason, bool reply)
{
    char path[512];
    exchange_clear(x);
    x->reason = reason;
    (void)snprintf(x->accepted.identity.user, sizeof x->accepted.identity.user, "alice");
    (void)snprintf(x->audit_id, sizeof x->audit_id, "0123456789abcdef-7");
    if (reply) {
        buf_append_str(&x->reply, "a reply token");
    }
    exchange_format_answer(x);
    (void)snprintf(path, sizeof path, "%s/%s%s.end", directory, reason_info(reason)->code,
                   reply ? "+reply" : "");
    FILE *out = fopen(path, "wb");
    if (out == NULL) {
        return -1;
    }
    const size_t written = fwrite(x->answer.ptr, 1, x->answer.len, out);
    return fclose(out) == 0 && written == x->answer.len ? 0 : -1;
}

int main(int argc, char **argv)
{
    static const struct config config = {.limits.header_bytes = 1024};
    struct exchange x = {0};
    int failed = argc != 2 || exchange_init(&x, &config) != 0;
    for (int r = 0; r < REASON_COUNT && !failed; r++) {
        failed = write_answer(argv[1], &x, (enum reason)r, false) != 0 ||
                 write_answer(argv[1], &x, (enum reason)r, true) != 0;
        printf("%s %d\n", reason_info((enum reason)r)->code, reason_info((enum reason)r)->status);
    }
    exchange_free(&x);
    return failed;
}
