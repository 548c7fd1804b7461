#include "serve/gate.h"

#include <criterion/criterion.h>
#include <sched.h>

static int permits_of(struct gate *gate)
{
    int value = -1;
    cr_assert_eq(sem_getvalue(&gate->permits, &value), 0);
    return value;
}

Test(enter, all_but_one_may_wait_for_the_disk)
{
    struct gate gate;
    cr_assert_eq(gate_open(&gate, 1, 3, true), 0);
    cr_assert(gate_enter(&gate));
    cr_assert(gate_enter(&gate));
    cr_assert_not(gate_enter(&gate), "the last one has to be able to refuse");
    cr_assert_not(gate_enter(&gate), "and a refusal takes no place");
    gate_leave(&gate);
    cr_assert(gate_enter(&gate));
    gate_close(&gate);
}

Test(enter, a_single_thread_and_one_that_waits_for_nothing_may_always)
{
    struct gate gate;
    cr_assert_eq(gate_open(&gate, 1, 1, true), 0);
    cr_assert(gate_enter(&gate));
    gate_close(&gate);
    cr_assert_eq(gate_open(&gate, 1, 2, false), 0);
    for (int i = 0; i < 4; i++) {
        cr_assert(gate_enter(&gate));
    }
    gate_close(&gate);
}

Test(permits, as_many_as_its_share_of_the_processors)
{
    struct gate gate;
    cpu_set_t all;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    cr_assert_eq(gate_open(&gate, 1, 8, false), 0);
    cr_assert_eq(permits_of(&gate), CPU_COUNT(&all));
    gate_take(&gate);
    cr_assert_eq(permits_of(&gate), CPU_COUNT(&all) - 1);
    gate_give(&gate);
    cr_assert_eq(permits_of(&gate), CPU_COUNT(&all));
    gate_close(&gate);
    cr_assert_eq(gate_open(&gate, 1000, 8, false), 0);
    cr_assert_eq(permits_of(&gate), 1, "at least one");
    gate_close(&gate);
}

Test(permits, only_of_those_that_it_may_run_on)
{
    struct gate gate;
    cpu_set_t all;
    cpu_set_t one;
    int cpu = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(cpu, &all)) {
        cpu++;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_assert_eq(gate_open(&gate, 1, 8, false), 0);
    cr_assert_eq(permits_of(&gate), 1);
    gate_close(&gate);
}
