/* Which parameters of the FastCGI request are which fields of ours. */
#ifndef SERVE_REQUEST_H
#define SERVE_REQUEST_H

#include "serve/exchange.h"

/*
 * Fills the spans of `request`, whose listener is set, from NAME=VALUE strings (NULL after the
 * last) that it borrows; what is absent is left as it is. The first of several counts. `ids` are
 * the parameters that may hold the web server's id of the request; with none of them the usual
 * ones.
 */
void request_read(char *const *parameters, const struct config_strings *ids,
                  struct request *request);

#endif
