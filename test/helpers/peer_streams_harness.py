"""One node's streams. The test plays the other end of each."""

from __future__ import annotations

from collections import Counter

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from test.helpers.fakes import THREE, Reactor, StreamTransport, framed
from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Counts
from txpaxos.node.known_peers import KnownPeers
from txpaxos.node.peer_streams import PeerStream, PeerStreams
from txpaxos.wire.codec import Codec, Received
from txpaxos.wire.peer_messages import Challenge, Hello, PeerMessage, Proof


def said_by(node: str, message: PeerMessage | None = None, cluster: str = "test", incarnation: int = 0) -> bytes:
    """A message of ``node``; by default its Hello."""
    return Codec(cluster, node, incarnation).encode(Hello() if message is None else message)


class PeerStreamsHarness:
    """All streams of node ``a``. The test plays the other end of each."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.counters: Counts = Counter()
        self.received: list[Received] = []
        self.refused: list[str] = []
        self.met: list[PeerMet] = []
        self.challenges: list[tuple[str, bytes]] = []
        peers = {name: member.address for name, member in THREE.members.items() if name != "a"}
        self.known_peers = KnownPeers(self.met.append, self.counters)
        self.streams = PeerStreams(
            self.reactor,
            Codec("test", "a"),
            peers,
            self.known_peers,
            lambda: 1000 + len(self.challenges),
            lambda peer, data: self.challenges.append((peer, data)),
            self.received.append,
            self.refused.append,
            self.counters,
        )

    def accept(self, host: str | None = None) -> tuple[PeerStream, StreamTransport]:
        """A node connects."""
        stream = self.streams.buildProtocol(None if host is None else IPv4Address("TCP", host, 50000))
        assert stream is not None
        return self._connect(stream)

    def established(self, node: str) -> tuple[PeerStream, StreamTransport]:
        """A node connects, claims to be ``node``, and proves it."""
        stream, transport = self.accept()
        stream.dataReceived(framed(said_by(node)))
        stream.dataReceived(framed(said_by(node, self.proof())))
        transport.take()
        return stream, transport

    def proof(self) -> Proof:
        """The answer to the last challenge."""
        peer, data = self.challenges[-1]
        message = Codec("test", peer).decode(data).message
        assert isinstance(message, Challenge)
        return Proof(message.token)

    def answer_dial(self) -> tuple[PeerStream, StreamTransport]:
        """The last requested connection is made."""
        stream = self.dial().buildProtocol(None)
        assert isinstance(stream, PeerStream)
        return self._connect(stream)

    def dial(self) -> ClientFactory:
        return self.reactor.tcpClients[-1][2]

    def messages(self) -> list[tuple[str, PeerMessage]]:
        return [(one.sender, one.message) for one in self.received]

    @staticmethod
    def _connect(stream: PeerStream) -> tuple[PeerStream, StreamTransport]:
        transport = StreamTransport()
        stream.makeConnection(transport)
        return stream, transport


def disconnect(stream: PeerStream) -> None:
    stream.connectionLost(Failure(ConnectionDone()))


def fail_dial(harness: PeerStreamsHarness, error: Exception) -> None:
    """The last requested connection fails."""
    harness.dial().clientConnectionFailed(harness.reactor.connectors[-1], Failure(error))
