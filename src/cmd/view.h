/*
 * What the configured user may do with a path, found out by trying: a child process becomes that
 * user for good, so that groups, directories, access lists and file systems all have their say.
 */
#ifndef CMD_VIEW_H
#define CMD_VIEW_H

#include "conf/config.h"

enum { VIEW_PATH_BYTES = 4096 };

enum view_want {
    VIEW_READ,      /* open the file for reading */
    VIEW_APPEND,    /* open the file, which is there, for appending; not through a symbolic link */
    VIEW_WRITE_INTO /* make files in the directory */
};

struct view {
    enum { VIEW_GRANTED, VIEW_REFUSED, VIEW_UNKNOWN } answer;
    uid_t uid;                     /* whose view it is */
    int error;                     /* errno of a refusal, or why nothing could be tried */
    char stopped[VIEW_PATH_BYTES]; /* the directory that is in the way, or "" */
};

/* Whom the daemon will run as; false when that depends on who starts it. */
bool view_user(const struct config *config, uid_t *out);

/* UNKNOWN when we are neither that user nor root, or when no child could be had. */
void view_try(const struct config *config, enum view_want want, const char *path, struct view *out);

#endif
