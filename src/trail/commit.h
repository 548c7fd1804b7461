/*
 * Group commit: of the threads of one process that have written and must not go on before it is on
 * the disk, one syncs for all that wrote before it began, and the others wait for it. While one
 * group syncs, the next one forms.
 */
#ifndef TRAIL_COMMIT_H
#define TRAIL_COMMIT_H

#include <stdatomic.h>
#include <stdint.h>

/* All zero to begin with. */
struct commit {
    _Atomic uint64_t forming; /* twice the number of groups that are closed; odd: the next is led */
    _Atomic uint32_t synced;  /* how many groups have ended, as far as 32 bits tell */
};

/*
 * Returns when a sync that began after the call has ended; whether it went well is for `sync`,
 * which is called with `arg` by one thread at a time, to leave somewhere.
 */
void commit_wait(struct commit *commit, void (*sync)(void *arg), void *arg);

#endif
