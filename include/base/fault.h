/* A start-up or command error: where it is and what is wrong, in words for the administrator. */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

struct fault {
    char where[512]; /* "file:line:column", a path, or "" */
    char what[768];
};

/* Fills in `f` (cut where too long) and returns -1, so that callers can `return fault_set(...)`. */
int fault_set(struct fault *f, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
