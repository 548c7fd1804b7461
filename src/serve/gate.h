/*
 * Which threads of a worker may go on: a permit for each processor that is its share, and, where
 * each record is waited for, all but one thread to the disk, so that one can always refuse.
 */
#ifndef SERVE_GATE_H
#define SERVE_GATE_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct gate {
    sem_t permits;
    atomic_size_t serving;
    size_t serving_max;
};

/* For one of `workers` processes, with so many threads; `waits`: records are waited for. */
int gate_open(struct gate *gate, unsigned workers, size_t threads, bool waits);
void gate_close(struct gate *gate);

/* Waits for a permit. */
void gate_take(struct gate *gate);

/* Gives one back; never blocks. */
void gate_give(struct gate *gate);

/* Whether the caller may do what waits for the disk; if so, it leaves when that is done. */
bool gate_enter(struct gate *gate);
void gate_leave(struct gate *gate);

#endif
