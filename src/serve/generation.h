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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct generation {
    unsigned number;
    struct config *config;
    struct config_listener inherited; /* descriptor 0, when it is a listening socket */
    struct front_listener *listeners;
    size_t listener_count;
    struct keytab **keytabs;       /* one a site; NULL where it could not be loaded */
    struct binding_list *bindings; /* one a site; empty with channel_binding: off */
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
