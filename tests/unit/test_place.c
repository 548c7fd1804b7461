/* Where records go: one process says it, and nothing that its children do can change it. */
#include "trail/place.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* How a child ends that does this: its exit status, or minus the signal. */
static int child_do(int (*what)(struct place *), struct place *place)
{
    const pid_t child = fork();
    int status = 0;

    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* not the sanitizer's */
        _exit(what(place));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void *page(const struct place *place)
{
    void *all;

    memcpy(&all, &place->all, sizeof(all)); /* what a child may do to it is what is asked here */
    return all;
}

static int sees_seven(struct place *place)
{
    dev_t dev = 0;
    ino_t ino = 0;

    place_get(place, &dev, &ino);
    return place_error(place) == 0 && place_is_open(place) && place_is(place, 7, 8) && dev == 7 &&
                   ino == 8
               ? 0
               : 1;
}

Test(place, is_told_to_children)
{
    struct place place;

    cr_assert_eq(place_open(&place), 0);
    cr_expect_eq(place_error(&place), EAGAIN, "records go nowhere yet");
    place_set(&place, 7, 8);
    cr_expect_eq(child_do(sees_seven, &place), 0);
    cr_expect(!place_is(&place, 7, 9) && !place_is(&place, 6, 8));
    place_end(&place);
    cr_expect_eq(place_error(&place), EAGAIN);
    cr_expect(!place_is_open(&place) && place_is(&place, 7, 8));
    place_set_error(&place, ENOSPC);
    cr_expect_eq(place_error(&place), ENOSPC);
    place_set(&place, 7, 9);
    cr_expect_eq(place_error(&place), 0);
    cr_expect_eq(child_do(sees_seven, &place), 1);
    place_end(&place);
    cr_expect_eq(place_error(&place), EAGAIN, "what was wrong is over");
    place_close(&place);
    place_close(&place);
}

static int asks_to_write(struct place *place)
{
    return mprotect(page(place), 1, PROT_READ | PROT_WRITE) == -1 && errno == EACCES ? 0 : 1;
}

static int writes_where_all_read(struct place *place)
{
    *(volatile char *)page(place) = 1;
    return 1;
}

static int writes_where_the_opener_does(struct place *place)
{
    place_set(place, 1, 2);
    return 1;
}

/* It was never given a descriptor of it. */
static int has_a_descriptor(struct place *place)
{
    char path[32];
    char target[64] = "";

    (void)place;
    for (int fd = 3; fd < 64; fd++) {
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof(target) - 1) > 0 &&
            strstr(target, "audit-place") != NULL) {
            return 1;
        }
    }
    return 0;
}

Test(place, is_nothing_that_a_child_can_change)
{
    struct place place;

    cr_assert_eq(place_open(&place), 0);
    place_set(&place, 7, 8);
    cr_expect_eq(child_do(asks_to_write, &place), 0);
    cr_expect_eq(child_do(writes_where_all_read, &place), -SIGSEGV);
    cr_expect_eq(child_do(writes_where_the_opener_does, &place), -SIGSEGV);
    cr_expect_eq(child_do(has_a_descriptor, &place), 0);
    cr_expect_eq(sees_seven(&place), 0);
    place_close(&place);
}

/* Where the opener has that memory a child may have other, which it keeps. */
static int closes_it(struct place *place)
{
    char *mine = mmap(place->own, 1, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (mine == MAP_FAILED) {
        return 2;
    }
    place_close(place);
    *(volatile char *)mine = 1;
    return 0;
}

Test(place, is_closed_in_a_child_without_harm)
{
    struct place place;

    cr_assert_eq(place_open(&place), 0);
    cr_expect_eq(child_do(closes_it, &place), 0);
    place_set(&place, 7, 8);
    cr_expect_eq(sees_seven(&place), 0);
    place_close(&place);
}
