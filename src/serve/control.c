#include "serve/control.h"

#include "base/log.h"
#include "serve/crew.h"
#include "serve/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    DEADLINE_MS = 2000, /* to ask, and to read the answer */
    REST_MS = 1000,     /* without accepting, when there are no descriptors */
};

struct peer {
    int fd; /* -1: nobody */
    uint64_t until_ms;
    char request[CONTROL_REQUEST_MAX];
    size_t request_len;
    struct buf answer;
    size_t sent;
};

struct control {
    struct config_listener listener; /* as it were one of the configuration's */
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    int fd;
    uint64_t rest_until_ms;
    struct peer peers[CONTROL_PEERS_MAX];
};

int control_open(const struct config *config, struct control **out, struct fault *fault)
{
    struct control *control = calloc(1, sizeof *control);
    if (control == NULL) {
        (void)fault_set(fault, config->runtime_dir, "no memory");
        return EX_OSERR;
    }
    int status = EX_CONFIG;
    control->fd = -1;
    control->listener = (struct config_listener){
        .kind = CONFIG_LISTEN_UNIX, .address = control->path, .mode = 0600};
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        control->peers[i].fd = -1;
        control->peers[i].answer.max = CONTROL_ANSWER_MAX;
    }
    if (snprintf(control->path, sizeof control->path, "%s/control.sock", config->runtime_dir) >=
        (int)sizeof control->path) {
        (void)fault_set(fault, config->runtime_dir, "is too long a path for a socket in it");
        goto out;
    }
    status = listener_open(&control->listener, &control->fd, fault);
    if (status == 0 && config->user != NULL && geteuid() == 0 &&
        lchown(control->path, config->uid, config->gid) != 0) {
        (void)fault_set(fault, control->path, "cannot be given to %s: %s", config->user,
                        strerror(errno));
        status = EX_CANTCREAT;
    }
    if (status == 0) {
        *out = control;
        return 0;
    }
out:
    control_close(control, control->fd >= 0);
    return status;
}

static void dismiss(struct peer *peer)
{
    if (peer->fd >= 0) {
        (void)close(peer->fd);
        peer->fd = -1;
    }
    buf_clear(&peer->answer); /* megabytes, perhaps: not kept for the next one */
    peer->request_len = 0;
    peer->sent = 0;
}

void control_close(struct control *control, bool unlink_path)
{
    if (control == NULL) {
        return;
    }
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        dismiss(&control->peers[i]);
    }
    if (unlink_path) {
        listener_unlink(&control->listener);
    }
    if (control->fd >= 0) {
        (void)close(control->fd);
    }
    free(control);
}

static struct peer *free_place(struct control *control)
{
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        if (control->peers[i].fd < 0) {
            return &control->peers[i];
        }
    }
    return NULL;
}

void control_poll(const struct control *control, struct pollfd fds[CONTROL_FDS])
{
    bool room = false;
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        const struct peer *peer = &control->peers[i];
        fds[1 + i] =
            (struct pollfd){.fd = peer->fd, .events = peer->answer.len > 0 ? POLLOUT : POLLIN};
        room = room || peer->fd < 0;
    }
    const bool accepts = room && crew_now_ms() >= control->rest_until_ms;
    fds[0] = (struct pollfd){.fd = accepts ? control->fd : -1, .events = POLLIN};
}

/* The socket's mode says the same; but whoever may change that is not asked here. */
static bool may_ask(int fd)
{
    struct ucred credentials;
    socklen_t len = sizeof credentials;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) == 0 &&
           (credentials.uid == 0 || credentials.uid == geteuid());
}

static void accept_peers(struct control *control, uint64_t now_ms)
{
    for (struct peer *peer = free_place(control); peer != NULL; peer = free_place(control)) {
        const int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                control->rest_until_ms = now_ms + REST_MS; /* it stays readable: no busy loop */
            }
            return;
        }
        if (may_ask(fd)) {
            peer->fd = fd;
            peer->until_ms = now_ms + DEADLINE_MS;
        } else {
            (void)close(fd);
        }
    }
}

static void send_answer(struct peer *peer)
{
    while (peer->sent < peer->answer.len) {
        const ssize_t n = send(peer->fd, peer->answer.ptr + peer->sent,
                               peer->answer.len - peer->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0 && errno != EINTR) {
            break;
        }
        peer->sent += n > 0 ? (size_t)n : 0;
    }
    dismiss(peer);
}

/* One line, and nothing behind it; what is no request is closed without an answer. */
static void read_request(struct peer *peer, const struct control_answers *answers)
{
    const ssize_t n = recv(peer->fd, peer->request + peer->request_len,
                           sizeof peer->request - peer->request_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    peer->request_len += n > 0 ? (size_t)n : 0;
    const struct span request = span_make(peer->request, peer->request_len);
    const unsigned char *lf = request.len > 0 ? memchr(request.ptr, '\n', request.len) : NULL;
    if (lf == NULL && n > 0 && request.len < sizeof peer->request) {
        return;
    }
    if (lf == NULL || lf + 1 != request.ptr + request.len ||
        !answers->append(answers->arg, span_make(request.ptr, request.len - 1), &peer->answer)) {
        dismiss(peer);
        return;
    }
    buf_append_byte(&peer->answer, '\n');
    if (peer->answer.failed) {
        log_line(LOG_LEVEL_ERROR, "no memory for an answer on the control socket");
        dismiss(peer);
        return;
    }
    send_answer(peer);
}

void control_serve(struct control *control, const struct pollfd fds[CONTROL_FDS],
                   const struct control_answers *answers)
{
    const uint64_t now_ms = crew_now_ms();
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        struct peer *peer = &control->peers[i];
        if (peer->fd < 0) {
            continue;
        }
        if (fds[1 + i].fd == peer->fd && fds[1 + i].revents != 0) {
            if (peer->answer.len > 0) {
                send_answer(peer);
            } else {
                read_request(peer, answers);
            }
        }
        if (peer->fd >= 0 && now_ms >= peer->until_ms) {
            dismiss(peer);
        }
    }
    if (fds[0].fd >= 0 && fds[0].revents != 0) {
        accept_peers(control, now_ms);
    }
}
