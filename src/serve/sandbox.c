#include "serve/sandbox.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#else
#define ARCHITECTURE 0 /* nobody has looked at its system calls yet */
#endif

enum { PATH_BYTES = 512, FILTER_MAX = 512, TESTS_MAX = 2 };

/* ---- Files: Landlock */

/* The kernel's attributes of a ruleset; headers may be older than the kernel, which takes zeros for
 * what it does not know. */
struct ruleset {
    uint64_t files;
    uint64_t net;
    uint64_t scoped;
};

/* Everything that a version of the interface can refuse. */
static struct ruleset refuse_all(int abi)
{
    const uint64_t first = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
    const uint64_t refer = UINT64_C(1) << 13;
    const uint64_t truncate = UINT64_C(1) << 14;
    const uint64_t ioctl_dev = UINT64_C(1) << 15;
    const uint64_t bind_and_connect_tcp = 3;
    const uint64_t abstract_unix_socket_and_signal = 3;
    struct ruleset all = {.files = first};
    all.files |= abi >= 2 ? refer : 0;
    all.files |= abi >= 3 ? truncate : 0;
    all.net = abi >= 4 ? bind_and_connect_tcp : 0;
    all.files |= abi >= 5 ? ioctl_dev : 0;
    all.scoped = abi >= 6 ? abstract_unix_socket_and_signal : 0;
    return all;
}

/* The kernel's version of the interface; -1 and errno: it has none. */
static int landlock_abi(void)
{
    return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

/* What is not there, or not for our user, needs no rule. */
static int allow_path(int ruleset, const char *path, uint64_t access)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = access};
    struct stat st;
    int r = 0;
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0) {
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP ? 0 : -1;
    }
    /* A directory in a file's place would open all that is below it. */
    if (fstat(rule.parent_fd, &st) != 0) {
        r = -1;
    } else if (S_ISDIR(st.st_mode) == ((access & LANDLOCK_ACCESS_FS_READ_DIR) != 0)) {
        r = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    }
    const int error = errno;
    (void)close(rule.parent_fd);
    errno = error;
    return r;
}

/* The files that libkrb5 takes its configuration from: a list of paths with colons. Heimdal 7 knows
 * no include. */
static int allow_krb5_conf(int ruleset)
{
    const char *list = getenv("KRB5_CONFIG");
    list = list != NULL ? list : "/etc/krb5.conf";
    while (*list != '\0') {
        char path[PATH_BYTES];
        const size_t len = strcspn(list, ":");
        if (span_copy(span_make(list, len), path, sizeof path) != 0) {
            errno = ENAMETOOLONG; /* libkrb5 would go on without it */
            return -1;
        }
        if (allow_path(ruleset, path, LANDLOCK_ACCESS_FS_READ_FILE) != 0) {
            return -1;
        }
        list += len + (list[len] == ':' ? 1 : 0);
    }
    return 0;
}

static int allow_worker_paths(int ruleset, const char *log_dir)
{
    const struct {
        const char *path;
        uint64_t access;
    } paths[] = {
        {"/dev/urandom", LANDLOCK_ACCESS_FS_READ_FILE},
        {"/sys/devices/system/cpu/online", LANDLOCK_ACCESS_FS_READ_FILE}, /* sysconf() */
        {"/etc/gss", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR},
        /* The audit file is followed to the next one after a rotation; whoever was idle then looks
         * for what it has been renamed to. */
        {log_dir, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                      LANDLOCK_ACCESS_FS_WRITE_FILE},
    };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (allow_path(ruleset, paths[i].path, paths[i].access) != 0) {
            return -1;
        }
    }
    return allow_krb5_conf(ruleset);
}

/* Refuses what `refused` says, apart from a worker's files if there is a log directory. */
static int confine_files(const struct ruleset *refused, const char *log_dir)
{
    const int ruleset = (int)syscall(SYS_landlock_create_ruleset, refused, sizeof *refused, 0);
    if (ruleset < 0) {
        return -1;
    }
    int r = log_dir != NULL ? allow_worker_paths(ruleset, log_dir) : 0;
    r = r != 0 ? r : (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
    const int error = errno;
    (void)close(ruleset);
    errno = error;
    return r;
}

/* ---- System calls: seccomp */

/* A 32-bit half of an argument must have this value under this mask; a mask of 0 ends the list. */
struct test {
    uint32_t at;
    uint32_t mask;
    uint32_t value;
};

struct rule {
    int call;
    uint32_t action;
    struct test tests[TESTS_MAX];
};

#define LOW(argument)  ((uint32_t)offsetof(struct seccomp_data, args[argument]))
#define HIGH(argument) (LOW(argument) + 4)
#define WHOLE          UINT32_MAX
#define REFUSE(error)  (SECCOMP_RET_ERRNO | (error))

/* Calls that are harmless with any arguments, given what Landlock leaves to open. */
static const int calls[] = {
    /* descriptors that are open */
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
    /* connections that were accepted */
    SYS_accept4,
    SYS_recvfrom,
    SYS_shutdown,
    /* waiting */
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
#ifdef SYS_poll
    SYS_poll,
#endif
#ifdef SYS_select
    SYS_select,
#endif
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
#endif
    /* memory */
    SYS_brk,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_munlock,
    /* threads and signals of our own */
    SYS_futex,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_exit,
    SYS_exit_group,
    /* who and when */
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
};

/* The first that fits counts. */
static const struct rule rules[] = {
    /* Files are read, or appended to: none is cut or written over, whoever owns it. */
    {SYS_openat, SECCOMP_RET_ALLOW, {{LOW(2), O_ACCMODE | O_TRUNC, O_RDONLY}}},
    {SYS_openat,
     SECCOMP_RET_ALLOW,
     {{LOW(2), O_ACCMODE | O_TRUNC | O_APPEND, O_WRONLY | O_APPEND}}},
    {SYS_openat, REFUSE(EACCES), {{0}}},
    /* Not F_SETFL, which takes O_APPEND away, and not F_SETOWN, which sends signals. */
    {SYS_fcntl, SECCOMP_RET_ALLOW, {{LOW(1), WHOLE, F_GETFD}}},
    {SYS_fcntl, SECCOMP_RET_ALLOW, {{LOW(1), WHOLE, F_SETFD}}},
    {SYS_fcntl, SECCOMP_RET_ALLOW, {{LOW(1), WHOLE, F_GETFL}}},
    {SYS_fcntl, SECCOMP_RET_ALLOW, {{LOW(1), WHOLE, F_SETPIPE_SZ}}},
    /* No code; an errno, because a library that looks for a plugin lives on with it. */
    {SYS_mmap, SECCOMP_RET_ALLOW, {{LOW(2), PROT_EXEC, 0}}},
    {SYS_mmap, REFUSE(EACCES), {{0}}},
    {SYS_mprotect, SECCOMP_RET_ALLOW, {{LOW(2), PROT_EXEC, 0}}},
    /* Threads and no processes. A filter cannot see what clone3 is asked for; libc takes clone. */
    {SYS_clone, SECCOMP_RET_ALLOW, {{LOW(0), CLONE_THREAD, CLONE_THREAD}}},
    {SYS_clone3, REFUSE(ENOSYS), {{0}}},
    /* No other address: with one, a socket that listened could connect. */
    {SYS_sendto, SECCOMP_RET_ALLOW, {{LOW(4), WHOLE, 0}, {HIGH(4), WHOLE, 0}}},
    {SYS_getsockopt,
     SECCOMP_RET_ALLOW,
     {{LOW(1), WHOLE, SOL_SOCKET}, {LOW(2), WHOLE, SO_PEERCRED}}},
    {SYS_getsockopt, SECCOMP_RET_ALLOW, {{LOW(1), WHOLE, SOL_SOCKET}, {LOW(2), WHOLE, SO_DOMAIN}}},
    {SYS_setsockopt,
     SECCOMP_RET_ALLOW,
     {{LOW(1), WHOLE, IPPROTO_TCP}, {LOW(2), WHOLE, TCP_NODELAY}}},
    {SYS_setsockopt, SECCOMP_RET_ALLOW, {{LOW(1), WHOLE, SOL_SOCKET}, {LOW(2), WHOLE, SO_SNDBUF}}},
    {SYS_setsockopt,
     SECCOMP_RET_ALLOW,
     {{LOW(1), WHOLE, SOL_SOCKET}, {LOW(2), WHOLE, SO_KEEPALIVE}}},
    /* What libraries try and do without: the name service, names of threads, terminals. */
    {SYS_socket, REFUSE(EACCES), {{0}}},
    {SYS_prctl, REFUSE(EPERM), {{0}}},
    {SYS_ioctl, REFUSE(ENOTTY), {{0}}},
};

struct program {
    struct sock_filter code[FILTER_MAX];
    unsigned short len;
};

static void put(struct program *p, uint16_t code, uint8_t otherwise, uint32_t value)
{
    if (p->len < FILTER_MAX) {
        p->code[p->len] = (struct sock_filter){.code = code, .jf = otherwise, .k = value};
    }
    p->len++;
}

static void put_load(struct program *p, uint32_t at)
{
    put(p, BPF_LD | BPF_W | BPF_ABS, 0, at);
}

/* Leaves the call's number in the accumulator, as it finds it. */
static void put_rule(struct program *p, const struct rule *rule)
{
    uint8_t tests = 0;
    while (tests < TESTS_MAX && rule->tests[tests].mask != 0) {
        tests++;
    }
    put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)(3 * tests + 1), (uint32_t)rule->call);
    for (uint8_t i = 0; i < tests; i++) {
        const struct test *test = &rule->tests[i];
        put_load(p, test->at);
        put(p, BPF_ALU | BPF_AND | BPF_K, 0, test->mask);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)(3 * (tests - 1 - i) + 1), test->value);
    }
    put(p, BPF_RET | BPF_K, 0, rule->action);
    if (tests > 0) {
        put_load(p, offsetof(struct seccomp_data, nr));
    }
}

static int confine_calls(void)
{
    /* raise() and abort() */
    const struct rule own_signal = {
        SYS_tgkill, SECCOMP_RET_ALLOW, {{LOW(0), WHOLE, (uint32_t)getpid()}}};
    struct program p = {.len = 0};
    if (ARCHITECTURE == 0) {
        errno = ENOSYS;
        return -1;
    }
    put_load(&p, offsetof(struct seccomp_data, arch));
    put(&p, BPF_JMP | BPF_JEQ | BPF_K, 1, ARCHITECTURE);
    put(&p, BPF_JMP | BPF_JA, 0, 1);
    put(&p, BPF_RET | BPF_K, 0, SECCOMP_RET_KILL_PROCESS);
    put_load(&p, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        put_rule(&p, &(struct rule){calls[i], SECCOMP_RET_ALLOW, {{0}}});
    }
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        put_rule(&p, &rules[i]);
    }
    put_rule(&p, &own_signal);
    put(&p, BPF_RET | BPF_K, 0, SECCOMP_RET_KILL_PROCESS);
    if (p.len > FILTER_MAX) {
        errno = E2BIG;
        return -1;
    }
    const struct sock_fprog filter = {p.len, p.code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}

/* ---- Who gets what */

static int give_up_privileges(struct fault *fault)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return fault_set(fault, "sandbox", "prctl: %s", strerror(errno));
    }
    return 0;
}

int sandbox_supervisor(const struct config *config, struct fault *fault)
{
    const struct ruleset execution = {.files = LANDLOCK_ACCESS_FS_EXECUTE};
    if (give_up_privileges(fault) != 0) {
        return -1;
    }
    if (config->sandbox != CONFIG_SANDBOX_OFF && confine_files(&execution, NULL) != 0 &&
        config->sandbox == CONFIG_SANDBOX_REQUIRED) {
        return fault_set(fault, "sandbox", "execution is not refused (Landlock: %s)",
                         strerror(errno));
    }
    return 0;
}

static int enter(const struct config *config, struct fault *missing)
{
    char log_dir[PATH_MAX]; /* what the configuration may name */
    const int abi = landlock_abi();
    const struct ruleset all = refuse_all(abi);
    int status = 0;
    if (give_up_privileges(missing) != 0) {
        return EX_OSERR;
    }
    if (abi >= 1 && config_audit_dir(config, log_dir, sizeof log_dir, missing) != 0) {
        status = EX_CONFIG;
    } else if (abi < 1 || confine_files(&all, log_dir) != 0) {
        (void)fault_set(missing, "sandbox", "files are not confined (Landlock: %s)",
                        strerror(errno));
        status = EX_OSERR;
    }
    if (confine_calls() != 0) {
        (void)fault_set(missing, "sandbox", "system calls%s are not confined (seccomp: %s)",
                        status != 0 ? " and files" : "", strerror(errno));
        status = EX_OSERR;
    }
    return status;
}

int sandbox_worker(const struct config *config, struct fault *missing)
{
    *missing = (struct fault){"", ""};
    if (config->sandbox == CONFIG_SANDBOX_OFF) {
        (void)fault_set(missing, "sandbox", "off, as the configuration says");
        return 0;
    }
    tzset(); /* libc reads the zone's file once, and could not later */
    const int status = enter(config, missing);
    return config->sandbox == CONFIG_SANDBOX_REQUIRED ? status : 0;
}
