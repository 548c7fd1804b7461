"""Many FastCGI peers at once, each with its own sequence of sends, in one thread."""

import re
import selectors
import socket
import struct
import time
from collections import deque

import fcgi

BURST = 32  # sends of one peer before the others have their turn


class Peer:
    """Sends `pieces`, one send each, and takes in what comes until the other side closes.

    `answers` is what must come, and nothing else: [(request id, bytes or pattern)]. `shut`: our
    side is closed after the last piece. `read_late`: nothing is read before that.
    """

    def __init__(self, title, address, pieces, answers, shut=False, read_late=False):
        self.title = title
        self.address = address
        self.pieces = pieces
        self.answers = answers
        self.shut = shut
        self.read_late = read_late
        self.at = 0
        self.sent_of_piece = 0
        self.received = bytearray()
        self.socket = None
        self.moved = 0.0

    def connect(self):
        if "/" in self.address:
            self.socket = socket.socket(socket.AF_UNIX)
            address = self.address
        else:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = self.address.rsplit(":", 1)
            address = host, int(port)
        # Blocking, for a full backlog; not for ever.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 60, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self.moved = time.monotonic()

    def events(self):
        sending = self.at < len(self.pieces)
        reading = not (sending and self.read_late)
        return (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if sending else 0)

    def send(self):
        try:
            for _ in range(BURST):
                if self.at == len(self.pieces):
                    break
                piece = self.pieces[self.at]
                self.sent_of_piece += self.socket.send(piece[self.sent_of_piece :])
                if self.sent_of_piece == len(piece):
                    self.at += 1
                    self.sent_of_piece = 0
        except BlockingIOError:
            return
        except ConnectionError:
            self.at = len(self.pieces)  # closed already; what it sent before is still read
            return
        self.moved = time.monotonic()
        if self.shut and self.at == len(self.pieces):
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def receive(self):
        """Whether the other side has closed."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        self.received += data
        self.moved = time.monotonic()
        return not data

    def problem(self):
        """What is wrong with what came, or None."""
        try:
            answers = fcgi.split_answers(bytes(self.received))
        except ValueError as error:
            return "%s in %d bytes" % (error, len(self.received))
        if len(answers) != len(self.answers):
            return "%d answers instead of %d" % (len(answers), len(self.answers))
        for (number, stdout), (wanted_number, wanted) in zip(answers, self.answers):
            if isinstance(wanted, re.Pattern):
                same = wanted.fullmatch(stdout) is not None
            else:
                same = stdout == wanted
            if number != wanted_number or not same:
                return "request %d, not %d, or another answer: %r" % (number, wanted_number, stdout)
        return None


def run(peers, at_once, limit):
    """Runs all, `at_once` at a time; the problems as lines.

    A peer on whose connection nothing moves for `limit` seconds is a problem: it was to be closed.
    """
    waiting, problems, selector = deque(peers), [], selectors.DefaultSelector()
    looked = time.monotonic()

    def finish(peer, problem):
        selector.unregister(peer.socket)
        peer.socket.close()
        if problem is not None:
            problems.append("%s: %s: %s" % (peer.address, peer.title, problem))

    while waiting or selector.get_map():
        while waiting and len(selector.get_map()) < at_once:
            peer = waiting.popleft()
            try:
                peer.connect()
            except OSError as error:
                problems.append("%s: %s: %s" % (peer.address, peer.title, error))
                continue
            selector.register(peer.socket, peer.events(), peer)
        for key, events in selector.select(0.5):
            peer = key.data
            if events & selectors.EVENT_WRITE:
                peer.send()
            if events & selectors.EVENT_READ and peer.receive():
                finish(peer, peer.problem())
                continue
            if peer.events() != key.events:
                selector.modify(peer.socket, peer.events(), peer)
        if time.monotonic() < looked + 0.5:
            continue
        looked = time.monotonic()
        oldest = looked - limit
        for key in list(selector.get_map().values()):
            if key.data.moved < oldest:
                finish(key.data, "still open after %d s" % limit)
    selector.close()
    return problems
