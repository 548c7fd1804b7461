#include "base/secret.h"
#include "cmd/audit.h"
#include "trail/verify.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

enum { TEXT_BYTES = 4096 };

static const char *const levels[] = {[VERIFY_NOTE] = "note",
                                     [VERIFY_UNDECIDED] = "undecided",
                                     [VERIFY_INCOMPLETE] = "incomplete",
                                     [VERIFY_TAMPERED] = "tampered"};

/* What was found so far, as it goes out with --json. */
struct result {
    json_t *chains;
    json_t *findings;
    json_t *first[VERIFY_TAMPERED + 1]; /* of each level; borrowed from `findings` */
    uint64_t records;
    uint64_t unproven;
    uint64_t first_seq; /* of the last chain that was told */
    uint64_t last_seq;
    size_t files;
    bool keys_given;
};

static void print_help(void)
{
    printf(
        "Usage: spnegate audit verify [--key=HEX]... [--head=SEQ:H] [--max-seal-age=DURATION]\n"
        "                             [--json] FILE...\n"
        "Proves that files of the audit trail are what was written, and all of it. The files may\n"
        "come in any order, compressed with gzip or not; no configuration is needed.\n\n"
        "      --key=HEX       the first public key of the chain, as `audit init` printed it; may\n"
        "                      be given several times, for several chains\n"
        "      --head=SEQ:H    a record that must be there, with its field h\n"
        "      --max-seal-age=DURATION\n"
        "                      the newest seal must not be older: 90s, 20m, 8h, 7d\n"
        "      --json          the result as one JSON object\n"
        "      --help          show this and exit\n\n"
        "INTEGRITY: what is there is what was written, in that order. COMPLETENESS: nothing is\n"
        "missing between the first and the last. Records after the last seal are no fault: a\n"
        "running daemon seals them later; until then the hashes alone hold them.\n"
        "Without --key a whole trail made anew would pass, and without --head or --max-seal-age\n"
        "one that ends too early at the end of a record.\n\n"
        "Exit status: 0 good, 1 tampered or incomplete, 2 could not be decided, 64 usage.\n");
}

/* As it may stand on a terminal, and in JSON: what is no printable ASCII becomes \xNN. */
static const char *clean(const char *text, char out[TEXT_BYTES])
{
    size_t at = 0;

    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && at + 5 < TEXT_BYTES;
         p++) {
        if (*p >= 0x20 && *p < 0x7f) {
            out[at++] = (char)*p;
        } else {
            at += (size_t)snprintf(out + at, TEXT_BYTES - at, "\\x%02x", *p);
        }
    }
    out[at] = '\0';
    return out;
}

static void out_of_memory(void)
{
    (void)fprintf(stderr, "spnegate audit verify: out of memory\n");
    exit(EX_OSERR);
}

/* Everything that goes into the result passes here. */
static void put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) {
        out_of_memory();
    }
}

static void put_number(json_t *object, const char *key, uint64_t value)
{
    put(object, key, json_integer((json_int_t)value));
}

static void put_text(json_t *object, const char *key, const char *text)
{
    char safe[TEXT_BYTES];

    put(object, key, json_string(clean(text, safe)));
}

static json_t *append_object(json_t *array)
{
    json_t *object = json_object();

    if (json_array_append_new(array, object) != 0) {
        out_of_memory();
    }
    return object;
}

static void on_finding(void *to, const struct verify_finding *finding)
{
    struct result *result = to;
    json_t *object = append_object(result->findings);

    put_text(object, "level", levels[finding->level]);
    if (finding->path != NULL) {
        put_text(object, "file", finding->path);
    }
    if (finding->line != 0) {
        put_number(object, "line", finding->line);
    }
    if (finding->has_seq) {
        put_number(object, "seq", finding->seq);
    }
    put_text(object, "text", finding->text);
    if (result->first[finding->level] == NULL) {
        result->first[finding->level] = object;
    }
}

static void on_chain(void *to, const struct verify_chain *chain)
{
    struct result *result = to;
    json_t *object = append_object(result->chains);
    char key[2 * VERIFY_KEY_BYTES + 1];

    secret_hex(key, chain->opening.bytes, VERIFY_KEY_BYTES);
    put_text(object, "chain", chain->id);
    put_number(object, "files", chain->files);
    put_number(object, "records", chain->records);
    put_number(object, "first_seq", chain->first_seq);
    put_number(object, "last_seq", chain->last_seq);
    put_text(object, "first_ts", chain->first_ts);
    put_text(object, "last_ts", chain->last_ts);
    put_number(object, "seals", chain->seals);
    if (chain->sealed) {
        put_number(object, "sealed_seq", chain->sealed_seq);
        put_text(object, "sealed_ts", chain->sealed_ts);
    }
    put_number(object, "unsealed", chain->unsealed);
    put(object, "broken", json_boolean(chain->broken));
    put(object, "whole", json_boolean(chain->whole));
    put(object, "anchored", json_boolean(chain->anchored));
    put_number(object, "epoch", chain->opening.epoch);
    put_text(object, "key", key);
    result->records += chain->records;
    result->unproven += chain->unproven;
    result->first_seq = chain->first_seq;
    result->last_seq = chain->last_seq;
    result->files += chain->files;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* "file:line, seq N: text", as far as it has them. */
static void print_finding(const json_t *finding)
{
    if (json_object_get(finding, "file") != NULL) {
        printf("%s", text_of(finding, "file"));
        if (json_object_get(finding, "line") != NULL) {
            printf(":%" JSON_INTEGER_FORMAT, number_of(finding, "line"));
        }
        printf(json_object_get(finding, "seq") != NULL ? ", " : ": ");
    }
    if (json_object_get(finding, "seq") != NULL) {
        printf("seq %" JSON_INTEGER_FORMAT ": ", number_of(finding, "seq"));
    }
    printf("%s\n", text_of(finding, "text"));
}

static void print_chain(const struct result *result, const json_t *chain)
{
    const json_int_t unsealed = number_of(chain, "unsealed");

    printf("chain %s: records %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT ", %s to %s%s\n",
           text_of(chain, "chain"), number_of(chain, "first_seq"), number_of(chain, "last_seq"),
           text_of(chain, "first_ts"), text_of(chain, "last_ts"),
           json_is_true(json_object_get(chain, "broken")) ? ", not all of them proven" : "");
    if (json_object_get(chain, "sealed_seq") != NULL) {
        printf("    sealed up to record %" JSON_INTEGER_FORMAT ", %s; %" JSON_INTEGER_FORMAT
               " record%s after it\n",
               number_of(chain, "sealed_seq"), text_of(chain, "sealed_ts"), unsealed,
               unsealed == 1 ? "" : "s");
    } else {
        printf("    not sealed yet: nothing but the hashes holds it together\n");
    }
    printf("    key of epoch %" JSON_INTEGER_FORMAT ": %s%s\n", number_of(chain, "epoch"),
           text_of(chain, "key"),
           json_is_true(json_object_get(chain, "anchored")) ? ", as given"
           : result->keys_given                             ? ", not one that was given"
                                                            : "");
}

static void print_verdict(const char *name, const char *good, const char *bad,
                          const json_t *finding, const json_t *undecided)
{
    if (finding != NULL) {
        printf("%s: %s: ", name, bad);
        print_finding(finding);
    } else {
        printf("%s: %s\n", name, undecided != NULL ? "undecided" : good);
    }
}

/* What INTEGRITY says when nothing is wrong: no more than is proven. */
static void say_good(const struct result *result, char *out, size_t size)
{
    const int len =
        snprintf(out, size, "ok: %" PRIu64 " record%s in %zu file%s", result->records,
                 result->records == 1 ? "" : "s", result->files, result->files == 1 ? "" : "s");

    if (result->unproven > 0) {
        (void)snprintf(out + len, size - (size_t)len,
                       "; %" PRIu64 " of them after the last seal: whoever can write the file can "
                       "have made %s",
                       result->unproven, result->unproven == 1 ? "that one" : "those");
    }
}

static void say_whole(const struct result *result, char *out, size_t size)
{
    if (json_array_size(result->chains) == 1) {
        (void)snprintf(out, size, "ok: records %" PRIu64 " to %" PRIu64 ", none missing between",
                       result->first_seq, result->last_seq);
    } else {
        (void)snprintf(out, size, "ok: none missing between the first and the last of each chain");
    }
}

static void print_result(const struct result *result)
{
    char good[192];
    char whole[96];
    size_t i;
    json_t *item;

    /* What follows the first fault of a file is not read: nobody knows whether all is there. */
    const json_t *unknown = result->first[VERIFY_TAMPERED] != NULL
                                ? result->first[VERIFY_TAMPERED]
                                : result->first[VERIFY_UNDECIDED];

    say_good(result, good, sizeof good);
    say_whole(result, whole, sizeof whole);
    print_verdict("INTEGRITY", good, "TAMPERED", result->first[VERIFY_TAMPERED],
                  result->first[VERIFY_UNDECIDED]);
    print_verdict("COMPLETENESS", whole, "INCOMPLETE", result->first[VERIFY_INCOMPLETE], unknown);
    json_array_foreach(result->chains, i, item)
    {
        print_chain(result, item);
    }
    json_array_foreach(result->findings, i, item)
    {
        if (item != result->first[VERIFY_TAMPERED] && item != result->first[VERIFY_INCOMPLETE]) {
            printf("%s: ", text_of(item, "level"));
            print_finding(item);
        }
    }
}

static int print_json(struct result *result, int status)
{
    json_t *object = json_object();
    const char *undecided = result->first[VERIFY_UNDECIDED] != NULL ? "undecided" : "ok";
    int r = -1;

    if (object == NULL) {
        out_of_memory();
    }
    put_text(object, "integrity", result->first[VERIFY_TAMPERED] != NULL ? "tampered" : undecided);
    put_text(object, "completeness",
             result->first[VERIFY_INCOMPLETE] != NULL ? "incomplete"
             : result->first[VERIFY_TAMPERED] != NULL ? "undecided"
                                                      : undecided);
    put_number(object, "status", (uint64_t)status);
    put(object, "chains", json_incref(result->chains));
    put(object, "findings", json_incref(result->findings));
    r = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    (void)putchar('\n');
    json_decref(object);
    return r;
}

static int verify(char **paths, size_t count, const struct verify_options *options, bool json)
{
    struct result result = {
        .chains = json_array(), .findings = json_array(), .keys_given = options->key_count > 0};
    const struct verify_listener listener = {on_finding, on_chain, &result};
    struct verify_file *files = calloc(count, sizeof *files);
    int status = EX_OK;

    if (files == NULL || result.chains == NULL || result.findings == NULL) {
        out_of_memory();
    }
    for (size_t i = 0; i < count; i++) {
        verify_file(paths[i], options, &files[i]);
    }
    verify_set(files, count, options, &listener);
    if (result.records == 0 && result.first[VERIFY_TAMPERED] == NULL &&
        result.first[VERIFY_INCOMPLETE] == NULL) {
        on_finding(&result, &(struct verify_finding){.level = VERIFY_UNDECIDED,
                                                     .text = "there is no record to be proven"});
    }
    if (result.first[VERIFY_TAMPERED] != NULL || result.first[VERIFY_INCOMPLETE] != NULL) {
        status = 1;
    } else if (result.first[VERIFY_UNDECIDED] != NULL) {
        status = 2;
    }
    if (json) {
        status = print_json(&result, status) != 0 ? EX_IOERR : status;
    } else {
        print_result(&result);
    }
    json_decref(result.chains);
    json_decref(result.findings);
    free(files);
    return fflush(stdout) != 0 ? EX_IOERR : status;
}

/* -1 to go on, or the exit status. */
static int read_options(int argc, char **argv, struct verify_options *options, bool *json)
{
    static const struct option names[] = {{"key", required_argument, NULL, 'k'},
                                          {"head", required_argument, NULL, 'H'},
                                          {"max-seal-age", required_argument, NULL, 'a'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    opterr = 0;
    for (int c = getopt_long(argc, argv, ":h", names, NULL); c != -1;
         c = getopt_long(argc, argv, ":h", names, NULL)) {
        switch (c) {
        case 'k':
            if (verify_options_key(options, optarg) != 0) {
                return cmd_audit_usage("verify",
                                       "not 64 lower-case hexadecimal digits, or one too "
                                       "many",
                                       optarg);
            }
            break;
        case 'H':
            if (verify_options_head(options, optarg) != 0) {
                return cmd_audit_usage("verify", "not one SEQ:H with the 64 digits of h", optarg);
            }
            break;
        case 'a':
            if (!cmd_audit_duration(optarg, &options->max_seal_age_s)) {
                return cmd_audit_usage("verify", "not a duration like 20m", optarg);
            }
            break;
        case 'j':
            *json = true;
            break;
        case 'h':
            print_help();
            return EX_OK;
        default:
            return cmd_audit_usage("verify",
                                   c == ':' ? "this option needs a value" : "no such option",
                                   argv[optind - 1]);
        }
    }
    return optind == argc ? cmd_audit_usage("verify", "which files?", "") : -1;
}

int cmd_audit_verify(int argc, char **argv)
{
    struct verify_options options = {.now_s = (uint64_t)time(NULL)};
    bool json = false;
    const int status = read_options(argc, argv, &options, &json);

    if (status >= 0) {
        return status;
    }
    if (secret_init() != 0) {
        (void)fprintf(stderr, "spnegate audit verify: no randomness is to be had\n");
        return 2;
    }
    return verify(argv + optind, (size_t)(argc - optind), &options, json);
}
