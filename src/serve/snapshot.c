#include "serve/snapshot.h"

#include "serve/control.h"
#include "serve/guard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TEXT_MAX = 512,       /* bytes of one text that are shown */
    ITEM_MAX = 64 * 1024, /* what one item of a list can take, all of it escaped */
    LISTENERS_ROOM = CONTROL_ANSWER_MAX / 4,
    SITES_ROOM = CONTROL_ANSWER_MAX - 2 * ITEM_MAX, /* what follows the sites is short */
    SKEW_S = 300, /* what Kerberos allows unless krb5.conf says otherwise; only workers know */
};

/* ---- JSON */

/* The bytes of the code point at `p`, or 0 when they are no UTF-8 (RFC 3629). */
static size_t utf8_len(const unsigned char *p, size_t len)
{
    static const unsigned char first[] = {0x80, 0xC2, 0xE0, 0xF0, 0xF5};
    size_t want = 0;
    while (want < sizeof first && p[0] >= first[want]) {
        want++;
    }
    if (p[0] < first[0]) {
        return 1;
    }
    if (want < 2 || want > 4 || len < want) {
        return 0;
    }
    for (size_t i = 1; i < want; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    const bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    const bool outside = (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF4 && p[1] > 0x8F);
    return overlong || outside ? 0 : want;
}

static void put_text(struct buf *b, const char *text, size_t max)
{
    const struct span s = span_of(text);
    buf_append_byte(b, '"');
    for (size_t at = 0; at < s.len;) {
        const size_t len = utf8_len(s.ptr + at, s.len - at);
        if (at + len > max) {
            break;
        }
        if (len == 0) {
            buf_append_str(b, "\\ufffd");
        } else if (s.ptr[at] < 0x20 || s.ptr[at] == 0x7F) {
            buf_appendf(b, "\\u%04x", s.ptr[at]);
        } else {
            if (s.ptr[at] == '"' || s.ptr[at] == '\\') {
                buf_append_byte(b, '\\');
            }
            buf_append(b, s.ptr + at, len);
        }
        at += len == 0 ? 1 : len;
    }
    buf_append_byte(b, '"');
}

static void put_comma(struct buf *b)
{
    if (b->len > 0 && strchr("{[", b->ptr[b->len - 1]) == NULL) {
        buf_append_byte(b, ',');
    }
}

static void put_key(struct buf *b, const char *key)
{
    put_comma(b);
    if (key != NULL) {
        buf_appendf(b, "\"%s\":", key);
    }
}

static void put_open(struct buf *b, const char *key, char bracket)
{
    put_key(b, key);
    buf_append_byte(b, (unsigned char)bracket);
}

static void put_close(struct buf *b, char bracket)
{
    buf_append_byte(b, (unsigned char)bracket);
}

/* A sum of numbers of which each is in range may not be; no reader of JSON takes more than this. */
static void put_number(struct buf *b, const char *key, uint64_t value)
{
    put_key(b, key);
    buf_appendf(b, "%llu", (unsigned long long)(value < INT64_MAX ? value : INT64_MAX));
}

static void put_string(struct buf *b, const char *key, const char *text)
{
    put_key(b, key);
    put_text(b, text, TEXT_MAX);
}

static void put_bool(struct buf *b, const char *key, bool value)
{
    put_key(b, key);
    buf_append_str(b, value ? "true" : "false");
}

/* ---- the parts */

static const char *const states[] = {
    [CREW_STARTING] = "starting", [CREW_SERVING] = "serving", [CREW_DRAINING] = "draining"};

static void put_workers(struct buf *b, const struct snapshot *s)
{
    const uint64_t now_ms = crew_now_ms();
    put_open(b, "workers", '{');
    put_number(b, "wanted", s->wanted);
    put_number(b, "deaths", s->life->deaths);
    put_bool(b, "slowed", s->slowed);
    put_open(b, "list", '[');
    for (unsigned seat = 0; seat < CREW_MAX; seat++) {
        const struct crew_worker *w = &s->crew->workers[seat];
        if (w->state == CREW_NONE) {
            continue;
        }
        uint64_t connections = 0;
        for (unsigned slot = 0; slot < METRICS_LISTENER_COUNT; slot++) {
            connections += metrics_connections(s->metrics, seat, slot);
        }
        put_open(b, NULL, '{');
        put_number(b, "pid", (uint64_t)w->pid);
        put_string(b, "state", states[w->state]);
        put_number(b, "generation", w->generation);
        put_number(b, "age_s", (now_ms - w->started_ms) / 1000);
        put_number(b, "connections", connections);
        put_number(b, "in_flight", metrics_in_flight(s->metrics, seat));
        put_close(b, '}');
    }
    buf_append_str(b, "]}");
}

/* One slot's numbers; of all generations that serve it. */
static void put_listener(struct buf *b, const struct snapshot *s, const char *address,
                         unsigned slot, bool gone)
{
    uint64_t connections = 0;
    for (unsigned seat = 0; seat < CREW_MAX; seat++) {
        connections += metrics_connections(s->metrics, seat, slot);
    }
    put_open(b, NULL, '{');
    put_string(b, "listener", address);
    if (gone) {
        put_bool(b, "gone", true);
    }
    put_number(b, "connections", connections);
    put_number(b, "accepted", metrics_accepted(s->metrics, slot));
    put_open(b, "refused", '{');
    for (unsigned cause = GUARD_NONE + 1; cause < GUARD_COUNT; cause++) {
        const uint64_t count = metrics_refusals(s->metrics, slot, cause);
        if (count > 0) {
            put_number(b, guard_code((enum guard_cause)cause), count);
        }
    }
    buf_append_str(b, "}}");
}

/* Those of the generation, then those that were there before; the rest under one heading. */
static void put_listeners(struct buf *b, const struct snapshot *s)
{
    bool shown[METRICS_LISTENER_COUNT] = {false};
    bool cut = false;
    const size_t count = s->generation != NULL ? s->generation->listener_count : 0;
    put_open(b, "listeners", '[');
    for (size_t i = 0; i < count && !cut; i++) {
        const struct front_listener *listener = &s->generation->listeners[i];
        if (listener->slot < METRICS_LISTENERS_MAX) {
            shown[listener->slot] = true;
            put_listener(b, s, listener->config->address, listener->slot, false);
        }
        cut = b->len > LISTENERS_ROOM;
    }
    for (unsigned slot = 0; slot < METRICS_LISTENERS_MAX && !cut; slot++) {
        const char *address = metrics_listener(s->metrics, slot);
        if (address != NULL && !shown[slot]) {
            put_listener(b, s, address, slot, true);
        }
        cut = b->len > LISTENERS_ROOM;
    }
    if (metrics_accepted(s->metrics, METRICS_LISTENER_OTHER) > 0) {
        put_listener(b, s, "(other)", METRICS_LISTENER_OTHER, false);
    }
    put_close(b, ']');
    put_bool(b, "listeners_cut", cut);
}

static void put_decisions(struct buf *b, const struct snapshot *s, const char *key, unsigned slot)
{
    put_open(b, key, '{');
    for (int r = 0; r < REASON_COUNT; r++) {
        const uint64_t count = metrics_decisions(s->metrics, slot, (enum reason)r);
        if (count > 0) {
            put_number(b, reason_info((enum reason)r)->code, count);
        }
    }
    put_close(b, '}');
}

static void put_keytab(struct buf *b, const struct generation *g, size_t site)
{
    const struct generation_keytab *loaded = &g->loaded[site];
    uint64_t mtime_s = 0;
    bool changed = false;
    put_open(b, "keytab", '{');
    put_string(b, "file", g->config->sites.items[site].keytab);
    put_bool(b, "loaded", g->keytabs[site] != NULL);
    if (generation_look(g, site, &mtime_s, &changed)) {
        put_number(b, "modified", mtime_s);
    }
    put_bool(b, "changed", changed);
    put_open(b, "newest", '{');
    for (size_t i = 0; i < loaded->count; i++) {
        put_comma(b);
        put_text(b, loaded->newest[i].principal, TEXT_MAX);
        buf_appendf(b, ":%lu", (unsigned long)loaded->newest[i].kvno);
    }
    put_close(b, '}');
    put_bool(b, "newest_cut", loaded->cut);
    put_close(b, '}');
}

static bool has_decisions(const struct snapshot *s, unsigned slot)
{
    bool any = false;
    for (int r = 0; r < REASON_COUNT && !any; r++) {
        any = metrics_decisions(s->metrics, slot, (enum reason)r) > 0;
    }
    return any;
}

static void put_sites(struct buf *b, const struct snapshot *s)
{
    bool shown[METRICS_SITE_COUNT] = {false};
    bool cut = false;
    const struct generation *g = s->generation;
    const size_t count = g != NULL ? g->config->sites.count : 0;
    put_open(b, "sites", '[');
    for (size_t i = 0; i < count && !cut; i++) {
        const unsigned slot = g->site_slots[i];
        shown[slot] = true;
        put_open(b, NULL, '{');
        put_string(b, "site", g->config->sites.items[i].id);
        if (slot < METRICS_SITES_MAX) {
            put_decisions(b, s, "decisions", slot);
        }
        put_keytab(b, g, i);
        put_close(b, '}');
        cut = b->len > SITES_ROOM;
    }
    for (unsigned slot = 0; slot < METRICS_SITES_MAX && !cut; slot++) {
        if (!shown[slot] && metrics_site(s->metrics, slot) != NULL && has_decisions(s, slot)) {
            put_open(b, NULL, '{');
            put_string(b, "site", metrics_site(s->metrics, slot));
            put_bool(b, "gone", true);
            put_decisions(b, s, "decisions", slot);
            put_close(b, '}');
        }
        cut = b->len > SITES_ROOM;
    }
    put_close(b, ']');
    put_bool(b, "sites_cut", cut);
    put_decisions(b, s, "no_site", METRICS_SITE_NONE);
    put_decisions(b, s, "other_sites", METRICS_SITE_OTHER);
}

static void put_latency(struct buf *b, const struct snapshot *s)
{
    put_open(b, "latency", '{');
    put_open(b, "bounds_us", '[');
    for (unsigned i = 0; i < METRICS_BOUNDS; i++) {
        put_number(b, NULL, metrics_bound_us(i));
    }
    put_close(b, ']');
    for (int outcome = 0; outcome < METRICS_OUTCOMES; outcome++) {
        struct metrics_latency latency;
        metrics_latency(s->metrics, (enum outcome)outcome, &latency);
        put_open(b, outcome_text((enum outcome)outcome), '{');
        put_open(b, "counts", '[');
        for (size_t i = 0; i <= METRICS_BOUNDS; i++) {
            put_number(b, NULL, latency.counts[i]);
        }
        put_close(b, ']');
        put_number(b, "sum_us", latency.sum_us);
        put_close(b, '}');
    }
    put_close(b, '}');
}

static void put_stores(struct buf *b, const struct snapshot *s)
{
    const int error = audit_last_error(s->audit);
    const struct audit_seals seals = audit_seals(s->audit);
    uint64_t live = 0;
    uint64_t capacity = 0;
    replay_usage(s->replay, (uint64_t)time(NULL), &live, &capacity);
    put_open(b, "replay", '{');
    put_number(b, "live", live);
    put_number(b, "capacity", capacity);
    put_number(b, "floor", replay_floor_us(s->replay, 2 * SKEW_S + 1) / 1000000);
    put_close(b, '}');
    put_open(b, "audit", '{');
    if (s->generation != NULL) {
        put_string(b, "file", s->generation->config->audit.file);
    }
    put_bool(b, "writable", error == 0);
    if (error != 0) {
        put_string(b, "error", strerror(error));
    }
    put_number(b, "failures", metrics_audit_failures(s->metrics));
    put_number(b, "next_seq", audit_next_seq(s->audit));
    put_number(b, "sealed", seals.last_us / 1000000);
    put_number(b, "unsealed", seals.unsealed);
    put_number(b, "broken", seals.broken);
    put_close(b, '}');
}

static void put_audit_problems(struct buf *b, const struct snapshot *s)
{
    const struct audit_seals seals = audit_seals(s->audit);
    const int error = audit_last_error(s->audit);
    char line[SNAPSHOT_WHY_BYTES];

    if (error != 0) {
        (void)snprintf(line, sizeof line, "the audit trail cannot be written: %s",
                       error == EEXIST ? "another file stands in its place; move that away"
                                       : strerror(error));
        put_string(b, NULL, line);
    }
    if (seals.broken > 0) {
        (void)snprintf(line, sizeof line,
                       "somebody else wrote to the audit trail (chain_broken, since the start: "
                       "%llu); see \"What happens when\" in docs/operation.md",
                       (unsigned long long)seals.broken);
        put_string(b, NULL, line);
    }
    if (seals.unsynced) {
        put_string(b, NULL, "the audit trail cannot be brought to the disk; the log says why");
    }
    if (seals.late) {
        put_string(b, NULL, "the audit trail cannot be sealed; the log says why");
    }
}

/* What an administrator should look at, in words; an empty list is what `spnegate status` calls
 * good. */
static void put_problems(struct buf *b, const struct snapshot *s)
{
    const struct generation *g = s->generation;
    char line[SNAPSHOT_WHY_BYTES + 64];
    size_t without = 0;
    const char *first = "";
    put_open(b, "problems", '[');
    if (s->life->why[0] != '\0') {
        (void)snprintf(line, sizeof line, "the last reload was refused: %s", s->life->why);
        put_comma(b);
        put_text(b, line, sizeof line);
    }
    for (size_t i = 0; g != NULL && i < g->config->sites.count; i++) {
        if (g->keytabs[i] == NULL) {
            first = without++ == 0 ? g->config->sites.items[i].id : first;
        }
    }
    if (without > 0) {
        (void)snprintf(line, sizeof line, "sites without a keytab: %zu, the first is %s", without,
                       first);
        put_string(b, NULL, line);
    }
    put_audit_problems(b, s);
    if (!s->stopping && g != NULL && crew_count(s->crew, g->number, CREW_SERVING) == 0) {
        put_string(b, NULL, "no worker serves");
    }
    if (s->slowed) {
        put_string(b, NULL, "workers die too often and are replaced slowly; see the log");
    }
    put_close(b, ']');
}

void snapshot_format(const struct snapshot *s, struct buf *out)
{
    const struct snapshot_life *life = s->life;
    put_open(out, NULL, '{');
    put_number(out, "v", 1);
    put_string(out, "version", SPNEGATE_VERSION);
    put_number(out, "pid", (uint64_t)getpid());
    put_number(out, "now", (uint64_t)time(NULL));
    put_number(out, "started", life->started_s);
    put_string(out, "configuration", s->config_path);
    put_bool(out, "stopping", s->stopping);
    put_problems(out, s);
    put_open(out, "generation", '{');
    put_number(out, "number", s->generation != NULL ? s->generation->number : 0);
    put_number(out, "since", life->generation_s);
    put_bool(out, "stale", life->why[0] != '\0');
    put_close(out, '}');
    put_open(out, "reloads", '{');
    put_number(out, "ok", life->reloads);
    put_number(out, "refused", life->reloads_refused);
    put_number(out, "last", life->reload_s);
    if (life->why[0] != '\0') {
        put_key(out, "why");
        put_text(out, life->why, SNAPSHOT_WHY_BYTES);
    }
    put_close(out, '}');
    put_workers(out, s);
    put_latency(out, s);
    put_stores(out, s);
    put_listeners(out, s);
    put_sites(out, s);
    put_close(out, '}');
}
