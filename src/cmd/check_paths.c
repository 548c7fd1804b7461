#include "cmd/check_paths.h"

#include "cmd/view.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The directory that a path lies in. */
static void parent_of(const char *path, char out[VIEW_PATH_BYTES])
{
    size_t len = (size_t)(strrchr(path, '/') - path);

    if (len == 0) {
        len = 1;
    }
    if (len >= VIEW_PATH_BYTES) {
        len = VIEW_PATH_BYTES - 1;
    }
    memcpy(out, path, len);
    out[len] = '\0';
}

/* Says whether the daemon's user may do `want`; `level` is for when it may not. */
static void check_view(struct report *report, const struct config *config, enum view_want want,
                       const char *path, enum report_level level)
{
    const char *verb = want == VIEW_WRITE_INTO ? "make files in" : "append to";
    char user[REPORT_ACCOUNT_BYTES];
    struct view view;

    view_try(config, want, path, &view);
    (void)report_user(view.uid, user);
    if (view.answer == VIEW_GRANTED) {
        report_line(report, REPORT_OK, "%s: %s can %s it", path, user, verb);
    } else if (view.answer == VIEW_REFUSED) {
        report_line(report, level, "%s: %s cannot %s it: %s%s%s", path, user, verb,
                    strerror(view.error), view.stopped[0] != '\0' ? ", at " : "", view.stopped);
    } else {
        report_line(report, REPORT_UNDECIDED,
                    "%s: whether the daemon's user can %s it is not known: %s", path, verb,
                    strerror(view.error));
    }
}

/* A directory that the daemon makes itself when it starts: its parent must be there. */
static void check_missing(struct report *report, const struct config *config, const char *what,
                          const char *path)
{
    char parent[VIEW_PATH_BYTES];
    struct stat st;

    parent_of(path, parent);
    if (stat(parent, &st) != 0 || !S_ISDIR(st.st_mode)) {
        report_line(report, REPORT_FINDING, "%s: %s is missing, and so is %s", what, path, parent);
    } else if (geteuid() == 0) {
        report_line(report, REPORT_OK, "%s: %s will be made at the start", what, path);
    } else {
        report_line(report, REPORT_OK, "%s: %s is missing; it can be made if so can files in %s",
                    what, path, parent);
        check_view(report, config, VIEW_WRITE_INTO, parent, REPORT_FINDING);
    }
}

/* True when the directory is there; else everything is said. */
static bool find_directory(struct report *report, const struct config *config, const char *what,
                           const char *path, struct stat *st)
{
    char user[REPORT_ACCOUNT_BYTES];
    char group[REPORT_ACCOUNT_BYTES];

    if (stat(path, st) != 0) {
        if (errno == ENOENT) {
            check_missing(report, config, what, path);
        } else {
            report_line(report, errno == EACCES ? REPORT_UNDECIDED : REPORT_FINDING, "%s: %s: %s",
                        what, path, strerror(errno));
        }
        return false;
    }
    if (!S_ISDIR(st->st_mode)) {
        report_line(report, REPORT_FINDING, "%s: %s is no directory", what, path);
        return false;
    }
    report_line(report, REPORT_OK, "%s: %s, owner %s, group %s, mode %04o", what, path,
                report_user(st->st_uid, user), report_group(st->st_gid, group),
                (unsigned)st->st_mode & 07777U);
    return true;
}

/* In such a directory anybody could put something else in the place of what is ours. */
static void check_sticky(struct report *report, const char *path, const struct stat *st)
{
    if ((st->st_mode & S_IWOTH) != 0 && (st->st_mode & S_ISVTX) == 0) {
        report_line(report, REPORT_FINDING, "%s: everybody may replace files in it; chmod o-w",
                    path);
    }
}

void check_directories(struct report *report, const struct config *config)
{
    struct stat st;

    if (find_directory(report, config, "runtime_dir", config->runtime_dir, &st)) {
        check_sticky(report, config->runtime_dir, &st);
        check_view(report, config, VIEW_WRITE_INTO, config->runtime_dir, REPORT_WARNING);
    }
    if (find_directory(report, config, "state_dir", config->state_dir, &st)) {
        char user[REPORT_ACCOUNT_BYTES];
        uid_t owner = st.st_uid;

        /* Without a known user the owner is taken as right: check_view has its say. */
        (void)view_user(config, &owner);
        if (st.st_uid != owner || (st.st_mode & 077) != 0) {
            report_line(report, REPORT_FINDING,
                        "state_dir: %s must belong to %s alone, with mode 0700", config->state_dir,
                        report_user(owner, user));
        }
        check_view(report, config, VIEW_WRITE_INTO, config->state_dir, REPORT_FINDING);
    }
}

/* Whether somebody answers at a socket: 1, 0, or -1 and errno when it cannot be told. */
static int is_answered(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;

    if (fd < 0) {
        return -1;
    }
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        error = errno;
    }
    (void)close(fd);
    /* EAGAIN: the backlog is full, so somebody has one. */
    if (error == 0 || error == EAGAIN) {
        return 1;
    }
    errno = error;
    return error == ECONNREFUSED ? 0 : -1;
}

static void check_socket(struct report *report, const char *path)
{
    struct stat st;
    int answered = 0;

    if (lstat(path, &st) != 0) {
        if (errno != ENOENT) {
            report_line(report, errno == EACCES ? REPORT_UNDECIDED : REPORT_FINDING, "unix %s: %s",
                        path, strerror(errno));
        }
        return;
    }
    if (!S_ISSOCK(st.st_mode)) {
        report_line(report, REPORT_FINDING,
                    "unix %s: there is something else than a socket; it would be left alone", path);
        return;
    }
    answered = is_answered(path);
    if (answered == 1) {
        report_line(report, REPORT_OK, "unix %s: in use: a daemon answers there", path);
    } else if (answered == 0) {
        report_line(report, REPORT_OK, "unix %s: a stale socket, which the start replaces", path);
    } else {
        report_line(report, REPORT_UNDECIDED, "unix %s: whether somebody answers is not known: %s",
                    path, strerror(errno));
    }
}

static void check_unix(struct report *report, const struct config *config,
                       const struct config_listener *listener)
{
    char group[REPORT_ACCOUNT_BYTES] = "as it comes";
    char parent[VIEW_PATH_BYTES];
    struct stat st;

    if (listener->has_group) {
        (void)report_group(listener->gid, group);
    }
    report_line(report, REPORT_OK, "unix %s: group %s, mode %04o", listener->address, group,
                (unsigned)listener->mode);
    if ((listener->mode & S_IWOTH) != 0 && !listener->peers.limited) {
        report_line(report, REPORT_WARNING,
                    "unix %s: everybody on this machine may connect; list the web server's user in "
                    "`peers`",
                    listener->address);
    }
    parent_of(listener->address, parent);
    if (stat(parent, &st) == 0 && S_ISDIR(st.st_mode)) {
        check_sticky(report, parent, &st);
        check_socket(report, listener->address);
        if (geteuid() != 0) {
            check_view(report, config, VIEW_WRITE_INTO, parent, REPORT_FINDING);
        }
    } else if (strcmp(parent, config->runtime_dir) != 0) {
        report_line(report, REPORT_FINDING, "unix %s: the directory %s is missing",
                    listener->address, parent);
    }
}

static int try_bind(const struct config_listener *listener)
{
    const int on = 1;
    int error = 0;
    int fd = socket(listener->sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (listener->sockaddr.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) ||
        bind(fd, (const struct sockaddr *)&listener->sockaddr, listener->sockaddr_len) != 0) {
        error = errno;
    }
    (void)close(fd);
    return error;
}

static void check_tcp(struct report *report, const struct config_listener *listener)
{
    int error = try_bind(listener);

    if (error == 0) {
        report_line(report, REPORT_OK, "tcp %s: free", listener->address);
    } else if (error == EADDRINUSE) {
        report_line(report, REPORT_OK,
                    "tcp %s: in use, by the running daemon or by another program",
                    listener->address);
    } else if (error == EACCES) {
        report_line(report, REPORT_UNDECIDED, "tcp %s: only root can tell whether it can be bound",
                    listener->address);
    } else {
        report_line(report, REPORT_FINDING, "tcp %s: cannot be bound: %s", listener->address,
                    strerror(error));
    }
}

void check_listeners(struct report *report, const struct config *config)
{
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct config_listener *listener = &config->listeners.items[i];

        if (listener->kind == CONFIG_LISTEN_UNIX) {
            check_unix(report, config, listener);
        } else if (listener->kind == CONFIG_LISTEN_TCP) {
            check_tcp(report, listener);
        } else {
            report_line(report, REPORT_OK, "socket %s: passed by the service manager at the start",
                        listener->address);
        }
    }
}

static void check_audit_file(struct report *report, const struct config *config,
                             const struct stat *st)
{
    const char *path = config->audit.file;
    char user[REPORT_ACCOUNT_BYTES];
    char group[REPORT_ACCOUNT_BYTES];

    if (S_ISLNK(st->st_mode)) {
        report_line(report, REPORT_FINDING, "audit: %s is a symbolic link, which is not followed",
                    path);
        return;
    }
    if (!S_ISREG(st->st_mode)) {
        report_line(report, REPORT_FINDING, "audit: %s is no regular file", path);
        return;
    }
    report_line(report, REPORT_OK, "audit: %s, owner %s, group %s, mode %04o", path,
                report_user(st->st_uid, user), report_group(st->st_gid, group),
                (unsigned)st->st_mode & 07777U);
    if ((st->st_mode & S_IWOTH) != 0) {
        report_line(report, REPORT_FINDING, "audit: %s may be written by everybody; chmod o-w",
                    path);
    }
    if ((st->st_mode & S_IROTH) != 0) {
        report_line(report, REPORT_WARNING,
                    "audit: %s may be read by everybody: it says who went where", path);
    }
    check_view(report, config, VIEW_APPEND, path, REPORT_FINDING);
}

/* Without a sandbox it is no obstacle. */
static void check_audit_dir(struct report *report, const struct config *config)
{
    const enum report_level level =
        config->sandbox == CONFIG_SANDBOX_REQUIRED ? REPORT_FINDING : REPORT_WARNING;
    char dir[VIEW_PATH_BYTES];
    struct fault fault = {"", ""};

    if (config_audit_dir(config, dir, sizeof dir, &fault) != 0) {
        report_line(report, level, "audit: %s %s", fault.where, fault.what);
    }
}

void check_audit(struct report *report, const struct config *config)
{
    char parent[VIEW_PATH_BYTES];
    struct stat st;

    check_audit_dir(report, config);
    parent_of(config->audit.file, parent);
    if (!find_directory(report, config, "audit", parent, &st)) {
        return;
    }
    check_sticky(report, parent, &st);
    if (lstat(config->audit.file, &st) == 0) {
        check_audit_file(report, config, &st);
    } else if (errno == ENOENT) {
        report_line(report, REPORT_OK, "audit: %s will be made", config->audit.file);
        check_view(report, config, VIEW_WRITE_INTO, parent, REPORT_FINDING);
    } else {
        report_line(report, errno == EACCES ? REPORT_UNDECIDED : REPORT_FINDING, "audit: %s: %s",
                    config->audit.file, strerror(errno));
    }
}
