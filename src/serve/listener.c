#include "serve/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

/*
 * SYNs and connects that wait while all threads are busy; the kernel caps it by net.core.somaxconn.
 */
enum { BACKLOG = 1024 };

static int fault_errno(struct fault *fault, const char *where, const char *what, int status)
{
    const int error = errno;
    (void)fault_set(fault, where, "%s: %s", what, strerror(error));
    return error == EACCES || error == EPERM ? EX_NOPERM : status;
}

static void fill_address(const char *path, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(address->sun_path, sizeof address->sun_path, "%s", path);
}

/* Makes room at the path: only a socket that nobody answers on any more is removed. */
static int clear_path(const char *path, const struct sockaddr_un *address, struct fault *fault)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : fault_errno(fault, path, "cannot be looked at", EX_CANTCREAT);
    }
    if (!S_ISSOCK(st.st_mode)) {
        (void)fault_set(fault, path, "is there already and is no socket; it is left alone");
        return EX_CANTCREAT;
    }
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return fault_errno(fault, path, "no socket can be made", EX_OSERR);
    }
    const int connected = connect(probe, (const struct sockaddr *)address, sizeof *address);
    const int error = errno;
    (void)close(probe);
    /* EAGAIN: its backlog is full, so somebody listens. */
    if (connected == 0 || error == EAGAIN) {
        (void)fault_set(fault, path, "another process serves this socket");
        return EX_TEMPFAIL;
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return fault_errno(fault, path, "the stale socket cannot be removed", EX_CANTCREAT);
    }
    return 0;
}

static int bind_unix(const struct config_listener *config, int fd, struct fault *fault)
{
    const char *path = config->address;
    struct sockaddr_un address;
    fill_address(path, &address);
    const int cleared = clear_path(path, &address, fault);
    if (cleared != 0) {
        return cleared;
    }
    /*
     * The socket is born with its mode (Linux heeds the umask), so that nobody who owns the
     * directory can have something else put in its place between making it and a chmod.
     */
    const mode_t before = umask(0777 & ~config->mode);
    const int bound = bind(fd, (const struct sockaddr *)&address, sizeof address);
    const int error = errno;
    (void)umask(before);
    errno = error;
    if (bound != 0) {
        return fault_errno(fault, path, "the socket cannot be made", EX_CANTCREAT);
    }
    if (config->has_group && lchown(path, (uid_t)-1, config->gid) != 0) {
        const int status = fault_errno(fault, path, "the group cannot be set", EX_CANTCREAT);
        (void)unlink(path);
        return status;
    }
    return 0;
}

static int bind_tcp(const struct config_listener *config, int fd, struct fault *fault)
{
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (config->sockaddr.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)) {
        return fault_errno(fault, config->address, "socket options cannot be set", EX_OSERR);
    }
    if (bind(fd, (const struct sockaddr *)&config->sockaddr, config->sockaddr_len) != 0) {
        const bool taken = errno == EADDRINUSE;
        return fault_errno(fault, config->address, "the address cannot be bound",
                           taken ? EX_TEMPFAIL : EX_CANTCREAT);
    }
    return 0;
}

int listener_open(const struct config_listener *config, int *fd, struct fault *fault)
{
    const bool is_unix = config->kind == CONFIG_LISTEN_UNIX;
    const int family = is_unix ? AF_UNIX : config->sockaddr.ss_family;
    const int made = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0) {
        return fault_errno(fault, config->address, "no socket can be made", EX_OSERR);
    }
    int status = is_unix ? bind_unix(config, made, fault) : bind_tcp(config, made, fault);
    if (status == 0 && listen(made, BACKLOG) != 0) {
        status = fault_errno(fault, config->address, "the socket cannot listen", EX_CANTCREAT);
    }
    if (status != 0) {
        (void)close(made);
        return status;
    }
    *fd = made;
    return 0;
}

void listener_unlink(const struct config_listener *config)
{
    struct stat st;
    if (config->kind == CONFIG_LISTEN_UNIX && lstat(config->address, &st) == 0 &&
        S_ISSOCK(st.st_mode)) {
        (void)unlink(config->address); /* without the right to, it is found stale next time */
    }
}

bool listener_equal(const struct config_listener *a, const struct config_listener *b)
{
    return a->kind == b->kind && strcmp(a->address, b->address) == 0 && a->mode == b->mode &&
           a->has_group == b->has_group && (!a->has_group || a->gid == b->gid);
}

bool listener_inherited(void)
{
    int accepting = 0;
    socklen_t len = sizeof accepting;
    if (getsockopt(STDIN_FILENO, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &len) != 0 ||
        accepting == 0) {
        return false;
    }
    const int flags = fcntl(STDIN_FILENO, F_GETFL);
    return flags >= 0 && fcntl(STDIN_FILENO, F_SETFL, flags | O_NONBLOCK) == 0;
}

static bool is_loopback(const struct sockaddr_storage *peer)
{
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;
    return peer->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static bool admits_address(const struct config_listener *config,
                           const struct sockaddr_storage *peer)
{
    if (is_loopback(peer)) {
        return true;
    }
    char text[INET6_ADDRSTRLEN] = "";
    const void *address = peer->ss_family == AF_INET
                              ? (const void *)&((const struct sockaddr_in *)peer)->sin_addr
                              : (const void *)&((const struct sockaddr_in6 *)peer)->sin6_addr;
    if (inet_ntop(peer->ss_family, address, text, sizeof text) == NULL) {
        return false;
    }
    for (size_t i = 0; i < config->allow_remote.count; i++) {
        if (strcmp(config->allow_remote.items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

bool listener_admits(const struct config_listener *config, int fd,
                     const struct sockaddr_storage *peer)
{
    if (peer->ss_family == AF_INET || peer->ss_family == AF_INET6) {
        return admits_address(config, peer);
    }
    if (!config->peers.limited) {
        return true;
    }
    struct ucred credentials;
    socklen_t len = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) != 0) {
        return false;
    }
    for (size_t i = 0; i < config->peers.count; i++) {
        if (config->peers.uids[i] == credentials.uid) {
            return true;
        }
    }
    return false;
}

bool listener_waits(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0;
}
