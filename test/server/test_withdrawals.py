"""Reads that a client withdraws: the node gives them up at once, and answers nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

import txpaxos.server.budget
from test.helpers.client_port_harness import ClientPortHarness, submit
from test.helpers.fakes import ONE, NodeHarness, Recorder
from txpaxos.server.connection import ServerConnection
from txpaxos.wire.client_messages import Ask, AskAnswer, Read, ReadAnswer, StatusRequest, Withdraw


class Waiting(Recorder):
    """An application whose queries wait until the test answers them."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[bytes, Deferred[Any]] = {}

    def query(self, query: bytes) -> object:
        def cancelled(_: Deferred[Any]) -> None:
            del self.waiting[query]

        self.waiting[query] = Deferred(cancelled)
        return self.waiting[query]


@pytest.fixture
def harness() -> Iterator[ClientPortHarness]:
    harness = ClientPortHarness(NodeHarness("a", ONE, application=Waiting))
    yield harness
    for connection in list(harness.port.connections):
        assert isinstance(connection, ServerConnection)
        connection.connectionLost()
    harness.port.budget.check()
    assert len(harness.node._reads) == 0


def waiting_at(harness: ClientPortHarness) -> dict[bytes, Deferred[Any]]:
    application: Any = harness.node.application
    waiting: dict[bytes, Deferred[Any]] = application.waiting
    return waiting


@pytest.mark.parametrize("local", [True, False])
def test_a_read_is_withdrawn(harness: ClientPortHarness, local: bool) -> None:
    client = harness.client()
    client.say(Read(1, b"one", local), Read(2, b"two", local))
    harness.node_harness.reactor.idle()
    client.say(Withdraw(1))
    assert list(waiting_at(harness)) == [b"two"]
    assert client.heard() == []
    waiting_at(harness)[b"two"].callback("done")
    assert [type(one) for one in client.heard()] == [ReadAnswer]
    assert client.connection._usage.requests == 0
    assert client.connection._reads == {}
    assert harness.node.counters == {}


def test_a_linearizable_read_that_waits_for_a_leader_is_withdrawn() -> None:
    harness = ClientPortHarness(NodeHarness("b"))
    client = harness.client()
    client.say(Read(1, b"one", False), Withdraw(1))
    assert len(harness.node._reads) == 0
    assert client.connection._usage.requests == 0


def test_what_is_no_read_in_work_is_not_withdrawn(harness: ClientPortHarness) -> None:
    """It is answered already, or has never come, or is no read, or is one of another client."""
    client, other = harness.client(), harness.client()
    other.say(Read(1, b"of the other", True))
    client.say(submit(1, b"x"), Ask(2, "king", b"Arthur"), Withdraw(1), Withdraw(2), Withdraw(2**64 - 1))
    harness.node_harness.reactor.idle()
    client.say(Read(3, b"three", True))
    waiting_at(harness)[b"three"].callback("done")
    client.say(Withdraw(3), Withdraw(3))
    assert [one.request for one in client.heard() if not isinstance(one, Withdraw)] == [1, 2, 3]  # type: ignore[union-attr]
    assert list(waiting_at(harness)) == [b"of the other", b"three"]
    assert harness.node.counters == {}


def test_two_reads_of_one_number(harness: ClientPortHarness) -> None:
    """No client of ours does that. The later one is withdrawn, and the other one goes on."""
    client = harness.client()
    client.say(Read(1, b"one", True), Read(1, b"two", True), Withdraw(1), Withdraw(1))
    assert list(waiting_at(harness)) == [b"one"]
    waiting_at(harness)[b"one"].callback("done")
    assert len(client.heard()) == 1
    assert client.connection._reads == {}


def test_a_read_that_is_deferred_is_withdrawn(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client did not read, so the node has not begun with it."""
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_MAX", 10)
    client = harness.client()
    client.connection.pauseProducing()
    client.say(StatusRequest(1), Read(2, b"two", True), Read(3, b"three", True), Withdraw(2))
    assert waiting_at(harness) == {}
    client.heard()
    client.connection.resumeProducing()
    assert list(waiting_at(harness)) == [b"three"]
    assert client.connection._usage.requests == 1
    client.say(Withdraw(3))
    assert (client.connection._usage.requests, client.connection._reads) == (0, {})


def test_a_read_is_withdrawn_while_the_client_does_not_read(
    harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_MAX", 10)
    client = harness.client()
    client.say(Read(1, b"one", True))
    client.connection.pauseProducing()
    client.say(StatusRequest(2), Withdraw(1))
    assert waiting_at(harness) == {}
    client.heard()
    client.connection.resumeProducing()
    assert client.heard() == []
    assert client.connection._usage.requests == 0


def test_one_that_has_left_withdraws_nothing(harness: ClientPortHarness) -> None:
    client = harness.client()
    client.say(Read(1, b"one", True), Ask(2, "king", None))
    client.disconnect()
    harness.node_harness.reactor.idle()
    assert waiting_at(harness) == {}
    assert not any(isinstance(one, AskAnswer) for one in client.heard())
