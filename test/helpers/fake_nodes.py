"""The nodes of a cluster as a client sees them. The test plays the nodes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from test.helpers.fakes import THREE, Reactor, StreamTransport, framed, outcome_of
from txpaxos.client import Client
from txpaxos.client.suspicion import LIVENESS_SECONDS
from txpaxos.cluster import Cluster
from txpaxos.wire.client_messages import (
    Answer,
    Ask,
    AskAnswer,
    ClientCodec,
    Contact,
    FromClient,
    FromNode,
    KeepTimers,
    Members,
    Ping,
    Pong,
    Read,
    ReadAnswer,
    StatusRequest,
    Submit,
    TimersKept,
    Welcome,
)
from txpaxos.wire.commands import Run

CODEC = ClientCodec("test")
PERIOD_MS = 10_000
"""Of each timer that the client keeps alive."""
NODES = {member.client.host: node for node, member in THREE.members.items()}


class FakeConnection:
    """One connection of the client, as node ``node`` sees it."""

    def __init__(self, node: str, dial: ClientFactory, reactor: Reactor) -> None:
        self.node = node
        self.reactor = reactor
        self.transport = StreamTransport()
        connection = dial.buildProtocol(None)
        assert connection is not None
        self.connection = connection
        connection.makeConnection(self.transport)

    def welcome(self, leader: str | None, applied_through: int = 0) -> None:
        address = None if leader is None else str(THREE.members[leader].client)
        self.say(Welcome(self.node, leader, address, applied_through, LIVENESS_SECONDS))

    def said(self) -> list[FromClient | FromNode]:
        """The messages of the client since the last call. The client's present reactor iteration ends first."""
        self.reactor.turn()
        return [CODEC.decode(message) for message in self.transport.messages()]

    def submitted(self) -> list[tuple[bytes, int, bytes]]:
        """The session, sequence and bytes of the commands in those messages."""
        return [
            (one.session, sequence, command)
            for one in self.runs()
            for sequence, command in enumerate(one.commands, one.sequence)
        ]

    def runs(self) -> list[Submit]:
        """The runs of commands in those messages."""
        return [one for one in self.said() if isinstance(one, Submit)]

    def say(self, *messages: FromNode | FromClient) -> None:
        self.connection.dataReceived(framed(*map(CODEC.encode, messages)))

    def answer(self, number: int, *results: object) -> None:
        """Answer the commands from ``number`` on. The client must have sent them by then."""
        self.reactor.turn()
        self.say(Answer(number, tuple(map(msgspec.msgpack.encode, results))))

    def break_off(self) -> None:
        self.connection.connectionLost(Failure(ConnectionLost()))


class ManualNodes:
    """All nodes that a client may connect to. The test plays each of them."""

    def __init__(
        self,
        nodes: list[str] | None = None,
        seed: int = 1,
        sending: Callable[[Run], None] | None = None,
        **options: Any,
    ) -> None:
        self.reactor = Reactor()
        self.client = Client(self.reactor, THREE, nodes, Random(seed), sending, **options)
        self._answered = 0

    @property
    def calls(self) -> list[str]:
        """The nodes that the client has tried to connect to so far."""
        return [NODES[host] for host, *_ in self.reactor.tcpClients]

    def pick_up(self) -> FakeConnection:
        """The last node accepts the connection, and sends nothing yet."""
        assert len(self.calls) == self._answered + 1, (self.calls, self._answered)
        self._answered += 1
        return FakeConnection(self.calls[-1], self.reactor.tcpClients[-1][2], self.reactor)

    def accept(self) -> FakeConnection:
        """The last node accepts the connection, and sends a welcome as the leader."""
        fake_connection = self.pick_up()
        fake_connection.welcome(fake_connection.node)
        return fake_connection

    def refuse(self) -> str:
        """The last node refuses the connection."""
        assert len(self.calls) == self._answered + 1, (self.calls, self._answered)
        self._answered += 1
        dial, connector = self.reactor.tcpClients[-1][2], self.reactor.connectors[-1]
        dial.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        return self.calls[-1]

    def wait_for_call(self, seconds: float = 5.0) -> None:
        assert self.reactor.spend(seconds, lambda: len(self.calls) == self._answered + 1)


def other_than(*nodes: str) -> str:
    return next(node for node in "abc" if node not in nodes)


class AutomaticNodes:
    """A client, and nodes that act by themselves: they send a welcome, name the leader, and answer.

    :ivar leader: the node that all nodes which can speak take for the leader.
    :ivar frozen: nodes that accept connections, and send nothing.
    :ivar unplugged: nodes that do not even accept connections.
    :ivar gone: nodes that refuse connections.
    :ivar isolated: nodes that are cut off from the others, and do not know it yet. They speak, and answer nothing that
        needs a quorum.
    :ivar behind: nodes that fetch a snapshot, and say so. They answer nothing that needs a quorum.
    :ivar answer_seconds: how long an answer takes.
    :ivar told: what the nodes tell of the members: nothing, as older nodes, or the same each, or what they differ in.
    :ivar knows_ping: whether the nodes are of a release that answers a Ping.
    :ivar heard: the messages that nodes received, in order, with the time and the node.
    """

    STEP_SECONDS = 0.005

    def __init__(
        self,
        nodes: list[str] | None = None,
        seed: int = 1,
        cluster: Cluster = THREE,
        seeds: Cluster | list[str] | None = None,
    ) -> None:
        self.reactor = Reactor()
        self.cluster = cluster
        self.leader: str | None = "a"
        self.frozen: set[str] = set()
        self.unplugged: set[str] = set()
        self.gone: set[str] = set()
        self.isolated: set[str] = set()
        self.behind: set[str] = set()
        self.answer_seconds = 0.001
        self.knows_ping = True
        self.told: dict[str, Members] = {}
        self.heard: list[tuple[float, str, FromClient | FromNode]] = []
        self.lines: list[FakeConnection] = []
        self.calls: list[str] = []
        self._names = {member.client.host: node for node, member in cluster.members.items()}
        self._held: list[tuple[FakeConnection, FromClient | FromNode]] = []
        self.client = Client(self.reactor, cluster if seeds is None else seeds, nodes, Random(seed))

    @property
    def now(self) -> float:
        return self.reactor.seconds()

    def spend(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Let time pass. The nodes act every few milliseconds."""
        end = self.now + seconds
        while not until():
            if self.now >= end:
                return False
            self.reactor.spend(self.STEP_SECONDS)
            self.serve()
        return True

    def gap(self, *waiting: Deferred[Any], seconds: float = 20.0) -> float:
        """How long it takes until all of ``waiting`` are answered."""
        began, outcomes = self.now, [outcome_of(one) for one in waiting]
        assert self.spend(seconds, lambda: all(outcomes)), "no answer came"
        assert not any(isinstance(one, Failure) for (one,) in outcomes), outcomes
        return self.now - began

    def elect(self, leader: str | None) -> None:
        """Give the nodes that can speak to each other another leader. They tell their clients."""
        self.leader = leader
        for fake_connection in self.lines:
            if (
                self.can_speak(fake_connection.node)
                and fake_connection.node not in self.isolated
                and fake_connection.transport.connected
            ):
                self.welcome(fake_connection)

    def change(self, slot: int, voters: str, learners: str = "", tell: str = "") -> None:
        """Have other members, of which the nodes that can speak tell their clients; only those in ``tell`` if any."""
        roles = {**dict.fromkeys(voters, "voter"), **dict.fromkeys(learners, "learner")}
        contacts = [Contact(node, str(self.cluster.members[node].client), role) for node, role in roles.items()]
        for node in tell or self.cluster.members:
            self.told[node] = Members(slot, tuple(contacts))
        for fake_connection in self.lines:
            if (
                fake_connection.node in (tell or self.cluster.members)
                and self.can_speak(fake_connection.node)
                and fake_connection.transport.connected
            ):
                fake_connection.say(self.told[fake_connection.node])

    def kill(self, *nodes: str) -> None:
        """End nodes: their connections break, and they refuse others."""
        self.gone.update(nodes)
        for fake_connection in self.lines:
            if fake_connection.node in nodes and fake_connection.transport.connected:
                fake_connection.transport.connected = False
                fake_connection.break_off()

    def fall_behind(self, node: str) -> None:
        """A node needs another's snapshot from now on. It tells its clients."""
        self.behind.add(node)
        self._welcome_all(node)

    def catch_up(self, node: str) -> None:
        """A node that was behind is level with the others. It tells its clients, and answers what waits there."""
        self.behind.remove(node)
        self._welcome_all(node)

    def _welcome_all(self, node: str) -> None:
        for fake_connection in self.lines:
            if fake_connection.node == node and not fake_connection.transport.disconnected:
                self.welcome(fake_connection)

    def step_down(self, node: str, leader: str | None = None) -> None:
        """An isolated node notices that it is: it knows no leader, or hears the other nodes, though they do not hear
        it."""
        for fake_connection in self.lines:
            if fake_connection.node == node:
                fake_connection.say(Welcome(node, leader, None, 0, LIVENESS_SECONDS))

    def can_speak(self, node: str) -> bool:
        return node not in self.frozen | self.unplugged | self.gone

    def welcome(self, fake_connection: FakeConnection) -> None:
        node, window = fake_connection.node, LIVENESS_SECONDS if self.knows_ping else 0.0
        leader = node if node in self.isolated else self.leader
        fake_connection.say(Welcome(node, leader, None, 0, window, catching_up=node in self.behind))

    def sent(self, kind: type[Any], *nodes: str) -> int:
        """How many messages of a kind the nodes received."""
        return sum(
            isinstance(message, kind) and node in (nodes or self.cluster.members) for _, node, message in self.heard
        )

    def serve(self) -> None:
        """Let the nodes accept connections and answer."""
        while len(self.calls) < len(self.reactor.tcpClients):
            host, _, dial, _, _ = self.reactor.tcpClients[len(self.calls)]
            node = self._names.get(host, host)
            self.calls.append(node)
            if node in self.gone or node not in self.cluster.members:
                dial.clientConnectionFailed(self.reactor.connectors[-1], Failure(ConnectionRefusedError()))
            elif node not in self.unplugged:
                self.lines.append(FakeConnection(node, dial, self.reactor))
                if self.can_speak(node):
                    self.welcome(self.lines[-1])
                    if node in self.told:
                        self.lines[-1].say(self.told[node])
                else:
                    self._held.append((self.lines[-1], StatusRequest(0)))
        for fake_connection in self.lines:
            for data in fake_connection.transport.messages():
                message = CODEC.decode(data)
                self.heard.append((self.now, fake_connection.node, message))
                self._take(fake_connection, message)
        held, self._held = self._held, []
        for fake_connection, message in held:
            if (
                self.can_speak(fake_connection.node)
                and fake_connection.node not in self.isolated
                and message == StatusRequest(0)
            ):
                self.welcome(fake_connection)
            else:
                self._take(fake_connection, message)

    def _take(self, fake_connection: FakeConnection, message: FromClient | FromNode) -> None:
        if not self.can_speak(fake_connection.node):
            self._held.append((fake_connection, message))
        elif isinstance(message, Ping):
            fake_connection.say(Pong())
        elif message != StatusRequest(0):
            needs_quorum = not (isinstance(message, Read) and message.local)
            is_unable = fake_connection.node in self.isolated | self.behind
            if needs_quorum and (is_unable or self.needs_leader(message)):
                self._held.append((fake_connection, message))
            else:
                self.reactor.callLater(self.answer_seconds, self._answer, fake_connection, message)

    def needs_leader(self, message: FromClient | FromNode) -> bool:
        """Whether the message waits for a leader that can speak."""
        absent = self.leader is None or not self.can_speak(self.leader) or self.leader in self.isolated
        return absent and not isinstance(message, Ask)

    def _answer(self, fake_connection: FakeConnection, message: FromClient | FromNode) -> None:
        if not self.can_speak(fake_connection.node) or fake_connection.transport.disconnected:
            return
        match message:
            case Submit(request, _, _, _, commands):
                fake_connection.say(Answer(request, tuple(msgspec.msgpack.encode("done") for _ in commands)))
            case Read(request):
                fake_connection.say(ReadAnswer(request, 1, msgspec.msgpack.encode("done")))
            case KeepTimers(request, number, names):
                fake_connection.say(TimersKept(request, (number,) * len(names), PERIOD_MS))
            case Ask(request, _, value):
                fake_connection.say(AskAnswer(request, value))
