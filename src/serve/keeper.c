#include "serve/keeper.h"

#include "base/log.h"
#include "base/sync.h"

#include <errno.h>
#include <string.h>

static void log_news(const struct audit_news *news)
{
    if (news->seal[0] != '\0') {
        log_line(LOG_LEVEL_INFO, "audit sealed: %s", news->seal);
    }
    if (news->segment[0] != '\0') {
        log_line(news->deleted ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "audit file %s: %s",
                 news->deleted ? "was deleted, and a new one begun" : "opened anew", news->segment);
    }
    if (news->fault.what[0] != '\0') {
        log_line(LOG_LEVEL_ERROR, "audit: %s: %s", news->fault.where, news->fault.what);
    }
}

void keeper_start(const struct audit *audit)
{
    if (sync_begin() != 0) {
        log_line(LOG_LEVEL_WARNING, "no thread for the disk, so while it hangs so do we: %s",
                 strerror(errno));
    }
    log_line(LOG_LEVEL_INFO, "audit chain %s, first key %s", audit_chain(audit),
             audit_first_key(audit));
}

bool keeper_tick(struct audit *audit, const struct config *config, uint64_t now_ms)
{
    const struct audit_pace pace = {.seal_ms = config->audit.seal_every_ms,
                                    .rotate_bytes = config->audit.rotate_size_bytes,
                                    .rotate_ms = config->audit.rotate_age_ms};
    struct audit_news news;
    if (!audit_tick(audit, &pace, now_ms, &news)) {
        return false;
    }
    log_news(&news);
    return news.moved;
}

void keeper_rotate(struct audit *audit)
{
    struct audit_news news;
    const int r = audit_rotate(audit, &news);
    if (r == 0 && news.segment[0] == '\0') {
        log_line(LOG_LEVEL_INFO, "audit file opened anew: it is the same one, and can be written");
    } else if (r != 0 && news.segment[0] == '\0') {
        log_line(LOG_LEVEL_ERROR, "audit file not opened anew: %s: %s", news.fault.where,
                 news.fault.what);
        news.fault.what[0] = '\0';
    }
    log_news(&news);
}

void keeper_stop(struct audit *audit)
{
    struct audit_news news;
    (void)audit_stop(audit, &news);
    log_news(&news);
}
