#include "conf/value.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

/*
 * Reads digits and moves `*text` behind them; false when there are none or the number is too large.
 */
static bool read_digits(const char **text, uint64_t *out)
{
    const char *p = *text;
    uint64_t number = 0;

    if (!is_digit(*p) || (p[0] == '0' && is_digit(p[1]))) {
        return false;
    }
    for (; is_digit(*p); p++) {
        if (__builtin_mul_overflow(number, 10U, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*p - '0'), &number)) {
            return false;
        }
    }
    *text = p;
    *out = number;
    return true;
}

const char *value_number(const char *text, uint64_t *out)
{
    uint64_t number = 0;

    if (!read_digits(&text, &number) || *text != '\0') {
        return "is not a number (decimal digits, no sign, no leading zero)";
    }
    *out = number;
    return NULL;
}

struct unit {
    const char *text;
    uint64_t factor;
};

static bool read_with_unit(const char *text, const struct unit *units, uint64_t *out)
{
    uint64_t number = 0;

    if (!read_digits(&text, &number)) {
        return false;
    }
    for (; units->text != NULL; units++) {
        if (strcmp(text, units->text) == 0) {
            return !__builtin_mul_overflow(number, units->factor, out);
        }
    }
    return false;
}

const char *value_duration(const char *text, uint64_t *out_ms)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
    uint64_t number = 0;

    if (!read_with_unit(text, units, &number)) {
        return "is not a duration: a whole number and ms, s, m or h, like 5s";
    }
    *out_ms = number;
    return NULL;
}

const char *value_size(const char *text, uint64_t *out_bytes)
{
    static const struct unit units[] = {
        {"B", 1}, {"KiB", 1UL << 10}, {"MiB", 1UL << 20}, {"GiB", 1UL << 30}, {NULL, 0}};
    uint64_t number = 0;

    if (!read_with_unit(text, units, &number)) {
        return "is not a size: a whole number and B, KiB, MiB or GiB, like 64KiB";
    }
    *out_bytes = number;
    return NULL;
}

const char *value_mode(const char *text, mode_t *out)
{
    size_t len = strlen(text);
    mode_t mode = 0;

    if (strspn(text, "01234567") != len || (len != 3 && (len != 4 || text[0] != '0'))) {
        return "is not a file mode: octal digits up to 0777, like \"0660\"";
    }
    for (; *text != '\0'; text++) {
        mode = mode * 8 + (mode_t)(*text - '0');
    }
    *out = mode;
    return NULL;
}

const char *value_path(const char *text)
{
    const char *p = text;

    if (*p != '/') {
        return "is not an absolute path: it must begin with /";
    }
    if (strlen(text) > VALUE_PATH_MAX) {
        return "is too long a path";
    }
    while (*p == '/') {
        size_t len = strcspn(++p, "/");

        if (len == 0) {
            return "is not a clean path: no // and no / at its end";
        }
        if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.')) {
            return "is not a clean path: no . and .. in it";
        }
        p += len;
    }
    return NULL;
}

const char *value_identifier(const char *text)
{
    size_t len = strlen(text);

    if (len == 0 || len > 64) {
        return "must have 1 to 64 characters";
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (!is_digit(*p) && !is_lower(*p) && !is_upper(*p) && strchr("-_.", *p) == NULL) {
            return "may hold only letters, digits, -, _ and .";
        }
    }
    return NULL;
}

static const char *check_labels(const char *host)
{
    bool last_has_letter = false;

    for (const char *p = host;; p++) {
        size_t len = strcspn(p, ".");

        if (len == 0) {
            return "is not a host name: an empty label";
        }
        if (len > 63) {
            return "is not a host name: a label of more than 63 characters";
        }
        if (p[0] == '-' || p[len - 1] == '-') {
            return "is not a host name: a hyphen at the edge of a label";
        }
        last_has_letter = false;
        for (size_t i = 0; i < len; i++) {
            if (!is_lower(p[i]) && !is_digit(p[i]) && p[i] != '-' && p[i] != '_') {
                return "is not a host name: only letters, digits, hyphens and dots";
            }
            last_has_letter = last_has_letter || !is_digit(p[i]);
        }
        p += len;
        if (*p == '\0') {
            break;
        }
    }
    if (!last_has_letter) {
        struct in_addr address;

        if (inet_pton(AF_INET, host, &address) != 1) {
            return "is not a host name: its last label is a number, and it is no address";
        }
    }
    return NULL;
}

static const char *check_literal(const char *host, size_t len)
{
    char inner[VALUE_ADDRESS_BYTES];
    struct in6_addr address;

    if (host[len - 1] != ']' || len - 2 >= sizeof inner) {
        return "is not an IPv6 address in brackets";
    }
    memcpy(inner, host + 1, len - 2);
    inner[len - 2] = '\0';
    return inet_pton(AF_INET6, inner, &address) == 1 ? NULL : "is not an IPv6 address in brackets";
}

const char *value_host(const char *text, char out[VALUE_HOST_BYTES])
{
    char host[VALUE_HOST_BYTES];
    size_t len = strlen(text);
    const char *complaint = NULL;

    if (len > 1 && text[len - 1] == '.') {
        len--;
    }
    if (len == 0 || len > VALUE_HOST_MAX) {
        return "is not a host name: 1 to 253 characters";
    }
    for (size_t i = 0; i < len; i++) {
        host[i] = text[i];
        if (is_upper(text[i])) {
            host[i] = "abcdefghijklmnopqrstuvwxyz"[text[i] - 'A'];
        }
    }
    host[len] = '\0';
    if (strchr(host, '*') != NULL) {
        return "is not a host name: * may stand alone or as the first label only";
    }
    if (host[0] == '[') {
        complaint = check_literal(host, len);
    } else if (strchr(host, ':') != NULL) {
        complaint = "is not a host name: no port, and IPv6 addresses stand in brackets";
    } else {
        complaint = check_labels(host);
    }
    if (complaint == NULL) {
        memcpy(out, host, len + 1);
    }
    return complaint;
}

const char *value_host_pattern(const char *text, char out[VALUE_HOST_BYTES])
{
    char suffix[VALUE_HOST_BYTES];
    const char *complaint = NULL;
    size_t len = 0;

    if (strcmp(text, "*") == 0) {
        memcpy(out, "*", 2);
        return NULL;
    }
    if (strncmp(text, "*.", 2) != 0) {
        return value_host(text, out);
    }
    complaint = value_host(text + 2, suffix);
    if (complaint != NULL) {
        return complaint;
    }
    len = strlen(suffix);
    if (len + 2 > VALUE_HOST_MAX) {
        return "is not a host name: 1 to 253 characters";
    }
    if (suffix[0] == '[' || is_digit(suffix[len - 1])) {
        struct in_addr address;

        if (suffix[0] == '[' || inet_pton(AF_INET, suffix, &address) == 1) {
            return "is not a pattern of host names: addresses have no suffix";
        }
    }
    out[0] = '*';
    out[1] = '.';
    memcpy(out + 2, suffix, len + 1);
    return NULL;
}

const char *value_realm(const char *text)
{
    size_t len = strlen(text);

    if (len == 0 || len > 255) {
        return "is not a realm: 1 to 255 characters";
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr(" @/\\:*", *p) != NULL) {
            return "is not a realm: no spaces and none of @ / \\ : * (realms are compared whole)";
        }
    }
    return NULL;
}

const char *value_principal(const char *text)
{
    const char *at = NULL;

    if (text[0] == '*' && (text[1] == '@' || text[1] == '/')) {
        return "is compared whole, * is no pattern: to let in a realm write `realm`";
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\\') {
            if (p[1] == '\0') {
                return "is not a principal: a backslash at its end";
            }
            p++;
        } else if (*p == '@' && at != NULL) {
            return "is not a principal: a second @ (write \\@ for one that belongs to it)";
        } else if (*p == '@') {
            at = p;
        }
    }
    if (at == NULL) {
        return "is not a whole principal: it needs its realm, like alice@EXAMPLE.TEST";
    }
    if (at == text) {
        return "is not a principal: nothing before the @";
    }
    return at[1] == '\0' ? "is not a whole principal: nothing after the @" : value_realm(at + 1);
}

const char *value_service(const char *text)
{
    char host[VALUE_HOST_BYTES];
    const char *at = NULL;
    size_t len = 0;

    if (strncmp(text, "HTTP/", 5) != 0) {
        return "is not a service: HTTP/host or HTTP/host@REALM";
    }
    text += 5;
    at = strchr(text, '@');
    len = at != NULL ? (size_t)(at - text) : strlen(text);
    if (len == 0 || len > VALUE_HOST_MAX) {
        return "is not a service: HTTP/host or HTTP/host@REALM";
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (host[0] == '[' || host[len - 1] == '.' || value_host(host, host) != NULL) {
        return "is not a service: what follows HTTP/ is no host name";
    }
    return at != NULL ? value_realm(at + 1) : NULL;
}

static const char *check_parameter(const char *text)
{
    size_t len = strlen(text);

    if (len == 0 || len > 256) {
        return "is not a parameter: 1 to 256 characters";
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (!is_upper(*p) && !is_digit(*p) && *p != '_') {
            return "is not a parameter: only capital letters, digits and _";
        }
    }
    return NULL;
}

static bool is_one_of(const char *text, const char *const *list)
{
    while (*list != NULL && strcmp(text, *list) != 0) {
        list++;
    }
    return *list != NULL;
}

const char *value_parameter(const char *text)
{
    /* What a client chooses freely, or what decides which site a request belongs to. */
    static const char *const refused[] = {"HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_HOST", NULL};
    const char *wrong = check_parameter(text);

    if (wrong == NULL && is_one_of(text, refused)) {
        return "may not be forwarded: never the host, never credentials";
    }
    return wrong;
}

const char *value_server_parameter(const char *text)
{
    /* What a server takes from the request and the connection, or what is the same in all of them.
     */
    static const char *const refused[] = {
        "AUTH_",       "CONTENT_", "DOCUMENT_",      "FCGI_",
        "GATEWAY_",    "HTTP",     "PATH_",          "QUERY_",
        "REDIRECT_",   "REMOTE_",  "REQUEST_METHOD", "REQUEST_SCHEME",
        "REQUEST_URI", "SCRIPT_",  "SERVER_",        "SSL_",
        "TLS_"};
    const char *wrong = check_parameter(text);

    for (size_t i = 0; wrong == NULL && i < sizeof refused / sizeof refused[0]; i++) {
        if (strncmp(text, refused[i], strlen(refused[i])) == 0) {
            wrong = "is a parameter that clients can choose, or that is the same in all requests; "
                    "take one that the web server makes: UNIQUE_ID (Apache) or REQUEST_ID (nginx)";
        }
    }
    return wrong;
}

const char *value_endpoint(const char *text, struct sockaddr_storage *out, socklen_t *out_len)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    const char *colon = strrchr(text, ':');
    const char *host = text;
    char numeric[VALUE_ADDRESS_BYTES];
    uint64_t port = 0;
    size_t len = 0;
    bool bracketed = text[0] == '[';

    if (colon == NULL || value_number(colon + 1, &port) != NULL || port < 1 || port > 65535) {
        return "needs a numeric address and a port from 1 to 65535, like 127.0.0.1:991";
    }
    len = (size_t)(colon - text);
    if (bracketed) {
        if (len < 2 || text[len - 1] != ']') {
            return "is not an address: IPv6 is written like [::1]:991";
        }
        host++;
        len -= 2;
    }
    if (len >= sizeof numeric) {
        return "is not a numeric address";
    }
    memcpy(numeric, host, len);
    numeric[len] = '\0';
    if (bracketed && inet_pton(AF_INET6, numeric, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *out_len = sizeof *v6;
    } else if (!bracketed && inet_pton(AF_INET, numeric, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *out_len = sizeof *v4;
    } else {
        return "is not a numeric address (no names here; IPv6 is written like [::1]:991)";
    }
    *out = address;
    return NULL;
}

bool value_endpoint_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;

        return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) != 0;
    }
    return false;
}

const char *value_address(const char *text, char out[VALUE_ADDRESS_BYTES])
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, text, &v4) == 1) {
        if (v4.s_addr == htonl(INADDR_ANY)) {
            return "is the wildcard: list each address that may connect";
        }
        (void)inet_ntop(AF_INET, &v4, out, VALUE_ADDRESS_BYTES);
        return NULL;
    }
    if (inet_pton(AF_INET6, text, &v6) == 1) {
        if (IN6_IS_ADDR_UNSPECIFIED(&v6)) {
            return "is the wildcard: list each address that may connect";
        }
        if (IN6_IS_ADDR_V4MAPPED(&v6)) {
            return "is an IPv4 address in disguise: write it as one";
        }
        (void)inet_ntop(AF_INET6, &v6, out, VALUE_ADDRESS_BYTES);
        return NULL;
    }
    return "is not a numeric address (no names, no port, no network)";
}
