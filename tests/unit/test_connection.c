#include "serve/connection.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CAP = 4, READY_MAX = 3, PEERS_MAX = 16, DEADLINE_US = 5000000 };

/* A pool with one listener; peers[i] is the other end of connections[i]. */
static struct station stations[2];
static struct station *const station = &stations[0];
static struct pool pool;
static struct sockaddr_un address;
static socklen_t address_len;
static struct connection *connections[PEERS_MAX]; /* NULL: dropped */
static int peers[PEERS_MAX];
static size_t count;
static char here[] = "here";

static void open_pool(void)
{
    static const struct config_listener config = {.kind = CONFIG_LISTEN_UNIX, .address = here};
    *station = (struct station){
        .source = SOURCE_LISTENER, .config = &config, .rules = {.params_max = 65536}};
    station->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    /* In the abstract namespace, where the kernel picks a free one. */
    cr_assert_eq(bind(station->fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
    address_len = sizeof address;
    cr_assert_eq(getsockname(station->fd, (struct sockaddr *)&address, &address_len), 0);
    cr_assert_eq(listen(station->fd, PEERS_MAX), 0);
    static const struct pool_limits limits = {
        .connections = CAP, .ready = READY_MAX, .descriptors = 1000, .deadline_us = DEADLINE_US};
    cr_assert_eq(pool_open(&pool, stations, 1, &limits), 0);
    count = 0;
}

static void close_pool(void)
{
    for (size_t i = 0; i < count; i++) {
        if (connections[i] != NULL && connections[i]->queue == NULL) {
            pool_drop(&pool, connections[i]);
        }
        (void)close(peers[i]);
    }
    pool_close(&pool);
    (void)close(station->fd);
}

/* One more connection, accepted at `now_us`; not parked. */
static struct connection *connect_one(uint64_t now_us)
{
    enum guard_cause cause = GUARD_MEMORY;
    peers[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(peers[count], (struct sockaddr *)&address, address_len), 0);
    struct connection *c = pool_accept(&pool, station, now_us, &cause);
    cr_assert_not_null(c);
    cr_assert_eq(cause, GUARD_NONE);
    connections[count++] = c;
    return c;
}

static struct connection *connect_silent(uint64_t now_us)
{
    struct connection *c = connect_one(now_us);
    cr_assert_eq(pool_park(&pool, c), 0);
    return c;
}

/* A kept connection that was answered at `now_us`. */
static struct connection *connect_idle(uint64_t now_us)
{
    struct connection *c = connect_one(now_us);
    c->kept = true;
    cr_assert_eq(pool_park(&pool, c), 0);
    return c;
}

/* Which connections have been ended so far, as a word of y and n. */
static const char *ended(void)
{
    static char word[PEERS_MAX + 1];
    for (size_t i = 0; i < count; i++) {
        word[i] = connections[i]->ended == GUARD_NONE ? 'n' : 'y';
    }
    word[count] = '\0';
    return word;
}

Test(cap, the_longest_silent_one_gives_way_to_the_next, .init = open_pool, .fini = close_pool)
{
    for (uint64_t i = 0; i < CAP; i++) {
        (void)connect_silent(i);
    }
    cr_assert_str_eq(ended(), "nnnn");
    (void)connect_silent(4);
    cr_assert_str_eq(ended(), "ynnnn");
    cr_assert_eq(connections[0]->ended, GUARD_CROWDED);
    char byte;
    cr_assert_eq(recv(peers[0], &byte, 1, 0), 0, "its peer sees the end");
    cr_assert_eq(recv(peers[1], &byte, 1, MSG_DONTWAIT), -1, "the next one's does not");
    (void)connect_silent(5);
    cr_assert_str_eq(ended(), "yynnnn", "one for each that is too many");
}

Test(cap, out_of_descriptors_one_gives_way_before_the_cap, .init = open_pool, .fini = close_pool)
{
    (void)connect_silent(0);
    (void)connect_silent(1);
    pool.limits.descriptors = peers[0]; /* which is below whatever is opened next */
    (void)connect_silent(2);
    cr_assert_str_eq(ended(), "ynn");
    (void)connect_silent(3);
    cr_assert_str_eq(ended(), "yynn");
}

Test(cap, idle_ones_outlive_as_many_that_are_silent, .init = open_pool, .fini = close_pool)
{
    (void)connect_idle(0);
    (void)connect_idle(1);
    (void)connect_silent(2);
    (void)connect_silent(3);
    (void)connect_silent(4);
    cr_assert_str_eq(ended(), "nnynn");
    (void)connect_silent(5);
    cr_assert_str_eq(ended(), "nnyynn", "who is ended already counts no more");
}

Test(cap, silent_ones_outlive_fewer_that_are_idle, .init = open_pool, .fini = close_pool)
{
    (void)connect_silent(0);
    (void)connect_idle(1);
    (void)connect_idle(2);
    (void)connect_idle(3);
    (void)connect_one(4);
    cr_assert_str_eq(ended(), "nynnn");
}

Test(cap, one_that_came_back_counts_where_it_is, .init = open_pool, .fini = close_pool)
{
    (void)connect_silent(0);
    (void)connect_silent(1);
    (void)connect_idle(2);
    (void)connect_idle(3);
    pool_take(&pool, connections[2], 4);
    connections[2]->guard.silent = false;
    cr_assert_eq(pool_park(&pool, connections[2]), 0);
    (void)connect_one(5);
    cr_assert_str_eq(ended(), "ynnnn");
    cr_assert_eq(pool_leave(&pool, connections[0]), GUARD_CROWDED);
    cr_assert_eq(pool_leave(&pool, connections[1]), GUARD_NONE);
    cr_assert_eq(station->waiting.left, 1);
    cr_assert_eq(station->idle.left, 1);
}

Test(cap, one_that_is_being_served_never_gives_way, .init = open_pool, .fini = close_pool)
{
    for (uint64_t i = 0; i < CAP; i++) {
        cr_assert_eq(pool_leave(&pool, connect_silent(i)), GUARD_NONE);
    }
    (void)connect_one(9);
    cr_assert_str_eq(ended(), "nnnnn");
    for (size_t i = 0; i < count; i++) {
        pool_drop(&pool, connections[i]);
        connections[i] = NULL;
    }
    cr_assert_eq(pool_count(&pool), 0);
}

Test(cap, whoever_drips_keeps_its_place, .init = open_pool, .fini = close_pool)
{
    for (uint64_t i = 0; i < CAP; i++) {
        (void)connect_silent(i);
    }
    /* The first sends a byte, is read and parked again: no younger for that. */
    pool_take(&pool, connections[0], 9);
    cr_assert_eq(pool_park(&pool, connections[0]), 0);
    (void)connect_one(9);
    cr_assert_str_eq(ended(), "ynnnn");
    cr_assert_eq(pool_leave(&pool, connections[0]), GUARD_CROWDED);
}

Test(sweep, ends_what_is_late_and_nothing_idle, .init = open_pool, .fini = close_pool)
{
    (void)connect_silent(0);
    (void)connect_silent(100);
    (void)connect_idle(0);
    pool_sweep(&pool, DEADLINE_US);
    cr_assert_str_eq(ended(), "nnn");
    pool_sweep(&pool, DEADLINE_US + 1);
    cr_assert_str_eq(ended(), "ynn");
    cr_assert_eq(pool_leave(&pool, connections[0]), GUARD_DEADLINE);
    pool_sweep(&pool, DEADLINE_US * 10);
    cr_assert_str_eq(ended(), "yyn");
}

Test(sweep, the_deadline_of_a_next_request_begins_with_its_first_byte, .init = open_pool,
     .fini = close_pool)
{
    struct connection *c = connect_idle(0);
    pool_take(&pool, c, DEADLINE_US * 2);
    c->guard.silent = false;
    cr_assert_eq(pool_park(&pool, c), 0);
    pool_sweep(&pool, DEADLINE_US * 3);
    cr_assert_str_eq(ended(), "n");
    pool_sweep(&pool, DEADLINE_US * 3 + 1);
    cr_assert_str_eq(ended(), "y");
}

Test(sweep, who_takes_no_answer_is_ended_as_that, .init = open_pool, .fini = close_pool)
{
    struct connection *c = connect_one(0);
    c->kept = c->complete = true;
    c->guard.silent = false;
    cr_assert_eq(pool_park(&pool, c), 0);
    pool_sweep(&pool, DEADLINE_US + 1);
    cr_assert_eq(pool_leave(&pool, c), GUARD_ANSWER);
}

Test(drain, idle_ones_are_ended_and_what_is_on_its_way_is_still_read, .init = open_pool,
     .fini = close_pool)
{
    struct connection *c = connect_idle(0);
    (void)connect_silent(0);
    cr_assert_eq(send(peers[0], "x", 1, 0), 1);
    pool_drain(&pool);
    cr_assert_str_eq(ended(), "yn");
    char byte = 0;
    cr_assert_eq(recv(c->fd, &byte, 1, MSG_DONTWAIT), 1);
    cr_assert_eq(recv(c->fd, &byte, 1, MSG_DONTWAIT), 0);
    pool_take(&pool, c, 1);
    cr_assert_eq(pool_leave(&pool, c), GUARD_NONE, "it may be answered");
    pool_drop(&pool, c);
    connections[0] = NULL;
    cr_assert_eq(pool_count(&pool), 1);
}

Test(park, a_rest_and_a_complete_request_come_back_without_a_byte, .init = open_pool,
     .fini = close_pool)
{
    struct epoll_event event;
    (void)connect_silent(0);
    cr_assert_eq(epoll_wait(pool.epoll, &event, 1, 0), 0);
    struct connection *c = connect_one(0);
    buf_append_str(&c->rest, "x");
    cr_assert_eq(pool_park(&pool, c), 0);
    cr_assert_eq(epoll_wait(pool.epoll, &event, 1, 0), 1);
    cr_assert_eq(event.data.ptr, c);
    buf_reset(&c->rest);
    c->complete = true;
    (void)shutdown(peers[1], SHUT_WR);
    cr_assert_eq(pool_park(&pool, c), 0);
    cr_assert_eq(epoll_wait(pool.epoll, &event, 1, 0), 1);
    cr_assert_eq(event.events, EPOLLOUT, "not for the end of input, which nobody reads now");
}

Test(park, an_idle_connection_holds_no_large_buffers, .init = open_pool, .fini = close_pool)
{
    static const char bytes[40000];
    struct connection *c = connect_one(0);
    c->kept = true;
    buf_append(&c->guard.params, bytes, sizeof bytes);
    guard_start(&c->guard, &station->rules);
    buf_append(&c->rest, bytes, sizeof bytes);
    buf_reset(&c->rest);
    cr_assert_eq(pool_park(&pool, c), 0);
    cr_assert_eq(c->guard.params.capacity + c->rest.capacity, 0);
}

Test(accept, a_peer_that_may_not_connect_is_told_apart, .init = open_pool, .fini = close_pool)
{
    static const struct config_listener nobody = {
        .kind = CONFIG_LISTEN_UNIX, .address = here, .peers = {.limited = true}};
    enum guard_cause cause = GUARD_NONE;
    station->config = &nobody;
    cr_assert_null(pool_accept(&pool, station, 0, &cause));
    cr_assert_eq(cause, GUARD_NONE, "nobody has come");
    peers[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connections[count] = NULL;
    cr_assert_eq(connect(peers[count++], (struct sockaddr *)&address, address_len), 0);
    cr_assert_null(pool_accept(&pool, station, 0, &cause));
    cr_assert_eq(cause, GUARD_PEER);
    cr_assert_eq(pool_count(&pool), 0);
}

Test(park, the_stdin_that_follows_begins_no_request, .init = open_pool, .fini = close_pool)
{
    struct connection *c = connect_one(0);
    c->kept = true;
    buf_append_str(&c->rest, "x"); /* parked with what came behind its request */
    cr_assert_eq(pool_park(&pool, c), 0);
    cr_assert_eq(c->queue, &station->waiting);
    pool_take(&pool, c, 1);
    buf_reset(&c->rest); /* and it was that STDIN only */
    cr_assert_eq(pool_park(&pool, c), 0);
    cr_assert_eq(c->queue, &station->idle);
    pool_sweep(&pool, DEADLINE_US * 10);
    cr_assert_str_eq(ended(), "n");
    pool_take(&pool, c, DEADLINE_US * 10);
    cr_assert_eq(c->since_us, DEADLINE_US * 10);
}

Test(drain, a_request_that_is_still_answered_may_be_late, .init = open_pool, .fini = close_pool)
{
    struct connection *c = connect_idle(0);
    pool_drain(&pool);
    cr_assert_str_eq(ended(), "y");
    pool_take(&pool, c, 1);
    c->guard.silent = false;
    cr_assert_eq(pool_park(&pool, c), 0);
    cr_assert_eq(station->waiting.left, 1);
    pool_sweep(&pool, DEADLINE_US + 2);
    cr_assert_eq(pool_leave(&pool, c), GUARD_DEADLINE);
    cr_assert_eq(station->waiting.left, 0);
}

Test(ready, requests_are_served_in_the_order_they_came_up_to_a_number, .init = open_pool,
     .fini = close_pool)
{
    struct connection *c[READY_MAX + 1];
    cr_assert_null(pool_next(&pool));
    for (size_t i = 0; i <= READY_MAX; i++) {
        c[i] = connect_one(i);
        cr_assert_eq(pool_leave(&pool, c[i]), GUARD_NONE);
        cr_assert_eq(pool_line_up(&pool, c[i]), i < READY_MAX ? 0 : -1);
    }
    cr_assert_null(c[READY_MAX]->queue, "the one too many is still its caller's");
    cr_assert_eq(pool_next(&pool), c[0]);
    cr_assert_eq(pool_line_up(&pool, c[READY_MAX]), 0, "one was served: there is room again");
    for (size_t i = 1; i <= READY_MAX; i++) {
        cr_assert_eq(pool_next(&pool), c[i]);
    }
    cr_assert_null(pool_next(&pool));
}

Test(ready, listeners_take_turns, .init = open_pool, .fini = close_pool)
{
    struct connection *c[5];
    pool.station_count = 2;
    for (size_t i = 0; i < 5; i++) {
        c[i] = connect_one(i);
        c[i]->station = i < 3 ? &stations[0] : &stations[1];
        stations[1].open += i < 3 ? 0 : 1;
        cr_assert_eq(pool_line_up(&pool, c[i]), 0, "each listener has a bound of its own");
    }
    static const size_t order[] = {0, 3, 1, 4, 2};
    for (size_t i = 0; i < 5; i++) {
        cr_assert(pool_has_ready(&pool));
        cr_assert_eq(pool_next(&pool), c[order[i]]);
    }
    cr_assert_not(pool_has_ready(&pool));
    cr_assert_null(pool_next(&pool));
}

Test(ready, whoever_is_late_is_found_in_every_line, .init = open_pool, .fini = close_pool)
{
    pool.station_count = 2;
    struct connection *early = connect_one(100);
    struct connection *late = connect_one(0);
    late->station = &stations[1];
    stations[1].open++;
    cr_assert_eq(pool_line_up(&pool, early), 0);
    cr_assert_eq(pool_line_up(&pool, late), 0);
    cr_assert_null(pool_next_late(&pool, DEADLINE_US));
    cr_assert_eq(pool_next_late(&pool, DEADLINE_US + 1), late);
    cr_assert_null(pool_next_late(&pool, DEADLINE_US + 1));
    cr_assert_eq(pool_next(&pool), early);
    cr_assert_null(pool_next(&pool));
}

Test(ready, those_in_the_line_take_no_room_from_those_that_come, .init = open_pool,
     .fini = close_pool)
{
    for (uint64_t i = 0; i < READY_MAX; i++) {
        cr_assert_eq(pool_line_up(&pool, connect_one(i)), 0);
    }
    for (uint64_t i = 0; i < CAP; i++) {
        (void)connect_silent(i);
    }
    cr_assert_str_eq(ended(), "nnnnnnn");
    (void)connect_silent(9);
    cr_assert_str_eq(ended(), "nnnynnnn");
    while (pool_next(&pool) != NULL) {
    }
}

Test(cap, an_idle_one_that_gives_way_is_answered_what_it_has_sent, .init = open_pool,
     .fini = close_pool)
{
    for (uint64_t i = 0; i < CAP; i++) {
        (void)connect_idle(i);
    }
    cr_assert_eq(send(peers[0], "x", 1, 0), 1);
    (void)connect_one(CAP);
    cr_assert_str_eq(ended(), "ynnnn");
    struct connection *c = connections[0];
    char byte = 0;
    pool_take(&pool, c, 9);
    cr_assert_eq(recv(c->fd, &byte, 1, MSG_DONTWAIT), 1, "it was on its way");
    cr_assert_eq(pool_leave(&pool, c), GUARD_NONE, "it may be answered");
    cr_assert_eq(send(c->fd, "y", 1, MSG_NOSIGNAL), 1);
    cr_assert_eq(recv(peers[0], &byte, 1, 0), 1);
    unsigned char buffer[16];
    enum guard_cause cause = GUARD_NONE;
    cr_assert_eq(connection_read(c, buffer, sizeof buffer, &cause), GUARD_BAD);
    cr_assert_eq(cause, GUARD_CROWDED, "then it is over, and why is known");
}

Test(ready, what_is_lined_up_is_ended_by_nobody, .init = open_pool, .fini = close_pool)
{
    struct connection *ready = connect_one(0);
    cr_assert_eq(pool_line_up(&pool, ready), 0);
    pool_sweep(&pool, (uint64_t)10 * DEADLINE_US);
    for (uint64_t i = 0; i <= CAP; i++) {
        (void)connect_silent(i);
    }
    cr_assert_str_eq(ended(), "nynnnn", "a silent one gave way");
    pool_drain(&pool);
    cr_assert_eq(ready->ended, GUARD_NONE);
    cr_assert_eq(pool_next(&pool), ready);
}

Test(drain, leaves_to_others_what_was_not_accepted_before, .init = open_pool, .fini = close_pool)
{
    enum guard_cause cause = GUARD_MEMORY;
    (void)connect_one(0);
    cr_assert_null(pool_accept(&pool, station, 1, &cause), "nobody waits");
    cr_assert_eq(pool_count(&pool), 1);
    const int late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(late, (struct sockaddr *)&address, address_len), 0);
    pool_drain(&pool);
    cr_assert_null(pool_accept(&pool, station, 2, &cause));
    cr_assert_eq(cause, GUARD_NONE);
    cr_assert_eq(pool_count(&pool), 1);
    const int taken = accept(station->fd, NULL, NULL);
    cr_assert_geq(taken, 0, "it waits for another one");
    (void)close(taken);
    (void)close(late);
}
