#include "serve/exchange.h"

#include <string.h>

/*
 * The reply stands twice in a 200, as base64: with the longest user and this bound every answer
 * fits, so that building one after its record was written cannot fail.
 */
enum { ANSWER_MAX = 4096, REPLY_MAX = 1024 };

int exchange_init(struct exchange *exchange, const struct config *config)
{
    exchange->token.max = config->limits.header_bytes;
    exchange->reply.max = REPLY_MAX;
    exchange->answer.max = ANSWER_MAX;
    exchange->accepted.reply.max = REPLY_MAX;
    exchange_clear(exchange);
    return buf_reserve(&exchange->answer, ANSWER_MAX);
}

void exchange_clear(struct exchange *exchange)
{
    exchange->request = (struct request){0};
    exchange->host[0] = '\0';
    exchange->site = NULL;
    buf_reset(&exchange->token);
    exchange->spnego = (struct spnego_token){0};
    acceptor_result_clear(&exchange->accepted);
    exchange->use = REASON_INTERNAL;
    exchange->rule = NULL;
    exchange->reason = REASON_INTERNAL; /* until somebody decided otherwise */
    buf_reset(&exchange->reply);
    exchange->audit_id[0] = '\0';
    buf_reset(&exchange->answer);
}

void exchange_free(struct exchange *exchange)
{
    exchange_clear(exchange);
    buf_clear(&exchange->token);
    acceptor_result_free(&exchange->accepted);
    buf_clear(&exchange->reply);
    buf_clear(&exchange->answer);
}

/* Status line and what stands between the variables and the empty line, by status. */
static const struct status_text {
    int status;
    const char *line;
    const char *headers;
    const char *body;
} texts[] = {
    {200, "Status: 200 OK\r\n", "", ""},
    {401, "Status: 401 Unauthorized\r\n", "Cache-Control: no-store\r\nContent-Type: text/plain\r\n",
     "Sign-in with Kerberos is required."},
    {403, "Status: 403 Forbidden\r\n", "Cache-Control: no-store\r\nContent-Type: text/plain\r\n",
     "Access is not granted."},
    {500, "Status: 500 Internal Server Error\r\n",
     "Cache-Control: no-store\r\nContent-Type: text/plain\r\n", "Sign-in failed on the server."},
    {503, "Status: 503 Service Unavailable\r\n",
     "Retry-After: 5\r\nCache-Control: no-store\r\nContent-Type: text/plain\r\n",
     "Sign-in is not available at the moment."},
};

static const struct status_text *find_text(int status)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].status == status) {
            return &texts[i];
        }
    }
    return find_text(500);
}

static void put_negotiate(struct buf *out, const char *field, struct span token)
{
    buf_append_str(out, field);
    buf_append_str(out, ": Negotiate");
    if (token.len > 0) {
        buf_append_byte(out, ' ');
        http_append_base64(out, token);
    }
    buf_append_str(out, "\r\n");
}

/* A header value must not be able to end its line; identity_read has refused such users already. */
static bool is_header_value(const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return false;
        }
    }
    return text[0] != '\0';
}

static void put_variables(struct buf *out, const struct exchange *exchange)
{
    const char *user = exchange->accepted.identity.user;
    if (!is_header_value(user) || exchange->audit_id[0] == '\0') {
        out->failed = true;
        return;
    }
    buf_append_str(out, "Variable-SPNEGATE: granted\r\nVariable-REMOTE_USER: ");
    buf_append_str(out, user);
    buf_append_str(out, "\r\nVariable-AUTH_TYPE: Negotiate\r\nVariable-AUDIT_ID: ");
    buf_append_str(out, exchange->audit_id);
    buf_append_str(out, "\r\n");
}

static void put_challenge(struct buf *out, const struct exchange *exchange,
                          const struct reason_info *info)
{
    const struct span reply = buf_span(&exchange->reply);
    if (exchange->reply.failed) {
        out->failed = true;
        return;
    }
    if (info->status == 401) {
        put_negotiate(out, "WWW-Authenticate", reply);
    } else if (reply.len > 0 && info->challenge == CHALLENGE_REPLY) {
        put_negotiate(out, "WWW-Authenticate", reply);
        if (info->status == 200) {
            put_negotiate(out, "Variable-NEGOTIATE_REPLY", reply);
        }
    }
}

static void put_answer(struct buf *out, const struct exchange *exchange, enum reason reason)
{
    const struct reason_info *info = reason_info(reason);
    const struct status_text *text = find_text(info->status);
    buf_append_str(out, text->line);
    if (info->status == 200) {
        put_variables(out, exchange);
    }
    if (info->status < 500) {
        put_challenge(out, exchange, info);
    }
    buf_append_str(out, text->headers);
    buf_append_str(out, "\r\n");
    if (!span_equal(exchange->request.method, span_of("HEAD"))) {
        buf_append_str(out, text->body);
    }
}

void exchange_format_answer(struct exchange *exchange)
{
    struct buf *out = &exchange->answer;
    buf_reset(out);
    put_answer(out, exchange, exchange->reason);
    if (out->failed) {
        exchange->reason = REASON_INTERNAL;
        buf_reset(out);
        put_answer(out, exchange, REASON_INTERNAL);
    }
}
