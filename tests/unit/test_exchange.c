#include "serve/exchange.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct exchange *make_exchange(enum reason reason)
{
    static const struct config config = {.limits.header_bytes = 1024};
    struct exchange *x = calloc(1, sizeof *x);
    cr_assert_eq(exchange_init(x, &config), 0);
    x->reason = reason;
    x->request.method = span_of("GET");
    strcpy(x->accepted.identity.user, "alice");
    strcpy(x->audit_id, "0123456789abcdef-7");
    return x;
}

static void free_exchange(struct exchange *x)
{
    exchange_free(x);
    free(x);
}

static const char *formatted(struct exchange *x)
{
    static char text[8192];
    exchange_format_answer(x);
    cr_assert_lt(x->answer.len, sizeof text);
    memcpy(text, x->answer.ptr, x->answer.len);
    text[x->answer.len] = '\0';
    return text;
}

/* Section 2a of docs/design.md, row by row; "abc" is the reply token. */
static const struct {
    int status;
    const char *line;
    const char *headers;
    const char *body;
} rows[] = {
    {401, "Status: 401 Unauthorized\r\n", "", "Sign-in with Kerberos is required."},
    {403, "Status: 403 Forbidden\r\n", "", "Access is not granted."},
    {500, "Status: 500 Internal Server Error\r\n", "", "Sign-in failed on the server."},
    {503, "Status: 503 Service Unavailable\r\n", "Retry-After: 5\r\n",
     "Sign-in is not available at the moment."},
};

static const char *expected_challenge(const struct reason_info *info, bool reply)
{
    if (info->status == 401) {
        return reply ? "WWW-Authenticate: Negotiate YWJj\r\n" : "WWW-Authenticate: Negotiate\r\n";
    }
    return reply && info->challenge == CHALLENGE_REPLY ? "WWW-Authenticate: Negotiate YWJj\r\n"
                                                       : "";
}

static void expect(char *out, size_t size, const struct reason_info *info, bool reply, bool head)
{
    const char *challenge = expected_challenge(info, reply);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].status == info->status) {
            (void)snprintf(out, size,
                           "%s%s%sCache-Control: no-store\r\nContent-Type: text/plain\r\n\r\n%s",
                           rows[i].line, challenge, rows[i].headers, head ? "" : rows[i].body);
            return;
        }
    }
    cr_assert_eq(info->status, 200, "%s", info->code);
    (void)snprintf(out, size,
                   "Status: 200 OK\r\nVariable-SPNEGATE: granted\r\nVariable-REMOTE_USER: alice\r\n"
                   "Variable-AUTH_TYPE: Negotiate\r\nVariable-AUDIT_ID: 0123456789abcdef-7\r\n%s%s"
                   "\r\n",
                   challenge, reply ? "Variable-NEGOTIATE_REPLY: Negotiate YWJj\r\n" : "");
}

Test(format_answer, every_reason_is_byte_for_byte_as_frozen)
{
    for (int r = 0; r < REASON_COUNT; r++) {
        const struct reason_info *info = reason_info((enum reason)r);
        for (int variant = 0; variant < 4; variant++) {
            const bool reply = (variant & 1) != 0;
            const bool head = (variant & 2) != 0;
            char expected[1024];
            struct exchange *x = make_exchange((enum reason)r);
            x->request.method = span_of(head ? "HEAD" : "GET");
            if (reply) {
                buf_append_str(&x->reply, "abc");
            }
            expect(expected, sizeof expected, info, reply, head);
            cr_assert_str_eq(formatted(x), expected, "%s, reply %d, head %d", info->code, reply,
                             head);
            cr_assert_eq(strncmp((char *)x->answer.ptr, "Status: 200", 11) == 0,
                         info->outcome == OUTCOME_GRANTED);
            free_exchange(x);
        }
    }
}

Test(format_answer, a_user_that_could_end_its_line_is_an_internal_error)
{
    static const char *const users[] = {"", "a\r\nStatus: 200 OK", "a\nb", "a\rb", "\x01", "a\x7f"};
    for (size_t i = 0; i < sizeof users / sizeof users[0]; i++) {
        struct exchange *x = make_exchange(REASON_OK);
        strcpy(x->accepted.identity.user, users[i]);
        cr_assert_eq(strncmp(formatted(x), "Status: 500 ", 12), 0, "user %zu", i);
        cr_assert_eq(x->reason, REASON_INTERNAL);
        free_exchange(x);
    }
}

Test(format_answer, a_grant_without_its_record_is_an_internal_error)
{
    struct exchange *x = make_exchange(REASON_OK);
    x->audit_id[0] = '\0';
    cr_assert_eq(strncmp(formatted(x), "Status: 500 ", 12), 0);
    free_exchange(x);
}

Test(format_answer, a_reply_that_failed_is_never_a_grant)
{
    struct exchange *x = make_exchange(REASON_OK);
    x->reply.failed = true;
    cr_assert_eq(strncmp(formatted(x), "Status: 500 ", 12), 0);
    free_exchange(x);
}

Test(format_answer, the_longest_of_all_fits)
{
    struct exchange *x = make_exchange(REASON_OK);
    memset(x->accepted.identity.user, 'u', sizeof x->accepted.identity.user - 1);
    x->accepted.identity.user[sizeof x->accepted.identity.user - 1] = '\0';
    memset(x->audit_id, '9', sizeof x->audit_id - 1);
    x->audit_id[sizeof x->audit_id - 1] = '\0';
    cr_assert_eq(buf_reserve(&x->reply, x->reply.max), 0);
    memset(x->reply.ptr, 0xff, x->reply.max);
    x->reply.len = x->reply.max;
    cr_assert_eq(strncmp(formatted(x), "Status: 200 ", 12), 0);
    free_exchange(x);
}

Test(clear, what_nobody_decided_is_internal)
{
    struct exchange *x = make_exchange(REASON_OK);
    exchange_clear(x);
    cr_assert_eq(x->reason, REASON_INTERNAL);
    cr_assert_eq(strncmp(formatted(x), "Status: 500 ", 12), 0);
    cr_assert_str_eq(x->accepted.identity.user, "");
    free_exchange(x);
}
