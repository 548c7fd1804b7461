#include "serve/supervise.h"

#include "auth/replay.h"
#include "base/log.h"
#include "serve/control.h"
#include "serve/crew.h"
#include "serve/generation.h"
#include "serve/keeper.h"
#include "serve/listener.h"
#include "serve/notify.h"
#include "serve/snapshot.h"
#include "serve/startup.h"
#include "serve/volume.h"
#include "serve/worker.h"
#include "trail/audit.h"
#include "trail/metrics.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 250,
    WATCH_MS = 2000, /* how often keytabs and krb5.conf are looked at */
    FORK_PAUSE_MS = 1000,
};

_Static_assert((int)CREW_MAX <= (int)METRICS_SEATS_MAX, "each worker has its seat");

struct supervisor {
    const char *config_path;
    struct generation *current;   /* serves */
    struct generation *candidate; /* on trial: its workers start, none has begun */
    struct crew crew;
    struct control *control;
    struct replay *replay;
    struct audit *audit;
    struct metrics *metrics;
    struct budget *budget;
    struct volume volume;
    struct notify notify;
    int signals;
    int lock;
    bool stopping;
    bool reload;          /* asked for while one was on trial */
    uint64_t watch_ms;    /* when files are looked at next */
    uint64_t files_tried; /* what generation_files said when a reload last failed */
    unsigned warned;      /* the generation whose incomplete sandbox was told of */
    struct snapshot_life life;
};

static uint64_t wall_clock_s(void)
{
    return (uint64_t)time(NULL);
}

static unsigned wanted_workers(const struct generation *g)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const unsigned wanted = g->config->workers != 0 ? g->config->workers
                            : cpus > 0              ? (unsigned)cpus
                                                    : 1;
    return wanted > CREW_MAX / 4 ? CREW_MAX / 4 : wanted;
}

/* An event that cannot be recorded is counted; what it tells of happens all the same. */
static enum reason record_event(struct supervisor *s, const char *event, const char *action,
                                const char *result, const char *detail)
{
    const enum reason reason = audit_append_event(s->audit, event, action, result, detail);
    if (reason != REASON_OK) {
        metrics_count_audit_failure(s->metrics);
    }
    return reason;
}

/* Frees what a child has inherited as well, so that a leak of ours shows up in it. */
static void supervisor_free(struct supervisor *s)
{
    generation_close(s->candidate, s->current, false);
    generation_close(s->current, NULL, false);
    replay_close(s->replay);
    audit_close(s->audit);
    metrics_close(s->metrics);
    budget_close(s->budget);
    notify_close(&s->notify);
    free(s);
}

struct birth {
    struct supervisor *supervisor;
    const struct generation *generation;
};

/* The child's side of fork: nothing of the supervisor's stays open, or its death would go
 * unnoticed. */
static int run_child(void *arg, unsigned seat, int control)
{
    const struct birth *birth = arg;
    struct supervisor *s = birth->supervisor;
    const struct generation *g = birth->generation;
    (void)close(s->signals);
    control_close(s->control, false);
    notify_close(&s->notify);
    listener_forget_passed();
    /*
     * The lock stays open: state_dir is ours as long as one of us lives. Other listeners must not.
     */
    generation_close_listeners(s->current, g);
    generation_close_listeners(s->candidate, g);
    generation_limit_log(g);
    const struct worker_parts parts = {.generation = g,
                                       .replay = s->replay,
                                       .audit = s->audit,
                                       .metrics = s->metrics,
                                       .budget = s->budget,
                                       .workers = wanted_workers(g),
                                       .seat = seat,
                                       .control = control};
    const int status = worker_run(&parts);
    (void)close(control);
    supervisor_free(s);
    return status;
}

static int spawn(struct supervisor *s, const struct generation *g)
{
    struct birth birth = {s, g};
    return crew_spawn(&s->crew, g->number, run_child, &birth);
}

/* Puts a generation on trial: all its workers must say that they are ready before one begins. */
static int start_trial(struct supervisor *s, struct generation *g)
{
    s->candidate = g;
    generation_claim(g, s->metrics);
    for (unsigned i = wanted_workers(g); i > 0; i--) {
        if (spawn(s, g) != 0) {
            return -1;
        }
    }
    return 0;
}

static void end_trial(struct supervisor *s)
{
    if (s->candidate != NULL) {
        crew_kill(&s->crew, s->candidate->number);
        generation_close(s->candidate, s->current, true);
        s->candidate = NULL;
    }
}

static void log_refused(struct supervisor *s, const struct fault *fault)
{
    char *why = s->life.why;
    (void)snprintf(why, sizeof s->life.why, "%s: %s", fault->where, fault->what);
    s->life.reloads_refused++;
    s->life.reload_s = wall_clock_s();
    log_line(LOG_LEVEL_ERROR, "reload refused, the previous configuration serves on: %s", why);
    (void)record_event(s, "config", "reload", "rejected", why);
    notify_refused(&s->notify, why);
}

/* What cannot change while we run, because the old generation still uses it. */
static const char *changed_for_good(const struct config *a, const struct config *b)
{
    return strcmp(a->state_dir, b->state_dir) != 0       ? "state_dir"
           : strcmp(a->runtime_dir, b->runtime_dir) != 0 ? "runtime_dir"
           : strcmp(a->audit.file, b->audit.file) != 0   ? "audit.file"
           : a->audit.sync != b->audit.sync              ? "audit.sync"
           : a->replay_entries != b->replay_entries      ? "replay.entries"
           : (a->user == NULL) != (b->user == NULL) || a->uid != b->uid || a->gid != b->gid ? "user"
                                                                                            : NULL;
}

/* SIGHUP, or a changed file: loads a new generation and puts it on trial. */
static void begin_reload(struct supervisor *s, const char *why)
{
    struct fault fault;
    struct generation *g = NULL;
    if (s->candidate != NULL || s->current == NULL) {
        s->reload = true;
        return;
    }
    s->reload = false;
    s->files_tried = generation_files(s->current);
    log_line(LOG_LEVEL_INFO, "reloading: %s", why);
    notify_reloading(&s->notify);
    if (generation_open(s->config_path, s->current, &g, &fault) != 0) {
        log_refused(s, &fault);
        return;
    }
    const char *key = changed_for_good(s->current->config, g->config);
    int r = key != NULL ? fault_set(&fault, s->config_path, "%s has changed: restart needed", key)
                        : generation_load_files(g, true, &fault);
    if (r == 0 && start_trial(s, g) != 0) {
        r = fault_set(&fault, "fork", "workers cannot be started: %s", strerror(errno));
    }
    if (r != 0) {
        s->candidate = g;
        end_trial(s);
        log_refused(s, &fault);
    }
}

/* All workers of the candidate are ready: they begin, the ones before drain. */
static void promote(struct supervisor *s)
{
    struct generation *old = s->current;
    crew_tell_all(&s->crew, s->candidate->number, WORKER_BEGIN, CREW_SERVING);
    s->current = s->candidate;
    s->candidate = NULL;
    generation_limit_log(s->current);
    s->crew.budget = (struct crew_budget){.deaths = 0}; /* what killed the old ones may be mended */
    s->files_tried = s->current->files;
    s->life.generation_s = wall_clock_s();
    s->life.why[0] = '\0';
    if (old != NULL) {
        crew_tell_all(&s->crew, old->number, WORKER_DRAIN, CREW_DRAINING);
        generation_close(old, s->current, true);
        s->life.reloads++;
        s->life.reload_s = s->life.generation_s;
        (void)record_event(s, "config", "reload", "ok", NULL);
    }
    log_line(LOG_LEVEL_INFO, "ready: generation %u, %u workers, %zu sites, %zu listeners",
             s->current->number, wanted_workers(s->current), s->current->config->sites.count,
             s->current->listener_count);
    notify_ready(&s->notify);
}

/* A worker could not start. On trial that ends the trial; at the very start it ends us. Returns the
 * status. */
static int start_failed(struct supervisor *s, unsigned generation, int status,
                        const struct fault *fault)
{
    if (s->candidate == NULL || generation != s->candidate->number) {
        log_line(LOG_LEVEL_ERROR, "a worker could not start: %s%s%s", fault->where,
                 fault->where[0] != '\0' ? ": " : "", fault->what);
        return 0; /* its exit is seen and it is tried again, later each time */
    }
    if (s->current == NULL) {
        log_line(LOG_LEVEL_ERROR, "spnegate does not start: %s: %s", fault->where, fault->what);
        notify_failed(&s->notify, fault->where, fault->what);
        return status;
    }
    end_trial(s);
    log_refused(s, fault);
    return 0;
}

static int hear(struct supervisor *s, struct crew_worker *w)
{
    struct worker_report report;
    if (!crew_hear(w, &report)) {
        return 0;
    }
    /* What comes from a worker is not trusted to be terminated. */
    report.fault.where[sizeof report.fault.where - 1] = '\0';
    report.fault.what[sizeof report.fault.what - 1] = '\0';
    if (report.status != 0) {
        return start_failed(s, w->generation, report.status, &report.fault);
    }
    if (report.fault.what[0] != '\0' && s->warned != w->generation) {
        s->warned = w->generation;
        log_line(LOG_LEVEL_WARNING, "%s: %s", report.fault.where, report.fault.what);
    }
    w->state = CREW_SERVING; /* ready; on trial it waits for the others */
    if (s->candidate != NULL && w->generation == s->candidate->number) {
        if (crew_count(&s->crew, w->generation, CREW_SERVING) >= wanted_workers(s->candidate)) {
            promote(s);
        }
    } else {
        s->crew.budget.backoff_ms = 0;
        crew_tell(w, WORKER_BEGIN);
    }
    return 0;
}

/* One worker is gone. Unless it was told to go, it is replaced: tick does, when the budget lets it.
 */
static int bury(struct supervisor *s, struct crew_worker *w)
{
    const struct crew_worker dead = *w;
    struct fault fault;
    char how[96];
    metrics_clear_seat(s->metrics, (unsigned)(w - s->crew.workers));
    const int status = crew_bury(w);
    crew_describe_death(status, how, sizeof how);
    if (dead.state == CREW_DRAINING || s->stopping) {
        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
            log_line(LOG_LEVEL_ERROR, "worker %ld died while it drained: %s", (long)dead.pid, how);
        }
        return 0;
    }
    s->life.deaths++;
    if (s->candidate != NULL && dead.generation == s->candidate->number) {
        (void)fault_set(&fault, "worker", "it died before it was ready: %s", how);
        return start_failed(s, dead.generation, EX_SOFTWARE, &fault);
    }
    log_line(LOG_LEVEL_ERROR, "worker %ld died: %s; it is replaced", (long)dead.pid, how);
    if (crew_budget_spend(&s->crew.budget, wanted_workers(s->current), dead.state == CREW_STARTING,
                          crew_now_ms())) {
        log_line(LOG_LEVEL_ERROR, "too many workers died within a minute: from here on they are "
                                  "replaced with pauses, until fewer die");
    }
    return 0;
}

static int reap(struct supervisor *s)
{
    int result = 0;
    struct crew_worker *w = NULL;
    while (result == 0 && (w = crew_find_dead(&s->crew)) != NULL) {
        /* Its last words, if it could not start, are better than its exit status. */
        const int heard = hear(s, w);
        result = bury(s, w);
        result = heard != 0 ? heard : result;
    }
    return result;
}

/*
 * A worker that is stopped while it holds a lock of all would shut the door for all: it has to go.
 * A lock that none of them holds, and that we do not hold here, was never taken: that is a lie.
 */
static void check_locks(struct supervisor *s)
{
    const pid_t writer = audit_stuck_holder(s->audit);
    const pid_t other = replay_stuck_holder(s->replay);
    const pid_t killed[] = {crew_kill_holder(&s->crew, writer), crew_kill_holder(&s->crew, other)};
    static const char *const locks[] = {"the audit lock", "a replay lock"};
    for (size_t i = 0; i < sizeof killed / sizeof killed[0]; i++) {
        if (killed[i] != 0) {
            log_line(LOG_LEVEL_ERROR, "worker %ld held %s for over a second: killed",
                     (long)killed[i], locks[i]);
        }
    }
    if (writer != 0 && killed[0] == 0) {
        audit_break_lock(s->audit, writer);
    }
    if (other != 0 && killed[1] == 0) {
        replay_break_lock(s->replay, other);
    }
}

static void tell_manager(struct supervisor *s, uint64_t now)
{
    const struct generation *g = s->current;
    if (g == NULL) {
        notify_tick(&s->notify, now, NULL);
        return;
    }
    const struct notify_facts facts = {.sites = g->config->sites.count,
                                       .workers = crew_count(&s->crew, g->number, CREW_SERVING),
                                       .wanted = wanted_workers(g),
                                       .audit_error = audit_last_error(s->audit),
                                       .pulse = metrics_pulses(s->metrics)};
    notify_tick(&s->notify, now, &facts);
}

/* What happens by the clock. */
static void tick(struct supervisor *s)
{
    const uint64_t now = crew_now_ms();
    tell_manager(s, now);
    check_locks(s);
    const bool moved = s->current != NULL && keeper_tick(s->audit, s->current->config, now);
    crew_check_patience(&s->crew, s->current != NULL ? s->current->config->limits.deadline_ms : 0);
    if (s->current == NULL || s->stopping) {
        return;
    }
    const unsigned wanted = wanted_workers(s->current);
    while (now >= s->crew.budget.not_before_ms &&
           crew_count(&s->crew, s->current->number, CREW_NONE) < wanted) {
        if (spawn(s, s->current) != 0) {
            log_line(LOG_LEVEL_ERROR, "a worker cannot be started: %s", strerror(errno));
            s->crew.budget.not_before_ms = now + FORK_PAUSE_MS;
        }
    }
    if (moved) {
        begin_reload(s, "the audit trail is in another directory");
    }
    if (s->reload) {
        begin_reload(s, "asked for while another reload was under way");
    }
    volume_tick(&s->volume, s->current->config, now);
    if (now >= s->watch_ms) {
        s->watch_ms = now + WATCH_MS;
        const uint64_t files = generation_files(s->current);
        if (files != s->current->files && files != s->files_tried) {
            const char *keytab = generation_changed_keytab(s->current);
            char why[SNAPSHOT_WHY_BYTES];
            (void)snprintf(why, sizeof why, "%s has changed",
                           keytab != NULL ? keytab : "a certificate or krb5.conf");
            (void)record_event(s, "keytab", "changed", NULL, NULL);
            begin_reload(s, why);
        }
    }
}

static void stop(struct supervisor *s, const char *why)
{
    if (s->stopping) {
        log_line(LOG_LEVEL_WARNING, "stopping at once: %s again", why);
        crew_kill(&s->crew, 0);
        return;
    }
    log_line(LOG_LEVEL_INFO, "stopping: %s", why);
    s->stopping = true;
    notify_stopping(&s->notify);
    if (s->candidate != NULL) {
        end_trial(s);
    }
    if (s->current != NULL) {
        for (size_t i = 0; i < s->current->listener_count; i++) {
            listener_unlink(s->current->listeners[i].config);
        }
        crew_tell_all(&s->crew, s->current->number, WORKER_STOP, CREW_DRAINING);
    }
}

static int handle_signal(struct supervisor *s)
{
    struct signalfd_siginfo info;
    if (read(s->signals, &info, sizeof info) != (ssize_t)sizeof info) {
        return 0;
    }
    switch (info.ssi_signo) {
    case SIGCHLD:
        return reap(s);
    case SIGHUP:
        keeper_rotate(s->audit);
        begin_reload(s, "SIGHUP");
        break;
    case SIGUSR1:
        keeper_rotate(s->audit);
        break;
    default:
        stop(s, info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        break;
    }
    return 0;
}

/* The control socket's one request. */
static bool answer_request(void *arg, struct span request, struct buf *out)
{
    struct supervisor *s = arg;
    const uint64_t now = crew_now_ms();
    if (!span_equal(request, span_of("status"))) {
        return false;
    }
    const unsigned wanted = s->current != NULL ? wanted_workers(s->current) : 0;
    const struct snapshot snapshot = {.config_path = s->config_path,
                                      .life = &s->life,
                                      .generation = s->current,
                                      .crew = &s->crew,
                                      .metrics = s->metrics,
                                      .audit = s->audit,
                                      .replay = s->replay,
                                      .wanted = wanted,
                                      .slowed = crew_budget_slowed(&s->crew.budget, wanted, now),
                                      .stopping = s->stopping};
    snapshot_format(&snapshot, out);
    return true;
}

/* Runs until a status is decided or, once stopping, the last worker is gone. */
static int supervise(struct supervisor *s)
{
    const struct control_answers answers = {answer_request, s};
    int status = 0;
    while (status == 0 && !(s->stopping && crew_count(&s->crew, 0, CREW_NONE) == 0)) {
        struct pollfd fds[1 + CONTROL_FDS + CREW_MAX] = {{.fd = s->signals, .events = POLLIN}};
        struct pollfd *controls = fds + 1;
        struct pollfd *reports = controls + CONTROL_FDS;
        struct crew_worker *who[CREW_MAX];
        control_poll(s->control, controls);
        const size_t count = crew_poll(&s->crew, reports, who);
        if (poll(fds, 1 + CONTROL_FDS + count, TICK_MS) < 0 && errno != EINTR) {
            log_line(LOG_LEVEL_ERROR, "poll: %s", strerror(errno));
            return EX_OSERR;
        }
        for (size_t i = 0; i < count && status == 0; i++) {
            if ((reports[i].revents & POLLIN) != 0) {
                status = hear(s, who[i]);
            }
        }
        if (status == 0 && (fds[0].revents & POLLIN) != 0) {
            status = handle_signal(s);
        }
        tick(s);
        control_serve(s->control, controls, &answers);
    }
    return status;
}

static int open_signals(struct supervisor *s, struct fault *fault)
{
    sigset_t set;
    (void)sigemptyset(&set);
    static const int ours[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGPIPE};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        (void)sigaddset(&set, ours[i]);
    }
    /* Blocked in the workers, too: they obey their supervisor's word, not a signal to the whole
     * group. */
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 || signal(SIGXFSZ, SIG_IGN) == SIG_ERR ||
        signal(SIGUSR2, SIG_IGN) == SIG_ERR) {
        return fault_set(fault, "", "signals cannot be blocked: %s", strerror(errno));
    }
    (void)sigdelset(&set, SIGPIPE);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals < 0 ? fault_set(fault, "", "signalfd: %s", strerror(errno)) : 0;
}

static void log_totals(const struct supervisor *s)
{
    char line[1024] = "";
    size_t at = 0;
    for (int r = 0; r < REASON_COUNT && at < sizeof line; r++) {
        unsigned long long n = 0;
        for (unsigned site = 0; site < METRICS_SITE_COUNT; site++) {
            n += metrics_decisions(s->metrics, site, (enum reason)r);
        }
        if (n > 0) {
            const int len = snprintf(line + at, sizeof line - at, " %s=%llu",
                                     reason_info((enum reason)r)->code, n);
            at += len > 0 ? (size_t)len : 0;
        }
    }
    log_line(LOG_LEVEL_INFO, "stopped; decisions:%s", at > 0 ? line : " none");
}

int supervise_make_state_dir(const struct config *config, struct fault *fault)
{
    return startup_make_state_dir(config, fault);
}

int supervise_run(const struct supervise_options *options)
{
    struct fault fault = {"", ""};
    log_open(getenv("JOURNAL_STREAM") != NULL);
    if (startup_prepare() != 0) {
        return EX_OSERR;
    }
    struct supervisor *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return EX_OSERR;
    }
    s->config_path = options->config_path;
    s->lock = s->signals = -1;
    notify_open(&s->notify);
    s->life.started_s = wall_clock_s();
    struct startup startup = {.lock = -1};
    int status = open_signals(s, &fault) == 0 ? startup_run(options, &startup, &fault) : EX_OSERR;
    s->replay = startup.replay;
    s->audit = startup.audit;
    s->metrics = startup.metrics;
    s->budget = startup.budget;
    s->volume = (struct volume){.budget = s->budget, .audit = s->audit, .metrics = s->metrics};
    s->control = startup.control;
    s->lock = startup.lock;
    if (status == 0 && start_trial(s, startup.generation) != 0) {
        (void)fault_set(&fault, "fork", "workers cannot be started: %s", strerror(errno));
        status = EX_OSERR;
    } else if (status != 0) {
        s->candidate = startup.generation;
    }
    if (status != 0) {
        log_line(LOG_LEVEL_ERROR, "spnegate does not start: %s%s%s", fault.where,
                 fault.where[0] != '\0' ? ": " : "", fault.what);
        notify_failed(&s->notify, fault.where, fault.what);
    } else {
        keeper_start(s->audit);
        status = supervise(s);
        log_totals(s);
        volume_finish(&s->volume);
        keeper_stop(s->audit);
    }
    end_trial(s);
    crew_kill(&s->crew, 0);
    control_close(s->control, true);
    (void)close(s->signals);
    if (s->lock >= 0) {
        (void)close(s->lock);
    }
    supervisor_free(s);
    return status;
}
