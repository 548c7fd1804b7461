#include "cmd/status.h"
#include "trail/metrics.h"

#include <stdio.h>
#include <string.h>

static void print_family(const char *family, const char *type, const char *help)
{
    printf("# HELP spnegate_%s %s\n# TYPE spnegate_%s %s\n", family, help, family, type);
}

static void print_value(const char *family, const char *type, const char *help, uint64_t value)
{
    print_family(family, type, help);
    printf("spnegate_%s %llu\n", family, (unsigned long long)value);
}

/* A label's value: backslash, quote and line feed are escaped, and nothing else is special. */
static void print_label(const char *label, const char *value, const char *end)
{
    printf("%s=\"", label);
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\\' || *p == '"') {
            (void)putchar('\\');
        }
        if (*p == '\n') {
            printf("\\n");
        } else {
            (void)putchar(*p);
        }
    }
    printf("\"%s", end);
}

static void print_decisions(const char *site, const json_t *decisions)
{
    for (int r = 0; r < REASON_COUNT; r++) {
        const struct reason_info *info = reason_info((enum reason)r);
        const uint64_t count = status_number(decisions, info->code);
        if (count > 0) {
            printf("spnegate_requests_total{");
            print_label("site", site, ",");
            print_label("outcome", outcome_text(info->outcome), ",");
            print_label("reason", info->code, "} ");
            printf("%llu\n", (unsigned long long)count);
        }
    }
}

static void print_requests(const json_t *root)
{
    const json_t *sites = json_object_get(root, "sites");
    print_family("requests_total", "counter",
                 "Requests that were decided; without a site where none was found.");
    for (size_t i = 0; i < json_array_size(sites); i++) {
        const json_t *site = json_array_get(sites, i);
        print_decisions(status_string(site, "site"), json_object_get(site, "decisions"));
    }
    print_decisions("", json_object_get(root, "no_site"));
    print_decisions("(other)", json_object_get(root, "other_sites"));
}

static void print_seconds(uint64_t us)
{
    printf("%llu.%06llu", (unsigned long long)us / 1000000, (unsigned long long)us % 1000000);
}

static void print_histogram(const char *outcome, const json_t *bounds, const json_t *times)
{
    const json_t *counts = json_object_get(times, "counts");
    uint64_t sum = 0;
    for (size_t i = 0; i <= json_array_size(bounds); i++) {
        sum += (uint64_t)json_integer_value(json_array_get(counts, i));
        printf("spnegate_decision_seconds_bucket{outcome=\"%s\",le=\"", outcome);
        if (i < json_array_size(bounds)) {
            print_seconds((uint64_t)json_integer_value(json_array_get(bounds, i)));
        } else {
            printf("+Inf");
        }
        printf("\"} %llu\n", (unsigned long long)sum);
    }
    printf("spnegate_decision_seconds_sum{outcome=\"%s\"} ", outcome);
    print_seconds(status_number(times, "sum_us"));
    printf("\nspnegate_decision_seconds_count{outcome=\"%s\"} %llu\n", outcome,
           (unsigned long long)sum);
}

static void print_latency(const json_t *root)
{
    const json_t *latency = json_object_get(root, "latency");
    print_family("decision_seconds", "histogram",
                 "From the whole request to its answer, the audit record included.");
    for (int outcome = 0; outcome < METRICS_OUTCOMES; outcome++) {
        const char *word = outcome_text((enum outcome)outcome);
        print_histogram(word, json_object_get(latency, "bounds_us"),
                        json_object_get(latency, word));
    }
}

static void print_listener(const json_t *list, const char *family, const char *key)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *listener = json_array_get(list, i);
        printf("spnegate_%s{", family);
        print_label("listener", status_string(listener, "listener"), "} ");
        printf("%llu\n", (unsigned long long)status_number(listener, key));
    }
}

static void print_listeners(const json_t *root)
{
    const json_t *list = json_object_get(root, "listeners");
    print_family("connections", "gauge", "Connections that are open.");
    print_listener(list, "connections", "connections");
    print_family("connections_accepted_total", "counter", "Connections that were accepted.");
    print_listener(list, "connections_accepted_total", "accepted");
    print_family("connections_refused_total", "counter",
                 "Connections that were closed without an answer.");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *listener = json_array_get(list, i);
        const char *cause = NULL;
        json_t *count = NULL;
        json_object_foreach(json_object_get(listener, "refused"), cause, count)
        {
            printf("spnegate_connections_refused_total{");
            print_label("listener", status_string(listener, "listener"), ",");
            print_label("cause", cause, "} ");
            printf("%lld\n", (long long)json_integer_value(count));
        }
    }
}

static void print_workers(const json_t *root)
{
    const json_t *workers = json_object_get(root, "workers");
    const json_t *list = json_object_get(workers, "list");
    uint64_t serving = 0;
    uint64_t in_flight = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *worker = json_array_get(list, i);
        serving += strcmp(status_string(worker, "state"), "serving") == 0 ? 1 : 0;
        in_flight += status_number(worker, "in_flight");
    }
    print_value("workers_wanted", "gauge", "Workers that there should be.",
                status_number(workers, "wanted"));
    print_value("workers_serving", "gauge", "Workers that serve.", serving);
    print_value("worker_deaths_total", "counter", "Workers that died without being told to.",
                status_number(workers, "deaths"));
    print_value("requests_in_flight", "gauge", "Requests that are being decided.", in_flight);
}

static void print_life(const json_t *root)
{
    const json_t *generation = json_object_get(root, "generation");
    const json_t *reloads = json_object_get(root, "reloads");
    print_value("start_time_seconds", "gauge", "When the daemon was started, since 1970.",
                status_number(root, "started"));
    print_value("problems", "gauge", "What an administrator should look at; see spnegate status.",
                json_array_size(json_object_get(root, "problems")));
    print_value("generation", "gauge", "The number of the configuration that serves.",
                status_number(generation, "number"));
    print_value("generation_start_time_seconds", "gauge", "Since when it serves, since 1970.",
                status_number(generation, "since"));
    print_family("reloads_total", "counter", "Reloads that were tried, refused ones, too.");
    printf("spnegate_reloads_total{outcome=\"ok\"} %llu\n"
           "spnegate_reloads_total{outcome=\"refused\"} %llu\n",
           (unsigned long long)status_number(reloads, "ok"),
           (unsigned long long)status_number(reloads, "refused"));
    print_value("last_reload_timestamp_seconds", "gauge", "When the last one was, since 1970.",
                status_number(reloads, "last"));
    print_value("last_reload_successful", "gauge", "0 if the last one was refused.",
                status_flag(generation, "stale") ? 0 : 1);
}

static void print_keytab(const json_t *root, const char *family, const char *key)
{
    const json_t *sites = json_object_get(root, "sites");
    for (size_t i = 0; i < json_array_size(sites); i++) {
        const json_t *site = json_array_get(sites, i);
        const json_t *keytab = json_object_get(site, "keytab");
        if (keytab != NULL) {
            printf("spnegate_%s{", family);
            print_label("site", status_string(site, "site"), "} ");
            printf("%d\n", status_flag(keytab, key));
        }
    }
}

static void print_stores(const json_t *root)
{
    const json_t *replay = json_object_get(root, "replay");
    const json_t *audit = json_object_get(root, "audit");
    print_family("keytab_loaded", "gauge", "0 if the site answers keytab_unavailable.");
    print_keytab(root, "keytab_loaded", "loaded");
    print_family("keytab_changed", "gauge", "1 if the file is another than what serves.");
    print_keytab(root, "keytab_changed", "changed");
    print_value("replay_entries", "gauge", "Authenticators that are remembered.",
                status_number(replay, "live"));
    print_value("replay_capacity_entries", "gauge", "How many the table bears.",
                status_number(replay, "capacity"));
    print_value("replay_floor_timestamp_seconds", "gauge",
                "Up to when authenticators may have been forgotten, since 1970.",
                status_number(replay, "floor"));
    print_value("audit_writable", "gauge", "0 if the last record could not be written.",
                (uint64_t)status_flag(audit, "writable"));
    print_value("audit_failures_total", "counter", "Records that could not be written.",
                status_number(audit, "failures"));
    print_value("audit_next_sequence", "gauge", "The number of the next record.",
                status_number(audit, "next_seq"));
    print_value("audit_last_seal_timestamp_seconds", "gauge",
                "When the last seal was made, since 1970; 0 if none was since the start.",
                status_number(audit, "sealed"));
    print_value("audit_unsealed_records", "gauge", "Records that no seal covers yet.",
                status_number(audit, "unsealed"));
    print_value("audit_chain_broken_total", "counter",
                "How often the trail was found changed, and that was recorded.",
                status_number(audit, "broken"));
}

void status_print_metrics(const json_t *root)
{
    print_life(root);
    print_workers(root);
    print_requests(root);
    print_latency(root);
    print_listeners(root);
    print_stores(root);
}
