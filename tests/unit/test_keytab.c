#include "auth/keytab.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void put_number(struct buf *out, unsigned long number, int bytes)
{
    while (bytes-- > 0) {
        buf_append_byte(out, (unsigned char)(number >> 8 * bytes));
    }
}

static void put_counted(struct buf *out, const char *bytes, size_t len)
{
    put_number(out, len, 2);
    buf_append(out, bytes, len);
}

/* One entry for HTTP/<host>@EXAMPLE.TEST. */
static void put_entry(struct buf *out, const char *host, unsigned kvno, int enctype)
{
    struct buf entry = {0};
    put_number(&entry, 2, 2);
    put_counted(&entry, "EXAMPLE.TEST", 12);
    put_counted(&entry, "HTTP", 4);
    put_counted(&entry, host, strlen(host));
    put_number(&entry, 1, 4);
    put_number(&entry, 1700000000, 4);
    put_number(&entry, kvno & 0xff, 1);
    put_number(&entry, (unsigned long)enctype, 2);
    put_counted(&entry, "0123456789abcdef", 16);
    put_number(&entry, kvno, 4);
    put_number(out, entry.len, 4);
    buf_append_span(out, buf_span(&entry));
    buf_clear(&entry);
}

static struct buf make_file(void)
{
    struct buf file = {0};
    buf_append(&file, "\x05\x02", 2);
    put_entry(&file, "www.example.test", 3, 18);
    put_number(&file, (unsigned long)-40, 4); /* the hole that a deleted entry leaves */
    for (int i = 0; i < 40; i++) {
        buf_append_byte(&file, 0xee);
    }
    put_entry(&file, "www.example.test", 260, 17);
    return file;
}

Test(parse, reads_every_field_and_leaves_holes_out)
{
    struct buf file = make_file();
    struct keytab *keytab = NULL;
    struct fault fault;
    cr_assert_eq(keytab_parse(buf_span(&file), "test", &keytab, &fault), 0, "%s", fault.what);
    cr_assert_eq(keytab->count, 2);
    cr_assert_str_eq(keytab->keys[0].principal, "HTTP/www.example.test@EXAMPLE.TEST");
    cr_assert_eq(keytab->keys[0].kvno, 3);
    cr_assert_eq(keytab->keys[0].enctype, 18);
    cr_assert_eq(keytab->keys[0].timestamp_s, 1700000000);
    cr_assert_eq(keytab->keys[0].key_len, 16);
    cr_assert_eq(memcmp(keytab->keys[0].key, "0123456789abcdef", 16), 0);
    cr_assert_eq(keytab->keys[1].kvno, 260, "the long kvno counts where there is one");
    cr_assert_eq(keytab->keys[1].enctype, 17);
    keytab_free(keytab);
    buf_clear(&file);
}

Test(parse, a_file_cut_anywhere_inside_an_entry_is_refused)
{
    struct buf file = make_file();
    struct buf whole = {0};
    buf_append(&whole, "\x05\x02", 2);
    put_entry(&whole, "www.example.test", 3, 18);
    const size_t after_first = whole.len;
    const size_t after_hole = after_first + 44;
    for (size_t len = 0; len < file.len; len++) {
        struct keytab *keytab = NULL;
        struct fault fault;
        const int r = keytab_parse(span_make(file.ptr, len), "test", &keytab, &fault);
        if (len == after_first || len == after_hole) {
            cr_assert_eq(r, 0, "cut between entries it is a shorter keytab");
            cr_assert_eq(keytab->count, 1);
            keytab_free(keytab);
        } else {
            cr_assert_eq(r, -1, "cut at %zu", len);
        }
    }
    buf_clear(&file);
    buf_clear(&whole);
}

Test(parse, refuses_what_is_no_keytab)
{
    static const struct {
        const char *why;
        const char *bytes;
        size_t len;
        const char *says;
    } bad[] = {
        {"empty", "", 0, "0x0502"},
        {"version 1", "\x05\x01", 2, "0x0502"},
        {"text", "keytab", 6, "0x0502"},
        {"no entry", "\x05\x02", 2, "no key"},
        {"length 0", "\x05\x02\0\0\0\0", 6, "no length"},
        {"only a hole", "\x05\x02\xff\xff\xff\xff\x01", 7, "no key"},
        {"length 2 GB", "\x05\x02\x7f\xff\xff\xff", 6, "inside an entry"},
        {"hole of 2 GB", "\x05\x02\x80\0\0\0", 6, "inside an entry"},
        {"no components", "\x05\x02\0\0\0\x02\0\0", 8, "components"},
        {"65535 components", "\x05\x02\0\0\0\x02\xff\xff", 8, "components"},
        {"shorter than its fields", "\x05\x02\0\0\0\x04\0\x01\0\x09", 10, "fields"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct keytab *keytab = NULL;
        struct fault fault;
        cr_assert_eq(
            keytab_parse(span_make(bad[i].bytes, bad[i].len), "the.keytab", &keytab, &fault), -1,
            "%s", bad[i].why);
        cr_assert_null(keytab);
        cr_assert_str_eq(fault.where, "the.keytab");
        cr_assert_not_null(strstr(fault.what, bad[i].says), "%s: %s", bad[i].why, fault.what);
    }
}

Test(parse, every_flipped_bit_is_survived)
{
    struct buf file = make_file();
    for (size_t bit = 0; bit < file.len * 8; bit++) {
        struct keytab *keytab = NULL;
        struct fault fault;
        file.ptr[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (keytab_parse(buf_span(&file), "test", &keytab, &fault) == 0) {
            cr_assert(keytab->count >= 1 && keytab->count <= 2);
            keytab_free(keytab);
        }
        file.ptr[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    buf_clear(&file);
}

Test(load, names_path_uid_and_error)
{
    char path[] = "/tmp/spnegate-keytab.XXXXXX";
    struct keytab *keytab = NULL;
    struct fault fault;
    struct buf file = make_file();
    const int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, file.ptr, file.len), (ssize_t)file.len);
    cr_assert_eq(close(fd), 0);
    cr_assert_eq(keytab_load(path, &keytab, &fault), 0, "%s", fault.what);
    keytab_free(keytab);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(keytab_load(path, &keytab, &fault), -1);
    cr_assert_str_eq(fault.where, path);
    cr_assert_not_null(strstr(fault.what, "No such file"), "%s", fault.what);
    cr_assert_not_null(strstr(fault.what, "uid "), "%s", fault.what);
    cr_assert_eq(keytab_load("/tmp", &keytab, &fault), -1, "a directory is no keytab");
    cr_assert_eq(keytab_load("/dev/zero", &keytab, &fault), -1, "a device is no keytab");
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(keytab_load(path, &keytab, &fault), -1, "a FIFO is no keytab and hangs nobody");
    cr_assert_eq(unlink(path), 0);
    buf_clear(&file);
}

Test(enctype, weak_is_des_and_rc4_and_nothing_newer)
{
    static const int weak[] = {1, 2, 3, 16, 23, 24, 0, -128};
    static const int strong[] = {17, 18, 19, 20, 25, 26};
    char text[KEYTAB_ENCTYPE_BYTES];
    for (size_t i = 0; i < sizeof weak / sizeof weak[0]; i++) {
        cr_assert(keytab_enctype_weak(weak[i]), "%d", weak[i]);
    }
    for (size_t i = 0; i < sizeof strong / sizeof strong[0]; i++) {
        cr_assert_not(keytab_enctype_weak(strong[i]), "%d", strong[i]);
    }
    cr_assert_str_eq(keytab_enctype_text(18, text), "aes256-cts-hmac-sha1-96");
    cr_assert_str_eq(keytab_enctype_text(4711, text), "enctype-4711");
}
