"""Sequences of FastCGI records that no web server sends, and odd ones that must be served.

A case is a list of records. `answers` lists what of it is a request in good order:
(how many records it is complete with, request id, the answer's bytes); nothing else of a case may
be answered. `waits`: nothing in it is wrong, it only stops; the daemon waits for more.
"""

import struct
from collections import namedtuple

from fcgi import (
    ABORT,
    BEGIN,
    CHALLENGE,
    END,
    FORBIDDEN,
    PARAMS,
    ROLES,
    STDERR,
    STDIN,
    STDOUT,
    pairs,
    record,
)

DATA, GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = 8, 9, 10, 11

# What 81-hostile configures: more than the largest good case, less than one record can hold.
REQUEST_MAX = 60 * 1024

DECIDERS = (
    b"HTTP_AUTHORIZATION HTTP_COOKIE HTTP_HOST REMOTE_ADDR "
    b"HTTPS REQUEST_URI REQUEST_METHOD UNIQUE_ID"
).split()

Case = namedtuple("Case", "title records answers waits", defaults=((), False))

HOST = (b"HTTP_HOST", b"www.example.test")
GOOD = pairs([HOST, (b"REQUEST_METHOD", b"GET"), (b"SERVER_SOFTWARE", b"peer/1")])


def begin(role, keep=False, number=1, size=8, padding=0):
    content = struct.pack(">HB5x", ROLES.get(role, role), 1 if keep else 0)
    content = (content + bytes(65535))[:size]
    return record(BEGIN, content, number, padding)


def whole(role, keep, content=GOOD, number=1, padding=0, step=65535):
    """A request in good order, in records of at most `step` bytes of content."""
    out = [begin(role, keep, number, padding=padding)]
    for start in range(0, len(content), step):
        out.append(record(PARAMS, content[start : start + step], number, padding))
    out.append(record(PARAMS, b"", number, padding))
    if role == "responder":
        out.append(record(STDIN, b"", number, padding))
    return out


ASKED = pairs([(b"FCGI_MAX_CONNS", b""), (b"FCGI_MAX_REQS", b""), (b"FCGI_MPXS_CONNS", b"")])

# Wrong wherever they stand.
INTRUDERS = [
    ("ABORT_REQUEST", record(ABORT)),
    ("END_REQUEST", record(END, bytes(8))),
    ("STDOUT", record(STDOUT, b"x")),
    ("an empty STDOUT", record(STDOUT)),
    ("STDERR", record(STDERR, b"x")),
    ("DATA", record(DATA, b"x")),
    ("an empty DATA", record(DATA)),
    ("type 0", record(0)),
    ("a record of version 0", record(PARAMS, b"", version=0)),
    ("a record of version 2", record(PARAMS, b"", version=2)),
    ("GET_VALUES, empty", record(GET_VALUES, b"", 0)),
    ("GET_VALUES of one", record(GET_VALUES, pairs([(b"FCGI_MAX_CONNS", b"")]), 0)),
    ("GET_VALUES of many, repeated", record(GET_VALUES, ASKED * 64, 0)),
    ("GET_VALUES with a request's id", record(GET_VALUES, ASKED)),
    ("GET_VALUES_RESULT", record(GET_VALUES_RESULT, ASKED, 0)),
    ("UNKNOWN_TYPE", record(UNKNOWN_TYPE, bytes(8), 0)),
    ("type 12, id 0", record(12, b"", 0)),
    ("type 255, id 0", record(255, b"x" * 100, 0, 255)),
    ("type 255 with a request's id", record(255)),
    ("BEGIN_REQUEST, id 0", begin("responder", number=0)),
    ("PARAMS, id 0", record(PARAMS, GOOD, 0)),
    ("STDIN, id 0", record(STDIN, b"", 0)),
]


def phases(role, keep):
    """[(where, the records before, what of them is answered)]"""
    good = whole(role, keep)
    answer = ((len(good), 1, CHALLENGE),)
    out = [
        ("first", [], ()),
        ("after BEGIN_REQUEST", good[:1], ()),
        ("amid PARAMS", [good[0], record(PARAMS, GOOD[:20])], ()),
        ("after the request", good, answer),
    ]
    if role == "responder":
        out.append(("after the empty PARAMS", good[:-1], ()))
    else:
        out.append(("after the late STDIN", good + [record(STDIN)], answer))
    return out


def intruders(role, keep):
    return [
        Case(title + " " + where, before + [intruder], answers)
        for title, intruder in INTRUDERS
        for where, before, answers in phases(role, keep)
    ]


def order(role, keep):
    """Records that a request may have, but not there, not so, or not of that id."""
    first = begin(role, keep)
    params = record(PARAMS, GOOD)
    end = record(PARAMS)
    stdin = record(STDIN)
    out = [
        Case("BEGIN_REQUEST twice", [first, first]),
        Case("BEGIN_REQUEST amid PARAMS", [first, params, first]),
        Case("BEGIN_REQUEST of another id", [first, params, begin(role, keep, 2)]),
        Case("PARAMS first", [params]),
        Case("an empty PARAMS first", [end]),
        Case("PARAMS before BEGIN_REQUEST", [params, end, first]),
        Case("only STDIN", [stdin]),
        Case("only STDIN with content", [record(STDIN, b"body")]),
        Case("a flood of empty STDIN", [stdin * 1000]),
        Case("STDIN at once", [first, stdin]),
        Case("STDIN before the empty PARAMS", [first, params, stdin]),
        Case("STDIN with content before the empty PARAMS", [first, params, record(STDIN, b"x")]),
        Case("PARAMS of another id", [first, record(PARAMS, GOOD, 2)]),
        Case("the empty PARAMS of another id", [first, params, record(PARAMS, b"", 2)]),
        Case("PARAMS of two ids", [first, record(PARAMS, GOOD[:9]), record(PARAMS, GOOD[9:], 256)]),
    ]
    for size in (0, 7, 9, 65535):
        out.append(Case("BEGIN_REQUEST of %d bytes" % size, [begin(role, keep, size=size)]))
    for wrong in (0, 3, 255, 256, 257, 65535):
        out.append(Case("role %d" % wrong, [begin(wrong, keep), params, end]))
    return out


def after(role, keep):
    """What follows the parameters, by role."""
    good = whole(role, keep)
    answer = ((len(good), 1, CHALLENGE),)
    stdin = record(STDIN)
    out = [
        Case("a late STDIN of another id", good + [record(STDIN, b"", 2)], answer),
        Case("a late STDIN with content", good + [record(STDIN, b"x")], answer),
        Case("a late STDIN twice", good + [stdin, stdin], answer),
        Case("a flood of late empty STDIN", good + [stdin * 1000], answer),
        Case("PARAMS after the request", good + [record(PARAMS, GOOD)], answer),
        Case("a next request of role 3", good + [begin(3, keep)], answer),
        Case("a next request with two Hosts", good + whole(role, keep, pairs([HOST] * 2)), answer),
        Case("a next request of two ids", good + [begin(role, keep, 2), record(PARAMS)], answer),
    ]
    if role == "responder":
        body = good[:-1]
        out += [
            Case("a late STDIN", good + [stdin], answer),
            Case("a body of a byte", body + [record(STDIN, b"x"), stdin]),
            Case("a body of 65,535 bytes, padded", body + [record(STDIN, b"x" * 65535, 1, 255)]),
            Case("STDIN of another id", body + [record(STDIN, b"", 2)]),
            Case("PARAMS after the empty PARAMS", body + [record(PARAMS, GOOD)]),
            Case("the empty PARAMS twice", body + [record(PARAMS)]),
            Case("BEGIN_REQUEST after the empty PARAMS", body + [begin(role, keep)]),
        ]
    return out


PARAMETERS = [
    ("a lone length", b"\x05"),
    ("a value's length that is missing", GOOD + b"\x05"),
    ("a parameter longer than what was sent", b"\x09\x00HOST"),
    ("a value longer than what was sent", b"\x04\x09HOSTvalue"),
    ("a value longer by a byte, behind a good one", GOOD + b"\x01\x02AB"),
    ("a parameter longer than what was sent, in four bytes", b"\x80\x00\x00\x09\x00HOST"),
    ("a value longer than what was sent, in four bytes", b"\x04\x80\x00\x00\x09HOSTvalue"),
    ("a parameter of 2 GiB", b"\x7f\xff\xff\xff\x01AB"),
    ("a parameter of 2 GiB in four bytes", b"\xff\xff\xff\xff\x01AB"),
    ("a value of 2 GiB", b"\x01\xff\xff\xff\xffAB"),
    ("both of 2 GiB", b"\xff\xff\xff\xff\xff\xff\xff\xffAB"),
    ("both a byte short of 2 GiB", b"\xff\xff\xff\xfe\xff\xff\xff\xfeAB"),
    ("both of 1 GiB", b"\xc0\x00\x00\x00\xc0\x00\x00\x00AB"),
    ("a four-byte length cut to one", GOOD + b"\x80"),
    ("a four-byte length cut to three", GOOD + b"\x80\x00\x00"),
    ("a value's four-byte length cut", b"\x01\x80\x00\x00"),
    ("no parameter, no value", b"\x00\x00"),
    ("a value without a parameter", GOOD + b"\x00\x05value"),
    ("a parameter of 257 bytes", pairs([(b"A" * 257, b"")])),
    ("a parameter of 50,000 bytes", pairs([(b"A" * 50000, b"")])),
    ("= in a parameter", pairs([HOST, (b"REMOTE_USER=alice", b"")])),
    ("= as a parameter", pairs([(b"=", b"x")])),
    ("NUL in a parameter", pairs([(b"HTTP_HOST\0", b"x")])),
    ("NUL in a value", pairs([(b"HTTP_HOST", b"www.example.test\0.evil.test")])),
    ("NUL as a value", pairs([HOST, (b"OTHER", b"\0")])),
    ("one over limits.request", pairs([(b"A", b"v" * (REQUEST_MAX - 5))])),
    ("a record of more than limits.request", pairs([(b"A", b"v" * 65000)])),
] + [
    ("%s twice" % decider.decode(), pairs([(decider, b"x"), (b"OTHER", b""), (decider, b"x")]))
    for decider in DECIDERS
]


def parameters(role, keep):
    out = [Case(title, whole(role, keep, content)) for title, content in PARAMETERS]
    content = pairs([(b"PARAMETER_%03d" % i, b"v" * 200) for i in range(300)])
    many = whole(role, keep, content, padding=255, step=1000)
    assert len(content) > REQUEST_MAX
    return out + [Case("more than limits.request, in many records", many)]


FOREIGN = [
    ("an HTTP request", b"GET /secure/ HTTP/1.1\r\nHost: www.example.test\r\n\r\n"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a TLS ClientHello", bytes.fromhex("16030100c4010000c00303") + bytes(190)),
    ("a PROXY line", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"),
    ("zeros", bytes(5000)),
    ("ones", b"\xff" * 5000),
    ("a line", b"hello\n"),
    ("a byte", b"\1"),
]


def hostile(role, keep):
    """Every case that must end without an answer for what is wrong in it."""
    foreign = [Case(title, [data], (), len(data) < 8) for title, data in FOREIGN]
    stops = [
        Case("only BEGIN_REQUEST", [begin(role, keep)], (), True),
        Case("PARAMS without an end", [begin(role, keep), record(PARAMS, GOOD)], (), True),
        Case("a record that never ends", [struct.pack(">BBHHBx", 1, BEGIN, 1, 8, 255)], (), True),
    ]
    cases = intruders(role, keep) + order(role, keep) + after(role, keep)
    return cases + parameters(role, keep) + foreign + stops


def good(role, keep):
    """Odd, but in good order: every one is answered."""

    def one(title, records, number=1, answer=CHALLENGE):
        return Case(title, records, ((len(records), number, answer),), True)

    first = whole(role, keep)
    long_lengths = b"".join(
        struct.pack(">II", 1 << 31 | len(parameter), 1 << 31 | len(value)) + parameter + value
        for parameter, value in [HOST, (b"A", b"")]
    )
    largest = pairs([(b"A", b"v" * (REQUEST_MAX - 6))])
    out = [
        one("plain", first),
        one("padding of 255", whole(role, keep, padding=255)),
        one("PARAMS of a byte", whole(role, keep, step=1)),
        one("PARAMS of a byte and padding", whole(role, keep, step=1, padding=255)),
        one("four bytes for short lengths", whole(role, keep, long_lengths)),
        one("a value of 60,000 bytes", whole(role, keep, pairs([HOST, (b"A", b"v" * 60000)]))),
        one("exactly limits.request", whole(role, keep, largest), answer=FORBIDDEN),
        one("a parameter of 256 bytes", whole(role, keep, pairs([HOST, (b"A" * 256, b"")]))),
        one("OTHER twice", whole(role, keep, pairs([HOST, (b"OTHER", b"1"), (b"OTHER", b"2")]))),
        one("no parameter", whole(role, keep, b""), answer=FORBIDDEN),
        one("the id 2", whole(role, keep, number=2), 2),
        one("the id 65535", whole(role, keep, number=65535), 65535),
    ]
    if keep:
        late = record(STDIN, b"", 1, 7)
        second = whole(role, keep, number=2)
        for title, between in (("two requests", []), ("two requests, a late STDIN", [late])):
            if between and role == "responder":
                continue
            both = first + between + second
            answers = ((len(first), 1, CHALLENGE), (len(both), 2, CHALLENGE))
            out.append(Case(title, both, answers, True))
    return out
