/*
 * A generation: one configuration with its keytabs and listeners, loaded whole or not at all.
 * Workers belong to one; a worker that is replaced gets the generation's keys from memory, whatever
 * the files say by then.
 */
#ifndef SERVE_GENERATION_H
#define SERVE_GENERATION_H

#include "auth/binding.h"
#include "auth/keytab.h"
#include "base/fault.h"
#include "conf/config.h"
#include "serve/front.h"
#include "trail/metrics.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How one site's keytab was when it was read, for those who ask; the principals are the keytab's.
 */
enum { GENERATION_PRINCIPALS_MAX = 16 };
struct generation_keytab {
    uint64_t mark; /* of the file, from before it was read */
    struct {
        const char *principal;
        uint32_t kvno;
    } newest[GENERATION_PRINCIPALS_MAX];
    size_t count;
    bool cut; /* there are more principals */
};

struct generation {
    unsigned number;
    struct config *config;
    struct config_listener inherited; /* descriptor 0, when it is a listening socket */
    struct front_listener *listeners;
    size_t listener_count;
    struct keytab **keytabs;          /* one a site; NULL where it could not be loaded */
    struct binding_list *bindings;    /* one a site; empty with channel_binding: off */
    struct generation_keytab *loaded; /* one a site */
    unsigned *site_slots;             /* of metrics, one a site */
    int descriptors;                  /* how many a worker may have */
    uint64_t files; /* what generation_files said before keytabs and certificates were read */
};

/*
 * Loads the configuration and opens its listeners, taking over those that `before` (NULL: none) has
 * already. Returns 0 or the exit status that the fault means.
 */
int generation_open(const char *path, const struct generation *before, struct generation **out,
                    struct fault *fault);

/*
 * Loads the keytabs and certificates. A certificate that cannot be used is a fault. With `every`
 * the first keytab that cannot be loaded is the fault; without it each such one is logged and its
 * site answers keytab_unavailable, and only if none can be loaded that is a fault.
 */
int generation_load_files(struct generation *generation, bool every, struct fault *fault);

/* Claims the slots of its sites and listeners; before its workers are forked. */
void generation_claim(struct generation *generation, struct metrics *metrics);

/*
 * Looks at a site's keytab file: when it was modified (seconds since 1970), and whether it is
 * another than what serves. False when there is no file to be seen; it has changed then.
 */
bool generation_look(const struct generation *generation, size_t site, uint64_t *mtime_s,
                     bool *changed);

/* The first keytab file that is another than what serves; NULL: none is. */
const char *generation_changed_keytab(const struct generation *generation);

/* Makes this process's log as talkative as the generation says. */
void generation_limit_log(const struct generation *generation);

/* A number that changes when a keytab, a certificate or krb5.conf is changed, replaced, removed or
 * becomes unreadable. */
uint64_t generation_files(const struct generation *generation);

/*
 * For a new worker: closes the listeners that are not `keeper`'s, and forgets them; a listening
 * socket that nobody accepts from would keep its address. NULL is allowed.
 */
void generation_close_listeners(struct generation *generation, const struct generation *keeper);

/* Closes the listeners that `keeper` (NULL: nobody) has not taken over, wipes the keys, frees. */
void generation_close(struct generation *generation, const struct generation *keeper,
                      bool unlink_paths);

#endif
