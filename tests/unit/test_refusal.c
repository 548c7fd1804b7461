#include "serve/refusal.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD                                                                                       \
    "Status: 503 Service Unavailable\r\nRetry-After: 5\r\nCache-Control: no-store\r\n"             \
    "Content-Type: text/plain\r\n\r\n"
#define BODY "Sign-in is not available at the moment."

static const struct guard_rules rules = {.params_max = 4096};
static struct config_listener listener;
static struct refusal refusal;
static struct guard guard;
static int ends[2];

static void open_all(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    cr_assert_eq(refusal_open(&refusal, REASON_OVERLOAD), 0);
}

static void close_all(void)
{
    guard_clear(&guard);
    refusal_close(&refusal);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* A request with this id and these two parameters, as it came through the guard. */
static void read_request(unsigned id, const char *method, const char *forwarded)
{
    const unsigned char hi = (unsigned char)(id >> 8);
    const unsigned char lo = (unsigned char)id;
    const unsigned char begin[] = {1, 1, hi, lo, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0};
    struct buf bytes = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    const size_t len = 2 + 14 + strlen(method) + 2 + 8 + strlen(forwarded);
    const unsigned char params[] = {1, 4, hi, lo, 0, (unsigned char)len, 0, 0};
    const unsigned char end[] = {1, 4, hi, lo, 0, 0, 0, 0};
    buf_append(&bytes, begin, sizeof begin);
    buf_append(&bytes, params, sizeof params);
    buf_append_byte(&bytes, 14);
    buf_append_byte(&bytes, (unsigned char)strlen(method));
    buf_append_str(&bytes, "REQUEST_METHOD");
    buf_append_str(&bytes, method);
    buf_append_byte(&bytes, 8);
    buf_append_byte(&bytes, (unsigned char)strlen(forwarded));
    buf_append_str(&bytes, "X_METHOD");
    buf_append_str(&bytes, forwarded);
    buf_append(&bytes, end, sizeof end);
    guard_clear(&guard);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
    buf_clear(&bytes);
}

/* The text of the one answer that came, whose every record must carry this id. */
static const char *answer(unsigned id)
{
    static char text[1024];
    unsigned char bytes[1024];
    size_t text_len = 0;
    size_t at = 0;
    bool ended = false;
    const ssize_t n = recv(ends[1], bytes, sizeof bytes, 0);
    cr_assert_gt(n, 0);
    while (at < (size_t)n) {
        cr_assert_not(ended, "nothing comes after END_REQUEST");
        const unsigned char *head = bytes + at;
        const size_t len = (size_t)head[4] << 8 | head[5];
        cr_assert_eq(head[0], 1);
        cr_assert_eq((unsigned)head[2] << 8 | head[3], id);
        cr_assert(head[1] == 6 || head[1] == 3);
        ended = head[1] == 3;
        if (ended) {
            cr_assert_eq(len, 8);
            cr_assert_arr_eq(head + 8, "\0\0\0\0\0\0\0\0", 8);
        } else {
            memcpy(text + text_len, head + 8, len);
            text_len += len;
        }
        at += 8 + len + head[6];
    }
    cr_assert(ended);
    cr_assert_eq(at, (size_t)n);
    text[text_len] = '\0';
    return text;
}

static const char *refused(unsigned id, const char *method, const char *forwarded)
{
    read_request(id, method, forwarded);
    cr_assert_eq(refusal_send(&refusal, &listener, &guard, ends[0]), 0);
    return answer(id);
}

Test(send, the_whole_answer_with_the_id_of_its_request, .init = open_all, .fini = close_all)
{
    cr_assert_str_eq(refused(1, "GET", "HEAD"), HEAD BODY);
    cr_assert_str_eq(refused(0xfffe, "POST", ""), HEAD BODY);
    cr_assert_str_eq(refused(2, "head", ""), HEAD BODY, "a method of another name");
}

Test(send, a_head_request_has_no_body, .init = open_all, .fini = close_all)
{
    cr_assert_str_eq(refused(258, "HEAD", "GET"), HEAD);
}

Test(send, the_method_that_a_proxy_in_front_tells, .init = open_all, .fini = close_all)
{
    static char parameter[] = "X_METHOD";
    listener.forwarded.method = parameter;
    cr_assert_str_eq(refused(1, "GET", "HEAD"), HEAD);
    cr_assert_str_eq(refused(1, "HEAD", "GET"), HEAD BODY);
    static char absent[] = "X_OTHER";
    listener.forwarded.method = absent;
    cr_assert_str_eq(refused(1, "HEAD", "HEAD"), HEAD BODY, "which is not there");
}

Test(send, what_cannot_be_written_whole_is_a_failure, .init = open_all, .fini = close_all)
{
    static const char bytes[65536];
    read_request(1, "GET", "");
    while (send(ends[0], bytes, sizeof bytes, MSG_NOSIGNAL) > 0) {
    }
    cr_assert_eq(refusal_send(&refusal, &listener, &guard, ends[0]), -1);
    (void)shutdown(ends[0], SHUT_WR);
    cr_assert_eq(refusal_send(&refusal, &listener, &guard, ends[0]), -1);
}

Test(open, only_of_a_reason_without_a_challenge)
{
    struct refusal other = {0};
    cr_assert_eq(refusal_open(&other, REASON_REPLAY), -1);
    cr_assert_eq(refusal_open(&other, REASON_OK), -1);
    refusal_close(&other);
}
