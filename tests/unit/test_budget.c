#include "trail/budget.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SITES = 3, COUNTS = 10000 };

static struct budget *budget;
static const struct budget_limits limits = {.rate = 50, .burst = 5};
static const uint64_t start_us = 1000000000;

static void open_budget(void)
{
    budget = budget_open(SITES);
    cr_assert_not_null(budget);
}

static void close_budget(void)
{
    budget_close(budget);
    budget_close(NULL);
}

/* How many of `tries` at one moment are allowed. */
static unsigned take(unsigned tries, uint64_t now_us)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < tries; i++) {
        taken += budget_take(budget, BUDGET_STRANGER, &limits, now_us) ? 1 : 0;
    }
    return taken;
}

Test(take, a_burst_and_then_the_rate, .init = open_budget, .fini = close_budget)
{
    cr_assert_eq(take(100, start_us), 5);
    cr_assert_eq(take(100, start_us + 19999), 0);
    cr_assert_eq(take(100, start_us + 20000), 1);
    cr_assert_eq(take(100, start_us + 60000), 2);
    cr_assert_eq(take(100, start_us + 10000000), 5, "a long pause saves up one burst, not more");
    unsigned taken = 0;
    for (uint64_t us = 0; us < 10000000; us += 1000) {
        taken += take(3, start_us + 20000000 + us);
    }
    cr_assert_eq(taken, 5 + 500 - 1, "got %u", taken);
}

Test(take, principals_have_their_own, .init = open_budget, .fini = close_budget)
{
    cr_assert_eq(take(100, start_us), 5);
    budget_set_low(budget, true);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert(budget_take(budget, BUDGET_PRINCIPAL, &limits, start_us), "%u", i);
    }
    cr_assert_not(budget_take(budget, BUDGET_PRINCIPAL, &limits, start_us));
    budget_set_low(budget, false);
    cr_assert_eq(take(1, start_us + 20000), 1);
}

Test(take, none_while_space_is_low, .init = open_budget, .fini = close_budget)
{
    budget_set_low(budget, true);
    cr_assert_eq(take(10, start_us), 0);
    budget_set_low(budget, false);
    cr_assert_eq(take(10, start_us), 5);
}

Test(take, smaller_limits_or_a_lie_do_not_close_it_for_long, .init = open_budget,
     .fini = close_budget)
{
    const struct budget_limits slow = {.rate = 1, .burst = 1000};
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert(budget_take(budget, BUDGET_STRANGER, &slow, start_us));
    }
    cr_assert_not(budget_take(budget, BUDGET_STRANGER, &slow, start_us));
    cr_assert_eq(take(10, start_us + 1), 5, "the new limits count from now on");
}

Test(take, who_waited_longer_than_others_opens_nothing, .init = open_budget, .fini = close_budget)
{
    unsigned taken = take(100, start_us);

    for (uint64_t us = 0; us < 10000000; us += 1000) {
        taken += take(1, start_us + us);
        taken += take(1, start_us + us - 5000000);
    }
    cr_assert_eq(taken, 5 + 500 - 1, "got %u", taken);
}

static void *count_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < COUNTS; i++) {
        budget_count(budget, 1, REASON_BAD_TOKEN, start_us);
        budget_count(budget, 1, REASON_NO_CREDENTIALS, start_us);
    }
    return NULL;
}

/* The sum of all that is collected, which must be of this site and reason. */
static uint64_t collect(bool challenges, unsigned site, enum reason reason)
{
    uint64_t n = 0;
    unsigned at = 0;
    struct budget_sum sum;
    while (budget_collect(budget, challenges, start_us, &at, &sum)) {
        cr_assert_eq(sum.site, site);
        cr_assert_eq(sum.reason, reason);
        n += sum.n;
    }
    return n;
}

Test(count, no_count_is_lost_between_threads_processes_and_collecting, .init = open_budget,
     .fini = close_budget)
{
    pthread_t threads[2];
    uint64_t n = 0;
    const pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        (void)count_many(NULL);
        _exit(0);
    }
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, count_many, NULL), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        n += collect(false, 1, REASON_BAD_TOKEN);
    }
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
    n += collect(false, 1, REASON_BAD_TOKEN);
    cr_assert_eq(n, 3 * COUNTS);
    cr_assert_eq(collect(true, 1, REASON_NO_CREDENTIALS), 3 * COUNTS);
    cr_assert_eq(collect(true, 1, REASON_NO_CREDENTIALS), 0);
}

Test(count, a_sum_says_from_when_to_when, .init = open_budget, .fini = close_budget)
{
    struct budget_sum sum;
    unsigned at = 0;
    budget_count(budget, 0, REASON_NTLM, 10);
    budget_count(budget, 0, REASON_NTLM, 20);
    budget_count(budget, 0, REASON_NTLM, 30);
    budget_count(budget, SITES + 7, REASON_UNKNOWN_HOST, 5000);
    cr_assert(budget_collect(budget, false, 1000, &at, &sum));
    cr_assert_eq(sum.n, 3);
    cr_assert_eq(sum.first_us, 10);
    cr_assert_eq(sum.last_us, 30);
    struct budget_sum other;
    cr_assert(budget_collect(budget, false, 1000, &at, &other));
    cr_assert_eq(other.site, SITES - 1, "out of range is the last");
    cr_assert_eq(other.last_us, 1000, "what lies in the future is now");
    cr_assert_eq(other.first_us, 1000);
    cr_assert_not(budget_collect(budget, false, 1000, &at, &other));
    cr_assert_not(budget_collect(budget, false, 1000, &at, &other));

    budget_count(budget, 0, REASON_NTLM, 40);
    budget_return(budget, &sum);
    at = 0;
    cr_assert(budget_collect(budget, false, 1000, &at, &sum));
    cr_assert_eq(sum.n, 4, "what could not be recorded comes again");
    cr_assert_eq(sum.first_us, 10);
    cr_assert_eq(sum.last_us, 40);
}
