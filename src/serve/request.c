#include "serve/request.h"

#include <stddef.h>
#include <string.h>

/* Where a parameter of the request goes; NULL: nowhere, or it is there. */
static struct span *find_field(struct request *q, struct span parameter)
{
    static const struct {
        struct span parameter;
        size_t at;
    } fields[] = {
/* clang-format off */
#define FIELD(text, member) \
    {{(const unsigned char *)(text), sizeof(text) - 1}, offsetof(struct request, member)}
        /* clang-format on */
        FIELD("HTTP_AUTHORIZATION", authorization),
        FIELD("HTTP_HOST", host),
        FIELD("REQUEST_METHOD", method),
        FIELD("REQUEST_URI", uri),
        FIELD("REMOTE_ADDR", peer),
        FIELD("REMOTE_PORT", peer_port),
        FIELD("SERVER_SOFTWARE", server),
        FIELD("HTTP_TRACEPARENT", trace),
        FIELD("HTTPS", https),
        FIELD("REQUEST_SCHEME", scheme),
    };
#undef FIELD
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (span_equal(parameter, fields[i].parameter)) {
            struct span *field = (struct span *)((unsigned char *)q + fields[i].at);
            return field->ptr == NULL ? field : NULL;
        }
    }
    return NULL;
}

/* The parameter that the listener's configuration names, if it does. */
static void read_named(char *const *parameters, const char *parameter, struct span *field)
{
    const size_t len = parameter != NULL ? strlen(parameter) : 0;
    if (parameter == NULL) {
        return;
    }
    *field = (struct span){NULL, 0};
    for (char *const *p = parameters; *p != NULL && field->ptr == NULL; p++) {
        if (strncmp(*p, parameter, len) == 0 && (*p)[len] == '=') {
            *field = span_of(*p + len + 1);
        }
    }
}

/* The first of these that is there, whatever it holds. */
static void read_id(char *const *parameters, const struct config_strings *ids,
                    struct request *request)
{
    static char unique_id[] = "UNIQUE_ID";            /* Apache */
    static char request_id[] = "REQUEST_ID";          /* as our nginx configuration has it */
    static char x_request_id[] = "HTTP_X_REQUEST_ID"; /* of a proxy in front, or the client */
    static char *usual_items[] = {unique_id, request_id, x_request_id};
    static const struct config_strings usual = {usual_items, 3};
    const struct config_strings *list = ids->count > 0 ? ids : &usual;
    for (size_t i = 0; i < list->count && request->request_id.ptr == NULL; i++) {
        read_named(parameters, list->items[i], &request->request_id);
    }
}

static bool is_hex(struct span text, bool *zero)
{
    *zero = true;
    for (size_t i = 0; i < text.len; i++) {
        const unsigned char c = text.ptr[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) {
            return false;
        }
        *zero = *zero && c == '0';
    }
    return true;
}

/* W3C Trace Context: version-traceid-parentid-flags; only the trace id is kept, or nothing. */
static struct span parse_trace(struct span value)
{
    enum { TRACE_AT = 3, TRACE_LEN = 32, PARENT_AT = 36, FLAGS_AT = 53, VALUE_LEN = 55 };
    const struct span none = {NULL, 0};
    bool zero = false;
    if (value.len != VALUE_LEN || memcmp(value.ptr, "00-", TRACE_AT) != 0 ||
        value.ptr[PARENT_AT - 1] != '-' || value.ptr[FLAGS_AT - 1] != '-' ||
        !is_hex(span_make(value.ptr + FLAGS_AT, 2), &zero) ||
        !is_hex(span_make(value.ptr + PARENT_AT, FLAGS_AT - 1 - PARENT_AT), &zero) || zero) {
        return none;
    }
    const struct span trace = span_make(value.ptr + TRACE_AT, TRACE_LEN);
    return is_hex(trace, &zero) && !zero ? trace : none;
}

void request_read(char *const *parameters, const struct config_strings *ids,
                  struct request *request)
{
    const struct config_listener *listener = request->listener;
    for (char *const *p = parameters; *p != NULL; p++) {
        const char *equals = strchr(*p, '=');
        if (equals != NULL) {
            struct span *field = find_field(request, span_make(*p, (size_t)(equals - *p)));
            if (field != NULL) {
                *field = span_of(equals + 1);
            }
        }
    }
    request->trace = parse_trace(request->trace);
    read_id(parameters, ids, request);
    read_named(parameters, listener->repeat_id, &request->repeat_id);
    /* What a proxy in front says is believed only where the listener names the parameter. */
    read_named(parameters, listener->forwarded.method, &request->method);
    read_named(parameters, listener->forwarded.uri, &request->uri);
    read_named(parameters, listener->forwarded.peer, &request->peer);
}
