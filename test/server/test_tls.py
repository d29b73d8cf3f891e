"""Ports and streams that are wrapped in TLS from outside: nothing goes past the wrapper, and everything works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import AcceptSlot, Ballot
from txpaxos.counter import Counter as CounterService
from txpaxos.node.counts import Counts
from txpaxos.node.datagram_port import DatagramPort
from txpaxos.node.known_peers import KnownPeers
from txpaxos.node.node import Node
from txpaxos.node.peer_streams import PeerStreams
from txpaxos.server.client_port import ClientPort
from txpaxos.storage.memory import MemoryStore
from txpaxos.wire.codec import Codec, Received
from txpaxos.wire.peer_messages import Challenge

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import ssl
from twisted.protocols.tls import TLSMemoryBIOFactory

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:OpenSSL", "ignore:X509:DeprecationWarning")

reactor: Any = installed_reactor
SECONDS_MAX = 20.0
BIG = 3 * 2**20
"""More than a socket takes at once."""


@pytest.fixture(scope="module")
def certificate() -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("node")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password) + signed.public_bytes(encoding)
    return ssl.PrivateCertificate.loadPEM(pem)


class Echo(CounterService):
    """Answers with as many bytes as it is told."""

    def query(self, query: bytes) -> Any:
        return bytes(int(query))


class TlsReactor:
    """The real reactor, but that every TCP port and connection made with it is wrapped in TLS, as an operator would
    who stands a TLS endpoint before a port."""

    def __init__(self, certificate: Any) -> None:
        self._server = certificate.options()
        self._client = ssl.optionsForClientTLS("node", trustRoot=ssl.Certificate(certificate.original))
        self.ports: list[Any] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        wrapped = TLSMemoryBIOFactory(self._server, False, factory)
        self.ports.append(reactor.listenTCP(port, wrapped, backlog, interface))
        return self.ports[-1]

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float | None = 30, **kwargs: Any) -> Any:
        return reactor.connectTCP(host, port, TLSMemoryBIOFactory(self._client, True, factory), timeout, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Sniffer(Protocol):
    """Connects and says nothing: a TLS server waits then; what stands in the clear is said at once."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


def free_cluster(port: int) -> Cluster:
    return Cluster("tls", {"a": Member(Address("127.0.0.1", 1), Address("127.0.0.1", port))})


async def until(condition: Callable[[], object]) -> None:
    give_up_at = reactor.seconds() + SECONDS_MAX
    while not condition():
        assert reactor.seconds() < give_up_at
        await deferLater(reactor, 0.005)


async def test_a_client_port_behind_tls(certificate: Any) -> None:
    """``listenSSL`` around the port; a client whose connection is wrapped, too. Small answers and big ones."""
    cluster = free_cluster(1)
    node = Node(Echo(), reactor, "a", cluster, MemoryStore())
    udp = reactor.listenUDP(0, DatagramPort(node), "127.0.0.1")
    port = reactor.listenSSL(0, ClientPort(node), certificate.options(), interface="127.0.0.1")
    number = port.getHost().port
    client = Client(TlsReactor(certificate), free_cluster(number))
    try:
        sniffer = Sniffer()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", number), sniffer)
        assert await client.submit(b"+5", SECONDS_MAX) == 5
        totals = [client.submit(b"%d" % amount, SECONDS_MAX) for amount in (1, 2, 3)]
        assert [await total for total in totals] == [6, 8, 11]
        readings = [client.read(b"%d" % BIG, "linearizable", SECONDS_MAX) for _ in range(3)]
        assert [(await reading).result for reading in readings] == [bytes(BIG)] * 3
        assert await client.ask("big", bytes(BIG), SECONDS_MAX) == bytes(BIG)
        assert sniffer.heard == b""
        assert node.counters == {}
    finally:
        sniffer.transport.abortConnection()  # type: ignore[union-attr]
        await sniffer.lost
        client.close()
        await maybeDeferred(port.stopListening)
        await node.stop()
        await maybeDeferred(udp.stopListening)
        await deferLater(reactor, 0)


async def test_streams_between_nodes_behind_tls(certificate: Any) -> None:
    """Both ends of a stream are wrapped; a message much bigger than a socket's buffer arrives whole."""
    wrapping = TlsReactor(certificate)
    heard: dict[str, list[Received]] = {"a": [], "b": []}
    addresses: dict[str, Address] = {}
    sides: dict[str, PeerStreams] = {}

    def challenge(challenger: str, peer: str, data: bytes) -> None:
        """A datagram, which TLS is not for."""
        asked = Codec("tls", peer).decode(data).message
        assert isinstance(asked, Challenge)
        sides[peer].send_proof(challenger, asked.token)

    for name in "ab":
        peers = {peer: Address("127.0.0.1", 1) for peer in "ab" if peer != name}
        addresses.update(peers)
        counters: Counts = Counter()
        sides[name] = PeerStreams(
            wrapping,
            Codec("tls", name),
            peers,
            KnownPeers(lambda _: None, counters),
            lambda: 1234,
            partial(challenge, name),
            heard[name].append,
            lambda _: None,
            counters,
        )
    ports = {}
    for name, side in sides.items():
        side.listen(Address("127.0.0.1", 0))
        ports[name] = wrapping.ports[-1].getHost().port
    for name, other in ("ab", "ba"):
        sides[name]._addresses = {other: Address("127.0.0.1", ports[other])}
    sniffer = Sniffer()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", ports["b"]), sniffer)
    message = AcceptSlot(Ballot(1, "a"), 7, bytes(BIG), 6)
    try:
        sides["a"].open_stream("b")
        await until(lambda: (stream := sides["a"]._own.get("b")) is not None and stream.is_established)
        sides["a"].send("b", Codec("tls", "a").encode(message))
        await until(lambda: heard["b"])
        assert heard["b"][0].message == message
        assert sniffer.heard == b""
    finally:
        sniffer.transport.abortConnection()  # type: ignore[union-attr]
        await sniffer.lost
        for side in sides.values():
            side.stop()
        await until(lambda: not any(side._open for side in sides.values()))
