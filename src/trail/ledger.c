#include "trail/ledger.h"

#include "base/secret.h"
#include "base/sync.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { FOLLOW_TRIES = 4 };

uint64_t ledger_now_us(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t ledger_mono_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int ledger_lock(struct ledger *ledger)
{
    /* After the death of a holder there is nothing more to mend here: head and `dirty` are right at
     * any moment. */
    if (lock_take(&ledger->shared->lock) != 0) {
        const int error = errno;

        atomic_store(&ledger->shared->last_error, error);
        errno = error;
        return -1;
    }
    return 0;
}

void ledger_unlock(struct ledger *ledger)
{
    (void)lock_give(&ledger->shared->lock);
}

void ledger_format(const struct ledger *ledger, const struct head *after,
                   const struct ledger_entry *entry, struct ledger_line *line)
{
    line->lf = false;
    line->next = *after;
    line->next.flags = 0;
    line->len = entry->record != NULL
                    ? audit_format(line->text + 1, after->next_seq, ledger->chain, ledger->node,
                                   entry->record)
                    : audit_format_event(line->text + 1, after->next_seq, ledger->chain,
                                         ledger->node, entry->event);
}

int ledger_put(struct ledger *ledger, const struct store *store, const struct head *after,
               struct ledger_line *line)
{
    const size_t before = line->lf ? 1 : 0;

    line->text[0] = '\n';
    line->len = chain_close(line->text + 1, line->len, after->hash, line->next.hash);
    line->next.next_seq = after->next_seq + 1;
    line->next.dev = store->dev;
    line->next.ino = store->ino;
    head_dirty_set(&ledger->head, true);
    if (store_append(store, line->text + 1 - before, line->len + before) != 0) {
        return -1;
    }
    head_set(&ledger->head, &line->next);
    head_dirty_set(&ledger->head, false);
    return 0;
}

int ledger_append(struct ledger *ledger, const struct ledger_entry *entry, uint64_t *seq)
{
    const struct head head = head_get(&ledger->head);
    struct ledger_line line;

    ledger_format(ledger, &head, entry, &line);
    if (ledger_put(ledger, &ledger->store, &head, &line) != 0) {
        return -1;
    }
    *seq = head.next_seq;
    return 0;
}

int ledger_recover(struct ledger *ledger, const struct store *store, const struct head *after,
                   struct span stray, struct audit_format_event *event, struct ledger_line *line)
{
    struct ledger_entry entry = {.event = event};
    unsigned char hash[SECRET_SHA256_BYTES];
    char digits[2 * SECRET_SHA256_BYTES + 1];
    bool lf = false;

    if (stray.len > 0) {
        lf = stray.ptr[stray.len - 1] != '\n';
        stray.len -= lf ? 0 : 1;
        secret_sha256(hash, &stray, 1);
        secret_hex(digits, hash, sizeof(hash));
        event->torn_bytes = (struct audit_format_u64){true, stray.len};
        event->torn_sha256 = span_of(digits);
    }
    event->time_us = ledger_now_us();
    ledger_format(ledger, after, &entry, line);
    line->lf = lf;
    return ledger_put(ledger, store, after, line);
}

/* The head after a line that was found in the file, behind `head`. */
static struct head head_move(struct ledger *ledger, const struct store *store, struct head head,
                             const struct chain_line *line)
{
    head.next_seq = line->seq + 1;
    memcpy(head.hash, line->hash, sizeof(head.hash));
    head.dev = store->dev;
    head.ino = store->ino;
    head.epoch = line->has_key ? line->epoch : head.epoch;
    head.from = line->mark == CHAIN_SEAL ? line->seq + 1 : head.from;
    head.flags = 0;
    head_set(&ledger->head, &head);
    return head;
}

int ledger_mend(struct ledger *ledger, const struct store *store, struct head *head,
                const struct chain_tail *tail, struct audit_format_event *opening)
{
    struct audit_format_event recovery = {.event = span_of("recovery"), .result = span_of("torn")};
    struct ledger_line made;
    struct chain_line line;

    if (tail->stray.len == 0 && opening == NULL) {
        head_dirty_set(&ledger->head, false);
        return 0;
    }
    head_dirty_set(&ledger->head, true);
    if (!chain_stray_completes(tail->stray, head->next_seq, head->hash, &line)) {
        if (ledger_recover(ledger, store, head, tail->stray, opening == NULL ? &recovery : opening,
                           &made) != 0) {
            return -1;
        }
        *head = made.next;
        return 0;
    }
    if (store_append(store, "\n", 1) != 0) {
        return -1;
    }
    if (head->next_seq == 0 && opening != NULL) {
        /* A chain's opening, which names it; once it has begun nobody else does. */
        memcpy(ledger->chain, line.chain, sizeof(ledger->chain));
    }
    *head = head_move(ledger, store, *head, &line);
    head_dirty_set(&ledger->head, false);
    return 0;
}

bool ledger_adopt(struct ledger *ledger, const struct store *store, const struct chain_tail *tail)
{
    struct head head = head_get(&ledger->head);

    if (!tail->found) {
        return false;
    }
    if (tail->last.seq + 1 == head.next_seq &&
        memcmp(tail->last.hash, head.hash, sizeof(head.hash)) == 0) {
        if (head.dev != store->dev || head.ino != store->ino) {
            head.dev = store->dev;
            head.ino = store->ino;
            head_set(&ledger->head, &head);
        }
        return true;
    }
    if (tail->last.seq == head.next_seq && memcmp(tail->prev, head.hash, sizeof(head.hash)) == 0) {
        (void)head_move(ledger, store, head, &tail->last);
        return true;
    }
    return false;
}

/* After a failed append, or a death: finds out what the file holds and mends it. */
static int settle(struct ledger *ledger)
{
    struct chain_tail tail = {.found = false};
    enum chain_state state = chain_tail_read(
        ledger->store.read_fd, head_get(&ledger->head).next_seq, ledger->scratch, &tail);
    struct head head;

    if (state == CHAIN_UNREADABLE) {
        return -1;
    }
    /* Where it fits neither, somebody else cut or changed the file: the chain goes on all the same,
     * from the beginning of a line, and the supervisor finds out before it seals. */
    if (state == CHAIN_OK) {
        (void)ledger_adopt(ledger, &ledger->store, &tail);
    }
    head = head_get(&ledger->head);
    return ledger_mend(ledger, &ledger->store, &head, &tail, NULL);
}

int ledger_follow(struct ledger *ledger)
{
    struct store next = {.fd = -1, .read_fd = -1};
    dev_t dev = 0;
    ino_t ino = 0;
    int r = -1;

    place_get(&ledger->place, &dev, &ino);
    /* Whoever reads a directory may miss what is renamed in it at that moment. */
    for (unsigned i = 0; r != 0 && i < FOLLOW_TRIES; i++) {
        r = store_find(&ledger->options, dev, ino, &next);
    }
    if (r != 0) {
        return -1;
    }
    if (store_replace(&ledger->store, &next) != 0) {
        int error = errno;

        store_close(&next);
        errno = error;
        return -1;
    }
    return 0;
}

int ledger_ready(struct ledger *ledger)
{
    const int error = place_error(&ledger->place);

    if (error != 0) {
        errno = error;
        return -1;
    }
    /* The number of a file that is open is nobody else's. */
    if (!place_is(&ledger->place, ledger->store.dev, ledger->store.ino) &&
        ledger_follow(ledger) != 0) {
        return -1;
    }
    return head_is_dirty(&ledger->head) ? settle(ledger) : 0;
}

int ledger_sync(struct ledger *ledger, const struct store *store)
{
    const int late = sync_late_error();

    if (late != 0) {
        /* The kernel has told it to whoever asked before, and would say now that all is well. */
        ledger_count_failure(ledger, late);
        errno = late;
        return -1;
    }
    if (sync_file(store->fd, SYNC_DATA) == 0) {
        return 0;
    }
    if (errno != ETIMEDOUT) {
        ledger_count_failure(ledger, errno);
    }
    return -1;
}

void ledger_count_failure(struct ledger *ledger, int error)
{
    /* The kernel tells one of those that wait, and then forgets: so all are told here. */
    atomic_store(&ledger->shared->sync_error, error);
    (void)atomic_fetch_add(&ledger->shared->sync_failures, 1);
}

static struct ledger_shared *shared_open(void)
{
    struct ledger_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return shared != MAP_FAILED ? shared : NULL;
}

static int node_set(struct ledger *ledger, const char *node)
{
    if (node == NULL) {
        /* A longer one comes back without its terminator. */
        return gethostname(ledger->node, sizeof(ledger->node) - 1);
    }
    (void)strncpy(ledger->node, node, sizeof(ledger->node) - 1);
    return 0;
}

static int file_open(struct ledger *ledger, const struct store_options *options,
                     struct fault *fault)
{
    if (store_open(options, &ledger->store) != 0) {
        if (errno == EINVAL) {
            return fault_set(fault, options->path, "is not a regular file");
        }
        if (errno == ELOOP) {
            return fault_set(fault, options->path, "is a symbolic link; name the file itself");
        }
        return fault_set(fault, options->path, "cannot be opened: %s", strerror(errno));
    }
    if (flock(ledger->store.fd, LOCK_EX | LOCK_NB) != 0) {
        return fault_set(fault, options->path,
                         errno == EWOULDBLOCK ? "is in use by another daemon"
                                              : "cannot be locked: %s",
                         strerror(errno));
    }
    return 0;
}

int ledger_open(const struct audit_options *options, uid_t uid, gid_t gid, struct ledger *out,
                struct fault *fault)
{
    const struct store_options first = {options->file, options->mode, uid, gid};

    out->store = (struct store){.fd = -1, .read_fd = -1};
    out->path = strdup(options->file);
    out->options = (struct store_options){out->path, options->mode, (uid_t)-1, (gid_t)-1};
    out->shared = shared_open();
    if (out->path == NULL || out->shared == NULL || node_set(out, options->node) != 0) {
        return fault_set(fault, options->file, "no memory to share, or no host name");
    }
    if (file_open(out, &first, fault) != 0 ||
        head_open(options->state_dir, &out->head, fault) != 0) {
        return -1;
    }
    if (place_open(&out->place) != 0) {
        return fault_set(fault, options->file, "no memory to tell the workers of it: %s",
                         strerror(errno));
    }
    place_set(&out->place, out->store.dev, out->store.ino);
    return 0;
}

void ledger_close(struct ledger *ledger)
{
    store_close(&ledger->store);
    head_close(&ledger->head);
    place_close(&ledger->place);
    if (ledger->shared != NULL) {
        (void)munmap(ledger->shared, sizeof(*ledger->shared));
    }
    free(ledger->path);
    ledger->path = NULL;
    ledger->shared = NULL;
}
