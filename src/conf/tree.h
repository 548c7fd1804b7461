/*
 * One YAML document as a tree of nodes with their positions, made from libyaml's events.
 * Strict on purpose: whatever could mean two things, or is cut, is refused here for all keys alike.
 * (Not called yaml.h: libyaml exports yaml_free() and its like.)
 */
#ifndef CONF_TREE_H
#define CONF_TREE_H

#include "base/bytes.h"
#include "base/fault.h"

enum { TREE_DEPTH_MAX = 16, TREE_NODES_MAX = 200000 };

enum tree_kind { TREE_SCALAR, TREE_LIST, TREE_MAP };

struct tree_node {
    enum tree_kind kind;
    unsigned line; /* both count from 1; columns count characters */
    unsigned column;
    bool plain;            /* a scalar without quotes */
    char *text;            /* a scalar: one line of UTF-8 without control bytes */
    struct tree_node *key; /* in a map: the scalar before the colon */
    struct tree_node *first;
    struct tree_node *last;
    struct tree_node *next;
    size_t count; /* of a list's items or a map's pairs */
    struct tree_node *made_before;
};

struct tree {
    struct tree_node *root;
    struct tree_node *newest; /* all nodes, for freeing */
    size_t count;
};

/*
 * Parses `file`; `path` is what faults call it. Refused: what YAML refuses, NUL, invalid UTF-8,
 * control bytes, no document or several, directives, anchors, aliases, tags, keys that are no
 * scalars, the same key twice, values of several lines, too much depth or too many nodes, and a
 * file whose last value has no line end (it may be cut).
 */
int tree_parse(struct span file, const char *path, struct tree **out, struct fault *fault);

/* NULL is allowed. */
void tree_free(struct tree *tree);

/* The value of `key` in a map; NULL when the map lacks it or `map` is no map. */
const struct tree_node *tree_find(const struct tree_node *map, const char *key);

#endif
