/* What a web server hands over of HTTP: the Authorization and Host header values. All input is
 * untrusted. */
#ifndef WIRE_HTTP_H
#define WIRE_HTTP_H

#include "base/bytes.h"
#include "base/reason.h"

enum { HTTP_HOST_MAX = 253, HTTP_HOST_BYTES = HTTP_HOST_MAX + 1 };

/*
 * Decodes the token of an Authorization header value into `token` (reset first, keeps its memory;
 * empty on failure). The scheme is read in any case, then one or several spaces, one token68,
 * nothing after it but blanks (RFC 9110 11.4, RFC 4559 4). Returns REASON_OK, NO_CREDENTIALS (value
 * absent or empty), OTHER_SCHEME, BAD_HEADER (no scheme or token, an empty one, several values,
 * control bytes), TOKEN_TOO_LARGE (a Negotiate value over `max` bytes), BAD_BASE64 (alphabet,
 * padding, length, or bits after the end), or INTERNAL (no memory, or the token is over the buf's
 * ceiling, which must be three quarters of `max`).
 */
enum reason http_parse_authorization(struct span value, size_t max, struct buf *token);

/*
 * Normalises a Host value into `host`: lower case, without port and trailing dot; an IPv6 literal
 * keeps its brackets. Returns REASON_OK, NO_HOST (absent or empty), or UNKNOWN_HOST (bytes that no
 * host has, an empty label, a label or host too long, a port not of 1 to 65535); on failure `host`
 * is "".
 */
enum reason http_parse_host(struct span value, char host[HTTP_HOST_BYTES]);

/*
 * Decodes base64 with padding and nothing around it (RFC 4648 section 4) into `out` (empty on
 * failure). Returns REASON_OK, BAD_HEADER (blanks, control bytes or commas in it), BAD_BASE64 or
 * INTERNAL (no memory, or over the buf's ceiling).
 */
enum reason http_decode_base64(struct span text, struct buf *out);

/* Appends base64 with padding (RFC 4648 section 4). */
void http_append_base64(struct buf *out, struct span bytes);

#endif
