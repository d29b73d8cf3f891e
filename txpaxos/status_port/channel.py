"""HTTP at the status address: small requests in, one answer a connection, and no client that waits for ever.

Whatever may reach the address may send what it likes. A request has no body and ten seconds to come, an answer has ten
seconds to be read, and a connection serves one request. So there is a bound on all that is kept, and nothing that is
sent here changes the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from txpaxos.node.counts import Count, Counts

CONNECTIONS_MAX = 64
"""Connections at a time. One more takes the place of the oldest one whose request has not come yet, or whose answer was
sent: with keys, also a client that may see nothing can hold on to those."""

REQUEST_SECONDS = 10.0
"""How long a request may take to come."""

ANSWER_SECONDS = 10.0
"""How long a client may take to read the answer, once all of it was written."""

HEAD_BYTES_MAX = 8192
"""The most bytes of a request, which has no body."""


class StatusRequest(Request):
    """One request. What answers it is the site's."""

    channel: StatusChannel

    def process(self) -> None:
        """All of the request has come."""
        self.channel.site.answer(self)

    def parseCookies(self) -> None:
        """There are none."""


class StatusChannel(HTTPChannel):
    """One connection, for one request.

    :ivar site: the site, which made it.
    :ivar has_asked: whether the request has come.
    :ivar is_answered: whether all of the answer was written. The client may not have read it yet.
    """

    MAX_LENGTH = totalHeadersSize = HEAD_BYTES_MAX
    maxHeaders = 100
    timeOut = None  # There are deadlines instead, which no byte puts off.
    requestFactory = StatusRequest

    def __init__(self, site: StatusSite) -> None:
        super().__init__()
        self.site = site
        self.has_asked = self.is_answered = False
        self._is_refused = False
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """The connection is there."""
        super().connectionMade()
        self.site.connections[self] = None
        self._deadline = self.site.call_later(REQUEST_SECONDS, self.abort)

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """One request a connection: so no client can have more in work than one."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    def allHeadersReceived(self) -> None:
        """The head of a request has come. It is all that there may be."""
        if self.length != 0:
            self._refuse(b"413 Content Too Large")
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """The request has come."""
        self._set_deadline(None)
        self.has_asked = True
        super().allContentReceived()

    def dataReceived(self, data: bytes) -> None:
        """Bytes have come."""
        if not self._is_refused:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """A line has come."""
        if not self._is_refused:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line is too long."""
        self._refuse(b"431 Request Header Fields Too Large")

    def rawDataReceived(self, data: bytes) -> None:
        """Bytes behind the request have come."""
        if not self._is_refused:
            super().rawDataReceived(data)

    def loseConnection(self) -> None:
        """Close the connection when all is written, and soon in any case."""
        self.is_answered = True
        super().loseConnection()
        self._set_deadline(self.site.call_later(ANSWER_SECONDS, self.abort))

    def abort(self) -> None:
        """Close the connection at once: its client is too slow."""
        self._deadline = None
        self.site.counters[Count.SLOW_STATUS_CLIENT] += 1
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._set_deadline(None)
        self.site.connections.pop(self, None)
        if not self.has_asked:
            self.site.lost_before_request(self, reason)
        super().connectionLost(reason)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse(b"400 Bad Request")

    def _refuse(self, status: bytes) -> None:
        if not self._is_refused:
            self._is_refused = True
            self.site.counters[Count.BAD_STATUS_REQUEST] += 1
            transport: Any = self.transport
            transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.loseConnection()

    def _set_deadline(self, deadline: IDelayedCall | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = deadline


class StatusSite(ServerFactory):
    """The factory of the connections.

    :param counters: those of the node.
    :param call_later: sets a timer.
    :param answer: answers a request, now or later.
    :param lost: told of a connection that has ended before its request had come, with the reason.
    :ivar connections: those that are open, the oldest first.
    """

    noisy = False

    def __init__(
        self,
        counters: Counts,
        call_later: Callable[..., IDelayedCall],
        answer: Callable[[StatusRequest], None],
        lost: Callable[[StatusChannel, Failure], None],
    ) -> None:
        self.counters = counters
        self.call_later = call_later
        self.answer = answer
        self.lost_before_request = lost
        self.connections: dict[StatusChannel, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> StatusChannel | None:
        """A client connects."""
        if len(self.connections) >= CONNECTIONS_MAX:
            self.counters[Count.TOO_MANY_STATUS_CONNECTIONS] += 1
            oldest = next((one for one in self.connections if one.is_answered or not one.has_asked), None)
            if oldest is None:
                return None
            del self.connections[oldest]
            oldest.close()
        return StatusChannel(self)

    def log(self, request: Request) -> None:
        """Keep no log of requests, which would be one line each few seconds."""

    def close(self) -> None:
        """Close all connections."""
        for connection in [*self.connections]:
            connection.close()
