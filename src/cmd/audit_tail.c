#include "cmd/audit.h"
#include "cmd/audit_show.h"
#include "cmd/cmd.h"
#include "conf/config.h"
#include "trail/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 8192, BLOCK_BYTES = 65536, LINES_DEFAULT = 20, POLL_MS = 250 };

struct options {
    const char *config;
    struct audit_show_filter filter;
    uint64_t lines; /* at most; UINT64_MAX: all that are wanted */
    bool follow;
    bool colours;
};

struct line {
    char *text;
    size_t len;
};

/* A file that is read line by line; the part of a line that was read waits for the rest. */
struct reader {
    const char *path;
    int fd;
    struct stat st;
    uint64_t offset;
    char text[BLOCK_BYTES];
    size_t len;
    /* Of a stream, where nobody can go back from the end: the last lines that are wanted. */
    bool keeps;
    struct line *kept;
    uint64_t room;   /* in `kept`; grows up to as many as are wanted */
    uint64_t wanted; /* how many there were: the next one's place is this % lines */
};

static void print_help(void)
{
    printf("Usage: spnegate audit tail [-c FILE] [--user=U] [--reason=R] [--site=S]\n"
           "                           [--since=TIME] [-n LINES] [-f] [FILE...]\n"
           "Shows the last records of the audit trail, a line each: time, outcome, reason, user,\n"
           "site, client, request, rule, and for what was refused what that means. Without a FILE\n"
           "it is the one of the configuration; - is standard input.\n\n"
           "  -c, --config=FILE  the configuration (default: $SPNEGATE_CONFIG, or %s)\n"
           "      --user=U       records with this user or principal\n"
           "      --reason=R     with this reason\n"
           "      --site=S       of this site\n"
           "      --since=TIME   not before: 2026-01-31, 2026-01-31T12:30, ...T12:30:59 (UTC), or\n"
           "                     a duration like 15m\n"
           "  -n, --lines=N      the last N that are wanted (default: %d; with --since: all)\n"
           "  -f, --follow       go on with what is written, also after the file was rotated\n"
           "      --help         show this and exit\n\n"
           "Colours are for terminals only, and not with NO_COLOR. Times are UTC.\n"
           "Exit status: 0, 64 usage, 66 a file cannot be read, 78 configuration.\n",
           CONFIG_PATH_DEFAULT, LINES_DEFAULT);
}

static int complain(const char *path)
{
    (void)fprintf(stderr, "spnegate audit tail: %s: %s\n", path,
                  errno == EBADMSG ? "it is compressed: zcat FILE | spnegate audit tail -"
                                   : strerror(errno));
    return EX_NOINPUT;
}

static ssize_t read_some(struct reader *reader)
{
    ssize_t n;

    do {
        n = read(reader->fd, reader->text + reader->len, sizeof reader->text - reader->len);
    } while (n < 0 && errno == EINTR);
    return n;
}

static void out_of_memory(void)
{
    (void)fprintf(stderr, "spnegate audit tail: out of memory\n");
    exit(EX_OSERR);
}

static void keep_more(struct reader *reader, const struct options *o)
{
    const uint64_t twice = 2 * reader->room + LINES_DEFAULT;
    const size_t room = (size_t)(twice < o->lines ? twice : o->lines);
    struct line *kept = reallocarray(reader->kept, room, sizeof *kept);

    if (kept == NULL) {
        out_of_memory();
    }
    memset(kept + reader->room, 0, (room - reader->room) * sizeof *kept);
    reader->kept = kept;
    reader->room = room;
}

/* A line that is wanted. */
static void take(struct reader *reader, const struct options *o, const char *text, size_t len)
{
    struct line *line;

    if (!reader->keeps) {
        audit_show_print(text, len, o->colours);
        return;
    }
    if (o->lines == 0) {
        return;
    }
    if (reader->wanted == reader->room && reader->room < o->lines) {
        keep_more(reader, o);
    }
    line = &reader->kept[reader->wanted++ % o->lines];
    free(line->text);
    line->text = malloc(len + 1); /* a line may be empty */
    if (line->text == NULL) {
        out_of_memory();
    }
    memcpy(line->text, text, len);
    line->len = len;
}

/* Shows the lines that are complete. */
static void show(struct reader *reader, const struct options *o)
{
    size_t start = 0;

    for (;;) {
        const char *text = reader->text + start;
        const char *lf = memchr(text, '\n', reader->len - start);
        size_t len = lf == NULL ? reader->len - start : (size_t)(lf - text);

        if (lf == NULL && len < sizeof reader->text) {
            break;
        }
        if (audit_show_match(&o->filter, text, len) == AUDIT_SHOW_YES) {
            take(reader, o, text, len);
        }
        start += len + (lf == NULL ? 0 : 1);
    }
    memmove(reader->text, reader->text + start, reader->len - start);
    reader->len -= start;
}

/* Everything up to the end that the file has now; -1 and errno. */
static int show_rest(struct reader *reader, const struct options *o)
{
    ssize_t n;

    while ((n = read_some(reader)) > 0) {
        reader->offset += (size_t)n;
        reader->len += (size_t)n;
        show(reader, o);
    }
    return n < 0 ? -1 : 0;
}

/* What stands after the last LF, when nothing more can follow it. */
static void show_stray(struct reader *reader, const struct options *o)
{
    if (reader->len > 0) {
        take(reader, o, reader->text, reader->len);
        reader->len = 0;
    }
}

static bool is_compressed(int fd)
{
    unsigned char magic[2];

    return pread(fd, magic, sizeof magic, 0) == sizeof magic && magic[0] == 0x1f &&
           magic[1] == 0x8b;
}

static int reader_open(struct reader *reader)
{
    reader->len = 0;
    reader->offset = 0;
    reader->fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (reader->fd < 0) {
        return -1;
    }
    if (fstat(reader->fd, &reader->st) == 0) {
        if (S_ISREG(reader->st.st_mode) && !is_compressed(reader->fd)) {
            return 0;
        }
        errno = S_ISREG(reader->st.st_mode)   ? EBADMSG /* for complain */
                : S_ISDIR(reader->st.st_mode) ? EISDIR
                                              : EINVAL;
    }
    (void)close(reader->fd);
    reader->fd = -1;
    return -1;
}

/* Goes back from the end to where the last lines begin that are wanted; -1 and errno. */
static int seek_back(struct reader *reader, const struct options *o)
{
    uint64_t end = (uint64_t)reader->st.st_size;
    uint64_t begin = end;
    uint64_t found = 0;

    while (end > 0 && found < o->lines) {
        char text[LINE_MAX_BYTES];
        size_t len = end < sizeof text ? (size_t)end : sizeof text;
        const ssize_t n = pread(reader->fd, text, len, (off_t)(end - len));
        const char *lf;
        const char *line;
        enum audit_show_match match;

        if (n != (ssize_t)len) {
            errno = n < 0 ? errno : ESTALE;
            return -1;
        }
        lf = memrchr(text, '\n', len - 1);
        line = lf == NULL ? text : lf + 1;
        end -= len - (size_t)(line - text);
        len -= (size_t)(line - text);
        match = audit_show_match(&o->filter, line, line[len - 1] == '\n' ? len - 1 : len);
        if (match == AUDIT_SHOW_OLD) {
            break;
        }
        if (match == AUDIT_SHOW_YES) {
            begin = end;
            found++;
        }
    }
    reader->offset = begin;
    return lseek(reader->fd, (off_t)begin, SEEK_SET) < 0 ? -1 : 0;
}

/* Another file stands at the path, or this one was cut: goes on at the beginning of what is there.
 * The old one is read to its end first. */
static int follow_rotation(struct reader *reader, const struct options *o)
{
    struct stat now;
    bool other;

    if (stat(reader->path, &now) != 0) {
        return 0; /* between two names */
    }
    other = now.st_dev != reader->st.st_dev || now.st_ino != reader->st.st_ino;
    if (!other && (uint64_t)now.st_size >= reader->offset) {
        return 0;
    }
    if (other && show_rest(reader, o) != 0) {
        return -1;
    }
    show_stray(reader, o);
    (void)close(reader->fd);
    return reader_open(reader);
}

static int follow(struct reader *reader, const struct options *o)
{
    static const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};

    for (;;) {
        if (show_rest(reader, o) != 0 || follow_rotation(reader, o) != 0) {
            return complain(reader->path);
        }
        if (fflush(stdout) != 0) {
            return EX_IOERR;
        }
        (void)nanosleep(&pause, NULL);
    }
}

/* Standard input: to its end, and then the last lines that are wanted. */
static int show_stream(struct reader *reader, const struct options *o)
{
    int status;
    uint64_t i;

    reader->fd = STDIN_FILENO;
    reader->len = 0;
    reader->wanted = 0;
    reader->keeps = o->lines != UINT64_MAX;
    status = show_rest(reader, o) != 0 ? complain("standard input") : EX_OK;
    show_stray(reader, o);
    for (i = reader->wanted > o->lines ? reader->wanted - o->lines : 0; i < reader->wanted; i++) {
        struct line *line = &reader->kept[i % o->lines];

        audit_show_print(line->text, line->len, o->colours);
        free(line->text);
    }
    free(reader->kept);
    reader->kept = NULL;
    reader->keeps = false;
    reader->room = 0;
    return status;
}

static int show_file(struct reader *reader, const struct options *o, bool last)
{
    int status = EX_OK;

    if (strcmp(reader->path, "-") == 0) {
        return show_stream(reader, o);
    }
    if (reader_open(reader) != 0) {
        return complain(reader->path);
    }
    if (seek_back(reader, o) != 0 || show_rest(reader, o) != 0) {
        status = complain(reader->path);
    } else if (o->follow && last) {
        return follow(reader, o);
    } else {
        show_stray(reader, o);
    }
    (void)close(reader->fd);
    return status;
}

static int show_files(char **paths, int count, const struct options *o)
{
    struct reader *reader = calloc(1, sizeof *reader);
    int status = EX_OK;

    if (reader == NULL) {
        (void)fprintf(stderr, "spnegate audit tail: out of memory\n");
        return EX_OSERR;
    }
    for (int i = 0; i < count; i++) {
        int one;

        reader->path = paths[i];
        if (count > 1) {
            printf("%s==> %s <==\n", i > 0 ? "\n" : "", paths[i]);
        }
        one = show_file(reader, o, i == count - 1);
        status = one != EX_OK ? one : status;
    }
    free(reader);
    return fflush(stdout) != 0 ? EX_IOERR : status;
}

/* The file of the configuration. */
static int show_configured(const struct options *o)
{
    struct config *config = NULL;
    struct fault fault = {"", ""};
    char *said = NULL;
    char *path;
    int status = EX_CONFIG;

    if (config_load(o->config, &config, &fault) != 0) {
        /* It may be broken just now, with the daemon and its trail going on. */
        said = config_find_path(o->config, "audit", "file");
        (void)fprintf(stderr, "spnegate audit tail: %s: %s\n", fault.where, fault.what);
    }
    path = config != NULL ? config->audit.file : said;
    if (path != NULL) {
        status = show_files(&path, 1, o);
    }
    config_free(config);
    free(said);
    return status;
}

/* A time, or as far as it is given, or a duration before now. */
static bool since_parse(const char *text, uint64_t *out_s)
{
    char full[] = "0000-01-01T00:00:00.000000Z";
    const char *form = "dddd-dd-ddTdd:dd:dd";
    size_t len = strlen(text);
    uint64_t duration_s;

    if (cmd_audit_duration(text, &duration_s)) {
        const uint64_t now_s = (uint64_t)time(NULL);

        *out_s = duration_s < now_s ? now_s - duration_s : 0;
        return true;
    }
    len -= len > 0 && text[len - 1] == 'Z' ? 1 : 0;
    if (len != 10 && len != 16 && len != 19) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i]) {
            return false;
        }
        full[i] = text[i];
    }
    *out_s = verify_seconds(full);
    return true;
}

static bool lines_parse(const char *text, uint64_t *out)
{
    char *end = NULL;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static bool colours_wanted(void)
{
    const char *no = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");

    return (no == NULL || no[0] == '\0') && isatty(STDOUT_FILENO) != 0 && terminal != NULL &&
           strcmp(terminal, "dumb") != 0;
}

/* The value of one option; what is wrong with it, or NULL. */
static const char *take_option(int c, const char *value, struct options *o)
{
    switch (c) {
    case 'c':
        o->config = value;
        return NULL;
    case 'u':
        o->filter.user = value;
        return NULL;
    case 'r':
        o->filter.reason = value;
        return audit_show_reason_known(value) ? NULL
                                              : "no such reason (docs/reasons.md lists them)";
    case 's':
        o->filter.site = value;
        return NULL;
    case 'S':
        return since_parse(value, &o->filter.since_s) ? NULL : "neither a time nor a duration";
    case 'n':
        return lines_parse(value, &o->lines) ? NULL : "not a number of lines";
    default:
        return c == ':' ? "this option needs a value" : "no such option";
    }
}

int cmd_audit_tail(int argc, char **argv)
{
    static const struct option names[] = {{"config", required_argument, NULL, 'c'},
                                          {"user", required_argument, NULL, 'u'},
                                          {"reason", required_argument, NULL, 'r'},
                                          {"site", required_argument, NULL, 's'},
                                          {"since", required_argument, NULL, 'S'},
                                          {"lines", required_argument, NULL, 'n'},
                                          {"follow", no_argument, NULL, 'f'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options o = {.config = cmd_config_default(), .lines = UINT64_MAX};
    bool all = false;

    opterr = 0;
    for (int c = getopt_long(argc, argv, ":c:n:fh", names, NULL); c != -1;
         c = getopt_long(argc, argv, ":c:n:fh", names, NULL)) {
        const char *wrong = NULL;

        if (c == 'h') {
            print_help();
            return EX_OK;
        }
        if (c == 'f') {
            o.follow = true;
            continue;
        }
        wrong = take_option(c, optarg, &o);
        all = all || c == 'S';
        if (wrong != NULL) {
            return cmd_audit_usage("tail", wrong, c == ':' || c == '?' ? argv[optind - 1] : optarg);
        }
    }
    if (o.lines == UINT64_MAX && !all) {
        o.lines = LINES_DEFAULT;
    }
    o.colours = colours_wanted();
    return optind < argc ? show_files(argv + optind, argc - optind, &o) : show_configured(&o);
}
