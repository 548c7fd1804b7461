#include "trail/seal.h"

#include "base/secret.h"
#include "base/sync.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char sig_key[] = ",\"sig\":\"";

static int fault_file(const struct ledger *ledger, struct fault *fault, const char *what)
{
    return fault_set(fault, ledger->path, "%s: %s", what, strerror(errno));
}

/* A seal of ours, which we took for torn, is in the file after all. */
static void own_take(struct seal *seal)
{
    seal->announced = true;
    seal->announced_seq = seal->own_seq;
    seal->announced_from = seal->from;
    memcpy(seal->announced_hash, seal->walk.own, CHAIN_HASH_BYTES);
    seal->from = seal->own_seq + 1;
    seal->walk.has_own = seal->walk.own_seen = false;
}

void seal_look(struct seal *seal, struct ledger *ledger, uint64_t most)
{
    uint64_t size = 0;

    /* What does not fit now does not fit under the lock either, and is dealt with there. */
    if (store_size(&ledger->store, &size) == 0) {
        (void)chain_walk(ledger->store.read_fd, size, most, ledger->scratch, &seal->walk);
    }
    if (seal->walk.own_seen) {
        own_take(seal);
    }
}

bool seal_is_due(const struct seal *seal, const struct ledger *ledger)
{
    uint64_t size = 0;

    /* A head that is any worker's to write can only add a reason. */
    return seal->announced || seal->walk.next_seq != seal->from ||
           store_size(&ledger->store, &size) != 0 || size != seal->walk.offset ||
           head_get(&ledger->head).next_seq != seal->from;
}

void seal_key(const struct seal *seal, uint64_t *epoch, char public_key[65])
{
    const struct sealkey *keys = &seal->keys;

    *epoch = keys->epoch + (seal->announced ? 1 : 0);
    secret_hex(public_key, seal->announced ? keys->next : keys->current, SECRET_SIGN_PUBLIC_BYTES);
}

int seal_restart(struct seal *seal, const struct ledger *ledger, uint64_t next_seq,
                 const unsigned char hash[CHAIN_HASH_BYTES])
{
    uint64_t size = 0;

    if (store_size(&ledger->store, &size) != 0) {
        return -1;
    }
    seal->misfit = false;
    seal->walk = (struct chain_walk){.offset = size, .next_seq = next_seq};
    memcpy(seal->walk.chain, ledger->chain, sizeof(seal->walk.chain));
    memcpy(seal->walk.hash, hash, CHAIN_HASH_BYTES);
    return 0;
}

struct head seal_end(const struct seal *seal, const struct ledger *ledger)
{
    struct head head = {.next_seq = seal->walk.next_seq,
                        .epoch = seal->keys.epoch + (seal->announced ? 1 : 0),
                        .from = seal->from,
                        .dev = ledger->store.dev,
                        .ino = ledger->store.ino};

    memcpy(head.hash, seal->walk.hash, CHAIN_HASH_BYTES);
    return head;
}

/* What lies behind the last LF of the file; in the ledger's scratch. */
static int end_read(struct ledger *ledger, struct span *out)
{
    const unsigned char *lf;
    uint64_t size = 0;
    size_t len;

    if (store_size(&ledger->store, &size) != 0) {
        return -1;
    }
    len = size < CHAIN_STRAY_MAX ? (size_t)size : (size_t)CHAIN_STRAY_MAX;
    if (chain_read_at(ledger->store.read_fd, ledger->scratch, len, size - len) != 0) {
        return -1;
    }
    lf = len == 0 ? NULL : memrchr(ledger->scratch, '\n', len);
    *out = lf == NULL ? span_make(ledger->scratch, len)
                      : span_make(lf + 1, (size_t)(ledger->scratch + len - lf - 1));
    return 0;
}

/* The file is not what was written to it: the chain goes on from the last record that fitted. */
static enum seal_proof chain_give_up(struct seal *seal, struct ledger *ledger, struct fault *fault)
{
    struct audit_format_event recovery = {
        .event = span_of("recovery"),
        .result = span_of("chain_broken"),
        .detail = span_of("the file was changed: nothing since the last seal is proven"),
        .prev_seq = {true, seal->walk.next_seq - 1}};
    const struct head head = seal_end(seal, ledger);
    char digits[2 * CHAIN_HASH_BYTES + 1];
    struct ledger_line line;
    struct span stray;

    /* While it cannot be recorded it is found again with every try. */
    seal->broken += seal->misfit ? 0 : 1;
    seal->misfit = true;
    (void)fault_set(fault, ledger->path,
                    "the file or the shared head was changed: nothing from record %llu on, the "
                    "first that no seal covers, is proven; the change is recorded, and the chain "
                    "goes on from record %llu, the last that fits the one before",
                    (unsigned long long)seal->from, (unsigned long long)seal->walk.next_seq - 1);
    seal->from = seal->from < head.next_seq ? seal->from : head.next_seq;
    if (end_read(ledger, &stray) != 0) {
        (void)fault_file(ledger, fault, "was changed, and cannot be read back");
        return SEAL_STUCK;
    }
    secret_hex(digits, head.hash, sizeof(head.hash));
    recovery.prev_h = span_of(digits);
    head_dirty_set(&ledger->head, true);
    head_set(&ledger->head, &head);
    if (ledger_recover(ledger, &ledger->store, &head, stray, &recovery, &line) != 0 ||
        seal_restart(seal, ledger, line.next.next_seq, line.next.hash) != 0) {
        (void)fault_file(ledger, fault,
                         "was changed, or the shared head was, and that cannot be recorded");
        return SEAL_STUCK;
    }
    return SEAL_PROVEN;
}

enum seal_proof seal_prove(struct seal *seal, struct ledger *ledger, struct fault *fault)
{
    const int error = ledger_ready(ledger) != 0 ? errno : 0;
    const struct head head = head_get(&ledger->head);
    enum chain_state state = CHAIN_UNREADABLE;
    uint64_t size = 0;
    bool fits;

    if (!place_is_open(&ledger->place)) {
        (void)fault_set(fault, ledger->path, "has ended, and the next file has not begun");
        return SEAL_STUCK;
    }
    if (store_size(&ledger->store, &size) == 0) {
        state = chain_walk(ledger->store.read_fd, size, UINT64_MAX, ledger->scratch, &seal->walk);
    }
    if (state == CHAIN_UNREADABLE) {
        (void)fault_file(ledger, fault, "cannot be read back");
        return SEAL_UNREADABLE;
    }
    if (seal->walk.own_seen) {
        own_take(seal);
    }
    fits = state == CHAIN_OK && seal->walk.next_seq == head.next_seq &&
           memcmp(seal->walk.hash, head.hash, CHAIN_HASH_BYTES) == 0;
    if (error != 0 && fits) {
        /* A torn line that cannot be closed now, as on a full disk. */
        errno = error;
        (void)fault_file(ledger, fault, "cannot be sealed");
        return SEAL_STUCK;
    }
    return fits && seal->walk.offset == size ? SEAL_PROVEN : chain_give_up(seal, ledger, fault);
}

static void body_sign(const struct seal *seal, const struct head *after, struct ledger_line *line)
{
    static const char label[] = "audit-seal-v1"; /* hashed with its NUL */
    struct span parts[] = {span_make(label, sizeof(label)),
                           span_make(after->hash, CHAIN_HASH_BYTES),
                           span_make(line->text + 1, line->len)};
    unsigned char digest[SECRET_SHA256_BYTES];
    unsigned char signature[SECRET_SIGNATURE_BYTES];
    char *out = line->text + 1 + line->len;

    static_assert(sizeof(sig_key) + 2UL * SECRET_SIGNATURE_BYTES < FORMAT_BODY_MAX / 2,
                  "a node of 256 bytes leaves more than half of a line");
    secret_sha256(digest, parts, 3);
    sealkey_sign(&seal->keys, signature, span_make(digest, sizeof(digest)));
    memcpy(out, sig_key, sizeof(sig_key) - 1);
    secret_hex(out + sizeof(sig_key) - 1, signature, sizeof(signature));
    out[sizeof(sig_key) - 1 + 2 * sizeof(signature)] = '"';
    line->len += sizeof(sig_key) - 1 + 2 * sizeof(signature) + 1;
}

int seal_write(struct seal *seal, struct ledger *ledger, uint64_t flags, struct fault *fault)
{
    struct audit_format_event event = {.event = span_of("seal"), .mono_ms = ledger_mono_ms()};
    struct ledger_entry entry = {.event = &event};
    char next_pk[2 * SECRET_SIGN_PUBLIC_BYTES + 1];
    struct ledger_line line;
    struct head after;

    if (seal_prove(seal, ledger, fault) != SEAL_PROVEN) {
        return -1;
    }
    after = seal_end(seal, ledger);
    if (seal->announced || !seal->keys.has_next) {
        return fault_set(fault, seal->keys.path, "has not followed the seal before yet");
    }
    if (after.next_seq <= seal->from) {
        return 0;
    }
    secret_hex(next_pk, seal->keys.next, SECRET_SIGN_PUBLIC_BYTES);
    event.time_us = ledger_now_us();
    event.epoch = (struct audit_format_u64){true, seal->keys.epoch};
    event.from = (struct audit_format_u64){true, seal->from};
    event.n = after.next_seq - seal->from;
    event.next_pk = span_of(next_pk);
    ledger_format(ledger, &after, &entry, &line);
    body_sign(seal, &after, &line);
    line.next.epoch++;
    line.next.from = after.next_seq + 1;
    line.next.flags = flags;
    if (ledger_put(ledger, &ledger->store, &after, &line) != 0) {
        /* It may be all there but for its LF, and completed by whoever writes next. */
        int error = errno;

        memcpy(seal->walk.own, line.next.hash, CHAIN_HASH_BYTES);
        seal->walk.has_own = true;
        seal->own_seq = after.next_seq;
        errno = error;
        return fault_file(ledger, fault, "cannot be sealed");
    }
    seal->walk.offset += line.len;
    seal->walk.next_seq++;
    seal->walk.has_own = false;
    memcpy(seal->walk.hash, line.next.hash, CHAIN_HASH_BYTES);
    seal->announced = true;
    seal->announced_seq = after.next_seq;
    memcpy(seal->announced_hash, line.next.hash, CHAIN_HASH_BYTES);
    seal->announced_from = seal->from;
    seal->from = seal->walk.next_seq;
    return 0;
}

/* What the last seal, whose key is gone by now, says. */
static void seal_tell(const struct seal *seal, const struct ledger *ledger,
                      char text[AUDIT_SEAL_TEXT])
{
    char hash[2 * CHAIN_HASH_BYTES + 1];
    char next[2 * SECRET_SIGN_PUBLIC_BYTES + 1];

    secret_hex(hash, seal->announced_hash, CHAIN_HASH_BYTES);
    secret_hex(next, seal->keys.current, SECRET_SIGN_PUBLIC_BYTES);
    (void)snprintf(text, AUDIT_SEAL_TEXT,
                   "chain %s, seq %llu, from %llu, epoch %llu, h %s, next key %s", ledger->chain,
                   (unsigned long long)seal->announced_seq,
                   (unsigned long long)seal->announced_from,
                   (unsigned long long)seal->keys.epoch - 1, hash, next);
}

int seal_finish(struct seal *seal, struct ledger *ledger, char text[AUDIT_SEAL_TEXT],
                struct fault *fault)
{
    if (!seal->announced) {
        return 0;
    }
    if (ledger_sync(ledger, &ledger->store) != 0) {
        return fault_set(fault, ledger->path, "cannot be synced: %s", sync_error_text(errno));
    }
    if (sealkey_turn(&seal->keys, ledger->chain, seal->from, seal->announced_seq,
                     seal->announced_hash, fault) != 0) {
        return -1;
    }
    seal->announced = false;
    seal->made_us = ledger_now_us();
    seal_tell(seal, ledger, text);
    return 0;
}

int seal_prepare(struct seal *seal, struct ledger *ledger, char text[AUDIT_SEAL_TEXT],
                 struct fault *fault)
{

    if (head_is_dirty(&ledger->head)) {
        if (ledger_lock(ledger) != 0) {
            return fault_file(ledger, fault, "cannot be locked");
        }
        (void)ledger_ready(ledger); /* so that a seal that lacked but its LF is seen now */
        ledger_unlock(ledger);
    }
    /* Twice, so that little is left for the time under the lock. */
    seal_look(seal, ledger, UINT64_MAX);
    seal_look(seal, ledger, UINT64_MAX);
    return seal_finish(seal, ledger, text, fault) != 0 ? -1 : sealkey_prepare(&seal->keys, fault);
}

int seal_make(struct seal *seal, struct ledger *ledger, uint64_t flags, char text[AUDIT_SEAL_TEXT],
              struct fault *fault)
{
    int r;

    if (seal_prepare(seal, ledger, text, fault) != 0) {
        return -1;
    }
    if (ledger_lock(ledger) != 0) {
        return fault_file(ledger, fault, "cannot be locked");
    }
    r = seal_write(seal, ledger, flags, fault);
    ledger_unlock(ledger);
    return r != 0 ? -1 : seal_finish(seal, ledger, text, fault);
}
