#include "trail/begin.h"

#include "base/secret.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is known at the start, and what was found out. */
struct begin {
    struct ledger *ledger;
    struct seal *seal;
    bool accept_gap;
    char boot[BOOT_ID_BYTES];
    bool known;     /* the head is of a chain */
    bool same_boot; /* and has seen all that was written since */
    bool clean;
    bool restart; /* what was written is no record that a walk may pass */
    struct fault *fault;
};

static int fault_write(const struct begin *b)
{
    return fault_set(b->fault, b->ledger->path, "cannot be written: %s", strerror(errno));
}

static int fault_tail(const struct begin *b, enum chain_state state)
{
    const char *path = b->ledger->path;

    switch (state) {
    case CHAIN_UNREADABLE:
        return fault_set(b->fault, path, "cannot be read back: %s", strerror(errno));
    case CHAIN_FOREIGN:
        return fault_set(b->fault, path,
                         "does not end like an audit trail and was left as it is; move the file "
                         "away or set another audit.file");
    default:
        return fault_set(b->fault, path,
                         "the last record does not fit the one before; move the file away or "
                         "restore it");
    }
}

/* Chooses the key that the trail has announced: the present one, or the next one of a change that
 * was cut off. */
static int key_choose(struct begin *b, uint64_t epoch, const unsigned char *public_key)
{
    struct sealkey *keys = &b->seal->keys;

    if (epoch == keys->epoch &&
        (public_key == NULL || memcmp(public_key, keys->current, SECRET_SIGN_PUBLIC_BYTES) == 0)) {
        return 0;
    }
    if (keys->has_next && epoch == keys->epoch + 1 &&
        (public_key == NULL || memcmp(public_key, keys->next, SECRET_SIGN_PUBLIC_BYTES) == 0)) {
        b->seal->announced = true;
        return 0;
    }
    return fault_set(b->fault, keys->path,
                     "is not the key of epoch %llu that the trail has announced; restore it, or "
                     "begin a new chain: move away audit.file, audit.head and audit.key",
                     (unsigned long long)epoch);
}

/* Whether the file now announces the key that it should: an opening that lacked but its LF may have
 * been completed instead. */
static int opening_check(const struct begin *b, const struct audit_format_event *wanted)
{
    struct ledger *ledger = b->ledger;
    struct chain_anchor anchor;
    char public_key[2 * SECRET_SIGN_PUBLIC_BYTES + 1];
    struct stat st;
    enum chain_state state = CHAIN_UNREADABLE;

    if (fstat(ledger->store.read_fd, &st) == 0) {
        state = chain_anchor_find(ledger->store.read_fd, (uint64_t)st.st_size, ledger->scratch,
                                  &anchor);
    }
    if (state != CHAIN_OK) {
        return fault_tail(b, state);
    }
    secret_hex(public_key, anchor.key.public_key, sizeof(anchor.key.public_key));
    if (anchor.key.epoch != wanted->epoch.value || !span_equal(span_of(public_key), wanted->pk)) {
        return fault_set(b->fault, ledger->path,
                         "was opened with another key than %s holds; restore that, or move the "
                         "file away",
                         b->seal->keys.path);
    }
    return 0;
}

/* The first record that no seal covers, in front of an opening: the head's word for it, if that can
 * be true; else a seal and the end of the file came before the opening. */
static uint64_t from_check(const struct begin *b, uint64_t from, uint64_t opening)
{
    if (from >= b->seal->keys.from && from <= opening) {
        return from;
    }
    return opening > 0 ? opening - 1 : 0;
}

/* Writes an opening into a file that holds no record. */
static int opening_write(struct begin *b, const struct chain_tail *tail, const char *word)
{
    struct ledger *ledger = b->ledger;
    struct audit_format_event event = {.event = span_of(word), .mono_ms = ledger_mono_ms()};
    struct head head = head_get(&ledger->head);
    char public_key[2 * SECRET_SIGN_PUBLIC_BYTES + 1];
    char digits[2 * CHAIN_HASH_BYTES + 1];

    if (head.next_seq > 0) {
        secret_hex(digits, head.hash, sizeof(head.hash));
        event.prev_seq = (struct audit_format_u64){true, head.next_seq - 1};
        event.prev_h = span_of(digits);
    } else if (b->boot[0] != '\0') {
        event.boot_id = span_of(b->boot);
    }
    event.epoch.given = true;
    seal_key(b->seal, &event.epoch.value, public_key);
    event.pk = span_of(public_key);
    b->restart = true;
    if (ledger_mend(ledger, &ledger->store, &head, tail, &event) != 0) {
        return fault_write(b);
    }
    return opening_check(b, &event);
}

static int chain_new(struct begin *b, const struct chain_tail *tail)
{
    struct head head = {.dev = b->ledger->store.dev, .ino = b->ledger->store.ino};
    unsigned char id[8];

    if (!b->seal->keys.found && sealkey_make(&b->seal->keys, (uid_t)-1, (gid_t)-1, b->fault) != 0) {
        return -1;
    }
    secret_random(id, sizeof(id));
    secret_hex(b->ledger->chain, id, sizeof(id));
    head_set(&b->ledger->head, &head);
    b->clean = true;
    return opening_write(b, tail, "chain.open");
}

/* Mends the file that the head is in, if it was renamed within its directory: its last record may
 * be one that the head does not know of. */
static void renamed_mend(struct begin *b)
{
    struct ledger *ledger = b->ledger;
    struct head head = head_get(&ledger->head);
    struct store old = {.fd = -1, .read_fd = -1};
    struct chain_tail tail = {.found = false};

    if (store_find(&ledger->options, (dev_t)head.dev, (ino_t)head.ino, &old) != 0) {
        return;
    }
    if (chain_tail_read(old.read_fd, head.next_seq, ledger->scratch, &tail) == CHAIN_OK &&
        ledger_adopt(ledger, &old, &tail)) {
        /* Best effort: a full disk may be the reason for the new file. */
        head = head_get(&ledger->head);
        (void)ledger_mend(ledger, &old, &head, &tail, NULL);
        (void)fdatasync(old.fd);
    }
    store_close(&old);
}

/* The file holds no record: it is the first of all, or the one before was renamed meanwhile. */
static int file_empty(struct begin *b)
{
    struct ledger *ledger = b->ledger;
    const struct sealkey *keys = &b->seal->keys;
    struct chain_tail tail = {.found = false};
    struct head head = head_get(&ledger->head);
    enum chain_state state;

    if (b->known &&
        (!keys->found || (keys->chain[0] != '\0' && strcmp(keys->chain, ledger->chain) != 0))) {
        return fault_set(b->fault, keys->path,
                         "knows nothing of chain %s, which audit.head does; restore it, or begin a "
                         "new chain: move audit.head and audit.key away",
                         ledger->chain);
    }
    if (b->known) {
        if (head_is_dirty(&ledger->head) || !b->same_boot) {
            renamed_mend(b);
            head = head_get(&ledger->head);
        }
        b->clean = (head.flags & HEAD_STOPPED) != 0;
    } else {
        head = (struct head){.next_seq = 0};
    }
    if (keys->chain[0] != '\0' && head.next_seq <= keys->durable_seq) {
        /* The head is lost, or older than a seal that was on the disk. */
        if (!b->known && !b->accept_gap) {
            return fault_set(b->fault, ledger->path,
                             "holds no record and audit.head is lost, but %s knows of record %llu; "
                             "restore them, start once with --accept-audit-gap if no file holds "
                             "a later record, or begin a new chain: move audit.key away",
                             keys->path, (unsigned long long)keys->durable_seq);
        }
        head = (struct head){
            .next_seq = keys->durable_seq + 1, .epoch = keys->epoch, .from = keys->from};
        memcpy(head.hash, keys->durable_hash, CHAIN_HASH_BYTES);
        head_set(&ledger->head, &head);
        (void)snprintf(ledger->chain, sizeof(ledger->chain), "%s", keys->chain);
    }
    state = chain_tail_read(ledger->store.read_fd, head.next_seq, ledger->scratch, &tail);
    if (state != CHAIN_OK || tail.found) {
        return fault_tail(b, state);
    }
    if (head.next_seq == 0) {
        return chain_new(b, &tail);
    }
    head.from = from_check(b, head.from, head.next_seq);
    head_set(&ledger->head, &head);
    return key_choose(b, head.epoch, NULL) != 0 ? -1 : opening_write(b, &tail, "segment.open");
}

/* Records are missing at the end of the file, of which `lost` was the last. */
static int gap_record(struct begin *b, const struct chain_tail *tail, struct head lost)
{
    struct ledger *ledger = b->ledger;
    struct audit_format_event event = {
        .event = span_of("recovery"),
        .result = span_of("records_missing"),
        .detail = span_of("the file was shorter than state_dir knew, and that was accepted"),
        .lost_from = {true, lost.next_seq - 1}};
    char digits[2 * CHAIN_HASH_BYTES + 1];
    struct ledger_line line;

    if (!b->accept_gap) {
        return fault_set(b->fault, ledger->path,
                         "ends with record %llu, but record %llu was written: records are missing; "
                         "restore the file, or start once with --accept-audit-gap, which is "
                         "recorded",
                         (unsigned long long)tail->last.seq, (unsigned long long)lost.next_seq - 1);
    }
    lost.dev = ledger->store.dev;
    lost.ino = ledger->store.ino;
    lost.flags = 0;
    secret_hex(digits, lost.hash, sizeof(lost.hash));
    event.lost_h = span_of(digits);
    if (key_choose(b, lost.epoch, NULL) != 0) {
        return -1;
    }
    /* A segment that was closed and then cut has its head in this file again. */
    head_dirty_set(&ledger->head, true);
    head_set(&ledger->head, &lost);
    b->restart = true;
    b->clean = false;
    return ledger_recover(ledger, &ledger->store, &lost, tail->stray, &event, &line) == 0
               ? 0
               : fault_write(b);
}

/* The newest record that the state knows of for sure, if the file does not reach that far. */
static bool gap_find(const struct begin *b, const struct chain_tail *tail, struct head *lost)
{
    const struct sealkey *keys = &b->seal->keys;
    const struct head head = head_get(&b->ledger->head);

    if (b->same_boot && tail->last.seq + 1 < head.next_seq) {
        *lost = head;
        return true;
    }
    if (keys->chain[0] == '\0' || tail->last.seq >= keys->durable_seq) {
        return false;
    }
    *lost =
        (struct head){.next_seq = keys->durable_seq + 1, .epoch = keys->epoch, .from = keys->from};
    memcpy(lost->hash, keys->durable_hash, CHAIN_HASH_BYTES);
    return true;
}

/* Recomputes the file from its last mark on, and learns from it which key is announced. */
static int tail_prove(struct begin *b, const struct chain_tail *tail, struct chain_anchor *anchor)
{
    struct ledger *ledger = b->ledger;
    const uint64_t end = tail->size - tail->stray.len;
    enum chain_state state = chain_anchor_find(ledger->store.read_fd, end, ledger->scratch, anchor);

    if (state != CHAIN_OK) {
        return fault_tail(b, state);
    }
    if (anchor->closed) {
        return fault_set(b->fault, ledger->path,
                         "is a segment that was closed; move it away, and the chain goes on in a "
                         "new file");
    }
    state = chain_walk(ledger->store.read_fd, end, UINT64_MAX, ledger->scratch, &anchor->walk);
    if (state == CHAIN_UNREADABLE) {
        return fault_tail(b, state);
    }
    if (state != CHAIN_OK || anchor->walk.offset != end) {
        return fault_set(b->fault, ledger->path,
                         "what follows record %llu does not fit it; move the file away or restore "
                         "it",
                         (unsigned long long)anchor->walk.next_seq - 1);
    }
    return 0;
}

/* The first record that no seal covers, where a segment has but its opening and no head says it: a
 * segment begins after a seal and the end of the file before. */
static uint64_t opened_from(const struct chain_anchor *anchor)
{
    return anchor->key.mark == CHAIN_SEGMENT_OPEN && anchor->key.seq > 0 ? anchor->key.seq - 1 : 0;
}

/* Moves the head to where the file ends; false when they cannot be of one chain. */
static bool head_join(struct begin *b, const struct chain_tail *tail,
                      const struct chain_anchor *anchor)
{
    struct ledger *ledger = b->ledger;
    struct head head = head_get(&ledger->head);
    const bool same = b->known && tail->last.seq + 1 == head.next_seq &&
                      memcmp(tail->last.hash, head.hash, CHAIN_HASH_BYTES) == 0;

    b->clean = same && (head.flags & HEAD_STOPPED) != 0;
    if (b->same_boot) {
        return ledger_adopt(ledger, &ledger->store, tail);
    }
    head = (struct head){.next_seq = tail->last.seq + 1,
                         .from = b->known && head.epoch == anchor->key.epoch ? head.from
                                                                             : opened_from(anchor),
                         .dev = ledger->store.dev,
                         .ino = ledger->store.ino};
    memcpy(head.hash, tail->last.hash, CHAIN_HASH_BYTES);
    head_set(&ledger->head, &head);
    return true;
}

/* Mends what follows the last record, and chooses the key that the end of the file announces. */
static int tail_finish(struct begin *b, const struct chain_tail *tail,
                       const struct chain_anchor *anchor)
{
    struct ledger *ledger = b->ledger;
    struct head head = head_get(&ledger->head);

    /* Whatever the head said of it; where a segment has but its opening, the head alone knows. */
    head.epoch = anchor->key.epoch;
    head.from = anchor->key.mark == CHAIN_SEAL ? anchor->key.seq + 1
                                               : from_check(b, head.from, anchor->key.seq);
    head_set(&ledger->head, &head);
    if (ledger_mend(ledger, &ledger->store, &head, tail, NULL) != 0) {
        return fault_write(b);
    }
    if (anchor->jumped && anchor->key.epoch < b->seal->keys.epoch) {
        /* Whoever may write the file could have written so, and taken seals away. */
        return b->accept_gap
                   ? 0
                   : fault_set(b->fault, ledger->path,
                               "lacks the seal that announced the present key, as records are "
                               "missing before record %llu; restore the file, or, if that was "
                               "accepted, start once more with --accept-audit-gap",
                               (unsigned long long)anchor->walk.next_seq - 1);
    }
    return key_choose(b, anchor->key.epoch, anchor->key.public_key);
}

/* A record that lacks but its LF is none that is missing. */
static int last_complete(struct begin *b, struct chain_tail *tail)
{
    struct ledger *ledger = b->ledger;
    struct chain_line line;
    enum chain_state state;

    if (!chain_stray_completes(tail->stray, tail->last.seq + 1, tail->last.hash, &line)) {
        return 0;
    }
    if (store_append(&ledger->store, "\n", 1) != 0) {
        return fault_write(b);
    }
    state = chain_tail_read(ledger->store.read_fd, 0, ledger->scratch, tail);
    return state == CHAIN_OK ? 0 : fault_tail(b, state);
}

/* The file holds records: the chain goes on after the last. */
static int file_continue(struct begin *b)
{
    struct ledger *ledger = b->ledger;
    const struct sealkey *keys = &b->seal->keys;
    struct chain_tail tail = {.found = false};
    struct chain_anchor anchor;
    struct head lost;
    enum chain_state state = chain_tail_read(ledger->store.read_fd, 0, ledger->scratch, &tail);

    if (state != CHAIN_OK) {
        return fault_tail(b, state);
    }
    if (!keys->found || (b->known && strcmp(ledger->chain, tail.last.chain) != 0) ||
        (keys->chain[0] != '\0' && strcmp(keys->chain, tail.last.chain) != 0)) {
        return fault_set(b->fault, ledger->path,
                         "holds chain %s, of which %s knows nothing; restore that, or move the "
                         "file away",
                         tail.last.chain, keys->path);
    }
    memcpy(ledger->chain, tail.last.chain, sizeof(ledger->chain));
    if (last_complete(b, &tail) != 0 || tail_prove(b, &tail, &anchor) != 0) {
        return -1;
    }
    /* The scratch was used: the stray bytes are read again. */
    state = chain_tail_read(ledger->store.read_fd, 0, ledger->scratch, &tail);
    if (state != CHAIN_OK) {
        return fault_tail(b, state);
    }
    if (gap_find(b, &tail, &lost)) {
        return gap_record(b, &tail, lost);
    }
    if (!head_join(b, &tail, &anchor)) {
        return fault_set(b->fault, ledger->path,
                         "does not end with the record that audit.head knows to be the last; move "
                         "the file away or restore it");
    }
    b->seal->walk = anchor.walk;
    return tail_finish(b, &tail, &anchor);
}

int begin_chain(struct ledger *ledger, struct seal *seal, bool accept_gap, struct begin_result *out,
                struct fault *fault)
{
    struct begin b = {.ledger = ledger, .seal = seal, .accept_gap = accept_gap, .fault = fault};
    struct sealkey *keys = &seal->keys;
    struct chain_tail tail = {.found = false};
    struct head head;
    enum chain_state state;

    boot_id(b.boot);
    b.known = head_chain(&ledger->head, ledger->chain);
    b.same_boot = b.known && head_is_of_boot(&ledger->head, b.boot);
    state = chain_tail_read(ledger->store.read_fd,
                            b.known                  ? head_get(&ledger->head).next_seq
                            : keys->chain[0] != '\0' ? keys->durable_seq + 1
                                                     : 0,
                            ledger->scratch, &tail);
    if (state != CHAIN_OK) {
        return fault_tail(&b, state);
    }
    if ((tail.found ? file_continue(&b) : file_empty(&b)) != 0) {
        return -1;
    }
    head = head_get(&ledger->head);
    if (b.restart && seal_restart(seal, ledger, head.next_seq, head.hash) != 0) {
        return fault_tail(&b, CHAIN_UNREADABLE);
    }
    if (fdatasync(ledger->store.fd) != 0 || store_sync_name(&ledger->options) != 0) {
        return fault_set(fault, ledger->path, "cannot be synced: %s", strerror(errno));
    }
    /* Only now may a key be given up: what announced the next one is on the disk. */
    if ((keys->chain[0] == '\0' || seal->announced) &&
        sealkey_turn(keys, ledger->chain, head.from, head.next_seq - 1, head.hash, fault) != 0) {
        return -1;
    }
    seal->announced = false;
    seal->from = head.from = keys->from;
    head.epoch = keys->epoch;
    head_set(&ledger->head, &head);
    head_claim(&ledger->head, ledger->chain, b.boot);
    memcpy(out->boot, b.boot, sizeof(out->boot));
    out->clean = b.clean;
    return 0;
}
