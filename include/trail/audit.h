/*
 * The audit trail: one JSON object a line, chained by SHA-256, appended before the answer is given,
 * and sealed by the supervisor with signatures whose keys are erased one after the other. All
 * workers append to one chain; its head lies in a mapped file that the supervisor opens before it
 * forks. Lines: pure ASCII, fixed order of fields, at most AUDIT_RECORD_MAX bytes with the final
 * LF.
 */
#ifndef TRAIL_AUDIT_H
#define TRAIL_AUDIT_H

#include "base/bytes.h"
#include "base/fault.h"
#include "base/reason.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    AUDIT_RECORD_MAX = 4096,
    AUDIT_ID_BYTES = 16 + 1 + 20 + 1,
    AUDIT_KEY_BYTES = 64 + 1, /* a public key in hexadecimal, with its terminator */
    AUDIT_SEAL_TEXT = 320
};

/* Three values, so that "false" and "not known" differ in a record. */
enum audit_bool { AUDIT_ABSENT, AUDIT_FALSE, AUDIT_TRUE };

/*
 * One decision. Spans are borrowed and may hold any bytes (escaped, repaired and cut as they are
 * written); {NULL, 0} and negative or zero numbers where said mean "not applicable": the field is
 * left out.
 */
struct audit_record {
    enum reason reason;
    uint64_t time_us;   /* CLOCK_REALTIME */
    const char *method; /* "negotiate" or "none" */
    const char *mech;   /* "krb5", "ntlm", "other" or NULL */
    bool has_gss;       /* gss_major and gss_minor are set */
    uint32_t gss_major;
    int32_t gss_minor;
    struct span gss_text;
    struct span ticket_realm;
    uint64_t ticket_end_s; /* seconds since 1970; 0: absent */
    int64_t kvno;          /* -1: absent */
    int64_t kvno_newest;   /* -1: absent */
    struct span keytab_has;
    int64_t expired_s; /* -1: absent */
    bool has_skew;
    int64_t skew_s; /* the client ahead is positive */
    enum audit_bool mutual;
    enum audit_bool deleg;
    uint64_t repeat_of;    /* 0: absent */
    struct span principal; /* only after it was proven */
    struct span user;
    struct span service;
    struct span claimed_service; /* cleartext of the ticket, not verified */
    int64_t claimed_kvno;        /* -1: absent */
    struct span claimed_enctype;
    struct span enctype;
    const char *cb; /* channel binding: "none", "matched", "missing", "mismatch" or NULL */
    struct span site;
    struct span rule;
    struct span server;
    struct span sock;
    struct span peer;
    int64_t peer_port; /* -1: absent */
    enum audit_bool tls;
    struct span http_method;
    struct span host;
    struct span uri; /* the query is cut off here, not by the caller */
    struct span request_id;
    struct span trace;    /* 32 hexadecimal digits */
    struct span token_fp; /* up to 16 hexadecimal digits */
    int64_t us;           /* -1: absent */
};

/* A record in which every field is absent. */
void audit_record_init(struct audit_record *record);

/* One process's part of the chain; opaque. */
struct audit;

struct audit_options {
    const char *file;
    const char *state_dir; /* audit.key and audit.head; of the process's user alone */
    mode_t mode;
    bool commit;         /* fdatasync before an append returns */
    bool accept_gap;     /* go on although records are missing at the end of the file */
    const char *node;    /* NULL: the host's name */
    const char *version; /* of the program, for the record; NULL: absent */
};

/*
 * Makes `<state_dir>/audit.key` if there is none, owned by uid:gid unless uid is -1, and gives the
 * public key that seals the chain's first epoch: whoever keeps it off the host can tell this chain
 * from any other. After the chain has begun it is the same one. -1 and a fault,
 * so also when the key is missing although `file`, the trail, has records.
 */
int audit_init_key(const char *state_dir, const char *file, uid_t uid, gid_t gid,
                   char key[AUDIT_KEY_BYTES], struct fault *fault);

/*
 * The supervisor's part: opens the file (O_APPEND, O_NOFOLLOW, created with `mode` and, with uid !=
 * -1, owned by uid:gid), and continues the chain that file and state_dir know of, in a new segment
 * (`segment.open`) when the file was renamed meanwhile, or begins one (`chain.open`, seq 0) and its
 * key if there is none. A torn last line is closed and recorded (`recovery`). The file is locked
 * (flock) as long as the supervisor lives, and the head as long as any process that inherited it
 * does: a second daemon is refused. One record (`lifecycle`, start) is appended, so a path that
 * cannot be written is known before anybody is served. -1 and a fault otherwise, and when the file
 * ends before what state_dir knows to have been written, unless `accept_gap`; when it holds
 * something that is no trail of ours, or was altered since the last seal, it is not touched. The
 * process must ignore SIGXFSZ.
 */
int audit_open(const struct audit_options *options, uid_t uid, gid_t gid, struct audit **out,
               struct fault *fault);

/*
 * In a worker, before it has threads: it opens the file once more for itself, and gives up what the
 * trail is locked with. The kernel tells of what the disk could not take once to each that has
 * opened a file, so of processes that share a descriptor only one would hear of it, and any of them
 * could unlock it. -1 and errno where the file cannot be opened any more: then the shared
 * descriptor stays.
 */
int audit_part(struct audit *audit);

/* Closes all of it, for a worker as well as the supervisor; the supervisor's keys are wiped. NULL
 * is allowed. */
void audit_close(struct audit *audit);

/*
 * Formats, chains and appends one record with one write(2), under the shared lock (waits at most 1
 * s; the lock of a process that died is taken over and a torn line closed and recorded). `id` gets
 * "<chain>-<seq>", `*seq` the number alone. Returns REASON_OK or AUDIT_UNAVAILABLE; then both are
 * untouched, the chain stays whole, and the record may yet turn up in the file (when only its LF,
 * or the sync, was missing). Safe from any thread; never allocates.
 */
enum reason audit_append(struct audit *audit, const struct audit_record *record,
                         char id[AUDIT_ID_BYTES], uint64_t *seq);

/* The supervisor's: appends a lifecycle, config or keytab record, `event`, `action`, `result` and
 * `detail` (NULL: absent), and does not wait until it is on the disk, which is within a second. */
enum reason audit_append_event(struct audit *audit, const char *event, const char *action,
                               const char *result, const char *detail);

/* lock_stuck_holder and lock_break of the trail's lock. */
pid_t audit_stuck_holder(struct audit *audit);
void audit_break_lock(struct audit *audit, pid_t thread);

/*
 * The error of the last failed append for the daemon's log, as errno; 0 if the last one went well.
 */
int audit_last_error(const struct audit *audit);

/* The number that the next record will have. */
uint64_t audit_next_seq(const struct audit *audit);

/* What stands between the chain and its seals, since audit_open; none of it is from shared memory.
 */
struct audit_seals {
    uint64_t last_us;  /* when the last one was made, since 1970; 0: none yet */
    uint64_t unsealed; /* records that no seal covers yet */
    uint64_t broken;   /* how often the file or the head was found changed (`chain_broken`) */
    bool late;         /* one was due and could not be made; the news have said why */
    bool unsynced;     /* what was written last could not be brought to the disk */
};

/* The supervisor's. */
struct audit_seals audit_seals(const struct audit *audit);

/* The public key of the chain's first epoch, and its id, for the daemon's log. */
const char *audit_first_key(const struct audit *audit);
const char *audit_chain(const struct audit *audit);

/* What was only counted, of one site and reason. */
struct audit_summary {
    struct span site;   /* {NULL, 0}: none was found */
    bool challenges;    /* bare ones: `challenge.summary`; else `suppressed` */
    enum reason reason; /* of the latter */
    uint64_t n;
    uint64_t first_us; /* since 1970 */
    uint64_t last_us;
};

/* Appends a `challenge.summary` or `suppressed` record. */
enum reason audit_append_summary(struct audit *audit, const struct audit_summary *summary);

/* How often and at which size or age; 0: never. */
struct audit_pace {
    uint64_t seal_ms;
    uint64_t rotate_bytes;
    uint64_t rotate_ms;
};

/* What the supervisor should write to its log. */
struct audit_news {
    char seal[AUDIT_SEAL_TEXT];    /* what was sealed: chain, seq, h, epoch and next key; or "" */
    char segment[AUDIT_SEAL_TEXT]; /* where the chain goes on; or "" */
    bool deleted;                  /* because the file before was deleted */
    bool moved;                    /* in another directory than before: see audit_tick */
    struct fault fault;            /* what went wrong; `what` "" if nothing did */
};

/*
 * The supervisor's clock, called a few times a second with the monotonic time: recomputes what was
 * appended, seals it when it is time (after proving that file and shared head fit; where they do
 * not, that is recorded and the chain goes on from the last record that fitted), rotates by size
 * and age, syncs about every second, and tries again what failed. A file that was deleted (not one
 * that was renamed) is found out about, and the chain goes on in a new one; as long as none can be
 * opened, nobody appends. A process that may open files only where they were when it began cannot
 * follow into another directory: `moved` tells of it, once. Waits at most a second for the lock.
 * The same failure is told once a minute. False: there are no news.
 */
bool audit_tick(struct audit *audit, const struct audit_pace *pace, uint64_t now_ms,
                struct audit_news *news);

/*
 * The supervisor's answer to SIGHUP and SIGUSR1: if the file was renamed, ends it with a seal and
 * opens the path anew; the workers follow at their next append. If not, proves with a record that
 * it can be written. -1 and news with a fault: the file before stays in use unless it was deleted,
 * and audit_tick tries again.
 */
int audit_rotate(struct audit *audit, struct audit_news *news);

/* The supervisor's last words, when no worker lives: `lifecycle`, stop, and a seal; -1 and news. */
int audit_stop(struct audit *audit, struct audit_news *news);

/*
 * Formats one line up to, but without, its hash and end: `{"v":1,"seq":...`; pure, never fails.
 * Returns its length, at most AUDIT_RECORD_MAX - 73.
 */
size_t audit_format(char out[AUDIT_RECORD_MAX], uint64_t seq, const char *chain, const char *node,
                    const struct audit_record *record);

#endif
