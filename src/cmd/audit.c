#include "cmd/audit.h"

#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const struct {
    const char *word;
    int (*run)(int argc, char **argv);
    const char *help;
} words[] = {
    {"verify", cmd_audit_verify, "prove that a trail is what was written, and all of it"},
    {"init", cmd_audit_init, "print the first public key, to be kept elsewhere"},
    {"tail", cmd_audit_tail, "show records as lines for people, and follow them"},
};

static void print_usage(FILE *out)
{
    (void)fprintf(out, "Usage: spnegate audit WORD [OPTION...] [FILE...]\n"
                       "Looks at the audit trail; docs/audit.md says what stands in it.\n\n");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        (void)fprintf(out, "  %-8s %s\n", words[i].word, words[i].help);
    }
    (void)fprintf(out, "\n`spnegate audit WORD --help` tells more.\n");
}

bool cmd_audit_duration(const char *text, uint64_t *out_s)
{
    static const struct {
        char unit;
        uint64_t s;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    uint64_t value = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9' && value < 1000000000; p++) {
        value = value * 10 + (uint64_t)(*p - '0');
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (p > text && p[0] == units[i].unit && p[1] == '\0' && value > 0) {
            *out_s = value * units[i].s;
            return true;
        }
    }
    return false;
}

int cmd_audit_usage(const char *word, const char *what, const char *argument)
{
    (void)fprintf(stderr, "spnegate audit %s: %s%s%s\nTry `spnegate audit %s --help`.\n", word,
                  what, argument[0] != '\0' ? ": " : "", argument, word);
    return EX_USAGE;
}

int cmd_audit(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EX_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(argv[1], words[i].word) == 0) {
            return words[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "spnegate audit: no such word: %s\nTry `spnegate audit --help`.\n",
                  argv[1]);
    return EX_USAGE;
}
