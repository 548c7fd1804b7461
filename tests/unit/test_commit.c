#include "trail/commit.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A sync that takes as long as the test likes. */
struct disk {
    struct commit commit;
    sem_t begun;
    sem_t may_end;
    unsigned ended;
};

static void slow_sync(void *arg)
{
    struct disk *disk = arg;
    (void)sem_post(&disk->begun);
    while (sem_wait(&disk->may_end) != 0) {
    }
    disk->ended++;
}

static unsigned ended_when_safe(struct disk *disk)
{
    commit_wait(&disk->commit, slow_sync, disk);
    return disk->ended;
}

struct follower {
    struct disk *disk;
    _Atomic pid_t thread;
    unsigned seen; /* syncs, when it was told that it is safe */
};

static void *append(void *arg)
{
    struct follower *follower = arg;
    atomic_store(&follower->thread, gettid());
    follower->seen = ended_when_safe(follower->disk);
    return NULL;
}

/* Until this thread sleeps in a futex, which is where it waits for a group. */
static void await_sleep(struct follower *follower)
{
    char path[64];
    char call[16] = "";
    while (strtol(call, NULL, 10) != SYS_futex) {
        (void)snprintf(path, sizeof path, "/proc/self/task/%d/syscall",
                       (int)atomic_load(&follower->thread));
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

/* `groups` have ended before. */
static void three_follow_one(uint64_t groups)
{
    struct disk disk = {.commit = {.forming = 2 * groups, .synced = (uint32_t)groups}};
    struct follower all[4] = {{.disk = &disk}, {.disk = &disk}, {.disk = &disk}, {.disk = &disk}};
    pthread_t ids[4];
    cr_assert_eq(sem_init(&disk.begun, 0, 0) | sem_init(&disk.may_end, 0, 0), 0);
    cr_assert_eq(pthread_create(&ids[0], NULL, append, &all[0]), 0);
    cr_assert_eq(sem_wait(&disk.begun), 0);
    /* What these have written may not be on the disk when this sync ends. */
    for (size_t i = 1; i < 4; i++) {
        cr_assert_eq(pthread_create(&ids[i], NULL, append, &all[i]), 0);
        await_sleep(&all[i]);
    }
    /* A signal is no end. */
    const struct sigaction action = {.sa_handler = count_signal};
    cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
    for (size_t i = 1; i < 4; i++) {
        const unsigned before = signals;
        cr_assert_eq(pthread_kill(ids[i], SIGUSR1), 0);
        while (signals == before) {
        }
        await_sleep(&all[i]);
    }
    (void)sem_post(&disk.may_end);
    cr_assert_eq(pthread_join(ids[0], NULL), 0);
    cr_assert_eq(sem_wait(&disk.begun), 0, "another sync begins");
    (void)sem_post(&disk.may_end);
    for (size_t i = 1; i < 4; i++) {
        cr_assert_eq(pthread_join(ids[i], NULL), 0);
        cr_expect_eq(all[i].seen, 2, "one sync for all three");
    }
}

Test(commit, who_comes_during_a_sync_waits_for_the_next, .timeout = 30)
{
    three_follow_one(0);
}

/* At 6,000 a second that is within nine days. */
Test(commit, goes_on_when_32_bits_have_counted_all_groups, .timeout = 30)
{
    three_follow_one(UINT32_MAX - 1);
    three_follow_one(UINT32_MAX);
}
