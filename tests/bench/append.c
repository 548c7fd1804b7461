/*
 * Appends records of sign-ins to a trail of its own, as a worker does, and prints what one costs.
 */
#include "base/secret.h"
#include "trail/audit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { COUNT_MAX = 10000000, SEAL_EVERY = 10000, THREADS_MAX = 256 };

static const char usage[] =
    "usage: append [option]... DIRECTORY\n"
    "Makes or continues DIRECTORY/audit.jsonl; what a daemon has in state_dir lies beside it.\n"
    "  -n COUNT   records; default 1000\n"
    "  -r BYTES   another file after so many\n"
    "  -s         each is on the disk before the thread that appended it goes on\n"
    "  -t COUNT   threads, which share the records; default 1\n"
    "Prints nanoseconds of the processor and by the clock for one record.\n";

/* What one thread has to do, and the processor time that it took. */
struct part {
    struct audit *audit;
    size_t number;
    size_t count;
    unsigned long long bytes;
    unsigned long long cpu_ns;
};

static _Noreturn void die(const char *where, const char *what)
{
    fprintf(stderr, "append: %s: %s\n", where, what);
    exit(1);
}

static unsigned long long now_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now); /* cannot fail with these clocks */
    return (unsigned long long)now.tv_sec * 1000000000 + (unsigned long long)now.tv_nsec;
}

/* What a sign-in through a web server leaves; once for each thread, for it is not what is measured.
 */
static void fill(struct audit_record *record, size_t number)
{
    static _Thread_local char user[32];
    static _Thread_local char principal[64];
    (void)snprintf(user, sizeof user, "user%zu", number);
    (void)snprintf(principal, sizeof principal, "%s@EXAMPLE.TEST", user);
    audit_record_init(record);
    record->time_us = now_ns(CLOCK_REALTIME) / 1000;
    record->method = "negotiate";
    record->mech = "krb5";
    record->ticket_realm = span_of("EXAMPLE.TEST");
    record->ticket_end_s = record->time_us / 1000000 + 36000;
    record->kvno = 3;
    record->kvno_newest = 3;
    record->mutual = AUDIT_TRUE;
    record->deleg = AUDIT_FALSE;
    record->principal = span_of(principal);
    record->user = span_of(user);
    record->service = span_of("HTTP/www.example.test@EXAMPLE.TEST");
    record->enctype = span_of("aes256-cts-hmac-sha1-96");
    record->cb = "none";
    record->site = span_of("intranet");
    record->rule = span_of("spnegate.yaml:34");
    record->server = span_of("lighttpd/1.4.69");
    record->sock = span_of("/run/spnegate/lighttpd.sock");
    record->peer = span_of("192.0.2.17");
    record->peer_port = 51514;
    record->tls = AUDIT_TRUE;
    record->http_method = span_of("GET");
    record->host = span_of("www.example.test");
    record->uri = span_of("/reports/q3");
    record->us = 412;
}

/* Seals, and begins another file when it is time, as the supervisor does between two records. */
static void tick(struct audit *audit, const struct audit_pace *pace, size_t number)
{
    struct audit_news news;
    if (audit_tick(audit, pace, 1000 + number, &news) && news.fault.what[0] != '\0') {
        die(news.fault.where, news.fault.what);
    }
}

static void *append_part(void *arg)
{
    struct part *part = arg;
    const struct audit_pace pace = {.seal_ms = SEAL_EVERY, .rotate_bytes = part->bytes};
    struct audit_record record;
    char id[AUDIT_ID_BYTES];
    uint64_t seq = 0;
    const unsigned long long from = now_ns(CLOCK_THREAD_CPUTIME_ID);
    unsigned long long others = 0;
    fill(&record, part->number);
    for (size_t i = 0; i < part->count; i++) {
        record.time_us = now_ns(CLOCK_REALTIME) / 1000;
        if (audit_append(part->audit, &record, id, &seq) != REASON_OK) {
            die("audit.jsonl", "cannot be written");
        }
        if (part->bytes != 0 && i % (SEAL_EVERY / 4) == 0) {
            const unsigned long long before = now_ns(CLOCK_THREAD_CPUTIME_ID);
            tick(part->audit, &pace, i);
            others += now_ns(CLOCK_THREAD_CPUTIME_ID) - before;
        }
    }
    part->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - from - others;
    return NULL;
}

static void append_all(struct audit *audit, size_t count, size_t threads, unsigned long long bytes)
{
    static pthread_t ids[THREADS_MAX];
    static struct part parts[THREADS_MAX];
    unsigned long long cpu_ns = 0;
    const unsigned long long from = now_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < threads; i++) {
        parts[i] =
            (struct part){.audit = audit, .number = i, .count = count / threads, .bytes = bytes};
        if (pthread_create(&ids[i], NULL, append_part, &parts[i]) != 0) {
            die("threads", "cannot be started");
        }
    }
    for (size_t i = 0; i < threads; i++) {
        (void)pthread_join(ids[i], NULL);
        cpu_ns += parts[i].cpu_ns;
    }
    count = count / threads * threads;
    printf("%llu %llu\n", cpu_ns / count, (now_ns(CLOCK_MONOTONIC) - from) / count);
}

int main(int argc, char **argv)
{
    char file[512];
    size_t count = 1000;
    size_t threads = 1;
    unsigned long long bytes = 0;
    bool commit = false;
    int option;
    while ((option = getopt(argc, argv, "n:r:st:")) != -1) {
        switch (option) {
        case 'n':
            count = strtoul(optarg, NULL, 10);
            break;
        case 'r':
            bytes = strtoull(optarg, NULL, 10);
            break;
        case 's':
            commit = true;
            break;
        case 't':
            threads = strtoul(optarg, NULL, 10);
            break;
        default:
            optind = argc + 1;
        }
    }
    if (optind != argc - 1 || threads < 1 || threads > THREADS_MAX || (threads > 1 && bytes != 0) ||
        count < threads || count > COUNT_MAX ||
        snprintf(file, sizeof file, "%s/audit.jsonl", argv[optind]) >= (int)sizeof file) {
        fputs(usage, stderr);
        return 64;
    }
    const struct audit_options options = {.file = file,
                                          .state_dir = argv[optind],
                                          .mode = 0640,
                                          .commit = commit,
                                          .version = "bench"};
    struct fault fault = {"", ""};
    struct audit_news news;
    struct audit *audit = NULL;
    if (secret_init() != 0 || audit_open(&options, (uid_t)-1, (gid_t)-1, &audit, &fault) != 0) {
        die(fault.where, fault.what);
    }
    append_all(audit, count, threads, bytes);
    if (audit_stop(audit, &news) != 0) {
        die(news.fault.where, news.fault.what);
    }
    audit_close(audit);
    return 0;
}
