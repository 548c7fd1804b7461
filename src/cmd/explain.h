/* The parts of `spnegate explain`. What they print of a peer's bytes is quoted and escaped. */
#ifndef CMD_EXPLAIN_H
#define CMD_EXPLAIN_H

#include "base/bytes.h"
#include "base/reason.h"
#include "conf/config.h"

#include <stdbool.h>
#include <stdint.h>

enum { EXPLAIN_QUOTE_BYTES = 2600, EXPLAIN_TIME_BYTES = 64 };

/* What was asked for. */
struct explain {
    struct config *config; /* NULL: there is none, so no keytab is looked at */
    const char *host;      /* NULL: not given */
    const char *site;      /* the same */
    uint64_t now_s;
};

/* Prints one line, "label: text", `depth` steps to the right; what is no printable ASCII is
 * escaped. */
void explain_line(unsigned depth, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints a reason as the record has it and its hint; returns the exit status that it stands for. */
int explain_reason(unsigned depth, enum reason reason);

/* A peer's text in quotes. */
const char *explain_quote(struct span text, char out[EXPLAIN_QUOTE_BYTES]);

/* "2026-01-31T12:00:00Z", and "3700 s (1 h 1 min)" for a time that may be negative. */
const char *explain_date(int64_t seconds, char out[EXPLAIN_TIME_BYTES]);
const char *explain_duration(int64_t seconds, char out[EXPLAIN_TIME_BYTES]);

/* Which of two keys was used, in words: how old against the newest. */
void explain_rotation(unsigned depth, int64_t kvno, int64_t newest);

/*
 * A token's bytes; prints what it is and what would become of it. The exit status: 0 it would be
 * let in, or be asked to go on; 1 it would be refused; EX_DATAERR it is nothing that is known.
 */
int explain_token(const struct explain *e, struct span token);

/* The same of an AP-REQ, for the sites that it may be meant for. */
int explain_sites(const struct explain *e, struct span ap_req);

/* One or several lines of the audit trail. The exit status is the worst of them. */
int explain_records(struct span text);

#endif
