"""A client's connection to a node, from the attempt to make one to its end."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from txpaxos.cluster import Address
from txpaxos.eager_writer import EagerWriter
from txpaxos.errors import CodecError
from txpaxos.host_names import connect
from txpaxos.wire.client_messages import AreYouThere, ClientCodec, FromClient, FromNode, Here, Ping, Welcome
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame

CONNECT_SECONDS = 1.0


class Owner(Protocol):
    """What a connection tells of itself to."""

    def opened(self, connection: ClientConnection) -> None:
        """A node took it."""

    def received(self, connection: ClientConnection, message: FromNode | FromClient) -> None:
        """A message came."""

    def lost(self, connection: ClientConnection, reason: str) -> None:
        """It broke, or could not be made."""


class ClientConnection(TwistedProtocol):
    """One connection to one node.

    :ivar node: the node that should be there.
    :ivar is_open: whether the node took it, and it has not ended.
    :ivar heard: whether anything came since the client last looked.
    :ivar welcome: the newest one that came, at :attr:`welcomed_at`; ``None`` before the first.
    :ivar silent: for how many ticks nothing has come, as the client counts them.
    :ivar age: how many ticks ago the attempt began.
    :ivar round_trip_ticks: what the way to the node and back takes: as long as the first welcome, or less if a Pong
        came sooner.
    :ivar deposed: whether its node has said that it leads, and then that it does not, and has answered nothing since.
    """

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, owner: Owner, codec: ClientCodec, node: str, address: Address) -> None:
        self.node = node
        self.address = address
        self.is_open = False
        self.heard = False
        self.welcome: Welcome | None = None
        self.welcomed_at = 0.0
        self.silent = 0
        self.age = self.round_trip_ticks = 0
        self.deposed = False
        self._pinged: deque[int] = deque()  # Its age when each Ping was sent that is not answered yet.
        self._owner = owner
        self._codec = codec
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        self._writer: EagerWriter
        self._connector: IConnector | None = None
        self._closing = False
        self._reason = ""

    def dial(self, reactor: Any) -> None:
        """Try to make it. A name is looked up anew."""
        self._connector = connect(reactor, self.address, _Dial(self), CONNECT_SECONDS)

    def connectionMade(self) -> None:
        """The node took the connection."""
        if self._closing:  # Too late.
            self.transport.abortConnection()
            return
        self.is_open = True
        self.transport.setTcpNoDelay(True)
        self._writer = EagerWriter(self.transport)
        self._owner.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what is complete with ``data``."""
        self.heard = True
        try:
            for message in self._splitter.feed(data):
                if not self._closing:
                    self._received(self._codec.decode(message))
        except CodecError as error:
            self._reason = f"does not speak as a node of this cluster ({error})"
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The node closed the connection, or it broke."""
        self.is_open = False
        if not self._closing:
            self._closing = True
            self._owner.lost(self, self._reason or "closed the connection")

    def failed(self, reason: Failure) -> None:
        """The attempt to make it has failed."""
        if not self._closing:
            self._closing = True
            self._owner.lost(self, _why(reason))

    def _received(self, message: FromNode | FromClient) -> None:
        if isinstance(message, AreYouThere):
            self.send(Here())
        else:
            self._owner.received(self, message)

    def send(self, message: FromClient) -> None:
        """Send one request."""
        self._writer.write(frame(self._codec.encode(message)))

    def ping(self) -> None:
        """Have the node say something."""
        if self.is_open:
            if self.round_trip_ticks:  # Else no Pong could show that it is less.
                self._pinged.append(self.age)
            self.send(Ping())

    def ponged(self) -> None:
        """A Pong has come. It answers the oldest Ping."""
        if self._pinged:
            self.round_trip_ticks = min(self.round_trip_ticks, self.age - self._pinged.popleft())

    def close(self) -> None:
        """Close the connection. The owner hears no more of it."""
        if self._closing:
            return
        self._closing = True
        if self.is_open:
            self.is_open = False
            self.transport.loseConnection()
        elif self._connector is not None:
            self._connector.stopConnecting()


class _Dial(ClientFactory):
    """The attempt to make a connection."""

    noisy = False

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:
        """The connection stands."""
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Nobody is there."""
        self._connection.failed(reason)


def _why(reason: Failure) -> str:
    """In a few words, why no connection could be made."""
    if reason.check("twisted.internet.error.ConnectionRefusedError"):
        return "refuses connections"
    if reason.check("twisted.internet.error.TimeoutError"):
        return "does not answer"
    return " ".join(reason.getErrorMessage().split()).rstrip(".") or type(reason.value).__name__
