"""Writing to a TCP connection without waiting for the reactor."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet import tcp

PLAIN_TRANSPORTS: tuple[type, ...] = (tcp.Server, tcp.Client)
"""The types of transports that may be bypassed. A subclass or a wrapper is never bypassed.

A wrapper, of TLS for example, may look like one of these types, since it passes on the attributes that it does not
know. But data that bypasses a TLS wrapper would be sent unencrypted."""


def send_at_once(transport: Any) -> None:
    """Have the kernel send each small piece of data at once. A Unix socket does so by itself, and refuses this."""
    with contextlib.suppress(OSError, AttributeError):
        transport.setTcpNoDelay(True)


class EagerWriter:
    """Writes data for a transport, straight to the kernel while the kernel takes everything.

    A transport of Twisted keeps its data until the reactor has found the socket ready for writing, though the socket
    nearly always is. That takes two system calls and one iteration of the reactor, more than the write itself. So this
    class offers the data to the kernel at once. Data that the kernel does not take goes to the transport, and so does
    all later data until :meth:`on_drain` says that the transport has written its backlog.

    :param transport: any transport of Twisted. One that is no plain TCP connection gets all data by its own ``write``.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._write_some = transport.writeSomeData if type(transport) in PLAIN_TRANSPORTS else None
        self._has_backlog = False

    def write(self, data: bytes) -> None:
        """Write ``data``, which is not empty."""
        transport = self._transport
        # A plain connection may have begun TLS (startTLS). Then the transport encrypts its data.
        if self._write_some is None or self._has_backlog or transport.disconnecting or transport.TLS:
            transport.write(data)
            return
        written = self._write_some(data)
        if not isinstance(written, int):
            return  # The connection is lost. The transport finds out by itself.
        if written < len(data):
            self._has_backlog = True
            transport.write(data[written:])

    def on_drain(self) -> None:
        """Note that the transport has written its backlog. Data goes straight to the kernel again."""
        self._has_backlog = False
