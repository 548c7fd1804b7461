/*
 * The crew: the table of worker processes, of all generations that live side by side. It starts
 * them, tells them what to do, hears whether they are ready, and notices their end; who is wanted,
 * and what an end means, is the supervisor's business.
 */
#ifndef SERVE_CREW_H
#define SERVE_CREW_H

#include "serve/worker.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    CREW_MAX = 256, /* up to three generations while two drain */
    CREW_DEATHS_MAX = 4 * CREW_MAX,
};

enum crew_state { CREW_NONE, CREW_STARTING, CREW_SERVING, CREW_DRAINING };

struct crew_worker {
    enum crew_state state;
    pid_t pid;
    int control;
    unsigned generation;
    uint64_t started_ms;
    uint64_t since_ms; /* when it was last told something, or started */
};

/* What deaths cost: zero-initialised, nothing yet. */
struct crew_budget {
    uint64_t deaths_ms[CREW_DEATHS_MAX]; /* a ring of the latest */
    size_t deaths;
    uint64_t backoff_ms;    /* of workers that die before they are ready */
    uint64_t not_before_ms; /* when the next may be started */
    bool slowed;            /* more died of late than is borne */
};

struct crew {
    struct crew_worker workers[CREW_MAX]; /* the index is the worker's seat */
    struct crew_budget budget;
};

/* Monotonic; what all times here are. */
uint64_t crew_now_ms(void);

/*
 * Forks a worker of a generation. The child has no other worker's control socket, runs `run` with
 * its seat and its own one, and exits with what that returns. -1 and errno.
 */
int crew_spawn(struct crew *crew, unsigned generation,
               int (*run)(void *arg, unsigned seat, int control), void *arg);

/* How many there are; generation 0 is any, and so is CREW_NONE. */
unsigned crew_count(const struct crew *crew, unsigned generation, enum crew_state state);

/* One word to one worker, or to all of a generation that do not drain yet, which become `becomes`.
 */
void crew_tell(const struct crew_worker *worker, enum worker_word word);
void crew_tell_all(struct crew *crew, unsigned generation, enum worker_word word,
                   enum crew_state becomes);

/* SIGKILL to all of a generation (0: any); their deaths are expected. */
void crew_kill(struct crew *crew, unsigned generation);

/*
 * Kills the worker one of whose threads holds a lock for too long, and tells its pid; 0 if
 * `thread`, which comes from memory that workers can write, is none of theirs.
 */
pid_t crew_kill_holder(const struct crew *crew, pid_t thread);

/* Kills, and logs, who starts or drains for too long. */
void crew_check_patience(struct crew *crew, unsigned deadline_ms);

/* What is to be polled for reports; `who` tells whose each is. Returns how many, up to CREW_MAX. */
size_t crew_poll(struct crew *crew, struct pollfd fds[CREW_MAX], struct crew_worker *who[CREW_MAX]);

/* Reads the one report of a worker that starts; false if there is none (yet). */
bool crew_hear(const struct crew_worker *worker, struct worker_report *out);

/* A worker that has died, or NULL. Until it is buried it is in the table, and its pid is nobody's.
 */
struct crew_worker *crew_find_dead(struct crew *crew);

/* How a worker died, in words, from waitpid's status. */
void crew_describe_death(int status, char *out, size_t size);
/* Frees its place; returns waitpid's status. */
int crew_bury(struct crew_worker *worker);

/*
 * Takes note of one death that nobody asked for, of `wanted` workers: who was serving is replaced
 * at once, who died before it was ready later each time, and when too many die within a minute, all
 * are replaced more slowly. True when the last begins.
 */
bool crew_budget_spend(struct crew_budget *budget, unsigned wanted, bool at_start, uint64_t now_ms);

/* Whether more die than is borne, still. */
bool crew_budget_slowed(struct crew_budget *budget, unsigned wanted, uint64_t now_ms);

#endif
