/* The types that a key's value can have: each reads a node and stores what it means. */
#ifndef CONF_READ_H
#define CONF_READ_H

#include "conf/directive.h"

#define READER(name)                                                                               \
    int name(struct reader *r, const struct directive *d, const struct tree_node *node, void *field)

/* Single values; what `field` points to. */
READER(read_text);     /* char *, checked by d->check */
READER(read_number);   /* unsigned */
READER(read_number64); /* uint64_t */
READER(read_size);     /* size_t */
READER(read_duration); /* unsigned, milliseconds */
READER(read_mode);     /* mode_t */
READER(read_word);     /* an enum whose values count d->words from 0 */
READER(read_workers);  /* unsigned; `auto` is 0 */

/* Several values. */
READER(read_texts); /* struct config_strings, through d->check or d->normalise */
READER(read_map);   /* the same object, by the rows of d->inside */

/* Accounts of this machine. */
READER(read_user);  /* struct config: user, uid, gid */
READER(read_group); /* struct config_listener: gid */
READER(read_peers); /* struct config_listener: peers */

/* The parts of a configuration. */
READER(read_listeners);      /* struct config */
READER(read_unix);           /* struct config_listener */
READER(read_tcp);            /* struct config_listener */
READER(read_socket);         /* struct config_listener */
READER(read_listener_sites); /* struct config_listener; r->config->sites is complete by then */
READER(read_sites);          /* struct config */
READER(read_services);       /* struct config_site */
READER(read_realms);         /* struct config_site */
READER(read_rules);          /* struct config_site */

#endif
