"""The leader's part when a node joins: what is checked, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.python.failure import Failure

from test.helpers.client_port_harness import ClientPortHarness
from test.helpers.fakes import NodeHarness, Reactor, StreamTransport, alone, error_of, outcome_of
from txpaxos.cluster import Address
from txpaxos.errors import ConfigError, MembersRefused, NoQuorum, Overloaded
from txpaxos.server.client_port import ClientPort
from txpaxos.server.joins import JOINS_MAX, REACH_SECONDS, LeaderJoins, MemberNode, NoJoins
from txpaxos.wire.client_messages import Join, JoinAnswer, Refused

TOKEN = b"sixteen bytes of"
JOIN = Join(1, "d", "10.0.0.4:4001", "10.0.0.4:5001", 5, TOKEN, "counter:Counter")
ANSWER = JoinAnswer(1, "test", "d", {}, 40, {})


class Leader:
    """A node that leads, and adds each member at once."""

    name = "a"
    leader: str | None = "a"
    application_name = "counter:Counter"

    def __init__(self) -> None:
        self.added: list[Join] = []

    def add_member(self, join: Join) -> Deferred[JoinAnswer]:
        self.added.append(join)
        return succeed(ANSWER)


class Harness:
    def __init__(self) -> None:
        self.reactor = Reactor()
        self.node = Leader()
        self.joins = LeaderJoins(self.reactor, self.node)

    def join(self, **changes: Any) -> Deferred[JoinAnswer]:
        return self.joins.join(attrs.evolve(JOIN, **changes))

    def connected(self, *said: bytes) -> list[StreamTransport]:
        """All connections are made, and the process there says something. Returns this node's ends."""
        ends = []
        for *_, factory, _, _ in self.reactor.tcpClients:
            end, protocol = StreamTransport(), factory.buildProtocol(None)
            assert protocol is not None
            protocol.makeConnection(end)
            for data in said:
                protocol.dataReceived(data)
            ends.append(end)
        return ends


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_node_that_is_reached_at_its_addresses_is_added(harness: Harness) -> None:
    answer = outcome_of(harness.join())
    assert [(host, port) for host, port, *_ in harness.reactor.tcpClients] == [("10.0.0.4", 4001), ("10.0.0.4", 5001)]
    assert harness.node.added == []
    ends = harness.connected(TOKEN[:7], TOKEN[7:])
    assert answer == [ANSWER]
    assert harness.node.added == [JOIN]
    assert all(end.disconnected for end in ends)
    assert harness.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("other", ["b", None])
def test_only_the_leader_answers(harness: Harness, other: str | None) -> None:
    harness.node.leader = other
    error = error_of(harness.join())
    assert isinstance(error, NoQuorum)
    assert str(error) == "node a does not lead: ask the leader"
    assert harness.reactor.tcpClients == []


def test_one_that_loses_the_lead_meanwhile_does_not(harness: Harness) -> None:
    answer = harness.join()
    harness.node.leader = "b"
    harness.connected(TOKEN)
    assert isinstance(error_of(answer), NoQuorum)
    assert harness.node.added == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"application": "kv:Store"}, "run counter:Counter, and the new one kv:Store: start it with the same --app"),
        ({"name": "d e"}, "'d e' cannot be a node: letters, digits"),
        ({"name": "d~2"}, "'d~2' cannot be a node"),
        ({"address": "10.0.0.4"}, "'10.0.0.4' cannot be the address of a node: not host:port"),
        ({"client": "0.0.0.0:5001"}, "'0.0.0.0:5001' cannot be the address of a node: 0.0.0.0 is where a node listens"),
    ],
)
def test_one_that_says_something_wrong_is_refused_at_once(harness: Harness, changes: dict[str, Any], line: str) -> None:
    error = error_of(harness.join(**changes))
    assert isinstance(error, ConfigError)
    assert line in str(error)
    assert harness.reactor.tcpClients == []


def test_a_mistyped_address_is_refused(harness: Harness) -> None:
    answer = harness.join()
    (_, _, probe, *_), (_, _, other, *_) = harness.reactor.tcpClients
    other.buildProtocol(None).makeConnection(StreamTransport())  # type: ignore[union-attr]
    probe.clientConnectionFailed(harness.reactor.connectors[0], Failure(ConnectionRefusedError()))
    harness.reactor.advance(REACH_SECONDS)
    error = error_of(answer)
    assert isinstance(error, ConfigError)
    assert str(error).startswith(
        "the leader, a, does not reach the new node at --address 10.0.0.4:4001 (Connection was"
    )
    assert harness.node.added == []


def test_another_process_at_the_address_is_not_taken_for_the_node(harness: Harness) -> None:
    answer = harness.join()
    harness.connected(b"HTTP/1.1 400 Bad request")
    assert "--address 10.0.0.4:4001 (another process listens there)" in str(error_of(answer))


def test_one_that_hangs_up_is_not_either(harness: Harness) -> None:
    answer = harness.join()
    for *_, factory, _, _ in harness.reactor.tcpClients:
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(StreamTransport())
        protocol.connectionLost(Failure(ConnectionDone()))
        protocol.connectionLost(Failure(ConnectionDone()))
    assert "(another process listens there)" in str(error_of(answer))


@pytest.mark.parametrize("is_connected", [True, False])
def test_silence_ends_the_attempt(harness: Harness, is_connected: bool) -> None:
    answer = harness.join()
    ends = harness.connected() if is_connected else []
    harness.reactor.advance(REACH_SECONDS)
    assert "(nothing came from there)" in str(error_of(answer))
    assert all(end.disconnected for end in ends)
    assert [one.stoppedConnecting for one in harness.reactor.connectors] == [not is_connected] * 2


def test_few_may_join_at_a_time(harness: Harness) -> None:
    answers = [harness.join() for _ in range(JOINS_MAX)]
    assert isinstance(error_of(harness.join()), Overloaded)
    harness.connected(TOKEN)
    assert all(outcome_of(answer) == [ANSWER] for answer in answers)
    harness.reactor.tcpClients.clear()
    last = harness.join()
    harness.connected(TOKEN)
    assert outcome_of(last) == [ANSWER]


def test_the_members_of_a_node_are_changed() -> None:
    harness = ClientPortHarness(alone())
    node = MemberNode(harness.node)
    assert (node.name, node.leader, node.application_name) == ("a", "a", "test.helpers.fakes:Recorder")
    answers = [
        outcome_of(node.add_member(attrs.evolve(JOIN, request=number, votes=False, incarnation=incarnation)))
        for number, incarnation in ((7, 5), (8, 6), (9, 5))
    ]
    harness.node_harness.reactor.idle()
    founding = {"a": ("10.0.0.1:4000", "10.0.0.1:5000")}
    (answer,), (refusal,), (again,) = answers
    assert isinstance(answer, JoinAnswer)
    members = {**founding, "d": (JOIN.address, JOIN.client)}
    rights: dict[str, tuple[str, ...]] = {"*": ("ask", "members", "read", "status", "write")}
    assert answer == JoinAnswer(7, "test", "d", founding, answer.slot, members, ("d",), rights)
    assert again == attrs.evolve(answer, request=9)
    assert isinstance(refusal, Failure)
    assert refusal.check(MembersRefused)
    assert harness.node.members.entry.members["d"].role == "learner"


def test_a_node_whose_members_cannot_change_refuses() -> None:
    assert "cannot be changed" in str(error_of(NoJoins().join(JOIN)))


def test_a_join_at_the_client_port() -> None:
    harness = ClientPortHarness(NodeHarness())
    assert harness.ask(JOIN) == [Refused(1, "ConfigError", "the members of this cluster cannot be changed")]
    node = Leader()
    joins = LeaderJoins(harness.node_harness.reactor, node)
    harness.port = ClientPort(harness.node, joins=joins)
    client = harness.client()
    client.say(JOIN)
    for *_, factory, _, _ in harness.node_harness.reactor.tcpClients[-2:]:
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(StreamTransport())
        protocol.dataReceived(TOKEN)
    assert client.heard() == [ANSWER]


def test_an_address_that_is_a_name_is_looked_up(harness: Harness) -> None:
    harness.reactor.look_up = lambda name: succeed([{"nd.test": "10.0.0.44"}[name]])  # type: ignore[attr-defined]
    answer = harness.join(address="nd.test:4001")
    harness.connected(TOKEN)
    assert outcome_of(answer) == [ANSWER]
    assert harness.reactor.tcpClients[0][:2] == ("10.0.0.44", Address("nd.test", 4001).port)
