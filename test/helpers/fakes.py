"""Doubles for the tests of the adapter. They record what happens, and act when the test says so."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.testing import FakeDatagramTransport, MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from txpaxos.application import Application
from txpaxos.clock import WATCH_SECONDS
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import PeerMet, Record, Voter
from txpaxos.node.events import Observer
from txpaxos.node.node import Node
from txpaxos.node.settings import Settings
from txpaxos.protocol import PaxosProtocol
from txpaxos.storage.executor import Work, execute_now
from txpaxos.storage.memory import MemoryFiles, MemoryStore
from txpaxos.storage.store import Store
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import new_session
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame
from txpaxos.wire.peer_messages import PeerMessage
from txpaxos.wire.sealed import SEALED_MAGIC

T = TypeVar("T")
Events: TypeAlias = list[tuple[str, Any]]
Endpoint: TypeAlias = tuple[str, int]

PEER_PORT, CLIENT_PORT = 4000, 5000
SESSION = new_session(b"a session of its", 0)

STORE_INCARNATION = 7
INCARNATION = 3
"""The incarnation of the data folders of a harness's peers."""


def cluster_of(names: str, name: str = "test") -> Cluster:
    """A cluster of one node for each letter, each on a host of its own."""
    hosts = {node: f"10.0.0.{number}" for number, node in enumerate(names, 1)}
    return Cluster(
        name, {node: Member(Address(host, PEER_PORT), Address(host, CLIENT_PORT)) for node, host in hosts.items()}
    )


ONE, THREE = cluster_of("a"), cluster_of("abc")


TURN_SECONDS = 1e-6
"""How long a reactor iteration takes, so that a timer which is early by a rounding error fires in the next one."""


class Reactor(MemoryReactorClock):
    """A reactor whose iterations the test makes, and whose clock may step as a wall clock does."""

    def __init__(self) -> None:
        super().__init__()
        self._stepped = 0.0
        self._watchers: list[Callable[[], None]] = []

    def monotonic(self) -> float:
        """The clock that does not step."""
        return self.seconds() - self._stepped

    def step(self, seconds: float) -> None:
        """Step the wall clock. Timers that are set keep their time on it, as Twisted's do. Watchers of the clock are
        called soon."""
        self.rightNow += seconds
        self._stepped += seconds
        for watcher in self._watchers:
            self.callLater(WATCH_SECONDS, watcher)

    def watch_clock(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` soon after each step of the wall clock."""
        self._watchers.append(watcher)

    def turn(self, turns: int = 1) -> None:
        """Make reactor iterations: due calls are made, and calls that become due meanwhile wait for the next
        iteration."""
        for _ in range(turns):
            for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
                if call in self.calls:
                    self.calls.remove(call)
                    call.called = 1
                    call.func(*call.args, **call.kw)

    def spend(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Let ``seconds`` pass, or fewer if ``until`` comes true. Returns whether it did."""
        end = self.seconds() + seconds
        while not until():
            self._sortCalls()  # A call that was reset may stand anywhere.
            if not self.calls or self.calls[0].getTime() > end:
                self.rightNow = max(end, self.rightNow)
                return False
            self.rightNow = max(self.rightNow, self.calls[0].getTime())
            self.turn()
            self.rightNow += TURN_SECONDS
        return True

    def idle(self) -> None:
        """Make iterations until nothing is due."""
        while any(call.getTime() <= self.seconds() for call in self.calls):
            self.turn()


class RecordingStore(MemoryStore):
    """A store in memory that records each save in ``events``. While it is ``slow``, a save ends at :meth:`finish`."""

    def __init__(
        self, events: Events | None = None, saved: Iterable[Record] = (), files: MemoryFiles | None = None
    ) -> None:
        super().__init__(saved, incarnation=STORE_INCARNATION, execute=self._do, files=files)
        self.events: Events = [] if events is None else events
        self.slow = False
        self.closes = 0
        self._in_flight: deque[tuple[Work, Deferred[None]]] = deque()

    @property
    def saves(self) -> list[tuple[Record, ...]]:
        """The saved records, save by save."""
        return [records for name, records in self.events if name == "save"]

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        self.events.append(("save", tuple(records)))
        return super().save(records)

    def close(self) -> Deferred[None]:
        self.closes += 1
        return super().close()

    def finish(self) -> None:
        """The oldest save under way is done, or has failed if the store is ``failing``."""
        work, done = self._in_flight.popleft()
        execute_now(work).chainDeferred(done)

    def _do(self, work: Work) -> Deferred[None]:
        if not self.slow:
            return execute_now(work)
        done: Deferred[None] = Deferred()
        self._in_flight.append((work, done))
        return done


class RecordingTransport(FakeDatagramTransport):
    """Records each datagram in ``events``, and passes it to ``carry``, if given."""

    def __init__(self, events: Events | None = None, carry: Callable[[bytes, Endpoint], None] | None = None) -> None:
        super().__init__()
        self.events: Events = [] if events is None else events
        self.error: OSError | None = None
        self._carry = carry

    def write(self, packet: bytes, addr: Any = None) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(("send", (packet, addr)))
        if self._carry is not None:
            self._carry(packet, addr)


class StreamTransport(StringTransport):
    """A stream whose other side is the test, or another such transport (:func:`connect`)."""

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.no_delay = self.keep_alive = False
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled

    def take(self) -> bytes:
        """The bytes written since the last call."""
        data: bytes = self.value()
        self.clear()
        return data

    def messages(self) -> list[bytes]:
        """The messages written since the last call."""
        return list(self._splitter.feed(self.take()))


class Recorder(PaxosProtocol):
    """An application that records its calls, and raises at commands that begin with ``!``."""

    def __init__(self) -> None:
        self.applied: list[tuple[Slot, bytes]] = []
        self.told: list[tuple[Any, ...]] = []

    def apply(self, slot: Slot, command: bytes) -> object:
        self.applied.append((slot, command))
        if command.startswith(b"!"):
            raise ValueError(f"no {command.decode()} at {slot}")
        return f"{command.decode()}@{len(self.applied)}"

    def value_chosen(self, subject: str, value: bytes) -> None:
        self.told.append(("chosen", subject, value))

    def leadership_acquired(self) -> None:
        self.told.append(("acquired",))

    def leadership_lost(self) -> None:
        self.told.append(("lost",))

    def leadership_changed(self, previous: NodeId | None, current: NodeId | None) -> None:
        self.told.append(("changed", previous, current))


def node_of(
    application: Application,
    reactor: Reactor,
    name: NodeId,
    cluster: Cluster,
    store: Store,
    rng: Random | None = None,
    observe: Observer | None = None,
    keys: Any = None,
    **settings: Any,
) -> Node:
    """A node that is made and not started."""
    options: dict[str, Any] = {"rng": rng, "monotonic": reactor.monotonic, "observe": observe, "keys": keys}
    return Node(application, reactor, name, cluster, store, Settings(**settings), **options)


class NodeHarness:
    """One node. The test plays its peers, its disk and its clock. By default it has met its peers and is a voter.

    :ivar events: its saves and its datagrams, in order.
    """

    def __init__(
        self,
        node: NodeId = "b",
        cluster: Cluster = THREE,
        saved: Iterable[Record] | None = None,
        application: Callable[..., PaxosProtocol] = Recorder,
        votes: bool = True,
        **options: Any,
    ) -> None:
        if saved is None:
            saved = [PeerMet(peer, INCARNATION) for peer in cluster.members if peer != node]
        if votes:
            saved = [Voter(tuple(cluster.members)), *saved]
        self.cluster = cluster
        self.reactor = Reactor()
        self.events: Events = []
        self.store = self._make_store(saved)
        self.transport = RecordingTransport(self.events)
        options.setdefault("rng", Random(1))
        self.node: Any = node_of(application(), self.reactor, node, cluster, self.store, **options)
        self.application: Any = self.node.application
        self.failures: list[Failure] = []
        self.node.failed.addErrback(self.failures.append)
        self.node.start(self.transport)

    def _make_store(self, saved: Iterable[Record]) -> RecordingStore:
        return RecordingStore(self.events, saved)

    def hear(self, sender: NodeId, *messages: PeerMessage, incarnation: int = INCARNATION) -> None:
        """Datagrams arrive from a peer. They are processed in the next reactor iteration."""
        address = self.cluster.members[sender].address
        for message in messages:
            data = Codec(self.cluster.name, sender, incarnation, self.cluster.members).encode(message)
            self.node.datagram_received(data, (address.host, address.port))

    def said(self) -> list[tuple[NodeId, PeerMessage]]:
        """The datagrams sent so far, in order, each with the node it went to."""
        return [self.read(sent) for name, sent in self.events if name == "send"]

    def read(self, sent: tuple[bytes, Endpoint]) -> tuple[NodeId, PeerMessage]:
        """One datagram, and the node it went to."""
        data, endpoint = sent
        (to,) = (node for node, member in self.cluster.members.items() if member.address == Address(*endpoint))
        return to, Codec(self.cluster.name, to, members=self.cluster.members).decode(data).message

    def story(self) -> list[str]:
        """The events as ``save(Promised)`` and ``PrepareLog>b``, short enough to compare."""
        lines = []
        for name, event in self.events:
            if name == "save":
                lines.append(f"save({', '.join(type(record).__name__ for record in event)})")
            else:
                to, message = self.read(event)
                lines.append(f"{type(message).__name__}>{to}")
        return lines

    def forget(self) -> None:
        """Forget the events so far."""
        self.events.clear()


def alone(**options: Any) -> NodeHarness:
    """A node that is a cluster by itself, and leads."""
    harness = NodeHarness("a", ONE, **options)
    harness.reactor.idle()
    return harness


def submit(harness: NodeHarness, *commands: bytes) -> list[Any]:
    """The node's answer to each command."""
    outcomes = [outcome_of(harness.node.submit(command)) for command in commands]
    harness.reactor.idle()
    return [answer for (answer,) in outcomes]


def restarted(harness: NodeHarness, **options: Any) -> NodeHarness:
    """A new node with a new application on what the old one saved."""
    return NodeHarness(harness.node.name, harness.cluster, harness.store.saved, rng=Random(2), **options)


class NodesInOneReactor:
    """Nodes on one network of datagrams, all in one reactor. Datagrams between pairs in ``cut`` (from, to) are lost.

    :param absent: nodes that are not started.
    :param votes: whether all are voters from the start.
    """

    def __init__(
        self,
        cluster: Cluster = THREE,
        application: Callable[..., PaxosProtocol] = Recorder,
        absent: str = "",
        votes: bool = True,
        **options: Any,
    ) -> None:
        self.cluster = cluster
        self.reactor = Reactor()
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.sent: list[tuple[NodeId, NodeId, PeerMessage]] = []
        self.stores = {node: RecordingStore(saved=self._known(node, votes)) for node in cluster.members}
        self.nodes: dict[NodeId, Any] = {}
        self._application = application
        self._options = options
        self._rng = Random(1)
        self._names = {(one.address.host, one.address.port): node for node, one in cluster.members.items()}
        self._prepare()
        for node in cluster.members:
            if node not in absent:
                self.start(node)

    def _met(self, node: NodeId) -> list[PeerMet]:
        """The peers that a node has met: nodes without streams cannot meet here."""
        return [PeerMet(peer, STORE_INCARNATION) for peer in self.cluster.members if peer != node]

    def _known(self, node: NodeId, votes: bool) -> list[Record]:
        return [*self._met(node), *([Voter(tuple(self.cluster.members))] if votes else [])]

    def _prepare(self) -> None:
        """Called before the first node starts."""

    def start(self, node: NodeId) -> None:
        """Start a node from its store."""
        rng = Random(self._rng.random())
        self.nodes[node] = node_of(
            *(self._application(), self.reactor, node, self.cluster_of(node), self.stores[node]),
            rng=rng,
            keys=self.keys_of(node),
            **self._options,
        )
        names = self._names
        self.nodes[node].start(RecordingTransport(carry=lambda data, to: self._carry(node, names.get(to, ""), data)))

    def cluster_of(self, node: NodeId) -> Cluster:
        """The cluster file of ``node``."""
        return self.cluster

    def keys_of(self, node: NodeId) -> Any:
        """The keys of ``node``; ``None`` without keys."""
        return None

    def restart(self, node: NodeId) -> Any:
        """Stop a node, as a kill does, and start a new one on what it saved."""
        self.kill(node)
        store = self.stores[node]
        self.stores[node] = RecordingStore(saved=store.saved, files=store.files)
        self.start(node)
        return self.nodes[node]

    def kill(self, node: NodeId) -> None:
        """Stop a node. Its unanswered calls stay unanswered."""
        self.nodes.pop(node).stop()

    def lead(self) -> Any:
        """Let time pass until every node follows one leader. Returns that leader."""
        nodes = self.nodes

        def agreed() -> bool:
            leaders = {node.leader for node in nodes.values()}
            return len(leaders) == 1 and None not in leaders

        assert self.reactor.spend(10.0, agreed)
        self.reactor.idle()  # until they have told their applications, too
        return nodes[next(iter(nodes.values())).leader]

    def lead_of_the_rest(self, away: Any) -> Any:
        """Let time pass until every node but ``away`` follows one leader among them. Returns that leader."""
        rest = [node for node in self.nodes.values() if node is not away]

        def agreed() -> bool:
            leaders = {node.leader for node in rest}
            return len(leaders) == 1 and not leaders & {None, away.name}

        assert self.reactor.spend(10.0, agreed)
        return self.nodes[rest[0].leader]

    def followers(self) -> list[Any]:
        """The nodes that do not lead."""
        return [node for node in self.nodes.values() if node.leader != node.name]

    def cut_off(self, node: NodeId) -> None:
        """Cut all links from and to ``node``."""
        self.cut |= {pair for other in self.cluster.members for pair in ((node, other), (other, node))}

    def wait(self, deferred: Deferred[T], seconds: float = 10.0) -> T:
        """The result of ``deferred``, within ``seconds``. Raises its failure."""
        outcome = outcome_of(deferred)
        assert self.reactor.spend(seconds, lambda: outcome), "no answer came"
        return unpack(outcome)

    def _carry(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if (sender, to) in self.cut or not to:
            return
        if not data.startswith(SEALED_MAGIC):
            codec = Codec(self.cluster.name, to, members=self.cluster.founding_members)
            self.sent.append((sender, to, codec.decode(data).message))
        address = self.cluster.members[sender].address
        self.reactor.callLater(0.0005, self._deliver, to, data, (address.host, address.port))

    def _deliver(self, to: NodeId, data: bytes, source: Endpoint) -> None:
        if to in self.nodes:
            self.nodes[to].datagram_received(data, source)


def outcome_of(deferred: Deferred[T]) -> list[T | Failure]:
    """A list that receives the result or the failure of ``deferred``."""
    outcome: list[T | Failure] = []
    deferred.addBoth(outcome.append)
    return outcome


def unpack(outcome: list[T | Failure]) -> T:
    """The one result in ``outcome``. Raises it if it is a failure."""
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result


def error_of(deferred: Deferred[Any]) -> BaseException:
    """The error of ``deferred``, which has failed."""
    (result,) = outcome_of(deferred)
    assert isinstance(result, Failure), result
    assert result.value is not None
    return result.value


def logged(act: Callable[[], object], level: Any = LogLevel.critical) -> list[dict[str, Any]]:
    """The log events at ``level`` while ``act`` runs."""
    events: list[dict[str, Any]] = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] is level:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        act()
    finally:
        globalLogPublisher.removeObserver(observe)
    return events


def framed(*messages: bytes) -> bytes:
    """Messages as bytes of a stream."""
    return b"".join(map(frame, messages))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free now, for datagrams and for streams."""
    return list(_free_ports(count))


def _free_ports(count: int) -> Iterator[int]:
    with ExitStack() as held:
        ports = 0
        while ports < count:
            stream = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            datagram = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            stream.bind(("127.0.0.1", 0))
            port = stream.getsockname()[1]
            try:
                datagram.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports += 1
            yield port
