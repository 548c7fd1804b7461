/*
 * The file of the trail, as one process has it open: one descriptor that can only append, and one
 * that reads the end back. It is never truncated, so that it may be append-only (chattr +a).
 */
#ifndef TRAIL_STORE_H
#define TRAIL_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct store {
    int fd;
    int read_fd;
    dev_t dev;
    ino_t ino;
    uint64_t size; /* when it was opened */
};

struct store_options {
    const char *path;
    mode_t mode; /* of a file that has to be created, and its owner unless uid is -1 */
    uid_t uid;
    gid_t gid;
};

/* Opens or creates; -1 and errno, EINVAL when it is no regular file. Never follows a symbolic link,
 * never blocks. */
int store_open(const struct store_options *options, struct store *out);

/* Opens the file that has this number and never makes one: at the path, or renamed in the same
 * directory. -1 and errno, ENOENT when it is not there. */
int store_find(const struct store_options *options, dev_t dev, ino_t ino, struct store *out);

/* How many bytes it has now; -1 and errno. */
int store_size(const struct store *store, uint64_t *out);

/* Whether the file has no name any more: what is written to it is gone when it is closed. */
bool store_is_deleted(const struct store *store);

/* The directory that the path is in, by its number; -1 and errno. */
int store_directory(const struct store_options *options, dev_t *dev, ino_t *ino);

/* Waits until the file's name in its directory is on the disk; -1 and errno. */
int store_sync_name(const struct store_options *options);

/* Both descriptors; harmless when they are -1. */
void store_close(struct store *store);

/* Puts what `next` has open under the numbers of `store`'s descriptors, at once for all threads,
 * and leaves `next` closed; -1 and errno, and then the caller must open and replace again. */
int store_replace(struct store *store, struct store *next);

/* Appends all bytes in one piece; -1 and errno, after which some of them may have been written, or
 * all; EBUSY when they are not together. */
int store_append(const struct store *store, const char *bytes, size_t len);

#endif
