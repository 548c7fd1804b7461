#include "conf/read.h"

#include "conf/value.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACCOUNT_BYTES_MAX = 1 << 20 };

static int out_of_memory(struct reader *r)
{
    return fault_set(r->fault, r->path, "out of memory");
}

/* A key without a value is a plain scalar with no text. */
static int check_scalar(struct reader *r, const struct directive *d, const struct tree_node *node)
{
    if (node->kind != TREE_SCALAR) {
        return reader_fault(r, node, "%s: a single value is expected here, not %s", d->key,
                            node->kind == TREE_LIST ? "a list" : "keys");
    }
    if (node->text[0] == '\0') {
        return reader_fault(r, node, "%s: has no value", d->key);
    }
    return 0;
}

static int fault_value(struct reader *r, const struct directive *d, const struct tree_node *node,
                       const char *complaint)
{
    return reader_fault(r, node, "%s: \"%.128s\" %s", d->key, node->text, complaint);
}

static int check_range(struct reader *r, const struct directive *d, const struct tree_node *node,
                       uint64_t value)
{
    if (value < d->min || value > d->max) {
        return reader_fault(r, node, "%s: %.32s is out of range, %llu to %llu", d->key, node->text,
                            (unsigned long long)d->min, (unsigned long long)d->max);
    }
    return 0;
}

READER(read_text)
{
    char **out = field;
    const char *complaint = NULL;

    if (check_scalar(r, d, node) != 0) {
        return -1;
    }
    complaint = d->check(node->text);
    if (complaint != NULL) {
        return fault_value(r, d, node, complaint);
    }
    /* A default may stand there. */
    free(*out);
    *out = strdup(node->text);
    return *out != NULL ? 0 : out_of_memory(r);
}

READER(read_number64)
{
    const char *complaint = NULL;
    uint64_t value = 0;

    if (check_scalar(r, d, node) != 0) {
        return -1;
    }
    complaint = value_number(node->text, &value);
    if (complaint != NULL) {
        return fault_value(r, d, node, complaint);
    }
    if (check_range(r, d, node, value) != 0) {
        return -1;
    }
    *(uint64_t *)field = value;
    return 0;
}

READER(read_number)
{
    uint64_t value = 0;

    if (read_number64(r, d, node, &value) != 0) {
        return -1;
    }
    *(unsigned *)field = (unsigned)value;
    return 0;
}

READER(read_workers)
{
    if (node->kind == TREE_SCALAR && strcmp(node->text, "auto") == 0) {
        *(unsigned *)field = 0;
        return 0;
    }
    return read_number(r, d, node, field);
}

static void format_size(uint64_t bytes, char *out, size_t size)
{
    const char *unit = "B";

    if (bytes % (1UL << 20) == 0) {
        bytes /= 1UL << 20;
        unit = "MiB";
    } else if (bytes % 1024 == 0) {
        bytes /= 1024;
        unit = "KiB";
    }
    (void)snprintf(out, size, "%llu%s", (unsigned long long)bytes, unit);
}

READER(read_size)
{
    const char *complaint = NULL;
    uint64_t value = 0;

    if (check_scalar(r, d, node) != 0) {
        return -1;
    }
    complaint = value_size(node->text, &value);
    if (complaint != NULL) {
        return fault_value(r, d, node, complaint);
    }
    if (value < d->min || value > d->max) {
        char least[32];
        char most[32];

        format_size(d->min, least, sizeof least);
        format_size(d->max, most, sizeof most);
        return reader_fault(r, node, "%s: %.32s is out of range, %s to %s", d->key, node->text,
                            least, most);
    }
    *(size_t *)field = (size_t)value;
    return 0;
}

READER(read_duration)
{
    const char *complaint = NULL;
    uint64_t value = 0;

    if (check_scalar(r, d, node) != 0) {
        return -1;
    }
    complaint = value_duration(node->text, &value);
    if (complaint != NULL) {
        return fault_value(r, d, node, complaint);
    }
    if (value < d->min || value > d->max) {
        return reader_fault(r, node, "%s: %.32s is out of range, %llums to %llus", d->key,
                            node->text, (unsigned long long)d->min,
                            (unsigned long long)d->max / 1000);
    }
    *(unsigned *)field = (unsigned)value;
    return 0;
}

READER(read_mode)
{
    const char *complaint = NULL;
    mode_t value = 0;

    if (check_scalar(r, d, node) != 0) {
        return -1;
    }
    complaint = value_mode(node->text, &value);
    if (complaint != NULL) {
        return fault_value(r, d, node, complaint);
    }
    if ((value & ~d->max & 02) != 0) {
        return fault_value(r, d, node, "would let everybody write");
    }
    if ((value & d->min) != d->min) {
        return fault_value(r, d, node, "must let the owner read and write");
    }
    *(mode_t *)field = value;
    return 0;
}

READER(read_word)
{
    enum { WORDS_MAX = sizeof d->words / sizeof d->words[0] };
    const char *nearest = NULL;
    char all[128] = "";
    size_t len = 0;

    if (check_scalar(r, d, node) != 0) {
        return -1;
    }
    for (int i = 0; i < WORDS_MAX && d->words[i] != NULL; i++) {
        if (strcmp(node->text, d->words[i]) == 0) {
            *(int *)field = i;
            return 0;
        }
        if (nearest == NULL && directive_is_near(node->text, d->words[i])) {
            nearest = d->words[i];
        }
        len += (size_t)snprintf(all + len, sizeof all - len, "%s`%s`", i > 0 ? " or " : "",
                                d->words[i]);
    }
    if (nearest != NULL) {
        return reader_fault(r, node, "%s: \"%s\" is not one of the words %s (did you mean \"%s\"?)",
                            d->key, node->text, all, nearest);
    }
    return reader_fault(r, node, "%s: \"%.64s\" is not one of the words %s", d->key, node->text,
                        all);
}

READER(read_map)
{
    return directive_read(r, d->inside, node, field);
}

/*
 * How many items a list has, one word standing for a list of one; 0 and a fault when it has none.
 */
static size_t count_items(struct reader *r, const struct directive *d, const struct tree_node *node)
{
    if (node->kind == TREE_SCALAR) {
        return 1;
    }
    if (node->kind == TREE_MAP) {
        (void)reader_fault(r, node, "%s: a list is expected here, not keys", d->key);
        return 0;
    }
    if (node->count == 0) {
        (void)reader_fault(r, node, "%s: the list is empty", d->key);
    }
    return node->count;
}

static const struct tree_node *first_of(const struct tree_node *node)
{
    return node->kind == TREE_LIST ? node->first : node;
}

READER(read_texts)
{
    struct config_strings *out = field;
    const struct tree_node *item = first_of(node);
    size_t count = count_items(r, d, node);

    if (count == 0) {
        return -1;
    }
    out->items = calloc(count, sizeof *out->items);
    if (out->items == NULL) {
        return out_of_memory(r);
    }
    for (size_t i = 0; i < count; i++, item = item->next) {
        char normal[VALUE_HOST_BYTES];
        const char *text = item->text;
        const char *complaint = NULL;

        if (check_scalar(r, d, item) != 0) {
            return -1;
        }
        if (d->normalise != NULL) {
            complaint = d->normalise(item->text, normal);
            text = normal;
        } else {
            complaint = d->check(item->text);
        }
        if (complaint != NULL) {
            return fault_value(r, d, item, complaint);
        }
        out->items[i] = strdup(text);
        if (out->items[i] == NULL) {
            return out_of_memory(r);
        }
        out->count++;
    }
    return 0;
}

/* Runs a lookup of the C library with as much room as it asks for. */
static int look_up(struct reader *r, const struct directive *d, const struct tree_node *node,
                   const char *what, int (*once)(const char *text, char *room, size_t size, void *),
                   void *out)
{
    int error = ERANGE;

    for (size_t size = 4096; error == ERANGE && size <= ACCOUNT_BYTES_MAX; size *= 4) {
        char *room = malloc(size);

        if (room == NULL) {
            return out_of_memory(r);
        }
        do {
            error = once(node->text, room, size, out);
        } while (error == EINTR);
        free(room);
    }
    if (error == ENOENT) {
        return reader_fault(r, node, "%s: there is no %s \"%.64s\" on this machine", d->key, what,
                            node->text);
    }
    if (error != 0) {
        char text[128];

        return reader_fault(r, node, "%s: the %s \"%.64s\" cannot be looked up: %s", d->key, what,
                            node->text, strerror_r(error, text, sizeof text));
    }
    return 0;
}

struct account {
    uid_t uid;
    gid_t gid;
};

static int look_up_user(const char *text, char *room, size_t size, void *out)
{
    struct account *account = out;
    struct passwd entry;
    struct passwd *found = NULL;
    int error = getpwnam_r(text, &entry, room, size, &found);

    if (found == NULL) {
        return error == 0 || error == ESRCH ? ENOENT : error;
    }
    *account = (struct account){entry.pw_uid, entry.pw_gid};
    return 0;
}

static int look_up_group(const char *text, char *room, size_t size, void *out)
{
    struct group entry;
    struct group *found = NULL;
    int error = getgrnam_r(text, &entry, room, size, &found);

    if (found == NULL) {
        return error == 0 || error == ESRCH ? ENOENT : error;
    }
    *(gid_t *)out = entry.gr_gid;
    return 0;
}

READER(read_user)
{
    struct config *config = field;
    struct account account = {0, 0};

    if (check_scalar(r, d, node) != 0 || look_up(r, d, node, "user", look_up_user, &account) != 0) {
        return -1;
    }
    config->user = strdup(node->text);
    if (config->user == NULL) {
        return out_of_memory(r);
    }
    config->uid = account.uid;
    config->gid = account.gid;
    return 0;
}

READER(read_group)
{
    struct config_listener *listener = field;

    if (check_scalar(r, d, node) != 0 ||
        look_up(r, d, node, "group", look_up_group, &listener->gid) != 0) {
        return -1;
    }
    listener->has_group = true;
    return 0;
}

READER(read_peers)
{
    struct config_listener *listener = field;
    const struct tree_node *item = first_of(node);
    size_t count = count_items(r, d, node);

    if (count == 0) {
        return -1;
    }
    listener->peers.limited = true;
    listener->peers.uids = calloc(count, sizeof *listener->peers.uids);
    if (listener->peers.uids == NULL) {
        return out_of_memory(r);
    }
    for (size_t i = 0; i < count; i++, item = item->next) {
        struct account account = {0, 0};

        if (check_scalar(r, d, item) != 0 ||
            look_up(r, d, item, "user", look_up_user, &account) != 0) {
            return -1;
        }
        listener->peers.uids[i] = account.uid;
        listener->peers.count++;
    }
    return 0;
}
