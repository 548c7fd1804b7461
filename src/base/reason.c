#include "base/reason.h"

static const struct reason_info reasons[REASON_COUNT] = {
#define REASON(id, code, outcome, status, challenge, hint)                                         \
    [REASON_##id] = {code, hint, OUTCOME_##outcome, CHALLENGE_##challenge, status},
#include "base/reason.def"
#undef REASON
};

const struct reason_info *reason_info(enum reason reason)
{
    /* Compared as unsigned so that a wild value cannot index before the table either. */
    const unsigned index = (unsigned)reason;
    return &reasons[index < REASON_COUNT ? index : REASON_INTERNAL];
}

const char *outcome_text(enum outcome outcome)
{
    switch (outcome) {
    case OUTCOME_GRANTED:
        return "granted";
    case OUTCOME_CHALLENGED:
        return "challenged";
    case OUTCOME_DENIED:
        return "denied";
    case OUTCOME_FAILED:
        return "failed";
    case OUTCOME_ERROR:
        break;
    }
    return "error";
}
