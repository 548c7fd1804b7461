"""The frames that clients put around an AP-REQ, and every byte of them replaced in turn."""

import requests_der as der
from requests_cases import granted, refused
from requests_der import KRB5, MS_KRB5, NEGOEX, NTLM, UNKNOWN, neg_init, neg_resp

FLAGS = b"\x01\x76"  # one unused bit
MIC = b"\x04\x05\x06\x07"

# title: the frame around a krb5 token, and the mechanism that the answer names.
SPELLINGS = {
    "curl's": (lambda token: neg_init([KRB5], token), KRB5),
    "with everything": (lambda token: neg_init([KRB5, UNKNOWN], token, FLAGS, MIC), KRB5),
    "Windows'": (lambda token: neg_init([MS_KRB5, KRB5, NEGOEX, NTLM], token), MS_KRB5),
    "NegTokenResp": (lambda token: neg_resp(token, b"\x01", KRB5, MIC), None),
    "raw": (lambda token: token, None),
}


NO_MIC = ("curl's", "Windows'")

def unused_bits_are_0(flags):
    return flags[0] <= 7 and flags[1] & ((1 << flags[0]) - 1) == 0


def anything(contents):
    return True


# What SPNEGO leaves open: with other contents there the ticket opens as it did, for the same
# principal. Everything else of a frame has one form only.
OPEN = {
    ("with everything", "mechanism 1"): der.oid_good,  # listed, but not chosen
    ("Windows'", "mechanism 1"): der.oid_good,
    ("Windows'", "mechanism 2"): der.oid_good,
    ("Windows'", "mechanism 3"): der.oid_good,
    ("curl's", "mechanism 0"): lambda oid: oid == MS_KRB5,  # the other OID of the same mechanism
    ("with everything", "mechanism 0"): lambda oid: oid == MS_KRB5,
    ("Windows'", "mechanism 0"): lambda oid: oid == KRB5,
    ("with everything", "flags"): unused_bits_are_0,  # reqFlags are to be ignored
    ("with everything", "MIC"): anything,  # with one acceptable mechanism there is no downgrade
    ("NegTokenResp", "MIC"): anything,
    ("NegTokenResp", "supportedMech"): der.oid_good,  # the token itself says which one it is
}
OPEN_TRIED = 2  # values of an open byte, each with a ticket of its own


def spelled(run, title):
    """A fresh good token in this frame, as a node."""
    return SPELLINGS[title][0](der.krb5_frame(der.ap_req_of(run.tickets.raw())))


def is_clients_own(run):
    """The frame from which all others are made is the one that the real client sends."""
    token = run.tickets.fresh()
    frame = der.krb5_frame(der.ap_req_of(token[token.index(b"\x60", 1) :]))
    if SPELLINGS["curl's"][0](frame).encode() != token:
        raise ValueError("the client's token is made otherwise: %s" % token.hex())
    yield granted("the client's own", token)


def replacements(old):
    """Each single bit turned, and bytes that mean something in DER."""
    turned = {old ^ 1 << bit for bit in range(8)}
    return sorted((turned | set(bytes.fromhex("0004306080848586a0a1a3ff"))) - {old})


def frame_pieces(node):
    """(field, part, bytes, where) up to the AP-REQ's tag and length; the rest is Kerberos'."""
    inside = ("AP-REQ sequence", "AP-REQ fields", "", "Ticket", "ticket", "authenticator")
    at = 0
    for field, part, data in node.pieces():
        if not field.startswith(inside[3:]) and field not in inside:
            yield field, part, data, at
        at += len(data)


def outer_reason(token):
    """Of a token whose first OID was changed: it may be another mechanism's."""
    tag, oid, _ = der.read(token[4:])
    return "mech_unsupported" if tag == 6 and der.oid_good(oid) else "bad_token"


def list_reason(mechs):
    """(reason, mechanism named) of a list that was changed, by what is in it now."""
    if any(tag != 6 or not der.oid_good(oid) for tag, oid in mechs):
        return "bad_token", None
    kerberos = [oid for _, oid in mechs if oid in (KRB5, MS_KRB5)]
    if not kerberos:
        return "ntlm" if (6, NTLM) in mechs else "mech_unsupported", None
    return "continue", kerberos[0]


def refusal(title, field, token, mechs_at):
    """(reason, mechanism named) of a changed token that must not open."""
    try:
        if field == "SPNEGO OID" or (title, field) == ("raw", "krb5 OID"):
            return outer_reason(token), None
        if field.startswith("mechanism"):
            return list_reason(der.elements(token[mechs_at]))
    except (ValueError, IndexError):
        pass
    return "bad_token", None


def changes(node):
    """(field, part, contents' place, index of the piece, byte in it, value) of every change."""
    for index, (field, part, data, start) in enumerate(frame_pieces(node)):
        for at, old in enumerate(data):
            for value in replacements(old):
                yield field, part, slice(start, start + len(data)), index, at, value


def with_byte(token, place, value):
    return token[:place] + bytes([value]) + token[place + 1 :]


def place_of(node, index, at):
    """Where this byte is now: fresh tokens differ in length by a byte or two."""
    return list(frame_pieces(node))[index][3] + at


def mechs_place(node):
    pieces = [piece for piece in frame_pieces(node) if piece[0].startswith("mechanism")]
    return slice(pieces[0][3], pieces[-1][3] + len(pieces[-1][2])) if pieces else slice(0)


def replaced(run):
    """Every byte of every frame; one ticket a frame is enough for all that is refused."""
    tried = {}
    for title, (_, mech) in SPELLINGS.items():
        node = spelled(run, title)
        whole, mechs = node.encode(), mechs_place(node)
        for field, part, place, index, at, value in changes(node):
            name = "%s, %s, %s: byte %d is %02x" % (title, field, part, at, value)
            token = with_byte(whole, place.start + at, value)
            good = OPEN.get((title, field)) if part == "contents" else None
            if good is None or not good(token[place]):
                reason, named = refusal(title, field, token, mechs)
                if (part, value) == ("tag", 0xA3) and title in NO_MIC and field == "mechToken":
                    reason, named = "continue", mech  # now it is a mechListMIC, without a token
                yield refused(name, token, reason, mech=named)
            elif tried.setdefault((title, field, at), 0) < OPEN_TRIED:
                tried[title, field, at] += 1
                fresh = spelled(run, title)
                fresh_token = with_byte(fresh.encode(), place_of(fresh, index, at), value)
                named = token[place] if field == "mechanism 0" else mech
                yield granted(name, fresh_token, mech=named)
        yield granted("%s, unchanged" % title, whole, mech=mech)
    if {(title, field) for title, field, _ in tried} != set(OPEN):
        raise ValueError("tried were only %s" % sorted(tried))
