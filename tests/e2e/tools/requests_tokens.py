"""Hostile tokens by hand: base64, mechanisms, DER and Kerberos messages that are no login.

Sections as in requests_cases.
"""

import base64

import requests_der as der
from requests_cases import Case, denied, granted, refused
from requests_der import KRB5, MS_KRB5, NEGOEX, NTLM, UNKNOWN, Node, b64, neg_init, neg_resp, tlv

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
SPNEGO_OID = tlv(6, der.SPNEGO)

NTLMSSP = b"NTLMSSP\0"
NTLM_TOKENS = (
    NTLMSSP + bytes.fromhex("01000000978208e2") + bytes(16) + bytes.fromhex("0a0061580000000f"),
    NTLMSSP + bytes.fromhex("0200000000000000380000000582898a") + bytes(24),
    NTLMSSP + bytes.fromhex("03000000") + bytes(44) + bytes.fromhex("0582880a0a006158"),
    NTLMSSP,
)


def padding(run):
    """For a token of each length modulo 3: every padding but its own, and none elsewhere."""
    frame = der.krb5_frame(der.ap_req_of(run.tickets.raw()))
    bare = len(neg_init([KRB5], frame, mic=bytes(4)).encode())
    for size in range(3):
        token = neg_init([KRB5], frame, mic=bytes(4 + (size - bare) % 3)).encode()
        text = b64(token).rstrip(b"=")
        own = -len(text) % 4
        for count in range(6):
            if count != own:
                header = b"Negotiate " + text + b"=" * count
                yield Case("%d mod 3, %d =" % (size, count), "bad_base64", header)
        for at in (1, 2, 3, 4, len(text) // 2, len(text) - 1):
            for count in (1, 2, 3, 4):
                header = text[:at] + b"=" * count + text[at:]
                title = "%d mod 3, %d = at %d" % (size, count, at)
                yield Case(title, "bad_base64", b"Negotiate " + header)
                header += b"=" * (-len(header) % 4)
                yield Case(title + ", padded", "bad_base64", b"Negotiate " + header)
        for bit in range(2 * own):
            last = ALPHABET[ALPHABET.index(text[-1:]) | 1 << bit]
            header = b"Negotiate " + text[:-1] + bytes([last]) + b"=" * own
            yield Case("%d mod 3, bit %d after the end" % (size, bit), "bad_base64", header)
        header = b"Negotiate " + text + b"=3D"
        yield Case("%d mod 3, quoted-printable" % size, "bad_base64", header)
    yield granted("the token of which these were made", neg_init([KRB5], frame).encode())


def other_alphabets(run):
    token = run.tickets.fresh()
    # In a token with these bytes both of the last two signs are sure to be.
    odd = neg_init([KRB5], b"\xfb\xef\xbe\xff\xff\xff" * 3).encode()
    for title, text in (
        ("url-safe", base64.urlsafe_b64encode(odd)),
        ("only the url-safe -", b64(odd).replace(b"+", b"-")),
        ("only the url-safe _", b64(odd).replace(b"/", b"_")),
        ("hexadecimal", token.hex().encode()[:-1]),
        ("base32", base64.b32encode(token).rstrip(b"=") + b"==="),
    ):
        yield Case(title, "bad_base64", b"Negotiate " + text)
    for sign in b"-_.~":
        for text in (b"%cWJj", b"Y%cJj", b"YWJ%c"):
            yield Case("token68's %c" % sign, "bad_base64", b"Negotiate " + text % sign)
    yield granted("the token itself", token)


def ntlm(run):
    for number, token in enumerate(NTLM_TOKENS, 1):
        name = "NTLM %d " % number
        yield refused(name + "as it is", token, "ntlm")
        yield refused(name + "in a GSS frame", tlv(0x60, tlv(6, NTLM), token), "ntlm")
        yield refused(name + "in SPNEGO", neg_init([NTLM], token), "ntlm")
        yield refused(name + "as krb5's", neg_init([KRB5, NTLM], token), "ntlm")
        yield refused(name + "as MS-krb5's", neg_init([MS_KRB5, KRB5, NTLM], token), "ntlm")
        yield refused(name + "in a NegTokenResp", neg_resp(token), "ntlm")
        yield refused(name + "in a full one", neg_resp(token, b"\1", NTLM, bytes(16)), "ntlm")
        yield refused(name + "first, krb5 listed", neg_init([NTLM, KRB5], token), "continue")
        mechs = [NTLM, MS_KRB5, KRB5]
        yield refused(name + "first, then MS", neg_init(mechs, token), "continue", mech=MS_KRB5)
    yield refused("NTLM without a token", neg_init([NTLM]), "ntlm")
    yield refused("NEGOEX and NTLM", neg_init([NEGOEX, NTLM], b"NEGOEXTS"), "ntlm")
    yield refused("half of NTLM's signature", NTLMSSP[:7])


def mechanisms(run):
    raw = run.tickets.raw()
    for title, token in (
        ("only NEGOEX", neg_init([NEGOEX], b"NEGOEXTS")),
        ("only NEGOEX, no token", neg_init([NEGOEX])),
        ("raw NEGOEX", tlv(0x60, tlv(6, NEGOEX), b"NEGOEXTS")),
        ("an unknown one", neg_init([UNKNOWN], raw)),
        ("an unknown one, no token", neg_init([UNKNOWN])),
        ("raw, of an unknown one", tlv(0x60, tlv(6, UNKNOWN), der.AP_REQ_ID)),
        ("krb5 user to user", neg_init([der.KRB5_U2U], raw)),
        ("SPNEGO lists itself", neg_init([der.SPNEGO], raw)),
        ("64, krb5 absent", neg_init([UNKNOWN] * 64, raw)),
    ):
        yield refused(title, token, "mech_unsupported")
    for title, mechs, token, named in (
        ("NEGOEX, then MS-krb5", [NEGOEX, MS_KRB5, KRB5], b"NEGOEXTS", MS_KRB5),
        ("an unknown one, then krb5", [UNKNOWN, KRB5, MS_KRB5], raw, KRB5),
        ("krb5 without a token", [KRB5], None, KRB5),
        ("MS-krb5 without a token", [MS_KRB5, KRB5], None, MS_KRB5),
        ("64, krb5 last", [UNKNOWN] * 63 + [KRB5], raw, KRB5),
    ):
        yield refused(title, neg_init(mechs, token), "continue", mech=named)
    for title, mechs in (
        ("an empty list", []),
        ("an empty OID", [b""]),
        ("an OID without its end", [KRB5, b"\x2a\x86"]),
        ("an arc with leading zeros", [KRB5, b"\x2a\x80\x01"]),
    ):
        yield refused(title, neg_init(mechs, raw))
    for count in (65, 600, 9000):
        many = [UNKNOWN] * (count - 1)
        yield refused("%d, krb5 last" % count, neg_init(many + [KRB5], raw))
        yield refused("%d, krb5 first" % count, neg_init([KRB5] + many, raw))
        yield refused("%d, krb5 absent" % count, neg_init(many + [UNKNOWN], raw))
    yield granted("64, krb5 first", neg_init([KRB5] + [UNKNOWN] * 63, raw).encode())
    yield refused("NEGOEX without a frame", b"NEGOEXTS" + bytes(32))


def negotiations(run):
    """The outer forms of SPNEGO around one good token, and those in which one opens."""
    raw = run.tickets.raw()
    init = neg_init([KRB5], raw)
    for title, token in (
        ("krb5 with an empty token", neg_init([KRB5], b"")),
        ("no list", tlv(0x60, SPNEGO_OID, tlv(0xA0, tlv(0x30, tlv(0xA2, tlv(4, raw)))))),
        ("only SPNEGO's OID", tlv(0x60, SPNEGO_OID)),
        ("a NegTokenInit without a frame", tlv(0xA0, init.find("sequence").encode())),
        ("a NegTokenResp in a frame", tlv(0x60, SPNEGO_OID, neg_resp(raw).encode())),
        ("SPNEGO in SPNEGO", neg_init([KRB5], init)),
        ("SPNEGO in a NegTokenResp", neg_resp(init)),
        ("an empty NegTokenResp", neg_resp()),
        ("a NegTokenResp without a token", neg_resp(state=b"\1", mech=KRB5)),
        ("a NegTokenResp with an empty token", neg_resp(b"", b"\1", KRB5)),
    ):
        yield refused(title, token)
    for state in (b"\0", b"\2", b"\3", b"\xff", b"", b"\0\1"):
        yield refused("a NegTokenResp with state %r" % state, neg_resp(raw, state))
    yield granted("MS-krb5", neg_init([MS_KRB5], raw).encode(), mech=MS_KRB5)
    both = neg_init([KRB5, MS_KRB5], run.tickets.raw())
    yield granted("krb5, then MS-krb5", both.encode())
    yield granted("a NegTokenResp", neg_resp(run.tickets.raw()).encode(), mech=None)
    yield granted("without SPNEGO", run.tickets.raw())
    yield granted("one-sided", run.tickets.fresh("-1"), mutual=False)
    yield granted("one-sided, without SPNEGO", run.tickets.fresh("-1", "-r"), mutual=False)


def longer(size, count):
    return bytes([0x80 | count]) + size.to_bytes(count, "big")


LENGTHS = (
    ("indefinite", lambda size: b"\x80"),
    ("reserved", lambda size: b"\xff"),
    ("in one byte more", lambda size: longer(size, len(der.length(size)))),
    ("in two bytes more", lambda size: longer(size, len(der.length(size)) + 1)),
    ("in four bytes", lambda size: longer(size, 4)),
    ("in five bytes", lambda size: longer(size, 5)),
    ("in 126 bytes", lambda size: longer(size, 126)),
    ("4 GB", lambda size: b"\x84\xff\xff\xff\xff"),
    ("2 GB", lambda size: b"\x84\x80\0\0\0"),
    ("1 TB", lambda size: b"\x85\xff\xff\xff\xff\xff"),
    ("2^64 - 1", lambda size: b"\x88" + b"\xff" * 8),
    ("2^32 more", lambda size: b"\x85\1" + size.to_bytes(4, "big")),
    ("2^64 more", lambda size: b"\x89\1" + size.to_bytes(8, "big")),
    ("one more", lambda size: der.length(size + 1)),
    ("one less", lambda size: der.length(size - 1)),
    ("0", lambda size: b"\0"),
)
MEASURED = (
    "frame, SPNEGO OID, NegTokenInit, sequence, mechTypes, list, mechanism 0, mechToken, octets, "
    "krb5 frame, krb5 OID, AP-REQ"
).split(", ")


def lengths(run):
    """Every length of a good token written otherwise; those around it fit."""
    raw = run.tickets.raw()
    whole = neg_init([KRB5], der.krb5_frame(der.ap_req_of(raw)))
    for field in MEASURED:
        for title, length in LENGTHS:
            reason = "bad_token"
            if (field, title) == ("SPNEGO OID", "one less"):
                reason = "mech_unsupported"  # another OID, and nobody looks behind it
            token = whole.with_length(field, length)
            yield refused("%s: length %s" % (field, title), token, reason)
    ended = whole.with_length("frame", lambda size: b"\x80") + b"\0\0"
    yield refused("an indefinite length, ended", ended)
    yield granted("the token with its own lengths", whole.encode())


def nesting(run):
    for tag in (0x60, 0xA0, 0xA1, 0x30, 0x04, 0x06, 0x6E):
        nest = b""
        for _ in range(1000):
            nest = tlv(tag, nest)
        yield refused("1,000 deep, %02x" % tag, nest)
        yield refused("1,000 deep, %02x, as krb5's token" % tag, neg_init([KRB5], nest))
        nested_list = tlv(0x60, SPNEGO_OID, tlv(0xA0, tlv(0x30, nest)))
        yield refused("1,000 deep, %02x, as the list" % tag, nested_list)
        yield refused("1,000 deep, %02x, in a NegTokenResp" % tag, neg_resp(nest))
    inner = neg_init([KRB5], run.tickets.raw())
    for depth in range(2, 20):
        inner = neg_init([KRB5], inner)
        yield refused("SPNEGO %d times" % depth, inner)
    for token in map(bytes.fromhex, "00 60 a0 a1 ff 0000 6000 6080 a000 a180 ffffffff".split()):
        yield refused(token.hex(), token)


MESSAGES = (
    ("AP-REP", tlv(0x6F, tlv(0x30, tlv(0xA0, tlv(2, b"\5")), tlv(0xA1, tlv(2, b"\x0f"))))),
    ("KRB-ERROR", tlv(0x7E, tlv(0x30, tlv(0xA0, tlv(2, b"\5")), tlv(0xA6, tlv(2, b"\x25"))))),
    ("AS-REQ", tlv(0x6A, tlv(0x30))),
    ("TGS-REP", tlv(0x6D, tlv(0x30))),
)


def messages(run):
    """Kerberos messages other than an AP-REQ in its frame."""
    raw = run.tickets.raw()
    ap_req = der.ap_req_of(raw)
    for what, inner in MESSAGES + (("a bare AP-REQ", ap_req.encode()),):
        yield refused(what, inner)
        yield refused(what + " in SPNEGO", neg_init([KRB5], inner))
        yield refused(what + " in a NegTokenResp", neg_resp(inner))
    for what, inner in MESSAGES:
        for token_id in (der.AP_REQ_ID, der.AP_REP_ID, der.ERROR_ID):
            frame = der.krb5_frame(Node("", None, inner), token_id=token_id)
            name = "%s with id %s" % (what, token_id.hex())
            yield refused(name, frame)
            yield refused(name + ", in SPNEGO", neg_init([KRB5], frame))
            yield refused(name + ", in a NegTokenResp", neg_resp(frame))
    for token_id in [b""] + list(map(bytes.fromhex, "0200 0300 0001 0101 0000 01 010000".split())):
        frame = der.krb5_frame(ap_req, token_id=token_id)
        yield refused("AP-REQ with id %s" % token_id.hex(), frame)
        yield refused("AP-REQ with id %s, in SPNEGO" % token_id.hex(), neg_init([KRB5], frame))
    for oid in (MS_KRB5, NEGOEX, UNKNOWN, der.KRB5_U2U, KRB5[:-1]):
        frame = der.krb5_frame(ap_req, oid=oid)
        yield refused("AP-REQ as %s's" % oid.hex(), frame, "mech_unsupported")
        yield refused("AP-REQ as %s's, in SPNEGO" % oid.hex(), neg_init([KRB5], frame))
    yield refused("AP-REQ as SPNEGO's", der.krb5_frame(ap_req, oid=der.SPNEGO))
    yield granted("the token of which these were made", raw)


def own_answers(run):
    """What the daemon sent comes back as a token."""
    yield granted("a token", run.tickets.raw())
    yield refused("its AP-REP", run.reply)
    yield granted("a token in SPNEGO", run.tickets.fresh())
    yield refused("its accept-completed", run.reply)
    yield refused("krb5 without a token", neg_init([KRB5]), "continue")
    yield refused("its accept-incomplete", run.reply)
    yield refused("garbage in SPNEGO", neg_init([KRB5], b"\0"))
    yield refused("its reject", run.reply)
    yield Case("a clock behind", "clock_skew", token=run.tickets.fresh("-o", "-1000"))
    yield refused("its reject with a KRB-ERROR", run.reply)
    yield Case("a clock ahead, raw", "clock_skew", token=run.tickets.fresh("-r", "-o", "1000"))
    yield refused("its KRB-ERROR", run.reply)
    yield denied("bob", run)
    yield denied("bob, raw", run, "-r")
    yield denied("bob, one-sided", run, "-1", mutual=False)
    yield denied("bob, one-sided, raw", run, "-1", "-r", mutual=False)


SECTIONS = (
    padding,
    other_alphabets,
    ntlm,
    mechanisms,
    negotiations,
    lengths,
    nesting,
    messages,
    own_answers,
)
