#include "auth/replay.h"

#include "auth/table.h"
#include "base/lock.h"
#include "base/secret.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SHARE_SLOTS = GROUP_SLOTS / 8, /* of a group, for one principal: hashing spreads it over all */
    LOCKS = 64,
    ENDS = 8192,
};

/* What no file holds: a daemon that starts anew starts with free locks. */
struct shared {
    struct lock locks[LOCKS];
    /* How many entries end in a second: that second << 32 | how many. For the status, which must
     * not walk a large table; two seconds that lie ENDS apart forget the earlier. */
    _Atomic uint64_t ends[ENDS];
};

struct replay {
    struct table table;
    struct shared *shared;
    pid_t opener; /* who settles it */
};

static struct shared *shared_open(void)
{
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared != MAP_FAILED ? shared : NULL;
}

static void count_end(struct shared *shared, uint32_t expires_s)
{
    _Atomic uint64_t *end = &shared->ends[expires_s % ENDS];
    uint64_t seen = atomic_load_explicit(end, memory_order_relaxed);
    uint64_t next = 0;
    do {
        if (seen >> 32 > expires_s) {
            return; /* it ended long ago */
        }
        next = seen >> 32 == expires_s ? seen + 1 : (uint64_t)expires_s << 32 | 1;
    } while (!atomic_compare_exchange_weak_explicit(end, &seen, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

static void count_ends(struct replay *replay)
{
    const size_t count = (size_t)replay->table.groups * GROUP_SLOTS;
    for (size_t i = 0; i < count; i++) {
        if (replay->table.slots[i].expires_s != 0) {
            count_end(replay->shared, replay->table.slots[i].expires_s);
        }
    }
}

int replay_open(const char *state_dir, uint64_t entries, struct replay **out, struct fault *fault)
{
    struct table table;
    if (table_open(state_dir, entries, &table, fault) != 0) {
        return -1;
    }
    struct replay *replay = calloc(1, sizeof *replay);
    struct shared *shared = shared_open();
    if (replay == NULL || shared == NULL) {
        free(replay);
        if (shared != NULL) {
            (void)munmap(shared, sizeof *shared);
        }
        table_close(&table);
        return fault_set(fault, state_dir, "no memory for the replay table");
    }
    *replay = (struct replay){table, shared, getpid()};
    count_ends(replay);
    *out = replay;
    return 0;
}

void replay_close(struct replay *replay)
{
    if (replay == NULL) {
        return;
    }
    if (replay->opener == getpid()) {
        table_settle(&replay->table);
    }
    table_close(&replay->table);
    (void)munmap(replay->shared, sizeof *replay->shared);
    free(replay);
}

/* Of a group; after the death of a holder there is nothing to mend, slots are whole at any moment.
 */
static struct lock *lock_of(struct replay *replay, size_t group)
{
    return &replay->shared->locks[group / GROUP_SLOTS % LOCKS];
}

pid_t replay_stuck_holder(struct replay *replay)
{
    pid_t holder = 0;
    for (size_t i = 0; i < LOCKS && holder == 0; i++) {
        holder = lock_stuck_holder(&replay->shared->locks[i]);
    }
    return holder;
}

void replay_break_lock(struct replay *replay, pid_t thread)
{
    for (size_t i = 0; i < LOCKS; i++) {
        lock_break(&replay->shared->locks[i], thread);
    }
}

/* Keyed, so that nobody outside can aim at a slot or at a context. */
static uint64_t hash_of(const struct replay *replay, struct span bytes)
{
    uint64_t hash[SECRET_HASH_BYTES / sizeof(uint64_t)];
    secret_hash((unsigned char *)hash, replay->table.header->key, bytes);
    return hash[0];
}

/* The hash of the fields' hashes, so that no two lists of fields look alike; 0 is "none". */
static uint32_t context_of(const struct replay *replay, const struct replay_use *use)
{
    uint64_t hashes[REPLAY_CONTEXT_MAX];
    if (use->context_count == 0 || use->context_count > REPLAY_CONTEXT_MAX) {
        return 0;
    }
    for (size_t i = 0; i < use->context_count; i++) {
        hashes[i] = hash_of(replay, use->context[i]);
    }
    return (uint32_t)hash_of(replay, span_make(hashes, use->context_count * sizeof hashes[0])) | 1;
}

static bool is_repeat(const struct slot *slot, uint32_t context, uint64_t now_s)
{
    /* Unsigned: when the clock went back, that was long ago, too. */
    return context != 0 && slot->context == context && now_s - slot->arrived_s <= REPLAY_REPEAT_S;
}

static void fill_slot(struct slot *slot, const struct slot *fresh)
{
    slot->expires_s = 0;
    atomic_signal_fence(memory_order_release);
    slot->id = fresh->id;
    slot->seq = 0;
    slot->principal = fresh->principal;
    slot->context = fresh->context;
    slot->arrived_s = fresh->arrived_s;
    atomic_signal_fence(memory_order_release);
    slot->expires_s = fresh->expires_s;
}

/* Finds `fresh` among the group's slots or puts it there; under the group's lock. */
static enum reason test_and_set(struct replay *replay, struct slot *group, const struct slot *fresh,
                                uint64_t now_s, struct slot **out)
{
    struct slot *place = NULL;
    size_t held = 0;
    for (size_t i = 0; i < GROUP_SLOTS; i++) {
        if (group[i].id == fresh->id && group[i].expires_s != 0) {
            *out = &group[i]; /* ended or not: the clock, or the allowed skew, may have changed */
            return is_repeat(&group[i], fresh->context, now_s) ? REASON_REPEAT : REASON_REPLAY;
        }
        if (group[i].expires_s < now_s) {
            place = place == NULL ? &group[i] : place;
        } else if (group[i].expires_s == now_s) {
            continue; /* kept for a second more, so that what is forgotten is never acceptable */
        } else {
            held += group[i].principal == fresh->principal ? 1 : 0;
        }
    }
    if (place == NULL || held >= SHARE_SLOTS) {
        return REASON_REPLAY_FULL;
    }
    table_forget(replay->table.header, place);
    fill_slot(place, fresh);
    count_end(replay->shared, fresh->expires_s);
    *out = place;
    return REASON_OK;
}

static uint64_t sub(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/*
 * A forgotten authenticator was accepted at most the skew before its own time, and its entry lived
 * for two skews and a second after that.
 */
uint64_t replay_floor_us(const struct replay *replay, uint32_t keep_s)
{
    const struct header *header = replay->table.header;
    const uint64_t skew_s = keep_s / 2;
    const uint64_t forgotten_s = atomic_load_explicit(&header->forgotten_s, memory_order_relaxed);
    const uint64_t given_up = forgotten_s * 1000000 + 999999; /* that whole second */
    const uint64_t before = header->made_us + (header->lost != 0 ? skew_s * 1000000 : 0);
    return given_up > before ? given_up : before;
}

bool replay_wants_ctime(const struct replay *replay, uint64_t now_s, uint32_t keep_s)
{
    return replay_floor_us(replay, keep_s) >= sub(now_s, keep_s / 2) * 1000000;
}

/* Whether the table may have known it, and has forgotten it. */
static bool may_be_forgotten(const struct replay *replay, const struct replay_use *use)
{
    return use->ctime_us != 0 ? use->ctime_us <= replay_floor_us(replay, use->keep_s)
                              : replay_wants_ctime(replay, use->now_s, use->keep_s);
}

enum reason replay_check(struct replay *replay, const struct replay_use *use,
                         struct replay_entry *entry)
{
    /* Asked before, as what is overwritten here is older than anything that can be accepted. */
    const bool forgotten = may_be_forgotten(replay, use);
    const struct slot fresh = {.id = hash_of(replay, use->authenticator),
                               .principal = (uint32_t)hash_of(replay, use->principal),
                               /* What is not granted now is not repeated later. */
                               .context = forgotten ? 0 : context_of(replay, use),
                               .arrived_s = (uint32_t)use->now_s,
                               .expires_s = (uint32_t)(use->now_s + use->keep_s)};
    const size_t group = table_group(replay->table.groups, fresh.id);
    struct slot *found = NULL;
    struct lock *lock = lock_of(replay, group);
    if (lock_take(lock) != 0) {
        return REASON_REPLAY_UNAVAILABLE;
    }
    enum reason reason =
        test_and_set(replay, &replay->table.slots[group], &fresh, use->now_s, &found);
    if (reason == REASON_OK && forgotten) {
        reason = REASON_REPLAY_UNAVAILABLE; /* and remembered, all the same */
    }
    const uint64_t seq = found != NULL ? found->seq : 0;
    if (lock_give(lock) != 0) {
        reason = REASON_REPLAY_UNAVAILABLE;
    }
    if (reason == REASON_OK || reason == REASON_REPEAT) {
        *entry = (struct replay_entry){(size_t)(found - replay->table.slots), fresh.id, seq};
    }
    return reason;
}

void replay_note(struct replay *replay, const struct replay_entry *entry, uint64_t seq)
{
    struct lock *lock = lock_of(replay, entry->slot);
    struct slot *slot = &replay->table.slots[entry->slot];
    if (lock_take(lock) != 0) {
        return; /* a repeat's record then names no first one */
    }
    if (slot->id == entry->id) {
        slot->seq = seq;
    }
    (void)lock_give(lock);
}

void replay_usage(const struct replay *replay, uint64_t now_s, uint64_t *live, uint64_t *capacity)
{
    uint64_t found = 0;
    for (size_t i = 0; i < ENDS; i++) {
        const uint64_t end = atomic_load_explicit(&replay->shared->ends[i], memory_order_relaxed);
        found += end >> 32 > now_s ? (uint32_t)end : 0;
    }
    *live = found;
    *capacity = replay->table.groups * GROUP_SLOTS / 2;
}
