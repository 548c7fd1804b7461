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
        FIELD("UNIQUE_ID", request_id),
        FIELD("REQUEST_ID", request_id),
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

void request_read(char *const *parameters, struct request *request)
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
    read_named(parameters, listener->repeat_id, &request->repeat_id);
    /* What a proxy in front says is believed only where the listener names the parameter. */
    read_named(parameters, listener->forwarded.method, &request->method);
    read_named(parameters, listener->forwarded.uri, &request->uri);
    read_named(parameters, listener->forwarded.peer, &request->peer);
}
