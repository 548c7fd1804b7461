/*
 * Why a request was decided as it was: the closed list of reason.def.
 * Audit, answers, metrics and documents all come from that table, which only grows at its end.
 */
#ifndef BASE_REASON_H
#define BASE_REASON_H

enum reason {
#define REASON(id, code, outcome, status, challenge, hint) REASON_##id,
#include "base/reason.def"
#undef REASON
    REASON_COUNT
};

enum outcome { OUTCOME_GRANTED, OUTCOME_CHALLENGED, OUTCOME_DENIED, OUTCOME_FAILED, OUTCOME_ERROR };

/* What the answer's WWW-Authenticate carries. */
enum challenge {
    CHALLENGE_NONE,     /* no such header */
    CHALLENGE_BARE,     /* "Negotiate" alone */
    CHALLENGE_REPLY,    /* the reply token if there is one, else no header */
    CHALLENGE_CONTINUE, /* NegTokenResp accept-incomplete */
    CHALLENGE_REJECT,   /* NegTokenResp reject if the client's token was SPNEGO-framed, else bare */
};

struct reason_info {
    const char *code; /* stable, as in the audit record */
    const char *hint; /* one sentence for the administrator: what is wrong and the next step */
    enum outcome outcome;
    enum challenge challenge;
    int status; /* HTTP */
};

/* The row of one reason; a value outside the table gives the row of REASON_INTERNAL. */
const struct reason_info *reason_info(enum reason reason);

/* "granted", "challenged", "denied", "failed" or "error". */
const char *outcome_text(enum outcome outcome);

#endif
