#include "serve/listener.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
    } else {
        cr_assert_eq(inet_pton(AF_INET6, text, &v6->sin6_addr), 1, "%s", text);
        v6->sin6_family = AF_INET6;
    }
    return address;
}

Test(admits, loopback_and_the_addresses_that_are_listed)
{
    static char one[] = "192.0.2.1";
    static char two[] = "2001:db8::1";
    char *items[] = {one, two};
    const struct config_listener nobody = {.kind = CONFIG_LISTEN_FD};
    const struct config_listener some = {.kind = CONFIG_LISTEN_FD, .allow_remote = {items, 2}};
    static const struct {
        const char *peer;
        bool by_nobody;
        bool by_some;
    } rows[] = {
        {"127.0.0.1", true, true},
        {"127.8.0.1", true, true},
        {"::1", true, true},
        /* What a socket for both families calls its peers of IPv4. */
        {"::ffff:127.0.0.1", true, true},
        {"::ffff:192.0.2.1", false, true},
        {"192.0.2.1", false, true},
        {"2001:db8::1", false, true},
        {"::ffff:192.0.2.2", false, false},
        {"192.0.2.2", false, false},
        {"2001:db8::2", false, false},
        {"::127.0.0.1", false, false},
        {"128.0.0.1", false, false},
        {"::", false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct sockaddr_storage peer = address_of(rows[i].peer);
        cr_expect_eq(listener_admits(&nobody, -1, &peer), rows[i].by_nobody, "%s", rows[i].peer);
        cr_expect_eq(listener_admits(&some, -1, &peer), rows[i].by_some, "%s", rows[i].peer);
    }
}

Test(passed, nothing_is_without_all_of_the_environment)
{
    cr_assert_eq(unsetenv("LISTEN_PID"), 0);
    cr_assert_eq(unsetenv("LISTEN_FDS"), 0);
    cr_expect_eq(listener_passed(), 0);
    cr_assert_eq(setenv("LISTEN_FDS", "2", 1), 0);
    cr_assert_eq(setenv("LISTEN_FDNAMES", "one:two", 1), 0);
    cr_expect_eq(listener_passed(), 0);
    cr_assert_eq(setenv("LISTEN_PID", "1", 1), 0);
    cr_expect_eq(listener_passed(), 0);
    char pid[32];
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    cr_assert_eq(setenv("LISTEN_PID", pid, 1), 0);
    cr_expect_eq(listener_passed(), 2);
    cr_assert_eq(setenv("LISTEN_FDS", "3", 1), 0);
    cr_expect_eq(listener_passed(), 0, "a name is missing");
    cr_assert_eq(setenv("LISTEN_FDS", "2", 1), 0);
    listener_forget_passed();
    cr_expect_null(getenv("LISTEN_PID"));
    cr_expect_null(getenv("LISTEN_FDS"));
    cr_expect_null(getenv("LISTEN_FDNAMES"));
}
