#include "serve/refusal.h"

#include "serve/exchange.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { TYPE_END = 3, TYPE_STDOUT = 6, ID_AT = 2, ALIGNMENT = 8, SENT_MAX = 512 };

static void put_record(struct buf *out, unsigned char type, struct span content)
{
    const size_t padding = (ALIGNMENT - content.len % ALIGNMENT) % ALIGNMENT;
    const unsigned char head[GUARD_HEADER_BYTES] = {1,
                                                    type,
                                                    0,
                                                    0,
                                                    (unsigned char)(content.len >> 8),
                                                    (unsigned char)content.len,
                                                    (unsigned char)padding};
    static const unsigned char zeros[ALIGNMENT];
    buf_append(out, head, sizeof head);
    buf_append_span(out, content);
    buf_append(out, zeros, padding);
}

static int make_answer(struct buf *out, enum reason reason, const char *method)
{
    static const unsigned char complete[8]; /* application and protocol status: 0 */
    struct exchange x = {.reason = reason, .request = {.method = span_of(method)}};
    x.answer.max = out->max = SENT_MAX;
    exchange_format_answer(&x);
    put_record(out, TYPE_STDOUT, buf_span(&x.answer));
    put_record(out, TYPE_STDOUT, (struct span){NULL, 0});
    put_record(out, TYPE_END, span_make(complete, sizeof complete));
    const bool made = x.reason == reason && !x.answer.failed && !out->failed;
    buf_clear(&x.answer);
    return made ? 0 : -1;
}

int refusal_open(struct refusal *refusal, enum reason reason)
{
    return reason_info(reason)->challenge == CHALLENGE_NONE &&
                   make_answer(&refusal->answer, reason, "GET") == 0 &&
                   make_answer(&refusal->head_answer, reason, "HEAD") == 0
               ? 0
               : -1;
}

void refusal_close(struct refusal *refusal)
{
    buf_clear(&refusal->answer);
    buf_clear(&refusal->head_answer);
}

/* Every record of the answer carries the request's id. */
static void put_ids(unsigned char *bytes, size_t len, uint16_t id)
{
    for (size_t at = 0; at + GUARD_HEADER_BYTES <= len;) {
        unsigned char *head = bytes + at;
        head[ID_AT] = (unsigned char)(id >> 8);
        head[ID_AT + 1] = (unsigned char)id;
        at += GUARD_HEADER_BYTES + ((size_t)head[4] << 8 | head[5]) + head[6];
    }
}

int refusal_send(const struct refusal *refusal, const struct config_listener *listener,
                 const struct guard *guard, int fd)
{
    const char *forwarded = listener->forwarded.method;
    const struct span parameter = span_of(forwarded != NULL ? forwarded : "REQUEST_METHOD");
    const bool is_head = span_equal(guard_find(guard, parameter), span_of("HEAD"));
    const struct buf *answer = is_head ? &refusal->head_answer : &refusal->answer;
    unsigned char bytes[SENT_MAX];
    memcpy(bytes, answer->ptr, answer->len);
    put_ids(bytes, answer->len, guard->id);
    ssize_t n;
    do {
        n = send(fd, bytes, answer->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)answer->len ? 0 : -1;
}
