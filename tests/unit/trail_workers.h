/* Threads that append to one trail, for the tests, and what they were told. */
#ifndef TESTS_TRAIL_WORKERS_H
#define TESTS_TRAIL_WORKERS_H

#include "trail_walk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ACKS_MAX = 1 << 20 };

static inline void sleep_us(unsigned us)
{
    struct timespec t = {.tv_nsec = (long)us * 1000};

    nanosleep(&t, NULL);
}

/* What workers were told is written, where it outlives them. */
struct acks {
    _Atomic unsigned count;
    _Atomic unsigned refused;
    _Atomic unsigned char seen[ACKS_MAX]; /* by sequence number */
};

struct worker {
    struct audit *audit;
    struct acks *acks;
    unsigned appends; /* 0: until killed */
};

static inline void *work(void *argument)
{
    struct worker *worker = argument;
    struct audit_record record = sample();

    for (unsigned i = 0; worker->appends == 0 || i < worker->appends; i++) {
        char id[AUDIT_ID_BYTES];
        uint64_t seq = 0;

        if (audit_append(worker->audit, &record, id, &seq) == REASON_OK) {
            if (seq < ACKS_MAX) {
                atomic_fetch_add(&worker->acks->seen[seq], 1);
            }
            atomic_fetch_add(&worker->acks->count, 1);
        } else {
            atomic_fetch_add(&worker->acks->refused, 1);
        }
    }
    return NULL;
}

static inline void work_in_threads(struct worker *worker, unsigned threads)
{
    pthread_t ids[8];

    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, work, worker) != 0) {
            _exit(1);
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
}

static inline struct acks *acks_make(void)
{
    struct acks *acks =
        mmap(NULL, sizeof(*acks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    cr_assert(acks != MAP_FAILED);
    return acks;
}

#endif
