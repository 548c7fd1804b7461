#include "serve/volume.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

enum { CHALLENGES_MS = 60000, FAILURES_MS = 10000, SPACE_MS = 1000 };

static uint64_t wall_clock_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static const char *site_text(const struct volume *v, unsigned slot)
{
    return slot == METRICS_SITE_OTHER ? "(other)" : metrics_site(v->metrics, slot);
}

/* Records one kind of sums; what cannot be recorded now stays counted. */
static void record_sums(struct volume *v, bool challenges)
{
    const uint64_t now_us = wall_clock_us();
    struct budget_sum sum;
    unsigned at = 0;
    while (budget_collect(v->budget, challenges, now_us, &at, &sum)) {
        const struct audit_summary summary = {
            .site = span_of(site_text(v, sum.site)),
            .challenges = challenges,
            .reason = sum.reason,
            .n = sum.n,
            .first_us = sum.first_us,
            .last_us = sum.last_us,
        };
        if (audit_append_summary(v->audit, &summary) != REASON_OK) {
            metrics_count_audit_failure(v->metrics);
            budget_return(v->budget, &sum);
            return;
        }
    }
}

static bool is_low(const struct config *config)
{
    char dir[512];
    struct statvfs space;
    const char *slash = strrchr(config->audit.file, '/');
    const size_t len =
        slash != NULL && slash != config->audit.file ? (size_t)(slash - config->audit.file) : 1;
    if (config->audit.min_free_bytes == 0 ||
        span_copy(span_make(slash != NULL ? config->audit.file : ".", len), dir, sizeof dir) != 0 ||
        statvfs(dir, &space) != 0) {
        return false; /* if it is gone, appending says so */
    }
    return (uint64_t)space.f_bavail * space.f_frsize < config->audit.min_free_bytes;
}

static void watch_space(struct volume *v, const struct config *config)
{
    const bool low = is_low(config);
    if (low == v->low) {
        return;
    }
    v->low = low;
    budget_set_low(v->budget, low);
    log_line(low ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
             low ? "%s: less than audit.min_free is free; strangers' failures are only counted"
                 : "%s: there is free space again; strangers' failures are recorded",
             config->audit.file);
    if (audit_append_event(v->audit, "audit", "min_free", low ? "low" : "ok", NULL) != REASON_OK) {
        metrics_count_audit_failure(v->metrics);
    }
}

void volume_tick(struct volume *v, const struct config *config, uint64_t now_ms)
{
    if (now_ms >= v->space_ms) {
        v->space_ms = now_ms + SPACE_MS;
        watch_space(v, config);
    }
    if (now_ms >= v->failures_ms) {
        v->failures_ms = now_ms + FAILURES_MS;
        record_sums(v, false);
    }
    if (now_ms >= v->challenges_ms) {
        v->challenges_ms = now_ms + CHALLENGES_MS;
        record_sums(v, true);
    }
}

void volume_finish(struct volume *v)
{
    record_sums(v, false);
    record_sums(v, true);
}
