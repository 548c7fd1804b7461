#include "deeds.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS_MAX = 256, PAGE_BYTES = 4096 };

/* ---- Programs and processes */

static long exec_program(const char *path)
{
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    return execve(path, argv, argv + 1);
}

/* The C library's fork() would take other locks first. */
static long fork_process(const char *argument)
{
    (void)argument;
    const long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        _exit(0);
    }
    return pid;
}

static long fork_by_clone3(const char *argument)
{
    uint64_t asked[8] = {[4] = SIGCHLD};
    (void)argument;
    const long pid = syscall(SYS_clone3, asked, sizeof asked);
    if (pid == 0) {
        _exit(0);
    }
    return pid;
}

static pid_t pid_of(const char *text)
{
    return (pid_t)strtol(text, NULL, 10);
}

static long trace_process(const char *pid)
{
    return ptrace(PTRACE_ATTACH, pid_of(pid), NULL, NULL);
}

static long read_memory(const char *pid)
{
    static char here; /* in the process that we were forked from, it is at the same address */
    char copy = 0;
    struct iovec to = {&copy, 1};
    struct iovec from = {&here, 1};
    return process_vm_readv(pid_of(pid), &to, 1, &from, 1, 0);
}

static long signal_process(const char *pid)
{
    return kill(pid_of(pid), SIGCONT);
}

static long signal_thread(const char *pid)
{
    return syscall(SYS_tgkill, pid_of(pid), pid_of(pid), SIGCONT);
}

static long signal_ourselves(const char *argument)
{
    (void)argument;
    return syscall(SYS_tgkill, getpid(), gettid(), 0);
}

/* ---- Files */

static long open_close(const char *path, int flags)
{
    const int fd = open(path, flags | O_CLOEXEC, 0600);
    return fd < 0 ? -1 : close(fd);
}

static long read_file(const char *path)
{
    return open_close(path, O_RDONLY);
}

static long list_directory(const char *path)
{
    return open_close(path, O_RDONLY | O_DIRECTORY);
}

static long append_file(const char *path)
{
    return open_close(path, O_WRONLY | O_APPEND);
}

static long create_file(const char *path)
{
    return open_close(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL);
}

static long overwrite_file(const char *path)
{
    return open_close(path, O_WRONLY);
}

static long map_file(const char *path)
{
    return open_close(path, O_RDWR | O_APPEND);
}

static long empty_file(const char *path)
{
    return open_close(path, O_WRONLY | O_APPEND | O_TRUNC);
}

static long empty_read_file(const char *path)
{
    return open_close(path, O_RDONLY | O_TRUNC);
}

static long remove_file(const char *path)
{
    return unlink(path);
}

/* The first regular file that is open for appending: the audit file. */
static int find_appending(void)
{
    struct stat st;
    for (int fd = 3; fd < FDS_MAX; fd++) {
        const int flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && (flags & O_APPEND) != 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
            return fd;
        }
    }
    return -1;
}

static long cut_open_file(const char *argument)
{
    (void)argument;
    return ftruncate(find_appending(), 0);
}

static long stop_appending(const char *argument)
{
    (void)argument;
    return fcntl(find_appending(), F_SETFL, 0);
}

/* ---- The network */

static long make_socket(const char *argument)
{
    (void)argument;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : close(fd);
}

static long connect_out(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtol(port, NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(0, (struct sockaddr *)&to, sizeof to);
}

/* With TCP's fast open, this connects a socket that listened and was shut down. */
static long send_out(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtol(port, NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return sendto(0, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof to);
}

static long attach_filter(const char *argument)
{
    struct sock_filter code = {.code = BPF_RET | BPF_K};
    const struct sock_fprog filter = {1, &code};
    (void)argument;
    return setsockopt(0, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

/* ---- Code and the kernel */

static long map_code(const char *argument)
{
    (void)argument;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? -1 : munmap(page, PAGE_BYTES);
}

static long make_code(const char *argument)
{
    (void)argument;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? -1 : mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC);
}

static long become_dumpable(const char *argument)
{
    (void)argument;
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long type_into_terminal(const char *argument)
{
    (void)argument;
    return ioctl(0, TIOCSTI, "x");
}

static long call_as_x32(const char *argument)
{
    (void)argument;
    return syscall(0x40000000 | SYS_getpid);
}

/* Where the numbers mean other calls: 20 is getpid there, writev here. */
static long call_as_i386(const char *argument)
{
    long result = 20;
    (void)argument;
#ifdef __x86_64__
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
#endif
    return result;
}

static const struct deed {
    const char *name;
    long (*commit)(const char *argument);
} deeds[] = {
    {"append", append_file},
    {"attach-filter", attach_filter},
    {"become-dumpable", become_dumpable},
    {"call-as-i386", call_as_i386},
    {"call-as-x32", call_as_x32},
    {"connect", connect_out},
    {"create", create_file},
    {"cut-open-file", cut_open_file},
    {"empty", empty_file},
    {"empty-read", empty_read_file},
    {"exec", exec_program},
    {"fork", fork_process},
    {"fork-by-clone3", fork_by_clone3},
    {"list", list_directory},
    {"make-code", make_code},
    {"map-code", map_code},
    {"map-file", map_file},
    {"overwrite", overwrite_file},
    {"read", read_file},
    {"read-memory", read_memory},
    {"remove", remove_file},
    {"send", send_out},
    {"signal", signal_process},
    {"signal-ourselves", signal_ourselves},
    {"signal-thread", signal_thread},
    {"socket", make_socket},
    {"stop-appending", stop_appending},
    {"trace", trace_process},
    {"type", type_into_terminal},
};

int deeds_commit(const char *deed)
{
    const size_t len = strcspn(deed, " ");
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        if (strlen(deeds[i].name) == len && strncmp(deed, deeds[i].name, len) == 0) {
            return deeds[i].commit(deed + len + (deed[len] == ' ' ? 1 : 0)) < 0 ? errno : 0;
        }
    }
    return ENOEXEC;
}
