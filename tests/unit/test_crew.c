#include "serve/crew.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WANTED = 2, MINUTE_MS = 60000 };

/* ---- the budget */

Test(budget, who_was_serving_is_replaced_at_once)
{
    struct crew_budget budget = {.deaths = 0};

    for (uint64_t now = 1000; now < 1016; now++) {
        cr_assert_not(crew_budget_spend(&budget, WANTED, false, now));
        cr_assert_leq(budget.not_before_ms, now);
    }
}

Test(budget, too_many_within_a_minute_slow_the_restarts_however_long_each_lived)
{
    struct crew_budget budget = {.deaths = 0};
    uint64_t now = 1500;
    unsigned told = 0;

    for (unsigned death = 0; death < 40; death++) {
        now = now < budget.not_before_ms ? budget.not_before_ms : now;
        now += 1500; /* each serves for a second and a half */
        told += crew_budget_spend(&budget, WANTED, false, now) ? 1 : 0;
        cr_expect_eq(budget.not_before_ms > now, death >= 16, "%u", death);
    }
    cr_expect_eq(told, 1, "once");
    cr_expect(crew_budget_slowed(&budget, WANTED, now));
    cr_expect_not(crew_budget_slowed(&budget, WANTED, now + MINUTE_MS));
}

Test(budget, deaths_that_come_now_and_then_cost_nothing)
{
    struct crew_budget budget = {.deaths = 0};

    for (uint64_t now = 1500; now < 5000 + 100 * (uint64_t)5000; now += 5000) {
        cr_assert_not(crew_budget_spend(&budget, WANTED, false, now));
        cr_assert_leq(budget.not_before_ms, now);
    }
}

Test(budget, many_workers_may_die_together)
{
    struct crew_budget budget = {.deaths = 0};

    for (unsigned death = 0; death < CREW_MAX; death++) {
        cr_assert_not(crew_budget_spend(&budget, CREW_MAX / 4, false, 1000));
    }
    cr_expect(crew_budget_spend(&budget, CREW_MAX / 4, false, 1000));
}

Test(budget, who_dies_at_its_start_is_tried_later_each_time)
{
    static const uint64_t pauses[] = {50, 100, 200, 400, 800, 1500, 1500, 1500, 1500};
    struct crew_budget budget = {.deaths = 0};
    uint64_t now = 1000;

    for (size_t i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
        cr_assert_not(crew_budget_spend(&budget, WANTED, true, now));
        cr_assert_eq(budget.not_before_ms - now, pauses[i], "%zu", i);
        now = budget.not_before_ms;
    }
}

Test(budget, a_pause_that_runs_is_not_drawn_out)
{
    struct crew_budget budget = {.deaths = 0};
    uint64_t until;

    crew_budget_spend(&budget, WANTED, true, 1000);
    until = budget.not_before_ms;
    crew_budget_spend(&budget, WANTED, true, 1001);
    cr_expect_eq(budget.not_before_ms, until);
}

/* ---- the table */

static struct crew crew;

/* Says at its start what `arg` points to, then waits for a word. */
static int worker(void *arg, unsigned seat, int control)
{
    struct worker_report report = *(struct worker_report *)arg;
    char word = 0;

    report.fault.what[0] = (char)('0' + seat);
    if (send(control, &report, sizeof report, 0) != (ssize_t)sizeof report ||
        recv(control, &word, 1, 0) != 1) {
        _exit(9);
    }
    _exit(word == WORKER_STOP ? 0 : 1);
}

static struct crew_worker *wait_death(void)
{
    struct crew_worker *dead = NULL;

    for (int i = 0; i < 1000 && dead == NULL; i++) {
        (void)usleep(10000);
        dead = crew_find_dead(&crew);
    }
    cr_assert_not_null(dead, "nobody has died");
    return dead;
}

static struct worker_report hear(const struct crew_worker *w)
{
    struct worker_report report = {.status = -1};

    for (int i = 0; i < 1000 && !crew_hear(w, &report); i++) {
        (void)usleep(10000);
    }
    return report;
}

Test(crew, starts_hears_tells_and_buries)
{
    struct worker_report said = {.status = 0};
    int status = -1;

    memset(said.fault.what, 'x', sizeof said.fault.what); /* not terminated */
    cr_assert_eq(crew_spawn(&crew, 1, worker, &said), 0);
    cr_assert_eq(crew_spawn(&crew, 2, worker, &said), 0);
    cr_expect_eq(crew_count(&crew, 0, CREW_NONE), 2);
    cr_expect_eq(crew_count(&crew, 1, CREW_STARTING), 1);
    cr_expect_eq(crew_count(&crew, 1, CREW_SERVING), 0);

    const struct worker_report report = hear(&crew.workers[1]);
    cr_assert_eq(report.status, 0);
    cr_expect_eq(report.fault.what[0], '1', "its seat");
    cr_expect_eq(report.fault.what[sizeof report.fault.what - 1], '\0');
    (void)hear(&crew.workers[0]);

    crew_tell_all(&crew, 2, WORKER_STOP, CREW_DRAINING);
    cr_expect_eq(wait_death(), &crew.workers[1]);
    cr_expect_eq(wait_death(), &crew.workers[1], "until it is buried");
    cr_expect_eq(crew.workers[0].state, CREW_STARTING, "another generation is told nothing");
    status = crew_bury(&crew.workers[1]);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_expect_eq(crew_count(&crew, 0, CREW_NONE), 1);

    crew_kill(&crew, 0);
    cr_expect_eq(wait_death(), &crew.workers[0]);
    cr_expect_eq(crew.workers[0].state, CREW_DRAINING, "it was told to go");
    status = crew_bury(&crew.workers[0]);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    cr_expect_null(crew_find_dead(&crew));
}

Test(crew, only_a_worker_is_killed_for_a_lock)
{
    struct worker_report said = {.status = 0};
    const pid_t stranger = fork();
    int status = -1;

    cr_assert(stranger >= 0);
    if (stranger == 0) {
        (void)pause();
        _exit(0);
    }
    cr_assert_eq(crew_spawn(&crew, 1, worker, &said), 0);
    cr_expect_eq(crew_kill_holder(&crew, stranger), 0);
    cr_expect_eq(crew_kill_holder(&crew, 0), 0);
    cr_expect_eq(crew_kill_holder(&crew, -1), 0);
    cr_expect_eq(waitpid(stranger, &status, WNOHANG), 0, "it lives");
    cr_expect_eq(crew_kill_holder(&crew, crew.workers[0].pid), crew.workers[0].pid);
    status = crew_bury(wait_death());
    cr_expect(WIFSIGNALED(status));
    (void)kill(stranger, SIGKILL);
    (void)waitpid(stranger, &status, 0);
}
