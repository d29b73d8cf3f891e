"""Three real nodes in the reactor of the test, and relays between all sockets, which record what passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import provider

from test.helpers.fakes import free_ports
from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.config import Timing
from txpaxos.counter import Counter
from txpaxos.node.counts import Count
from txpaxos.node.settings import Settings
from txpaxos.rights import Rights
from txpaxos.server.served_node import ServedNode

reactor: Any = installed_reactor
HOST = "127.0.0.1"
SECONDS = 30.0
CLIENTS = ("shop", "bank", "script")
RIGHTS = {
    "shop": ["read", "write", "ask", "status", "members"],
    "bank": ["write", "ask"],
    "script": ["read"],
}
"""Among them a client that may only read, and one that may write, so that it can try another's session."""

DISK_BYTES = 2**18
"""How much of each file is compared."""

PATIENT = Settings(timing=Timing(liveness_window_seconds=(0.6, 1.0)))
"""No leader is replaced because the machine is busy."""


@attrs.frozen
class Carried:
    """Bytes that were on the wire.

    :ivar way: ``"datagram"``, ``"peer stream"`` or ``"client stream"``.
    :ivar sender: the node that sent a datagram; of a stream, ``"dialled"`` or ``"accepted"`` for the side that sent.
    :ivar to: the node whose port it is.
    :ivar connection: the number of the connection; 0 for datagrams.
    """

    way: str
    sender: str
    to: str
    data: bytes
    connection: int = 0


NUMBERS = count(1)
"""Of connections through relays."""


class Relay(DatagramProtocol):
    """Takes datagrams at the address of one member, and brings them to where it listens."""

    def __init__(self, nodes: RealCluster, name: str) -> None:
        self.nodes, self.name = nodes, name

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        sender = self.nodes.listening[addr[1]]
        self.nodes.carried.append(Carried("datagram", sender, self.name, data))
        self.nodes.send_from(sender, self.name, data)


def stream_relay(carried: list[Carried], way: str, name: str, port: int) -> ProxyFactory:
    """What takes streams at an address of the node ``name``, and brings them to where it listens."""

    class FromDialled(ProxyServer):
        def connectionMade(self) -> None:
            self.number = next(NUMBERS)
            super().connectionMade()

        def dataReceived(self, data: bytes) -> None:
            carried.append(Carried(way, "dialled", name, data, self.number))
            super().dataReceived(data)

    class FromAccepted(ProxyClient):
        def dataReceived(self, data: bytes) -> None:
            carried.append(Carried(way, "accepted", name, data, getattr(self.peer, "number", 0)))
            super().dataReceived(data)

    class Dial(ProxyClientFactory):
        protocol = FromAccepted
        noisy = False

    FromDialled.clientProtocolFactory = Dial
    factory = ProxyFactory(HOST, port)
    factory.protocol, factory.noisy = FromDialled, False
    return factory


class Caller(Protocol):
    """A connection that says ``data`` at once, and keeps what it hears.

    :ivar lost: why the connection ended; ``None`` while it is there.
    """

    def __init__(self, data: bytes = b"", received: Callable[[bytes], object] | None = None) -> None:
        self.data, self.heard = data, b""
        self.lost: Failure | None = None
        self.made = False
        self.received = received

    def connectionMade(self) -> None:
        self.made = True
        if self.data:
            self.transport.write(self.data)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self.received is not None:
            self.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` is true."""
    give_up_at = reactor.seconds() + SECONDS
    while not condition():
        assert reactor.seconds() < give_up_at
        await deferLater(reactor, 0.005)


async def call(port: int, caller: Caller, creator: Any = None) -> Caller:
    """Connect ``caller`` to a port, in TLS if there is a ``creator``."""
    factory: Any = Factory.forProtocol(lambda: caller)
    if creator is not None:
        factory = TLSMemoryBIOFactory(creator, True, factory, reactor)
    dial = ClientFactory()
    dial.noisy = False
    dial.buildProtocol = factory.buildProtocol  # type: ignore[method-assign]
    reactor.connectTCP(HOST, port, dial)
    await until(lambda: caller.made)
    return caller


class RealCluster:
    """Nodes with real sockets and data folders.

    :param keys: the folders of keys; ``None`` for nodes without keys.
    :ivar carried: all that has passed the relays, in order.
    :ivar lines: the lines of warning in the log.
    """

    def __init__(self, folder: Path, keys: KeyFolders | None, settings: Settings = PATIENT) -> None:
        self.folder, self.keys, self._settings = folder, keys, settings
        ports = iter(free_ports(12))
        members = {name: Member(*(Address(HOST, next(ports)) for _ in range(4))) for name in "abc"}
        rights = Rights({name: frozenset(granted) for name, granted in RIGHTS.items()})
        self.cluster = Cluster("secret-cluster", members, rights=rights)
        self.nodes: dict[str, ServedNode] = {}
        self.listening = {member.listens_at.port: name for name, member in members.items()}
        self.carried: list[Carried] = []
        self.lines: list[str] = []
        self._relays: dict[str, Any] = {}
        self._ports: list[Any] = []

        @provider(ILogObserver)
        def observe(event: dict[str, Any]) -> None:
            if event["log_level"] in (LogLevel.warn, LogLevel.error, LogLevel.critical):
                self.lines.append(formatEvent(event))

        self._observer = observe

    def open(self) -> None:
        """Open the relays, and keep the lines of the log."""
        globalLogPublisher.addObserver(self._observer)
        for name, member in self.cluster.members.items():
            self._relays[name] = reactor.listenUDP(member.address.port, Relay(self, name), HOST, 65536)
            ways = (
                (member.address, "peer stream", member.listens_at),
                (member.client, "client stream", member.listens_for_clients_at),
            )
            for at, way, to in ways:
                self._ports.append(reactor.listenTCP(at.port, stream_relay(self.carried, way, name, to.port), 50, HOST))

    async def close(self) -> None:
        """Stop all."""
        for name in list(self.nodes):
            await self.stop(name)
        for port in (*self._ports, *self._relays.values()):
            await port.stopListening()
        globalLogPublisher.removeObserver(self._observer)

    def start(self, name: str) -> None:
        """Start a node on its data folder."""
        keys = None if self.keys is None else self.keys.folder(name)
        self.nodes[name] = ServedNode(
            Counter, name, self.cluster, self.folder / name, self._settings, reactor=reactor, keys=keys
        )
        self.nodes[name].start()

    async def stop(self, name: str) -> None:
        """Stop a node at once, as far as that can be seen from outside."""
        await self.nodes.pop(name).stop_at_once()

    def client(self, name: str = "shop") -> Client:
        """A client of the cluster."""
        return Client(reactor, self.cluster, keys=None if self.keys is None else self.keys.folder(name))

    def send_from(self, sender: str, to: str, data: bytes) -> None:
        """Send a datagram to a node, from the address of another one."""
        address = self.cluster.members[to].listens_at
        self._relays[sender].write(data, (address.host, address.port))

    # what there is to see

    @property
    def leader(self) -> str:
        """The node that all nodes say leads; empty if they do not agree."""
        (leader, *others) = {served.node.leader for served in self.nodes.values()}
        return "" if others or leader is None else leader

    def count(self, name: str, *which: Count) -> int:
        """How often these events have happened at a node."""
        return sum(int(self.nodes[name].node.counters[one]) for one in which)

    def peer_port(self, name: str) -> int:
        return self.cluster.members[name].listens_at.port

    def client_port(self, name: str) -> int:
        return self.cluster.members[name].listens_for_clients_at.port

    def state(self) -> dict[str, Any]:
        """All that an attack could change: of the algorithm, the application, the members, and the disks."""
        found: dict[str, Any] = {}
        for name, served in self.nodes.items():
            status = served.node.status()
            core = status.replica
            found[name] = (
                *(core.role, core.ballot, core.promised, core.chosen_through, dict(core.dropped)),
                *(status.applied_through, served.application.total, served.node.members.slot),
                *(served.node.leader, sorted(served.node.members.entry.members)),
            )
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.relative_to(self.folder).parts[0] in self.nodes:
                with path.open("rb") as file:  # Journals are written from the front, and mostly empty.
                    found[str(path)] = sha256(file.read(DISK_BYTES)).hexdigest(), path.stat().st_size
        return found

    async def settled(self) -> None:
        """Wait until all nodes follow one leader, and have applied the same."""

        def is_settled() -> bool:
            through = {served.node.applied_through for served in self.nodes.values()}
            streams = [served.node._peers._streams for served in self.nodes.values()]
            others = len(self.nodes) - 1
            whole = all(len(one._theirs) >= others for one in streams)
            return bool(self.leader) and len(through) == 1 and whole

        await until(is_settled)
        await deferLater(reactor, 0.15)  # The last notice of what is chosen goes out with a heartbeat.
        await until(is_settled)


@asynccontextmanager
async def real_cluster(
    folder: Path, *, keys: bool = True, nodes: str = "abc", settings: Settings = PATIENT
) -> AsyncIterator[RealCluster]:
    """A cluster that has counted to 1."""
    made = RealCluster(folder / "data", keys_for(folder / "keys", clients=CLIENTS) if keys else None, settings)
    client = made.client()
    try:
        made.open()
        for name in nodes:
            made.start(name)
        assert await client.submit(b"+1", SECONDS) == 1
        await made.settled()
        yield made
    finally:
        client.close()
        await made.close()


def turn() -> Deferred[None]:
    """Let the reactor do what is due."""
    return deferLater(reactor, 0, lambda: None)
