"""Writing to a TCP connection without waiting for the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp

PLAIN_TRANSPORTS: tuple[type, ...] = (tcp.Server, tcp.Client)
"""The transports that may be written past: those of exactly these types. A transport that is wrapped, in TLS for
example, may look like one of them, since a wrapper passes on what it does not know; what is written past the wrapper
would go out in the clear."""


class Outlet:
    """What is written to ``transport``.

    A transport of Twisted keeps what it is given until the reactor has found the socket ready for writing, though it
    nearly always is: that takes two system calls and a turn of the reactor, more than the writing itself. So the
    kernel is given as much as it takes at once, and the transport only what is left, and all that follows, until that
    is said to be gone. Any transport but a plain TCP connection gets everything.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._write_some = transport.writeSomeData if type(transport) in PLAIN_TRANSPORTS else None
        self._behind = False

    def write(self, data: bytes) -> None:
        """Write ``data``, which is not empty."""
        transport = self._transport
        # TLS may also begin on a connection that stands (startTLS): then the transport encrypts what it is given.
        if self._write_some is None or self._behind or transport.disconnecting or transport.TLS:
            transport.write(data)
            return
        written = self._write_some(data)
        if not isinstance(written, int):
            return  # The connection is lost; the transport finds out by itself.
        if written < len(data):
            self._behind = True
            transport.write(data[written:])

    def drained(self) -> None:
        """The transport has nothing left."""
        self._behind = False
