"""The nodes of a cluster as a client sees them: the test is each of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from test.fakes import THREE, Reactor, StreamTransport, framed
from txpaxos.client import Client
from txpaxos.wire.client_messages import Answer, ClientCodec, FromClient, FromNode, Submit, Welcome
from txpaxos.wire.commands import Run

CODEC = ClientCodec("test")
NODES = {member.client.host: node for node, member in THREE.members.items()}


class Line:
    """One connection of the client, seen from the node ``node``."""

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
        self.say(Welcome(self.node, leader, address, applied_through))

    def said(self) -> list[FromClient | FromNode]:
        """What the client has said since the last time, its present turn over."""
        self.reactor.turn()
        return [CODEC.decode(message) for message in self.transport.messages()]

    def submitted(self) -> list[tuple[bytes, int, bytes]]:
        """The session, sequence and bytes of the commands in that."""
        return [
            (one.session, sequence, command)
            for one in self.runs()
            for sequence, command in enumerate(one.commands, one.sequence)
        ]

    def runs(self) -> list[Submit]:
        """The runs of commands in that."""
        return [one for one in self.said() if isinstance(one, Submit)]

    def say(self, *messages: FromNode | FromClient) -> None:
        self.connection.dataReceived(framed(*map(CODEC.encode, messages)))

    def answer(self, number: int, *results: object) -> None:
        """Answer the commands from ``number`` on, all of which the client has sent by then."""
        self.reactor.turn()
        self.say(Answer(number, tuple(map(msgspec.msgpack.encode, results))))

    def break_off(self) -> None:
        self.connection.connectionLost(Failure(ConnectionLost()))


class Street:
    """All nodes a client may call. The test is each of them."""

    def __init__(
        self, nodes: list[str] | None = None, seed: int = 1, sending: Callable[[Run], None] | None = None
    ) -> None:
        self.reactor = Reactor()
        self.client = Client(self.reactor, THREE, nodes, Random(seed), sending)
        self._answered = 0

    @property
    def calls(self) -> list[str]:
        """The nodes called so far."""
        return [NODES[host] for host, *_ in self.reactor.tcpClients]

    def pick_up(self) -> Line:
        """The node called last takes the call, and says nothing yet."""
        assert len(self.calls) == self._answered + 1, (self.calls, self._answered)
        self._answered += 1
        return Line(self.calls[-1], self.reactor.tcpClients[-1][2], self.reactor)

    def accept(self) -> Line:
        """The node called last takes the call, and says that it leads."""
        line = self.pick_up()
        line.welcome(line.node)
        return line

    def refuse(self) -> str:
        """The node called last is not there."""
        assert len(self.calls) == self._answered + 1, (self.calls, self._answered)
        self._answered += 1
        dial, connector = self.reactor.tcpClients[-1][2], self.reactor.connectors[-1]
        dial.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        return self.calls[-1]

    def wait_for_call(self, seconds: float = 5.0) -> None:
        assert self.reactor.spend(seconds, lambda: len(self.calls) == self._answered + 1)


def other_than(*nodes: str) -> str:
    return next(node for node in "abc" if node not in nodes)
