"""One node in trouble: bytes from strangers, a disk that fails or hangs, invariants that do not hold."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
from twisted.internet.error import CannotListenError

from test.fakes import (
    ONE,
    THREE,
    Bench,
    Reactor,
    RecordingStore,
    RecordingTransport,
    alone,
    error_of,
    logged,
    outcome_of,
)
from test.fuzz import INPUTS, nothing_kept
from test.wire_samples import spoil
from txpaxos.core.messages import AcceptSlot, Ballot, Fetch, Heartbeat, PrepareLog
from txpaxos.errors import OutcomeUnknown, StoreError
from txpaxos.protocol import READYS_WAITING_MAX, PaxosProtocol
from txpaxos.wire.codec import Codec

LOW = Ballot(1, "a")

# ------------------------------------------------------------------- strangers


@pytest.mark.fuzz
def test_bytes_from_strangers_change_nothing() -> None:
    """Datagrams, random or nearly right: nothing is saved, sent or kept, and all are counted."""
    bench = Bench("b")
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
    bench.reactor.idle()
    before, timers = bench.node.status(), len(bench.reactor.getDelayedCalls())
    bench.forget()
    rng, high = Random(8), Ballot(99, "a")
    prepare = PrepareLog(high, 1)
    near: list[tuple[bytes, tuple[str, int]]] = [
        (Codec("other", "a").encode(prepare), ("10.0.0.1", 4000)),
        (Codec("test", "a").encode(prepare), ("10.0.0.9", 4000)),
        (Codec("test", "a").encode(prepare), ("10.0.0.1", 4001)),
        (Codec("test", "a").encode(prepare), ("10.0.0.3", 4000)),
        (Codec("test", "d").encode(prepare), ("10.0.0.1", 4000)),
        (Codec("test", "b").encode(prepare), ("10.0.0.2", 4000)),
    ]
    good = Codec("test", "a").encode(prepare)

    def bombard() -> None:
        for _ in range(INPUTS):
            data, address = rng.choice(near)
            match rng.randrange(3):
                case 0:
                    data = rng.randbytes(rng.randint(0, 1500))
                case 1:
                    data, address = spoil(rng, good), ("10.0.0.1", 4000)
            if data != good or address != ("10.0.0.1", 4000):
                bench.node.datagramReceived(data, address)

    with nothing_kept():
        bombard()
    bench.reactor.idle()
    after = bench.node.status()
    assert after.replica == before.replica
    assert after.applied_through == before.applied_through
    assert set(after.counters) == {"bad datagram", "datagram of a stranger"}
    assert sum(after.counters.values()) > 0.9 * INPUTS
    assert bench.events == []  # no save, no datagram
    assert len(bench.reactor.getDelayedCalls()) == timers


def test_a_peer_that_lost_its_memory_is_not_heard() -> None:
    """It might promise again what it had promised to another. Nor is it after a restart of this node."""
    bench = Bench("b", saved=[])
    bench.hear("a", PrepareLog(LOW, 1), incarnation=5)
    bench.reactor.idle()
    assert bench.story() == ["save(PeerMet, Promised)", "PromiseLog>a"]
    for node in (bench, Bench("b", saved=bench.store.saved)):
        node.forget()
        again = [PrepareLog(Ballot(9, "a"), 1)] * 3
        (event,) = logged(partial(node.hear, "a", *again, incarnation=6))
        assert event["peer"] == "a"
        node.reactor.idle()
        assert node.events == []
        assert sum(node.node.counters.values()) == 3
        node.hear("a", PrepareLog(LOW, 1), incarnation=5)
        node.reactor.idle()
        assert node.story() == ["PromiseLog>a"]


# -------------------------------------------------------------------- failures


def test_a_failed_disk_is_told_once_and_in_one_line() -> None:
    bench = alone()
    bench.store.failing = True
    waiting = [outcome_of(bench.node.submit(b"x")), outcome_of(bench.node.ask("king", b"Arthur"))]
    (event,) = logged(bench.reactor.idle)
    assert event["reason"] == "this store was told to fail; start the node again"
    assert event.get("log_failure") is None  # no traceback: what to do about it stands in the line
    (failure,) = bench.failures
    assert failure.check(StoreError)
    assert all(outcome[0].check(OutcomeUnknown) for outcome in waiting)
    assert logged(lambda: bench.reactor.spend(10.0)) == []
    assert bench.reactor.getDelayedCalls() == []


def test_a_broken_invariant_is_told_with_its_traceback(logged_errors: list[dict[str, Any]]) -> None:
    bench = Bench("b")

    def two_values_in_one_ballot() -> None:
        bench.hear("a", AcceptSlot(LOW, 1, b"one", 0), AcceptSlot(LOW, 1, b"two", 0))
        bench.reactor.idle()

    (event,) = logged(two_values_in_one_ballot)
    assert event["log_failure"].check(AssertionError)
    assert bench.failures[0].check(AssertionError)
    assert bench.said() == []
    logged_errors.clear()


def test_an_error_in_the_timer_is_the_end(logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("b")
    monkeypatch.setattr(bench.node._replica, "tick", lambda now: [][0])
    bench.reactor.spend(10.0)
    assert bench.failures[0].check(IndexError)
    assert bench.reactor.getDelayedCalls() == []
    logged_errors.clear()


def test_a_closed_port_is_the_end(logged_errors: list[dict[str, Any]]) -> None:
    bench = alone()
    bench.node.doStop()
    (failure,) = bench.failures
    assert "datagram port was closed" in failure.getErrorMessage()
    assert bench.store.closes == 1
    logged_errors.clear()


def test_a_port_that_is_closed_after_stop_is_no_failure() -> None:
    bench = alone()
    bench.node.stop()
    bench.node.doStop()
    assert bench.failures == []


def test_a_store_that_cannot_be_read_stops_the_start() -> None:
    store = RecordingStore()
    store.load()
    with pytest.raises(StoreError, match="loaded once"):
        PaxosProtocol(Reactor(), "a", ONE, store).makeConnection(RecordingTransport())


def test_an_address_that_is_taken_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*args: Any) -> None:
        raise CannotListenError("10.0.0.1", 4000, OSError("in use"))

    reactor = Reactor()
    monkeypatch.setattr(reactor, "listenTCP", taken)
    with pytest.raises(CannotListenError):
        PaxosProtocol(reactor, "a", THREE, RecordingStore()).makeConnection(RecordingTransport())


def test_a_hanging_disk_keeps_no_more_than_it_must() -> None:
    bench = Bench("b")
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
    bench.store.slow = True
    bench.reactor.idle()
    for _ in range(READYS_WAITING_MAX + 1000):
        bench.hear("a", Heartbeat(LOW, 0, 1))
    assert bench.node.counters["dropped while the disk was busy"] >= 1000
    assert bench.node._performer.waiting == READYS_WAITING_MAX + 1
    bench.store.slow = False
    bench.store.finish()
    bench.hear("a", AcceptSlot(LOW, 2, b"", 0))
    bench.reactor.idle()
    assert bench.story()[-1] == "AcceptedSlot>a"


def test_a_slow_disk_leaves_the_processor_alone() -> None:
    """What is to be forwarded rests on nothing, and is gone at once; the timer must not ask again and again."""
    bench = Bench("b")
    bench.hear("a", Heartbeat(LOW, 0, 1))
    bench.reactor.idle()
    bench.store.slow = True
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
    bench.reactor.idle()
    waiting = bench.node.submit(b"x")
    bench.hear("a", Fetch(1))
    bench.reactor.turn(100)
    assert bench.story().count("Forward>a") == 1
    assert bench.node._performer.waiting < 10
    assert len(bench.reactor.getDelayedCalls()) == 1  # the alarm
    bench.store.finish()
    bench.node.stop()
    assert isinstance(error_of(waiting), OutcomeUnknown)
