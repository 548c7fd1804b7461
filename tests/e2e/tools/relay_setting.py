"""A relay between two sockets of ours, for relaycheck."""

import os
import socket
import subprocess
import time

PATIENCE = 20
ANSWER = b"the answer"


class Wrong(Exception):
    pass


def check(what, truth):
    if not truth:
        raise Wrong(what)


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        check("never: " + what, time.monotonic() < end)
        time.sleep(0.01)


def listen(path, backlog=64):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(backlog)
    listener.settimeout(PATIENCE)
    return listener


def read_all(peer):
    """Everything until the end; a connection that broke has ended, too."""
    data = b""
    try:
        while more := peer.recv(65536):
            data += more
    except ConnectionError:
        pass
    return data


def exactly(peer, size):
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        check("cut after %d of %d bytes" % (len(data), size), more)
        data += more
    return data


class Setting:
    """A relay between front.sock and daemon.sock, in a directory of its own."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.front, self.back = folder + "/front.sock", folder + "/daemon.sock"
        self.log = folder + "/stderr"
        self.listener = listen(self.front)
        self.daemon = self.relay = None

    def serve(self, backlog=64):
        self.daemon = listen(self.back, backlog)

    def serve_tcp(self):
        self.daemon = socket.create_server(("127.0.0.1", 0))
        self.daemon.settimeout(PATIENCE)
        return "127.0.0.1:%d" % self.daemon.getsockname()[1]

    def start(self, *options, target=None, **popen):
        if "stderr" not in popen:
            with open(self.log, "ab") as log:
                return self.start(*options, target=target, stderr=log, **popen)
        command = [self.binary, *options, target or self.back]
        self.relay = subprocess.Popen(
            command, stdin=self.listener, stdout=subprocess.DEVNULL, **popen
        )

    def connect(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        peer.connect(self.front)
        return peer

    def accept(self):
        peer = self.daemon.accept()[0]
        peer.settimeout(PATIENCE)
        return peer

    def joined(self):
        peer = self.connect()
        return peer, self.accept()

    def works(self):
        """One request and its answer."""
        peer, daemon = self.joined()
        peer.sendall(b"request")
        check("the request differs", exactly(daemon, 7) == b"request")
        daemon.sendall(ANSWER)
        daemon.close()
        check("the answer differs", read_all(peer) == ANSWER)
        peer.close()

    def closed_without_a_byte(self):
        peer = self.connect()
        check("a byte of its own", read_all(peer) == b"")
        peer.close()

    def lines(self):
        with open(self.log, encoding="utf-8") as log:
            return log.read().splitlines()

    def said(self, part):
        until("a line with " + part, lambda: any(part in line for line in self.lines()))

    def ends(self, status=0):
        found = self.relay.wait(PATIENCE)
        check("exit status %d" % found, found == status)

    def clear(self):
        if self.relay and self.relay.poll() is None:
            self.relay.kill()
        if self.relay:
            self.relay.wait()
