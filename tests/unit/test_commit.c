#include "trail/commit.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A disk that takes as long as the test likes. */
struct disk {
    struct commit commit;
    sem_t begun;
    sem_t may_end;
    unsigned groups; /* that were written */
    unsigned parts;
};

/* One that waits for it. */
struct part {
    struct commit_part commit;
    struct disk *disk;
    _Atomic pid_t thread;
    unsigned group; /* that it was written with, from 1; 0: not yet */
    unsigned place; /* among all parts */
};

static void slow_write(void *arg, struct commit_part *first)
{
    struct disk *disk = arg;
    (void)sem_post(&disk->begun);
    while (sem_wait(&disk->may_end) != 0) {
    }
    disk->groups++;
    for (struct commit_part *each = first; each != NULL; each = each->next) {
        struct part *part = (struct part *)each;
        cr_expect_eq(part->group, 0, "each is written once");
        part->group = disk->groups;
        part->place = ++disk->parts;
    }
}

static void *append(void *arg)
{
    struct part *part = arg;
    atomic_store(&part->thread, gettid());
    commit_do(&part->disk->commit, &part->commit, slow_write, part->disk);
    cr_expect_neq(part->group, 0, "who goes on is written");
    return NULL;
}

/* Until this thread sleeps in a futex, which is where it waits for a group. */
static void await_sleep(struct part *part)
{
    char path[64];
    char call[16] = "";
    while (strtol(call, NULL, 10) != SYS_futex) {
        (void)snprintf(path, sizeof path, "/proc/self/task/%d/syscall",
                       (int)atomic_load(&part->thread));
        FILE *f = fopen(path, "r");
        call[f != NULL ? fread(call, 1, sizeof call - 1, f) : 0] = '\0';
        if (f != NULL) {
            (void)fclose(f);
        }
    }
}

static _Atomic unsigned signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

static void signal_each(struct part *parts, const pthread_t *ids, size_t count)
{
    const struct sigaction action = {.sa_handler = count_signal};
    cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
    for (size_t i = 0; i < count; i++) {
        const unsigned before = signals;
        cr_assert_eq(pthread_kill(ids[i], SIGUSR1), 0);
        while (signals == before) {
        }
        await_sleep(&parts[i]);
    }
}

/* `groups` have ended before. */
static void three_follow_one(uint32_t groups)
{
    struct disk disk = {.groups = 0};
    struct part all[4] = {{.disk = &disk}, {.disk = &disk}, {.disk = &disk}, {.disk = &disk}};
    pthread_t ids[4];
    commit_init(&disk.commit);
    disk.commit.forming += 2 * groups;
    disk.commit.turn += 2 * groups;
    cr_assert_eq(sem_init(&disk.begun, 0, 0) | sem_init(&disk.may_end, 0, 0), 0);
    cr_assert_eq(pthread_create(&ids[0], NULL, append, &all[0]), 0);
    cr_assert_eq(sem_wait(&disk.begun), 0);
    for (size_t i = 1; i < 4; i++) {
        cr_assert_eq(pthread_create(&ids[i], NULL, append, &all[i]), 0);
        await_sleep(&all[i]);
    }
    signal_each(all + 1, ids + 1, 3); /* which is no end */
    (void)sem_post(&disk.may_end);
    cr_assert_eq(pthread_join(ids[0], NULL), 0);
    cr_assert_eq(sem_wait(&disk.begun), 0, "another group is written");
    for (size_t i = 1; i < 4; i++) {
        cr_expect_eq(all[i].group, 0, "who came during a group is not in it");
    }
    (void)sem_post(&disk.may_end);
    for (size_t i = 1; i < 4; i++) {
        cr_assert_eq(pthread_join(ids[i], NULL), 0);
        cr_expect_eq(all[i].group, 2, "one group for all three");
        cr_expect_eq(all[i].place, i + 1, "in the order in which they came");
    }
}

Test(commit, who_comes_during_a_group_is_in_the_next, .timeout = 30)
{
    three_follow_one(0);
}

/* At 4,000 a second that is within a week. */
Test(commit, goes_on_when_32_bits_have_counted_all_groups, .timeout = 30)
{
    three_follow_one((UINT32_MAX >> 1) - 1);
    three_follow_one(UINT32_MAX >> 1);
}

enum { CROWD = 16, EACH = 4000 };

static _Atomic unsigned writers;

static void quick_write(void *arg, struct commit_part *first)
{
    struct disk *disk = arg;
    cr_expect_eq(atomic_fetch_add(&writers, 1), 0, "one writes at a time");
    cr_expect_not_null(first, "no group is empty");
    disk->groups++;
    for (struct commit_part *each = first; each != NULL; each = each->next) {
        ((struct part *)each)->group++;
        disk->parts++;
    }
    (void)atomic_fetch_sub(&writers, 1);
}

static void *append_many(void *arg)
{
    struct disk *disk = arg;
    size_t once = 0;
    for (size_t i = 0; i < EACH; i++) {
        struct part part = {.disk = disk};
        commit_do(&disk->commit, &part.commit, quick_write, disk);
        once += part.group == 1 ? 1 : 0;
    }
    cr_expect_eq(once, EACH, "%zu of %d were written once", once, (int)EACH);
    return NULL;
}

Test(commit, each_of_a_crowd_is_written_once_and_none_is_left_asleep, .timeout = 120)
{
    struct disk disk = {.groups = 0};
    pthread_t ids[CROWD];
    commit_init(&disk.commit);
    for (size_t i = 0; i < CROWD; i++) {
        cr_assert_eq(pthread_create(&ids[i], NULL, append_many, &disk), 0);
    }
    for (size_t i = 0; i < CROWD; i++) {
        cr_assert_eq(pthread_join(ids[i], NULL), 0);
    }
    cr_expect_eq(disk.parts, CROWD * EACH);
    cr_expect_lt(disk.groups, disk.parts, "some shared a group");
    cr_expect_eq(atomic_load(&disk.commit.turn), 2 * disk.groups);
}
