/*
 * The audit trail: one JSON object a line, chained by SHA-256, appended before the answer is given.
 * All workers append to one chain; its head lies in shared memory that the supervisor makes before
 * it forks. Lines: pure ASCII, fixed order of fields, at most AUDIT_RECORD_MAX bytes with the final
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

enum { AUDIT_RECORD_MAX = 4096, AUDIT_ID_BYTES = 16 + 1 + 20 + 1 };

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

/* The chain's shared head and its file; opaque. */
struct audit;

struct audit_options {
    const char *file;
    mode_t mode;
    bool commit;      /* fdatasync before an append returns */
    const char *node; /* NULL: the host's name */
};

/*
 * The supervisor's part: makes the shared head, opens the file (O_APPEND, O_NOFOLLOW, created with
 * `mode` and, with uid != -1, owned by uid:gid), and continues its chain from the last line, or
 * opens a new one
 * (`chain.open`, seq 0). A torn last line is closed and recorded (`recovery`). The file is locked
 * (flock) as long as any process that inherited it lives: a second daemon is refused. One record
 * (`lifecycle`, start) is appended, so a path that cannot be written is known before anybody is
 * served. -1 and a fault otherwise, and errno EWOULDBLOCK when another daemon has the file; when it
 * holds something that is no trail of ours, it is not touched.
 */
int audit_open(const struct audit_options *options, uid_t uid, gid_t gid, struct audit **out,
               struct fault *fault);

/* Closes the file and the mapping; for a worker as well as the supervisor. NULL is allowed. */
void audit_close(struct audit *audit);

/*
 * Formats, chains and appends one record with one write(2), under the shared lock (waits at most 1
 * s; the lock of a process that died is taken over and a torn line closed and recorded). `id` gets
 * "<chain>-<seq>", `*seq` the number alone. Returns REASON_OK or AUDIT_UNAVAILABLE; then both are
 * untouched, the chain stays whole, and the record may yet turn up in the file (when only its LF,
 * or the sync, was missing). Safe from any thread; never allocates. The process must ignore
 * SIGXFSZ.
 */
enum reason audit_append(struct audit *audit, const struct audit_record *record,
                         char id[AUDIT_ID_BYTES], uint64_t *seq);

/* Appends a lifecycle, config or keytab record: `event`, `action`, `result` and `detail` (NULL:
 * absent). */
enum reason audit_append_event(struct audit *audit, const char *event, const char *action,
                               const char *result, const char *detail);

/* The process that holds the lock, or 0; the supervisor kills it when it holds it for too long. */
pid_t audit_lock_holder(const struct audit *audit);

/*
 * The error of the last failed append for the daemon's log, as errno; 0 if the last one went well.
 */
int audit_last_error(const struct audit *audit);

/* The number that the next record will have. */
uint64_t audit_next_seq(const struct audit *audit);

/* Raises the shared generation: every process opens the file anew at its next append (SIGHUP,
 * SIGUSR1). */
void audit_reopen(struct audit *audit);

/*
 * Formats one line up to, but without, its hash and end: `{"v":1,"seq":...`; pure, never fails.
 * Returns its length, at most AUDIT_RECORD_MAX - 73.
 */
size_t audit_format(char out[AUDIT_RECORD_MAX], uint64_t seq, const char *chain, const char *node,
                    const struct audit_record *record);

#endif
