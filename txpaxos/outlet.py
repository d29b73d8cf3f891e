"""Writing to a TCP connection without waiting for the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Outlet:
    """What is written to ``transport``.

    A transport of Twisted keeps what it is given until the reactor has found the socket ready for writing, though it
    nearly always is: that takes two system calls and a turn of the reactor, more than the writing itself. So the
    kernel is given as much as it takes at once, and the transport only what is left, and all that follows, until that
    is said to be gone. A transport that has no way to do so gets everything.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._write_some: Callable[[bytes], int | BaseException] | None = getattr(transport, "writeSomeData", None)
        self._behind = False

    def write(self, data: bytes) -> None:
        """Write ``data``, which is not empty."""
        if self._write_some is None or self._behind or self._transport.disconnecting:
            self._transport.write(data)
            return
        written = self._write_some(data)
        if not isinstance(written, int):
            return  # The connection is lost; the transport finds out by itself.
        if written < len(data):
            self._behind = True
            self._transport.write(data[written:])

    def drained(self) -> None:
        """The transport has nothing left."""
        self._behind = False
