/*
 * Any bytes as a keytab: from a file they say the same as from memory, every key that is read has a
 * principal, what was read is read again when it is written as a keytab of its own, a cut file is
 * never more than the whole, and without memory or with a file that cannot be read there is no
 * keytab at all.
 */
#include "auth/keytab.h"

#include "require.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The linker brings these calls here. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
char *__real_strdup(const char *text);
ssize_t __real_read(int from, void *bytes, size_t len);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
char *__wrap_strdup(const char *text);
ssize_t __wrap_read(int from, void *bytes, size_t len);

enum reads { READ_FAILS, READ_INTERRUPTED, READ_SHORT, READS_WELL };

/* What goes wrong next: the allocation after so many, and the next read; an interrupted one is
 * followed by a short one, and that by good ones. */
static struct {
    bool on;
    size_t allocations;
    enum reads reads;
    int read_errno; /* 0: the file has become shorter */
} trouble;

static bool allocation_fails(void)
{
    return trouble.on && trouble.allocations-- == 0;
}

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

char *__wrap_strdup(const char *text)
{
    return allocation_fails() ? NULL : __real_strdup(text);
}

ssize_t __wrap_read(int from, void *bytes, size_t len)
{
    switch (trouble.on ? trouble.reads : READS_WELL) {
    case READ_FAILS:
        errno = trouble.read_errno;
        return trouble.read_errno != 0 ? -1 : 0;
    case READ_INTERRUPTED:
        trouble.reads = READ_SHORT;
        errno = EINTR;
        return -1;
    case READ_SHORT:
        trouble.reads = READS_WELL;
        return __real_read(from, bytes, 1);
    case READS_WELL:
        break;
    }
    return __real_read(from, bytes, len);
}

static void put_number(struct buf *out, uint32_t number, int bytes)
{
    while (bytes-- > 0) {
        buf_append_byte(out, (unsigned char)(number >> (8 * bytes)));
    }
}

static void put_counted(struct buf *out, struct span s)
{
    put_number(out, (uint32_t)s.len, 2);
    buf_append_span(out, s);
}

/* Takes a component or the realm off a principal, without its quoting; says what ended it. */
static char take_part(const char **text, struct buf *part)
{
    buf_reset(part);
    for (;;) {
        char c = *(*text)++;
        if (c == '/' || c == '@' || c == '\0') {
            return c;
        }
        if (c == '\\') {
            c = *(*text)++;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'b' ? '\b' : c == '0' ? '\0' : c;
        }
        buf_append_byte(part, (unsigned char)c);
    }
}

static void put_key(struct buf *out, const struct keytab_key *key)
{
    const char *text = key->principal;
    struct buf part = {0};
    struct buf names = {0};
    struct buf entry = {0};
    uint32_t count = 0;
    char ended;
    do {
        ended = take_part(&text, &part);
        require(ended != '\0');
        put_counted(&names, buf_span(&part));
        count++;
    } while (ended == '/');
    require(take_part(&text, &part) == '\0' && part.len > 0);
    put_number(&entry, count, 2);
    put_counted(&entry, buf_span(&part));
    buf_append_span(&entry, buf_span(&names));
    put_number(&entry, 1, 4);
    put_number(&entry, key->timestamp_s, 4);
    put_number(&entry, key->kvno & 0xff, 1);
    put_number(&entry, (uint32_t)key->enctype, 2);
    put_counted(&entry, span_make(key->key, key->key_len));
    put_number(&entry, key->kvno, 4);
    put_number(out, (uint32_t)entry.len, 4);
    buf_append_span(out, buf_span(&entry));
    buf_clear(&part);
    buf_clear(&names);
    buf_clear(&entry);
}

static void require_equal(const struct keytab *a, const struct keytab *b)
{
    require(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        const struct keytab_key *k = &a->keys[i];
        const struct keytab_key *l = &b->keys[i];
        require(strcmp(k->principal, l->principal) == 0);
        require(k->kvno == l->kvno && k->enctype == l->enctype);
        require(k->timestamp_s == l->timestamp_s && k->key_len == l->key_len);
        require(memcmp(k->key, l->key, k->key_len) == 0);
    }
}

static void check_keys(const struct keytab *keytab)
{
    struct buf file = {.max = 1 << 24};
    struct keytab *again = NULL;
    struct fault fault;
    buf_append(&file, "\x05\x02", 2);
    require(keytab->count > 0);
    for (size_t i = 0; i < keytab->count; i++) {
        const struct keytab_key *key = &keytab->keys[i];
        char text[KEYTAB_ENCTYPE_BYTES];
        const bool named = keytab_enctype_text(key->enctype, text) != text;
        require(named || strncmp(text, "enctype-", 8) == 0);
        require(keytab_enctype_weak(key->enctype) || key->enctype > 0);
        require(strchr(key->principal, '@') != NULL && key->key_len > 0);
        put_key(&file, key);
    }
    require(keytab_parse(buf_span(&file), "again", &again, &fault) == 0);
    require_equal(keytab, again);
    keytab_free(again);
    buf_clear(&file);
}

static uint32_t number_at(const unsigned char *p, size_t bytes)
{
    uint32_t number = 0;
    while (bytes-- > 0) {
        number = number << 8 | *p++;
    }
    return number;
}

/* The fields of an entry, where the format has them. */
static void check_entry(const unsigned char *entry, size_t len, const struct keytab_key *key)
{
    const unsigned char *p = entry + 2;
    for (uint32_t i = 0; i <= number_at(entry, 2); i++) {
        p += 2 + number_at(p, 2);
    }
    const unsigned char *end = p + 13 + number_at(p + 11, 2);
    const size_t left = (size_t)(entry + len - end);
    const uint32_t kvno = left < 4 ? 0 : number_at(end, 4);
    require((size_t)(end - entry) <= len);
    require(key->timestamp_s == number_at(p + 4, 4));
    require(key->kvno == (kvno != 0 ? kvno : p[8]));
    require(key->enctype == (int16_t)number_at(p + 9, 2));
    require(key->key_len == (size_t)(end - p) - 13);
    require(memcmp(key->key, p + 13, key->key_len) == 0);
}

/* A keytab that was read, against its bytes: no entry left out, none added. */
static void check_entries(struct span bytes, const struct keytab *keytab)
{
    size_t at = 2;
    for (size_t i = 0; at < bytes.len;) {
        const int64_t size = (int32_t)number_at(bytes.ptr + at, 4);
        if (size > 0) {
            require(i < keytab->count);
            check_entry(bytes.ptr + at + 4, (size_t)size, &keytab->keys[i]);
            i++;
        }
        at += 4 + (size_t)(size < 0 ? -size : size);
        require(at < bytes.len || (at == bytes.len && i == keytab->count));
    }
}

static char path[32]; /* of a file without a name */
static int fd;

/* The same bytes in a file. */
static void check_load(struct span bytes, const struct keytab *keytab, const struct fault *refused)
{
    struct keytab *loaded = NULL;
    struct fault fault;
    if (path[0] == '\0') {
        fd = memfd_create("keytab", MFD_CLOEXEC);
        require(fd >= 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        require(keytab_load("/proc/self/fd/none", &loaded, &fault) != 0);
        require(keytab_load("/", &loaded, &fault) != 0);
    }
    require(ftruncate(fd, 0) == 0 && pwrite(fd, bytes.ptr, bytes.len, 0) == (ssize_t)bytes.len);
    const int r = keytab_load(path, &loaded, &fault);
    require((r == 0) == (keytab != NULL));
    if (r == 0) {
        require_equal(keytab, loaded);
    } else {
        require(strcmp(fault.what, refused->what) == 0 && strcmp(fault.where, path) == 0);
    }
    keytab_free(loaded);
}

/* The file that check_load has written, first with an allocation that fails, then with reads that
 * do; reading that is only interrupted and short is no trouble. */
static void check_trouble(size_t len, const struct keytab *keytab)
{
    struct keytab *loaded = NULL;
    struct fault fault;
    trouble.on = true;
    trouble.reads = READS_WELL;
    trouble.allocations = len % 11;
    if (keytab_load(path, &loaded, &fault) == 0) {
        require(keytab != NULL);
        require_equal(keytab, loaded);
    } else {
        require(keytab == NULL || strstr(fault.what, "no memory") != NULL);
    }
    keytab_free(loaded);
    loaded = NULL;
    trouble.reads = READ_FAILS;
    trouble.allocations = SIZE_MAX;
    trouble.read_errno = len % 2 == 0 ? EIO : 0;
    require(keytab_load(path, &loaded, &fault) != 0 && loaded == NULL);
    require(len == 0 || strstr(fault.what, "cannot be read") != NULL);
    trouble.reads = READ_INTERRUPTED;
    require((keytab_load(path, &loaded, &fault) == 0) == (keytab != NULL));
    keytab_free(loaded);
    trouble.on = false;
}

static void check_cut(struct span bytes, const struct keytab *keytab)
{
    struct keytab *cut = NULL;
    struct fault fault;
    if (keytab_parse(span_make(bytes.ptr, bytes.len - 1), "cut", &cut, &fault) == 0) {
        require(cut->count <= keytab->count);
        keytab_free(cut);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct span bytes = span_make(data, size);
    struct keytab *keytab = NULL;
    struct fault fault;
    if (keytab_parse(bytes, "fuzz", &keytab, &fault) == 0) {
        check_entries(bytes, keytab);
        check_keys(keytab);
        check_cut(bytes, keytab);
    }
    check_load(bytes, keytab, &fault);
    check_trouble(size, keytab);
    keytab_free(keytab);
    return 0;
}
