#include "auth/table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ENTRIES_MIN = 1024 };

/* With another digit at its end: other slots or groups; such a table is replaced, as if lost. */
static const char magic[16] = "spnegate-replay3";

static uint64_t groups_for(uint64_t entries)
{
    const uint64_t wanted = (entries < ENTRIES_MIN ? ENTRIES_MIN : entries) * 2 / GROUP_SLOTS;
    uint64_t groups = 1;
    while (groups < wanted) {
        groups *= 2;
    }
    return groups;
}

/* Maps a whole table file; NULL when it is none of ours (errno 0) or cannot be mapped. */
static struct header *map_table(int fd, size_t *bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return NULL;
    }
    errno = 0;
    if (!S_ISREG(st.st_mode) || st.st_size < TABLE_HEADER_BYTES) {
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
        *bytes != TABLE_HEADER_BYTES + groups * GROUP_SLOTS * sizeof(struct slot)) {
        (void)munmap(header, *bytes);
        errno = 0;
        return NULL;
    }
    return header;
}

static struct slot *slots_of(struct header *header)
{
    return (struct slot *)(void *)((unsigned char *)header + TABLE_HEADER_BYTES);
}

size_t table_group(uint64_t groups, uint64_t id)
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
void table_forget(struct header *header, const struct slot *slot)
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
            table_forget(to, old);
            continue;
        }
        struct slot *group = &slots_of(to)[table_group(to->groups, old->id)];
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
    const size_t bytes = TABLE_HEADER_BYTES + (size_t)groups * GROUP_SLOTS * sizeof(struct slot);
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
static int map_file(const char *path, struct header **out, size_t *bytes, struct fault *fault)
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
    return msync(header, TABLE_HEADER_BYTES, MS_SYNC) == 0
               ? 0
               : fault_set(fault, path, "the replay table cannot be written: %s", strerror(errno));
}

/* The names of what was made, too. */
static int sync_directory(const char *path, struct fault *fault)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int failed = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return failed == 0 ? 0 : fault_set(fault, path, "cannot be synced: %s", strerror(failed));
}

int table_open(const char *state_dir, uint64_t entries, struct table *out, struct fault *fault)
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
    int r = map_file(path, &header, &bytes, fault);
    if (r >= 0 && (header == NULL || header->groups != groups)) {
        const bool lost = r == TABLE_OLDER || (header == NULL && access(mark, F_OK) == 0);
        r = make_table(path, groups, header, lost, fault);
        if (header != NULL) {
            (void)munmap(header, bytes);
            header = NULL;
        }
        r = r == 0 ? map_file(path, &header, &bytes, fault) : r;
    }
    if (r != 0 || header == NULL || mark_made(mark, fault) != 0 ||
        begin_use(path, header, fault) != 0 || sync_directory(state_dir, fault) != 0) {
        if (header != NULL) {
            (void)munmap(header, bytes);
        }
        return -1;
    }
    *out = (struct table){header, slots_of(header), bytes, groups};
    return 0;
}

void table_close(struct table *table)
{
    (void)munmap(table->header, table->bytes);
}

/* Whatever of it fails, the table only counts as one that was in use. */
void table_settle(const struct table *table)
{
    struct header *header = table->header;
    if (msync(header, table->bytes, MS_SYNC) == 0) {
        header->settled = 1;
        (void)msync(header, TABLE_HEADER_BYTES, MS_SYNC);
    }
}
