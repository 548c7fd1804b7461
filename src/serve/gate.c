#include "serve/gate.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>

/* Of the processors that we may run on: a daemon may be bound to some of them. */
static unsigned cpu_share(unsigned workers)
{
    cpu_set_t cpus;
    const unsigned count =
        sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
    const unsigned share = count / (workers == 0 ? 1 : workers);
    return share < 1 ? 1 : share;
}

int gate_open(struct gate *gate, unsigned workers, size_t threads, bool waits)
{
    atomic_store(&gate->serving, 0);
    gate->serving_max = waits && threads > 1 ? threads - 1 : SIZE_MAX;
    return sem_init(&gate->permits, 0, cpu_share(workers));
}

void gate_close(struct gate *gate)
{
    (void)sem_destroy(&gate->permits);
}

void gate_take(struct gate *gate)
{
    while (sem_wait(&gate->permits) != 0 && errno == EINTR) {
    }
}

void gate_give(struct gate *gate)
{
    (void)sem_post(&gate->permits);
}

bool gate_enter(struct gate *gate)
{
    if (atomic_fetch_add(&gate->serving, 1) < gate->serving_max) {
        return true;
    }
    (void)atomic_fetch_sub(&gate->serving, 1);
    return false;
}

void gate_leave(struct gate *gate)
{
    (void)atomic_fetch_sub(&gate->serving, 1);
}
