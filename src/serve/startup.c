#include "serve/startup.h"

#include "base/secret.h"
#include "serve/listener.h"
#include "serve/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

/* Descriptors 0 to 2 and those passed must be something, or the next file opened would take their
 * place. */
static int hold_descriptors(void)
{
    const int last = STDERR_FILENO + (int)listener_passed();
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= last) {
        fd = open("/dev/null", O_RDWR);
    }
    return fd < 0 ? -1 : close(fd);
}

static void set_limits(void)
{
    struct rlimit files;
    const struct rlimit none = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* with fewer, connections give way earlier */
    }
    (void)setrlimit(RLIMIT_CORE, &none); /* a dump would hold keys */
}

int startup_prepare(void)
{
    if (hold_descriptors() != 0 || secret_init() != 0) {
        return -1;
    }
    set_limits();
    return 0;
}

/* Makes a directory of ours if it is missing; one that is there must be a directory. */
static int ensure_directory(const char *path, mode_t mode, const struct config *config,
                            struct fault *fault)
{
    struct stat st;
    if (mkdir(path, mode) == 0) {
        const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        const bool give = config->user != NULL && geteuid() == 0;
        if (fd < 0 || fchmod(fd, mode) != 0 ||
            (give && fchown(fd, config->uid, config->gid) != 0)) {
            (void)fault_set(fault, path, "owner or mode cannot be set: %s", strerror(errno));
            if (fd >= 0) {
                (void)close(fd);
            }
            return EX_CANTCREAT;
        }
        return close(fd) == 0 ? 0 : EX_IOERR;
    }
    if (errno != EEXIST) {
        (void)fault_set(fault, path, "the directory cannot be made: %s", strerror(errno));
        return EX_CANTCREAT;
    }
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        (void)fault_set(fault, path, "is there and is no directory");
        return EX_CANTCREAT;
    }
    return 0;
}

int startup_make_state_dir(const struct config *config, struct fault *fault)
{
    return ensure_directory(config->state_dir, 0700, config, fault);
}

static int ensure_directories(const struct config *config, struct fault *fault)
{
    char log_dir[512];
    const char *slash = strrchr(config->audit.file, '/');
    int status = ensure_directory(config->runtime_dir, 0755, config, fault);
    status = status != 0 ? status : startup_make_state_dir(config, fault);
    if (status == 0 && slash != NULL && slash != config->audit.file &&
        span_copy(span_make(config->audit.file, (size_t)(slash - config->audit.file)), log_dir,
                  sizeof log_dir) == 0) {
        status = ensure_directory(log_dir, 0750, config, fault);
    }
    return status;
}

static int become_user(const struct config *config, struct fault *fault)
{
    if (config->user == NULL) {
        if (geteuid() == 0) {
            (void)fault_set(fault, config->path,
                            "user: is missing; started as root, one must be named (root, too)");
            return EX_CONFIG;
        }
        return 0;
    }
    uid_t uids[3];
    gid_t gids[3];
    if (getresuid(&uids[0], &uids[1], &uids[2]) == 0 &&
        getresgid(&gids[0], &gids[1], &gids[2]) == 0 && config->uid != 0 &&
        uids[0] == config->uid && uids[1] == config->uid && uids[2] == config->uid &&
        gids[0] == config->gid && gids[1] == config->gid && gids[2] == config->gid) {
        return 0; /* we are this user already, and cannot be another one again */
    }
    if (initgroups(config->user, config->gid) != 0 ||
        setresgid(config->gid, config->gid, config->gid) != 0 ||
        setresuid(config->uid, config->uid, config->uid) != 0) {
        (void)fault_set(fault, config->path, "user: cannot become %s: %s", config->user,
                        strerror(errno));
        return EX_NOPERM;
    }
    return 0;
}

/* One daemon a state_dir. The directory must be nobody else's to read: it holds keys. */
static int lock_state(const struct config *config, int *lock, struct fault *fault)
{
    char path[512];
    struct stat st;
    if (stat(config->state_dir, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        (void)fault_set(fault, config->state_dir, "must belong to uid %ld alone, with mode 0700",
                        (long)geteuid());
        return EX_NOPERM;
    }
    if (snprintf(path, sizeof path, "%s/lock", config->state_dir) >= (int)sizeof path) {
        (void)fault_set(fault, config->state_dir, "the path is too long");
        return EX_CONFIG;
    }
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*lock < 0) {
        (void)fault_set(fault, path, "cannot be opened: %s", strerror(errno));
        return EX_CANTCREAT;
    }
    if (flock(*lock, LOCK_EX | LOCK_NB) != 0) {
        (void)fault_set(fault, path, "another spnegate runs on this state_dir");
        return EX_TEMPFAIL;
    }
    return 0;
}

static int open_shared(const struct supervise_options *run, struct startup *out,
                       const struct config *config, struct fault *fault)
{
    const struct audit_options options = {.file = config->audit.file,
                                          .state_dir = config->state_dir,
                                          .mode = config->audit.mode,
                                          .commit = config->audit.sync == CONFIG_SYNC_COMMIT,
                                          .accept_gap = run->accept_audit_gap,
                                          .node = NULL,
                                          .version = run->version};
    if (replay_open(config->state_dir, config->replay_entries, &out->replay, fault) != 0) {
        return EX_CANTCREAT;
    }
    out->metrics = metrics_open();
    out->budget = budget_open(METRICS_SITE_COUNT);
    if (out->metrics == NULL || out->budget == NULL) {
        (void)fault_set(fault, "", "no shared memory");
        return EX_OSERR;
    }
    if (audit_open(&options, (uid_t)-1, (gid_t)-1, &out->audit, fault) != 0) {
        return errno == EWOULDBLOCK ? EX_TEMPFAIL : EX_IOERR;
    }
    return 0;
}

int startup_run(const struct supervise_options *options, struct startup *out, struct fault *fault)
{
    const char *config_path = options->config_path;
    struct config *config = NULL;
    *out = (struct startup){.lock = -1};
    if (config_load(config_path, &config, fault) != 0) {
        return access(config_path, F_OK) != 0 && errno == ENOENT ? EX_NOINPUT : EX_CONFIG;
    }
    int status = ensure_directories(config, fault);
    config_free(config);
    status = status != 0 ? status : generation_open(config_path, NULL, &out->generation, fault);
    if (status != 0) {
        return status;
    }
    const struct config *loaded = out->generation->config;
    status = control_open(loaded, &out->control, fault);
    status = status != 0 ? status : become_user(loaded, fault);
    if (status == 0 && sandbox_supervisor(loaded, fault) != 0) {
        status = EX_OSERR;
    }
    status = status != 0 ? status : lock_state(loaded, &out->lock, fault);
    status = status != 0 ? status : open_shared(options, out, loaded, fault);
    if (status == 0 && generation_load_files(out->generation, false, fault) != 0) {
        status = EX_NOINPUT;
    }
    return status;
}
