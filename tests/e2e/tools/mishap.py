"""What libmishap.so is to do, in the file that it shares; as struct control of mishap.c has it."""

import mmap
import struct

CONTROL = struct.Struct("=iiiiiiq40s")
NEVER, AT_MARK, AT_ONCE = 0, 1, 2


class Mishap:
    def __init__(self, path):
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), CONTROL.size)

    def set(self, place, value):
        struct.pack_into("=i", self.map, 4 * place, value)

    def write(self, error=0, most=0):
        """Writing fails with this errno, or takes so many bytes at a time; 0: neither."""
        self.set(1, most)
        self.set(0, error)

    def sync(self, error=0):
        self.set(2, error)

    def crash(self, when):
        self.set(3, when)

    def wake(self, ms):
        """A thread that is told of something is held up so long, as on a busy machine."""
        self.set(4, ms)

    def stop(self, where):
        """The next process stops that writes a record (1), or gives back a shared lock (2)."""
        self.set(5, where)

    def synced(self):
        """How many bytes of the trail are on the disk."""
        return struct.unpack_from("=q", self.map, 24)[0]

    def boot(self, name):
        """What the kernel calls this start of the host from now on."""
        struct.pack_into("=40s", self.map, 32, name.encode() + b"\n")
