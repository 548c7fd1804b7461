#include "serve/engine.h"

#include "auth/policy.h"
#include "base/log.h"
#include "wire/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum complaint { COMPLAINT_AUDIT, COMPLAINT_REPLAY, COMPLAINT_OVERLOAD, COMPLAINTS };

/* So many requests refused for overload have records of their own. */
struct engine {
    struct engine_parts parts;
    struct acceptor **acceptors; /* one a site; NULL: keytab_unavailable */
    uint32_t keep_s;
    struct log_rate *complaints; /* in the daemon's log */
};

int engine_open(const struct engine_parts *parts, struct engine **out, struct fault *fault)
{
    const size_t count = parts->config->sites.count;
    struct engine *engine = calloc(1, sizeof *engine);
    struct acceptor **acceptors = calloc(count, sizeof(struct acceptor *));
    struct log_rate *complaints = calloc(COMPLAINTS, sizeof *complaints);
    if (engine == NULL || acceptors == NULL || complaints == NULL) {
        free(engine);
        free(acceptors);
        free(complaints);
        return fault_set(fault, "", "no memory");
    }
    engine->parts = *parts;
    engine->acceptors = acceptors;
    engine->complaints = complaints;
    for (size_t i = 0; i < COMPLAINTS; i++) {
        complaints[i].per_s = 1;
    }
    for (size_t i = 0; i < count; i++) {
        const struct config_site *site = &parts->config->sites.items[i];
        const struct acceptor_options options = {
            .where = site->keytab,
            .weak_allowed = site->enctypes == CONFIG_ENCTYPES_ANY,
            .channel_binding = site->channel_binding,
            .bindings = &parts->bindings[i],
        };
        if (parts->keytabs[i] != NULL &&
            acceptor_open(parts->keytabs[i], &options, &acceptors[i], fault) != 0) {
            engine_close(engine);
            return -1;
        }
    }
    uint32_t skew_s = 0;
    if (acceptor_skew_s(&skew_s, fault) != 0) {
        engine_close(engine);
        return -1;
    }
    /* An authenticator is accepted from skew before to skew after; a second for rounding. */
    engine->keep_s = 2 * skew_s + 1;
    *out = engine;
    return 0;
}

void engine_close(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    for (size_t i = 0; i < engine->parts.config->sites.count; i++) {
        acceptor_close(engine->acceptors[i]);
    }
    free(engine->acceptors);
    free(engine->complaints);
    free(engine);
}

/* Wall-clock seconds now; cannot fail with this clock. */
static uint64_t wall_clock_s(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}

static enum reason find_site(const struct engine *engine, struct exchange *x)
{
    const enum reason reason = http_parse_host(x->request.host, x->host);
    if (reason != REASON_OK) {
        return reason;
    }
    x->site = config_find_site(engine->parts.config, x->request.listener, x->host);
    return x->site != NULL ? REASON_OK : REASON_UNKNOWN_HOST;
}

static void complain_replay(const struct engine *engine, const struct exchange *x)
{
    const uint64_t floor_us = replay_floor_us(engine->parts.replay, engine->keep_s);
    const char *dir = engine->parts.config->state_dir;
    if (!log_rate_allow(&engine->complaints[COMPLAINT_REPLAY], x->request.mono_us / 1000, NULL)) {
        return;
    }
    if (x->accepted.ctime_us > floor_us || x->accepted.ctime_us == 0) {
        log_line(LOG_LEVEL_ERROR,
                 "%s/replay.table: its lock cannot be had; sign-ins are answered 503", dir);
        return;
    }
    log_line(LOG_LEVEL_ERROR,
             "%s/replay.table was made anew, or the clock was set back: what came before cannot be "
             "told from a replay, and sign-ins are answered 503 for %llu s more; if the clock was "
             "far ahead for a while, move the table away and restart",
             dir, (unsigned long long)(floor_us - x->accepted.ctime_us) / 1000000 + 1);
}

/*
 * Remembers the authenticator. A refused principal's token is spent, too: it was good. The clock is
 * read again: libkrb5 read it after us, and an entry must outlive what libkrb5 would still take.
 */
static enum reason use_authenticator(const struct engine *engine, struct exchange *x)
{
    const struct request *q = &x->request;
    const struct replay_use use = {
        .authenticator = buf_span(&x->accepted.authenticator),
        .principal = span_of(x->accepted.identity.principal),
        .context = {q->repeat_id, span_of(q->listener->address), span_of(x->site->id), q->method,
                    span_of(x->host), q->uri},
        .context_count = q->repeat_id.len > 0 ? 6 : 0,
        .now_s = wall_clock_s(),
        .ctime_us = x->accepted.ctime_us,
        .keep_s = engine->keep_s,
    };
    const enum reason reason = replay_check(engine->parts.replay, &use, &x->entry);
    if (reason == REASON_REPLAY_UNAVAILABLE) {
        complain_replay(engine, x);
    }
    return reason;
}

/* From the token to a proven principal. */
static enum reason authenticate(const struct engine *engine, struct exchange *x)
{
    const struct config *config = engine->parts.config;
    enum reason reason = spnego_inspect(buf_span(&x->token), &x->spnego);
    if (reason != REASON_OK) {
        return reason;
    }
    const struct acceptor *acceptor = engine->acceptors[x->site - config->sites.items];
    if (acceptor == NULL) {
        return REASON_KEYTAB_UNAVAILABLE;
    }
    const uint64_t now_s = x->request.time_us / 1000000;
    const struct acceptor_ask ask = {
        .now_s = now_s, .ctime = replay_wants_ctime(engine->parts.replay, now_s, engine->keep_s)};
    reason = acceptor_accept(acceptor, x->kerberos, x->spnego.ap_req, &ask, &x->accepted);
    const bool accepted = reason == REASON_OK || reason == REASON_NAME_REFUSED;
    if (accepted && !policy_has_service(x->site, x->host, x->accepted.claimed_service)) {
        return REASON_WRONG_SERVICE;
    }
    if (accepted) {
        x->use = use_authenticator(engine, x);
        reason = x->use == REASON_OK || x->use == REASON_REPEAT ? reason : x->use;
    }
    return reason;
}

/* The walk, up to the decision; the first failure is the reason. */
static enum reason decide(const struct engine *engine, struct exchange *x)
{
    if (x->request.crowded) {
        return REASON_OVERLOAD;
    }
    if (x->request.waited_us > (uint64_t)engine->parts.config->limits.deadline_ms * 1000) {
        return REASON_DEADLINE;
    }
    enum reason reason = find_site(engine, x);
    if (reason == REASON_OK) {
        reason = http_parse_authorization(x->request.authorization,
                                          engine->parts.config->limits.header_bytes, &x->token);
    }
    if (reason == REASON_OK) {
        reason = authenticate(engine, x);
    }
    if (reason == REASON_OK) {
        reason = policy_check(x->site, &x->accepted.identity, &x->rule);
        reason = reason == REASON_OK ? x->use : reason;
        identity_apply_realms(&x->accepted.identity, x->site);
    }
    return reason;
}

/* The token that the answer carries, by what the reason's row says. */
static void make_reply(struct exchange *x)
{
    /* With a refusal only the KRB-ERROR goes out: an AP-REP would tell the client that it is in. */
    const bool refused = reason_info(x->reason)->challenge == CHALLENGE_REJECT;
    const struct span response = refused && x->reason != REASON_CLOCK_SKEW
                                     ? (struct span){NULL, 0}
                                     : buf_span(&x->accepted.reply);
    switch (reason_info(x->reason)->challenge) {
    case CHALLENGE_REPLY:
        if (x->spnego.framed) {
            spnego_format_completed(&x->reply, x->spnego.mech, response);
        } else {
            buf_append_span(&x->reply, response);
        }
        break;
    case CHALLENGE_CONTINUE:
        spnego_format_incomplete(&x->reply, x->spnego.mech);
        break;
    case CHALLENGE_REJECT:
        if (x->spnego.framed) {
            spnego_format_reject(&x->reply, response);
        } else {
            buf_append_span(&x->reply, response);
        }
        break;
    case CHALLENGE_BARE:
    case CHALLENGE_NONE:
        break;
    }
}

static uint64_t elapsed_us(const struct exchange *x)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return 0;
    }
    const uint64_t us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    return us > x->request.mono_us ? us - x->request.mono_us : 0;
}

static int64_t parse_port(struct span text)
{
    int64_t port = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9' || port > 65535) {
            return -1;
        }
        port = port * 10 + (text.ptr[i] - '0');
    }
    return text.len == 0 || port > 65535 ? -1 : port;
}

/* The request's part of the record: what the web server said. */
static void record_request(const struct exchange *x, struct audit_record *r)
{
    const struct request *q = &x->request;
    r->site = span_of(x->site != NULL ? x->site->id : NULL);
    r->server = q->server;
    r->sock = span_of(q->listener->address);
    r->peer = q->peer;
    r->peer_port = parse_port(q->peer_port);
    r->tls = q->https.len > 0
                 ? (span_equal_nocase(q->https, span_of("off")) ? AUDIT_FALSE : AUDIT_TRUE)
             : q->scheme.len > 0
                 ? (span_equal_nocase(q->scheme, span_of("https")) ? AUDIT_TRUE : AUDIT_FALSE)
                 : AUDIT_ABSENT;
    r->http_method = q->method;
    r->host = x->host[0] != '\0' ? span_of(x->host) : q->host;
    r->uri = q->uri;
    r->request_id = q->request_id;
    r->trace = q->trace;
}

static struct span text_or_absent(const char *text)
{
    return text[0] != '\0' ? span_of(text) : (struct span){NULL, 0};
}

/* As the trail calls them, in the order of enum acceptor_binding. */
static const char *const binding_words[] = {NULL, "none", "matched", "missing", "mismatch"};

/* Kerberos's part: what the acceptor found out. `scratch` holds text that the record borrows. */
static void record_accept(const struct exchange *x, struct audit_record *r,
                          char scratch[2][KEYTAB_ENCTYPE_BYTES])
{
    const struct acceptor_result *a = &x->accepted;
    r->has_gss = a->has_gss;
    r->gss_major = a->gss_major;
    r->gss_minor = a->gss_minor;
    r->gss_text = text_or_absent(a->gss_text);
    if (a->claimed) {
        const bool proven = a->identity.principal[0] != '\0';
        const struct span service = text_or_absent(a->claimed_service);
        r->ticket_realm = text_or_absent(a->claimed_realm);
        r->kvno = a->claimed_kvno;
        r->kvno_newest = a->kvno_newest;
        r->keytab_has = text_or_absent(a->keytab_has);
        if (proven) {
            r->service = service;
            r->enctype = span_of(keytab_enctype_text(a->session_enctype, scratch[0]));
            r->mutual = a->mutual ? AUDIT_TRUE : AUDIT_FALSE;
            r->deleg = a->deleg ? AUDIT_TRUE : AUDIT_FALSE;
        } else {
            r->claimed_service = service;
            r->claimed_kvno = a->claimed_kvno;
            r->claimed_enctype = span_of(keytab_enctype_text(a->claimed_enctype, scratch[1]));
        }
    }
    r->repeat_of = x->use == REASON_REPEAT ? x->entry.seq : 0;
    r->ticket_end_s = a->ticket_end_s;
    r->expired_s = a->expired_s;
    r->has_skew = a->has_skew;
    r->skew_s = a->skew_s;
    r->cb = binding_words[a->binding];
    r->principal = text_or_absent(a->identity.principal);
    r->user = text_or_absent(a->identity.user);
}

static unsigned site_slot(const struct engine *engine, const struct exchange *x)
{
    const struct engine_parts *parts = &engine->parts;
    return x->site != NULL ? parts->site_slots[x->site - parts->config->sites.items]
                           : METRICS_SITE_NONE;
}

static struct budget_limits failure_limits(const struct engine *engine)
{
    const struct config *config = engine->parts.config;
    return (struct budget_limits){config->audit.failures.rate, config->audit.failures.burst};
}

/*
 * Whether this one has no record of its own: a bare challenge, and a failure beyond the budget
 * (which a crowded request was let through by). It is counted instead.
 */
static bool is_only_counted(const struct engine *engine, const struct exchange *x)
{
    const struct engine_parts *parts = &engine->parts;
    const struct budget_limits limits = failure_limits(engine);
    const enum budget_sender sender =
        x->accepted.identity.principal[0] == '\0' ? BUDGET_STRANGER : BUDGET_PRINCIPAL;
    if (reason_info(x->reason)->outcome == OUTCOME_GRANTED ||
        (x->reason != REASON_NO_CREDENTIALS &&
         (x->request.crowded || budget_take(parts->budget, sender, &limits, x->request.mono_us)))) {
        return false;
    }
    budget_count(parts->budget, site_slot(engine, x), x->reason, x->request.time_us);
    return true;
}

/* Writes the record; the answer waits for it. */
static void record(const struct engine *engine, struct exchange *x)
{
    if (is_only_counted(engine, x)) {
        return;
    }
    char scratch[2][KEYTAB_ENCTYPE_BYTES];
    struct audit_record r;
    audit_record_init(&r);
    r.reason = x->reason;
    r.time_us = x->request.time_us;
    r.method = x->token.len > 0 ? "negotiate" : "none";
    r.mech = x->spnego.offered;
    r.rule = span_of(x->rule != NULL ? x->rule->where : NULL);
    r.us = (int64_t)elapsed_us(x);
    record_request(x, &r);
    record_accept(x, &r, scratch);
    uint64_t seq = 0;
    if (audit_append(engine->parts.audit, &r, x->audit_id, &seq) == REASON_OK) {
        if (x->use == REASON_OK && x->request.repeat_id.len > 0) {
            replay_note(engine->parts.replay, &x->entry, seq);
        }
    } else {
        metrics_count_audit_failure(engine->parts.metrics);
        if (log_rate_allow(&engine->complaints[COMPLAINT_AUDIT], x->request.mono_us / 1000, NULL)) {
            log_line(LOG_LEVEL_ERROR, "%s cannot be written: %s; sign-ins are answered 503",
                     engine->parts.config->audit.file,
                     strerror(audit_last_error(engine->parts.audit)));
        }
        x->reason = REASON_AUDIT_UNAVAILABLE;
        x->audit_id[0] = '\0';
    }
}

void engine_serve(const struct engine *engine, struct exchange *x,
                  void (*before_blocking)(void *arg), void *arg)
{
    x->reason = decide(engine, x);
    make_reply(x);
    if (x->reply.failed) {
        x->reason = REASON_INTERNAL;
    }
    if (engine->parts.config->audit.sync == CONFIG_SYNC_COMMIT && before_blocking != NULL) {
        before_blocking(arg);
    }
    record(engine, x);
    exchange_format_answer(x);
    metrics_count_decision(engine->parts.metrics, site_slot(engine, x), x->reason, elapsed_us(x));
    log_line(LOG_LEVEL_DEBUG, "%s: site %s: %s, record %s, %llu us", x->request.listener->address,
             x->site != NULL ? x->site->id : "-", reason_info(x->reason)->code,
             x->audit_id[0] != '\0' ? x->audit_id : "-", (unsigned long long)elapsed_us(x));
}

bool engine_may_record(const struct engine *engine, uint64_t mono_us)
{
    const struct budget_limits limits = failure_limits(engine);
    return budget_take(engine->parts.budget, BUDGET_STRANGER, &limits, mono_us);
}

void engine_suppress(const struct engine *engine, enum reason reason, uint64_t mono_us)
{
    const struct engine_parts *parts = &engine->parts;
    uint32_t before = 0;
    metrics_count_decision(parts->metrics, METRICS_SITE_NONE, reason, 0);
    budget_count(parts->budget, METRICS_SITE_NONE, reason, wall_clock_s() * 1000000);
    if (log_rate_allow(&engine->complaints[COMPLAINT_OVERLOAD], mono_us / 1000, &before)) {
        log_line(LOG_LEVEL_WARNING,
                 "more requests than can be served: %llu were answered 503 without a record each",
                 (unsigned long long)before + 1);
    }
}
