"""A connection that trusts nobody: what is read has bounds and a time, and each way in which it can end has a name."""

from __future__ import annotations

import math
import socket
import struct
import sys
import threading
import time
from typing import Any

MEGABYTE = 2**20


class Ended(Exception):
    """The connection is over. The text says why, and holds nothing of what was sent: that may name a patient."""


class Malformed(Ended):
    """What came is no message, or promises more than is allowed."""


class Stalled(Ended):
    """Nothing came, or nothing was taken, for too long."""


class Gone(Ended):
    """The other side has closed it, or is no longer there."""


class Over(Gone):
    """It was closed between two messages."""


def log(text: str) -> None:
    """A line on stderr with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Wire:
    """A TCP connection. One thread reads and another writes; `close` may be called from any.

    Args:
      connection: connected.
      patience: seconds. So long may be between two messages; in so long a message must be there whole, or be taken.
      limit: bytes of the longest part of a message.
    """

    def __init__(self, connection: socket.socket, patience: float, limit: int):
        self.limit, self._socket, self._patience = limit, connection, patience
        self._writing = threading.Lock()
        self._deadline = math.inf
        connection.settimeout(patience)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a mask waits for no further one

    def message(self, size: int) -> bytes:
        """The first `size` bytes of the next message; the rest of it has to follow within the time.

        Raises Ended: Over where no further message has begun.
        """
        self._deadline = time.monotonic() + self._patience
        try:
            first = self.read(1)
        except Gone as error:
            raise Over(str(error)) from None
        self._deadline = time.monotonic() + self._patience
        return first + self.read(size - 1)

    def read(self, size: int) -> bytes:
        """So many bytes more of this message; Malformed, before memory is taken for them, where these are too many."""
        if size > self.limit:
            raise Malformed(f"a message promises {size} bytes, more than the {self.limit} of --limit_mb")
        data = bytearray(size)
        view, there = memoryview(data), 0
        while there < size:
            there += self._receive(view[there:])
        return bytes(data)

    def skip(self, size: int) -> None:
        """Passes so many bytes of this message by, without keeping them."""
        if size > self.limit:
            raise Malformed(f"a message promises {size} bytes, more than the {self.limit} of --limit_mb")
        while size:
            part = min(size, MEGABYTE)
            self.read(part)
            size -= part

    def number(self, form: str) -> Any:
        """A number of this message, in the form of `struct`."""
        [value] = struct.unpack(form, self.read(struct.calcsize(form)))
        return value

    def _receive(self, into: memoryview) -> int:
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            count = self._socket.recv_into(into)
        except TimeoutError:
            raise Stalled(f"nothing, or no whole message, came for {self._patience:g} s") from None
        except OSError:
            raise Gone("the other side is no longer there") from None
        if not count:
            raise Gone("the other side has closed it")
        return count

    def send(self, *parts: bytes) -> None:
        """A message, whole. Raises Stalled where it is not taken, Gone where nobody is there."""
        with self._writing:
            try:
                # The reader sets the socket's own time as well: this one's ends by the clock.
                end, rest = time.monotonic() + self._patience, memoryview(b"".join(parts))
                while rest:
                    if time.monotonic() > end:
                        raise Stalled(f"nothing was taken for {self._patience:g} s")
                    rest = rest[self._some(rest) :]
            except OSError:
                raise Gone("the other side is no longer there") from None

    def _some(self, data: memoryview) -> int:
        """Sends what is taken at once, or within a moment."""
        try:
            return self._socket.send(data)
        except TimeoutError:
            return 0

    def finish(self) -> None:
        """Tells the other side that no more comes; what it still sends can be read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            raise Gone("the other side is no longer there") from None

    def part(self) -> None:
        """Closes it when the other side has, or after the time: what it still sends would otherwise undo what it was told."""
        try:
            self.finish()
            self._deadline = time.monotonic() + self._patience
            while True:
                self._receive(memoryview(bytearray(MEGABYTE)))
        except (OSError, Ended):
            self._socket.close()

    def close(self) -> None:
        """Ends it, for whoever reads or writes as well."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
