"""A client's connection to one node, from the attempt to make it to its end.

The route (:mod:`~txpaxos.client.route`) makes connections and is told what happens on them. The dispatcher sends
requests on them. Twisted calls a connection when bytes come and when it ends.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from txpaxos.client.endpoints import EndpointConnector, EndpointString, Place
from txpaxos.eager_writer import EagerWriter, send_at_once
from txpaxos.errors import CodecError
from txpaxos.host_names import connect
from txpaxos.wire.client_messages import (
    ClientCodec,
    FromClient,
    FromNode,
    KeepAlive,
    KeepAliveReply,
    Members,
    Ping,
    Welcome,
)
from txpaxos.wire.frames import FRAME_BYTES_MAX, TLS_ALERT, FrameSplitter, frame

if TYPE_CHECKING:
    from txpaxos.client.credentials import Credentials

TOGETHER_BYTES_MAX = 2**16
"""Messages of more bytes are not sent together."""

CONNECT_SECONDS = 1.0
"""How long an attempt to connect may take."""

WANTS_TLS = "has keys, and this client has none: give it keys (--keys, TXPAXOS_KEYS or keys=)"
"""What is found of a node that sends an alert of TLS, as one with keys does to a client that says nothing."""


class ConnectionOwner(Protocol):
    """What a connection calls: the route."""

    def opened(self, connection: ClientConnection) -> None:
        """The node has accepted the connection."""

    def received(self, connection: ClientConnection, message: FromNode | FromClient) -> None:
        """The node has sent ``message``, which is none that the connection answers itself.

        :raises CodecError: if no node sends such a message. The connection is closed then.
        """

    def lost(self, connection: ClientConnection, reason: str) -> None:
        """The connection has ended, or could not be made. It calls nothing any more.

        :param reason: why, in a few words that have the node as their subject: ``refuses connections``.
        """


class ClientConnection(TwistedProtocol):
    """One connection to one node, and what the route counts of it.

    The route counts time in ticks, and writes :attr:`heard`, :attr:`silent`, :attr:`age`, :attr:`round_trip_ticks`,
    :attr:`deposed`, :attr:`welcome`, :attr:`welcomed_at`, :attr:`members` and :attr:`is_failed`.

    :ivar target: the node that the connection was made to reach, as :class:`~txpaxos.client.known_nodes.KnownNodes`
        calls it.
    :ivar node: the id of the node that should be there; if only its address was known, the one that it says.
    :ivar address: the address of its client port.
    :ivar is_open: whether the node has accepted the connection, and it has not ended.
    :ivar heard: whether anything came since the last tick.
    :ivar silent: for how many ticks nothing has come.
    :ivar age: how many ticks ago the attempt to connect began.
    :ivar round_trip_ticks: how many ticks a message to the node and its answer take: as many as the first Welcome did,
        or fewer if a Pong came sooner.
    :ivar welcome: the last Welcome; ``None`` before the first.
    :ivar welcomed_at: when it came, in seconds of the monotonic clock.
    :ivar members: who the members are, as the node has told; ``None`` before.
    :ivar is_failed: whether the route has counted the connection as failed.
    :ivar principal: who the client is to the node, when keys are on; ``None`` before the node has said so.
    :ivar credentials: what the client shows on it; ``None`` if it has no keys.
    :ivar is_refused: whether the connection has ended because of keys: another attempt would end so, too.
    :ivar deposed: whether the node has said that it leads and then that it does not, and has answered nothing since.
    """

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.
    principal: str | None = None
    credentials: Credentials | None = None
    is_refused = False

    def __init__(self, owner: ConnectionOwner, codec: ClientCodec, node: str, address: Place) -> None:
        self.target = self.node = node
        self.address = address
        self.is_open = False
        self.heard = False
        self.silent = 0
        self.age = self.round_trip_ticks = 0
        self.welcome: Welcome | None = None
        self.welcomed_at = 0.0
        self.members: Members | None = None
        self.is_failed = False
        self.deposed = False
        self._pinged: deque[int] = deque()  # For each Ping without an answer, the age at which it was sent.
        self._owner = owner
        self._codec = codec
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        self._writer: EagerWriter
        self._connector: IConnector | EndpointConnector | None = None
        self._has_ended = False
        self._reason = ""

    # from the route and the dispatcher

    def connect(self, reactor: Any) -> None:
        """Try to make the connection. A host name is looked up anew."""
        factory = self._wrap(_Attempt(self), reactor)
        if isinstance(self.address, EndpointString):
            self._connector = self.address.connect(reactor, factory, CONNECT_SECONDS)
        else:
            self._connector = connect(reactor, self.address, factory, CONNECT_SECONDS)

    def send(self, *messages: FromClient) -> None:
        """Send ``messages``, small ones together."""
        pieces: list[bytes] = []
        size = 0
        for message in messages:
            pieces.append(frame(self._codec.encode(message)))
            size += len(pieces[-1])
            if size > TOGETHER_BYTES_MAX:
                self._writer.write(b"".join(pieces))
                pieces, size = [], 0
        if pieces:
            self._writer.write(b"".join(pieces))

    def ping(self) -> None:
        """Have the node send something."""
        if self.is_open:
            if self.round_trip_ticks:  # Otherwise no Pong could show that the round trip takes less.
                self._pinged.append(self.age)
            self.send(Ping())

    def ponged(self) -> None:
        """A Pong has come. It answers the oldest Ping."""
        if self._pinged:
            self.round_trip_ticks = min(self.round_trip_ticks, self.age - self._pinged.popleft())

    def close(self) -> None:
        """Close the connection, or give up the attempt to make it. The owner hears no more of it."""
        if self._has_ended:
            return
        self._has_ended = True
        if self.is_open:
            self.is_open = False
            self.transport.loseConnection()
        elif self._connector is not None:
            self._connector.stopConnecting()

    # from Twisted

    def connectionMade(self) -> None:
        """The node has accepted the connection."""
        if self._has_ended:  # The attempt was given up before.
            self.transport.abortConnection()
            return
        self.is_open = True
        send_at_once(self.transport)
        self._writer = EagerWriter(self.transport)
        self._owner.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Take the messages that are complete with ``data``. Bytes that are no message end the connection."""
        self.heard = True
        try:
            for message in self._splitter.feed(data):
                if not self._has_ended:
                    self._receive(self._codec.decode(message))
        except CodecError as error:
            self._reason = f"does not speak as a node of this cluster ({error})"
            if data.startswith(TLS_ALERT):
                self.is_refused, self._reason = True, WANTS_TLS
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The node has closed the connection, or it broke."""
        self.is_open = False
        broken = "" if reason.check("twisted.internet.error.ConnectionClosed") else f"cannot be used: {_why(reason)}"
        self._end(self._reason or broken or "closed the connection")

    def attempt_failed(self, reason: Failure) -> None:
        """The connection could not be made."""
        self._end(_why(reason))

    def _wrap(self, factory: ClientFactory, reactor: Any) -> ClientFactory:
        """The factory to connect with, on which ``factory`` is carried."""
        return factory

    def _receive(self, message: FromNode | FromClient) -> None:
        if isinstance(message, KeepAlive):
            self.send(KeepAliveReply())
        else:
            self._owner.received(self, message)

    def _end(self, reason: str) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._owner.lost(self, reason)


class _Attempt(ClientFactory):
    """The attempt to make a connection, as Twisted knows it."""

    noisy = False

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:
        """The connection is made."""
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """The connection could not be made."""
        self._connection.attempt_failed(reason)


def _why(reason: Failure) -> str:
    """Why no connection could be made, in a few words."""
    if reason.check("twisted.internet.error.ConnectionRefusedError"):
        return "refuses connections"
    if reason.check("twisted.internet.error.TimeoutError"):
        return "does not answer"
    if reason.check("twisted.internet.error.ConnectError") and getattr(reason.value, "osError", 0) == errno.ENOENT:
        return "does not run (there is no such socket)"
    return " ".join(reason.getErrorMessage().split()).rstrip(".") or type(reason.value).__name__
