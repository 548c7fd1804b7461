#include "trail/segment.h"

#include "base/secret.h"
#include "base/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int segment_open(struct segment *segment, const struct ledger *ledger, struct fault *fault)
{
    struct segment found = {.own = 0};
    enum chain_state state =
        chain_first_read(ledger->store.read_fd, &found.first_seq, &found.begun_s);

    if (state == CHAIN_UNREADABLE) {
        return fault_set(fault, ledger->path, "cannot be read back: %s", strerror(errno));
    }
    if (state != CHAIN_OK) {
        /* Torn bytes before the first record hide it: it is as if this was it. */
        found.first_seq = head_get(&ledger->head).next_seq - 1;
        found.begun_s = ledger_now_us() / 1000000;
    }
    *segment = found;
    return 0;
}

bool segment_is_full(const struct segment *segment, const struct ledger *ledger,
                     const struct seal *seal, uint64_t bytes, uint64_t age_ms)
{
    const uint64_t count = seal->walk.next_seq - segment->first_seq;
    const uint64_t now_s = ledger_now_us() / 1000000;
    uint64_t size = 0;

    if (count <= segment->own || store_size(&ledger->store, &size) != 0) {
        return false;
    }
    return (bytes != 0 && size >= bytes) ||
           (age_ms != 0 && now_s > segment->begun_s && (now_s - segment->begun_s) * 1000 >= age_ms);
}

/* Renames the file if it is still at its path; `to` says what it is called then, "" if it is not.
 */
static int file_rename(const struct segment *segment, const struct ledger *ledger,
                       char to[PATH_MAX], struct fault *fault)
{
    struct stat st;

    to[0] = '\0';
    if (lstat(ledger->path, &st) != 0 || st.st_dev != ledger->store.dev ||
        st.st_ino != ledger->store.ino) {
        return 0;
    }
    /* An older chain may have left a file of that name; one with this chain's id is nobody else's.
     */
    for (unsigned i = 0; i < 2; i++) {
        if (snprintf(to, PATH_MAX, "%s.%llu%s%s", ledger->path,
                     (unsigned long long)segment->first_seq, i == 0 ? "" : ".",
                     i == 0 ? "" : ledger->chain) >= PATH_MAX) {
            errno = ENAMETOOLONG;
            break;
        }
        if (renameat2(AT_FDCWD, ledger->path, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
            return 0;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return fault_set(fault, ledger->path, "cannot be renamed to %s: %s", to, strerror(errno));
}

/* Says why there is no next file, and what that means for records. EEXIST: there is another one;
 * EINVAL: it is none. */
static int fault_next(struct ledger *ledger, int error, struct fault *fault)
{
    const char *before =
        store_is_deleted(&ledger->store) ? "was deleted, so no record can be written"
        : place_is_open(&ledger->place)  ? "stays in use"
                                         : "was closed, so no record can be written";

    place_set_error(&ledger->place, error);
    if (error == EEXIST) {
        return fault_set(fault, ledger->path,
                         "holds something already and was left as it is; the file before %s",
                         before);
    }
    if (error == EINVAL) {
        return fault_set(fault, ledger->path, "is not a regular file; the file before %s", before);
    }
    return fault_set(fault, ledger->path, "cannot be opened: %s; the file before %s",
                     strerror(error), before);
}

/* The file is still at the path: if its last record closes it, somebody has moved it back, and if
 * not, no process of ours has said that it is closed. */
static int same_look(struct ledger *ledger, const struct store *same, struct fault *fault)
{
    struct chain_anchor anchor;
    struct head head;

    if (place_is_open(&ledger->place)) {
        return 0;
    }
    if (ledger_lock(ledger) != 0) {
        return fault_set(fault, ledger->path, "cannot be locked: %s", strerror(errno));
    }
    if (chain_anchor_find(same->read_fd, same->size, ledger->scratch, &anchor) != CHAIN_OK ||
        anchor.closed) {
        ledger_unlock(ledger);
        return fault_set(fault, ledger->path, "is a segment that was closed; move it away");
    }
    place_set(&ledger->place, same->dev, same->ino);
    head = head_get(&ledger->head);
    head.dev = same->dev;
    head.ino = same->ino;
    head_set(&ledger->head, &head);
    ledger_unlock(ledger);
    return 0;
}

/* Opens what is at the path now; with SEGMENT_NEXT it can become the next file. */
static int next_open(struct ledger *ledger, struct store *next, enum segment_turn *turn,
                     struct fault *fault)
{
    struct chain_tail tail = {.found = false};
    enum chain_state state;

    if (store_open(&ledger->options, next) != 0) {
        return fault_next(ledger, errno, fault);
    }
    *turn = SEGMENT_NEXT;
    state = chain_tail_read(next->read_fd,
                            place_is_open(&ledger->place) ? head_get(&ledger->head).next_seq
                                                          : ledger->end.next_seq,
                            ledger->scratch, &tail);
    /* Emptied in place, the same file begins anew, too, if need be with an opening that was torn.
     */
    if (next->dev == ledger->store.dev && next->ino == ledger->store.ino && next->size > 0 &&
        (place_is_open(&ledger->place) || state != CHAIN_OK || tail.found)) {
        *turn = SEGMENT_SAME;
        return same_look(ledger, next, fault);
    }
    (void)flock(next->fd, LOCK_EX | LOCK_NB); /* guards against a second daemon */
    if (state == CHAIN_OK && !tail.found) {
        return 0;
    }
    return fault_next(ledger, EEXIST, fault);
}

/* What was wrong first is what is told. */
static void fault_keep(struct fault *fault, const struct fault *more)
{
    if (fault->what[0] == '\0') {
        *fault = *more;
    }
}

/* Where the chain goes on when the file cannot tell: after the head, unless that falls short of
 * what was seen in the file. */
static struct head end_guess(const struct ledger *ledger, const struct seal *seal)
{
    const struct head head = head_get(&ledger->head);
    struct head end = seal_end(seal, ledger);

    if (head.next_seq > end.next_seq) {
        end.next_seq = head.next_seq;
        memcpy(end.hash, head.hash, sizeof(end.hash));
    }
    return end;
}

/*
 * Seals what is not, and ends the file; best effort: a full disk is often the very reason for a new
 * one. The next one goes on from where the walk has come to, not from what the shared head says,
 * unless the file cannot be read.
 */
static void old_close(struct ledger *ledger, struct seal *seal, struct fault *fault)
{
    struct audit_format_event event = {.event = span_of("segment.close"),
                                       .mono_ms = ledger_mono_ms()};
    struct ledger_entry entry = {.event = &event};
    struct fault more = {"", ""};
    struct ledger_line line;

    const enum seal_proof proof = seal_prove(seal, ledger, fault);
    const bool sealed = proof == SEAL_PROVEN && seal_write(seal, ledger, 0, &more) == 0;

    ledger->end = proof == SEAL_UNREADABLE ? end_guess(ledger, seal) : seal_end(seal, ledger);
    if (sealed) {
        event.time_us = ledger_now_us();
        ledger_format(ledger, &ledger->end, &entry, &line);
        place_end(&ledger->place); /* whatever becomes of this process, nobody writes behind it */
        if (ledger_put(ledger, &ledger->store, &ledger->end, &line) != 0) {
            (void)fault_set(&more, ledger->path, "the file before cannot be closed: %s",
                            strerror(errno));
        } else {
            ledger->end = line.next;
        }
    }
    if (ledger_sync(ledger, &ledger->store) != 0) {
        if (errno == ETIMEDOUT) {
            /* Whoever waits for a record in this file will sync the next one, and must not take
             * that for its own. */
            ledger_count_failure(ledger, ETIMEDOUT);
        }
        (void)fault_set(&more, ledger->path, "the file before cannot be synced: %s",
                        sync_error_text(errno));
    }
    fault_keep(fault, &more);
}

/* Begins the next file, which holds nothing, or an opening that was torn, after `head`, which is
 * moved. */
static int next_begin(struct ledger *ledger, struct seal *seal, const struct store *next,
                      struct head *head, struct fault *fault)
{
    struct audit_format_event event = {
        .event = span_of("segment.open"), .mono_ms = ledger_mono_ms(), .epoch = {.given = true}};
    struct chain_tail tail = {.found = false};
    char public_key[2 * SECRET_SIGN_PUBLIC_BYTES + 1];
    char digits[2 * CHAIN_HASH_BYTES + 1];

    if (chain_tail_read(next->read_fd, head->next_seq, ledger->scratch, &tail) != CHAIN_OK ||
        tail.found) {
        return fault_next(ledger, EEXIST, fault);
    }
    secret_hex(digits, head->hash, sizeof(head->hash));
    seal_key(seal, &event.epoch.value, public_key);
    event.prev_seq = (struct audit_format_u64){true, head->next_seq - 1};
    event.prev_h = span_of(digits);
    event.pk = span_of(public_key);
    if (ledger_mend(ledger, next, head, &tail, &event) != 0) {
        place_set_error(&ledger->place, errno);
        return fault_set(fault, ledger->path, "cannot be written: %s; no record is until it can",
                         strerror(errno));
    }
    return 0;
}

/* Nobody writes to the file any more; whoever starts after a crash knows which one to look at for
 * an opening. */
static void end_tell(struct ledger *ledger, const struct store *next)
{
    struct head head = ledger->end;

    place_end(&ledger->place);
    head.dev = next->dev;
    head.ino = next->ino;
    head_set(&ledger->head, &head);
}

/* No record goes to a file that was deleted: whoever was let in by one would have none. What else
 * is wrong with it is no news. */
static void deleted_end(struct ledger *ledger, struct seal *seal, struct audit_news *news)
{
    struct fault rest = {"", ""};

    if (!place_is_open(&ledger->place)) {
        return;
    }
    (void)seal_prepare(seal, ledger, news->seal, &rest);
    if (ledger_lock(ledger) != 0) {
        return; /* at the next try */
    }
    old_close(ledger, seal, &rest);
    end_tell(ledger, &ledger->store);
    ledger_unlock(ledger);
    (void)seal_finish(seal, ledger, news->seal, &rest);
}

/* What is done under the lock. */
static int turn_locked(struct segment *segment, struct ledger *ledger, struct seal *seal,
                       struct store *next, struct audit_news *news)
{
    struct fault more = {"", ""};
    struct head now;

    if (place_is_open(&ledger->place) && next->dev == ledger->store.dev &&
        next->ino == ledger->store.ino) {
        ledger->end = end_guess(ledger, seal);
        seal->broken++;
        (void)fault_set(&news->fault, ledger->path,
                        "was emptied: what was in it, up to record %llu, is lost unless there is a "
                        "copy",
                        (unsigned long long)ledger->end.next_seq - 1);
    } else if (place_is_open(&ledger->place)) {
        old_close(ledger, seal, &news->fault);
    }
    end_tell(ledger, next);
    now = ledger->end;
    if (next_begin(ledger, seal, next, &now, &more) != 0) {
        fault_keep(&news->fault, &more);
        return -1;
    }
    if (store_replace(&ledger->store, next) != 0) {
        return fault_set(&news->fault, ledger->path, "cannot be opened: %s", strerror(errno));
    }
    place_set(&ledger->place, ledger->store.dev, ledger->store.ino);
    atomic_store(&ledger->shared->last_error, 0); /* the opening is written */
    atomic_store(&ledger->shared->unsynced, false);
    segment->first_seq = now.next_seq - 1;
    segment->begun_s = ledger_now_us() / 1000000;
    segment->own = 1;
    (void)snprintf(news->segment, sizeof(news->segment), "chain %s goes on with seq %llu",
                   ledger->chain, (unsigned long long)segment->first_seq);
    if (seal_restart(seal, ledger, now.next_seq, now.hash) != 0) {
        return fault_set(&news->fault, ledger->path, "cannot be read back: %s", strerror(errno));
    }
    return 0;
}

/* Whether the file was emptied in place, and somebody has gone on in it before the lock was had:
 * the next seal finds that. */
static bool is_in_use(const struct ledger *ledger, const struct store *next)
{
    uint64_t size = 0;

    return place_is_open(&ledger->place) && next->dev == ledger->store.dev &&
           next->ino == ledger->store.ino && (store_size(next, &size) != 0 || size > 0);
}

int segment_turn(struct segment *segment, struct ledger *ledger, struct seal *seal, bool rename,
                 enum segment_turn *out, struct audit_news *news)
{
    struct store next = {.fd = -1, .read_fd = -1};
    char renamed[PATH_MAX] = "";
    struct fault early = {"", ""};
    int r = -1;

    if (rename && file_rename(segment, ledger, renamed, &news->fault) != 0) {
        return -1;
    }
    news->deleted = store_is_deleted(&ledger->store);
    if (next_open(ledger, &next, out, &news->fault) != 0) {
        if (news->deleted) {
            deleted_end(ledger, seal, news);
        }
        goto out;
    }
    if (*out == SEGMENT_SAME) {
        store_close(&next);
        return 0;
    }
    /* What can be done before the lock is. */
    (void)seal_prepare(seal, ledger, news->seal, &early);
    if (ledger_sync(ledger, &ledger->store) != 0 && errno != ETIMEDOUT && early.what[0] == '\0') {
        /* Told and counted here; asked again, the kernel may say that all is well. */
        (void)fault_set(&early, ledger->path, "the file before cannot be synced: %s",
                        sync_error_text(errno));
    }
    if (ledger_lock(ledger) != 0) {
        (void)fault_set(&news->fault, ledger->path, "cannot be locked: %s", strerror(errno));
        goto out;
    }
    if (is_in_use(ledger, &next)) {
        ledger_unlock(ledger);
        *out = SEGMENT_SAME;
        store_close(&next);
        return 0;
    }
    r = turn_locked(segment, ledger, seal, &next, news);
    ledger_unlock(ledger);
    if (r == 0 || !place_is_open(&ledger->place)) {
        renamed[0] = '\0'; /* there is no way back */
    }
    if (r == 0) {
        fault_keep(&early, &news->fault);
        news->fault = early;
        if (store_sync_name(&ledger->options) != 0 || ledger_sync(ledger, &ledger->store) != 0) {
            r = fault_set(&news->fault, ledger->path, "cannot be synced: %s",
                          sync_error_text(errno));
        } else {
            r = seal_finish(seal, ledger, news->seal, &news->fault);
        }
    }

out:
    if (r != 0 && !place_is_open(&ledger->place)) {
        /* Nobody has to come and be refused before status says so. */
        atomic_store(&ledger->shared->last_error, place_error(&ledger->place));
    }
    if (r != 0 && renamed[0] != '\0') {
        /* If somebody has put a file there, the old one is in use under its new name. */
        (void)renameat2(AT_FDCWD, renamed, AT_FDCWD, ledger->path, RENAME_NOREPLACE);
    }
    store_close(&next);
    return r;
}
