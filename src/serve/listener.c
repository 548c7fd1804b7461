#include "serve/listener.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

/*
 * SYNs and connects that wait while all threads are busy; the kernel caps it by net.core.somaxconn.
 */
enum { BACKLOG = 1024, PASSED_FIRST = 3, PASSED_MAX = 256 };

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

/* A socket for both families calls its IPv4 peers by addresses of IPv6: as what they are. */
static struct sockaddr_storage unmapped(const struct sockaddr_storage *address)
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    if (address->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        return *address;
    }
    struct sockaddr_storage plain = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&plain;
    v4->sin_family = AF_INET;
    v4->sin_port = v6->sin6_port;
    memcpy(&v4->sin_addr, &v6->sin6_addr.s6_addr[12], sizeof v4->sin_addr);
    return plain;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_storage plain = unmapped(address);
    if (plain.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&plain;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&plain;
    return plain.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* What the service manager passes: descriptors from PASSED_FIRST on, one name each. */
struct passed {
    unsigned count;      /* 0: none for this process */
    const char *names;   /* "lighttpd:apache" */
    const char *nothing; /* why there are none, behind a message */
};

/* A decimal number without sign or blanks, from 1 to `most`; 0 for anything else. */
static unsigned read_count(const char *text, unsigned most)
{
    unsigned value = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || value > most) {
            return 0;
        }
        value = value * 10 + (unsigned)(*p - '0');
    }
    return value <= most ? value : 0;
}

static int read_passed(const char *where, struct passed *out, struct fault *fault)
{
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    if (pid == NULL || count == NULL) {
        *out = (struct passed){0, "", ": nothing was (LISTEN_FDS)"};
        return 0;
    }
    if (read_count(pid, INT_MAX) != (unsigned)getpid()) {
        *out = (struct passed){0, "", ": what was is for another process (LISTEN_PID)"};
        return 0;
    }
    const struct passed passed = {read_count(count, PASSED_MAX), names != NULL ? names : "", ""};
    unsigned named = names != NULL ? 1 : 0;
    for (const char *p = passed.names; *p != '\0'; p++) {
        named += *p == ':' ? 1 : 0;
    }
    if (passed.count == 0) {
        (void)fault_set(fault, where, "LISTEN_FDS is \"%.32s\", not a number from 1 to %d", count,
                        PASSED_MAX);
        return EX_CONFIG;
    }
    if (named != passed.count) {
        (void)fault_set(fault, where, "LISTEN_FDS passes %u descriptors, LISTEN_FDNAMES names %u",
                        passed.count, named);
        return EX_CONFIG;
    }
    *out = passed;
    return 0;
}

unsigned listener_passed(void)
{
    struct passed passed;
    struct fault fault;
    return read_passed("", &passed, &fault) == 0 ? passed.count : 0;
}

/* The name of the `at`-th passed descriptor. */
static struct span passed_name(const struct passed *passed, unsigned at)
{
    const char *p = passed->names;
    for (unsigned i = 0; i < at; i++) {
        p = strchr(p, ':') + 1;
    }
    return span_make(p, strcspn(p, ":"));
}

/* Whether what was passed is a socket that we can accept from, by the rules of its listener. */
static int check_passed(const struct config_listener *config, int fd, struct fault *fault)
{
    const char *complaint = NULL;
    struct sockaddr_storage address = {0};
    socklen_t address_len = sizeof address;
    int kind = 0;
    int accepting = 0;
    socklen_t kind_len = sizeof kind;
    socklen_t accepting_len = sizeof accepting;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &kind_len) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &address_len) != 0) {
        complaint = "is no open socket";
    } else if (kind != SOCK_STREAM) {
        complaint = "is no stream socket";
    } else if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &accepting_len) != 0 ||
               accepting == 0) {
        complaint = "does not listen (Accept=yes passes connections, which are not served)";
    } else if (address.ss_family == AF_UNIX) {
        complaint =
            config->allow_remote.count > 0 ? "is a unix socket; `allow_remote` is for TCP" : NULL;
    } else if (address.ss_family != AF_INET && address.ss_family != AF_INET6) {
        complaint = "is neither a unix nor a TCP socket";
    } else if (config->peers.limited) {
        complaint = "is a TCP socket; `peers` is for unix sockets";
    } else if (config->allow_remote.count == 0 && !is_loopback(&address)) {
        complaint = "is bound to more than a loopback address; list who may connect in "
                    "`allow_remote`";
    }
    if (complaint != NULL) {
        (void)fault_set(fault, config->where, "socket: descriptor %d, passed as \"%s\", %s", fd,
                        config->address, complaint);
        return EX_CONFIG;
    }
    return 0;
}

/* The descriptor that was passed under the listener's name. */
static int find_passed(const struct config_listener *config, int *fd, struct fault *fault)
{
    struct passed passed;
    int found = -1;
    const int status = read_passed(config->where, &passed, fault);
    if (status != 0) {
        return status;
    }
    for (unsigned i = 0; i < passed.count; i++) {
        if (!span_equal(passed_name(&passed, i), span_of(config->address))) {
            continue;
        }
        if (found >= 0) {
            (void)fault_set(fault, config->where,
                            "socket: two descriptors were passed as \"%s\"; give each a "
                            "FileDescriptorName of its own",
                            config->address);
            return EX_CONFIG;
        }
        found = PASSED_FIRST + (int)i;
    }
    if (found < 0) {
        (void)fault_set(fault, config->where, "socket: no descriptor was passed as \"%s\"%s",
                        config->address, passed.count > 0 ? "" : passed.nothing);
        return EX_CONFIG;
    }
    *fd = found;
    return 0;
}

static int open_passed(const struct config_listener *config, int *fd, struct fault *fault)
{
    int found = -1;
    int status = find_passed(config, &found, fault);
    status = status != 0 ? status : check_passed(config, found, fault);
    if (status != 0) {
        return status;
    }
    const int flags = fcntl(found, F_GETFL);
    if (flags < 0 || fcntl(found, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(found, F_SETFD, FD_CLOEXEC) != 0) {
        return fault_errno(fault, config->where, "the passed socket cannot be set up", EX_OSERR);
    }
    *fd = found;
    return 0;
}

int listener_check_passed(const struct config *config, struct fault *fault)
{
    const char *where = config->listeners.items[0].where;
    struct passed passed;
    int status = read_passed(where, &passed, fault);
    for (unsigned i = 0; status == 0 && i < passed.count; i++) {
        const struct span name = passed_name(&passed, i);
        bool taken = false;
        for (size_t j = 0; j < config->listeners.count; j++) {
            const struct config_listener *listener = &config->listeners.items[j];
            taken = taken || (listener->kind == CONFIG_LISTEN_FD &&
                              span_equal(name, span_of(listener->address)));
        }
        if (!taken) {
            char quoted[128];
            (void)fault_set(fault, where,
                            "listen: descriptor %u was passed as %s, and no listener has that "
                            "name as `socket`",
                            PASSED_FIRST + i, log_quote(name, quoted, sizeof quoted));
            status = EX_CONFIG;
        }
    }
    return status;
}

void listener_forget_passed(void)
{
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
}

int listener_open(const struct config_listener *config, int *fd, struct fault *fault)
{
    if (config->kind == CONFIG_LISTEN_FD) {
        return open_passed(config, fd, fault);
    }
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

static bool admits_address(const struct config_listener *config,
                           const struct sockaddr_storage *peer)
{
    if (is_loopback(peer)) {
        return true;
    }
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_storage plain = unmapped(peer);
    const void *address = plain.ss_family == AF_INET
                              ? (const void *)&((const struct sockaddr_in *)&plain)->sin_addr
                              : (const void *)&((const struct sockaddr_in6 *)&plain)->sin6_addr;
    if (inet_ntop(plain.ss_family, address, text, sizeof text) == NULL) {
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
