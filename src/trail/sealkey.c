#include "trail/sealkey.h"

#include "base/sync.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[16] = "spnegate-seal-1";

/* The file, byte for byte. */
struct sealkey_file {
    char magic[sizeof(magic)];
    uint64_t epoch;
    uint64_t from;
    uint64_t durable_seq;
    uint64_t has_next;
    char chain[24];
    unsigned char durable_hash[CHAIN_HASH_BYTES];
    unsigned char first[SECRET_SIGN_PUBLIC_BYTES];
    unsigned char current[SECRET_SIGN_KEY_BYTES];
    unsigned char next[SECRET_SIGN_KEY_BYTES];
    unsigned char check[SECRET_SHA256_BYTES]; /* of all before */
};

static_assert(sizeof(struct sealkey_file) == offsetof(struct sealkey_file, check) + 32,
              "no byte between the members is left to chance");

/* What is in force, and room for what is being read or written. */
struct sealkey_page {
    struct sealkey_file now;
    struct sealkey_file other;
};

static void file_check(const struct sealkey_file *file, unsigned char out[SECRET_SHA256_BYTES])
{
    struct span bytes = span_make(file, offsetof(struct sealkey_file, check));

    secret_sha256(out, &bytes, 1);
}

/* Says what is in force to those who may know. */
static void publish(struct sealkey *keys)
{
    const struct sealkey_file *now = &keys->page->now;
    const size_t half = SECRET_SIGN_KEY_BYTES - SECRET_SIGN_PUBLIC_BYTES;

    keys->found = true;
    keys->has_next = now->has_next != 0;
    keys->epoch = now->epoch;
    keys->from = now->from;
    keys->durable_seq = now->durable_seq;
    memcpy(keys->chain, now->chain, sizeof(keys->chain));
    memcpy(keys->durable_hash, now->durable_hash, CHAIN_HASH_BYTES);
    memcpy(keys->first, now->first, SECRET_SIGN_PUBLIC_BYTES);
    memcpy(keys->current, now->current + half, SECRET_SIGN_PUBLIC_BYTES);
    memcpy(keys->next, now->next + half, SECRET_SIGN_PUBLIC_BYTES);
}

static int write_all(int fd, const void *bytes, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = write(fd, (const char *)bytes + done, len - done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

static int directory_sync(const char *path)
{
    char directory[sizeof(((struct sealkey *)NULL)->path)];
    int fd;
    int r;

    (void)snprintf(directory, sizeof(directory), "%.*s", (int)(strrchr(path, '/') - path + 1),
                   path);
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = fd < 0 ? -1 : sync_file(fd, SYNC_ALL);
    if (fd >= 0) {
        (void)close(fd);
    }
    return r;
}

/* Puts `other` into the place of the file, whole and on the disk, and then into force. */
static int replace(struct sealkey *keys, uid_t uid, gid_t gid, struct fault *fault)
{
    char fresh[sizeof(keys->path) + 4];
    int error = 0;
    int fd;

    memcpy(keys->page->other.magic, magic, sizeof(magic));
    file_check(&keys->page->other, keys->page->other.check);
    (void)snprintf(fresh, sizeof(fresh), "%s.new", keys->path);
    (void)unlink(fresh);
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        error = errno;
    } else {
        if (write_all(fd, &keys->page->other, sizeof(keys->page->other)) != 0 ||
            (uid != (uid_t)-1 && fchown(fd, uid, gid) != 0) || sync_file(fd, SYNC_ALL) != 0) {
            error = errno;
        }
        (void)close(fd);
        if (error == 0 && rename(fresh, keys->path) != 0) {
            error = errno;
        }
        if (error != 0) {
            (void)unlink(fresh);
        }
    }
    /*
     * A name that is not on the disk yet may become the one before again when the host loses power;
     * both steps bear that, as long as nothing is done that relies on this one.
     */
    if (error == 0 && directory_sync(keys->path) != 0) {
        error = errno;
    }
    if (error == 0) {
        keys->page->now = keys->page->other;
        publish(keys);
    }
    secret_wipe(&keys->page->other, sizeof(keys->page->other));
    return error == 0
               ? 0
               : fault_set(fault, keys->path, "cannot be written: %s", sync_error_text(error));
}

static int load(struct sealkey *keys, int fd, struct fault *fault)
{
    struct sealkey_file *file = &keys->page->other;
    unsigned char check[SECRET_SHA256_BYTES];
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return fault_set(fault, keys->path, "%s", strerror(errno));
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0 ||
        (st.st_uid != geteuid() && geteuid() != 0)) {
        return fault_set(fault, keys->path, "must be a file of uid %ld alone, with mode 0600",
                         (long)geteuid());
    }
    if (st.st_size != (off_t)sizeof(*file) || chain_read_at(fd, file, sizeof(*file), 0) != 0) {
        return fault_set(fault, keys->path, "is damaged or none of ours; restore it");
    }
    file_check(file, check);
    if (memcmp(file->magic, magic, sizeof(magic)) != 0 ||
        memcmp(file->check, check, sizeof(check)) != 0 || file->has_next > 1 ||
        memchr(file->chain, '\0', sizeof(keys->chain)) == NULL) {
        return fault_set(fault, keys->path, "is damaged or none of ours; restore it");
    }
    keys->page->now = *file;
    secret_wipe(file, sizeof(*file));
    publish(keys);
    return 0;
}

int sealkey_open(const char *state_dir, struct sealkey *out, struct fault *fault)
{
    struct sealkey keys = {.found = false};
    int r = 0;
    int fd;

    if (snprintf(keys.path, sizeof(keys.path), "%s/audit.key", state_dir) >=
        (int)sizeof(keys.path)) {
        return fault_set(fault, state_dir, "the path is too long");
    }
    keys.page = secret_page_open(sizeof(*keys.page));
    if (keys.page == NULL) {
        return fault_set(fault, keys.path, "no memory for keys: %s", strerror(errno));
    }
    fd = open(keys.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        r = load(&keys, fd, fault);
        (void)close(fd);
    } else if (errno != ENOENT) {
        r = fault_set(fault, keys.path, "cannot be opened: %s", strerror(errno));
    }
    if (r != 0) {
        sealkey_close(&keys);
        return -1;
    }
    *out = keys;
    return 0;
}

void sealkey_close(struct sealkey *keys)
{
    secret_page_close(keys->page, sizeof(*keys->page));
    keys->page = NULL;
}

int sealkey_make(struct sealkey *keys, uid_t uid, gid_t gid, struct fault *fault)
{
    struct sealkey_file *file = &keys->page->other;

    memset(file, 0, sizeof(*file));
    secret_sign_make(file->current);
    memcpy(file->first, file->current + SECRET_SIGN_KEY_BYTES - SECRET_SIGN_PUBLIC_BYTES,
           SECRET_SIGN_PUBLIC_BYTES);
    return replace(keys, uid, gid, fault);
}

int sealkey_prepare(struct sealkey *keys, struct fault *fault)
{
    if (keys->has_next) {
        return 0;
    }
    keys->page->other = keys->page->now;
    keys->page->other.has_next = 1;
    secret_sign_make(keys->page->other.next);
    return replace(keys, (uid_t)-1, (gid_t)-1, fault);
}

int sealkey_turn(struct sealkey *keys, const char chain[17], uint64_t from, uint64_t seq,
                 const unsigned char hash[CHAIN_HASH_BYTES], struct fault *fault)
{
    struct sealkey_file *file = &keys->page->other;

    *file = keys->page->now;
    if (file->has_next != 0) {
        memcpy(file->current, file->next, sizeof(file->current));
        file->epoch++;
    }
    memset(file->next, 0, sizeof(file->next));
    file->has_next = 0;
    memcpy(file->chain, chain, 17);
    file->from = from;
    file->durable_seq = seq;
    memcpy(file->durable_hash, hash, CHAIN_HASH_BYTES);
    return replace(keys, (uid_t)-1, (gid_t)-1, fault);
}

void sealkey_sign(const struct sealkey *keys, unsigned char out[SECRET_SIGNATURE_BYTES],
                  struct span bytes)
{
    secret_sign(out, keys->page->now.current, bytes);
}
