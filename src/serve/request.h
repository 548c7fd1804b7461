/* Which parameters of the FastCGI request are which fields of ours. */
#ifndef SERVE_REQUEST_H
#define SERVE_REQUEST_H

#include "serve/exchange.h"

/*
 * Fills the spans of `request`, whose listener is set, from NAME=VALUE strings (NULL after the
 * last) that it borrows; what is absent is left as it is. The first of several counts.
 */
void request_read(char *const *parameters, struct request *request);

#endif
