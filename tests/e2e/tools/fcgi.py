"""FastCGI records, both ways, for the tests' client and for the false authorizer."""

import socket
import struct

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = 1, 2, 3, 4, 5, 6, 7
ROLES = {"responder": 1, "authorizer": 2}

# Two of the frozen answers: docs/design.md 2a.
CHALLENGE = (
    b"Status: 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nCache-Control: no-store\r\n"
    b"Content-Type: text/plain\r\n\r\nSign-in with Kerberos is required."
)
FORBIDDEN = (
    b"Status: 403 Forbidden\r\nCache-Control: no-store\r\nContent-Type: text/plain\r\n\r\n"
    b"Access is not granted."
)


def record(kind, content=b"", request=1, padding=0, version=1):
    head = struct.pack(">BBHHBx", version, kind, request, len(content), padding)
    return head + content + b"\xaa" * padding


def split_records(data):
    """[(kind, request, content)] of whole records; ValueError when the last one is cut."""
    records, at = [], 0
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError("a cut record")
        _, kind, request, size, padding = struct.unpack_from(">BBHHBx", data, at)
        at += 8 + size + padding
        if at > len(data):
            raise ValueError("a cut record")
        records.append((kind, request, data[at - size - padding : at - padding]))
    return records


def split_answers(data):
    """[(request, stdout)] of answers in good order, each ended; ValueError at anything else."""
    answers, stdout, current = [], b"", None
    for kind, request, content in split_records(data):
        if current not in (None, request):
            raise ValueError("records of two requests, mixed")
        current = request
        if kind == STDOUT:
            stdout += content
        elif kind == END and content == bytes(8):
            answers.append((request, stdout))
            stdout, current = b"", None
        elif kind != STDERR or content:
            raise ValueError("a record of type %d: %r" % (kind, content[:64]))
    if current is not None:
        raise ValueError("an answer that is not ended")
    return answers


def _length(value):
    size = len(value)
    return bytes([size]) if size < 128 else struct.pack(">I", size | 0x80000000)


def pairs(params):
    return b"".join(
        _length(name) + _length(value) + name + value for name, value in params
    )


def request(params, role="authorizer", body=b"", keep=False, number=1):
    """A whole request as bytes; an authorizer's has no STDIN."""
    head = struct.pack(">HB5x", ROLES[role], 1 if keep else 0)
    content = pairs(params)
    out = [record(BEGIN, head, number)]
    for start in range(0, len(content), 65528):
        out.append(record(PARAMS, content[start : start + 65528], number))
    out.append(record(PARAMS, b"", number))
    if role == "responder":
        for start in range(0, len(body), 65528):
            out.append(record(STDIN, body[start : start + 65528], number))
        out.append(record(STDIN, b"", number))
    return b"".join(out)


def connect(address, timeout):
    """A path, or HOST:PORT."""
    if "/" in address:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(timeout)
        peer.connect(address)
        return peer
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout)


def exactly(peer, size):
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_record(peer):
    """(kind, content) of the next record; EOFError at the end."""
    _, kind, _, size, padding = struct.unpack(">BBHHBx", exactly(peer, 8))
    content = exactly(peer, size)
    exactly(peer, padding)
    return kind, content


def read_answer(peer):
    """(stdout, ended): what came until END_REQUEST, or until the connection was closed."""
    stdout = b""
    while True:
        try:
            kind, content = read_record(peer)
        except EOFError:
            return stdout, False
        if kind == STDOUT:
            stdout += content
        elif kind == END:
            return stdout, True


def read_params(peer):
    """The parameters of a request that a server sends, as a dict of bytes."""
    content = b""
    while True:
        kind, part = read_record(peer)
        if kind == PARAMS:
            if not part:
                break
            content += part
    params, at = {}, 0
    while at < len(content):
        sizes = []
        for _ in range(2):
            size = content[at]
            at += 1
            if size >= 128:
                size = struct.unpack(">I", bytes([size & 0x7F]) + content[at : at + 3])[0]
                at += 3
            sizes.append(size)
        name = content[at : at + sizes[0]]
        params[name] = content[at + sizes[0] : at + sizes[0] + sizes[1]]
        at += sizes[0] + sizes[1]
    return params
