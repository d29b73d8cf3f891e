"""A client's connection to a node, and the attempt to make one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from txpaxos.cluster import Address
from txpaxos.errors import CodecError
from txpaxos.outlet import Outlet
from txpaxos.wire.client_messages import AreYouThere, FromClient, FromNode, Here, Welcome
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame

if TYPE_CHECKING:
    from txpaxos.client import Client


class Connection(Protocol):
    """One connection to one node.

    :ivar heard: whether anything came since the client last looked.
    :ivar welcome: the newest one that came, at the reactor's time :attr:`welcomed_at`.
    """

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, client: Client, address: Address) -> None:
        self.address = address
        self.heard = False
        self.welcome: Welcome | None = None
        self.welcomed_at = 0.0
        self._client = client
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        self._outlet: Outlet
        self._closing = False

    def connectionMade(self) -> None:
        """The node took the connection."""
        self.transport.setTcpNoDelay(True)
        self._outlet = Outlet(self.transport)
        self._client.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what is complete with ``data``."""
        self.heard = True
        try:
            for message in self._splitter.feed(data):
                if not self._closing:
                    self._received(self._client.codec.decode(message))
        except CodecError:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The node hung up."""
        if not self._closing:
            self._client.lost(self.address)

    def _received(self, message: FromNode | FromClient) -> None:
        if isinstance(message, AreYouThere):
            self.send(Here())
        else:
            self._client.received(self, message)

    def send(self, message: FromClient) -> None:
        """Send one request."""
        self._outlet.write(frame(self._client.codec.encode(message)))

    def close(self) -> None:
        """Hang up, and say no more of it."""
        self._closing = True
        self.transport.loseConnection()


class Dial(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, client: Client, address: Address) -> None:
        self._client = client
        self._address = address

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """The connection stands."""
        return Connection(self._client, self._address)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Nobody is there."""
        self._client.lost(self._address)
