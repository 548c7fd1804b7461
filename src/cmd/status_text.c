#include "cmd/status.h"
#include "trail/metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { AGE_BYTES = 48, TEXT_BYTES = 2048, TIME_BYTES = 32 };

/* What could steer a terminal (C0, DEL, and C1 as UTF-8) becomes "?". */
static const char *clean(const char *text, char out[TEXT_BYTES])
{
    size_t len = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && len < TEXT_BYTES - 1;
         p++) {
        const int c1 = p[0] == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F;
        out[len++] = (char)(*p < 0x20 || *p == 0x7F || c1 ? '?' : *p);
        p += c1;
    }
    out[len] = '\0';
    return out;
}

/* "3 d 4 h", "12 min", "5 s": the two largest units. */
static const char *age(uint64_t seconds, char out[AGE_BYTES])
{
    const unsigned long long s = seconds;
    if (s >= 86400) {
        (void)snprintf(out, AGE_BYTES, "%llu d %llu h", s / 86400, s / 3600 % 24);
    } else if (s >= 3600) {
        (void)snprintf(out, AGE_BYTES, "%llu h %llu min", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        (void)snprintf(out, AGE_BYTES, "%llu min", s / 60);
    } else {
        (void)snprintf(out, AGE_BYTES, "%llu s", s);
    }
    return out;
}

static const char *since(uint64_t now, uint64_t then, char out[AGE_BYTES])
{
    return age(now > then ? now - then : 0, out);
}

static const char *date(uint64_t seconds, char out[TIME_BYTES])
{
    const time_t time = (time_t)seconds;
    struct tm parts;
    if (gmtime_r(&time, &parts) == NULL ||
        strftime(out, TIME_BYTES, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
        (void)snprintf(out, TIME_BYTES, "?");
    }
    return out;
}

static void print_head(const json_t *root, uint64_t now)
{
    const json_t *generation = json_object_get(root, "generation");
    const json_t *reloads = json_object_get(root, "reloads");
    const uint64_t started = status_number(root, "started");
    const uint64_t last = status_number(reloads, "last");
    char text[TEXT_BYTES];
    char when[TIME_BYTES];
    char old[AGE_BYTES];
    printf("spnegate %s, pid %llu, for %s (since %s)%s\n",
           clean(status_string(root, "version"), text),
           (unsigned long long)status_number(root, "pid"), since(now, started, old),
           date(started, when), status_flag(root, "stopping") ? ", stopping" : "");
    printf("configuration  %s\n", clean(status_string(root, "configuration"), text));
    printf("generation     %llu, for %s%s\n",
           (unsigned long long)status_number(generation, "number"),
           since(now, status_number(generation, "since"), old),
           status_flag(generation, "stale") ? ", stale: what is on disk was refused" : "");
    printf("reloads        %llu ok, %llu refused", (unsigned long long)status_number(reloads, "ok"),
           (unsigned long long)status_number(reloads, "refused"));
    if (last > 0) {
        const char *why = status_string(reloads, "why");
        printf("; the last one %s ago %s%s", since(now, last, old),
               why[0] != '\0' ? "refused: " : "ok", clean(why, text));
    }
    printf("\n");
}

static void print_workers(const json_t *root)
{
    const json_t *workers = json_object_get(root, "workers");
    const json_t *list = json_object_get(workers, "list");
    char text[TEXT_BYTES];
    char old[AGE_BYTES];
    printf("workers        %llu wanted, %llu died%s\n",
           (unsigned long long)status_number(workers, "wanted"),
           (unsigned long long)status_number(workers, "deaths"),
           status_flag(workers, "slowed") ? ", replaced slowly" : "");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *w = json_array_get(list, i);
        printf("  %-8llu %-9s generation %llu, for %s, connections %llu, requests under way %llu\n",
               (unsigned long long)status_number(w, "pid"), clean(status_string(w, "state"), text),
               (unsigned long long)status_number(w, "generation"),
               age(status_number(w, "age_s"), old),
               (unsigned long long)status_number(w, "connections"),
               (unsigned long long)status_number(w, "in_flight"));
    }
}

static void print_listeners(const json_t *root)
{
    const json_t *list = json_object_get(root, "listeners");
    char text[TEXT_BYTES];
    printf("listeners      connections / accepted / closed unanswered by cause\n");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *listener = json_array_get(list, i);
        json_t *refused = json_object_get(listener, "refused");
        const char *cause = NULL;
        json_t *count = NULL;
        printf("  %s%s  %llu / %llu /", clean(status_string(listener, "listener"), text),
               status_flag(listener, "gone") ? " (gone)" : "",
               (unsigned long long)status_number(listener, "connections"),
               (unsigned long long)status_number(listener, "accepted"));
        json_object_foreach(refused, cause, count)
        {
            printf(" %s=%lld", clean(cause, text), (long long)json_integer_value(count));
        }
        printf("%s\n", json_object_size(refused) == 0 ? " none" : "");
    }
    if (status_flag(root, "listeners_cut")) {
        printf("  (and more)\n");
    }
}

static void print_decisions(const char *site, const json_t *decisions)
{
    char text[TEXT_BYTES];
    printf("  %-24s", clean(site, text));
    for (int outcome = 0; outcome < METRICS_OUTCOMES; outcome++) {
        printf(" %10llu", (unsigned long long)status_outcome(decisions, (enum outcome)outcome));
    }
    printf("\n");
}

static void print_sites(const json_t *root)
{
    const json_t *list = json_object_get(root, "sites");
    const json_t *none = json_object_get(root, "no_site");
    const json_t *other = json_object_get(root, "other_sites");
    printf("%-26s", "sites");
    for (int outcome = 0; outcome < METRICS_OUTCOMES; outcome++) {
        printf(" %10s", outcome_text((enum outcome)outcome));
    }
    printf("\n");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *site = json_array_get(list, i);
        const json_t *decisions = json_object_get(site, "decisions");
        if (decisions != NULL) {
            print_decisions(status_string(site, "site"), decisions);
        }
    }
    if (json_object_size(none) > 0) {
        print_decisions("(no site)", none);
    }
    if (json_object_size(other) > 0) {
        print_decisions("(other sites)", other);
    }
    if (status_flag(root, "sites_cut")) {
        printf("  (and more)\n");
    }
}

static void print_keytabs(const json_t *root, uint64_t now)
{
    const json_t *list = json_object_get(root, "sites");
    char text[TEXT_BYTES];
    char old[AGE_BYTES];
    printf("keytabs\n");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *site = json_array_get(list, i);
        const json_t *keytab = json_object_get(site, "keytab");
        json_t *newest = json_object_get(keytab, "newest");
        const char *principal = NULL;
        json_t *kvno = NULL;
        if (keytab == NULL) {
            continue;
        }
        printf("  %s: ", clean(status_string(site, "site"), text));
        printf("%s%s", clean(status_string(keytab, "file"), text),
               status_flag(keytab, "loaded") ? "" : ", NOT LOADED");
        if (json_object_get(keytab, "modified") != NULL) {
            printf(", %s old", since(now, status_number(keytab, "modified"), old));
        } else {
            printf(", not to be seen");
        }
        printf("%s\n", status_flag(keytab, "changed") ? ", another than what serves" : "");
        json_object_foreach(newest, principal, kvno)
        {
            printf("    %s kvno %lld\n", clean(principal, text),
                   (long long)json_integer_value(kvno));
        }
        if (status_flag(keytab, "newest_cut")) {
            printf("    (and more)\n");
        }
    }
}

/* The bucket that holds the share, as far into it as the share is; in milliseconds. */
static void print_quantile(const json_t *bounds, const json_t *counts, double total, int percent)
{
    const double wanted = total * percent / 100;
    double before = 0;
    double low = 0;
    for (size_t i = 0; i < json_array_size(bounds); i++) {
        const double high = (double)json_integer_value(json_array_get(bounds, i));
        const double here = (double)json_integer_value(json_array_get(counts, i));
        if (here > 0 && before + here >= wanted) {
            printf("  p%d %.2f ms", percent,
                   (low + (high - low) * (wanted - before) / here) / 1000);
            return;
        }
        before += here;
        low = high;
    }
    printf("  p%d over %.0f ms", percent, low / 1000);
}

static void print_latency(const json_t *root)
{
    const json_t *latency = json_object_get(root, "latency");
    const json_t *bounds = json_object_get(latency, "bounds_us");
    printf("latency of decisions\n");
    for (int outcome = 0; outcome < METRICS_OUTCOMES; outcome++) {
        const char *word = outcome_text((enum outcome)outcome);
        const json_t *counts = json_object_get(json_object_get(latency, word), "counts");
        double total = 0;
        for (size_t i = 0; i < json_array_size(counts); i++) {
            total += (double)json_integer_value(json_array_get(counts, i));
        }
        if (total > 0) {
            printf("  %-10s", word);
            print_quantile(bounds, counts, total, 50);
            print_quantile(bounds, counts, total, 90);
            print_quantile(bounds, counts, total, 99);
            printf("\n");
        }
    }
}

static void print_stores(const json_t *root, uint64_t now)
{
    const json_t *replay = json_object_get(root, "replay");
    const json_t *audit = json_object_get(root, "audit");
    const uint64_t live = status_number(replay, "live");
    const uint64_t capacity = status_number(replay, "capacity");
    const uint64_t sealed = status_number(audit, "sealed");
    char text[TEXT_BYTES];
    char old[AGE_BYTES];
    char when[TIME_BYTES];
    printf("replay table   %llu of %llu entries (%.1f %%); knows all since %s\n",
           (unsigned long long)live, (unsigned long long)capacity,
           capacity > 0 ? 100 * (double)live / (double)capacity : 0,
           date(status_number(replay, "floor"), when));
    printf("audit trail    %s, next record %llu, ", clean(status_string(audit, "file"), text),
           (unsigned long long)status_number(audit, "next_seq"));
    printf("%s", status_flag(audit, "writable") ? "writable" : "CANNOT BE WRITTEN: ");
    printf("%s, %llu failures so far\n", clean(status_string(audit, "error"), text),
           (unsigned long long)status_number(audit, "failures"));
    if (sealed > 0) {
        printf("seals          the last one %s ago, ", since(now, sealed, old));
    } else {
        printf("seals          none since the start, ");
    }
    printf("%llu records not sealed yet\n", (unsigned long long)status_number(audit, "unsealed"));
}

void status_print_text(const json_t *root)
{
    const uint64_t now = status_number(root, "now");
    const json_t *problems = json_object_get(root, "problems");
    char text[TEXT_BYTES];
    for (size_t i = 0; i < json_array_size(problems); i++) {
        const char *problem = json_string_value(json_array_get(problems, i));
        printf("PROBLEM: %s\n", clean(problem != NULL ? problem : "?", text));
    }
    print_head(root, now);
    print_workers(root);
    print_listeners(root);
    print_sites(root);
    print_keytabs(root, now);
    print_latency(root);
    print_stores(root, now);
}
