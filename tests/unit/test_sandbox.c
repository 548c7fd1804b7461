#include "serve/sandbox.h"

#include "deeds.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { CALLS_MAX = 1024, PATH_BYTES = 256, ACT_S = 10 };

static char dir[PATH_BYTES / 2];
static struct config config;
static struct config_site site;
static int *answer; /* of a child */
static bool have_landlock;

static char *path_of(const char *name)
{
    static char paths[8][PATH_BYTES];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, PATH_BYTES, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name)
{
    FILE *file = fopen(path_of(name), "w");
    cr_assert_not_null(file);
    (void)fputs("content\n", file);
    (void)fclose(file);
}

static void setup(void)
{
    static char state_dir[PATH_BYTES];
    static char keytab[PATH_BYTES];
    static char audit[PATH_BYTES];
    static const char *const dirs[] = {"log", "state", "etc", "conf"};
    static const char *const files[] = {"log/audit",  "state/replay", "etc/keytab",
                                        "etc/beside", "conf/one",     "conf/two"};
    (void)snprintf(dir, sizeof dir, "/tmp/spnegate-unit.XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        cr_assert_eq(mkdir(path_of(dirs[i]), 0755), 0);
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        write_file(files[i]);
    }
    site.keytab = strcpy(keytab, path_of("etc/keytab"));
    config.state_dir = strcpy(state_dir, path_of("state"));
    config.audit.file = strcpy(audit, path_of("log/audit"));
    config.sites.items = &site;
    config.sites.count = 1;
    have_landlock =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1;
    config.sandbox = have_landlock ? CONFIG_SANDBOX_REQUIRED : CONFIG_SANDBOX_BEST_EFFORT;
    char list[4 * PATH_BYTES];
    (void)snprintf(list, sizeof list, "%s:%s::%s:%s", path_of("none"), path_of("conf/one"),
                   path_of("etc"), path_of("conf/two"));
    (void)setenv("KRB5_CONFIG", list, 1);
    answer = mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)answer, MAP_FAILED);
}

static void teardown(void)
{
    char command[PATH_BYTES];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert_eq(system(command), 0);
    (void)munmap(answer, sizeof *answer);
}

TestSuite(sandbox, .init = setup, .fini = teardown);

/* What a sandboxed process says of `act`: its errno or 0, or the signal that ended it, negative. */
static int in_sandbox(int (*act)(const void *arg), const void *arg)
{
    int status = 0;
    *answer = ECHILD;
    const pid_t pid = fork();
    if (pid == 0) {
        struct fault missing;
        (void)alarm(ACT_S); /* without a sandbox, some acts would wait for ever */
        if (sandbox_worker(&config, &missing) != 0 ||
            (config.sandbox == CONFIG_SANDBOX_REQUIRED && missing.what[0] != '\0')) {
            (void)fprintf(stderr, "%s: %s\n", missing.where, missing.what);
            _exit(1);
        }
        *answer = act(arg);
        _exit(0);
    }
    cr_assert_gt(pid, 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        return -WTERMSIG(status);
    }
    cr_assert_eq(WEXITSTATUS(status), 0);
    return *answer;
}

static int commit(const void *deed)
{
    return deeds_commit(deed);
}

static void expect_deed(int expected, const char *name, const char *file)
{
    char deed[2 * PATH_BYTES];
    (void)snprintf(deed, sizeof deed, "%s%s%s", name, file != NULL ? " " : "",
                   file == NULL        ? ""
                   : file[0] == '/'    ? file
                   : strchr(file, '/') ? path_of(file)
                                       : file);
    const int outcome = in_sandbox(commit, deed);
    cr_expect_eq(outcome, expected, "%s: %d (%s), expected %d", deed, outcome,
                 outcome < 0 ? strsignal(-outcome) : strerror(outcome), expected);
}

Test(sandbox, files_out_of_reach)
{
    static const char *const paths[] = {"etc/keytab", "etc/beside", "state/replay", "/etc/passwd",
                                        "/proc/self/mem"};
    if (!have_landlock) {
        cr_skip("this kernel has no Landlock");
    }
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        expect_deed(EACCES, "read", paths[i]);
        expect_deed(EACCES, "append", paths[i]);
    }
    expect_deed(EACCES, "list", "state/.");
    expect_deed(EACCES, "create", "state/new");
    expect_deed(EACCES, "create", "etc/new");
    expect_deed(EACCES, "append", "conf/one");
}

Test(sandbox, files_within_reach)
{
    expect_deed(0, "read", "conf/one");
    expect_deed(0, "read", "conf/two");
    expect_deed(0, "read", "/dev/urandom");
    expect_deed(0, "list", "log/."); /* the file may have been renamed */
    expect_deed(0, "read", "log/audit");
    expect_deed(0, "append", "log/audit");
    expect_deed(EACCES, "create", "log/new"); /* which is the supervisor's business */
}

Test(sandbox, the_audit_file_only_grows)
{
    int fd = open(config.audit.file, O_WRONLY | O_APPEND);
    cr_assert_geq(fd, 0);
    expect_deed(EACCES, "overwrite", "log/audit");
    expect_deed(EACCES, "map-file", "log/audit");
    expect_deed(EACCES, "empty", "log/audit");
    expect_deed(EACCES, "empty-read", "log/audit");
    expect_deed(-SIGSYS, "remove", "log/audit");
    expect_deed(-SIGSYS, "cut-open-file", NULL);
    expect_deed(-SIGSYS, "stop-appending", NULL);
    (void)close(fd);
    struct stat st;
    cr_expect_eq(stat(config.audit.file, &st), 0);
    cr_expect_eq(st.st_size, (off_t)strlen("content\n"));
}

Test(sandbox, no_other_process_and_no_code)
{
    char parent[32];
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    expect_deed(-SIGSYS, "exec", "/bin/true");
    expect_deed(-SIGSYS, "fork", NULL);
    expect_deed(ENOSYS, "fork-by-clone3", NULL);
    expect_deed(-SIGSYS, "trace", parent);
    expect_deed(-SIGSYS, "read-memory", parent);
    expect_deed(-SIGSYS, "signal", parent);
    expect_deed(-SIGSYS, "signal-thread", parent);
    expect_deed(0, "signal-ourselves", NULL);
    expect_deed(EACCES, "map-code", NULL);
    expect_deed(-SIGSYS, "make-code", NULL);
    expect_deed(EPERM, "become-dumpable", NULL);
    expect_deed(ENOTTY, "type", NULL);
#ifdef __x86_64__
    expect_deed(-SIGSYS, "call-as-x32", NULL);
    /* SIGSYS, or SIGSEGV from a kernel that knows no 32-bit calls. */
    cr_expect_lt(in_sandbox(commit, "call-as-i386"), 0);
#endif
}

Test(sandbox, no_network)
{
    expect_deed(EACCES, "socket", NULL);
    expect_deed(-SIGSYS, "connect", "9");
    expect_deed(-SIGSYS, "send", "9");
    expect_deed(-SIGSYS, "attach-filter", NULL);
}

/* ---- Every number of a system call there may be */

static int call_with_nonsense(const void *number)
{
    const long nothing = -1;
    return syscall(*(const int *)number, nothing, nothing, nothing, nothing, nothing, nothing) < 0
               ? errno
               : 0;
}

/*
 * Those that a worker survives with arguments that mean nothing; what is looked at by its arguments
 * and refused for these is not among them.
 */
static const int survived[] = {
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_lseek,
    SYS_close,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_getdents64,
    SYS_dup3,
    SYS_flock,
    SYS_fdatasync,
    SYS_accept4,
    SYS_recvfrom,
    SYS_shutdown,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_ppoll,
    SYS_pselect6,
    SYS_pipe2,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_brk,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_munlock,
    SYS_futex,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_getpid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_uname,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_getcpu,
    SYS_openat,
    SYS_mmap,
    SYS_clone,
    SYS_clone3,
    SYS_socket,
    SYS_prctl,
    SYS_ioctl,
#ifdef SYS_poll
    SYS_poll,
    SYS_select,
    SYS_epoll_wait,
#endif
};

static bool is_survived(int number)
{
    for (size_t i = 0; i < sizeof survived / sizeof survived[0]; i++) {
        if (survived[i] == number) {
            return true;
        }
    }
    return false;
}

/* Linux lets no filter decide on its own probes' calls (uretprobe, uprobe). */
static bool is_unfiltered(int number)
{
#ifdef __x86_64__
    return number == 335 || number == 336;
#else
    return number < 0;
#endif
}

Test(sandbox, every_other_call_ends_the_worker, .timeout = 60)
{
    for (int number = 0; number < CALLS_MAX; number++) {
        /* These end a process for another reason. */
        if (number == SYS_rt_sigreturn || number == SYS_exit || number == SYS_exit_group ||
            is_unfiltered(number)) {
            continue;
        }
        const bool killed = in_sandbox(call_with_nonsense, &number) == -SIGSYS;
        cr_expect_neq(killed, is_survived(number), "system call %d", number);
    }
}

/* ---- What it depends on */

static int enter(struct fault *missing)
{
    int status = 0;
    struct fault *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)shared, MAP_FAILED);
    const pid_t pid = fork();
    if (pid == 0) {
        _exit(sandbox_worker(&config, shared));
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    *missing = *shared;
    (void)munmap(shared, sizeof *shared);
    return WEXITSTATUS(status);
}

Test(sandbox, nothing_secret_beside_the_audit_file)
{
    struct fault missing;
    if (!have_landlock) {
        cr_skip("this kernel has no Landlock");
    }
    config.audit.file = path_of("etc/audit");
    cr_expect_eq(enter(&missing), EX_CONFIG);
    cr_expect_not_null(strstr(missing.what, site.keytab), "%s", missing.what);
    config.audit.file = path_of("state/audit");
    cr_expect_eq(enter(&missing), EX_CONFIG);
    cr_expect_not_null(strstr(missing.what, config.state_dir), "%s", missing.what);
    config.audit.file = path_of("audit");
    cr_expect_eq(enter(&missing), EX_CONFIG);
    config.audit.file = path_of("stat/audit");
    cr_expect_eq(enter(&missing), 0, "%s", missing.what);
    static char at_the_top[] = "/audit";
    config.audit.file = at_the_top;
    cr_expect_eq(enter(&missing), EX_CONFIG);
    config.sandbox = CONFIG_SANDBOX_BEST_EFFORT;
    cr_expect_eq(enter(&missing), 0);
    cr_expect_not_null(strstr(missing.what, "directory of its own"), "%s", missing.what);
}

Test(sandbox, off_does_nothing_and_says_so)
{
    struct fault missing;
    config.sandbox = CONFIG_SANDBOX_OFF;
    cr_expect_eq(enter(&missing), 0);
    cr_expect_not_null(strstr(missing.what, "off"));
    expect_deed(0, "overwrite", "log/audit");
}

static int execute_as_supervisor(const void *arg)
{
    (void)arg;
    struct fault fault;
    return sandbox_supervisor(&config, &fault) != 0 ? ECHILD : deeds_commit("exec /bin/true");
}

Test(sandbox, the_supervisor_executes_nothing)
{
    int status = 0;
    if (!have_landlock) {
        cr_skip("this kernel has no Landlock");
    }
    const pid_t pid = fork();
    if (pid == 0) {
        _exit(execute_as_supervisor(NULL));
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(WEXITSTATUS(status), EACCES);
}
