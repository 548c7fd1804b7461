#include "auth/identity.h"

#include <criterion/criterion.h>
#include <string.h>

/* An exported krb5 name around `principal`. */
static struct buf exported(const char *principal, size_t len)
{
    static const unsigned char head[] = {0x04, 0x01, 0x00, 0x0b, 0x06, 0x09, 0x2a, 0x86,
                                         0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02};
    struct buf out = {0};
    buf_append(&out, head, sizeof head);
    for (int shift = 24; shift >= 0; shift -= 8) {
        buf_append_byte(&out, (unsigned char)(len >> shift));
    }
    buf_append(&out, principal, len);
    return out;
}

static enum reason read_as(const char *principal, size_t len, struct identity *out)
{
    struct buf token = exported(principal, len);
    const enum reason reason = identity_read(buf_span(&token), out);
    buf_clear(&token);
    return reason;
}

Test(read, takes_a_plain_principal_apart)
{
    struct identity id;
    cr_assert_eq(read_as("alice@EXAMPLE.TEST", 18, &id), REASON_OK);
    cr_assert_str_eq(id.principal, "alice@EXAMPLE.TEST");
    cr_assert_str_eq(identity_realm(&id), "EXAMPLE.TEST");
    cr_assert_eq(id.components, 1);
    cr_assert_eq(read_as("host/www@R", 10, &id), REASON_OK);
    cr_assert_eq(id.components, 2);
    cr_assert_eq(read_as("J\xc3\xb6rg Maier@R", 13, &id), REASON_OK, "UTF-8 and inner spaces");
}

Test(read, refuses_what_could_be_taken_for_another_user)
{
    static const struct {
        const char *why;
        const char *principal;
        size_t len;
    } bad[] = {
        {"a quoted @", "alice\\@CORP@EVIL", 16},
        {"a quoted slash", "a\\/b@R", 6},
        {"a quoted backslash", "a\\\\b@R", 6},
        {"a quoted newline", "a\\nb@R", 6},
        {"a second @", "alice@CORP@EVIL", 15},
        {"no realm", "alice", 5},
        {"an empty realm", "alice@", 6},
        {"nobody", "@R", 2},
        {"an empty component", "a//b@R", 6},
        {"an empty last component", "a/@R", 4},
        {"a newline", "a\nb@R", 5},
        {"a carriage return in the realm", "a@R\rX", 5},
        {"DEL", "a\x7f@R", 4},
        {"NUL", "a\0b@R", 5},
        {"a trailing NUL", "a@R\0", 4},
        {"a trailing space, which servers trim", "alice @R", 8},
        {"a leading space", " alice@R", 8},
        {"a trailing space in the realm", "alice@R ", 8},
        {"a byte that is no UTF-8", "al\xffice@R", 8},
        {"an overlong slash",
         "a\xc0\xaf"
         "b@R",
         6},
        {"a surrogate", "a\xed\xa0\x80@R", 6},
        {"beyond Unicode", "a\xf4\x90\x80\x80@R", 7},
        {"a cut character", "a\xc3@R", 4},
        {"a C1 control", "a\xc2\x85@R", 5},
        {"a line separator", "a\xe2\x80\xa8@R", 6},
        {"a right-to-left override", "a\xe2\x80\xae@R", 6},
        {"a left-to-right mark", "a\xe2\x80\x8e@R", 6},
        {"an Arabic letter mark", "a\xd8\x9c@R", 5},
        {"an invisible character", "a\xe2\x80\x8b@R", 6},
        {"a byte order mark",
         "\xef\xbb\xbf"
         "a@R",
         6},
        {"anonymous", "WELLKNOWN/ANONYMOUS@R", 21},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct identity id;
        cr_assert_eq(read_as(bad[i].principal, bad[i].len, &id), REASON_NAME_REFUSED, "%s",
                     bad[i].why);
        cr_assert_str_eq(id.user, "");
    }
}

Test(read, refuses_what_is_no_exported_krb5_name)
{
    struct identity id;
    struct buf good = exported("alice@EXAMPLE.TEST", 18);
    for (size_t len = 0; len < good.len; len++) {
        cr_assert_eq(identity_read(span_make(good.ptr, len), &id), REASON_NO_PRINCIPAL, "%zu", len);
    }
    buf_append_byte(&good, 'X');
    cr_assert_eq(identity_read(buf_span(&good), &id), REASON_NO_PRINCIPAL, "a byte left over");
    for (size_t i = 0; i < 19; i++) {
        struct buf altered = exported("alice@EXAMPLE.TEST", 18);
        altered.ptr[i] ^= 1;
        cr_assert_eq(identity_read(buf_span(&altered), &id), REASON_NO_PRINCIPAL, "byte %zu", i);
        buf_clear(&altered);
    }
    buf_clear(&good);
    char longest[IDENTITY_TEXT_BYTES + 1];
    memset(longest, 'a', sizeof longest);
    longest[1] = '@';
    cr_assert_eq(read_as(longest, IDENTITY_TEXT_BYTES - 1, &id), REASON_OK);
    cr_assert_eq(read_as(longest, IDENTITY_TEXT_BYTES, &id), REASON_NO_PRINCIPAL);
    cr_assert_eq(read_as("", 0, &id), REASON_NO_PRINCIPAL);
}

Test(apply_realms, strips_one_realm_from_plain_principals_only)
{
    char example[] = "EXAMPLE.TEST";
    char partner[] = "PARTNER.TEST";
    struct config_realm realms[] = {{example, CONFIG_USER_STRIP}, {partner, CONFIG_USER_FULL}};
    const struct config_site site = {.realms = {realms, 2}};
    static const struct {
        const char *principal;
        const char *user;
    } cases[] = {
        {"alice@EXAMPLE.TEST", "alice"},
        {"alice@PARTNER.TEST", "alice@PARTNER.TEST"},
        {"alice@OTHER.TEST", "alice@OTHER.TEST"},
        {"alice@example.test", "alice@example.test"},
        {"alice@EXAMPLE.TESTX", "alice@EXAMPLE.TESTX"},
        {"alice@XEXAMPLE.TEST", "alice@XEXAMPLE.TEST"},
        {"alice/admin@EXAMPLE.TEST", "alice/admin@EXAMPLE.TEST"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct identity id;
        cr_assert_eq(read_as(cases[i].principal, strlen(cases[i].principal), &id), REASON_OK);
        identity_apply_realms(&id, &site);
        cr_assert_str_eq(id.user, cases[i].user);
    }
}

Test(unparse, quotes_as_libkrb5_does)
{
    const struct span components[] = {span_of("a/b"), span_of("c@d\\"), span_make("\n\t\b\0", 4)};
    char out[64];
    cr_assert_eq(identity_unparse(components, 3, span_of("R"), out, sizeof out), 0);
    cr_assert_str_eq(out, "a\\/b/c\\@d\\\\/\\n\\t\\b\\0@R");
    for (size_t size = 1; size <= strlen("a\\/b/c\\@d\\\\/\\n\\t\\b\\0@R"); size++) {
        cr_assert_eq(identity_unparse(components, 3, span_of("R"), out, size), -1, "%zu", size);
    }
}
