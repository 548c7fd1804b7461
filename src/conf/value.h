/*
 * What one word of the configuration means. Each function returns NULL when the word is good, or
 * the complaint, which follows the key's name: "is not a number". Results are written only then.
 */
#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
    VALUE_HOST_MAX = 253,
    VALUE_HOST_BYTES = VALUE_HOST_MAX + 1,
    VALUE_ADDRESS_BYTES = 46, /* the longest numeric address and its terminator */
    VALUE_SOCKET_PATH_MAX = 107,
    VALUE_PATH_MAX = 4000
};

/* Decimal digits without sign and without a leading zero. */
const char *value_number(const char *text, uint64_t *out);

/* "500ms", "5s", "10m", "8h" in milliseconds. */
const char *value_duration(const char *text, uint64_t *out_ms);

/* "4096B", "64KiB", "1MiB", "1GiB" in bytes. */
const char *value_size(const char *text, uint64_t *out_bytes);

/* Three octal digits, or four of which the first is 0. */
const char *value_mode(const char *text, mode_t *out);

/* An absolute path without empty, "." and ".." components and without a slash at its end. */
const char *value_path(const char *text);

/* A site's identifier. */
const char *value_identifier(const char *text);

/* An exact host name, or an IPv6 literal in brackets, lower-cased and without trailing dot. */
const char *value_host(const char *text, char out[VALUE_HOST_BYTES]);

/* The same, or "*", or "*.suffix". */
const char *value_host_pattern(const char *text, char out[VALUE_HOST_BYTES]);

/* A whole realm. */
const char *value_realm(const char *text);

/* An unparsed principal: a backslash quotes, one unquoted @, a realm after it. */
const char *value_principal(const char *text);

/* "HTTP/host" or "HTTP/host@REALM". */
const char *value_service(const char *text);

/* The name of a FastCGI parameter that may be believed when it is forwarded. */
const char *value_parameter(const char *text);

/* The name of a FastCGI parameter that the web server makes and clients cannot choose. */
const char *value_server_parameter(const char *text);

/* "127.0.0.1:991" or "[::1]:991". */
const char *value_endpoint(const char *text, struct sockaddr_storage *out, socklen_t *out_len);

/* Whether an address that value_endpoint gave belongs to this machine alone. */
bool value_endpoint_is_loopback(const struct sockaddr_storage *address);

/* A numeric address of a peer, in its one canonical form. */
const char *value_address(const char *text, char out[VALUE_ADDRESS_BYTES]);

#endif
