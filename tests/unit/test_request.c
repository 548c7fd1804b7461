#include "serve/request.h"

#include <criterion/criterion.h>
#include <string.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"

static struct config_listener listener;
static const struct config_strings usual;

static struct request read_it(const char *const *parameters, const struct config_strings *ids)
{
    struct request request = {.listener = &listener};
    request_read((char *const *)(uintptr_t)parameters, ids, &request);
    return request;
}

static bool is(struct span field, const char *text)
{
    return text == NULL ? field.ptr == NULL : field.ptr != NULL && span_equal(field, span_of(text));
}

Test(request, each_parameter_has_its_field_and_the_first_counts)
{
    static const char *const parameters[] = {"HTTP_HOST=a",
                                             "HTTP_HOST=b",
                                             "HTTP_HOSTS=c",
                                             "REQUEST_METHOD=GET",
                                             "REQUEST_URI=/?a=b",
                                             "REMOTE_ADDR=192.0.2.1",
                                             "REMOTE_PORT=1",
                                             "SERVER_SOFTWARE=s/1",
                                             "HTTPS=on",
                                             "REQUEST_SCHEME=https",
                                             "HTTP_AUTHORIZATION=Negotiate YQ==",
                                             NULL};
    const struct request q = read_it(parameters, &usual);
    cr_expect(is(q.host, "a"));
    cr_expect(is(q.method, "GET"));
    cr_expect(is(q.uri, "/?a=b"));
    cr_expect(is(q.peer, "192.0.2.1"));
    cr_expect(is(q.peer_port, "1"));
    cr_expect(is(q.server, "s/1"));
    cr_expect(is(q.https, "on"));
    cr_expect(is(q.scheme, "https"));
    cr_expect(is(q.authorization, "Negotiate YQ=="));
    cr_expect(is(q.request_id, NULL));
    cr_expect(is(q.repeat_id, NULL));
    cr_expect(is(q.trace, NULL));
}

Test(request, the_listener_names_what_a_proxy_says)
{
    static char method[] = "HTTP_X_FORWARDED_METHOD";
    static char uri[] = "HTTP_X_FORWARDED_URI";
    static char id[] = "UNIQUE_ID";
    static const char *const parameters[] = {
        "REQUEST_METHOD=POST",        "REQUEST_URI=/auth", "HTTP_X_FORWARDED_METHOD=GET",
        "HTTP_X_FORWARDED_URI=/page", "UNIQUE_ID=u",       NULL};
    struct request q = read_it(parameters, &usual);
    cr_expect(is(q.method, "POST"), "a header alone changes nothing");
    cr_expect(is(q.uri, "/auth"));
    listener.forwarded.method = method;
    listener.forwarded.uri = uri;
    listener.repeat_id = id;
    q = read_it(parameters, &usual);
    cr_expect(is(q.method, "GET"));
    cr_expect(is(q.uri, "/page"));
    cr_expect(is(q.repeat_id, "u"));
    q = read_it(parameters + 4, &usual);
    cr_expect(is(q.method, NULL), "the proxy did not say it: not known");
}

Test(request, the_id_is_the_first_of_the_list_that_is_there)
{
    static char mine[] = "MY_ID";
    static char *items[] = {mine};
    static const struct config_strings ids = {items, 1};
    static const char *const parameters[] = {"HTTP_X_REQUEST_ID=x", "REQUEST_ID=r", "UNIQUE_ID=u",
                                             "MY_ID=m", NULL};
    static const char *const fewer[] = {"HTTP_X_REQUEST_ID=x", "REQUEST_ID=r", NULL};
    static const char *const least[] = {"HTTP_X_REQUEST_ID=x", NULL};
    cr_expect(is(read_it(parameters, &usual).request_id, "u"));
    cr_expect(is(read_it(fewer, &usual).request_id, "r"));
    cr_expect(is(read_it(least, &usual).request_id, "x"));
    cr_expect(is(read_it(parameters, &ids).request_id, "m"));
    cr_expect(is(read_it(fewer, &ids).request_id, NULL));
}

Test(request, only_a_good_traceparent_has_a_trace)
{
    static const struct {
        const char *parameter;
        const char *trace;
    } cases[] = {
        {"HTTP_TRACEPARENT=00-" TRACE "-b7ad6b7169203331-01", TRACE},
        {"HTTP_TRACEPARENT=00-" TRACE "-b7ad6b7169203331-0", NULL},
        {"HTTP_TRACEPARENT=00-" TRACE "-b7ad6b7169203331-011", NULL},
        {"HTTP_TRACEPARENT=01-" TRACE "-b7ad6b7169203331-01", NULL},
        {"HTTP_TRACEPARENT=00-" TRACE "-0000000000000000-01", NULL},
        {"HTTP_TRACEPARENT=00-" TRACE "-b7ad6b716920333g-01", NULL},
        {"HTTP_TRACEPARENT=00-" TRACE "-b7ad6b7169203331-g1", NULL},
        {"HTTP_TRACEPARENT=00-" TRACE "_b7ad6b7169203331-01", NULL},
        {"HTTP_TRACEPARENT=00-" TRACE "-b7ad6b7169203331_01", NULL},
        {"HTTP_TRACEPARENT=00-00000000000000000000000000000000-b7ad6b7169203331-01", NULL},
        {"HTTP_TRACEPARENT=00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", NULL},
        {"HTTP_TRACEPARENT=", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const parameters[] = {cases[i].parameter, NULL};
        cr_expect(is(read_it(parameters, &usual).trace, cases[i].trace), "%s", cases[i].parameter);
    }
}
