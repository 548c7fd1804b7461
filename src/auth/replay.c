#include "auth/replay.h"

#include "base/boot.h"
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * The file: one page of header, then groups of GROUP_SLOTS slots. An authenticator's keyed hash
 * names its group; within it the slots are searched one after the other. There are twice as many
 * slots as entries are promised, and groups are so large that a group overflows (and refuses)
 * practically only when the whole table is full, and a principal's share of it only when the
 * principal holds an eighth of what is promised: with groups of 64 a principal with a twentieth was
 * refused now and then.
 */
enum {
    HEADER_BYTES = 4096,
    GROUP_SLOTS = 256,
    SHARE_SLOTS = GROUP_SLOTS / 8, /* of a group, for one principal: hashing spreads it over all */
    LOCKS = 64,
    ENTRIES_MIN = 1024,
    LOCK_WAIT_S = 1,
};

/* With another digit at its end: other slots or groups; such a table is replaced, as if lost. */
static const char magic[16] = "spnegate-replay3";

struct header {
    char magic[16];
    uint64_t groups;
    uint64_t ready; /* written last when a table is made */
    unsigned char key[SECRET_KEY_BYTES];
    uint64_t made_us; /* nothing from before that is remembered */
    uint64_t lost;    /* there was a table before, and its entries are not here */
    _Atomic uint64_t
        forgotten_s;          /* the latest authenticator's time of an entry that was given up */
    char boot[BOOT_ID_BYTES]; /* the start of the host since which it is in use */
    uint64_t settled;         /* 1: all that it ever held is on the disk */
};

/*
 * An empty or run-out slot has expires_s in the past. `expires_s` is written last: a worker that
 * dies while it writes leaves a slot that is still empty, and it had not granted anything yet.
 */
struct slot {
    uint64_t id; /* of the authenticator; its low bits name the group, too */
    uint64_t seq;
    uint32_t principal;
    uint32_t context; /* 0: nothing repeats this */
    uint32_t arrived_s;
    uint32_t expires_s;
};

_Static_assert(sizeof(struct slot) == 32, "two slots a cache line");
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header has its page");

struct lock {
    pthread_mutex_t mutex;
    _Atomic uint64_t holder; /* pid << 32 | turn */
    _Atomic uint64_t stuck;  /* the holder that somebody waited for in vain */
    uint32_t turns;          /* under the mutex */
};

struct locks {
    struct lock items[LOCKS];
};

struct replay {
    struct header *header; /* the mapped file */
    struct slot *slots;
    size_t bytes;
    pid_t opener;        /* who settles it */
    struct locks *locks; /* anonymous: a daemon that starts anew starts with free locks */
};

static uint64_t groups_for(uint64_t entries)
{
    const uint64_t wanted = (entries < ENTRIES_MIN ? ENTRIES_MIN : entries) * 2 / GROUP_SLOTS;
    uint64_t groups = 1;
    while (groups < wanted) {
        groups *= 2;
    }
    return groups;
}

static struct locks *locks_open(void)
{
    struct locks *locks =
        mmap(NULL, sizeof *locks, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (locks == MAP_FAILED) {
        return NULL;
    }
    pthread_mutexattr_t attributes;
    int failed = pthread_mutexattr_init(&attributes);
    if (failed == 0) {
        failed = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        failed =
            failed != 0 ? failed : pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        for (size_t i = 0; i < LOCKS && failed == 0; i++) {
            failed = pthread_mutex_init(&locks->items[i].mutex, &attributes);
        }
        (void)pthread_mutexattr_destroy(&attributes);
    }
    if (failed != 0) {
        (void)munmap(locks, sizeof *locks);
        return NULL;
    }
    return locks;
}

/* Maps a whole table file; NULL when it is none of ours (errno 0) or cannot be mapped. */
static struct header *map_table(int fd, size_t *bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return NULL;
    }
    errno = 0;
    if (!S_ISREG(st.st_mode) || st.st_size < HEADER_BYTES) {
        return NULL;
    }
    *bytes = (size_t)st.st_size;
    struct header *header = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED) {
        return NULL;
    }
    errno = 0;
    const uint64_t groups = header->groups;
    if (memcmp(header->magic, magic, sizeof magic) != 0 || header->ready != 1 || groups == 0 ||
        (groups & (groups - 1)) != 0 || groups > SIZE_MAX / GROUP_SLOTS / sizeof(struct slot) / 2 ||
        *bytes != HEADER_BYTES + groups * GROUP_SLOTS * sizeof(struct slot)) {
        (void)munmap(header, *bytes);
        errno = 0;
        return NULL;
    }
    return header;
}

static struct slot *slots_of(struct header *header)
{
    return (struct slot *)(void *)((unsigned char *)header + HEADER_BYTES);
}

/* Where an identity lives. */
static size_t group_of(uint64_t groups, uint64_t id)
{
    return (size_t)(id & (groups - 1)) * GROUP_SLOTS;
}

static void raise_forgotten(struct header *header, uint64_t ctime_s)
{
    uint64_t seen = atomic_load_explicit(&header->forgotten_s, memory_order_relaxed);
    while (seen < ctime_s &&
           !atomic_compare_exchange_weak_explicit(&header->forgotten_s, &seen, ctime_s,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

/*
 * Gives an entry up. Its authenticator's time was at most the skew of its day after it arrived, and
 * it was kept for two of them and a second: what is noted does not depend on today's skew.
 */
static void forget(struct header *header, const struct slot *slot)
{
    const uint64_t ctime_s =
        (uint64_t)slot->arrived_s + (slot->expires_s - (uint64_t)slot->arrived_s) / 2;
    raise_forgotten(header, slot->expires_s != 0 ? ctime_s : 0);
}

/* Copies the live entries of a table of another size; what they hold tells their group in any
 * table. */
static int copy_live(struct header *from, struct header *to, uint64_t now_s)
{
    const size_t count = (size_t)from->groups * GROUP_SLOTS;
    to->made_us = from->made_us;
    to->lost = from->lost;
    memcpy(to->boot, from->boot, sizeof to->boot);
    to->settled = from->settled;
    raise_forgotten(to, atomic_load(&from->forgotten_s));
    for (size_t i = 0; i < count; i++) {
        const struct slot *old = &slots_of(from)[i];
        if (old->expires_s <= now_s) {
            forget(to, old);
            continue;
        }
        struct slot *group = &slots_of(to)[group_of(to->groups, old->id)];
        size_t place = 0;
        while (place < GROUP_SLOTS && group[place].expires_s != 0) {
            place++;
        }
        if (place == GROUP_SLOTS) {
            return -1;
        }
        group[place] = *old;
    }
    return 0;
}

/*
 * Written out, not left as a hole: a full disk must fail here and not as a signal at a login, and
 * the first login that touches a page must not wait for the file system to find a block for it (3
 * ms, measured).
 */
static int write_zeros(int fd, size_t bytes)
{
    static const unsigned char zeros[64 * 1024];
    while (bytes > 0) {
        const size_t len = bytes < sizeof zeros ? bytes : sizeof zeros;
        const ssize_t n = write(fd, zeros, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return -1;
        }
        bytes -= (size_t)n;
    }
    return 0;
}

static uint64_t clock_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Makes a new table beside the old one and puts it in its place only when it is whole and on the
 * disk. */
static int make_table(const char *path, uint64_t groups, struct header *old, bool lost,
                      struct fault *fault)
{
    char fresh[600];
    struct header *header = NULL;
    const size_t bytes = HEADER_BYTES + (size_t)groups * GROUP_SLOTS * sizeof(struct slot);
    int r = -1;
    if (snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh) {
        return fault_set(fault, path, "the path is too long");
    }
    (void)unlink(fresh);
    const int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write_zeros(fd, bytes) != 0) {
        (void)fault_set(fault, fresh, "the replay table (%zu bytes) cannot be made: %s", bytes,
                        strerror(errno));
        goto out;
    }
    header = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED) {
        header = NULL;
        (void)fault_set(fault, fresh, "the replay table cannot be mapped: %s", strerror(errno));
        goto out;
    }
    memcpy(header->magic, magic, sizeof magic);
    header->groups = groups;
    header->made_us = clock_us();
    header->lost = lost ? 1 : 0;
    header->settled = 1;
    secret_random(header->key, sizeof header->key);
    if (old != NULL) {
        memcpy(header->key, old->key, sizeof header->key);
        if (copy_live(old, header, (uint64_t)time(NULL)) != 0) {
            (void)fault_set(fault, path,
                            "replay.entries is too small for the table's live entries");
            goto out;
        }
    }
    header->ready = 1;
    if (msync(header, bytes, MS_SYNC) != 0 || fsync(fd) != 0 || rename(fresh, path) != 0) {
        (void)fault_set(fault, path, "the replay table cannot be put in place: %s",
                        strerror(errno));
        goto out;
    }
    r = 0;
out:
    if (header != NULL) {
        (void)munmap(header, bytes);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (r != 0) {
        (void)unlink(fresh);
    }
    return r;
}

static bool is_older_version(int fd)
{
    char found[sizeof magic];
    const size_t version = sizeof magic - 1;
    return pread(fd, found, sizeof found, 0) == (ssize_t)sizeof found &&
           memcmp(found, magic, version) == 0 && found[version] < magic[version];
}

enum { TABLE_MISSING = 1, TABLE_OLDER = 2 };

/* Opens the file at `path` and maps it; 0, -1 and a fault, or what stands for there being none. */
static int open_table(const char *path, struct header **out, size_t *bytes, struct fault *fault)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT
                   ? TABLE_MISSING
                   : fault_set(fault, path, "the replay table cannot be opened by uid %ld: %s",
                               (long)geteuid(), strerror(errno));
    }
    struct header *header = map_table(fd, bytes);
    const int error = errno;
    const bool older = header == NULL && is_older_version(fd);
    (void)close(fd);
    if (older) {
        return TABLE_OLDER;
    }
    if (header == NULL) {
        return fault_set(fault, path,
                         "the replay table is damaged or none of ours%s%s; move it away",
                         error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
    }
    *out = header;
    return 0;
}

/* An empty file says that there has been a table: without it a new table is the first one. */
static int mark_made(const char *path, struct fault *fault)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fault_set(fault, path, "cannot be made: %s", strerror(errno));
    }
    (void)close(fd);
    return 0;
}

/*
 * Begins with the use of a table: if the host went down with it in use, entries may be missing, and
 * it counts as one that replaces a lost one. That is on the disk before anything is granted.
 */
static int begin_use(const char *path, struct header *header, struct fault *fault)
{
    char boot[BOOT_ID_BYTES] = "";
    boot_id(boot);
    if (header->settled != 1 && (boot[0] == '\0' || memcmp(header->boot, boot, sizeof boot) != 0)) {
        header->made_us = clock_us();
        header->lost = 1;
    }
    memcpy(header->boot, boot, sizeof boot);
    header->settled = 0;
    return msync(header, HEADER_BYTES, MS_SYNC) == 0
               ? 0
               : fault_set(fault, path, "the replay table cannot be written: %s", strerror(errno));
}

/* Whatever of it fails, the table only counts as one that was in use. */
static void settle(const struct replay *replay)
{
    struct header *header = replay->header;
    if (msync(header, replay->bytes, MS_SYNC) == 0) {
        header->settled = 1;
        (void)msync(header, HEADER_BYTES, MS_SYNC);
    }
}

int replay_open(const char *state_dir, uint64_t entries, struct replay **out, struct fault *fault)
{
    char path[512];
    char mark[512];
    const uint64_t groups = groups_for(entries);
    if (snprintf(path, sizeof path, "%s/replay.table", state_dir) >= (int)sizeof path ||
        snprintf(mark, sizeof mark, "%s/replay.made", state_dir) >= (int)sizeof mark) {
        return fault_set(fault, state_dir, "the path is too long");
    }
    struct header *header = NULL;
    size_t bytes = 0;
    int r = open_table(path, &header, &bytes, fault);
    if (r >= 0 && (header == NULL || header->groups != groups)) {
        const bool lost = r == TABLE_OLDER || (header == NULL && access(mark, F_OK) == 0);
        r = make_table(path, groups, header, lost, fault);
        if (header != NULL) {
            (void)munmap(header, bytes);
            header = NULL;
        }
        r = r == 0 ? open_table(path, &header, &bytes, fault) : r;
    }
    if (r != 0 || header == NULL || mark_made(mark, fault) != 0 ||
        begin_use(path, header, fault) != 0) {
        if (header != NULL) {
            (void)munmap(header, bytes);
        }
        return -1;
    }
    struct replay *replay = calloc(1, sizeof *replay);
    struct locks *locks = locks_open();
    if (replay == NULL || locks == NULL) {
        free(replay);
        (void)munmap(header, bytes);
        return fault_set(fault, path, "no memory for the replay table");
    }
    *replay = (struct replay){header, slots_of(header), bytes, getpid(), locks};
    *out = replay;
    return 0;
}

void replay_close(struct replay *replay)
{
    if (replay == NULL) {
        return;
    }
    if (replay->opener == getpid()) {
        settle(replay);
    }
    (void)munmap(replay->header, replay->bytes);
    if (replay->locks != NULL) {
        (void)munmap(replay->locks, sizeof *replay->locks);
    }
    free(replay);
}

/* Waits a second at most; the lock of a process that died is simply ours, slots are whole at any
 * moment. */
static int lock_group(struct replay *replay, size_t group, struct lock **out)
{
    struct lock *lock = &replay->locks->items[group / GROUP_SLOTS % LOCKS];
    int code = pthread_mutex_trylock(&lock->mutex);
    if (code == EBUSY) {
        struct timespec until;
        const uint64_t holder = atomic_load(&lock->holder);
        if (clock_gettime(CLOCK_MONOTONIC, &until) != 0) {
            return -1;
        }
        until.tv_sec += LOCK_WAIT_S;
        code = pthread_mutex_clocklock(&lock->mutex, CLOCK_MONOTONIC, &until);
        if (code == ETIMEDOUT && atomic_load(&lock->holder) == holder) {
            atomic_store(&lock->stuck, holder); /* all the time the same */
        }
    }
    if (code == EOWNERDEAD) {
        code = pthread_mutex_consistent(&lock->mutex);
    }
    if (code != 0) {
        return -1;
    }
    atomic_store(&lock->holder, (uint64_t)(uint32_t)getpid() << 32 | ++lock->turns);
    *out = lock;
    return 0;
}

static int unlock_group(struct lock *lock)
{
    uint64_t holder = atomic_load(&lock->holder);
    const int code = pthread_mutex_unlock(&lock->mutex);
    /* After the unlock, so that whoever is stopped in between still has a name. */
    (void)atomic_compare_exchange_strong(&lock->holder, &holder, 0);
    return code == 0 ? 0 : -1;
}

pid_t replay_stuck_holder(const struct replay *replay)
{
    for (size_t i = 0; i < LOCKS; i++) {
        const struct lock *lock = &replay->locks->items[i];
        const uint64_t stuck = atomic_load(&lock->stuck);
        if (stuck != 0 && stuck == atomic_load(&lock->holder)) {
            return (pid_t)(stuck >> 32);
        }
    }
    return 0;
}

/* Keyed, so that nobody outside can aim at a slot or at a context. */
static uint64_t hash_of(const struct replay *replay, struct span bytes)
{
    uint64_t hash[SECRET_HASH_BYTES / sizeof(uint64_t)];
    secret_hash((unsigned char *)hash, replay->header->key, bytes);
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
    forget(replay->header, place);
    fill_slot(place, fresh);
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
    const struct header *header = replay->header;
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
    const size_t group = group_of(replay->header->groups, fresh.id);
    struct slot *found = NULL;
    struct lock *lock = NULL;
    if (lock_group(replay, group, &lock) != 0) {
        return REASON_REPLAY_UNAVAILABLE;
    }
    enum reason reason = test_and_set(replay, &replay->slots[group], &fresh, use->now_s, &found);
    if (reason == REASON_OK && forgotten) {
        reason = REASON_REPLAY_UNAVAILABLE; /* and remembered, all the same */
    }
    const uint64_t seq = found != NULL ? found->seq : 0;
    if (unlock_group(lock) != 0) {
        reason = REASON_REPLAY_UNAVAILABLE;
    }
    if (reason == REASON_OK || reason == REASON_REPEAT) {
        *entry = (struct replay_entry){(size_t)(found - replay->slots), fresh.id, seq};
    }
    return reason;
}

void replay_note(struct replay *replay, const struct replay_entry *entry, uint64_t seq)
{
    struct lock *lock = NULL;
    struct slot *slot = &replay->slots[entry->slot];
    if (lock_group(replay, entry->slot / GROUP_SLOTS * GROUP_SLOTS, &lock) != 0) {
        return; /* a repeat's record then names no first one */
    }
    if (slot->id == entry->id) {
        slot->seq = seq;
    }
    (void)unlock_group(lock);
}

void replay_usage(const struct replay *replay, uint64_t now_s, uint64_t *live, uint64_t *capacity)
{
    const size_t count = (size_t)replay->header->groups * GROUP_SLOTS;
    uint64_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += replay->slots[i].expires_s > now_s ? 1 : 0;
    }
    *live = found;
    *capacity = count / 2;
}
