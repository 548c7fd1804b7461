"""DER, SPNEGO and krb5 frames for the hostile requests: from the RFCs, not from the daemon."""

import base64

KRB5 = bytes.fromhex("2a864886f712010202")
KRB5_U2U = KRB5 + b"\x03"
MS_KRB5 = bytes.fromhex("2a864882f712010202")
SPNEGO = bytes.fromhex("2b0601050502")
NTLM = bytes.fromhex("2b06010401823702020a")
NEGOEX = bytes.fromhex("2b06010401823702021e")
UNKNOWN = bytes.fromhex("2a0304")

AP_REQ_ID, AP_REP_ID, ERROR_ID = b"\x01\x00", b"\x02\x00", b"\x03\x00"


def b64(token):
    return base64.b64encode(token)


# ---- writing


def length(size):
    if size < 128:
        return bytes([size])
    body = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(body)]) + body


class Node:
    """An element: which field it is, its tag (None: bare bytes), and elements or bytes in it."""

    def __init__(self, field, tag, *parts):
        self.field, self.tag = field, tag
        self.parts = [part for part in parts if part is not None]

    def nodes(self):
        return [part for part in self.parts if isinstance(part, Node)]

    def map(self, function):
        """The parts, each node replaced by what the function makes of it."""
        return [function(part) if isinstance(part, Node) else part for part in self.parts]

    def contents(self):
        return b"".join(self.map(Node.encode))

    def encode(self):
        body = self.contents()
        return body if self.tag is None else bytes([self.tag]) + length(len(body)) + body

    def find(self, field):
        """The first element that is this field."""
        if self.field == field:
            return self
        found = (node.find(field) for node in self.nodes())
        return next((node for node in found if node is not None), None)

    def pieces(self):
        """(field, "tag", "length" or "contents", bytes) of everything, in order."""
        if self.tag is not None:
            yield self.field, "tag", bytes([self.tag])
            yield self.field, "length", length(len(self.contents()))
        for part in self.parts:
            if isinstance(part, Node):
                yield from part.pieces()
            else:
                yield self.field, "contents", part

    def appended(self, field, extra):
        """A copy with `extra` as the last bytes inside this field; all lengths fit."""
        parts = self.map(lambda node: node.appended(field, extra))
        return Node(self.field, self.tag, *parts, extra if field == self.field else None)

    def changed(self, field, change):
        """A copy with change(contents) inside this field; all lengths fit."""
        if self.field == field:
            return Node(field, self.tag, change(self.contents()))
        return Node(self.field, self.tag, *self.map(lambda node: node.changed(field, change)))

    def with_length(self, field, written):
        """The encoding with the length of this field as written(size); the others fit."""
        body = b"".join(self.map(lambda node: node.with_length(field, written)))
        if self.tag is None:
            return body
        return bytes([self.tag]) + (written if field == self.field else length)(len(body)) + body


def tlv(tag, *parts):
    return Node("", tag, *parts).encode()


# ---- reading; what is no DER raises ValueError or IndexError


def read(data):
    """(tag, contents, rest) of the first element."""
    tag, size, at = data[0], data[1], 2
    if size >= 128:
        at += size & 0x7F
        size = int.from_bytes(data[2:at], "big")
    if len(data) < at + size or data[1:at] != length(size):
        raise ValueError("no DER")
    return tag, data[at : at + size], data[at + size :]


def only(tag, data):
    found, contents, rest = read(data)
    if found != tag or rest:
        raise ValueError("not tag %02x alone" % tag)
    return contents


def elements(data):
    out = []
    while data:
        tag, contents, data = read(data)
        out.append((tag, contents))
    return out


def oid_good(oid):
    """Whether these contents are an OID: whole arcs, none with leading zeros."""
    starts = [0] + [at + 1 for at, byte in enumerate(oid) if byte < 128]
    return bool(oid) and starts.pop() == len(oid) and all(oid[at] != 0x80 for at in starts)


def framed(token):
    """Whether a client that sent this speaks SPNEGO, as far as the first bytes tell."""
    if len(token) < 2:
        return False
    more = token[1] & 0x7F if token[1] >= 128 else 0
    at = 2 + more
    size = int.from_bytes(token[2:at], "big") if more else token[1]
    if more > 4 or at > len(token) or token[1:at] != length(size):
        return False
    return token[0] in (0xA0, 0xA1) or (token[0] == 0x60 and token[at:].startswith(tlv(6, SPNEGO)))


# ---- Kerberos


def krb5_frame(inner, oid=KRB5, token_id=AP_REQ_ID):
    """The GSS frame around an AP-REQ, or around what is sent in its place."""
    ids = Node("krb5 OID", 6, oid), Node("token id", None, token_id)
    return Node("krb5 frame", 0x60, *ids, inner)


def encrypted(what, element):
    """EncryptedData inside its context tag."""
    tag, data = element
    parts = elements(only(0x30, data))
    fields = [Node(what, number, inner) for number, inner in parts[:-1]]
    cipher = Node(what + " cipher", 4, only(4, parts[-1][1]))
    sequence = Node(what + " EncryptedData", 0x30, *fields, Node(what, parts[-1][0], cipher))
    return Node(what, tag, sequence)


def ap_req_of(raw):
    """The AP-REQ of a raw krb5 token, as nodes down to the encrypted parts."""
    contents, start = only(0x60, raw), tlv(6, KRB5) + AP_REQ_ID
    if not contents.startswith(start):
        raise ValueError("no krb5 token")
    parts = elements(only(0x30, only(0x6E, contents[len(start) :])))
    ticket = elements(only(0x30, only(0x61, parts[3][1])))
    sealed = [Node("ticket", tag, data) for tag, data in ticket[:-1]]
    sealed.append(encrypted("ticket", ticket[-1]))
    fields = [Node("AP-REQ fields", tag, data) for tag, data in parts[:3]]
    fields.append(Node("", 0xA3, Node("Ticket", 0x61, Node("Ticket sequence", 0x30, *sealed))))
    fields.append(encrypted("authenticator", parts[4]))
    return Node("AP-REQ", 0x6E, Node("AP-REQ sequence", 0x30, *fields))


# ---- SPNEGO; tokens are nodes or bytes, and what is None is not there


def field(number, outer, tag, inner, contents):
    return None if contents is None else Node(outer, 0xA0 + number, Node(inner, tag, contents))


def neg_init(mechs, token=None, flags=None, mic=None):
    """NegTokenInit in its frame."""
    oids = [Node("mechanism %d" % number, 6, oid) for number, oid in enumerate(mechs)]
    sequence = Node(
        "sequence",
        0x30,
        Node("mechTypes", 0xA0, Node("list", 0x30, *oids)),
        field(1, "reqFlags", 3, "flags", flags),
        field(2, "mechToken", 4, "octets", token),
        field(3, "mechListMIC", 4, "MIC", mic),
    )
    inner = Node("NegTokenInit", 0xA0, sequence)
    return Node("frame", 0x60, Node("SPNEGO OID", 6, SPNEGO), inner)


def neg_resp(token=None, state=None, mech=None, mic=None):
    sequence = Node(
        "sequence",
        0x30,
        field(0, "[0]", 0x0A, "negState", state),
        field(1, "[1]", 6, "supportedMech", mech),
        field(2, "responseToken", 4, "octets", token),
        field(3, "mechListMIC", 4, "MIC", mic),
    )
    return Node("NegTokenResp", 0xA1, sequence)
