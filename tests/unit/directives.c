/*
 * Prints the table of directives, one a line: the key as the manual writes it, its presence, and
 * the words that say what it may hold.
 */
#include "conf/directive.h"
#include "conf/read.h"

#include <stdio.h>

static const char *scope_prefix(enum scope scope)
{
    switch (scope) {
    case SCOPE_TOP:
        return "";
    case SCOPE_LISTENER:
        return "listen[].";
    case SCOPE_FORWARDED:
        return "listen[].forwarded.";
    case SCOPE_LIMITS:
        return "limits.";
    case SCOPE_REPLAY:
        return "replay.";
    case SCOPE_AUDIT:
        return "audit.";
    case SCOPE_LOG:
        return "log.";
    case SCOPE_FAILURES:
        return "audit.failures.";
    case SCOPE_SITE:
        return "sites[].";
    case SCOPE_SITE_USER:
        return "sites[].user.";
    case SCOPE_RULE:
        return "sites[].allow[].";
    }
    return "?.";
}

static void print_size(uint64_t bytes)
{
    if (bytes % 1024 == 0) {
        printf(" %lluKiB", (unsigned long long)bytes / 1024);
    } else {
        printf(" %lluB", (unsigned long long)bytes);
    }
}

static void print_range(const struct directive *d)
{
    if (d->read == read_number || d->read == read_number64 || d->read == read_workers) {
        printf(" %llu %llu", (unsigned long long)d->min, (unsigned long long)d->max);
    } else if (d->read == read_size) {
        print_size(d->min);
        print_size(d->max);
    } else if (d->read == read_duration) {
        printf(" %llums %llus", (unsigned long long)d->min, (unsigned long long)d->max / 1000);
    }
}

int main(void)
{
    static const char *const presences[] = {
        [OPTIONAL] = "optional", [REQUIRED] = "required", [RESERVED] = "reserved"};

    for (size_t i = 0; directive_row(i) != NULL; i++) {
        const struct directive *d = directive_row(i);

        printf("%s%s %s", scope_prefix(d->scope), d->key, presences[d->presence]);
        print_range(d);
        for (size_t j = 0; j < sizeof d->words / sizeof d->words[0] && d->words[j] != NULL; j++) {
            printf(" %s", d->words[j]);
        }
        printf("\n");
    }
    return 0;
}
