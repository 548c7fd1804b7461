#include "trail/metrics.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNTS = 10000, CAUSE = METRICS_CAUSES_MAX - 1 };

static struct metrics *metrics;

static void open_metrics(void)
{
    metrics = metrics_open();
    cr_assert_not_null(metrics);
}

static void close_metrics(void)
{
    metrics_close(metrics);
    metrics_close(NULL);
}

TestSuite(metrics, .init = open_metrics, .fini = close_metrics);

static uint64_t latency_count(enum outcome outcome, unsigned bucket)
{
    struct metrics_latency latency;
    metrics_latency(metrics, outcome, &latency);
    return latency.counts[bucket];
}

Test(metrics, begin_at_zero)
{
    for (unsigned site = 0; site < METRICS_SITE_COUNT; site++) {
        for (int r = 0; r < REASON_COUNT; r++) {
            cr_assert_eq(metrics_decisions(metrics, site, (enum reason)r), 0);
        }
    }
    for (unsigned listener = 0; listener < METRICS_LISTENER_COUNT; listener++) {
        cr_assert_eq(metrics_accepted(metrics, listener), 0);
        cr_assert_eq(metrics_connections(metrics, 0, listener), 0);
        cr_assert_eq(metrics_refusals(metrics, listener, CAUSE), 0);
    }
    cr_expect_eq(metrics_audit_failures(metrics), 0);
    cr_expect_eq(metrics_in_flight(metrics, METRICS_SEATS_MAX - 1), 0);
    cr_expect_eq(latency_count(OUTCOME_GRANTED, METRICS_BOUNDS), 0);
    cr_expect_null(metrics_site(metrics, 0));
    cr_expect_null(metrics_listener(metrics, 0));
}

static void *count(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < COUNTS; i++) {
        metrics_count_decision(metrics, METRICS_SITE_OTHER, REASON_REPLAY, 70);
        metrics_count_refusal(metrics, METRICS_LISTENER_OTHER, CAUSE);
        metrics_connect(metrics, METRICS_SEATS_MAX - 1, 3);
        metrics_begin(metrics, METRICS_SEATS_MAX - 1);
        metrics_end(metrics, METRICS_SEATS_MAX - 1);
    }
    return NULL;
}

Test(metrics, lose_no_count_between_threads_and_processes)
{
    pid_t children[3];
    struct metrics_latency latency;

    for (unsigned i = 0; i < 3; i++) {
        children[i] = fork();
        cr_assert(children[i] >= 0);
        if (children[i] == 0) {
            pthread_t other;

            if (pthread_create(&other, NULL, count, NULL) != 0) {
                _exit(1);
            }
            count(NULL);
            pthread_join(other, NULL);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        int status = 0;

        cr_assert(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    cr_expect_eq(metrics_decisions(metrics, METRICS_SITE_OTHER, REASON_REPLAY), 6 * COUNTS);
    cr_expect_eq(metrics_refusals(metrics, METRICS_LISTENER_OTHER, CAUSE), 6 * COUNTS);
    cr_expect_eq(metrics_accepted(metrics, 3), 6 * COUNTS);
    cr_expect_eq(metrics_connections(metrics, METRICS_SEATS_MAX - 1, 3), 6 * COUNTS);
    cr_expect_eq(metrics_in_flight(metrics, METRICS_SEATS_MAX - 1), 0);
    metrics_latency(metrics, OUTCOME_FAILED, &latency);
    cr_expect_eq(latency.counts[1], 6 * COUNTS);
    cr_expect_eq(latency.sum_us, 70 * 6 * COUNTS);
    /* And nowhere else. */
    cr_expect_eq(metrics_decisions(metrics, METRICS_SITE_OTHER, REASON_OK), 0);
    cr_expect_eq(metrics_decisions(metrics, METRICS_SITE_NONE, REASON_REPLAY), 0);
    cr_expect_eq(latency_count(OUTCOME_GRANTED, 1), 0);
}

Test(metrics, a_slot_keeps_its_site_and_a_full_table_has_one_for_the_rest)
{
    char id[32];

    for (unsigned i = 0; i < METRICS_SITES_MAX; i++) {
        (void)snprintf(id, sizeof id, "site%u", i);
        cr_assert_eq(metrics_claim_site(metrics, id), i);
    }
    cr_expect_eq(metrics_claim_site(metrics, "one more"), METRICS_SITE_OTHER);
    cr_expect_eq(metrics_claim_site(metrics, "and another"), METRICS_SITE_OTHER);
    cr_expect_eq(metrics_claim_site(metrics, "site1023"), 1023);
    cr_expect_eq(metrics_claim_site(metrics, "site0"), 0);
    cr_expect_str_eq(metrics_site(metrics, 1023), "site1023");
    cr_expect_null(metrics_site(metrics, METRICS_SITE_NONE));
    cr_expect_null(metrics_site(metrics, METRICS_SITE_OTHER));
    for (unsigned i = 0; i < METRICS_LISTENERS_MAX; i++) {
        (void)snprintf(id, sizeof id, "/run/%u.sock", i);
        cr_assert_eq(metrics_claim_listener(metrics, id), i);
    }
    cr_expect_eq(metrics_claim_listener(metrics, "/run/more.sock"), METRICS_LISTENER_OTHER);
    cr_expect_eq(metrics_claim_listener(metrics, "/run/7.sock"), 7);
    cr_expect_null(metrics_listener(metrics, METRICS_LISTENER_OTHER));
}

Test(metrics, a_decision_falls_into_the_bucket_that_bounds_it)
{
    uint64_t sum_us = 0;
    struct metrics_latency latency;

    cr_assert_eq(metrics_bound_us(0), 50);
    cr_assert_eq(metrics_bound_us(METRICS_BOUNDS - 1), 5000000);
    cr_assert_eq(metrics_bound_us(METRICS_BOUNDS), 5000000);
    for (unsigned i = 0; i < METRICS_BOUNDS; i++) {
        const uint64_t bound = metrics_bound_us(i);

        cr_assert(i == 0 || bound > metrics_bound_us(i - 1));
        metrics_count_decision(metrics, 0, REASON_OK, bound);
        metrics_count_decision(metrics, 0, REASON_OK, bound + 1);
        sum_us += 2 * bound + 1;
    }
    metrics_latency(metrics, OUTCOME_GRANTED, &latency);
    cr_expect_eq(latency.counts[0], 1);
    for (unsigned i = 1; i < METRICS_BOUNDS; i++) {
        cr_expect_eq(latency.counts[i], 2, "%u", i);
    }
    cr_expect_eq(latency.counts[METRICS_BOUNDS], 1);
    cr_expect_eq(latency.sum_us, sum_us);
}

Test(metrics, a_dead_workers_seat_is_cleared_and_only_that)
{
    for (unsigned seat = 0; seat < 3; seat++) {
        metrics_connect(metrics, seat, 0);
        metrics_connect(metrics, seat, METRICS_LISTENER_OTHER);
        metrics_begin(metrics, seat);
    }
    metrics_disconnect(metrics, 0, 0);
    metrics_clear_seat(metrics, 1);
    cr_expect_eq(metrics_connections(metrics, 0, 0), 0);
    cr_expect_eq(metrics_connections(metrics, 0, METRICS_LISTENER_OTHER), 1);
    cr_expect_eq(metrics_connections(metrics, 1, METRICS_LISTENER_OTHER), 0);
    cr_expect_eq(metrics_in_flight(metrics, 1), 0);
    cr_expect_eq(metrics_in_flight(metrics, 2), 1);
    cr_expect_eq(metrics_connections(metrics, 2, 0), 1);
    cr_expect_eq(metrics_accepted(metrics, 0), 3, "what was is not forgotten");
}

Test(metrics, what_a_worker_writes_is_bounded_and_what_is_out_of_range_is_zero)
{
    metrics_disconnect(metrics, 0, 0); /* below zero */
    metrics_end(metrics, 0);
    metrics_count_decision(metrics, 0, REASON_OK, UINT64_MAX);
    cr_expect_eq(metrics_connections(metrics, 0, 0), INT64_MAX);
    cr_expect_eq(metrics_in_flight(metrics, 0), INT64_MAX);
    cr_expect_eq(latency_count(OUTCOME_GRANTED, METRICS_BOUNDS), 1);
    cr_expect_eq(metrics_decisions(metrics, METRICS_SITE_COUNT, REASON_OK), 0);
    cr_expect_eq(metrics_decisions(metrics, 0, REASON_COUNT), 0);
    cr_expect_eq(metrics_refusals(metrics, 0, METRICS_CAUSES_MAX), 0);
    cr_expect_eq(metrics_refusals(metrics, METRICS_LISTENER_COUNT, 0), 0);
    cr_expect_eq(metrics_accepted(metrics, METRICS_LISTENER_COUNT), 0);
    cr_expect_eq(metrics_connections(metrics, METRICS_SEATS_MAX, 0), 0);
    cr_expect_eq(metrics_connections(metrics, 0, METRICS_LISTENER_COUNT), 0);
    cr_expect_eq(metrics_in_flight(metrics, METRICS_SEATS_MAX), 0);
}
