/* A record of the trail as one line for people, and which records are wanted. */
#ifndef CMD_AUDIT_SHOW_H
#define CMD_AUDIT_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL and 0: any. */
struct audit_show_filter {
    const char *user; /* the user or the whole principal */
    const char *reason;
    const char *site;
    uint64_t since_s; /* since 1970 */
};

enum audit_show_match {
    AUDIT_SHOW_NO,
    AUDIT_SHOW_YES, /* also what is no record: nobody may hide by being unreadable */
    AUDIT_SHOW_OLD  /* so long before `since_s` that nothing before it can be wanted */
};

/* One line of a file, without its LF. */
enum audit_show_match audit_show_match(const struct audit_show_filter *filter, const char *line,
                                       size_t len);

/* Prints it; what came from a peer is escaped once more. */
void audit_show_print(const char *line, size_t len, bool colours);

/* Whether the table of reasons has it. */
bool audit_show_reason_known(const char *code);

#endif
