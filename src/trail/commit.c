#include "trail/commit.h"

int commit_open(struct commit *commit)
{
    *commit = (struct commit){.busy = false};
    if (pthread_mutex_init(&commit->mutex, NULL) != 0) {
        return -1;
    }
    if (pthread_cond_init(&commit->ended, NULL) != 0) {
        (void)pthread_mutex_destroy(&commit->mutex);
        return -1;
    }
    return 0;
}

void commit_close(struct commit *commit)
{
    (void)pthread_cond_destroy(&commit->ended);
    (void)pthread_mutex_destroy(&commit->mutex);
}

void commit_wait(struct commit *commit, void (*sync)(void *arg), void *arg)
{
    uint64_t mine;

    (void)pthread_mutex_lock(&commit->mutex);
    mine = ++commit->asked;
    while (commit->synced < mine) {
        uint64_t covered = commit->asked;

        if (commit->busy) {
            (void)pthread_cond_wait(&commit->ended, &commit->mutex);
            continue;
        }
        commit->busy = true;
        (void)pthread_mutex_unlock(&commit->mutex);
        sync(arg);
        (void)pthread_mutex_lock(&commit->mutex);
        commit->busy = false;
        commit->synced = covered;
        (void)pthread_cond_broadcast(&commit->ended);
    }
    (void)pthread_mutex_unlock(&commit->mutex);
}
