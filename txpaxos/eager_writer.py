"""Writing to a TCP connection without waiting for the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp

PLAIN_TRANSPORTS: tuple[type, ...] = (tcp.Server, tcp.Client)
"""The transports that may be written past: those of exactly these types.

A transport that is wrapped, in TLS for example, may look like one of them, since a wrapper passes on the attributes
that it does not know. What is written past the wrapper would go out in the clear."""


class EagerWriter:
    """Writes to ``transport``, and past it to the kernel while the kernel takes everything.

    A transport of Twisted keeps what it is given until the reactor has found the socket ready for writing, though the
    socket nearly always is. That takes two system calls and one iteration of the reactor, more than the write itself.
    So this class offers the data to the kernel at once. What the kernel does not take goes to the transport, and so
    does all that follows, until :meth:`on_drain` says that the transport has written its backlog. Any transport but a
    plain TCP connection gets everything.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._write_some = transport.writeSomeData if type(transport) in PLAIN_TRANSPORTS else None
        self._has_backlog = False

    def write(self, data: bytes) -> None:
        """Write ``data``, which is not empty."""
        transport = self._transport
        # TLS may also begin on a plain connection (startTLS): then the transport encrypts what it is given.
        if self._write_some is None or self._has_backlog or transport.disconnecting or transport.TLS:
            transport.write(data)
            return
        written = self._write_some(data)
        if not isinstance(written, int):
            return  # The connection is lost; the transport finds out by itself.
        if written < len(data):
            self._has_backlog = True
            transport.write(data[written:])

    def on_drain(self) -> None:
        """The transport has written all that it was given: write past it again."""
        self._has_backlog = False
