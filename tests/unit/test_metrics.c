#include "trail/metrics.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNTS = 10000 };

static void *count(void *argument)
{
    struct metrics *metrics = argument;

    for (unsigned i = 0; i < COUNTS; i++) {
        metrics_count(&metrics->reasons[REASON_REPLAY]);
        metrics_count(&metrics->guard[METRICS_GUARD_MAX - 1]);
    }
    return NULL;
}

Test(metrics, begin_at_zero)
{
    static const struct metrics zero;
    struct metrics *metrics = metrics_open();

    cr_assert_not_null(metrics);
    cr_expect_arr_eq((const unsigned char *)metrics, (const unsigned char *)&zero, sizeof(zero));
    metrics_close(metrics);
    metrics_close(NULL);
}

Test(metrics, lose_no_count_between_threads_and_processes)
{
    struct metrics *metrics = metrics_open();
    pid_t children[3];

    cr_assert_not_null(metrics);
    for (unsigned i = 0; i < 3; i++) {
        children[i] = fork();
        cr_assert(children[i] >= 0);
        if (children[i] == 0) {
            pthread_t other;

            if (pthread_create(&other, NULL, count, metrics) != 0) {
                _exit(1);
            }
            count(metrics);
            pthread_join(other, NULL);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        int status = 0;

        cr_assert(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    cr_expect_eq(metrics->reasons[REASON_REPLAY], 6 * COUNTS);
    cr_expect_eq(metrics->guard[METRICS_GUARD_MAX - 1], 6 * COUNTS);
    cr_expect_eq(metrics->reasons[REASON_OK], 0);
    cr_expect_eq(metrics->connections, 0);
    cr_expect_eq(metrics->worker_deaths, 0);
    metrics_close(metrics);
}
