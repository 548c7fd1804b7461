"""Hostile requests by hand: what is sent of HTTP and FastCGI, and the reason that it must get.

Each section is a generator that gets the run and yields cases; a case is sent when it is yielded,
so run.reply is the token of the last answer. A section runs once in each role.
"""

import requests_der as der
from requests_der import KRB5, b64, neg_init

HOST = b"www.example.test"
BROKEN = b"broken.example.test"  # its keytab is not there


class Case:
    """A request and what is expected of it; what is not given is an ordinary client's."""

    def __init__(self, title, reason, header=None, token=None, **more):
        self.title, self.reason, self.token, self.header = title, reason, token, header
        if header is None and token is not None:
            self.header = b"Negotiate " + b64(token)
        self.listener = "plain"
        self.method = None
        self.host = HOST
        self.params = ()
        self.user = "alice"
        self.mutual = True  # whether the client asks for the server's proof
        self.mech = KRB5  # that the answer to a NegTokenInit names
        self.record_host = None  # in the record, where it is not what was sent
        self.record_method = None
        self.record_uri = None
        for field, value in more.items():
            if field not in self.__dict__:
                raise AttributeError("a case has no %s" % field)
            setattr(self, field, value)


def granted(title, token, **more):
    return Case(title, "ok", token=token, **more)


def denied(title, run, *options, **more):
    """bob has a good ticket, and no rule."""
    token = run.tickets.fresh(*options, user="bob")
    return Case(title, "no_rule", token=token, user="bob", **more)


def refused(title, token, reason="bad_token", **more):
    encoded = token.encode() if isinstance(token, der.Node) else token
    return Case(title, reason, token=encoded, **more)


# ---- the Authorization header


def other_schemes(run):
    """A good token is in the headers that are refused; none of them spends it."""
    token = run.tickets.fresh()
    good = b64(token)
    for header in (
        b"Basic YWxpY2U6c2VjcmV0",
        b"Basic " + good,
        b"Basic",
        b"basic Og==",
        b"Bearer a.b-c_d~e",
        b"Bearer " + good,
        b'Digest username="alice", realm="x", nonce="y", uri="/", response="z"',
        b"NTLM TlRMTVNTUAABAAAA",
        b"NTLM " + good,
        b"NTLM",
        b"AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=00",
        b"Kerberos " + good,
        b"GSSAPI " + good,
        b"Unknown " + good,
        b"!#$%&'*+-.^_`|~09azAZ " + good,
        b"Negotiat " + good,
        b"Negotiates " + good,
        b"NegotiateYII",
        b"Negotiate" + good.replace(b"/", b"+").rstrip(b"="),  # these two would end a scheme
        b"Basic b, Negotiate " + good,
        b"Basic Negotiate " + good,
    ):
        yield Case("%.40r" % header, "other_scheme", header)
    for header in (None, b"", b" ", b"\t", b" \t "):
        yield Case("no header, %r" % header, "no_credentials", header)
    yield granted("the token of the other schemes", token)
    yield Case("the same again", "replay", token=token)


def bad_headers(run):
    token = run.tickets.fresh()
    good = b64(token)
    for header in (
        b"Negotiate",
        b"negotiate",
        b"Negotiate ",
        b" Negotiate",
        b"Negotiate    ",
        b"Negotiate\t",
        b"Negotiate=",
        b"Negotiate =",
        b"Negotiate ==",
        b"Negotiate ====",
        b"Negotiate=" + good,
        b"Negotiate:" + good,
        b"Negotiate: " + good,
        b"Negotiate," + good,
        b"Negotiate/" + good,
        b"Negotiate\t" + good,
        b"Negotiate \t" + good,
        b"Negotiate\r\n " + good,
        b"Negotiate \r\n" + good,
        b"Negotiate\xc2\xa0" + good,
        b"Negotiate ," + good,
        b"Negotiate " + good + b",",
        b"Negotiate " + good + b", Basic b",
        b"Negotiate " + good + b",Basic b",
        b"Negotiate " + good + b" Basic b",
        b"Negotiate " + good + b", Negotiate " + good,
        b"Negotiate " + good + b" " + good,
        b"Negotiate " + good + b' realm="x"',
        b"Negotiate " + good + b"\r\nX-Remote-User: alice",
        b"Negotiate " + good + b"\n",
        b"Negotiate " + good[:76] + b"\r\n" + good[76:],
        b"Negotiate " + good[:76] + b"\n" + good[76:],
        b"Negotiate " + good[:4] + b" " + good[4:],
        b"Negotiate " + good[:4] + b"\t" + good[4:],
        b"Negotiate, Basic b",
        b'"Negotiate" ' + good,
        b"<Negotiate> " + good,
        b"\xc2\xa0Negotiate " + good,
        b"=" + good,
        b"Basic\tYQ==",
        b"Basic a\x01b",
        b"Basic a\r\nX: y",
        b",",
        b"\x01",
        b"\xff",
    ):
        yield Case("%.40r" % header, "bad_header", header)
    for header in (
        b'Negotiate "' + good + b'"',
        b"Negotiate realm=x",
        b"Negotiate token=" + good,
        b"Negotiate " + good + b"\xc2\xa0",
        b"Negotiate " + good + b";",
        b"Negotiate " + good + b"====",
        b"Negotiate =" + good,
        b"Negotiate ====" + good,
        b"Negotiate %59" + good[1:],
    ):
        yield Case("%.40r" % header, "bad_base64", header)
    yield Case("NUL in the token", "closed", b"Negotiate " + good[:4] + b"\0" + good[4:])
    yield Case("NUL after the token", "closed", b"Negotiate " + good + b"\0")
    twice = ((b"HTTP_AUTHORIZATION", b"Basic b"),)
    yield Case("two headers", "closed", b"Negotiate " + good, params=twice)
    yield granted("the token of the bad headers", token)
    yield Case("the same again", "replay", token=token)


def good_headers(run):
    for header in (
        b"negotiate %s",
        b"NEGOTIATE %s",
        b"nEgOtIaTe %s",
        b"Negotiate  %s",
        b"Negotiate                    %s",
        b" Negotiate %s",
        b"\tNegotiate %s",
        b"Negotiate %s ",
        b"Negotiate %s\t",
        b" \t Negotiate   %s \t ",
    ):
        token = run.tickets.fresh()
        yield granted("%r" % header, token, header=header.replace(b"%s", b64(token)))


# ---- Host

NO_HOSTS = (
    b". .. .www.example.test www..example.test www.example.test.. :80 .:80 www.example.test: "
    b"www.example.test:0 www.example.test:65536 www.example.test:000080 www.example.test:8x "
    b"www.example.test:99999999999999999999 www.example.test:-1 www.example.test:+1 "
    b"www.example.test:80:80 alice@www.example.test alice:secret@www.example.test "
    b"www.example.test@evil.test www.example.test/ www.example.test/x http://www.example.test "
    b"www.example.test? www.example.test# www.example.test,evil.test www.ex%61mple.test * "
    b"*.example.test www.example.test\\x (www.example.test) ::1 [::1 ::1] [] []:80 [::1]x [::1]. "
    b"[::1]: [::1]:0 [::1]:65536 [::1%25lo] [::1%lo] [v1.x] [127.0.0.1] [www.example.test] "
    b"[[::1]] [1:2:3:4:5:6:7:8:9] [::1]@evil.test x[::1]"
).split(b" ")
NO_HOSTS += (
    b"www.example.test: 80",
    b"www.example.test :80",
    b"www.example.test, evil.test",
    b"www.example.test evil.test",
    b" www.example.test",
    b"www.example.test ",
    b"\twww.example.test",
    b"www.example.test\t",
    b"www.example.test\r\nX: y",
    b"www.example.test\n",
    b"www.example.test\x7f",
    b"www\x01.example.test",
    "w\u00e4.example.test".encode(),
    "www\u3002example.test".encode(),
)
LABEL = b"a" * 63
LONGEST = b".".join([LABEL, LABEL, LABEL, b"b" * 61])
NO_HOSTS += (LABEL + b"a.example.test", LONGEST + b"c", LONGEST + b"cc")
NOT_LISTED = (
    b"unknown.example.test example.test wwww.example.test ww.example.test www-example.test "
    b"www.example.test.evil.test www_example_test 127.0.0.1 [::1] localhost www.example.tes x"
).split(b" ")


def refused_hosts(run):
    """The site of the listener "any" takes every host that is one."""
    token = run.tickets.fresh()
    for host in NO_HOSTS:
        for more in ({"token": token}, {}):
            yield Case("%.50r" % host, "unknown_host", host=host, listener="any", **more)
    for host in NOT_LISTED:
        for more in ({"token": token}, {}, {"header": b"Negotiate"}):
            yield Case("not listed, %r" % host, "unknown_host", host=host, **more)
    for host in (None, b""):
        for listener in ("plain", "any"):
            for more in ({"token": token}, {}, {"header": b"Negotiate"}, {"header": b"Basic b"}):
                yield Case("Host %r" % host, "no_host", host=host, listener=listener, **more)
    for parameter in (b"SERVER_NAME", b"HTTP_X_FORWARDED_HOST", b"HTTP_FORWARDED", b"http_host"):
        more = {"token": token, "params": ((parameter, HOST),)}
        yield Case("no Host, but %r" % parameter, "no_host", host=None, **more)
        yield Case("another Host, and %r" % parameter, "unknown_host", host=b"x", **more)
    yield Case("NUL in Host", "closed", token=token, host=HOST + b"\0")
    yield Case("two Hosts", "closed", token=token, params=((b"HTTP_HOST", HOST),))
    yield granted("the token of the refused hosts", token)


def served_hosts(run):
    for host, seen in (
        (b"WWW.EXAMPLE.TEST", HOST),
        (b"Www.Example.Test.", HOST),
        (b"www.example.test:1", HOST),
        (b"www.example.test:65535", HOST),
        (b"www.example.test.:00443", HOST),
    ):
        yield granted("Host %r" % host, run.tickets.fresh(), host=host, record_host=seen)
    for host, seen in (
        (b"[::1]", b"[::1]"),
        (b"[2001:DB8::A]:443", b"[2001:db8::a]"),
        (b"[::ffff:127.0.0.1]", b"[::ffff:127.0.0.1]"),
        (b"127.0.0.1:8080", b"127.0.0.1"),
        (b"x", b"x"),
        (b"my_host-1.xn--bcher-kva", b"my_host-1.xn--bcher-kva"),
        (LABEL, LABEL),
        (LONGEST, LONGEST),
        (LONGEST + b".:80", LONGEST),
    ):
        more = {"host": host, "record_host": seen, "listener": "any"}
        yield granted("Host %.50r" % host, run.tickets.fresh(), **more)


# ---- other parameters

USERS = (
    b"REMOTE_USER REMOTE_PASSWD AUTH_TYPE SPNEGATE SPNEGATE_ASKED AUDIT_ID NEGOTIATE_REPLY Status "
    b"Variable-REMOTE_USER Variable-SPNEGATE Variable-AUTH_TYPE Variable-AUDIT_ID STATUS GSS_NAME "
    b"VARIABLE_REMOTE_USER REDIRECT_REMOTE_USER HTTP_REMOTE_USER HTTP_X_REMOTE_USER remote_user "
    b"HTTP_X_FORWARDED_USER HTTP_X_AUTH_USER HTTP_VARIABLE_REMOTE_USER HTTP_SPNEGATE FCGI_ROLE "
    b"HTTP_X_WEBAUTH_USER HTTP_SSL_CLIENT_S_DN SSL_CLIENT_S_DN KRB5CCNAME KRB5_CONFIG KRB5_KTNAME"
).split()
LOOK_ALIKES = (
    b"Authorization AUTHORIZATION authorization http_authorization Http_Authorization HTTP_COOKIE "
    b"HTTP_AUTHORIZATION_ HTTP__AUTHORIZATION _HTTP_AUTHORIZATION HTTP-AUTHORIZATION QUERY_STRING "
    b"HTTP_AUTHORIZATIO HTTP_AUTHORIZATIONS HTTP_PROXY_AUTHORIZATION HTTP_X_AUTHORIZATION "
    b"HTTP_X_FORWARDED_AUTHORIZATION REDIRECT_HTTP_AUTHORIZATION HTTP_WWW_AUTHENTICATE "
    b"REDIRECT_REDIRECT_HTTP_AUTHORIZATION"
).split() + [b"HTTP_AUTHORIZATION ", b" HTTP_AUTHORIZATION"]


def claimed_users(run):
    """What the request says of the user is never believed."""
    for values in ((b"alice",), (b"bob",), (b"granted",), (b"",), (b"alice", b"bob")):
        params = [(parameter, value) for parameter in USERS for value in values]
        more = {"params": params}
        yield Case("users %s, no header" % (values,), "no_credentials", **more)
        yield Case("users %s, Basic" % (values,), "other_scheme", b"Basic b", **more)
        yield Case("users %s, garbage" % (values,), "bad_token", token=b"\0", **more)
        yield granted("users %s, alice" % (values,), run.tickets.fresh(), **more)
        yield denied("users %s, bob" % (values,), run, **more)
    for parameter in USERS:
        params = [(parameter, b"alice")]
        yield Case("%r" % parameter, "no_credentials", params=params)


def look_alikes(run):
    """The Authorization header has one spelling as a parameter."""
    other = run.tickets.fresh(user="carol")
    text = b"Negotiate " + b64(other)
    for parameter in LOOK_ALIKES:
        params = [(parameter, text)]
        yield Case("%r" % parameter, "no_credentials", params=params)
        yield Case("%r and Basic" % parameter, "other_scheme", b"Basic b", params=params)
    params = [(parameter, text) for parameter in LOOK_ALIKES]
    yield granted("carol's ticket in all of them, alice's", run.tickets.fresh(), params=params)
    yield denied("carol's ticket in all of them, bob's", run, params=params)
    yield granted("carol's ticket was not spent", other, user="carol")


def forwarding(run):
    """A proxy is believed where the listener names the parameters, and about these only."""
    proxy = [
        (b"HTTP_X_FORWARDED_METHOD", b"DELETE"),
        (b"HTTP_X_FORWARDED_URI", b"/the/real"),
        (b"HTTP_X_FORWARDED_HOST", b"evil.test"),
        (b"HTTP_X_FORWARDED_FOR", b"127.0.0.9"),
        (b"HTTP_X_FORWARDED_USER", b"bob"),
        (b"HTTP_X_ORIGINAL_METHOD", b"PUT"),
        (b"HTTP_X_ORIGINAL_URI", b"/x"),
        (b"HTTP_X_REWRITE_URL", b"/x"),
        (b"HTTP_X_HTTP_METHOD_OVERRIDE", b"PATCH"),
        (b"HTTP_FORWARDED", b"host=evil.test"),
    ]
    believed = {"record_uri": "/the/real", "record_method": b"DELETE"}
    for listener in ("plain", "forwarded"):
        more = {"listener": listener, "params": proxy}
        if listener == "forwarded":
            more.update(believed)
        yield Case(listener + ", Basic", "other_scheme", b"Basic b", **more)
        yield Case(listener + ", no header", "no_credentials", **more)
        yield Case(listener + ", another host", "unknown_host", b"Basic b", host=b"x", **more)
        yield Case(listener + ", no host", "no_host", b"Basic b", host=None, **more)
        yield granted(listener + ", alice", run.tickets.fresh(), **more)
        yield denied(listener + ", bob", run, **more)
    twice = proxy + [(b"HTTP_X_FORWARDED_URI", b"/the/other")]
    yield Case("two URIs, says a stranger", "other_scheme", b"Basic b", params=twice)
    yield Case("two URIs", "closed", b"Basic b", listener="forwarded", params=twice)
    head = [(b"HTTP_X_FORWARDED_METHOD", b"HEAD"), (b"HTTP_X_FORWARDED_URI", b"/x")]
    more = {"method": b"GET", "params": head}
    yield Case("HEAD, says a stranger", "other_scheme", b"Basic b", **more)
    more.update(listener="forwarded", record_method=b"HEAD", record_uri="/x")
    yield Case("HEAD, says the proxy", "other_scheme", b"Basic b", **more)


def uris(run):
    """What the record makes of a URI."""
    for uri, seen in (
        (b"/a?token=x", "/a"),
        (b"/a#x", "/a"),
        (b"?", ""),
        (b"/../../etc/passwd", "/../../etc/passwd"),
        (b'/"\\', '/"\\'),
        (b'/\r\n{"v":1}', '/\r\n{"v":1}'),
        ("/\u00e4".encode(), "/\u00e4"),
    ):
        params = [(b"HTTP_X_FORWARDED_URI", uri), (b"HTTP_X_FORWARDED_METHOD", b"GET")]
        more = {"listener": "forwarded", "method": b"GET", "params": params, "record_uri": seen}
        yield Case("%r" % uri, "other_scheme", b"Basic b", **more)


METHODS = [b"HEAD ", b" HEAD", b"GET HEAD", b"X" * 200, b""] + (
    b"GET HEAD POST PUT DELETE OPTIONS TRACE CONNECT PATCH PROPFIND head Head HEADER"
).split()


def methods(run):
    """No body with HEAD, and nothing else that depends on the method."""
    krb5 = neg_init([KRB5]).encode()
    garbage = neg_init([KRB5], b"\0").encode()
    for method in METHODS:
        for title, reason, more in (
            ("no header", "no_credentials", {}),
            ("Basic", "other_scheme", {"header": b"Basic b"}),
            ("no token", "bad_header", {"header": b"Negotiate"}),
            ("garbage", "bad_token", {"token": b"\0"}),
            ("garbage in SPNEGO", "bad_token", {"token": garbage}),
            ("krb5 without a token", "continue", {"token": krb5}),
            ("no host", "no_host", {"host": None}),
            ("broken", "keytab_unavailable", {"token": run.tickets.fresh(), "host": BROKEN}),
        ):
            yield Case("%.20r, %s" % (method, title), reason, method=method, **more)
        yield granted("%.20r, alice" % method, run.tickets.fresh(), method=method)
        yield denied("%.20r, bob" % method, run, method=method)


def broken_site(run):
    """Where the keytab could not be loaded, what needs no key is answered as everywhere."""
    token = run.tickets.fresh()
    for title, reason, more in (
        ("no header", "no_credentials", {}),
        ("Basic", "other_scheme", {"header": b"Basic b"}),
        ("no token", "bad_header", {"header": b"Negotiate"}),
        ("no base64", "bad_base64", {"header": b"Negotiate !!!!"}),
        ("garbage", "bad_token", {"token": b"\0"}),
        ("NTLM", "ntlm", {"token": b"NTLMSSP\0" + bytes(32)}),
        ("krb5 without a token", "continue", {"token": neg_init([KRB5]).encode()}),
        ("a good token", "keytab_unavailable", {"token": token}),
    ):
        yield Case(title, reason, host=BROKEN, **more)
    yield granted("the good token, where it belongs", token)


SECTIONS = (
    other_schemes,
    bad_headers,
    good_headers,
    refused_hosts,
    served_hosts,
    claimed_users,
    look_alikes,
    forwarding,
    uris,
    methods,
    broken_site,
)
