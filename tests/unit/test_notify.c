#include "serve/notify.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The service manager's side. */
static int manager = -1;
static char path[] = "/tmp/spnegate-notify-XXXXXX";
static struct notify notify;

static void open_manager(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cr_assert_not_null(mkdtemp(path));
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", path);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(manager, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
}

static void close_manager(void)
{
    char socket_path[sizeof path + 16];
    (void)snprintf(socket_path, sizeof socket_path, "%s/socket", path);
    notify_close(&notify);
    (void)close(manager);
    (void)unlink(socket_path);
    (void)rmdir(path);
}

/* The next message, "" when there is none. */
static const char *heard(void)
{
    static char text[4096];
    const ssize_t n = recv(manager, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static struct notify_facts facts_of(uint64_t pulse)
{
    return (struct notify_facts){.sites = 2, .workers = 1, .wanted = 2, .pulse = pulse};
}

static void fill_queue(void)
{
    while (sendto(notify.fd, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&notify.address,
                  notify.address_len) == 1) {
    }
}

static void empty_queue(void)
{
    while (strcmp(heard(), "x") == 0) {
    }
}

TestSuite(notify, .init = open_manager, .fini = close_manager);

Test(notify, says_each_state_and_how_it_is)
{
    const struct notify_facts facts = facts_of(1);
    notify_open(&notify);
    cr_expect_null(getenv("NOTIFY_SOCKET"));
    notify_tick(&notify, 1000, NULL);
    cr_expect_str_eq(heard(), "");
    notify_ready(&notify);
    cr_expect_str_eq(heard(), "READY=1");
    notify_tick(&notify, 1000, &facts);
    cr_expect_str_eq(heard(), "STATUS=2 sites, 1 of 2 workers, audit ok");
    notify_tick(&notify, 1250, &facts);
    cr_expect_str_eq(heard(), "", "the same sentence is said once");
    notify_reloading(&notify);
    cr_expect_eq(strncmp(heard(), "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
    notify_refused(&notify, "c.yaml:1:1: bad\nSTATUS=\xff");
    cr_expect_str_eq(heard(), "READY=1");
    notify_tick(&notify, 1500, &facts);
    cr_expect_str_eq(heard(), "STATUS=reload refused: c.yaml:1:1: bad?STATUS=?; 2 sites, 1 of 2 "
                              "workers, audit ok");
    notify_ready(&notify);
    cr_expect_str_eq(heard(), "READY=1");
    struct notify_facts full = facts;
    full.audit_error = ENOSPC;
    notify_tick(&notify, 1750, &full);
    cr_expect_str_eq(heard(), "STATUS=2 sites, 1 of 2 workers, audit cannot be written: No space "
                              "left on device");
    notify_stopping(&notify);
    cr_expect_str_eq(heard(), "STOPPING=1");
    cr_expect_str_eq(heard(), "STATUS=stopping: what is under way is finished");
    notify_ready(&notify);
    notify_tick(&notify, 60000, &facts);
    cr_expect_str_eq(heard(), "", "nothing follows the stop");
}

Test(notify, feeds_the_watchdog_as_long_as_the_pulse_rises)
{
    cr_assert_eq(setenv("WATCHDOG_USEC", "4000000", 1), 0);
    notify_open(&notify);
    cr_expect_null(getenv("WATCHDOG_USEC"));
    const struct {
        uint64_t now_ms;
        uint64_t pulse;
        const char *said;
    } rows[] = {
        {10000, 5, "WATCHDOG=1"}, {11999, 9, ""},
        {12000, 9, "WATCHDOG=1"}, {15000, 9, ""},
        {16000, 9, ""},           {16250, 10, "WATCHDOG=1"},
        {17000, 11, ""},          {18250, 12, "WATCHDOG=1"},
    };
    const struct notify_facts first = facts_of(0);
    notify_tick(&notify, 9000, &first);
    cr_assert_eq(strncmp(heard(), "STATUS=", 7), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct notify_facts facts = facts_of(rows[i].pulse);
        notify_tick(&notify, rows[i].now_ms, &facts);
        cr_expect_str_eq(heard(), rows[i].said, "row %zu", i);
    }
}

Test(notify, leaves_a_watchdog_alone_that_is_not_ours)
{
    static const struct {
        const char *usec;
        const char *pid;
    } rows[] = {{"4000000", "1"}, {"4000000", ""}, {"", NULL}, {"4s", NULL}, {"-4000000", NULL}};
    const char *socket_path = strdup(getenv("NOTIFY_SOCKET"));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct notify_facts facts = facts_of(7);
        cr_assert_eq(setenv("NOTIFY_SOCKET", socket_path, 1), 0);
        cr_assert_eq(setenv("WATCHDOG_USEC", rows[i].usec, 1), 0);
        if (rows[i].pid != NULL) {
            cr_assert_eq(setenv("WATCHDOG_PID", rows[i].pid, 1), 0);
        }
        notify_open(&notify);
        notify_tick(&notify, 10000, &facts);
        cr_expect_eq(strncmp(heard(), "STATUS=", 7), 0, "row %zu", i);
        cr_expect_str_eq(heard(), "", "row %zu", i);
        notify_close(&notify);
    }
    free((void *)socket_path);
}

/* A manager that is slow must not make us wait, and still learns how it is in the end. */
Test(notify, never_waits_and_says_again_what_did_not_get_through)
{
    const struct notify_facts facts = facts_of(1);
    notify_open(&notify);
    fill_queue();
    notify_ready(&notify);
    notify_reloading(&notify);
    notify_ready(&notify);
    notify_tick(&notify, 1000, &facts);
    empty_queue();
    notify_tick(&notify, 1250, &facts);
    cr_expect_str_eq(heard(), "READY=1");
    cr_expect_eq(strncmp(heard(), "STATUS=2 sites", 14), 0);
    cr_expect_str_eq(heard(), "");
    fill_queue();
    notify_stopping(&notify);
    empty_queue();
    notify_tick(&notify, 1500, NULL);
    cr_expect_str_eq(heard(), "STOPPING=1");
}

Test(notify, knows_names_in_the_abstract_namespace)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    const int here = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int len = snprintf(name, sizeof name, "@spnegate-notify-%ld", (long)getpid());
    memcpy(address.sun_path + 1, name + 1, (size_t)len - 1);
    cr_assert_eq(bind(here, (struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len)),
                 0);
    cr_assert_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
    notify_open(&notify);
    notify_ready(&notify);
    char text[16] = "";
    cr_expect_eq(recv(here, text, sizeof text - 1, 0), 7);
    cr_expect_str_eq(text, "READY=1");
    (void)close(here);
}

Test(notify, tells_nobody_at_an_address_that_is_none)
{
    char too_long[256];
    memset(too_long, 'a', sizeof too_long);
    too_long[0] = '/';
    too_long[sizeof too_long - 1] = '\0';
    const char *const rows[] = {"", "@", "/", "run/notify", "vsock:2:1", too_long};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct notify_facts facts = facts_of(1);
        cr_assert_eq(setenv("NOTIFY_SOCKET", rows[i], 1), 0);
        notify_open(&notify);
        cr_expect_eq(notify.fd, -1, "row %zu", i);
        notify_ready(&notify);
        notify_tick(&notify, 1000, &facts);
        cr_expect_str_eq(heard(), "");
    }
}
