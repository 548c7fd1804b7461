#include "serve/notify.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int send_text(const struct notify *n, const char *text)
{
    if (n->fd < 0) {
        return 0;
    }
    const ssize_t sent = sendto(n->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
                                (const struct sockaddr *)&n->address, n->address_len);
    return sent == (ssize_t)strlen(text) ? 0 : -1;
}

/* A state takes the place of one before it that did not get through: the manager missed nothing
 * that still is so. */
static void send_state(struct notify *n, const char *state)
{
    if (n->ended) {
        return;
    }
    (void)snprintf(n->unsent, sizeof n->unsent, "%s", state);
    if (send_text(n, n->unsent) == 0) {
        n->unsent[0] = '\0';
    }
}

/* The manager takes lines of UTF-8; a file's name in a fault may be neither. */
static void make_printable(char *text)
{
    for (char *p = text; *p != '\0'; p++) {
        if (*p < 0x20 || *p >= 0x7f) {
            *p = '?';
        }
    }
}

static void send_status(struct notify *n, char sentence[NOTIFY_STATUS_BYTES])
{
    char text[NOTIFY_STATUS_BYTES + sizeof "STATUS="];
    make_printable(sentence);
    if (strcmp(sentence, n->status) == 0) {
        return;
    }
    (void)snprintf(text, sizeof text, "STATUS=%s", sentence);
    if (send_text(n, text) == 0) {
        (void)snprintf(n->status, sizeof n->status, "%s", sentence);
    }
}

/* A path, or @ and a name in the abstract namespace. */
static int read_address(const char *text, struct notify *n)
{
    const size_t len = strlen(text);
    if ((text[0] != '/' && text[0] != '@') || len < 2 || len >= sizeof n->address.sun_path) {
        return -1;
    }
    n->address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(n->address.sun_path, text, len);
    n->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (text[0] == '@') {
        n->address.sun_path[0] = '\0';
    }
    return 0;
}

/* Half of WATCHDOG_USEC in milliseconds, if it is meant for us; else 0. */
static uint64_t read_watchdog(const char *usec, const char *pid)
{
    char *end = NULL;
    if (usec == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid())) {
        return 0;
    }
    const unsigned long long value = strtoull(usec, &end, 10);
    return *usec >= '0' && *usec <= '9' && *end == '\0' ? value / 2000 : 0;
}

void notify_open(struct notify *n)
{
    const char *address = getenv("NOTIFY_SOCKET");
    *n = (struct notify){.fd = -1};
    n->watchdog_ms = read_watchdog(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
    if (address != NULL && read_address(address, n) == 0) {
        n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    if (address != NULL && n->fd < 0) {
        log_line(LOG_LEVEL_WARNING,
                 "the service manager is told nothing: NOTIFY_SOCKET=%s cannot be used", address);
    }
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
}

void notify_close(struct notify *n)
{
    if (n->fd >= 0) {
        (void)close(n->fd);
        n->fd = -1;
    }
}

void notify_ready(struct notify *n)
{
    n->refused[0] = '\0';
    send_state(n, "READY=1");
}

void notify_reloading(struct notify *n)
{
    char text[sizeof n->unsent];
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)now.tv_sec * 1000000 +
                       (unsigned long long)now.tv_nsec / 1000);
    send_state(n, text);
}

void notify_refused(struct notify *n, const char *reason)
{
    (void)snprintf(n->refused, sizeof n->refused, "%s", reason);
    send_state(n, "READY=1");
}

void notify_stopping(struct notify *n)
{
    char sentence[NOTIFY_STATUS_BYTES] = "stopping: what is under way is finished";
    send_state(n, "STOPPING=1");
    send_status(n, sentence);
    n->ended = true;
}

void notify_failed(struct notify *n, const char *where, const char *what)
{
    char sentence[NOTIFY_STATUS_BYTES];
    (void)snprintf(sentence, sizeof sentence, "not started: %s%s%s", where,
                   where[0] != '\0' ? ": " : "", what);
    send_status(n, sentence);
}

static void feed_watchdog(struct notify *n, uint64_t now_ms, uint64_t pulse)
{
    if (n->watchdog_ms == 0 || now_ms - n->fed_ms < n->watchdog_ms || pulse == n->pulse) {
        return;
    }
    if (send_text(n, "WATCHDOG=1") == 0) {
        n->fed_ms = now_ms;
        n->pulse = pulse;
    }
}

void notify_tick(struct notify *n, uint64_t now_ms, const struct notify_facts *facts)
{
    char sentence[NOTIFY_STATUS_BYTES];
    if (n->unsent[0] != '\0' && send_text(n, n->unsent) == 0) {
        n->unsent[0] = '\0';
    }
    if (n->fd < 0 || n->ended || facts == NULL) {
        return;
    }
    (void)snprintf(sentence, sizeof sentence, "%s%s%s%zu sites, %u of %u workers, audit %s%s",
                   n->refused[0] != '\0' ? "reload refused: " : "", n->refused,
                   n->refused[0] != '\0' ? "; " : "", facts->sites, facts->workers, facts->wanted,
                   facts->audit_error == 0 ? "ok" : "cannot be written: ",
                   facts->audit_error == 0 ? "" : strerror(facts->audit_error));
    send_status(n, sentence);
    feed_watchdog(n, now_ms, facts->pulse);
}
