#include "cmd/view.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0) {
        return errno;
    }
    (void)close(fd);
    return 0;
}

static int try_path(enum view_want want, const char *path)
{
    switch (want) {
    case VIEW_READ:
        return try_open(path, O_RDONLY);
    case VIEW_APPEND:
        return try_open(path, O_WRONLY | O_APPEND | O_NOFOLLOW);
    case VIEW_WRITE_INTO:
        return faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
    }
    return EINVAL;
}

/* The first directory on the way to `path` that cannot be passed; "" when all can. */
static void find_stop(const char *path, char out[VIEW_PATH_BYTES])
{
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t len = (size_t)(slash - path);

        if (len >= VIEW_PATH_BYTES) {
            break;
        }
        memcpy(out, path, len);
        out[len] = '\0';
        if (faccessat(AT_FDCWD, out, X_OK, AT_EACCESS) != 0) {
            return;
        }
    }
    out[0] = '\0';
}

static void look(enum view_want want, const char *path, struct view *view)
{
    view->error = try_path(want, path);
    view->answer = view->error == 0 ? VIEW_GRANTED : VIEW_REFUSED;
    if (view->error != 0) {
        find_stop(path, view->stopped);
    }
}

static void write_view(int fd, const struct view *view)
{
    const char *bytes = (const char *)view;
    size_t left = sizeof *view;

    while (left > 0) {
        ssize_t len = write(fd, bytes, left);

        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len <= 0) {
            return;
        }
        bytes += len;
        left -= (size_t)len;
    }
}

static int read_view(int fd, struct view *view)
{
    char *bytes = (char *)view;
    size_t left = sizeof *view;

    while (left > 0) {
        ssize_t len = read(fd, bytes, left);

        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len <= 0) {
            return -1;
        }
        bytes += len;
        left -= (size_t)len;
    }
    return 0;
}

static int become(const struct config *config)
{
    return initgroups(config->user, config->gid) == 0 &&
                   setresgid(config->gid, config->gid, config->gid) == 0 &&
                   setresuid(config->uid, config->uid, config->uid) == 0
               ? 0
               : -1;
}

/* The child's life. */
static void look_as_user(const struct config *config, enum view_want want, const char *path, int fd)
{
    struct view view = {.answer = VIEW_UNKNOWN, .uid = config->uid};

    if (become(config) != 0) {
        view.error = errno;
    } else {
        look(want, path, &view);
    }
    write_view(fd, &view);
    _exit(0);
}

static int ask_child(const struct config *config, enum view_want want, const char *path,
                     struct view *out)
{
    struct view view = {.answer = VIEW_UNKNOWN};
    int ends[2] = {-1, -1};
    int result = -1;
    pid_t pid = -1;

    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -1;
    }
    pid = fork();
    if (pid == 0) {
        look_as_user(config, want, path, ends[1]);
    }
    (void)close(ends[1]);
    if (pid > 0) {
        result = read_view(ends[0], &view);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    (void)close(ends[0]);
    if (result == 0) {
        *out = view;
    }
    return result;
}

bool view_user(const struct config *config, uid_t *out)
{
    if (config->user == NULL && geteuid() == 0) {
        return false;
    }
    *out = config->user != NULL ? config->uid : geteuid();
    return true;
}

void view_try(const struct config *config, enum view_want want, const char *path, struct view *out)
{
    *out = (struct view){.answer = VIEW_UNKNOWN, .uid = geteuid()};
    if (config->user != NULL && geteuid() == 0) {
        out->uid = config->uid;
        if (ask_child(config, want, path, out) != 0) {
            out->error = errno != 0 ? errno : EIO;
        }
    } else if (config->user != NULL ? geteuid() == config->uid : geteuid() != 0) {
        look(want, path, out);
    } else {
        out->error = EPERM;
        out->uid = config->uid;
    }
}
