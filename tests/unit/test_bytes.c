#include "base/bytes.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/secret.h"

#include <criterion/criterion.h>
#include <string.h>

Test(span, equal_compares_length_and_bytes)
{
    cr_assert(span_equal(span_of("abc"), span_of("abc")));
    cr_assert_not(span_equal(span_of("abc"), span_of("abd")));
    cr_assert_not(span_equal(span_of("abc"), span_of("ab")));
    cr_assert(span_equal(span_of(NULL), span_of("")));
}

Test(span, nocase_folds_ascii_letters_only)
{
    cr_assert(span_equal_nocase(span_of("NeGoTiAtE"), span_of("negotiate")));
    cr_assert_not(span_equal_nocase(span_of("@"), span_of("`")));
    cr_assert_not(span_equal_nocase(span_of("["), span_of("{")));
}

Test(span, copy_refuses_what_does_not_fit_and_nul)
{
    char out[4];
    cr_assert_eq(span_copy(span_of("abc"), out, sizeof out), 0);
    cr_assert_str_eq(out, "abc");
    cr_assert_eq(span_copy(span_of("abcd"), out, sizeof out), -1);
    cr_assert_str_eq(out, "");
    cr_assert_eq(span_copy(span_make("a\0b", 3), out, sizeof out), -1);
}

Test(buf, stops_at_its_ceiling_and_stays_failed)
{
    struct buf b = {.max = 10};
    buf_append_str(&b, "12345678");
    cr_assert_not(b.failed);
    buf_append_str(&b, "abc");
    cr_assert(b.failed);
    cr_assert_eq(b.len, 8);
    buf_append_str(&b, "x");
    cr_assert_eq(b.len, 8, "a failed buf takes nothing more");
    buf_reset(&b);
    buf_append_str(&b, "1234567890");
    cr_assert_not(b.failed, "exactly the ceiling fits");
    buf_clear(&b);
    cr_assert_eq(b.max, 10);
}

Test(buf, an_enormous_length_cannot_wrap)
{
    struct buf b = {0};
    buf_append_str(&b, "x");
    cr_assert_eq(buf_reserve(&b, (size_t)-1), -1);
    cr_assert(b.failed);
    buf_clear(&b);
}

Test(buf, grows_over_many_appends)
{
    struct buf b = {.max = 100000};
    for (int i = 0; i < 10000; i++) {
        buf_appendf(&b, "%04d", i);
    }
    cr_assert_not(b.failed);
    cr_assert_eq(b.len, 40000);
    cr_assert_eq(memcmp(b.ptr + 39996, "9999", 4), 0);
    buf_clear(&b);
}

Test(secret, sha256_of_parts_is_that_of_the_whole)
{
    /* FIPS 180-4, example "abc" */
    static const char expected[] =
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    cr_assert_eq(secret_init(), 0);
    const struct span parts[] = {span_of("a"), span_of(""), span_of("bc")};
    unsigned char hash[SECRET_SHA256_BYTES];
    char hex[2 * sizeof hash + 1];
    secret_sha256(hash, parts, 3);
    secret_hex(hex, hash, sizeof hash);
    cr_assert_str_eq(hex, expected);
}

Test(log, quote_escapes_what_could_forge_a_line)
{
    char out[32];
    cr_assert_str_eq(log_quote(span_make("a\n\"\\\x1b", 5), out, sizeof out),
                     "\"a\\x0a\\\"\\\\\\x1b\"");
    char tiny[6];
    cr_assert_str_eq(log_quote(span_of("abcdefgh"), tiny, sizeof tiny), "\"abc\"");
}

Test(log, rate_lets_a_burst_through_and_then_its_pace)
{
    struct log_rate rate = {.per_s = 10, .burst = 3};
    int allowed = 0;
    uint32_t skipped = 99;
    for (int i = 0; i < 100; i++) {
        allowed += log_rate_allow(&rate, 5000, &skipped) ? 1 : 0;
    }
    cr_assert_eq(allowed, 3);
    cr_assert_eq(skipped, 0);
    cr_assert(log_rate_allow(&rate, 5100, &skipped));
    cr_assert_eq(skipped, 97);
    cr_assert_not(log_rate_allow(&rate, 5100, NULL));
}

Test(reason, only_granted_is_200_and_granted_is_only_200)
{
    for (int r = 0; r < REASON_COUNT; r++) {
        const struct reason_info *info = reason_info((enum reason)r);
        cr_assert_eq(info->outcome == OUTCOME_GRANTED, info->status == 200, "%s", info->code);
        const int expected[] = {[OUTCOME_GRANTED] = 200,
                                [OUTCOME_CHALLENGED] = 401,
                                [OUTCOME_DENIED] = 403,
                                [OUTCOME_FAILED] = 401};
        if (info->outcome == OUTCOME_ERROR) {
            cr_assert(info->status == 503 || info->status == 500, "%s", info->code);
        } else {
            cr_assert_eq(info->status, expected[info->outcome], "%s", info->code);
        }
        cr_assert(strlen(info->hint) > 20, "%s has a hint", info->code);
    }
}

Test(reason, a_wild_value_is_internal_never_ok)
{
    cr_assert_str_eq(reason_info((enum reason)REASON_COUNT)->code, "internal");
    cr_assert_str_eq(reason_info((enum reason) - 1)->code, "internal");
}
