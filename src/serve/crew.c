#include "serve/crew.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    DRAIN_MS = 5000,  /* and on top of two deadlines, to stop */
    START_MS = 30000, /* how long a worker may take to be ready */
    BACKOFF_MIN_MS = 50,
    BACKOFF_MAX_MS = 1500, /* a cause that goes is over within 2 s */
    DEATHS_MIN = 16,       /* that are borne within DEATHS_MS; or four times all workers, if more */
    DEATHS_MS = 60000,
    SLOWED_MS = 2000, /* between two restarts, when more died */
};

uint64_t crew_now_ms(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

unsigned crew_count(const struct crew *crew, unsigned generation, enum crew_state state)
{
    unsigned count = 0;
    for (size_t i = 0; i < CREW_MAX; i++) {
        const struct crew_worker *w = &crew->workers[i];
        count += w->state != CREW_NONE && (generation == 0 || w->generation == generation) &&
                         (state == CREW_NONE || w->state == state)
                     ? 1
                     : 0;
    }
    return count;
}

void crew_tell(const struct crew_worker *worker, enum worker_word word)
{
    const char byte = (char)word;
    /* A worker that cannot be told is dying; SIGCHLD says the rest. */
    (void)send(worker->control, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void crew_tell_all(struct crew *crew, unsigned generation, enum worker_word word,
                   enum crew_state becomes)
{
    for (size_t i = 0; i < CREW_MAX; i++) {
        struct crew_worker *w = &crew->workers[i];
        if (w->state != CREW_NONE && w->state != CREW_DRAINING && w->generation == generation) {
            crew_tell(w, word);
            w->state = becomes;
            w->since_ms = crew_now_ms();
        }
    }
}

void crew_kill(struct crew *crew, unsigned generation)
{
    for (size_t i = 0; i < CREW_MAX; i++) {
        struct crew_worker *w = &crew->workers[i];
        if (w->state != CREW_NONE && (generation == 0 || w->generation == generation)) {
            w->state = CREW_DRAINING; /* so that its death surprises nobody */
            (void)kill(w->pid, SIGKILL);
        }
    }
}

pid_t crew_kill_holder(const struct crew *crew, pid_t thread)
{
    for (size_t i = 0; i < CREW_MAX && thread > 0; i++) {
        const struct crew_worker *w = &crew->workers[i];
        if (w->state != CREW_NONE && tgkill(w->pid, thread, 0) == 0) {
            (void)kill(w->pid, SIGKILL);
            return w->pid;
        }
    }
    return 0;
}

void crew_check_patience(struct crew *crew, unsigned deadline_ms)
{
    const uint64_t now = crew_now_ms();
    for (size_t i = 0; i < CREW_MAX; i++) {
        struct crew_worker *w = &crew->workers[i];
        const bool starting = w->state == CREW_STARTING;
        const uint64_t patience_ms = starting ? START_MS : 2 * (uint64_t)deadline_ms + DRAIN_MS;
        if ((starting || w->state == CREW_DRAINING) && now - w->since_ms > patience_ms) {
            log_line(LOG_LEVEL_ERROR, "worker %ld %s: killed", (long)w->pid,
                     starting ? "does not become ready" : "does not stop");
            w->since_ms = now; /* said once, not until it is reaped */
            (void)kill(w->pid, SIGKILL);
        }
    }
}

/* The child's side: with another worker's control socket open, our supervisor's death would go
 * unnoticed there. */
static _Noreturn void live(const struct crew *crew, unsigned seat, int control,
                           int (*run)(void *arg, unsigned seat, int control), void *arg)
{
    for (size_t i = 0; i < CREW_MAX; i++) {
        if (crew->workers[i].state != CREW_NONE) {
            (void)close(crew->workers[i].control);
        }
    }
    exit(run(arg, seat, control));
}

int crew_spawn(struct crew *crew, unsigned generation,
               int (*run)(void *arg, unsigned seat, int control), void *arg)
{
    unsigned seat = 0;
    while (seat < CREW_MAX && crew->workers[seat].state != CREW_NONE) {
        seat++;
    }
    if (seat == CREW_MAX) {
        errno = EAGAIN;
        return -1;
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return -1;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(pair[0]);
        live(crew, seat, pair[1], run, arg);
    }
    const int error = errno;
    (void)close(pair[1]);
    if (pid < 0) {
        (void)close(pair[0]);
        errno = error;
        return -1;
    }
    const uint64_t now = crew_now_ms();
    crew->workers[seat] = (struct crew_worker){.state = CREW_STARTING,
                                               .pid = pid,
                                               .control = pair[0],
                                               .generation = generation,
                                               .started_ms = now,
                                               .since_ms = now};
    return 0;
}

size_t crew_poll(struct crew *crew, struct pollfd fds[CREW_MAX], struct crew_worker *who[CREW_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < CREW_MAX; i++) {
        if (crew->workers[i].state == CREW_STARTING) {
            fds[count] = (struct pollfd){.fd = crew->workers[i].control, .events = POLLIN};
            who[count++] = &crew->workers[i];
        }
    }
    return count;
}

bool crew_hear(const struct crew_worker *worker, struct worker_report *out)
{
    struct worker_report report;
    const ssize_t n = recv(worker->control, &report, sizeof report, MSG_DONTWAIT);
    if (n != (ssize_t)sizeof report || worker->state != CREW_STARTING) {
        return false; /* it died: SIGCHLD comes */
    }
    /* What comes from a worker is not trusted to be terminated. */
    report.fault.where[sizeof report.fault.where - 1] = '\0';
    report.fault.what[sizeof report.fault.what - 1] = '\0';
    *out = report;
    return true;
}

struct crew_worker *crew_find_dead(struct crew *crew)
{
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
            return NULL;
        }
        for (size_t i = 0; i < CREW_MAX; i++) {
            if (crew->workers[i].state != CREW_NONE && crew->workers[i].pid == info.si_pid) {
                return &crew->workers[i];
            }
        }
        (void)waitpid(info.si_pid, NULL, WNOHANG); /* none of ours */
    }
}

void crew_describe_death(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) {
        (void)snprintf(out, size, "killed by the sandbox (a system call that workers never make)");
    } else if (WIFSIGNALED(status)) {
        (void)snprintf(out, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        (void)snprintf(out, size, "exit status %d", WEXITSTATUS(status));
    }
}

int crew_bury(struct crew_worker *worker)
{
    int status = 0;
    (void)waitpid(worker->pid, &status, WNOHANG);
    (void)close(worker->control);
    *worker = (struct crew_worker){.state = CREW_NONE};
    return status;
}

bool crew_budget_slowed(struct crew_budget *budget, unsigned wanted, uint64_t now_ms)
{
    const size_t borne = 4 * (size_t)wanted > DEATHS_MIN ? 4 * (size_t)wanted : DEATHS_MIN;
    size_t late = 0;
    for (size_t i = 0; i < CREW_DEATHS_MAX && i < budget->deaths; i++) {
        late += now_ms - budget->deaths_ms[i] < DEATHS_MS ? 1 : 0;
    }
    budget->slowed = late > borne;
    return budget->slowed;
}

bool crew_budget_spend(struct crew_budget *budget, unsigned wanted, bool at_start, uint64_t now_ms)
{
    const bool before = budget->slowed;
    uint64_t pause_ms = 0;
    budget->deaths_ms[budget->deaths++ % CREW_DEATHS_MAX] = now_ms;
    if (at_start) {
        pause_ms = budget->backoff_ms == 0 ? BACKOFF_MIN_MS : 2 * budget->backoff_ms;
        pause_ms = pause_ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : pause_ms;
        budget->backoff_ms = pause_ms;
    }
    const bool slowed = crew_budget_slowed(budget, wanted, now_ms);
    if (slowed && pause_ms < SLOWED_MS) {
        pause_ms = SLOWED_MS;
    }
    if (now_ms >= budget->not_before_ms) { /* a pause that runs is not drawn out */
        budget->not_before_ms = now_ms + pause_ms;
    }
    return slowed && !before;
}
