/* What `check` has to say: one line each on standard output, and the exit status they add up to. */
#ifndef CMD_REPORT_H
#define CMD_REPORT_H

#include <sys/types.h>

enum report_level {
    REPORT_OK,
    REPORT_WARNING,  /* works, but somebody should look at it */
    REPORT_FINDING,  /* does not work, or the daemon refuses it */
    REPORT_UNDECIDED /* could not be found out by whoever runs this */
};

struct report {
    unsigned warnings;
    unsigned findings;
    unsigned undecided;
};

/* One line, "LEVEL: TEXT"; control bytes in it become "?". */
void report_line(struct report *report, enum report_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line that belongs to the one before: indented, counts for nothing. */
void report_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The last line and the exit status: 1 with findings, else 2 with anything undecided, else 0. */
int report_close(const struct report *report);

/* "name (id)", or the bare id of an account without a name. */
enum { REPORT_ACCOUNT_BYTES = 80 };
const char *report_user(uid_t uid, char out[REPORT_ACCOUNT_BYTES]);
const char *report_group(gid_t gid, char out[REPORT_ACCOUNT_BYTES]);

#endif
