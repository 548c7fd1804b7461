#include "cmd/report.h"

#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>

enum { LINE_BYTES = 8192 };

/* Paths and principals come from files: they must not steer the terminal. */
static void put_line(const char *prefix, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void put_line(const char *prefix, const char *format, va_list args)
{
    char line[LINE_BYTES];

    (void)vsnprintf(line, sizeof line, format, args);
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F) {
            *p = '?';
        }
    }
    (void)printf("%s%s\n", prefix, line);
}

void report_line(struct report *report, enum report_level level, const char *format, ...)
{
    const char *prefix = "ok: ";
    va_list args;

    if (level == REPORT_WARNING) {
        prefix = "warning: ";
        report->warnings++;
    } else if (level == REPORT_FINDING) {
        prefix = "finding: ";
        report->findings++;
    } else if (level == REPORT_UNDECIDED) {
        prefix = "undecided: ";
        report->undecided++;
    }
    va_start(args, format);
    put_line(prefix, format, args);
    va_end(args);
}

void report_detail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_line("    ", format, args);
    va_end(args);
}

int report_close(const struct report *report)
{
    (void)printf("findings: %u, warnings: %u, undecided: %u\n", report->findings, report->warnings,
                 report->undecided);
    if (report->findings > 0) {
        return 1;
    }
    /* Lines that nobody could read decide nothing. */
    return fflush(stdout) != 0 || ferror(stdout) != 0 || report->undecided > 0 ? 2 : 0;
}

const char *report_user(uid_t uid, char out[REPORT_ACCOUNT_BYTES])
{
    const struct passwd *entry = getpwuid(uid);

    if (entry != NULL) {
        (void)snprintf(out, REPORT_ACCOUNT_BYTES, "%.48s (%u)", entry->pw_name, (unsigned)uid);
    } else {
        (void)snprintf(out, REPORT_ACCOUNT_BYTES, "uid %u", (unsigned)uid);
    }
    return out;
}

const char *report_group(gid_t gid, char out[REPORT_ACCOUNT_BYTES])
{
    const struct group *entry = getgrgid(gid);

    if (entry != NULL) {
        (void)snprintf(out, REPORT_ACCOUNT_BYTES, "%.48s (%u)", entry->gr_name, (unsigned)gid);
    } else {
        (void)snprintf(out, REPORT_ACCOUNT_BYTES, "gid %u", (unsigned)gid);
    }
    return out;
}
