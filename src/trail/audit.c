#include "trail/audit.h"

#include "base/secret.h"
#include "trail/audit_format.h"
#include "trail/chain.h"
#include "trail/line.h"
#include "trail/store.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_WAIT_S = 1, NODE_BYTES = 256 };

/* Where the chain stands after its last complete record. */
struct head {
    uint64_t next_seq;
    unsigned char hash[CHAIN_HASH_BYTES];
    dev_t dev; /* the file it is in */
    ino_t ino;
};

/*
 * What the processes share. A process may die between any two instructions: the head is written
 * beside the one in force and then switched, and `dirty` stands whenever the file may hold bytes
 * that the head does not know.
 */
struct shared {
    pthread_mutex_t lock;
    struct head heads[2];
    _Atomic uint32_t current;
    _Atomic uint32_t dirty;
    _Atomic uint64_t holder; /* pid << 32 | turn */
    uint32_t turns;
    _Atomic int last_error;
    _Atomic uint32_t generation;
    _Atomic uint32_t sync_failures;
    unsigned char scratch[CHAIN_SCRATCH_BYTES]; /* under the lock */
};

struct audit {
    struct shared *shared;
    struct store store;
    uint32_t generation; /* that `store` was opened for; under the lock */
    bool commit;
    mode_t mode;
    char *path;
    char chain[17];
    char node[NODE_BYTES];
};

/* What a line is made from: one of the two. */
struct entry {
    const struct audit_record *record;
    const struct audit_format_event *event;
};

static const struct head *head_get(const struct audit *audit)
{
    return &audit->shared->heads[atomic_load(&audit->shared->current) & 1];
}

static void head_set(struct audit *audit, const struct head *head)
{
    uint32_t other = (atomic_load(&audit->shared->current) & 1) ^ 1;

    audit->shared->heads[other] = *head;
    atomic_store(&audit->shared->current, other);
}

static void dirty_set(struct audit *audit, bool dirty)
{
    atomic_store(&audit->shared->dirty, dirty ? 1 : 0);
}

static uint64_t now_us(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* 0 and the turn of this holder, or -1 and errno. */
static int lock_take(struct audit *audit, uint64_t *turn)
{
    struct shared *shared = audit->shared;
    int error = pthread_mutex_trylock(&shared->lock);

    if (error == EBUSY) {
        struct timespec until = {0};

        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += LOCK_WAIT_S;
        error = pthread_mutex_clocklock(&shared->lock, CLOCK_MONOTONIC, &until);
    }
    if (error == EOWNERDEAD) {
        /* Nothing more to mend here: head and `dirty` are right at any moment of a death. */
        error = pthread_mutex_consistent(&shared->lock);
    }
    if (error != 0) {
        errno = error;
        return -1;
    }
    *turn = (uint64_t)(uint32_t)getpid() << 32 | ++shared->turns;
    atomic_store(&shared->holder, *turn);
    return 0;
}

static void lock_release(struct audit *audit, uint64_t turn)
{
    (void)pthread_mutex_unlock(&audit->shared->lock);
    /* After the unlock, so that whoever is stopped in between still has a name; the next holder has
     * another turn and is left alone. */
    (void)atomic_compare_exchange_strong(&audit->shared->holder, &turn, 0);
}

/* Appends one line to `store` and moves the head there; with `lf` an LF goes before it. */
static int line_append(struct audit *audit, const struct store *store, bool lf,
                       const struct entry *entry)
{
    const struct head *head = head_get(audit);
    struct head next = {.next_seq = head->next_seq + 1, .dev = store->dev, .ino = store->ino};
    char text[1 + AUDIT_RECORD_MAX];
    char *line = text + 1;
    size_t len =
        entry->record != NULL
            ? audit_format(line, head->next_seq, audit->chain, audit->node, entry->record)
            : audit_format_event(line, head->next_seq, audit->chain, audit->node, entry->event);

    len = chain_close(line, len, head->hash, next.hash);
    text[0] = '\n';
    dirty_set(audit, true);
    if (store_append(store, lf ? text : line, len + (lf ? 1 : 0)) != 0) {
        return -1;
    }
    head_set(audit, &next);
    dirty_set(audit, false);
    return 0;
}

/* Writes `event`, which also closes what a torn write left behind and says how much that is. */
static int stray_close(struct audit *audit, const struct store *store,
                       const struct chain_tail *tail, struct audit_format_event *event)
{
    struct span torn = tail->stray;
    struct entry entry = {.event = event};
    unsigned char hash[SECRET_SHA256_BYTES];
    char digits[2 * SECRET_SHA256_BYTES + 1];
    bool lf = false;

    if (torn.len > 0) {
        lf = torn.ptr[torn.len - 1] != '\n';
        torn.len -= lf ? 0 : 1;
        secret_sha256(hash, &torn, 1);
        secret_hex(digits, hash, sizeof(hash));
        event->has_torn = true;
        event->torn_bytes = torn.len;
        event->torn_sha256 = span_of(digits);
    }
    event->time_us = now_us();
    return line_append(audit, store, lf, &entry);
}

/*
 * Makes the file end where the head says, given its tail: what lacks but its LF is completed, what
 * is torn is closed with `opening`, or a recovery when that is NULL. An opening is written even
 * when nothing is torn.
 */
static int stray_settle(struct audit *audit, const struct store *store,
                        const struct chain_tail *tail, struct audit_format_event *opening)
{
    struct audit_format_event recovery = {.event = span_of("recovery")};
    struct head head = *head_get(audit);
    struct chain_line line;

    if (tail->stray.len == 0 && opening == NULL) {
        dirty_set(audit, false);
        return 0;
    }
    dirty_set(audit, true);
    if (!chain_stray_completes(tail->stray, head.next_seq, head.hash, &line)) {
        return stray_close(audit, store, tail, opening == NULL ? &recovery : opening);
    }
    if (store_append(store, "\n", 1) != 0) {
        return -1;
    }
    if (head.next_seq == 0) {
        memcpy(audit->chain, line.chain, sizeof(audit->chain));
    }
    memcpy(head.hash, line.hash, sizeof(head.hash));
    head.next_seq++;
    head.dev = store->dev;
    head.ino = store->ino;
    head_set(audit, &head);
    dirty_set(audit, false);
    return 0;
}

/* Whether a file's last record is the head, or the one record after it, which is then adopted: a
 * process may have died before it could say that it had written it. */
static bool head_matches(struct audit *audit, const struct store *store,
                         const struct chain_tail *tail)
{
    struct head head = *head_get(audit);
    bool same;
    bool next;

    if (!tail->found) {
        return false;
    }
    same = tail->last.seq + 1 == head.next_seq &&
           memcmp(tail->last.hash, head.hash, sizeof(head.hash)) == 0;
    next = tail->last.seq == head.next_seq && memcmp(tail->prev, head.hash, sizeof(head.hash)) == 0;
    if (!same && !next) {
        return false;
    }
    head.next_seq = tail->last.seq + 1;
    memcpy(head.hash, tail->last.hash, sizeof(head.hash));
    head.dev = store->dev;
    head.ino = store->ino;
    head_set(audit, &head);
    return true;
}

/* After a failed append, or a death: finds out what the file holds and mends it. */
static int settle(struct audit *audit)
{
    struct chain_tail tail = {.found = false};
    enum chain_state state = chain_tail_read(audit->store.read_fd, head_get(audit)->next_seq,
                                             audit->shared->scratch, &tail);

    if (state == CHAIN_UNREADABLE) {
        return -1;
    }
    /* Where it fits neither, somebody else cut or changed the file: the chain goes on all the same,
     * from the beginning of a line, and what is missing will be missed. */
    if (state == CHAIN_OK) {
        (void)head_matches(audit, &audit->store, &tail);
    }
    return stray_settle(audit, &audit->store, &tail, NULL);
}

static bool store_is_current(const struct audit *audit)
{
    const struct head *head = head_get(audit);

    return audit->store.dev == head->dev && audit->store.ino == head->ino;
}

/* Goes on in a further file: an empty one, one that holds the head, or a torn first record. */
static int segment_continue(struct audit *audit, const struct store *next)
{
    const struct head *head = head_get(audit);
    struct chain_tail tail = {.found = false};
    enum chain_state state =
        chain_tail_read(next->read_fd, head->next_seq, audit->shared->scratch, &tail);
    char digits[2 * CHAIN_HASH_BYTES + 1];

    if (state == CHAIN_UNREADABLE) {
        return -1;
    }
    if (state == CHAIN_OK && !tail.found) {
        struct audit_format_event segment = {
            .event = span_of("segment.open"), .has_prev = true, .prev_seq = head->next_seq - 1};

        secret_hex(digits, head->hash, sizeof(head->hash));
        segment.prev_h = span_of(digits);
        return stray_settle(audit, next, &tail, &segment);
    }
    if (state == CHAIN_OK && head_matches(audit, next, &tail)) {
        return stray_settle(audit, next, &tail, NULL);
    }
    errno = EBADMSG;
    return -1;
}

static int sync_store(struct audit *audit)
{
    if (fdatasync(audit->store.fd) == 0) {
        return 0;
    }
    /* The kernel tells one of those that wait, and then forgets: so all are told here. */
    (void)atomic_fetch_add(&audit->shared->sync_failures, 1);
    return -1;
}

/* Opens the path anew: another process has, or was told to. */
static int reopen(struct audit *audit, uint32_t generation)
{
    const struct store_options options = {audit->path, audit->mode, (uid_t)-1, (gid_t)-1};
    const struct head *head;
    struct store next = {.fd = -1, .read_fd = -1};
    bool same;
    int r = -1;

    if (atomic_load(&audit->shared->dirty) != 0 && store_is_current(audit)) {
        /* Best effort: a full disk is often the very reason for a new file. */
        (void)settle(audit);
    }
    if (store_open(&options, &next) != 0) {
        return -1;
    }
    head = head_get(audit);
    same = next.dev == head->dev && next.ino == head->ino;
    /* Empty although the same: emptied in place, or the number of a file that is gone. */
    if (!same || next.size == 0) {
        (void)flock(next.fd, LOCK_EX | LOCK_NB); /* the supervisor's guards against a second one */
        if (segment_continue(audit, &next) != 0) {
            goto out;
        }
    }
    if (audit->commit) {
        (void)sync_store(audit); /* for threads that wrote to the old file and have yet to sync */
    }
    if (store_replace(&audit->store, &next) != 0) {
        goto out;
    }
    audit->generation = generation;
    r = 0;

out:
    if (r != 0) {
        int error = errno;

        store_close(&next);
        errno = error;
    }
    return r;
}

static int entry_append(struct audit *audit, const struct entry *entry, uint64_t *seq)
{
    uint32_t generation = atomic_load(&audit->shared->generation);

    if ((audit->generation != generation || !store_is_current(audit)) &&
        reopen(audit, generation) != 0) {
        return -1;
    }
    if (atomic_load(&audit->shared->dirty) != 0 && settle(audit) != 0) {
        return -1;
    }
    *seq = head_get(audit)->next_seq;
    return line_append(audit, &audit->store, false, entry);
}

static enum reason append(struct audit *audit, const struct entry *entry, uint64_t *seq)
{
    uint64_t turn = 0;
    uint64_t written = 0;
    uint32_t failures;
    int error = 0;

    if (lock_take(audit, &turn) != 0) {
        error = errno;
        goto out;
    }
    failures = atomic_load(&audit->shared->sync_failures);
    if (entry_append(audit, entry, &written) != 0) {
        error = errno;
    }
    lock_release(audit, turn);
    if (error == 0 && audit->commit) {
        if (sync_store(audit) != 0) {
            error = errno;
        } else if (atomic_load(&audit->shared->sync_failures) != failures) {
            error = EIO;
        }
    }

out:
    atomic_store(&audit->shared->last_error, error);
    if (error != 0) {
        return REASON_AUDIT_UNAVAILABLE;
    }
    *seq = written;
    return REASON_OK;
}

enum reason audit_append(struct audit *audit, const struct audit_record *record,
                         char id[AUDIT_ID_BYTES], uint64_t *seq)
{
    struct entry entry = {.record = record};
    enum reason reason = append(audit, &entry, seq);

    if (reason == REASON_OK) {
        memcpy(id, audit->chain, 16);
        id[16] = '-';
        id[17 + line_u64(id + 17, *seq)] = '\0';
    }
    return reason;
}

enum reason audit_append_event(struct audit *audit, const char *event, const char *action,
                               const char *result, const char *detail)
{
    struct audit_format_event e = {.time_us = now_us(),
                                   .event = span_of(event),
                                   .action = span_of(action),
                                   .result = span_of(result),
                                   .detail = span_of(detail)};
    struct entry entry = {.event = &e};
    uint64_t seq = 0;

    return append(audit, &entry, &seq);
}

pid_t audit_lock_holder(const struct audit *audit)
{
    return (pid_t)(atomic_load(&audit->shared->holder) >> 32);
}

int audit_last_error(const struct audit *audit)
{
    return atomic_load(&audit->shared->last_error);
}

uint64_t audit_next_seq(const struct audit *audit)
{
    return head_get(audit)->next_seq;
}

void audit_reopen(struct audit *audit)
{
    (void)atomic_fetch_add(&audit->shared->generation, 1);
}

static struct shared *shared_open(void)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t attributes;
    bool good;

    if (shared == MAP_FAILED) {
        return NULL;
    }
    if (pthread_mutexattr_init(&attributes) != 0) {
        (void)munmap(shared, sizeof(*shared));
        return NULL;
    }
    good = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
           pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0 &&
           pthread_mutex_init(&shared->lock, &attributes) == 0;
    (void)pthread_mutexattr_destroy(&attributes);
    if (!good) {
        (void)munmap(shared, sizeof(*shared));
        return NULL;
    }
    return shared;
}

static int node_set(struct audit *audit, const char *node)
{
    if (node == NULL) {
        /* A longer one comes back without its terminator. */
        return gethostname(audit->node, sizeof(audit->node) - 1);
    }
    (void)strncpy(audit->node, node, sizeof(audit->node) - 1);
    return 0;
}

/* Reads where the chain stands, or begins one. */
static int chain_begin(struct audit *audit, struct fault *fault)
{
    struct chain_tail tail = {.found = false};
    struct head head = {.dev = audit->store.dev, .ino = audit->store.ino};
    struct audit_format_event first = {.event = span_of("chain.open")};
    unsigned char id[8];
    int r = 0;

    switch (chain_tail_read(audit->store.read_fd, 0, audit->shared->scratch, &tail)) {
    case CHAIN_OK:
        break;
    case CHAIN_UNREADABLE:
        return fault_set(fault, audit->path, "cannot be read back: %s", strerror(errno));
    case CHAIN_FOREIGN:
        return fault_set(fault, audit->path,
                         "does not end like an audit trail and was left as it is; move the file "
                         "away or set another audit.file");
    case CHAIN_MISFIT:
        return fault_set(fault, audit->path,
                         "the last record does not fit the one before; move the file away or "
                         "restore it");
    }
    if (tail.found) {
        memcpy(audit->chain, tail.last.chain, sizeof(audit->chain));
        memcpy(head.hash, tail.last.hash, sizeof(head.hash));
        head.next_seq = tail.last.seq + 1;
        head_set(audit, &head);
        r = stray_settle(audit, &audit->store, &tail, NULL);
    } else {
        secret_random(id, sizeof(id));
        secret_hex(audit->chain, id, sizeof(id));
        head_set(audit, &head);
        r = stray_settle(audit, &audit->store, &tail, &first);
    }
    return r == 0 ? 0 : fault_set(fault, audit->path, "cannot be written: %s", strerror(errno));
}

static int audit_start(struct audit *audit, uid_t uid, gid_t gid, struct fault *fault)
{
    const struct store_options options = {audit->path, audit->mode, uid, gid};

    if (store_open(&options, &audit->store) != 0) {
        if (errno == EINVAL) {
            return fault_set(fault, audit->path, "is not a regular file");
        }
        if (errno == ELOOP) {
            return fault_set(fault, audit->path, "is a symbolic link; name the file itself");
        }
        return fault_set(fault, audit->path, "cannot be opened: %s", strerror(errno));
    }
    if (flock(audit->store.fd, LOCK_EX | LOCK_NB) != 0) {
        return fault_set(fault, audit->path,
                         errno == EWOULDBLOCK ? "is in use by another daemon"
                                              : "cannot be locked: %s",
                         strerror(errno));
    }
    if (chain_begin(audit, fault) != 0) {
        return -1;
    }
    if (audit_append_event(audit, "lifecycle", "start", NULL, NULL) != REASON_OK) {
        return fault_set(fault, audit->path, "cannot be written: %s",
                         strerror(audit_last_error(audit)));
    }
    return 0;
}

int audit_open(const struct audit_options *options, uid_t uid, gid_t gid, struct audit **out,
               struct fault *fault)
{
    struct audit *audit = calloc(1, sizeof(*audit));

    if (audit == NULL) {
        return fault_set(fault, options->file, "out of memory");
    }
    audit->store = (struct store){.fd = -1, .read_fd = -1};
    audit->commit = options->commit;
    audit->mode = options->mode;
    audit->path = strdup(options->file);
    audit->shared = shared_open();
    if (audit->path == NULL || audit->shared == NULL || node_set(audit, options->node) != 0) {
        audit_close(audit);
        return fault_set(fault, options->file, "no memory to share, or no host name");
    }
    errno = 0;
    if (audit_start(audit, uid, gid, fault) != 0) {
        int error = errno;

        audit_close(audit);
        errno = error;
        return -1;
    }
    *out = audit;
    return 0;
}

void audit_close(struct audit *audit)
{
    if (audit == NULL) {
        return;
    }
    store_close(&audit->store);
    if (audit->shared != NULL) {
        (void)munmap(audit->shared, sizeof(*audit->shared));
    }
    free(audit->path);
    free(audit);
}
