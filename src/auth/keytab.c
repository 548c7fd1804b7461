#include "auth/keytab.h"

#include "auth/identity.h"
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COMPONENTS_MAX = 16, KEY_BYTES_MAX = 1024 };

/* Big-endian fields of one entry; running over the end is sticky and read once at the end. */
struct reader {
    const unsigned char *ptr;
    size_t left;
    bool failed;
};

static struct span read_bytes(struct reader *r, size_t len)
{
    if (r->failed || len > r->left) {
        r->failed = true;
        return (struct span){NULL, 0};
    }
    const struct span s = {r->ptr, len};
    r->ptr += len;
    r->left -= len;
    return s;
}

static uint32_t read_number(struct reader *r, size_t bytes)
{
    const struct span s = read_bytes(r, bytes);
    uint32_t number = 0;
    for (size_t i = 0; i < s.len; i++) {
        number = number << 8 | s.ptr[i];
    }
    return number;
}

static struct span read_counted(struct reader *r)
{
    return read_bytes(r, read_number(r, 2));
}

/* Parses one entry's bytes; NULL or what is wrong with it. */
static const char *parse_entry(struct reader *r, struct keytab_key *out)
{
    const uint32_t count = read_number(r, 2);
    if (count == 0 || count > COMPONENTS_MAX) {
        return "it has no components, or too many";
    }
    const struct span realm = read_counted(r);
    struct span components[COMPONENTS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        components[i] = read_counted(r);
    }
    (void)read_number(r, 4); /* the kind of principal */
    out->timestamp_s = read_number(r, 4);
    out->kvno = read_number(r, 1);
    out->enctype = (int16_t)read_number(r, 2);
    const struct span key = read_counted(r);
    if (r->failed) {
        return "it is shorter than its fields";
    }
    if (r->left >= 4) {
        const uint32_t kvno = read_number(r, 4);
        out->kvno = kvno != 0 ? kvno : out->kvno;
    }
    char principal[IDENTITY_TEXT_BYTES];
    if (realm.len == 0 || key.len == 0 || key.len > KEY_BYTES_MAX ||
        identity_unparse(components, count, realm, principal, sizeof principal) != 0) {
        return "its principal or its key has an impossible length";
    }
    out->principal = strdup(principal);
    out->key = malloc(key.len);
    if (out->principal == NULL || out->key == NULL) {
        return "no memory";
    }
    memcpy(out->key, key.ptr, key.len);
    out->key_len = key.len;
    return NULL;
}

static void key_clear(struct keytab_key *key)
{
    free(key->principal);
    if (key->key != NULL) {
        secret_wipe(key->key, key->key_len);
    }
    free(key->key);
    *key = (struct keytab_key){0};
}

/* Room for one more key; grows by doubling, without leaving keys behind (they are pointers). */
static struct keytab_key *append_key(struct keytab *keytab)
{
    if ((keytab->count & (keytab->count - 1)) == 0) {
        const size_t room = keytab->count == 0 ? 1 : keytab->count * 2;
        struct keytab_key *grown = calloc(room, sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        if (keytab->count > 0) {
            memcpy(grown, keytab->keys, keytab->count * sizeof *grown);
        }
        free(keytab->keys);
        keytab->keys = grown;
    }
    keytab->keys[keytab->count] = (struct keytab_key){0};
    return &keytab->keys[keytab->count++];
}

/* Takes the entries one after the other; NULL or what is wrong with the one at `*offset`. */
static const char *parse_entries(struct span file, struct keytab *keytab, size_t *offset)
{
    struct reader r = {file.ptr + 2, file.len - 2, false};
    while (r.left > 0) {
        *offset = (size_t)(r.ptr - file.ptr);
        if (r.left < 4) {
            return "the file ends inside an entry's length: half written, or cut";
        }
        const int64_t size = (int32_t)read_number(&r, 4);
        if (size == 0) {
            return "an entry has no length";
        }
        /* A negative length is a hole that a deleted entry left. */
        const struct span bytes = read_bytes(&r, (size_t)(size < 0 ? -size : size));
        if (r.failed) {
            return "the file ends inside an entry: half written, or cut";
        }
        if (size < 0) {
            continue;
        }
        struct keytab_key *key = append_key(keytab);
        if (key == NULL) {
            return "no memory";
        }
        struct reader entry = {bytes.ptr, bytes.len, false};
        const char *wrong = parse_entry(&entry, key);
        if (wrong != NULL) {
            return wrong;
        }
    }
    return keytab->count == 0 ? "it holds no key" : NULL;
}

int keytab_parse(struct span file, const char *where, struct keytab **out, struct fault *fault)
{
    if (file.len < 2 || file.ptr[0] != 5 || file.ptr[1] != 2) {
        return fault_set(fault, where,
                         "this is no keytab of format 0x0502 (the file is empty, or another kind)");
    }
    struct keytab *keytab = calloc(1, sizeof *keytab);
    if (keytab == NULL) {
        return fault_set(fault, where, "no memory");
    }
    size_t offset = 2;
    const char *wrong = parse_entries(file, keytab, &offset);
    if (wrong != NULL) {
        keytab_free(keytab);
        return fault_set(fault, where, "the keytab is refused at byte %zu: %s", offset, wrong);
    }
    *out = keytab;
    return 0;
}

/* Reads exactly what fstat promised, so that a file that changes meanwhile is seen as cut or
 * refused. */
static int read_whole(int fd, unsigned char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        const ssize_t n = read(fd, bytes + at, len - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? ESTALE : errno;
            return -1;
        }
        at += (size_t)n;
    }
    return 0;
}

int keytab_load(const char *path, struct keytab **out, struct fault *fault)
{
    int r = -1;
    unsigned char *bytes = NULL;
    size_t len = 0;
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        (void)fault_set(fault, path, "the keytab cannot be opened by uid %ld: %s", (long)geteuid(),
                        strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > KEYTAB_FILE_MAX) {
        const int unfit = S_ISDIR(st.st_mode) ? EISDIR : S_ISREG(st.st_mode) ? EFBIG : EINVAL;
        (void)fault_set(fault, path,
                        "this is no keytab: not a regular file, or over %d bytes (opened by uid "
                        "%ld: %s)",
                        KEYTAB_FILE_MAX, (long)geteuid(), strerror(unfit));
        goto out;
    }
    len = (size_t)st.st_size;
    bytes = malloc(len == 0 ? 1 : len);
    if (bytes == NULL) {
        (void)fault_set(fault, path, "no memory for the keytab");
        goto out;
    }
    if (read_whole(fd, bytes, len) != 0) {
        (void)fault_set(fault, path, "the keytab cannot be read by uid %ld: %s", (long)geteuid(),
                        strerror(errno));
        goto out;
    }
    r = keytab_parse(span_make(bytes, len), path, out, fault);
out:
    if (bytes != NULL) {
        secret_wipe(bytes, len);
    }
    free(bytes);
    if (fd >= 0) {
        (void)close(fd);
    }
    return r;
}

void keytab_free(struct keytab *keytab)
{
    if (keytab == NULL) {
        return;
    }
    for (size_t i = 0; i < keytab->count; i++) {
        key_clear(&keytab->keys[i]);
    }
    free(keytab->keys);
    free(keytab);
}

const char *keytab_enctype_text(int32_t enctype, char out[KEYTAB_ENCTYPE_BYTES])
{
    static const struct {
        int32_t enctype;
        const char *text;
    } known[] = {
        {1, "des-cbc-crc"},
        {2, "des-cbc-md4"},
        {3, "des-cbc-md5"},
        {16, "des3-cbc-sha1"},
        {17, "aes128-cts-hmac-sha1-96"},
        {18, "aes256-cts-hmac-sha1-96"},
        {19, "aes128-cts-hmac-sha256-128"},
        {20, "aes256-cts-hmac-sha384-192"},
        {23, "arcfour-hmac-md5"},
        {24, "arcfour-hmac-md5-56"},
        {25, "camellia128-cts-cmac"},
        {26, "camellia256-cts-cmac"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].enctype == enctype) {
            return known[i].text;
        }
    }
    (void)snprintf(out, KEYTAB_ENCTYPE_BYTES, "enctype-%d", (int)enctype);
    return out;
}

bool keytab_enctype_weak(int32_t enctype)
{
    switch (enctype) {
    case 1:
    case 2:
    case 3:
    case 5:
    case 7:
    case 16:
    case 23:
    case 24:
        return true;
    default:
        return enctype <= 0; /* the private ones: RC4's relatives of old */
    }
}
