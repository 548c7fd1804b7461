#include "auth/binding.h"

#include "base/secret.h"
#include "wire/http.h"

#include <errno.h>
#include <fcntl.h>
#include <hcrypto/evp.h>
#include <hcrypto/md5.h>
#include <rfc2459_asn1.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 256 * 1024 };

static bool same_oid(const heim_oid *a, const heim_oid *b)
{
    return a->length == b->length &&
           memcmp(a->components, b->components, a->length * sizeof a->components[0]) == 0;
}

/* Which hash a signature algorithm uses. MD5 and SHA-1 are replaced by SHA-256 (RFC 5929 4.1). */
static const EVP_MD *hash_of(const AlgorithmIdentifier *algorithm)
{
    const struct {
        const heim_oid *oid;
        const EVP_MD *(*hash)(void);
    } known[] = {
        {&asn1_oid_id_pkcs1_md5WithRSAEncryption, EVP_sha256},
        {&asn1_oid_id_pkcs1_sha1WithRSAEncryption, EVP_sha256},
        {&asn1_oid_id_secsig_sha_1WithRSAEncryption, EVP_sha256},
        {&asn1_oid_id_pkcs1_sha256WithRSAEncryption, EVP_sha256},
        {&asn1_oid_id_pkcs1_sha384WithRSAEncryption, EVP_sha384},
        {&asn1_oid_id_pkcs1_sha512WithRSAEncryption, EVP_sha512},
        {&asn1_oid_id_ecdsa_with_SHA1, EVP_sha256},
        {&asn1_oid_id_ecdsa_with_SHA256, EVP_sha256},
        {&asn1_oid_id_ecdsa_with_SHA384, EVP_sha384},
        {&asn1_oid_id_ecdsa_with_SHA512, EVP_sha512},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (same_oid(&algorithm->algorithm, known[i].oid)) {
            return known[i].hash();
        }
    }
    return NULL;
}

static void put_le32(unsigned char *out, size_t value)
{
    for (size_t i = 0; i < 4; i++) {
        out[i] = (unsigned char)(value >> 8 * i);
    }
}

/*
 * Bnd is the MD5 of gss_channel_bindings_struct with lengths in little-endian order: no addresses
 * (four words of 0), then the application data.
 */
static void bind_hash(const unsigned char *hash, size_t len, unsigned char out[BINDING_BYTES])
{
    static const char prefix[] = "tls-server-end-point:";
    unsigned char data_len[4];
    static const unsigned char no_addresses[4 * 4];
    MD5_CTX md5;
    put_le32(data_len, sizeof prefix - 1 + len);
    MD5_Init(&md5);
    MD5_Update(&md5, no_addresses, sizeof no_addresses);
    MD5_Update(&md5, data_len, sizeof data_len);
    MD5_Update(&md5, prefix, sizeof prefix - 1);
    MD5_Update(&md5, hash, len);
    MD5_Final(out, &md5);
}

static int bind_certificate(struct span der, const char *path, unsigned char out[BINDING_BYTES],
                            struct fault *fault)
{
    Certificate certificate;
    size_t used = 0;
    if (decode_Certificate(der.ptr, der.len, &certificate, &used) != 0) {
        return fault_set(fault, path, "the first certificate in it cannot be read");
    }
    const EVP_MD *hash = used == der.len ? hash_of(&certificate.signatureAlgorithm) : NULL;
    free_Certificate(&certificate);
    if (hash == NULL) {
        return fault_set(fault, path,
                         "its certificate's signature algorithm has no channel binding that is "
                         "defined; sign it with RSA or ECDSA and SHA-2");
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    if (EVP_Digest(der.ptr, der.len, digest, &len, hash, NULL) != 1) {
        return fault_set(fault, path, "no memory");
    }
    bind_hash(digest, len, out);
    return 0;
}

/* The base64 between the first pair of certificate lines, without its line ends. */
static int find_certificate(const char *text, struct buf *base64)
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    const char *from = strstr(text, begin);
    const char *to = from != NULL ? strstr(from, "-----END CERTIFICATE-----") : NULL;
    if (to == NULL) {
        return -1;
    }
    for (const char *p = from + sizeof begin - 1; p < to; p++) {
        if (strchr(" \t\r\n", *p) == NULL) {
            buf_append_byte(base64, (unsigned char)*p);
        }
    }
    return base64->failed || base64->len == 0 ? -1 : 0;
}

static int read_text(const char *path, struct buf *text, struct fault *fault)
{
    struct stat st;
    ssize_t n = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return fault_set(fault, path, "cannot be read by uid %ld: %s", (long)geteuid(),
                         strerror(errno));
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return fault_set(fault, path, "this is no certificate: not a regular file");
    }
    do {
        unsigned char bytes[4096];
        n = read(fd, bytes, sizeof bytes);
        if (n > 0) {
            buf_append(text, bytes, (size_t)n);
            secret_wipe(bytes, (size_t)n);
        }
    } while ((n > 0 && !text->failed) || (n < 0 && errno == EINTR));
    const int error = errno;
    (void)close(fd);
    buf_append_byte(text, '\0');
    if (n < 0 || text->failed) {
        return fault_set(fault, path, "cannot be read: %s",
                         n < 0 ? strerror(error) : "it is too large for a certificate");
    }
    return 0;
}

static int load_one(const char *path, unsigned char out[BINDING_BYTES], struct fault *fault)
{
    struct buf text = {.max = FILE_BYTES_MAX}; /* may hold the private key, too: wiped */
    struct buf base64 = {.max = FILE_BYTES_MAX};
    struct buf der = {.max = FILE_BYTES_MAX};
    int r = read_text(path, &text, fault);
    if (r == 0 && (text.ptr == NULL || find_certificate((const char *)text.ptr, &base64) != 0 ||
                   http_decode_base64(buf_span(&base64), &der) != REASON_OK)) {
        r = fault_set(fault, path, "holds no certificate in PEM (BEGIN CERTIFICATE)");
    }
    r = r == 0 ? bind_certificate(buf_span(&der), path, out, fault) : r;
    buf_clear(&text);
    buf_clear(&base64);
    buf_clear(&der);
    return r;
}

int binding_load(char *const *files, size_t count, struct binding_list *out, struct fault *fault)
{
    unsigned char(*items)[BINDING_BYTES] = calloc(count, sizeof *items);
    if (items == NULL) {
        return fault_set(fault, "", "no memory");
    }
    for (size_t i = 0; i < count; i++) {
        if (load_one(files[i], items[i], fault) != 0) {
            free(items);
            return -1;
        }
    }
    *out = (struct binding_list){items, count};
    return 0;
}

bool binding_matches(const struct binding_list *list, const unsigned char bnd[BINDING_BYTES])
{
    for (size_t i = 0; i < list->count; i++) {
        if (memcmp(list->items[i], bnd, BINDING_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

void binding_free(struct binding_list *list)
{
    free(list->items);
    *list = (struct binding_list){NULL, 0};
}
