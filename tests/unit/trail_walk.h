/*
 * A second reader of the trail for the tests, written from its description and not from the code:
 * recomputes every hash, and accepts bytes that are no record only right before a record that says
 * how many and which they are.
 */
#ifndef TESTS_TRAIL_WALK_H
#define TESTS_TRAIL_WALK_H

#include "base/secret.h"
#include "trail/audit.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct walk {
    unsigned char prev[32];
    json_int_t next_seq;
    unsigned char pk[32]; /* of the next seal, and what it must say */
    json_int_t epoch;
    json_int_t from;
    size_t seals;
    char chain[17];
    size_t records;
    size_t recoveries;
    size_t at;        /* where the last record ended in the file; 0 before another file */
    size_t stray_end; /* bytes after it */
    char event[64];   /* of the last record */
};

/* The whole file with a terminator; the caller frees it. */
static inline char *file_get(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    char *text;

    cr_assert(fd >= 0 && fstat(fd, &st) == 0, "%s", path);
    text = malloc((size_t)st.st_size + 1);
    cr_assert(text != NULL);
    cr_assert_eq(read(fd, text, (size_t)st.st_size), st.st_size);
    text[st.st_size] = '\0';
    *len = (size_t)st.st_size;
    close(fd);
    return text;
}

static inline void file_put(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, len), (ssize_t)len);
    close(fd);
}

static inline void hash_of(char out[65], const unsigned char prev[32], const char *body, size_t len,
                           unsigned char raw[32])
{
    struct span parts[] = {span_make("audit-rec-v1", 13), span_make(prev, 32),
                           span_make(body, len)};

    secret_sha256(raw, parts, 3);
    secret_hex(out, raw, 32);
}

static inline void from_hex(unsigned char *out, size_t bytes, const char *text)
{
    cr_assert_eq(strlen(text), 2 * bytes, "%s", text);
    cr_assert_eq(strspn(text, "0123456789abcdef"), 2 * bytes, "%s", text);
    for (size_t i = 0; i < bytes; i++) {
        unsigned value = 0;

        cr_assert_eq(sscanf(text + 2 * i, "%2x", &value), 1);
        out[i] = (unsigned char)value;
    }
}

/* What a line that is the next record says of keys, and whether a seal is good. */
static inline void walk_key(struct walk *walk, const json_t *object, const char *line,
                            const char *event)
{
    json_int_t epoch = -1;
    json_int_t from = -1;
    json_int_t n = -1;
    const char *pk = NULL;
    const char *next_pk = "";
    const char *sig = "";

    json_unpack((json_t *)(uintptr_t)object, "{s?I, s?I, s?I, s?s, s?s, s?s}", "epoch", &epoch,
                "from", &from, "n", &n, "pk", &pk, "next_pk", &next_pk, "sig", &sig);
    if (strcmp(event, "chain.open") == 0 || strcmp(event, "segment.open") == 0) {
        unsigned char announced[32];

        cr_assert(pk != NULL, "%s", line);
        from_hex(announced, 32, pk);
        /* A segment says what is known already. */
        cr_assert(walk->records == 0 ||
                      (epoch == walk->epoch && memcmp(announced, walk->pk, 32) == 0),
                  "%s", line);
        memcpy(walk->pk, announced, 32);
        walk->epoch = epoch;
    }
    if (strcmp(event, "seal") == 0) {
        const char *end = strstr(line, ",\"sig\":\"");
        struct span parts[] = {span_make("audit-seal-v1", 14), span_make(walk->prev, 32),
                               span_make(line, (size_t)(end - line))};
        unsigned char digest[32];
        unsigned char signature[64];

        cr_assert(end != NULL);
        secret_sha256(digest, parts, 3);
        from_hex(signature, 64, sig);
        cr_assert(secret_sign_verify(signature, walk->pk, span_make(digest, 32)), "%s", line);
        cr_assert_eq(epoch, walk->epoch, "%s", line);
        cr_assert(from == walk->from && n == walk->next_seq - from && n > 0, "%lld: %s",
                  (long long)walk->from, line);
        from_hex(walk->pk, 32, next_pk);
        walk->epoch++;
        walk->from = walk->next_seq + 1;
        walk->seals++;
    }
}

/* Takes a line with its LF as the next record if it is that. */
static inline bool walk_line(struct walk *walk, const char *line, size_t len, const char *stray,
                             size_t stray_len)
{
    unsigned char raw[32];
    char hex[65];
    json_t *object = NULL;
    json_int_t torn = -1;
    const char *event = "";
    const char *torn_hash = "";
    const char *prev_h = "";
    bool good = false;

    if (len < 73 || len > AUDIT_RECORD_MAX) {
        return false;
    }
    object = json_loadb(line, len - 1, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (object == NULL) {
        return false;
    }
    json_unpack(object, "{s?s, s?I, s?s, s?s}", "event", &event, "torn_bytes", &torn, "torn_sha256",
                &torn_hash, "prev_h", &prev_h);
    if (walk->records == 0 && walk->next_seq == 0) {
        cr_assert_str_eq(event, "chain.open");
        snprintf(walk->chain, sizeof(walk->chain), "%s",
                 json_string_value(json_object_get(object, "chain")));
    }
    hash_of(hex, walk->prev, line, len - 73, raw);
    good = strncmp(line + len - 73, ",\"h\":\"", 6) == 0 &&
           strncmp(line + len - 67, hex, 64) == 0 &&
           json_integer_value(json_object_get(object, "seq")) == walk->next_seq &&
           strcmp(json_string_value(json_object_get(object, "chain")), walk->chain) == 0;
    if (good && stray_len > 0) {
        struct span bytes = span_make(stray, stray_len - 1);
        unsigned char stray_raw[32];
        char stray_hex[65];

        secret_sha256(stray_raw, &bytes, 1);
        secret_hex(stray_hex, stray_raw, 32);
        /* One that does not account for the bytes before it is no record but one of them. */
        good = torn == (json_int_t)stray_len - 1 && strcmp(torn_hash, stray_hex) == 0;
        walk->recoveries += good;
    } else if (good) {
        cr_assert_eq(torn, -1);
    }
    if (good && strcmp(event, "segment.open") == 0) {
        char prev_hex[65];

        secret_hex(prev_hex, walk->prev, 32);
        cr_assert_str_eq(prev_h, prev_hex);
        cr_assert_eq(json_integer_value(json_object_get(object, "prev_seq")), walk->next_seq - 1);
    }
    for (size_t i = 0; good && i < len - 1; i++) {
        cr_assert(line[i] >= 0x20 && line[i] < 0x7f);
    }
    if (good) {
        char *text = strndup(line, len - 1);

        walk_key(walk, object, text, event);
        free(text);
        memcpy(walk->prev, raw, 32);
        walk->next_seq++;
        walk->records++;
        snprintf(walk->event, sizeof(walk->event), "%s", event);
    }
    json_decref(object);
    return good;
}

/* Walks on in one file from where `walk` stands. */
static inline void walk_file(struct walk *walk, const char *path)
{
    size_t len;
    char *text = file_get(path, &len);
    size_t stray = walk->at; /* where the bytes that are no record begin */
    size_t at = walk->at;

    for (;;) {
        const char *lf = memchr(text + at, '\n', len - at);
        size_t end = lf == NULL ? len : (size_t)(lf - text) + 1;

        if (lf == NULL) {
            break;
        }
        if (walk_line(walk, text + at, end - at, text + stray, at - stray)) {
            stray = end;
        }
        at = end;
    }
    walk->at = stray;
    walk->stray_end = len - stray;
    free(text);
}

/* Walks on; the file must end with a record. */
static inline void walk_on(struct walk *walk, const char *path)
{
    walk_file(walk, path);
    cr_assert_eq(walk->stray_end, 0, "%zu bytes at the end are no record", walk->stray_end);
}

/* Walks on in the next file of the same chain. */
static inline void walk_next(struct walk *walk, const char *path)
{
    walk->at = 0;
    walk_on(walk, path);
}

/* Walks a file that must be a whole chain from its beginning to its last byte. */
static inline struct walk walk_whole(const char *path)
{
    struct walk walk = {.next_seq = 0};

    walk_on(&walk, path);
    return walk;
}

/* The file is what a host that lost power found; nobody else knows of its end. */
static inline void head_lose(void)
{
    cr_assert(unlink("audit.head") == 0);
}

static inline void state_lose(void)
{
    cr_assert(unlink("audit.head") == 0 && unlink("audit.key") == 0);
}

/* A directory of its own for each test, open to the user that tests become. */
static inline void directory_enter(void)
{
    char path[] = "/tmp/trail-XXXXXX";

    cr_assert(secret_init() == 0);
    cr_assert(mkdtemp(path) != NULL);
    cr_assert(chmod(path, 0777) == 0 && chdir(path) == 0);
}

static inline void directory_leave(void)
{
    char path[4096];
    char command[4200];

    cr_assert(getcwd(path, sizeof(path)) != NULL && strncmp(path, "/tmp/trail-", 11) == 0);
    snprintf(command, sizeof(command), "rm -rf '%s'", path);
    cr_assert(chdir("/") == 0 && system(command) == 0);
}

static inline struct audit *trail_open(const char *file)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0640, .node = "web1"};
    struct audit *audit = NULL;
    struct fault fault = {.where = ""};

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == 0, "%s: %s",
              fault.where, fault.what);
    return audit;
}

/* As after SIGUSR1; it must go well. */
static inline void trail_rotate(struct audit *audit)
{
    struct audit_news news;

    cr_assert(audit_rotate(audit, &news) == 0 && news.fault.what[0] == '\0', "%s: %s",
              news.fault.where, news.fault.what);
}

/* It must not, and say why. */
static inline void trail_rotate_refused(struct audit *audit, const char *words)
{
    struct audit_news news;

    cr_assert_eq(audit_rotate(audit, &news), -1);
    cr_assert(strstr(news.fault.what, words) != NULL, "%s", news.fault.what);
}

/* The fault that opening must end with, and what it is about. */
static inline void trail_refused_at(const char *where, const char *file, const char *words)
{
    struct audit_options options = {.file = file, .state_dir = ".", .mode = 0640, .node = "web1"};
    struct audit *audit = NULL;
    struct fault fault = {.where = ""};

    cr_assert(audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) == -1, "%s was taken",
              file);
    cr_assert(audit == NULL);
    cr_assert_str_eq(fault.where, where, "%s: %s", fault.where, fault.what);
    cr_assert(strstr(fault.what, words) != NULL, "%s", fault.what);
}

static inline void trail_refused(const char *file, const char *words)
{
    trail_refused_at(file, file, words);
}

/* A record of about 700 bytes. */
static inline struct audit_record sample(void)
{
    struct audit_record record;

    audit_record_init(&record);
    record.reason = REASON_OK;
    record.time_us = UINT64_C(1763755863123456);
    record.method = "negotiate";
    record.mech = "krb5";
    record.principal = span_of("alice@EXAMPLE.TEST");
    record.user = span_of("alice");
    record.service = span_of("HTTP/www.example.test@EXAMPLE.TEST");
    record.enctype = span_of("aes256-cts-hmac-sha1-96");
    record.site = span_of("intranet");
    record.rule = span_of("spnegate.yaml:34");
    record.peer = span_of("127.0.0.1");
    record.peer_port = 51514;
    record.tls = AUDIT_TRUE;
    record.http_method = span_of("GET");
    record.host = span_of("www.example.test");
    record.uri = span_of("/reports/\xc3\xa9t\xc3\xa9");
    record.us = 412;
    return record;
}

static inline enum reason append_sample(struct audit *audit)
{
    struct audit_record record = sample();
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;

    return audit_append(audit, &record, id, &seq);
}

#endif
