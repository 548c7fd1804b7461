/*
 * A sealed trail in memory: about `RECORDS` records in `SEGMENTS` files one after the other, with a
 * recovery of torn bytes among them, made by trail_mend.h.
 */
#ifndef TESTS_TRAIL_BUILD_H
#define TESTS_TRAIL_BUILD_H

#include "trail_mend.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { RECORDS = 1000, SEGMENTS = 16, SEAL_EVERY = 21, TRAIL_BYTES = 1 << 20 };

#define Z64  "0000000000000000000000000000000000000000000000000000000000000000"
#define Z128 Z64 Z64

struct trail {
    char *text;
    size_t len;
    size_t starts[SEGMENTS + 1]; /* of the files */
    size_t files;
    uint64_t seq; /* of the next record */
    uint64_t epoch;
    uint64_t from; /* the first record that no seal covers */
    uint64_t time_s;
    const char *chain;
};

static inline void trail_bytes(struct trail *t, const char *bytes)
{
    cr_assert(t->len + strlen(bytes) < TRAIL_BYTES);
    memcpy(t->text + t->len, bytes, strlen(bytes));
    t->len += strlen(bytes);
}

/* One record, its fields from `event` on. */
static inline void trail_put(struct trail *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline void trail_put(struct trail *t, const char *format, ...)
{
    char line[4096];
    char fields[3072];
    va_list args;

    va_start(args, format);
    vsnprintf(fields, sizeof(fields), format, args);
    va_end(args);
    snprintf(line, sizeof(line),
             "{\"v\":1,\"seq\":%" PRIu64 ",\"ts\":\"2026-01-31T%02u:%02u:%02u.000000Z\","
             "\"chain\":\"%s\",\"node\":\"web1\",%s,\"h\":\"" Z64 "\"}\n",
             t->seq++, (unsigned)(t->time_s / 3600), (unsigned)(t->time_s / 60 % 60),
             (unsigned)(t->time_s % 60), t->chain, fields);
    trail_bytes(t, line);
    t->time_s++;
}

static inline void trail_seal(struct trail *t)
{
    trail_put(t,
              "\"event\":\"seal\",\"mono\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"from\":%" PRIu64
              ",\"n\":%" PRIu64 ",\"next_pk\":\"" Z64 "\",\"sig\":\"" Z128 "\"",
              t->time_s * 1000, t->epoch, t->from, t->seq - t->from);
    t->epoch++;
    t->from = t->seq;
}

static inline void trail_next_file(struct trail *t)
{
    trail_seal(t);
    trail_put(t, "\"event\":\"segment.close\",\"mono\":%" PRIu64, t->time_s * 1000);
    t->starts[t->files++] = t->len;
    trail_put(t,
              "\"event\":\"segment.open\",\"mono\":%" PRIu64 ",\"prev_seq\":%" PRIu64
              ",\"prev_h\":\"" Z64 "\",\"epoch\":%" PRIu64 ",\"pk\":\"" Z64 "\"",
              t->time_s * 1000, t->seq - 1, t->epoch);
}

static inline void trail_begin(struct trail *t)
{
    *t = (struct trail){.chain = "9f3c51d07ab2e844", .files = 1};
    t->text = malloc(TRAIL_BYTES);
    cr_assert(t->text != NULL && sodium_init() >= 0);
    trail_put(t, "\"event\":\"chain.open\",\"mono\":1,\"boot_id\":\"b\",\"epoch\":0,\"pk\":\"" Z64
                 "\"");
    trail_put(t, "\"event\":\"lifecycle\",\"mono\":2,\"action\":\"start\",\"clean\":true");
}

static inline void trail_auth(struct trail *t)
{
    trail_put(t,
              "\"event\":\"auth\",\"outcome\":\"granted\",\"reason\":\"ok\",\"status\":200,"
              "\"principal\":\"alice@EXAMPLE.TEST\",\"user\":\"alice\",\"uri\":\"/%" PRIu64
              "\\\"\",\"us\":4",
              t->seq * t->seq);
}

/* Hashes, keys and signatures; the text may have been changed before, too. */
static inline void trail_mend(struct trail *t, uint64_t family)
{
    struct mend mend = {.family = family};

    mend_text(&mend, t->text, t->len);
    t->starts[t->files] = t->len;
}

/* The usual one: the last file ends with a few records after its last seal. */
static inline struct trail trail_build(uint64_t family)
{
    struct trail t;

    trail_begin(&t);
    while (t.seq < RECORDS) {
        if (t.seq % (RECORDS / SEGMENTS) == 0 && t.files < SEGMENTS) {
            trail_next_file(&t);
        } else if (t.seq - t.from >= SEAL_EVERY) {
            trail_seal(&t);
        } else if (t.seq % 97 == 96) {
            trail_bytes(&t, "{\"v\":1,\"se\n");
            trail_put(&t, "\"event\":\"recovery\",\"result\":\"torn\",\"torn_bytes\":10,"
                          "\"torn_sha256\":\"" Z64 "\"");
        } else {
            trail_auth(&t);
        }
    }
    trail_mend(&t, family);
    cr_assert_eq(t.files, SEGMENTS);
    return t;
}

#endif
