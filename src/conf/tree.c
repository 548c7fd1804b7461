#include "conf/tree.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct builder {
    const char *path;
    struct fault *fault;
    struct tree *tree;
    unsigned documents;
    size_t text_chars; /* characters before the spaces that end the file */
    size_t depth;
    struct {
        struct tree_node *node;
        struct tree_node *key; /* a map's key that waits for its value */
    } open[TREE_DEPTH_MAX];
};

static int fault_at(struct builder *b, size_t line, size_t column, const char *what)
{
    char where[sizeof b->fault->where];

    (void)snprintf(where, sizeof where, "%s:%zu:%zu", b->path, line, column);
    return fault_set(b->fault, where, "%s", what);
}

static int fault_at_mark(struct builder *b, yaml_mark_t mark, const char *what)
{
    return fault_at(b, mark.line + 1, mark.column + 1, what);
}

/* For faults that libyaml gives as an offset of bytes only. */
static int fault_at_offset(struct builder *b, struct span file, size_t offset, const char *what)
{
    size_t line = 1;
    size_t column = 1;

    for (size_t i = 0; i < offset && i < file.len; i++) {
        if (file.ptr[i] == '\n') {
            line++;
            column = 1;
        } else if ((file.ptr[i] & 0xC0) != 0x80) {
            column++;
        }
    }
    return fault_at(b, line, column, what);
}

static int fault_of_parser(struct builder *b, struct span file, const yaml_parser_t *parser)
{
    char what[sizeof b->fault->what];

    if (parser->error == YAML_MEMORY_ERROR) {
        return fault_set(b->fault, b->path, "out of memory");
    }
    if (parser->error == YAML_READER_ERROR) {
        (void)snprintf(what, sizeof what, "not a text in UTF-8: %s", parser->problem);
        return fault_at_offset(b, file, parser->problem_offset, what);
    }
    (void)snprintf(what, sizeof what, "not valid YAML: %s%s%s", parser->problem,
                   parser->context != NULL ? ", " : "",
                   parser->context != NULL ? parser->context : "");
    return fault_at_mark(b, parser->problem_mark, what);
}

static struct tree_node *make_node(struct builder *b, enum tree_kind kind, yaml_mark_t mark)
{
    struct tree_node *node = NULL;

    if (b->tree->count == TREE_NODES_MAX) {
        (void)fault_at_mark(b, mark, "too many values in one file");
        return NULL;
    }
    node = calloc(1, sizeof *node);
    if (node == NULL) {
        (void)fault_set(b->fault, b->path, "out of memory");
        return NULL;
    }
    node->kind = kind;
    node->line = (unsigned)mark.line + 1;
    node->column = (unsigned)mark.column + 1;
    node->made_before = b->tree->newest;
    b->tree->newest = node;
    b->tree->count++;
    return node;
}

static int take_text(struct builder *b, const yaml_event_t *event, struct tree_node *node)
{
    const unsigned char *value = event->data.scalar.value;
    size_t len = event->data.scalar.length;
    yaml_scalar_style_t style = event->data.scalar.style;

    if (event->start_mark.line != event->end_mark.line || style == YAML_LITERAL_SCALAR_STYLE ||
        style == YAML_FOLDED_SCALAR_STYLE) {
        return fault_at_mark(
            b, event->start_mark,
            "a value must stand on one line (is a bracket or a quote not closed?)");
    }
    for (size_t i = 0; i < len; i++) {
        if (value[i] < 0x20 || value[i] == 0x7F) {
            return fault_at_mark(b, event->start_mark, "a control byte in a value");
        }
    }
    node->plain = style == YAML_PLAIN_SCALAR_STYLE;
    /* Quotes and brackets show a cut by themselves, a plain word does not. */
    if (node->plain && event->end_mark.index >= b->text_chars) {
        return fault_at_mark(b, event->start_mark,
                             "the file ends within a line: it may be cut; end it with a newline");
    }
    node->text = malloc(len + 1);
    if (node->text == NULL) {
        return fault_set(b->fault, b->path, "out of memory");
    }
    memcpy(node->text, value, len);
    node->text[len] = '\0';
    return 0;
}

static void attach(struct builder *b, struct tree_node *node)
{
    struct tree_node *parent = NULL;

    if (b->depth == 0) {
        b->tree->root = node;
        return;
    }
    parent = b->open[b->depth - 1].node;
    if (parent->kind == TREE_MAP) {
        struct tree_node **key = &b->open[b->depth - 1].key;

        if (*key == NULL) {
            *key = node;
            return;
        }
        node->key = *key;
        *key = NULL;
    }
    if (parent->last != NULL) {
        parent->last->next = node;
    } else {
        parent->first = node;
    }
    parent->last = node;
    parent->count++;
}

static bool key_is_next(const struct builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1].node->kind == TREE_MAP &&
           b->open[b->depth - 1].key == NULL;
}

static int add_node(struct builder *b, enum tree_kind kind, const yaml_event_t *event)
{
    const void *anchor = NULL;
    const void *tag = NULL;
    struct tree_node *node = NULL;

    if (kind == TREE_SCALAR) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (kind == TREE_LIST) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor != NULL) {
        return fault_at_mark(b, event->start_mark, "anchors (&) are not allowed");
    }
    if (tag != NULL) {
        return fault_at_mark(b, event->start_mark, "tags (!) are not allowed");
    }
    if (kind != TREE_SCALAR && key_is_next(b)) {
        return fault_at_mark(b, event->start_mark, "a key must be a single word");
    }
    if (kind != TREE_SCALAR && b->depth == TREE_DEPTH_MAX) {
        return fault_at_mark(b, event->start_mark, "lists and keys are nested too deep");
    }
    node = make_node(b, kind, event->start_mark);
    if (node == NULL || (kind == TREE_SCALAR && take_text(b, event, node) != 0)) {
        return -1;
    }
    attach(b, node);
    if (kind != TREE_SCALAR) {
        b->open[b->depth].node = node;
        b->open[b->depth].key = NULL;
        b->depth++;
    }
    return 0;
}

struct key {
    const struct tree_node *node;
};

static int compare_keys(const void *left, const void *right)
{
    const struct tree_node *a = ((const struct key *)left)->node;
    const struct tree_node *b = ((const struct key *)right)->node;
    int order = strcmp(a->text, b->text);

    if (order == 0) {
        order = a->line != b->line ? (a->line < b->line ? -1 : 1)
                                   : (a->column > b->column) - (a->column < b->column);
    }
    return order;
}

/* Sorted, so that a file of nothing but keys does not take its square in time. */
static int check_duplicates(struct builder *b, const struct tree_node *map)
{
    struct key *keys = NULL;
    char what[160];
    size_t count = 0;
    int r = 0;

    if (map->count < 2) {
        return 0;
    }
    keys = calloc(map->count, sizeof *keys);
    if (keys == NULL) {
        return fault_set(b->fault, b->path, "out of memory");
    }
    for (const struct tree_node *value = map->first; value != NULL; value = value->next) {
        keys[count++].node = value->key;
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t i = 1; i < count && r == 0; i++) {
        if (strcmp(keys[i - 1].node->text, keys[i].node->text) == 0) {
            (void)snprintf(what, sizeof what, "the key \"%.64s\" a second time (first at %u:%u)",
                           keys[i].node->text, keys[i - 1].node->line, keys[i - 1].node->column);
            r = fault_at(b, keys[i].node->line, keys[i].node->column, what);
        }
    }
    free(keys);
    return r;
}

static int close_node(struct builder *b)
{
    const struct tree_node *node = b->open[--b->depth].node;

    assert(node != NULL);
    return node->kind == TREE_MAP ? check_duplicates(b, node) : 0;
}

static int start_document(struct builder *b, const yaml_event_t *event)
{
    if (b->documents++ > 0) {
        return fault_at_mark(b, event->start_mark, "a second document: only one is allowed");
    }
    if (event->data.document_start.version_directive != NULL ||
        event->data.document_start.tag_directives.start !=
            event->data.document_start.tag_directives.end) {
        return fault_at_mark(b, event->start_mark, "directives (%) are not allowed");
    }
    return 0;
}

static int take_event(struct builder *b, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return start_document(b, event);
    case YAML_ALIAS_EVENT:
        return fault_at_mark(b, event->start_mark, "aliases (*) are not allowed: quote the word");
    case YAML_SCALAR_EVENT:
        return add_node(b, TREE_SCALAR, event);
    case YAML_SEQUENCE_START_EVENT:
        return add_node(b, TREE_LIST, event);
    case YAML_MAPPING_START_EVENT:
        return add_node(b, TREE_MAP, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_node(b);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_STREAM_END_EVENT:
        return 0;
    }
    return fault_at_mark(b, event->start_mark, "an unknown part of YAML");
}

static int read_events(struct builder *b, struct span file)
{
    yaml_parser_t parser;
    int r = -1;

    if (yaml_parser_initialize(&parser) != 1) {
        return fault_set(b->fault, b->path, "out of memory");
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, file.ptr, file.len);
    for (;;) {
        yaml_event_t event;
        bool last = false;

        if (yaml_parser_parse(&parser, &event) != 1) {
            r = fault_of_parser(b, file, &parser);
            break;
        }
        last = event.type == YAML_STREAM_END_EVENT;
        r = take_event(b, &event);
        yaml_event_delete(&event);
        if (r != 0 || last) {
            break;
        }
    }
    yaml_parser_delete(&parser);
    return r;
}

static size_t count_text_chars(struct span file)
{
    size_t chars = 0;

    while (file.len > 0 && (file.ptr[file.len - 1] == ' ' || file.ptr[file.len - 1] == '\t')) {
        file.len--;
    }
    for (size_t i = 0; i < file.len; i++) {
        chars += (file.ptr[i] & 0xC0) != 0x80;
    }
    return chars;
}

static struct span skip_byte_order_mark(struct span file)
{
    static const unsigned char mark[] = {0xEF, 0xBB, 0xBF};

    if (file.len >= sizeof mark && memcmp(file.ptr, mark, sizeof mark) == 0) {
        return span_make(file.ptr + sizeof mark, file.len - sizeof mark);
    }
    return file;
}

int tree_parse(struct span file, const char *path, struct tree **out, struct fault *fault)
{
    struct builder b = {.path = path, .fault = fault};
    const unsigned char *nul = NULL;

    /* libyaml would count it as a column. */
    file = skip_byte_order_mark(file);
    b.text_chars = count_text_chars(file);
    nul = file.len > 0 ? memchr(file.ptr, '\0', file.len) : NULL;
    if (nul != NULL) {
        return fault_at_offset(&b, file, (size_t)(nul - file.ptr), "a NUL byte");
    }
    if (file.len == 0) {
        return fault_at(&b, 1, 1, "the file is empty");
    }
    b.tree = calloc(1, sizeof *b.tree);
    if (b.tree == NULL) {
        return fault_set(fault, path, "out of memory");
    }
    if (read_events(&b, file) != 0) {
        tree_free(b.tree);
        return -1;
    }
    if (b.tree->root == NULL) {
        tree_free(b.tree);
        return fault_at(&b, 1, 1, "the file holds no configuration");
    }
    *out = b.tree;
    return 0;
}

void tree_free(struct tree *tree)
{
    if (tree == NULL) {
        return;
    }
    while (tree->newest != NULL) {
        struct tree_node *node = tree->newest;

        tree->newest = node->made_before;
        free(node->text);
        free(node);
    }
    free(tree);
}

const struct tree_node *tree_find(const struct tree_node *map, const char *key)
{
    if (map->kind != TREE_MAP) {
        return NULL;
    }
    for (const struct tree_node *value = map->first; value != NULL; value = value->next) {
        if (strcmp(value->key->text, key) == 0) {
            return value;
        }
    }
    return NULL;
}
