"""The limits of the client port: clients that ask for much, send requests in part, or do not read their answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import txpaxos.server.budget
import txpaxos.server.client_port
import txpaxos.server.session_rate
from test.helpers.client_port_harness import CODEC, ClientPortHarness, refusals, submit
from test.helpers.fakes import ONE, NodeHarness, framed
from txpaxos.core.messages import Ballot, Heartbeat
from txpaxos.node.counts import Count
from txpaxos.server.budget import REQUESTS_MAX
from txpaxos.server.client_table import DROP_SECONDS, PING_SECONDS
from txpaxos.wire.client_messages import (
    Answer,
    Ask,
    AskAnswer,
    KeepAlive,
    KeepAliveReply,
    Refused,
    StatusRequest,
    Welcome,
)
from txpaxos.wire.commands import new_session


@pytest.fixture
def harness() -> Iterator[ClientPortHarness]:
    harness = ClientPortHarness(NodeHarness("a", ONE))
    yield harness
    harness.port.budget.check()


def test_requests_of_one_connection_are_limited() -> None:
    harness = ClientPortHarness(NodeHarness("b"))  # no node leads: nothing gets an answer
    client = harness.client()
    client.say(*[submit(number, b"x", number) for number in range(REQUESTS_MAX + 2)])
    refused = client.heard()
    assert [(one.request, one.error) for one in refused if isinstance(one, Refused)] == [
        (REQUESTS_MAX, "Overloaded"),
        (REQUESTS_MAX + 1, "Overloaded"),
    ]
    assert len(refused) == 2
    client.disconnect()


def test_connections_are_limited(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many, one that is idle goes: of the address that has most, and the longest."""
    monkeypatch.setattr(txpaxos.server.client_port, "CONNECTIONS_MAX", 4)
    lonely = harness.client("10.2.2.2")
    crowd = [harness.client() for _ in range(3)]
    harness.node_harness.reactor.spend(2.5)
    crowd[0].say(StatusRequest(1))
    newest = harness.client()
    assert [one.transport.disconnected for one in (lonely, *crowd, newest)] == [False, False, True, False, False]
    assert harness.node.counters == {Count.TOO_MANY_CLIENTS: 1}
    crowd[1].disconnect()
    harness.client("10.3.3.3")
    assert crowd[2].transport.disconnected
    assert not lonely.transport.disconnected
    for client in (lonely, *crowd, newest):
        client.disconnect()
    assert len(harness.port.connections) == 1


def test_who_waits_for_an_answer_does_not_go_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.client_port, "CONNECTIONS_MAX", 2)
    harness = ClientPortHarness(NodeHarness("b"))  # No node leads.
    clients = [harness.client(), harness.client()]
    for client in clients:
        client.say(submit(1, b"x", session=new_session(bytes([len(clients)] * 16), 0)))
    harness.node_harness.reactor.spend(200.0)
    assert harness.port.buildProtocol(None) is None
    assert [client.transport.disconnected for client in clients] == [False, False]
    assert harness.node.counters[Count.TOO_MANY_CLIENTS] == 1
    for client in clients:
        client.disconnect()


def test_a_silent_client_gets_a_keep_alive_and_is_disconnected(harness: ClientPortHarness) -> None:
    """Its machine may have lost power. One that answers stays, for as long as it likes."""
    alive, dead, busy = [harness.client() for _ in range(3)]
    for second in range(200):
        harness.node_harness.reactor.spend(1.0)
        if KeepAlive() in alive.heard():
            alive.say(KeepAliveReply())
        if second % 20 == 0:
            busy.say(StatusRequest(second))
        if second == PING_SECONDS - 2:
            assert dead.heard() == []
    assert dead.heard().count(KeepAlive()) == 1
    assert KeepAlive() not in busy.heard()
    assert [one.transport.disconnected for one in (alive, dead, busy)] == [False, True, False]
    assert harness.node.counters == {Count.IDLE_CLIENT_DISCONNECTED: 1}
    for client in (alive, dead, busy):
        client.disconnect()
    harness.node_harness.reactor.spend(5.0)
    assert [call for call in harness.node_harness.reactor.getDelayedCalls() if "_sweep" in str(call)] == []


def test_ten_thousand_silent_clients_are_gone_soon_and_asked_a_few_at_a_time(harness: ClientPortHarness) -> None:
    clients = [harness.client() for _ in range(1200)]
    asked = []
    for _ in range(PING_SECONDS + DROP_SECONDS + 3):
        harness.node_harness.reactor.spend(1.0)
        asked.append(sum(KeepAlive() in client.heard() for client in clients))
    assert [count for count in asked if count] == [500, 500, 200]
    assert all(client.transport.disconnected for client in clients)
    assert len(harness.port.connections) == 0


def test_sessions_begun_by_one_address_are_limited(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it has those of all others forgotten."""
    monkeypatch.setattr(txpaxos.server.session_rate, "SESSIONS_BURST", 3)
    many, other = harness.client(), harness.client("10.2.2.2")
    names = [new_session(b"%016d" % number, 0) for number in range(5)]
    many.say(*[submit(number, b"x", session=name) for number, name in enumerate(names)])
    harness.node_harness.reactor.idle()
    assert refusals(many) == [(3, "Overloaded"), (4, "Overloaded")]
    many.say(*[submit(10 + number, b"y", 2, session=name) for number, name in enumerate(names[:3])])
    other.say(submit(1, b"x", session=names[4]))
    harness.node_harness.reactor.idle()
    assert (refusals(many), refusals(other)) == ([], [])
    harness.node_harness.reactor.spend(2.0)
    many.say(submit(20, b"x", session=names[3]))
    assert refusals(many) == []
    many.disconnect()
    other.disconnect()


def test_requests_of_all_connections_are_limited(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "REQUESTS_ALL_MAX", 3)
    monkeypatch.setattr(txpaxos.server.budget, "REQUEST_BYTES_ALL_MAX", 1000)
    first, second = harness.client(), harness.client()
    first.say(submit(1, b"x"), submit(2, b"y", 2))
    second.say(Ask(3, "king", bytes(900)), Ask(4, "king", None))
    assert refusals(first) == []
    assert refusals(second) == [(4, "Overloaded")]
    second.disconnect()  # which leaves room
    first.say(Ask(5, "king", bytes(990)))
    assert refusals(first) == []
    harness.node_harness.reactor.idle()
    assert harness.ask(Ask(6, "king", bytes(996))) == [AskAnswer(6, bytes(990))]
    assert refusals(harness.client()) == []
    (refused,) = harness.ask(Ask(7, "king", bytes(997)))
    assert isinstance(refused, Refused)


def test_requests_in_part_are_limited(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "PARTIAL_BYTES_ALL_MAX", 250_000)
    first, second, third, small = (harness.client() for _ in range(4))
    part = framed(CODEC.encode(Ask(1, "king", bytes(200_000))))
    first.connection.dataReceived(part[:150_000])
    second.connection.dataReceived(part[:150_000])
    assert second.transport.disconnected
    assert harness.node.counters == {Count.TOO_MANY_PARTIAL_REQUESTS: 1}
    second.disconnect()
    third.connection.dataReceived(part[:99_000])
    small.connection.dataReceived(part[:1500])  # hardly counts
    first.connection.dataReceived(part[150_000:])
    harness.node_harness.reactor.idle()
    assert first.heard() == [AskAnswer(1, bytes(200_000))]
    assert not third.transport.disconnected
    assert not small.transport.disconnected


def test_answers_that_are_not_read_wait(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes are held, nothing more is read, and all the answers come once the client reads."""
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_MAX", 1000)
    client = harness.client()
    client.connection.pauseProducing()
    client.say(*[Ask(number, "king", b"x" * 300) for number in range(20)])
    client.say(*[submit(number, b"%d" % number, number) for number in range(20, 40)])
    harness.node_harness.reactor.idle()
    held = client.heard()
    assert 0 < len(held) < 25
    assert 1000 < harness.port.budget.buffered_bytes < 1500
    assert client.transport.producerState == "paused"
    heard = held
    for _ in range(40):
        client.connection.resumeProducing()
        client.connection.pauseProducing()
        harness.node_harness.reactor.idle()
        assert harness.port.budget.buffered_bytes < 1500
        heard += client.heard()
    client.connection.resumeProducing()
    harness.node_harness.reactor.idle()
    heard += client.heard()
    assert sorted(one.request for one in heard if isinstance(one, AskAnswer)) == list(range(20))
    assert sorted(one.request for one in heard if isinstance(one, Answer)) == list(range(20, 40))
    assert [payload for _, payload in harness.node.application.applied] == [
        b"%d" % number for number in range(20, 40)
    ]  # once
    assert client.transport.producerState == "producing"
    assert (harness.port.budget.buffered_bytes, harness.port.budget.paused) == (0, 0)


def test_a_thousand_deferred_requests(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered on the spot, one after the other and not one inside the other."""
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_MAX", 10)
    client = harness.client()
    client.connection.pauseProducing()
    client.say(*map(StatusRequest, range(2000)))
    assert len(client.heard()) == 1
    client.connection.resumeProducing()
    assert len(client.heard()) == 1999


def test_the_client_that_has_not_read_for_longest_is_disconnected(
    harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When too much is held for all together: the one that has not read for the longest time."""
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_ALL_MAX", 50_000)
    first, second, third = (harness.client() for _ in range(3))
    for client in (second, first, third):
        assert client.transport.producer is client.connection
        client.connection.pauseProducing()
    for client in (first, second, third):
        client.say(Ask(1, "king", bytes(20_000)))
        harness.node_harness.reactor.idle()
    assert [client.transport.disconnected for client in (first, second, third)] == [False, True, False]
    assert harness.node.counters == {Count.SLOW_CLIENT_DISCONNECTED: 1}
    assert 40_000 < harness.port.budget.buffered_bytes < 50_000
    for client in (first, second, third):
        client.disconnect()
    assert (harness.port.budget.buffered_bytes, harness.port.budget.paused) == (0, 0)


def test_a_client_that_reads_late_is_not(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_ALL_MAX", 50_000)
    client = harness.client()
    for _ in range(3):
        client.connection.pauseProducing()
        client.say(*map(StatusRequest, range(60)))
        client.transport.clear()
        client.connection.resumeProducing()
    assert not client.transport.disconnected
    client.connection.stopProducing()


def test_who_does_not_read_hears_of_the_last_leader() -> None:
    node_harness = NodeHarness("b")
    client = ClientPortHarness(node_harness).client()
    client.connection.pauseProducing()
    for number, leader in enumerate("acac", 1):
        node_harness.hear(leader, Heartbeat(Ballot(number, leader), 0, number))
        node_harness.reactor.idle()
    assert client.heard() == []
    client.connection.resumeProducing()
    assert client.heard() == [Welcome("b", "c", "10.0.0.3:5000", 0, 0.25, takes_withdrawals=True)]
