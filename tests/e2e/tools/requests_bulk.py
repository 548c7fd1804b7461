"""Hostile requests that are made in series out of good tokens.

Sections as in requests_cases, but each runs once, and many requests are sent in one write: the
roles alternate from one write to the next, GET and HEAD from one request to the next.
"""

import base64

import requests_der as der
from requests_cases import Case, granted, refused
from requests_der import KRB5, b64, neg_init
from requests_frame import SPELLINGS, is_clients_own, replaced, spelled
from requests_tokens import ALPHABET

HEADER_DEFAULT = 96 * 1024
HEADER_SMALL = 4 * 1024  # tests/e2e/44-requests sets it
TAIL_MAX = 64
CIPHER_MIN = 28  # AES: a confounder and an HMAC

# ---- the header


def cases_of_negotiate(run):
    """All 512 spellings are the scheme: the first opens, and then the token is spent."""
    token = run.tickets.fresh()
    yield granted("Negotiate", token)
    for bits in range(512):
        letters = enumerate(b"negotiate")
        scheme = bytes(letter & ~0x20 if bits >> at & 1 else letter for at, letter in letters)
        yield Case("%r" % scheme, "replay", header=scheme + b" " + b64(token), token=token)


def alphabet(run):
    """Every byte in the first, a middle and the last place of two groups; NUL is the guard's."""
    for byte in range(1, 256):
        for place in (0, 3, 7):
            text = bytearray(b"QUJDREVG")
            text[place] = byte
            title, header = "byte %02x at %d" % (byte, place), b"Negotiate " + text
            trimmed = (byte == 0x20 and place != 3) or (byte == 0x09 and place == 7)
            if byte in ALPHABET:
                yield refused(title, base64.b64decode(text))
            elif not trimmed and (byte <= 0x20 or byte in b"\x7f,"):
                yield Case(title, "bad_header", header)
            else:
                yield Case(title, "bad_base64", header)


def of_size(run, size):
    """A good token of this size: its mechListMIC is as long as it takes."""
    raw = run.tickets.raw()
    mic = size - len(neg_init([KRB5], raw).encode())
    while mic > 0 and len(neg_init([KRB5], raw, mic=bytes(mic)).encode()) > size:
        mic -= 1
    token = neg_init([KRB5], raw, mic=bytes(mic)).encode()
    if len(token) != size:
        raise ValueError("no token of %d bytes can be made" % size)
    return token


def sizes(run, limit):
    # With 3 spaces the text is as long as the limit lets it be, in whole groups.
    size = (limit - len("Negotiate   ")) // 4 * 3
    token = of_size(run, size)
    header = b"Negotiate %s" + b64(token)
    yield Case("good, one over", "token_too_large", header.replace(b"%s", b"   "))
    twice = header.replace(b"%s", b64(token)[: limit // 4])
    yield Case("good, after a quarter of it", "token_too_large", twice)
    yield granted("good, at the limit", token, header=header.replace(b"%s", b"  "))
    token = of_size(run, size - 1)
    header = b" \t" * 99 + b"Negotiate   " + b64(token) + b" \t" * 99
    yield granted("blanks around do not count", token, header=header)
    zeros = b64(bytes(size))
    yield refused("zeros at the limit", bytes(size), header=b"Negotiate   " + zeros)
    for title, reason, text in (
        ("zeros, one over", "token_too_large", b"   " + zeros),
        ("no base64 at the limit", "bad_base64", b"!" * (limit - 10)),
        ("no base64, one over", "token_too_large", b"!" * (limit - 9)),
        ("no token, over it", "bad_header", b" " * limit),
        ("two tokens at the limit", "bad_header", b"AAAA " + b"A" * (limit - 15)),
        ("two tokens, one over", "token_too_large", b"AAAA " + b"A" * (limit - 14)),
    ):
        yield Case(title, reason, b"Negotiate " + text)
    over = b"A" * limit
    yield Case("Basic, over it", "other_scheme", b"Basic " + over)
    yield Case("Basic and a control byte, over it", "bad_header", b"Basic " + over + b"\x01")
    yield Case("over it, not listed", "unknown_host", b"Negotiate " + over, host=b"x")
    for size in (1, 2, 3, 4, 15, 127, 128, 255, 256, limit // 2):
        yield refused("%d zeros" % size, bytes(size))


def sizes_by_default(run):
    yield from sizes(run, HEADER_DEFAULT)
    yield Case("more than limits.request", "closed", b"Basic " + b"A" * 128 * 1024)
    for size in (65535, 65536, 65537):
        yield refused("%d zeros" % size, bytes(size))
        yield refused("%d bytes in SPNEGO" % size, neg_init([KRB5], bytes(size)))
        yield granted("a good token of %d bytes" % size, of_size(run, size))


def sizes_with_a_small_limit(run):
    yield from sizes(run, HEADER_SMALL)


# ---- the token


def truncations(run):
    """Every beginning of a token; afterwards the whole one opens, once."""
    for title, (_, mech) in SPELLINGS.items():
        token = spelled(run, title).encode()
        yield Case("%s, nothing" % title, "bad_header", b"Negotiate ")
        for size in range(1, len(token)):
            yield refused("%s, the first %d bytes" % (title, size), token[:size])
        yield granted("%s, whole" % title, token, mech=mech)
        yield Case("%s, whole again" % title, "replay", token=token)


def truncated_headers(run):
    """Every beginning of the header's text."""
    token = run.tickets.fresh()
    header = b"Negotiate " + b64(token)
    for size in range(1, len(header)):
        title, text = "the first %d characters" % size, header[:size]
        if size < len("Negotiate"):
            yield Case(title, "other_scheme", text)
        elif size <= len("Negotiate "):
            yield Case(title, "bad_header", text)
        elif (size - len("Negotiate ")) % 4 != 0:
            yield Case(title, "bad_base64", text)
        else:
            yield refused(title, base64.b64decode(text[10:]))
    yield granted("the whole header", token)
    yield Case("the whole header again", "replay", token=token)


LAYERS = {
    "curl's": "frame, NegTokenInit, sequence, mechTypes, list, mechToken, octets, krb5 frame",
    "with everything": "frame, NegTokenInit, sequence, reqFlags, mechListMIC, octets, krb5 frame",
    "Windows'": "frame, NegTokenInit, sequence, mechTypes, list, mechToken, octets, krb5 frame",
    "NegTokenResp": "NegTokenResp, sequence, [0], [1], responseToken, octets, mechListMIC",
    "raw": "krb5 frame, AP-REQ, AP-REQ sequence, Ticket, Ticket sequence, ticket EncryptedData, "
    "authenticator EncryptedData",
}


def tails(run):
    """1 to 64 bytes more at the end of each layer; the lengths around it fit."""
    for title, (_, mech) in SPELLINGS.items():
        node = spelled(run, title)
        for layer in ["all"] + LAYERS[title].split(", "):
            for count in range(1, TAIL_MAX + 1):
                tail = (b"\0" * count, b"\xff" * count, (b"\x05\0" * count)[:count])[count % 3]
                token = node.encode() + tail
                if layer != "all":
                    token = node.appended(layer, tail)
                yield refused("%s, %d bytes after %s" % (title, count, layer), token)
        yield granted("%s, without a tail" % title, node.encode(), mech=mech)


def cut_ciphers(run):
    """Encrypted parts that were cut; those too short for any plain text are not even tried."""
    raw = run.tickets.raw()
    ap_req = der.ap_req_of(raw)
    for field in ("ticket cipher", "authenticator cipher"):
        for size in range(len(ap_req.find(field).contents())):
            cut = der.krb5_frame(ap_req.changed(field, lambda data: data[:size]))
            reason = "gss_error" if size < CIPHER_MIN else "wrong_key"
            if (field, size) == ("authenticator cipher", 0):
                reason = "bad_token"
            yield refused("%d bytes of the %s" % (size, field), neg_init([KRB5], cut), reason)
    yield granted("nothing cut", raw)


SECTIONS = {
    "default": (
        is_clients_own,
        cases_of_negotiate,
        alphabet,
        sizes_by_default,
        truncations,
        truncated_headers,
        tails,
        replaced,
        cut_ciphers,
    ),
    "small": (sizes_with_a_small_limit,),
}
