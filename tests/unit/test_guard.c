#include "serve/guard.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 4096 };

static const struct guard_rules rules = {.params_max = MAX};

/* A FastCGI record with padding, appended to `out`. */
static void put(struct buf *out, int type, int id, const void *content, size_t len, int padding)
{
    const unsigned char head[] = {1,
                                  (unsigned char)type,
                                  (unsigned char)(id >> 8),
                                  (unsigned char)id,
                                  (unsigned char)(len >> 8),
                                  (unsigned char)len,
                                  (unsigned char)padding,
                                  0};
    buf_append(out, head, sizeof head);
    buf_append(out, content, len);
    for (int i = 0; i < padding; i++) {
        buf_append_byte(out, 0xaa);
    }
}

static void put_begin(struct buf *out, int role, int flags)
{
    const unsigned char begin[8] = {0, (unsigned char)role, (unsigned char)flags};
    put(out, 1, 1, begin, sizeof begin, 0);
}

static void put_pair(struct buf *out, const char *parameter, const char *value)
{
    buf_append_byte(out, (unsigned char)strlen(parameter));
    buf_append_byte(out, (unsigned char)strlen(value));
    buf_append_str(out, parameter);
    buf_append_str(out, value);
}

/* A whole request with these parameter bytes. */
static struct buf request(int role, struct span params, int padding)
{
    struct buf out = {.max = 1 << 20};
    put_begin(&out, role, 1);
    put(&out, 4, 1, params.ptr, params.len, padding);
    put(&out, 4, 1, "", 0, padding);
    if (role == GUARD_RESPONDER) {
        put(&out, 5, 1, "", 0, padding);
    }
    return out;
}

static struct buf good_params(void)
{
    struct buf params = {0};
    put_pair(&params, "HTTP_HOST", "www.example.test");
    put_pair(&params, "REQUEST_METHOD", "GET");
    return params;
}

/* Feeds `bytes` in pieces of `step`; the guard's verdict on all of them. */
static enum guard_state feed(struct guard *guard, struct span bytes, size_t step, size_t *used,
                             enum guard_cause *cause)
{
    enum guard_state state = GUARD_MORE;
    size_t at = 0;
    *used = 0;
    while (at < bytes.len && state == GUARD_MORE) {
        const size_t len = bytes.len - at < step ? bytes.len - at : step;
        size_t one = 0;
        state = guard_read(guard, span_make(bytes.ptr + at, len), &one, cause);
        at += one;
        *used = at;
        if (state == GUARD_BAD) {
            return state;
        }
    }
    return state;
}

static void check_bad(struct span bytes, enum guard_cause expected, const char *why)
{
    for (size_t step = 1; step <= bytes.len; step = step < 9 ? step + 1 : step * 2) {
        struct guard guard = {0};
        enum guard_cause cause = GUARD_NONE;
        size_t used = 0;
        guard_start(&guard, &rules);
        cr_assert_eq(feed(&guard, bytes, step, &used, &cause), GUARD_BAD, "%s, step %zu", why,
                     step);
        cr_assert_eq(cause, expected, "%s, step %zu: %s", why, step, guard_code(cause));
        guard_clear(&guard);
    }
}

Test(read, a_good_request_passes_in_any_pieces_and_with_any_padding)
{
    for (int role = GUARD_RESPONDER; role <= GUARD_AUTHORIZER; role++) {
        for (int padding = 0; padding < 256; padding += 51) {
            struct buf params = good_params();
            struct buf bytes = request(role, buf_span(&params), padding);
            for (size_t step = 1; step <= bytes.len; step++) {
                struct guard guard = {0};
                enum guard_cause cause = GUARD_NONE;
                size_t used = 0;
                guard_start(&guard, &rules);
                cr_assert_eq(feed(&guard, buf_span(&bytes), step, &used, &cause), GUARD_DONE);
                cr_assert_eq(used, bytes.len);
                cr_assert(span_equal(buf_span(&guard.params), buf_span(&params)));
                cr_assert_eq((int)guard.role, role);
                cr_assert(guard.keep);
                guard_clear(&guard);
            }
            buf_clear(&params);
            buf_clear(&bytes);
        }
    }
}

Test(read, every_cut_waits_for_more_and_is_then_a_cut)
{
    struct buf params = good_params();
    struct buf bytes = request(GUARD_RESPONDER, buf_span(&params), 3);
    for (size_t len = 0; len < bytes.len; len++) {
        struct guard guard = {0};
        enum guard_cause cause = GUARD_NONE;
        size_t used = 0;
        guard_start(&guard, &rules);
        cr_assert_eq(feed(&guard, span_make(bytes.ptr, len), 7, &used, &cause), GUARD_MORE);
        cr_assert_eq(guard_end(&guard), len == 0 ? GUARD_EMPTY : GUARD_CUT);
        guard_clear(&guard);
    }
    buf_clear(&params);
    buf_clear(&bytes);
}

Test(read, parameters_may_span_records)
{
    struct buf params = good_params();
    struct buf bytes = {0};
    put_begin(&bytes, GUARD_AUTHORIZER, 0xfe); /* every flag but KEEP_CONN */
    for (size_t i = 0; i < params.len; i++) {
        put(&bytes, 4, 1, params.ptr + i, 1, 2);
    }
    put(&bytes, 4, 1, "", 0, 0);
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    guard_start(&guard, &rules);
    cr_assert_eq(feed(&guard, buf_span(&bytes), 1000, &used, &cause), GUARD_DONE);
    cr_assert(span_equal(buf_span(&guard.params), buf_span(&params)));
    cr_assert_not(guard.keep);
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
}

Test(read, a_record_may_be_as_long_as_records_are)
{
    static const struct guard_rules wide = {.params_max = 1 << 17};
    static const unsigned char head[] = {1, 0x80, 0, 0xff, 0xf0, 'A'};
    struct buf params = {.max = 1 << 17};
    buf_append(&params, head, sizeof head);
    while (params.len < sizeof head + 0xfff0) {
        buf_append_byte(&params, 'v');
    }
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 7);
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    guard_start(&guard, &wide);
    cr_assert_eq(feed(&guard, buf_span(&bytes), 1000, &used, &cause), GUARD_DONE);
    cr_assert_eq(used, bytes.len);
    cr_assert(span_equal(buf_span(&guard.params), buf_span(&params)));
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
}

Test(read, the_stdin_that_may_follow_is_empty)
{
    struct buf params = good_params();
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
    struct buf stray = {0};
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    put(&stray, 5, 1, "x", 1, 0);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&stray), &used, &cause), GUARD_BAD);
    cr_assert_eq(cause, GUARD_TYPE);
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
    buf_clear(&stray);
}

Test(read, pipelined_requests_are_read_one_after_the_other)
{
    struct buf params = good_params();
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
    const size_t first = bytes.len;
    put(&bytes, 5, 1, "", 0, 5); /* the empty STDIN that may follow */
    const size_t second_at = bytes.len;
    struct buf second = request(GUARD_RESPONDER, buf_span(&params), 0);
    buf_append_span(&bytes, buf_span(&second));
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
    cr_assert_eq(used, first);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, span_make(bytes.ptr + first, bytes.len - first), &used, &cause),
                 GUARD_DONE);
    cr_assert_eq(used, bytes.len - first);
    cr_assert_eq(guard.role, GUARD_RESPONDER);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, span_make(bytes.ptr + first, second_at - first), &used, &cause),
                 GUARD_BAD, "a second empty STDIN, or one after a RESPONDER, is a stray record");
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
    buf_clear(&second);
}

Test(read, one_empty_stdin_may_follow_an_authorizer_not_two_and_not_anothers)
{
    struct buf params = good_params();
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
    struct buf stray = {0};
    put(&stray, 5, 1, "", 0, 0);
    put(&stray, 5, 1, "", 0, 0);
    for (int id = 1; id <= 2; id++) {
        struct guard guard = {0};
        enum guard_cause cause = GUARD_NONE;
        size_t used = 0;
        guard_start(&guard, &rules);
        cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
        guard_start(&guard, &rules);
        stray.ptr[3] = (unsigned char)id;
        cr_assert_eq(guard_read(&guard, span_make(stray.ptr, 8), &used, &cause),
                     id == 1 ? GUARD_MORE : GUARD_BAD);
        if (id == 1) {
            cr_assert_eq(guard_end(&guard), GUARD_EMPTY, "it belongs to the request before");
            cr_assert_eq(guard_read(&guard, span_make(stray.ptr + 8, 8), &used, &cause), GUARD_BAD);
        }
        guard_clear(&guard);
    }
    buf_clear(&params);
    buf_clear(&bytes);
    buf_clear(&stray);
}

Test(read, stray_records_are_refused)
{
    static const unsigned char begin_8[8] = {0, 2, 1};
    static const unsigned char role_0[8] = {0, 0, 1};
    static const unsigned char role_3[8] = {0, 3, 1};
    static const unsigned char role_258[8] = {1, 2, 1};
    static const struct {
        const char *why;
        int type;
        int id;
        const void *content;
        size_t len;
        enum guard_cause cause;
    } first[] = {
        {"GET_VALUES", 9, 0, "", 0, GUARD_MANAGEMENT},
        {"GET_VALUES with a request's id", 9, 1, "", 0, GUARD_MANAGEMENT},
        {"an unknown type", 99, 1, "", 0, GUARD_MANAGEMENT},
        {"BEGIN with id 0", 1, 0, begin_8, 8, GUARD_MANAGEMENT},
        {"PARAMS first", 4, 1, "", 0, GUARD_TYPE},
        {"STDIN first", 5, 1, "", 0, GUARD_TYPE},
        {"ABORT first", 2, 1, "", 0, GUARD_TYPE},
        {"type 0", 0, 1, "", 0, GUARD_TYPE},
        {"BEGIN of 7 bytes", 1, 1, begin_8, 7, GUARD_BEGIN},
        {"BEGIN of 0 bytes", 1, 1, "", 0, GUARD_BEGIN},
        {"role 0", 1, 1, role_0, 8, GUARD_ROLE},
        {"role FILTER", 1, 1, role_3, 8, GUARD_ROLE},
        {"role 258", 1, 1, role_258, 8, GUARD_ROLE},
    };
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++) {
        struct buf bytes = {0};
        put(&bytes, first[i].type, first[i].id, first[i].content, first[i].len, 0);
        check_bad(buf_span(&bytes), first[i].cause, first[i].why);
        buf_clear(&bytes);
    }
    static const struct {
        const char *why;
        int type;
        int id;
        size_t len;
        enum guard_cause cause;
    } later[] = {
        {"a second BEGIN", 1, 1, 8, GUARD_TYPE},
        {"ABORT", 2, 1, 0, GUARD_TYPE},
        {"STDIN before the parameters are over", 5, 1, 0, GUARD_TYPE},
        {"DATA", 8, 1, 0, GUARD_TYPE},
        {"STDOUT", 6, 1, 0, GUARD_TYPE},
        {"another request's PARAMS", 4, 2, 0, GUARD_ID},
        {"another request's PARAMS, 256 higher", 4, 257, 0, GUARD_ID},
        {"a management record", 9, 0, 0, GUARD_MANAGEMENT},
        {"an unknown type", 200, 1, 0, GUARD_MANAGEMENT},
    };
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        struct buf bytes = {0};
        put_begin(&bytes, GUARD_AUTHORIZER, 0);
        put(&bytes, later[i].type, later[i].id, "12345678", later[i].len, 0);
        check_bad(buf_span(&bytes), later[i].cause, later[i].why);
        buf_clear(&bytes);
    }
}

Test(read, another_version_is_refused)
{
    struct buf params = good_params();
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
    bytes.ptr[0] = 2;
    check_bad(buf_span(&bytes), GUARD_VERSION, "version 2");
    bytes.ptr[0] = 1;
    bytes.ptr[16] = 0;
    check_bad(buf_span(&bytes), GUARD_VERSION, "version 0 in the second record");
    buf_clear(&params);
    buf_clear(&bytes);
}

Test(read, a_body_is_refused)
{
    struct buf params = good_params();
    struct buf bytes = {0};
    put_begin(&bytes, GUARD_RESPONDER, 0);
    put(&bytes, 4, 1, params.ptr, params.len, 0);
    put(&bytes, 4, 1, "", 0, 0);
    put(&bytes, 5, 1, "x", 1, 0);
    check_bad(buf_span(&bytes), GUARD_BODY, "a body");
    buf_clear(&params);
    buf_clear(&bytes);
}

static void check_params(const void *ptr, size_t len, enum guard_cause cause, const char *why)
{
    struct buf bytes = request(GUARD_AUTHORIZER, span_make(ptr, len), 0);
    check_bad(buf_span(&bytes), cause, why);
    buf_clear(&bytes);
}

Test(params, impossible_lengths_are_refused)
{
    check_params("\x01", 1, GUARD_LENGTH, "a lone length");
    check_params("\x01\x01"
                 "A",
                 3, GUARD_LENGTH, "a value that is not there");
    check_params("\x05\x00"
                 "AB",
                 4, GUARD_LENGTH, "half a parameter");
    check_params("\x80\x00", 2, GUARD_LENGTH, "half a long length");
    check_params("\x01\x80\x00\x00", 4, GUARD_LENGTH, "three quarters of a value's length");
    check_params("\x03\x00"
                 "AB",
                 4, GUARD_LENGTH, "a parameter one byte short");
    check_params("\xc0\x00\x00\x01\x00"
                 "A",
                 6, GUARD_LENGTH, "1 GB and a byte");
    check_params("\xff\xff\xff\xff\xff\xff\xff\xff"
                 "AB",
                 10, GUARD_LENGTH, "2 GB twice");
    check_params("\x7f\xff\xff\xff\xff"
                 "AB",
                 7, GUARD_LENGTH, "2 GB of value");
    check_params("\x80\x00\x00\x01\x80\x00\x00\x02"
                 "AB",
                 10, GUARD_LENGTH, "one byte short");
}

Test(params, nothing_is_read_of_the_request_before)
{
    struct buf params = good_params();
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
    struct buf second = request(GUARD_AUTHORIZER, span_of("\x01"), 0);
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&second), &used, &cause), GUARD_BAD);
    cr_assert_eq(cause, GUARD_LENGTH);
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
    buf_clear(&second);
}

Test(params, what_could_deceive_is_refused)
{
    check_params("\x00\x01"
                 "A",
                 3, GUARD_PARAMETER, "a parameter without letters");
    check_params("\x02\x01"
                 "A=B",
                 5, GUARD_PARAMETER, "= in a parameter");
    check_params("\x02\x01"
                 "A\0B",
                 5, GUARD_PARAMETER, "NUL in a parameter");
    check_params("\x01\x02"
                 "AB\0",
                 5, GUARD_PARAMETER, "NUL in a value");
    char name[2 + 300];
    memset(name, 'A', sizeof name);
    struct buf params = {0};
    buf_append(&params, "\x80\x00\x01\x01\x00", 5); /* 257 bytes */
    buf_append(&params, name, 257);
    check_params(params.ptr, params.len, GUARD_PARAMETER, "257 bytes");
    params.ptr[3] = 0; /* 256 */
    struct buf bytes = request(GUARD_AUTHORIZER, span_make(params.ptr, params.len - 1), 0);
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE, "256 bytes pass");
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
}

Test(params, a_decider_twice_is_refused_and_named)
{
    static const char *const deciders[] = {"HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_HOST",
                                           "REMOTE_ADDR",        "HTTPS",       "REQUEST_URI",
                                           "REQUEST_METHOD",     "UNIQUE_ID"};
    for (size_t i = 0; i < sizeof deciders / sizeof deciders[0]; i++) {
        struct buf params = {0};
        put_pair(&params, deciders[i], "x");
        put_pair(&params, "OTHER", "y");
        put_pair(&params, deciders[i], "x");
        check_params(params.ptr, params.len, GUARD_DUPLICATE, deciders[i]);
        struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
        struct guard guard = {0};
        enum guard_cause cause = GUARD_NONE;
        size_t used = 0;
        guard_start(&guard, &rules);
        cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_BAD);
        cr_assert_str_eq(guard.culprit, deciders[i]);
        guard_clear(&guard);
        buf_clear(&params);
        buf_clear(&bytes);
    }
    struct buf params = {0};
    put_pair(&params, "HTTP_ACCEPT", "x");
    put_pair(&params, "HTTP_ACCEPT", "y");
    struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
    struct guard guard = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE,
                 "others may come twice");
    guard_clear(&guard);
    buf_clear(&params);
    buf_clear(&bytes);
}

Test(params, the_ceiling_is_exact)
{
    char value[MAX];
    memset(value, 'v', sizeof value);
    for (size_t total = MAX; total <= MAX + 1; total++) {
        const size_t len = total - 6;
        struct buf params = {.max = 2 * MAX};
        const unsigned char head[] = {1,  0x80, 0, (unsigned char)(len >> 8), (unsigned char)len,
                                      'A'};
        buf_append(&params, head, sizeof head);
        buf_append(&params, value, len);
        if (total > MAX) {
            check_params(params.ptr, params.len, GUARD_TOO_LARGE, "one byte over the ceiling");
        } else {
            struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
            struct guard guard = {0};
            enum guard_cause cause = GUARD_NONE;
            size_t used = 0;
            guard_start(&guard, &rules);
            cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
            guard_clear(&guard);
            buf_clear(&bytes);
        }
        buf_clear(&params);
    }
}

Test(params, what_decides_only_at_this_listener_is_refused_twice_there)
{
    static const struct guard_rules forwarding = {
        .params_max = MAX,
        .also = {{(const unsigned char *)"HTTP_X_URI", 10},
                 {NULL, 0},
                 {(const unsigned char *)"ID", 2}}};
    static const char *const parameters[] = {"HTTP_X_URI", "ID", "OTHER"};
    for (size_t i = 0; i < 3; i++) {
        struct buf params = {0};
        put_pair(&params, parameters[i], "x");
        put_pair(&params, "HTTP_HOST", "y");
        put_pair(&params, "UNIQUE_ID", "z");
        put_pair(&params, parameters[i], "x");
        struct buf bytes = request(GUARD_AUTHORIZER, buf_span(&params), 0);
        for (int here = 0; here < 2; here++) {
            struct guard guard = {0};
            enum guard_cause cause = GUARD_NONE;
            size_t used = 0;
            guard_start(&guard, here ? &forwarding : &rules);
            const enum guard_state state = guard_read(&guard, buf_span(&bytes), &used, &cause);
            cr_assert_eq(state, here && i < 2 ? GUARD_BAD : GUARD_DONE, "%s", parameters[i]);
            cr_assert_eq(cause, here && i < 2 ? GUARD_DUPLICATE : GUARD_NONE);
            cr_assert_str_eq(guard.culprit, here && i < 2 ? parameters[i] : "");
            guard_clear(&guard);
        }
        buf_clear(&params);
        buf_clear(&bytes);
    }
}

/* What guard_format gives for a request of `len` bytes of parameters, in one piece. */
static int format(struct guard *guard, size_t len, struct buf *out)
{
    static unsigned char bytes[GUARD_CHUNKS_MAX * 65528 + 1];
    static const struct guard_rules wide = {.params_max = sizeof bytes};
    struct guard_records records;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)(i % 251);
    }
    guard_start(guard, &wide);
    guard->id = 0x1234;
    guard->role = GUARD_RESPONDER;
    buf_append(&guard->params, bytes, len);
    if (guard_format(guard, &records) != 0) {
        return -1;
    }
    for (size_t i = 0; i < records.count; i++) {
        buf_append(out, records.parts[i].iov_base, records.parts[i].iov_len);
    }
    cr_assert_eq(out->len, records.len);
    return 0;
}

Test(find, the_value_of_the_first_parameter_of_that_name)
{
    struct guard guard = {0};
    struct buf bytes = {0};
    struct buf params = {0};
    enum guard_cause cause = GUARD_NONE;
    size_t used = 0;
    put_pair(&params, "X_ONE_MORE", "1");
    put_pair(&params, "X_ONE", "2");
    put_pair(&params, "X_NONE", "");
    put_pair(&params, "X_ONE", "3");
    put_begin(&bytes, 2, 0);
    put(&bytes, 4, 1, params.ptr, params.len, 0);
    put(&bytes, 4, 1, "", 0, 0);
    guard_start(&guard, &rules);
    cr_assert_eq(guard_read(&guard, buf_span(&bytes), &used, &cause), GUARD_DONE);
    cr_assert(span_equal(guard_find(&guard, span_of("X_ONE")), span_of("2")));
    cr_assert_not_null(guard_find(&guard, span_of("X_NONE")).ptr, "it is there, and empty");
    cr_assert_null(guard_find(&guard, span_of("X_ON")).ptr);
    cr_assert_null(guard_find(&guard, span_of("x_one")).ptr);
    buf_clear(&bytes);
    buf_clear(&params);
    guard_clear(&guard);
}

Test(format, begin_then_params_without_padding_then_the_empty_one)
{
    static const unsigned char begin[] = {1, 1, 0x12, 0x34, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0};
    static const unsigned char full[] = {1, 4, 0x12, 0x34, 0xff, 0xf8, 0, 0};
    static const unsigned char one[] = {1, 4, 0x12, 0x34, 0, 1, 0, 0};
    static const unsigned char none[] = {1, 4, 0x12, 0x34, 0, 0, 0, 0};
    struct guard guard = {0};
    struct buf out = {.max = 1 << 20};
    cr_assert_eq(format(&guard, 65529, &out), 0);
    cr_assert_eq(out.len, 16 + 8 + 65528 + 8 + 1 + 8);
    cr_assert_arr_eq(out.ptr, begin, 16);
    cr_assert_arr_eq(out.ptr + 16, full, 8);
    cr_assert_arr_eq(out.ptr + 24 + 65528, one, 8);
    cr_assert_arr_eq(out.ptr + 33 + 65528, none, 8);
    buf_reset(&out);
    cr_assert_eq(format(&guard, 0, &out), 0);
    cr_assert_eq(out.len, 24);
    cr_assert_arr_eq(out.ptr + 16, none, 8);
    guard_clear(&guard);
    buf_clear(&out);
}

Test(format, each_record_goes_on_where_the_one_before_ended)
{
    struct guard guard = {0};
    struct buf out = {.max = 1 << 20};
    cr_assert_eq(format(&guard, (size_t)GUARD_CHUNKS_MAX * 65528, &out), 0);
    for (size_t i = 0; i < GUARD_CHUNKS_MAX; i++) {
        cr_assert_arr_eq(out.ptr + 24 + i * 65536, guard.params.ptr + i * 65528, 65528);
    }
    guard_clear(&guard);
    buf_clear(&out);
}

Test(format, what_does_not_fit_is_refused)
{
    struct guard guard = {0};
    struct buf out = {.max = 1 << 20};
    cr_assert_eq(format(&guard, (size_t)GUARD_CHUNKS_MAX * 65528, &out), 0);
    cr_assert_eq(format(&guard, (size_t)GUARD_CHUNKS_MAX * 65528 + 1, &out), -1);
    guard_clear(&guard);
    buf_clear(&out);
}
