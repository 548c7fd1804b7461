"""A load of fresh tokens on the daemon's socket, and what it says compared with the audit trail.

What a client was told counts: whoever was answered 200 must stand in the trail, under the number
that the answer named. The trail is read here with nothing of the daemon's.
"""

import collections
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fcgi

USERS = ["user%d" % (i + 1) for i in range(64)]
SERVICE = "HTTP/www.example.test@EXAMPLE.TEST"
REALM = "EXAMPLE.TEST"
PATIENCE_S = 30
LATEST = 4096  # tokens of the latest grants that are remembered


def die(text):
    print(text)
    sys.exit(1)


def until(seconds, what, condition):
    """Waits for the condition; what it became true with, and after how long."""
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        value = condition()
        if value:
            return value, time.monotonic() - start
        time.sleep(0.002)
    die("not within %g s: %s" % (seconds, what))


def read_head(stdout):
    """(status, user, audit id) of an answer."""
    head = stdout.split(b"\r\n\r\n")[0].split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in head if b": " in line)
    return [
        fields.get(key, b"")[:length].decode()
        for key, length in (
            (b"Status", 3), (b"Variable-REMOTE_USER", None), (b"Variable-AUDIT_ID", None)
        )
    ]


def ask(peer, token, keep=False, more=()):
    """One request on a connection; (status, user, audit id, whether the answer was ended)."""
    params = [
        (b"REQUEST_METHOD", b"GET"),
        (b"REQUEST_URI", b"/secure/page"),
        (b"HTTP_HOST", b"www.example.test"),
    ]
    if token is not None:
        params.append((b"HTTP_AUTHORIZATION", b"Negotiate " + token))
    peer.sendall(fcgi.request(params + list(more), keep=keep))
    try:
        stdout, ended = fcgi.read_answer(peer)
    except ConnectionError:
        return "", "", "", False
    return *read_head(stdout), ended


class Mint:
    """Fresh tokens, of each cache's user in turn."""

    def __init__(self, tools, directory):
        caches = ["FILE:%s/%s.ccache" % (directory, user) for user in USERS]
        self.next = 0
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [tools + "/minter", SERVICE] + caches, stdout=subprocess.PIPE
        )

    def token(self):
        """(user, token)"""
        with self.lock:
            line = self.process.stdout.readline()
            user = USERS[self.next % len(USERS)]
            self.next += 1
        return user, line.strip()

    def close(self):
        self.process.stdout.close()
        self.process.wait()


class Siege:
    """Sign-ins, so many at once, until it is lifted. With `keep` every second client keeps its
    connection. Some of the others take their time between connecting and asking."""

    def __init__(self, mint, address, clients=16, keep=False):
        self.mint, self.address = mint, address
        self.lock = threading.Lock()
        self.over = False
        self.counts = collections.Counter()
        self.granted = {}  # number of the record: user
        self.chains = set()
        self.latest = collections.deque(maxlen=LATEST)  # (user, token) of the last grants
        self.latest_begin = 0.0  # when the latest granted request was begun
        self.unanswered = []  # when it was found out
        self.unavailable = []  # when a 503 was read
        self.wrong = []
        self.threads = [
            threading.Thread(target=self.client, args=(keep and number % 2 == 0,), daemon=True)
            for number in range(clients)
        ]
        self.held = threading.Event()
        self.held.set()
        for thread in self.threads:
            thread.start()

    def client(self, keep):
        peer = None
        while not self.over:
            self.held.wait()
            user, token = self.mint.token()
            if not token:
                self.wrong.append("there are no more tokens")
                return
            peer = self.sign_in(peer, user, token, keep)
        if peer is not None:
            peer.close()

    def connect(self):
        while not self.over:
            try:
                return fcgi.connect(self.address, PATIENCE_S)
            except (ConnectionError, FileNotFoundError):
                self.note("refused")  # nobody listens: nothing was sent
                time.sleep(0.01)
        return None

    def sign_in(self, peer, user, token, keep):
        """The connection, if it can be used again. Nobody has read what a kept connection that was
        closed meanwhile does not take any more."""
        for kept in (True, False):
            if not kept or peer is None:
                kept, peer = False, self.connect()
                if peer is None:
                    return None
                if not keep and random.random() < 0.3:
                    time.sleep(random.uniform(0, 0.03))
            begin = time.monotonic()
            try:
                status, name, number, ended = ask(peer, token, keep)
            except (BrokenPipeError, ConnectionResetError):
                peer.close()
                if not kept:
                    self.note("unanswered")
                    return None
                continue
            except TimeoutError:
                status, name, number, ended = "late", "", "", False
            break
        self.judge(begin, user, token, status, name, number, ended)
        if keep and ended:
            return peer
        peer.close()
        return None

    def note(self, what):
        with self.lock:
            self.counts[what] += 1
            if what == "unanswered":
                self.unanswered.append(time.monotonic())
            elif what == "503":
                self.unavailable.append(time.monotonic())

    def judge(self, begin, user, token, status, name, number, ended):
        if status == "200":
            chain, _, seq = number.partition("-")
            with self.lock:
                if name != user or not seq.isdigit() or int(seq) in self.granted:
                    self.wrong.append("%s was answered 200 as %s, %s" % (user, name, number))
                else:
                    self.granted[int(seq)] = user
                    self.chains.add(chain)
                self.latest.append((user, token))
                self.latest_begin = max(self.latest_begin, begin)
        self.note(status if ended else "unanswered" if status != "late" else "late")

    def unanswered_since(self, when):
        with self.lock:
            return sum(at >= when for at in self.unanswered)

    def serves(self, since):
        """Whether somebody who came after that was let in."""
        with self.lock:
            return self.latest_begin > since

    def hold(self):
        """No new requests; those that are under way go on."""
        self.held.clear()

    def resume(self):
        self.held.set()

    def lift(self):
        self.over = True
        self.held.set()
        for thread in self.threads:
            thread.join()
        return dict(self.counts)


def first_record(path):
    """The number of a file's first record, wherever torn bytes before it end; None: it has none."""
    with open(path, "rb") as file:
        for line in file:
            try:
                return json.loads(line)["seq"]
            except ValueError:
                pass
    return None


def trail_files(directory):
    """All files of the trail in it that have a record, the oldest first."""
    paths = [os.path.join(directory, name) for name in os.listdir(directory)
             if name.startswith("audit.jsonl")]
    return sorted((path for path in paths if first_record(path) is not None), key=first_record)


class Trail:
    """What the files of a trail prove, one after the other: every line follows the one before, and
    what is no record is told of, with its length and hash, by the record after it."""

    def __init__(self, *paths):
        self.granted = {}  # number: principal
        self.records = self.torn = self.refused = 0
        self.events = collections.Counter()
        self.errors = collections.Counter()
        self.chain = None
        self.stray = b""
        for path in paths:
            with open(path, "rb") as file:
                for line in file:
                    self.line(line)
            if self.stray:
                die("%s ends with what is no record: %r" % (path, self.stray[:80]))

    def line(self, line):
        body, mark, rest = line.rpartition(b',"h":"')
        previous = self.hash if self.records else bytes(32)
        digest = hashlib.sha256(b"audit-rec-v1\0" + previous + body).digest()
        if not mark or rest != digest.hex().encode() + b'"}\n':
            self.stray += line
            return
        record = json.loads(line.decode("ascii"))
        if record["seq"] != self.records or (self.chain or record["chain"]) != record["chain"]:
            die("record %d is called %d of chain %s" % (self.records, record["seq"], record["chain"]))
        if self.stray:
            stray = self.stray[:-1]  # without the LF that ends it
            if (record.get("torn_bytes"), record.get("torn_sha256")) != (
                len(stray), hashlib.sha256(stray).hexdigest()
            ):
                die("record %d does not tell of the %d bytes before it" % (self.records, len(stray)))
            self.torn += 1
            self.stray = b""
        elif "torn_bytes" in record:
            die("record %d tells of torn bytes that are not there" % self.records)
        self.hash, self.chain = digest, record["chain"]
        self.records += 1
        self.events[record["event"]] += 1
        if record.get("outcome") == "error":
            self.errors[record["reason"]] += 1
        self.refused += record.get("result") == "rejected"
        if record.get("outcome") == "granted":
            self.granted[record["seq"]] = record["principal"]


def compare(siege, trail):
    """Every 200 has its record; returns how many grants nobody was told of."""
    if siege.wrong:
        die(siege.wrong[0])
    if siege.chains - {trail.chain}:
        die("answers named the chains %s, the trail's is %s" % (siege.chains, trail.chain))
    for number, user in siege.granted.items():
        if trail.granted.get(number) != "%s@%s" % (user, REALM):
            die("%s was told 200 and record %d, which is %s"
                % (user, number, trail.granted.get(number, "none of a grant")))
    return len(trail.granted) - len(siege.granted)


class Daemon:
    """The daemon itself, for those who kill it."""

    def __init__(self, spnegate, directory, environment):
        self.command = [spnegate, "serve", "-c", directory + "/spnegate.yaml"]
        self.environment = dict(os.environ, **environment)
        self.log = directory + "/spnegate.log"
        self.process = None
        # Whoever ends us ends it, too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def said(self, text):
        with open(self.log, "rb") as log:
            return log.read().count(text.encode())

    def start(self):
        with open(self.log, "ab") as log:
            before = self.said(" ready: ")
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stderr=log, env=self.environment
            )
        _, seconds = until(30, "the daemon is ready", lambda: self.said(" ready: ") > before
                           or self.process.poll() is not None)
        if self.process.poll() is not None:
            with open(self.log) as log:
                die("the daemon ended at its start: " + log.read()[-2000:])
        return seconds

    def workers(self):
        pid = self.process.pid
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            return [int(word) for word in file.read().split()]

    def kill_all(self):
        """No process of it sees another one die."""
        self.process.send_signal(signal.SIGSTOP)
        until(10, "the supervisor stops", lambda: state(self.process.pid) == "T")
        workers = self.workers()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        until(30, "all are dead", lambda: all(dead(pid) for pid in workers))

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill_all()
                die("the daemon did not stop")
        return None


def state(pid):
    """One letter, as in /proc; X: gone."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def dead(pid):
    """Its first thread may be dead before the others have let go of what it had open."""
    try:
        return state(pid) in "XZ" and len(os.listdir("/proc/%d/task" % pid)) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def age(pid):
    """Seconds since it was started."""
    try:
        with open("/proc/%d/stat" % pid) as file, open("/proc/uptime") as uptime:
            started = int(file.read().rsplit(")", 1)[1].split()[19])
            return float(uptime.read().split()[0]) - started / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def sockets(pid):
    """How many sockets it has open."""
    count = 0
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            count += os.readlink("/proc/%d/fd/%s" % (pid, fd)).startswith("socket:")
        except FileNotFoundError:
            pass
    return count
