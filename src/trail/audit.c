#include "trail/audit.h"

#include "base/secret.h"
#include "base/sync.h"
#include "trail/audit_format.h"
#include "trail/begin.h"
#include "trail/commit.h"
#include "trail/ledger.h"
#include "trail/line.h"
#include "trail/seal.h"
#include "trail/segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HOLD_MS = 100,           /* for how long a group keeps others off the trail at a time */
    SYNC_MS = 1000,          /* how often the supervisor syncs what was only written */
    RETRY_MS = 1000,         /* when it tries again what failed */
    REPEAT_MS = 60000,       /* when it says the same again */
    LOOK_BYTES = 4 << 20,    /* what it recomputes at one tick, or a little more */
    SYNC_ROTATE_MS = 600000, /* how often a failed sync is a reason for a new file */
};

struct audit {
    struct ledger ledger;
    struct commit commit_group; /* of this process */
    bool commit;
    /* The rest is the supervisor's. */
    struct seal seal;
    struct segment segment;
    char first_key[AUDIT_KEY_BYTES];
    bool turn_wanted; /* told to, and not done yet */
    bool moved;       /* to another directory, and not told yet */
    dev_t dir_dev;    /* the directory of the file */
    ino_t dir_ino;
    uint32_t sync_failures;  /* that were there when the file was opened */
    uint64_t sync_rotate_ms; /* not before this is another file opened because of them */
    uint64_t synced_size;    /* of the file, with all of it on the disk, or given up */
    uint64_t sync_ms;        /* when the next background sync is due; so for the others */
    uint64_t seal_ms;
    bool seal_late; /* it was due, and is not made */
    bool unsynced;  /* the last background sync failed, or was given up */
    uint64_t retry_ms;
    uint64_t repeat_ms;
    struct fault told;
};

/* A record on its way into the trail. */
struct part {
    struct commit_part commit; /* first: what a group is made of */
    const struct ledger_entry *entry;
    uint64_t seq;
    int error; /* why it is not in the trail, or may not be on the disk; 0 */
};

/* What failed is never taken for done, whatever was left in errno. */
static int failure(int error)
{
    return error != 0 ? error : EIO;
}

static int append_locked(struct ledger *ledger, struct part *part)
{
    if (ledger_ready(ledger) != 0 || ledger_append(ledger, part->entry, &part->seq) != 0) {
        return failure(errno);
    }
    return 0;
}

/* Whether any was written; `*failures`: how many syncs had failed before. */
static bool write_parts(struct ledger *ledger, struct commit_part *first, uint32_t *failures)
{
    int error = ledger_lock(ledger) != 0 ? failure(errno) : 0;
    uint64_t until_ms = ledger_mono_ms() + HOLD_MS;
    bool written = false;

    *failures = atomic_load(&ledger->shared->sync_failures);
    for (struct commit_part *each = first; each != NULL; each = each->next) {
        struct part *part = (struct part *)each;

        if (error == 0 && ledger_mono_ms() > until_ms) {
            /* Who holds the lock for a second is taken for stuck, and killed. */
            ledger_unlock(ledger);
            error = ledger_lock(ledger) != 0 ? failure(errno) : 0;
            until_ms = ledger_mono_ms() + HOLD_MS;
        }
        part->error = error != 0 ? error : append_locked(ledger, part);
        written = written || part->error == 0;
    }
    if (error == 0) {
        ledger_unlock(ledger);
    }
    return written;
}

/* Makes known how it went, when nothing can change that any more. */
static void tell(struct ledger *ledger, const struct commit_part *first)
{
    for (const struct commit_part *each = first; each != NULL; each = each->next) {
        atomic_store(&ledger->shared->last_error, ((const struct part *)each)->error);
    }
}

static void commit_parts(void *arg, struct commit_part *first)
{
    struct ledger *ledger = arg;
    uint32_t failures;
    const bool written = write_parts(ledger, first, &failures);
    const bool failed = written && (ledger_sync(ledger, &ledger->store) != 0 ||
                                    atomic_load(&ledger->shared->sync_failures) != failures);

    if (written) {
        atomic_store(&ledger->shared->unsynced, failed);
    }
    if (failed) {
        const int error = failure(atomic_load(&ledger->shared->sync_error));

        /* Whichever failed since, this process's or another's, may have been of these records. */
        for (struct commit_part *each = first; each != NULL; each = each->next) {
            struct part *part = (struct part *)each;

            part->error = part->error != 0 ? part->error : error;
        }
    }
    tell(ledger, first);
}

/* `commit`: and waits until it is on the disk. */
static enum reason append(struct audit *audit, const struct ledger_entry *entry, bool commit,
                          uint64_t *seq)
{
    struct ledger *ledger = &audit->ledger;
    struct part part = {.entry = entry};
    uint32_t failures;

    if (commit) {
        commit_do(&audit->commit_group, &part.commit, commit_parts, ledger);
    } else {
        (void)write_parts(ledger, &part.commit, &failures);
        /* What was not synced says nothing of a sync that failed. */
        if (part.error != 0 || !atomic_load(&ledger->shared->unsynced)) {
            tell(ledger, &part.commit);
        }
    }
    if (part.error != 0) {
        return REASON_AUDIT_UNAVAILABLE;
    }
    *seq = part.seq;
    return REASON_OK;
}

enum reason audit_append(struct audit *audit, const struct audit_record *record,
                         char id[AUDIT_ID_BYTES], uint64_t *seq)
{
    struct ledger_entry entry = {.record = record};
    enum reason reason = append(audit, &entry, audit->commit, seq);

    if (reason == REASON_OK) {
        memcpy(id, audit->ledger.chain, 16);
        id[16] = '-';
        id[17 + line_u64(id + 17, *seq)] = '\0';
    }
    return reason;
}

static enum reason append_event(struct audit *audit, struct audit_format_event *event)
{
    struct ledger_entry entry = {.event = event};
    uint64_t seq = 0;

    event->time_us = ledger_now_us();
    return append(audit, &entry, false, &seq); /* the supervisor waits for no disk */
}

enum reason audit_append_event(struct audit *audit, const char *event, const char *action,
                               const char *result, const char *detail)
{
    struct audit_format_event e = {.event = span_of(event),
                                   .action = span_of(action),
                                   .result = span_of(result),
                                   .detail = span_of(detail)};

    return append_event(audit, &e);
}

pid_t audit_stuck_holder(struct audit *audit)
{
    return lock_stuck_holder(&audit->ledger.shared->lock);
}

void audit_break_lock(struct audit *audit, pid_t thread)
{
    lock_break(&audit->ledger.shared->lock, thread);
}

int audit_last_error(const struct audit *audit)
{
    return atomic_load(&audit->ledger.shared->last_error);
}

uint64_t audit_next_seq(const struct audit *audit)
{
    return head_get(&audit->ledger.head).next_seq;
}

struct audit_seals audit_seals(const struct audit *audit)
{
    const struct seal *seal = &audit->seal;
    const uint64_t next_seq = seal->walk.next_seq;

    return (struct audit_seals){.last_us = seal->made_us,
                                .unsealed = next_seq > seal->from ? next_seq - seal->from : 0,
                                .broken = seal->broken,
                                .late = audit->seal_late,
                                .unsynced = audit->unsynced};
}

enum reason audit_append_summary(struct audit *audit, const struct audit_summary *summary)
{
    struct audit_format_event event = {
        .event = span_of(summary->challenges ? "challenge.summary" : "suppressed"),
        .site = summary->site,
        .n = summary->n,
        .first_us = summary->first_us,
        .last_us = summary->last_us};

    if (!summary->challenges) {
        event.reason = span_of(reason_info(summary->reason)->code);
    }
    return append_event(audit, &event);
}

const char *audit_first_key(const struct audit *audit)
{
    return audit->first_key;
}

const char *audit_chain(const struct audit *audit)
{
    return audit->ledger.chain;
}

int audit_init_key(const char *state_dir, const char *file, uid_t uid, gid_t gid,
                   char key[AUDIT_KEY_BYTES], struct fault *fault)
{
    struct sealkey keys;
    struct stat st;
    int r = 0;

    if (sealkey_open(state_dir, &keys, fault) != 0) {
        return -1;
    }
    if (!keys.found && stat(file, &st) == 0 && st.st_size > 0) {
        r = fault_set(
            fault, keys.path,
            "is missing, and %s was sealed with it: no new key can go on with that trail; "
            "restore the key, or begin a new chain: move away the trail and audit.head",
            file);
    } else if (!keys.found) {
        r = sealkey_make(&keys, uid, gid, fault);
    }
    if (r == 0) {
        secret_hex(key, keys.first, sizeof(keys.first));
    }
    sealkey_close(&keys);
    return r;
}

/* The first record of this run. */
static int start_record(struct audit *audit, const struct audit_options *options,
                        const struct begin_result *begun, struct fault *fault)
{
    struct audit_format_event event = {.event = span_of("lifecycle"),
                                       .mono_ms = ledger_mono_ms(),
                                       .action = span_of("start"),
                                       .version = span_of(options->version),
                                       .pid = (uint64_t)getpid(),
                                       .uid = {true, geteuid()},
                                       .clean = begun->clean ? AUDIT_TRUE : AUDIT_FALSE};

    if (begun->boot[0] != '\0') {
        event.boot_id = span_of(begun->boot);
    }
    if (append_event(audit, &event) != REASON_OK) {
        return fault_set(fault, options->file, "cannot be written: %s",
                         strerror(audit_last_error(audit)));
    }
    return 0;
}

static int audit_start(struct audit *audit, const struct audit_options *options, uid_t uid,
                       gid_t gid, struct fault *fault)
{
    struct begin_result begun;

    if (ledger_open(options, uid, gid, &audit->ledger, fault) != 0 ||
        sealkey_open(options->state_dir, &audit->seal.keys, fault) != 0 ||
        begin_chain(&audit->ledger, &audit->seal, options->accept_gap, &begun, fault) != 0 ||
        segment_open(&audit->segment, &audit->ledger, fault) != 0) {
        return -1;
    }
    secret_hex(audit->first_key, audit->seal.keys.first, sizeof(audit->seal.keys.first));
    (void)store_directory(&audit->ledger.options, &audit->dir_dev, &audit->dir_ino);
    return start_record(audit, options, &begun, fault);
}

int audit_open(const struct audit_options *options, uid_t uid, gid_t gid, struct audit **out,
               struct fault *fault)
{
    struct audit *audit = calloc(1, sizeof(*audit));

    if (audit == NULL) {
        return fault_set(fault, options->file, "out of memory");
    }
    audit->commit = options->commit;
    commit_init(&audit->commit_group);
    errno = 0;
    if (audit_start(audit, options, uid, gid, fault) != 0) {
        int error = errno;

        audit_close(audit);
        errno = error;
        return -1;
    }
    *out = audit;
    return 0;
}

int audit_part(struct audit *audit)
{
    head_part(&audit->ledger.head);
    return ledger_follow(&audit->ledger);
}

void audit_close(struct audit *audit)
{
    if (audit == NULL) {
        return;
    }
    sealkey_close(&audit->seal.keys);
    ledger_close(&audit->ledger);
    free(audit);
}

/* Says a failure once, and again after a minute. */
static void news_temper(struct audit *audit, uint64_t now_ms, struct audit_news *news)
{
    if (news->fault.what[0] == '\0') {
        return;
    }
    audit->retry_ms = now_ms + RETRY_MS;
    if (strcmp(news->fault.what, audit->told.what) == 0 && now_ms < audit->repeat_ms) {
        news->fault.what[0] = '\0';
        return;
    }
    audit->told = news->fault;
    audit->repeat_ms = now_ms + REPEAT_MS;
}

/* False: the disk must not be waited for once more now. */
static bool background_sync(struct audit *audit, uint64_t now_ms, struct audit_news *news)
{
    struct ledger *ledger = &audit->ledger;
    uint64_t size = 0;
    bool synced = true;

    if (now_ms < audit->sync_ms) {
        return true;
    }
    audit->sync_ms = now_ms + SYNC_MS;
    if (store_size(&ledger->store, &size) != 0 || size != audit->synced_size) {
        synced = ledger_sync(ledger, &ledger->store) == 0;

        /* What failed is not tried again; what the disk was too busy for is. */
        audit->synced_size = synced || errno != ETIMEDOUT ? size : audit->synced_size;
        if (!synced) {
            (void)fault_set(&news->fault, ledger->path, "cannot be synced: %s",
                            sync_error_text(errno));
        }
        audit->unsynced = !synced;
    }
    return synced;
}

/* Whether it is time for another file; `*rename` when nobody else renames this one. */
static bool turn_due(struct audit *audit, const struct audit_pace *pace, uint64_t now_ms,
                     bool *rename)
{
    const uint32_t failures = atomic_load(&audit->ledger.shared->sync_failures);

    *rename = false;
    if (audit->turn_wanted || !place_is_open(&audit->ledger.place) ||
        store_is_deleted(&audit->ledger.store)) {
        return true;
    }
    *rename = true;
    if (failures != audit->sync_failures && now_ms >= audit->sync_rotate_ms) {
        /* What the kernel gave up it does not try again: a later sync of this file proves nothing
         * of it. */
        audit->sync_rotate_ms = now_ms + SYNC_ROTATE_MS;
        return true;
    }
    return segment_is_full(&audit->segment, &audit->ledger, &audit->seal, pace->rotate_bytes,
                           pace->rotate_ms);
}

/* Notices when the file is in another directory than the one before. */
static void directory_look(struct audit *audit)
{
    const dev_t dev = audit->dir_dev;
    const ino_t ino = audit->dir_ino;

    if (store_directory(&audit->ledger.options, &audit->dir_dev, &audit->dir_ino) == 0 &&
        (audit->dir_dev != dev || audit->dir_ino != ino)) {
        audit->moved = true;
    }
}

static int turn(struct audit *audit, bool rename, enum segment_turn *out, struct audit_news *news)
{
    audit->synced_size = 0; /* that of the file before says nothing of the next one */
    if (segment_turn(&audit->segment, &audit->ledger, &audit->seal, rename, out, news) != 0) {
        return -1;
    }
    directory_look(audit);
    audit->turn_wanted = false;
    if (*out == SEGMENT_NEXT) {
        audit->sync_failures = atomic_load(&audit->ledger.shared->sync_failures);
    }
    return 0;
}

/* Makes a seal if one is due, whatever else has failed; false: it is due and not made. */
static bool seal_tick(struct audit *audit, const struct audit_pace *pace, uint64_t now_ms,
                      struct audit_news *news)
{
    struct fault fault = {"", ""};
    bool made = true;

    if (pace->seal_ms == 0 || now_ms < audit->seal_ms) {
        return true;
    }
    if (!place_is_open(&audit->ledger.place)) {
        /* Nothing is written to a file that was ended: the next one's first seal covers the rest.
         */
        made = seal_finish(&audit->seal, &audit->ledger, news->seal, &fault) == 0 &&
               audit->seal.walk.next_seq == audit->seal.from;
    } else if (seal_is_due(&audit->seal, &audit->ledger)) {
        made = seal_make(&audit->seal, &audit->ledger, 0, news->seal, &fault) == 0;
        audit->segment.own += made ? 1 : 0;
    }
    if (made) {
        audit->seal_ms = now_ms + pace->seal_ms;
    }
    if (news->fault.what[0] == '\0') {
        news->fault = fault;
    }
    return made;
}

bool audit_tick(struct audit *audit, const struct audit_pace *pace, uint64_t now_ms,
                struct audit_news *news)
{
    enum segment_turn turned = SEGMENT_SAME;
    bool rename = false;
    int late;

    *news = (struct audit_news){.seal = ""};
    if (audit->seal_ms == 0 || audit->seal_ms > now_ms + pace->seal_ms) {
        audit->seal_ms = now_ms + pace->seal_ms;
    }
    seal_look(&audit->seal, &audit->ledger, LOOK_BYTES);
    late = sync_late_error();
    if (late != 0) {
        ledger_count_failure(&audit->ledger, late);
    }
    if (now_ms < audit->retry_ms) {
        return false;
    }
    const bool synced = background_sync(audit, now_ms, news);
    if (turn_due(audit, pace, now_ms, &rename)) {
        (void)turn(audit, rename, &turned, news);
    }
    audit->seal_late = synced ? !seal_tick(audit, pace, now_ms, news)
                              : pace->seal_ms != 0 && now_ms >= audit->seal_ms;
    news_temper(audit, now_ms, news);
    news->moved = audit->moved;
    audit->moved = false;
    return news->seal[0] != '\0' || news->segment[0] != '\0' || news->moved ||
           news->fault.what[0] != '\0';
}

int audit_rotate(struct audit *audit, struct audit_news *news)
{
    enum segment_turn turned = SEGMENT_SAME;

    *news = (struct audit_news){.seal = ""};
    audit->turn_wanted = true;
    if (turn(audit, false, &turned, news) != 0) {
        return -1;
    }
    if (turned == SEGMENT_SAME &&
        audit_append_event(audit, "audit", "reopen", NULL, NULL) != REASON_OK) {
        return fault_set(&news->fault, audit->ledger.path, "cannot be written: %s",
                         strerror(audit_last_error(audit)));
    }
    return 0;
}

int audit_stop(struct audit *audit, struct audit_news *news)
{
    struct audit_format_event event = {
        .event = span_of("lifecycle"), .mono_ms = ledger_mono_ms(), .action = span_of("stop")};

    *news = (struct audit_news){.seal = ""};
    if (append_event(audit, &event) != REASON_OK) {
        return fault_set(&news->fault, audit->ledger.path, "cannot be written: %s",
                         strerror(audit_last_error(audit)));
    }
    return seal_make(&audit->seal, &audit->ledger, HEAD_STOPPED, news->seal, &news->fault);
}
