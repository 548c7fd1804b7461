/* The table of all keys of the configuration, and the walk through one map by that table. */
#ifndef CONF_DIRECTIVE_H
#define CONF_DIRECTIVE_H

#include "conf/config.h"
#include "conf/tree.h"

/* The map that a key stands in. */
enum scope {
    SCOPE_TOP,
    SCOPE_LISTENER,
    SCOPE_FORWARDED,
    SCOPE_LIMITS,
    SCOPE_REPLAY,
    SCOPE_AUDIT,
    SCOPE_FAILURES,
    SCOPE_LOG,
    SCOPE_SITE,
    SCOPE_SITE_USER,
    SCOPE_RULE
};

enum presence {
    OPTIONAL,
    REQUIRED,
    RESERVED /* kept free for a later version */
};

/* One load: what every reader needs. */
struct reader {
    const char *path;
    const char *base; /* the last component of `path` */
    struct config *config;
    struct fault *fault;
};

struct directive {
    enum scope scope;
    const char *key;
    enum presence presence;
    /* The type: reads `node` and stores it in `field`, which is `offset` bytes into the object. */
    int (*read)(struct reader *r, const struct directive *d, const struct tree_node *node,
                void *field);
    size_t offset;
    const char *help; /* what the key holds, for "missing key" */
    uint64_t min;     /* for a mode: the bits that must be there */
    uint64_t max;     /* for a mode: the bits that may be there */
    const char *words[4];
    enum scope inside; /* the scope of a nested map */
    const char *(*check)(const char *text);
    const char *(*normalise)(const char *text, char *out);
};

/* The rows of the table one by one; NULL behind the last. */
const struct directive *directive_row(size_t at);

/*
 * Reads one map by the rows of `scope` into `object`: first all keys are known ones, then each row
 * in the order of the table, so that a row may rely on the rows above it.
 */
int directive_read(struct reader *r, enum scope scope, const struct tree_node *map, void *object);

/* Whether `text` looks like a slip of the pen for `word`. */
bool directive_is_near(const char *text, const char *word);

/* A fault at a node's position; returns -1. */
int reader_fault(const struct reader *r, const struct tree_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "file:line:column" of a node, owned by the caller; NULL and a fault when there is no memory. */
char *reader_where(const struct reader *r, const struct tree_node *node);

#endif
