/*
 * Bringing files to the disk without being kept by one that hangs. After sync_begin a thread of its
 * own waits for the disk, and who asks waits for a second at most.
 */
#ifndef BASE_SYNC_H
#define BASE_SYNC_H

enum sync_what {
    SYNC_ALL, /* fsync */
    SYNC_DATA /* fdatasync: what is needed to read it */
};

/* From now on, for this process alone: a child of fork waits for the disk itself again. -1 and
 * errno when there can be no thread, and then everything is as before. */
int sync_begin(void);

/* In a child: closes what the thread of the parent has open, which may be a file that is waited for
 * at that moment. */
void sync_part(void);

/*
 * Brings what was written to `fd` to the disk. -1 and errno; ETIMEDOUT when the disk has not
 * answered within a second, or has not yet answered who asked before; a time-out that the disk
 * itself tells of is EIO. What is given up goes on, and so that no error of it is lost
 * sync_late_error tells of it. One thread of a process asks.
 */
int sync_file(int fd, enum sync_what what);

/* The error of a sync that was given up and has ended badly since this was last asked, or 0. */
int sync_late_error(void);

/* The words for an errno of sync_file. */
const char *sync_error_text(int error);

#endif
