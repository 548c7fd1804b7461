#include "cmd/explain.h"

#include "auth/acceptor.h"
#include "auth/binding.h"
#include "auth/keytab.h"
#include "auth/policy.h"
#include "cmd/view.h"
#include "wire/http.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

/* One look at one site. */
struct look {
    const struct explain *e;
    const struct config_site *site;
    const char *host; /* the one that is asked for; NULL: not known */
    struct span ap_req;
    struct acceptor_result *result;
    struct acceptor_view view;
    enum reason reason;
    bool loaded; /* the keytab could be read */
    bool hidden; /* by us only: the daemon's user cannot */
    struct fault fault;
};

/* Whether the daemon's user may read what we, who may be root, can read. */
static bool is_readable(const struct look *look)
{
    struct view view;

    view_try(look->e->config, VIEW_READ, look->site->keytab, &view);
    return view.answer != VIEW_REFUSED;
}

/* What the daemon would find, up to the rules; the replay table is left alone. */
static void judge(struct look *look)
{
    const struct config_site *site = look->site;
    struct keytab *keytab = NULL;
    struct acceptor *acceptor = NULL;
    struct acceptor_thread *thread = NULL;
    struct binding_list bindings = {0};
    const struct acceptor_options options = {.where = site->keytab,
                                             .weak_allowed = site->enctypes == CONFIG_ENCTYPES_ANY,
                                             .channel_binding = site->channel_binding,
                                             .bindings = &bindings};

    look->reason = REASON_KEYTAB_UNAVAILABLE;
    if (keytab_load(site->keytab, &keytab, &look->fault) == 0 &&
        binding_load(site->certificates.items, site->certificates.count, &bindings, &look->fault) ==
            0) {
        if (acceptor_open(keytab, &options, &acceptor, &look->fault) == 0 &&
            acceptor_thread_open(&thread, &look->fault) == 0) {
            look->loaded = true;
            look->reason = acceptor_explain(acceptor, thread, look->ap_req, look->e->now_s,
                                            look->result, &look->view);
        }
        acceptor_thread_close(thread);
        acceptor_close(acceptor);
        binding_free(&bindings);
    }
    keytab_free(keytab);
    if (look->loaded && !is_readable(look)) {
        look->hidden = true;
        look->reason = REASON_KEYTAB_UNAVAILABLE;
    }
    if ((look->reason == REASON_OK || look->reason == REASON_NAME_REFUSED) &&
        !policy_has_service(site, look->host, look->result->claimed_service)) {
        look->reason = REASON_WRONG_SERVICE;
    }
}

static void say_times(const struct look *look)
{
    const struct acceptor_view *view = &look->view;
    const int64_t now_s = (int64_t)look->e->now_s;
    char start[EXPLAIN_TIME_BYTES];
    char end[EXPLAIN_TIME_BYTES];
    char ago[EXPLAIN_TIME_BYTES];

    explain_line(1, "ticket", "from %s to %s", explain_date(view->start_s, start),
                 explain_date(view->end_s, end));
    if (look->result->expired_s >= 0) {
        explain_line(1, "expired", "since %s", explain_duration(look->result->expired_s, ago));
    } else if (view->start_s > now_s) {
        explain_line(1, "begins", "in %s", explain_duration(view->start_s - now_s, ago));
    }
    if (!view->made) {
        return;
    }
    const int64_t off_s = view->made_s - now_s;
    explain_line(1, "token made", "%s by the client's clock, %s %s by this host's",
                 explain_date(view->made_s, start), explain_duration(off_s, ago),
                 off_s > 0 ? "ahead" : "ago");
    if (look->reason == REASON_CLOCK_SKEW) {
        explain_line(1, "note", "%s",
                     off_s > 0 ? "the client's clock is ahead of this host's"
                               : "a token counts for the allowed skew only: if it was just sent, "
                                 "the client's clock is behind; if it was kept, its age alone "
                                 "says nothing about the sign-in");
    }
}

/* GSS_C_*_FLAG, RFC 4121 4.1.1.1. */
static void say_flags(const struct acceptor_view *view)
{
    static const char *const words[] = {"delegation", "mutual",          "replay",
                                        "sequence",   "confidentiality", "integrity"};
    char list[128] = "";
    size_t at = 0;

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if ((view->flags & (1U << i)) != 0) {
            at +=
                (size_t)snprintf(list + at, sizeof list - at, "%s%s", at > 0 ? ", " : "", words[i]);
        }
    }
    explain_line(1, "asked for", "%s", at > 0 ? list : "nothing");
    explain_line(1, "channel binding", "%s", view->bound ? "the client sent one" : "none was sent");
}

/* What is inside a ticket that could be opened. */
static void say_opened(const struct look *look)
{
    const struct acceptor_view *view = &look->view;
    char quoted[EXPLAIN_QUOTE_BYTES];
    char enctype[KEYTAB_ENCTYPE_BYTES];

    explain_line(1, "opened", "yes");
    explain_line(1, "principal", "%s",
                 explain_quote(span_of(look->result->identity.principal), quoted));
    say_times(look);
    explain_line(1, "session key", "%s",
                 keytab_enctype_text(look->result->session_enctype, enctype));
    if (view->addresses == 0) {
        explain_line(1, "addresses", "any");
    } else {
        explain_line(1, "addresses", "tied to %zu", view->addresses);
    }
    if (view->has_flags) {
        say_flags(view);
    }
}

static void say_closed(const struct look *look)
{
    const struct acceptor_result *result = look->result;
    char quoted[EXPLAIN_QUOTE_BYTES];
    char enctype[KEYTAB_ENCTYPE_BYTES];

    explain_line(1, "opened", "no");
    if (!look->loaded) {
        explain_line(1, "keytab", "%s: %s", look->fault.where, look->fault.what);
    }
    if (result->keytab_has[0] != '\0') {
        explain_line(1, "asked for", "%s, kvno %" PRId64 ", %s",
                     explain_quote(span_of(result->claimed_service), quoted),
                     result->claimed_kvno < 0 ? 0 : result->claimed_kvno,
                     keytab_enctype_text(result->claimed_enctype, enctype));
        explain_line(1, "the keytab has", "%s", explain_quote(span_of(result->keytab_has), quoted));
    }
}

/* What comes after a good accept: the rules. Returns the exit status. */
static int say_verdict(const struct look *look)
{
    struct identity *identity = &look->result->identity;
    const struct config_rule *rule = NULL;
    enum reason reason = look->reason;
    char quoted[EXPLAIN_QUOTE_BYTES];

    if (reason == REASON_OK) {
        reason = policy_check(look->site, identity, &rule);
    }
    if (reason != REASON_OK) {
        return explain_reason(1, reason);
    }
    identity_apply_realms(identity, look->site);
    explain_line(1, "user", "%s by the rule at %s", explain_quote(span_of(identity->user), quoted),
                 rule->where);
    explain_line(1, "note", "this holds unless the token was used before: that is replay");
    return explain_reason(1, REASON_OK);
}

static int say_site(const struct look *look)
{
    char quoted[EXPLAIN_QUOTE_BYTES];

    explain_line(0, "site", "%s, keytab %s", look->site->id,
                 explain_quote(span_of(look->site->keytab), quoted));
    if (look->view.opened) {
        say_opened(look);
    } else {
        say_closed(look);
    }
    explain_rotation(1, look->result->claimed_kvno, look->result->kvno_newest);
    if (look->hidden) {
        explain_line(1, "keytab", "the daemon's user cannot read it; `spnegate check` says more");
    }
    explain_line(1, "note",
                 "this is what the files say now; a daemon whose reload was refused still "
                 "has what it loaded before");
    return say_verdict(look);
}

/* The site of --host or --site; NULL when there is none. */
static const struct config_site *find_site(const struct explain *e, char host[HTTP_HOST_BYTES])
{
    const struct config *config = e->config;
    const struct config_site *found = NULL;

    if (e->host != NULL && http_parse_host(span_of(e->host), host) == REASON_OK) {
        for (size_t i = 0; i < config->listeners.count && found == NULL; i++) {
            found = config_find_site(config, &config->listeners.items[i], host);
        }
    }
    for (size_t i = 0; e->site != NULL && i < config->sites.count; i++) {
        if (strcmp(config->sites.items[i].id, e->site) == 0) {
            found = &config->sites.items[i];
        }
    }
    return found;
}

/* Every site whose keytab knows the service, or all of them when none does. */
static int say_all(struct look *look)
{
    const struct config *config = look->e->config;
    bool known = false;
    int status = 1;

    for (unsigned pass = 0; pass < 2 && !known; pass++) {
        for (size_t i = 0; i < config->sites.count; i++) {
            look->site = &config->sites.items[i];
            look->loaded = look->hidden = false;
            acceptor_result_clear(look->result);
            judge(look);
            if ((look->loaded && look->reason != REASON_UNKNOWN_SERVICE) || pass == 1) {
                known = pass == 0 || known;
                status = say_site(look) == EX_OK ? EX_OK : status;
            }
        }
    }
    return status;
}

int explain_sites(const struct explain *e, struct span ap_req)
{
    static struct acceptor_result result;
    struct look look = {.e = e, .ap_req = ap_req, .result = &result};
    char host[HTTP_HOST_BYTES] = "";
    int status;

    if (e->config == NULL) {
        explain_line(0, "keytab", "none was looked at: there is no configuration (-c FILE)");
        return EX_OK;
    }
    if (e->host == NULL && e->site == NULL) {
        status = say_all(&look);
    } else {
        look.site = find_site(e, host);
        look.host = e->host != NULL ? host : NULL;
        if (look.site == NULL && e->site != NULL) {
            explain_line(0, "site", "no site has this name");
            return EX_CONFIG;
        }
        if (look.site == NULL) {
            return explain_reason(0, e->host[0] != '\0' ? REASON_UNKNOWN_HOST : REASON_NO_HOST);
        }
        acceptor_result_clear(&result);
        judge(&look);
        status = say_site(&look);
    }
    acceptor_result_free(&result);
    return status;
}
