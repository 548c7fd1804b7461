#include "serve/supervise.h"

#include "auth/replay.h"
#include "base/log.h"
#include "base/secret.h"
#include "serve/generation.h"
#include "serve/listener.h"
#include "serve/notify.h"
#include "serve/startup.h"
#include "serve/worker.h"
#include "trail/audit.h"
#include "trail/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum {
    WORKERS_MAX = 256, /* each of up to three generations while two drain */
    TICK_MS = 250,
    WATCH_MS = 2000,  /* how often keytabs and krb5.conf are looked at */
    DRAIN_MS = 5000,  /* and on top of two deadlines, to stop */
    START_MS = 30000, /* how long a worker may take to be ready */
    STABLE_MS = 1000, /* a worker that lived that long did not die of its start */
    BACKOFF_MAX_MS = 5000,
};

enum worker_state { WORKER_NONE, WORKER_STARTING, WORKER_SERVING, WORKER_DRAINING };

struct worker {
    enum worker_state state;
    pid_t pid;
    int control;
    unsigned generation;
    uint64_t since_ms;
};

struct supervisor {
    const char *config_path;
    struct generation *current;   /* serves */
    struct generation *candidate; /* on trial: its workers start, none has begun */
    struct worker workers[WORKERS_MAX];
    struct replay *replay;
    struct audit *audit;
    struct metrics *metrics;
    struct notify notify;
    int signals;
    int lock;
    bool stopping;
    bool reload;          /* asked for while one was on trial */
    uint64_t watch_ms;    /* when files are looked at next */
    uint64_t files_tried; /* what generation_files said when a reload last failed */
    uint64_t spawn_ms;    /* not before this is a dead worker replaced */
    uint64_t backoff_ms;
    pid_t stuck; /* who held the audit lock at the last tick */
};

static uint64_t now_ms(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static unsigned wanted_workers(const struct generation *g)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const unsigned wanted = g->config->workers != 0 ? g->config->workers
                            : cpus > 0              ? (unsigned)cpus
                                                    : 1;
    return wanted > WORKERS_MAX / 4 ? WORKERS_MAX / 4 : wanted;
}

static unsigned count_workers(const struct supervisor *s, unsigned generation,
                              enum worker_state state)
{
    unsigned count = 0;
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        const struct worker *w = &s->workers[i];
        count += w->state != WORKER_NONE && (generation == 0 || w->generation == generation) &&
                         (state == WORKER_NONE || w->state == state)
                     ? 1
                     : 0;
    }
    return count;
}

static void tell(const struct worker *w, enum worker_word word)
{
    const char byte = (char)word;
    /* A worker that cannot be told is dying; SIGCHLD says the rest. */
    (void)send(w->control, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void tell_all(struct supervisor *s, unsigned generation, enum worker_word word,
                     enum worker_state becomes)
{
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        struct worker *w = &s->workers[i];
        if (w->state != WORKER_NONE && w->state != WORKER_DRAINING && w->generation == generation) {
            tell(w, word);
            w->state = becomes;
            w->since_ms = now_ms();
        }
    }
}

static void kill_all(struct supervisor *s, unsigned generation)
{
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        struct worker *w = &s->workers[i];
        if (w->state != WORKER_NONE && (generation == 0 || w->generation == generation)) {
            w->state = WORKER_DRAINING; /* so that its death surprises nobody */
            (void)kill(w->pid, SIGKILL);
        }
    }
}

/* The child's side of fork: nothing of the supervisor's stays open, or its death would go
 * unnoticed. */
static int run_child(struct supervisor *s, const struct generation *g, int control)
{
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        if (s->workers[i].state != WORKER_NONE) {
            (void)close(s->workers[i].control);
        }
    }
    (void)close(s->signals);
    notify_close(&s->notify);
    listener_forget_passed();
    /*
     * The lock stays open: state_dir is ours as long as one of us lives. Other listeners must not.
     */
    generation_close_listeners(s->current, g);
    generation_close_listeners(s->candidate, g);
    const struct worker_parts parts = {.generation = g,
                                       .replay = s->replay,
                                       .audit = s->audit,
                                       .metrics = s->metrics,
                                       .workers = wanted_workers(g),
                                       .control = control};
    const int status = worker_run(&parts);
    (void)close(control);
    return status;
}

/* Frees what the child has inherited, so that a leak of ours shows up in it as well. */
static void supervisor_free(struct supervisor *s)
{
    generation_close(s->candidate, s->current, false);
    generation_close(s->current, NULL, false);
    replay_close(s->replay);
    audit_close(s->audit);
    metrics_close(s->metrics);
    notify_close(&s->notify);
    free(s);
}

static int spawn(struct supervisor *s, const struct generation *g)
{
    struct worker *w = NULL;
    for (size_t i = 0; i < WORKERS_MAX && w == NULL; i++) {
        w = s->workers[i].state == WORKER_NONE ? &s->workers[i] : NULL;
    }
    int pair[2];
    if (w == NULL || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return -1;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(pair[0]);
        const int status = run_child(s, g, pair[1]);
        supervisor_free(s);
        exit(status);
    }
    (void)close(pair[1]);
    if (pid < 0) {
        (void)close(pair[0]);
        return -1;
    }
    *w = (struct worker){.state = WORKER_STARTING,
                         .pid = pid,
                         .control = pair[0],
                         .generation = g->number,
                         .since_ms = now_ms()};
    return 0;
}

/* Puts a generation on trial: all its workers must say that they are ready before one begins. */
static int start_trial(struct supervisor *s, struct generation *g)
{
    s->candidate = g;
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
        kill_all(s, s->candidate->number);
        generation_close(s->candidate, s->current, true);
        s->candidate = NULL;
    }
}

static void log_refused(struct supervisor *s, const struct fault *fault)
{
    char detail[sizeof fault->where + sizeof fault->what + 4];
    (void)snprintf(detail, sizeof detail, "%s: %s", fault->where, fault->what);
    log_line(LOG_LEVEL_ERROR, "reload refused, the previous configuration serves on: %s", detail);
    (void)audit_append_event(s->audit, "config", "reload", "rejected", detail);
    notify_refused(&s->notify, detail);
}

/* What cannot change while we run, because the old generation still uses it. */
static const char *changed_for_good(const struct config *a, const struct config *b)
{
    return strcmp(a->state_dir, b->state_dir) != 0     ? "state_dir"
           : strcmp(a->audit.file, b->audit.file) != 0 ? "audit.file"
           : a->audit.sync != b->audit.sync            ? "audit.sync"
           : a->replay_entries != b->replay_entries    ? "replay.entries"
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
    tell_all(s, s->candidate->number, WORKER_BEGIN, WORKER_SERVING);
    s->current = s->candidate;
    s->candidate = NULL;
    s->backoff_ms = 0;
    s->files_tried = s->current->files;
    if (old != NULL) {
        tell_all(s, old->number, WORKER_DRAIN, WORKER_DRAINING);
        generation_close(old, s->current, true);
        (void)audit_append_event(s->audit, "config", "reload", "ok", NULL);
    }
    log_line(LOG_LEVEL_INFO, "ready: generation %u, %u workers, %zu sites, %zu listeners",
             s->current->number, wanted_workers(s->current), s->current->config->sites.count,
             s->current->listener_count);
    notify_ready(&s->notify);
}

/* A worker could not start. On trial that ends the trial; at the very start it ends us. Returns the
 * status. */
static int start_failed(struct supervisor *s, const struct worker *w, int status,
                        const struct fault *fault)
{
    if (s->candidate == NULL || w->generation != s->candidate->number) {
        log_line(LOG_LEVEL_ERROR, "a worker could not start: %s: %s", fault->where, fault->what);
        return 0; /* its exit is seen and it is tried again, later each time */
    }
    if (s->current == NULL) {
        log_line(LOG_LEVEL_ERROR, "%s: %s", fault->where, fault->what);
        notify_failed(&s->notify, fault->where, fault->what);
        return status;
    }
    end_trial(s);
    log_refused(s, fault);
    return 0;
}

static int hear(struct supervisor *s, struct worker *w)
{
    struct worker_report report;
    const ssize_t n = recv(w->control, &report, sizeof report, MSG_DONTWAIT);
    if (n != (ssize_t)sizeof report || w->state != WORKER_STARTING) {
        return 0; /* it died: SIGCHLD comes */
    }
    if (report.status != 0) {
        /* What comes from a worker is not trusted to be terminated. */
        report.fault.where[sizeof report.fault.where - 1] = '\0';
        report.fault.what[sizeof report.fault.what - 1] = '\0';
        return start_failed(s, w, report.status, &report.fault);
    }
    w->state = WORKER_SERVING; /* ready; on trial it waits for the others */
    if (s->candidate != NULL && w->generation == s->candidate->number) {
        if (count_workers(s, w->generation, WORKER_SERVING) >= wanted_workers(s->candidate)) {
            promote(s);
        }
    } else {
        tell(w, WORKER_BEGIN);
    }
    return 0;
}

static void describe_death(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status)) {
        (void)snprintf(out, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        (void)snprintf(out, size, "exit status %d", WEXITSTATUS(status));
    }
}

/* One worker is gone. Unless it was told to go, it is replaced: at once, or later and later in a
 * crash loop. */
static int bury(struct supervisor *s, struct worker *w, int status)
{
    const struct worker dead = *w;
    struct fault fault;
    char how[96];
    (void)close(w->control);
    *w = (struct worker){.state = WORKER_NONE};
    describe_death(status, how, sizeof how);
    if (dead.state == WORKER_DRAINING || s->stopping) {
        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
            log_line(LOG_LEVEL_ERROR, "worker %ld died while it drained: %s", (long)dead.pid, how);
        }
        return 0;
    }
    metrics_count(&s->metrics->worker_deaths);
    if (s->candidate != NULL && dead.generation == s->candidate->number) {
        (void)fault_set(&fault, "worker", "it died before it was ready: %s", how);
        return start_failed(s, &dead, EX_SOFTWARE, &fault);
    }
    const uint64_t now = now_ms();
    const bool stable = now - dead.since_ms > STABLE_MS;
    s->backoff_ms = stable ? 0 : s->backoff_ms == 0 ? 50 : s->backoff_ms * 2;
    s->backoff_ms = s->backoff_ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : s->backoff_ms;
    s->spawn_ms = s->backoff_ms <= 50 ? now : now + s->backoff_ms;
    log_line(LOG_LEVEL_ERROR, "worker %ld died: %s; it is replaced", (long)dead.pid, how);
    return 0;
}

static int reap(struct supervisor *s)
{
    int status = 0;
    int result = 0;
    for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0 && result == 0;
         pid = waitpid(-1, &status, WNOHANG)) {
        for (size_t i = 0; i < WORKERS_MAX; i++) {
            if (s->workers[i].state != WORKER_NONE && s->workers[i].pid == pid) {
                /* Its last words, if it could not start, are better than its exit status. */
                result = hear(s, &s->workers[i]);
                result = result != 0 ? result : bury(s, &s->workers[i], status);
                break;
            }
        }
    }
    return result;
}

/* A worker that is stopped while it holds the audit's lock would shut the door for all: it has to
 * go. */
static void check_lock(struct supervisor *s)
{
    const pid_t holder = audit_lock_holder(s->audit);
    const bool waited =
        holder != 0 && holder == s->stuck && audit_last_error(s->audit) == ETIMEDOUT;
    s->stuck = holder;
    for (size_t i = 0; waited && i < WORKERS_MAX; i++) {
        if (s->workers[i].state != WORKER_NONE && s->workers[i].pid == holder) {
            log_line(LOG_LEVEL_ERROR, "worker %ld held the audit lock for over a second: killed",
                     (long)holder);
            (void)kill(holder, SIGKILL);
        }
    }
}

/* A worker that starts or drains for too long hangs: it must not keep a reload or a stop. */
static void check_patience(struct supervisor *s, uint64_t now)
{
    const uint64_t deadline_ms = s->current != NULL ? s->current->config->limits.deadline_ms : 0;
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        const struct worker *w = &s->workers[i];
        const bool starting = w->state == WORKER_STARTING;
        const uint64_t patience_ms = starting ? START_MS : 2 * deadline_ms + DRAIN_MS;
        if ((starting || w->state == WORKER_DRAINING) && now - w->since_ms > patience_ms) {
            log_line(LOG_LEVEL_ERROR, "worker %ld %s: killed", (long)w->pid,
                     starting ? "does not become ready" : "does not stop");
            (void)kill(w->pid, SIGKILL);
        }
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
                                       .workers = count_workers(s, g->number, WORKER_SERVING),
                                       .wanted = wanted_workers(g),
                                       .audit_error = audit_last_error(s->audit),
                                       .pulse = s->metrics->pulse};
    notify_tick(&s->notify, now, &facts);
}

/* What happens by the clock. */
static void tick(struct supervisor *s)
{
    const uint64_t now = now_ms();
    tell_manager(s, now);
    check_lock(s);
    check_patience(s, now);
    if (s->current == NULL || s->stopping) {
        return;
    }
    const unsigned wanted = wanted_workers(s->current);
    while (now >= s->spawn_ms && count_workers(s, s->current->number, WORKER_NONE) < wanted) {
        if (spawn(s, s->current) != 0) {
            log_line(LOG_LEVEL_ERROR, "a worker cannot be started: %s", strerror(errno));
            s->spawn_ms = now + BACKOFF_MAX_MS;
        }
    }
    if (s->reload) {
        begin_reload(s, "asked for while another reload was under way");
    }
    if (now >= s->watch_ms) {
        s->watch_ms = now + WATCH_MS;
        const uint64_t files = generation_files(s->current);
        if (files != s->current->files && files != s->files_tried) {
            (void)audit_append_event(s->audit, "keytab", "changed", NULL, NULL);
            begin_reload(s, "a keytab or krb5.conf has changed");
        }
    }
}

static void stop(struct supervisor *s, const char *why)
{
    if (s->stopping) {
        log_line(LOG_LEVEL_WARNING, "stopping at once: %s again", why);
        kill_all(s, 0);
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
        tell_all(s, s->current->number, WORKER_STOP, WORKER_DRAINING);
    }
}

/* A record proves at once that the new file can be written, and says so if not. */
static void reopen_audit(struct supervisor *s)
{
    audit_reopen(s->audit);
    if (audit_append_event(s->audit, "audit", "reopen", NULL, NULL) != REASON_OK) {
        log_line(LOG_LEVEL_ERROR, "%s cannot be written: %s; sign-ins are answered 503",
                 s->current != NULL ? s->current->config->audit.file : "the audit file",
                 strerror(audit_last_error(s->audit)));
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
        reopen_audit(s);
        begin_reload(s, "SIGHUP");
        break;
    case SIGUSR1:
        reopen_audit(s);
        log_line(LOG_LEVEL_INFO, "the audit file is opened anew: SIGUSR1");
        break;
    default:
        stop(s, info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        break;
    }
    return 0;
}

/* Runs until a status is decided or, once stopping, the last worker is gone. */
static int supervise(struct supervisor *s)
{
    int status = 0;
    while (status == 0 && !(s->stopping && count_workers(s, 0, WORKER_NONE) == 0)) {
        struct pollfd fds[WORKERS_MAX + 1] = {{.fd = s->signals, .events = POLLIN}};
        struct worker *who[WORKERS_MAX + 1];
        nfds_t count = 1;
        for (size_t i = 0; i < WORKERS_MAX; i++) {
            if (s->workers[i].state == WORKER_STARTING) {
                fds[count] = (struct pollfd){.fd = s->workers[i].control, .events = POLLIN};
                who[count++] = &s->workers[i];
            }
        }
        if (poll(fds, count, TICK_MS) < 0 && errno != EINTR) {
            log_line(LOG_LEVEL_ERROR, "poll: %s", strerror(errno));
            return EX_OSERR;
        }
        for (nfds_t i = 1; i < count && status == 0; i++) {
            if ((fds[i].revents & POLLIN) != 0) {
                status = hear(s, who[i]);
            }
        }
        if (status == 0 && (fds[0].revents & POLLIN) != 0) {
            status = handle_signal(s);
        }
        tick(s);
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
        const unsigned long long n = s->metrics->reasons[r];
        if (n > 0) {
            const int len = snprintf(line + at, sizeof line - at, " %s=%llu",
                                     reason_info((enum reason)r)->code, n);
            at += len > 0 ? (size_t)len : 0;
        }
    }
    log_line(LOG_LEVEL_INFO, "stopped; decisions:%s", at > 0 ? line : " none");
}

/* Descriptors 0 to 2 and those passed must be something, or the next file opened would take their
 * place. */
static int hold_descriptors(void)
{
    const int last = STDERR_FILENO + (int)listener_passed();
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= last) {
        fd = open("/dev/null", O_RDWR);
    }
    return fd < 0 ? -1 : close(fd);
}

static void set_limits(void)
{
    struct rlimit files;
    const struct rlimit none = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* with fewer, connections give way earlier */
    }
    (void)setrlimit(RLIMIT_CORE, &none); /* a dump would hold keys */
}

int supervise_run(const char *config_path)
{
    struct fault fault = {"", ""};
    log_open(LOG_LEVEL_INFO, getenv("JOURNAL_STREAM") != NULL);
    if (hold_descriptors() != 0 || secret_init() != 0) {
        return EX_OSERR;
    }
    set_limits();
    struct supervisor *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return EX_OSERR;
    }
    s->config_path = config_path;
    s->lock = s->signals = -1;
    notify_open(&s->notify);
    struct startup startup = {.lock = -1};
    int status =
        open_signals(s, &fault) == 0 ? startup_run(config_path, &startup, &fault) : EX_OSERR;
    s->replay = startup.replay;
    s->audit = startup.audit;
    s->metrics = startup.metrics;
    s->lock = startup.lock;
    if (status == 0 && start_trial(s, startup.generation) != 0) {
        (void)fault_set(&fault, "fork", "workers cannot be started: %s", strerror(errno));
        status = EX_OSERR;
    } else if (status != 0) {
        s->candidate = startup.generation;
    }
    if (status != 0) {
        log_line(LOG_LEVEL_ERROR, "%s%s%s", fault.where, fault.where[0] != '\0' ? ": " : "",
                 fault.what);
        notify_failed(&s->notify, fault.where, fault.what);
    } else {
        status = supervise(s);
        log_totals(s);
        (void)audit_append_event(s->audit, "lifecycle", "stop", NULL, NULL);
    }
    end_trial(s);
    kill_all(s, 0);
    (void)close(s->signals);
    if (s->lock >= 0) {
        (void)close(s->lock);
    }
    supervisor_free(s);
    return status;
}
