/*
 * Channel bindings of a site (tls-server-end-point, RFC 5929 section 4): what a client that saw one
 * of the site's TLS certificates puts into its authenticator.
 */
#ifndef AUTH_BINDING_H
#define AUTH_BINDING_H

#include "base/bytes.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>

enum { BINDING_BYTES = 16 };

/* One binding for each certificate; several while one is replaced by another. */
struct binding_list {
    unsigned char (*items)[BINDING_BYTES];
    size_t count;
};

/*
 * Reads the first certificate of each PEM file (the one that a server shows; what stands around it
 * is skipped). -1 and a fault, with nothing to free, for a file that cannot be read or holds none,
 * and for a signature algorithm without a hash of its own, for which RFC 5929 defines no binding.
 */
int binding_load(char *const *files, size_t count, struct binding_list *out, struct fault *fault);

/* Whether the field Bnd of an authenticator's checksum (RFC 4121 section 4.1.1.2) is one of these.
 */
bool binding_matches(const struct binding_list *list, const unsigned char bnd[BINDING_BYTES]);

/* Frees the items. */
void binding_free(struct binding_list *list);

#endif
