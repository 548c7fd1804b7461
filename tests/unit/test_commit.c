#include "trail/commit.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>

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

static void *append(void *arg)
{
    return (void *)(uintptr_t)ended_when_safe(arg);
}

Test(commit, who_comes_during_a_sync_waits_for_the_next, .timeout = 30)
{
    struct disk disk = {.ended = 0};
    pthread_t first;
    pthread_t second;
    void *seen = NULL;
    cr_assert_eq(commit_open(&disk.commit), 0);
    cr_assert_eq(sem_init(&disk.begun, 0, 0) | sem_init(&disk.may_end, 0, 0), 0);
    cr_assert_eq(pthread_create(&first, NULL, append, &disk), 0);
    cr_assert_eq(sem_wait(&disk.begun), 0);
    /* What it has written may not be on the disk when this sync ends. */
    cr_assert_eq(pthread_create(&second, NULL, append, &disk), 0);
    while (pthread_mutex_lock(&disk.commit.mutex) == 0 && disk.commit.asked < 2) {
        (void)pthread_mutex_unlock(&disk.commit.mutex);
    }
    (void)pthread_mutex_unlock(&disk.commit.mutex);
    (void)sem_post(&disk.may_end);
    cr_assert_eq(pthread_join(first, &seen), 0);
    cr_assert_eq(sem_wait(&disk.begun), 0, "another sync begins");
    (void)sem_post(&disk.may_end);
    cr_assert_eq(pthread_join(second, &seen), 0);
    cr_expect_eq((uintptr_t)seen, 2);
    commit_close(&disk.commit);
}
