/* The words of `spnegate audit`: argv[0] is the word itself; each returns the exit status. */
#ifndef CMD_AUDIT_H
#define CMD_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

int cmd_audit_verify(int argc, char **argv);
int cmd_audit_tail(int argc, char **argv);
int cmd_audit_init(int argc, char **argv);

/* "90s", "15m", "8h" or "7d" in seconds; false when it is anything else, or 0. */
bool cmd_audit_duration(const char *text, uint64_t *out_s);

/* What an option lacks or is, and EX_USAGE. */
int cmd_audit_usage(const char *word, const char *what, const char *argument);

#endif
