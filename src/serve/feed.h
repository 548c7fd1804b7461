/* The private pipe of one request thread, through which libfcgi is handed what passed the guard. */
#ifndef SERVE_FEED_H
#define SERVE_FEED_H

#include "serve/guard.h"

struct feed {
    int out; /* libfcgi reads it; -1: there is none */
    int in;
};

/* -1: no descriptors; feed_put tries again. */
int feed_open(struct feed *feed);
void feed_close(struct feed *feed);

/*
 * Closes it and opens another: what libfcgi left in it belongs to nobody. With `out_closed` libfcgi
 * has closed its end itself.
 */
void feed_renew(struct feed *feed, bool out_closed);

/*
 * Writes the request into the empty pipe as libfcgi likes it best. -1: it does not fit, and nothing
 * is left of it.
 */
int feed_put(struct feed *feed, const struct guard *guard);

#endif
