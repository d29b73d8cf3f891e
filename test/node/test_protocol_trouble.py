"""One node in trouble: bytes from strangers, a disk that fails or hangs, invariants that do not hold."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
from twisted.internet.error import CannotListenError

from test.helpers.fakes import (
    ONE,
    THREE,
    NodeHarness,
    Reactor,
    Recorder,
    RecordingStore,
    RecordingTransport,
    alone,
    error_of,
    logged,
    node_of,
    outcome_of,
    submit,
)
from test.helpers.fuzz import INPUTS, nothing_kept
from test.helpers.wire_samples import spoil
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.messages import AcceptSlot, Ballot, Fetch, Heartbeat, PrepareLog, Slot
from txpaxos.errors import ApplicationLost, NodeStopped, OutcomeUnknown, QueryFailed, StoreError
from txpaxos.node.counts import Count
from txpaxos.node.node import READYS_WAITING_MAX
from txpaxos.protocol import PaxosProtocol
from txpaxos.wire.codec import Codec
from txpaxos.wire.peer_messages import Refusal

LOW = Ballot(1, "a")

# ------------------------------------------------------------------- strangers


@pytest.mark.fuzz
def test_bytes_from_strangers_change_nothing() -> None:
    """Datagrams, random or nearly right: nothing is saved or kept, all are counted. A node of another cluster is told
    once that it is one, and nothing else is sent."""
    harness = NodeHarness("b")
    harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
    harness.reactor.idle()
    before, timers = harness.node.status(), len(harness.reactor.getDelayedCalls())
    harness.forget()
    rng, high = Random(8), Ballot(99, "a")
    prepare = PrepareLog(high, 1)
    near: list[tuple[bytes, tuple[str, int]]] = [
        (Codec("other", "a", members="abc").encode(prepare), ("10.0.0.1", 4000)),
        (Codec("test", "a", members="abc").encode(prepare), ("10.0.0.9", 4000)),
        (Codec("test", "a", members="abc").encode(prepare), ("10.0.0.1", 4001)),
        (Codec("test", "a", members="abc").encode(prepare), ("10.0.0.3", 4000)),
        (Codec("test", "d", members="abc").encode(prepare), ("10.0.0.1", 4000)),
        (Codec("test", "b", members="abc").encode(prepare), ("10.0.0.2", 4000)),
    ]
    good = Codec("test", "a", members="abc").encode(prepare)

    def bombard() -> None:
        for _ in range(INPUTS):
            data, address = rng.choice(near)
            match rng.randrange(3):
                case 0:
                    data = rng.randbytes(rng.randint(0, 1500))
                case 1:
                    data, address = spoil(rng, good), ("10.0.0.1", 4000)
            if data != good or address != ("10.0.0.1", 4000):
                harness.node.datagram_received(data, address)

    with nothing_kept():
        bombard()
    harness.reactor.idle()
    after = harness.node.status()
    assert after.replica == before.replica
    assert after.applied_through == before.applied_through
    assert set(after.counters) == {"bad_datagram", "datagram_from_an_unknown_address"}
    assert sum(after.counters.values()) > 0.9 * INPUTS
    ((what, (data, address)),) = harness.events
    assert (what, address) == ("send", ("10.0.0.1", 4000)), "once, though it has sent many"
    assert isinstance(Codec("test", "a", members="abc").decode(data).message, Refusal)
    assert len(harness.reactor.getDelayedCalls()) == timers


def test_a_peer_that_lost_its_memory_is_not_heard() -> None:
    """It might promise again what it had promised to another. Nor is it after a restart of this node."""
    harness = NodeHarness("b", saved=[])
    harness.node._known_peers.remember("a", 5)
    harness.hear("a", PrepareLog(LOW, 1), incarnation=5)
    harness.reactor.idle()
    story = [line for line in harness.story() if not line.startswith("Introduction")]
    assert story == ["save(PeerMet)"], "what it says before that is on disk counts for nothing"
    harness.forget()
    harness.hear("a", PrepareLog(LOW, 1), incarnation=5)
    harness.reactor.idle()
    assert harness.story() == ["save(Promised)", "PromiseLog>a"]
    for node in (harness, NodeHarness("b", saved=harness.store.saved)):
        node.forget()
        again = [PrepareLog(Ballot(9, "a"), 1)] * 3
        (event,) = logged(partial(node.hear, "a", *again, incarnation=6))
        assert event["peer"] == "a"
        node.reactor.idle()
        assert {line.split(">")[0] for line in node.story()} <= {"Introduction"}  # It is told so, and nothing else.
        assert node.node.counters[Count.PEER_WITH_ANOTHER_FOLDER] == 3
        node.forget()
        node.hear("a", PrepareLog(LOW, 1), incarnation=5)
        node.reactor.idle()
        assert node.story() == ["PromiseLog>a"]


# -------------------------------------------------------------------- failures


def test_a_failed_disk_is_told_once_and_in_one_line() -> None:
    harness = alone()
    harness.store.failing = True
    waiting = [outcome_of(harness.node.submit(b"x")), outcome_of(harness.node.ask("king", b"Arthur"))]
    (event,) = logged(harness.reactor.idle)
    assert event["reason"] == "this store was told to fail; start the node again"
    assert event.get("log_failure") is None  # no traceback: the line says what to do about it
    (failure,) = harness.failures
    assert failure.check(StoreError)
    assert all(outcome[0].check(OutcomeUnknown) for outcome in waiting)
    assert logged(lambda: harness.reactor.spend(10.0)) == []
    assert harness.reactor.getDelayedCalls() == []


def test_a_broken_invariant_is_told_with_its_traceback(
    logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = NodeHarness("b")

    def broken(*_: object) -> None:
        raise BrokenInvariant("another value is chosen", 1)

    def two_values_are_chosen() -> None:
        monkeypatch.setattr(harness.node._replica.log, "accept", broken)
        harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
        harness.reactor.idle()

    (event,) = logged(two_values_are_chosen)
    assert event["log_failure"].check(BrokenInvariant)
    assert harness.failures[0].check(BrokenInvariant)
    assert harness.said() == []
    logged_errors.clear()


def test_an_error_in_the_timer_is_the_end(logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    harness = NodeHarness("b")
    monkeypatch.setattr(harness.node._replica, "tick", lambda now: [][0])
    harness.reactor.spend(10.0)
    assert harness.failures[0].check(IndexError)
    assert harness.reactor.getDelayedCalls() == []
    logged_errors.clear()


def test_a_closed_port_is_the_end(logged_errors: list[dict[str, Any]]) -> None:
    harness = alone()
    harness.node.port_closed()
    (failure,) = harness.failures
    assert "datagram port was closed" in failure.getErrorMessage()
    assert harness.store.closes == 1
    logged_errors.clear()


def test_a_port_that_is_closed_after_stop_is_no_failure() -> None:
    harness = alone()
    harness.node.stop()
    harness.node.port_closed()
    assert harness.failures == []


def test_a_store_that_cannot_be_read_stops_the_start() -> None:
    store = RecordingStore()
    store.load()
    with pytest.raises(StoreError, match="loaded once"):
        node_of(PaxosProtocol(), Reactor(), "a", ONE, store)


def test_an_address_that_is_taken_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*args: Any) -> None:
        raise CannotListenError("10.0.0.1", 4000, OSError("in use"))

    reactor = Reactor()
    monkeypatch.setattr(reactor, "listenTCP", taken)
    with pytest.raises(CannotListenError):
        node_of(PaxosProtocol(), reactor, "a", THREE, RecordingStore()).start(RecordingTransport())


def not_started() -> Any:
    """A node that has no port yet."""
    reactor = Reactor()
    return node_of(Recorder(), reactor, "a", ONE, RecordingStore(), rng=Random(1)), reactor


def test_what_is_called_before_the_start_waits_for_it() -> None:
    node, reactor = not_started()
    outcomes = [
        outcome_of(one)
        for one in (node.submit(b"x"), node.ask("king", b"Arthur"), node.read(b"q"), node.read(b"q", "local"))
    ]
    node.ask("cancelled", b"x").addErrback(lambda _: None).cancel()
    assert node.status().replica.role == "newcomer"
    assert node.leader is None
    reactor.spend(1.0)
    assert outcomes == [[]] * 4
    node.start(RecordingTransport())
    reactor.spend(1.0)
    assert outcomes[:2] == [["x@1"], [b"Arthur"]]
    assert all(outcome[0].check(QueryFailed) for outcome in outcomes[2:])  # It has no query hook, and says so.
    assert node.status().replica.role == "leader"
    assert outcome_of(node.ask("cancelled")) != [b"x"]
    node.stop()


def test_what_is_called_before_a_start_that_never_comes_is_told() -> None:
    node, _ = not_started()
    outcomes = [outcome_of(one) for one in (node.submit(b"x"), node.ask("king", b"Arthur"), node.read(b"q"))]
    node.stop()
    outcomes += [outcome_of(one) for one in (node.submit(b"x"), node.ask("king", b"Arthur"), node.read(b"q"))]
    assert all(outcome[0].check(NodeStopped) for outcome in outcomes)
    assert node.status().replica.role == "newcomer"


def test_a_service_without_a_node_says_so() -> None:
    """All calls alike."""
    service = Recorder()
    for answer in (service.submit(b"x"), service.ask("king", b"Arthur"), service.read(b"q")):
        error = error_of(answer)
        assert isinstance(error, NodeStopped)
        assert str(error) == "Recorder runs on no node yet: give it to a PaxosService, and start that"
    for call in (service.status, service.startProtocol, lambda: service.watch_leader(print), lambda: service.clock):
        with pytest.raises(NodeStopped, match="Recorder runs on no node yet"):
            call()
    assert (service.leader, service.applied_through) == (None, 0)
    assert outcome_of(service.stop()) == [None]
    service.stopProtocol()
    service.datagramReceived(b"x", ("10.0.0.1", 1))
    assert service.apply(1, b"x") == "x@1"


def test_a_service_on_a_node_asks_it() -> None:
    harness = alone()
    service: Recorder = harness.application
    answers = [outcome_of(one) for one in (service.submit(b"x"), service.ask("king", b"Arthur"))]
    harness.reactor.idle()
    assert answers == [["x@1"], [b"Arthur"]]
    assert (service.leader, service.applied_through) == ("a", service.status().applied_through)
    reading = outcome_of(service.read(b"q"))
    harness.reactor.idle()
    assert reading[0].check(QueryFailed)  # type: ignore[union-attr]
    assert service.clock.seconds() == harness.reactor.monotonic()
    assert outcome_of(service.stop()) == [None]
    assert isinstance(error_of(service.submit(b"x")), NodeStopped)


def test_a_service_can_be_listened_with(logged_errors: list[dict[str, Any]]) -> None:
    """It is a DatagramProtocol, as its name says."""
    reactor, service = Reactor(), Recorder()
    node = node_of(service, reactor, "a", ONE, RecordingStore(), rng=Random(1))
    failures: list[Any] = []
    node.failed.addErrback(failures.append)
    service.makeConnection(RecordingTransport())
    reactor.spend(1.0)
    assert service.leader == "a"
    service.datagramReceived(b"rubbish", ("10.0.0.9", 1))
    assert node.counters == {Count.BAD_DATAGRAM: 1}
    service.doStop()
    assert "the datagram port was closed" in str(failures[0].value)
    assert logged_errors
    logged_errors.clear()


@pytest.mark.parametrize("error", [KeyError("no such room"), SystemExit(3)])
def test_a_watcher_of_the_leader_that_raises_stops_nothing(
    error: BaseException, logged_errors: list[dict[str, Any]]
) -> None:
    """All nodes see the same change, so it would end all of them."""
    harness = NodeHarness("b")
    seen: list[str | None] = []

    def watcher() -> None:
        seen.append(harness.node.leader)
        raise error

    harness.node.watch_leader(watcher)
    harness.node.watch_leader(lambda: seen.append("the next watcher"))
    harness.hear("a", Heartbeat(LOW, 0, 1))
    harness.reactor.idle()
    assert seen == ["a", "the next watcher"]
    assert harness.failures == []
    (event,) = logged_errors
    assert event["hook"] == "watcher"
    logged_errors.clear()


@pytest.mark.parametrize("part", ["_timer", "_performer", "_peers", "_snapshots", "_session", "_reads"])
def test_a_node_that_cannot_stop_in_order_gives_up_all_the_same(
    part: str, monkeypatch: pytest.MonkeyPatch, logged_errors: list[dict[str, Any]]
) -> None:
    """No process stays behind that says it gave up and runs on."""
    harness = alone()
    waiting = outcome_of(harness.node.ask("other", None)) if part != "_session" else []

    def fail(*_: object) -> None:
        raise KeyError("a part that cannot stop")

    name = {"_timer": "cancel", "_session": "close", "_reads": "close"}.get(part, "stop")
    monkeypatch.setattr(getattr(harness.node, part), name, fail)
    harness.node.port_closed()
    assert len(harness.failures) == 1
    assert harness.store.closes == 1
    assert waiting != [[]]
    assert any("cannot stop a part" in event["log_format"] for event in logged_errors)
    logged_errors.clear()


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_a_process_that_cannot_apply_stops_and_applies_again_when_it_starts(error: BaseException) -> None:
    class Fails(Recorder):
        def apply(self, slot: Slot, command: bytes) -> object:
            if command == b"fails" and harness.application is self:
                raise error
            return super().apply(slot, command)

    harness = alone(application=Fails)
    assert submit(harness, b"x") == ["x@1"]
    harness.node.submit(b"fails").addErrback(lambda _: None)
    (event,) = logged(harness.reactor.idle)
    assert "start the node again" in event["reason"]
    assert event.get("log_failure") is None
    assert harness.failures[0].check(ApplicationLost)
    again = NodeHarness("a", ONE, saved=harness.store.saved)
    again.reactor.idle()
    assert [command for _, command in again.node.application.applied] == [b"x", b"fails"]
    again.node.stop()


def test_a_hanging_disk_keeps_no_more_than_it_must() -> None:
    harness = NodeHarness("b")
    harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
    harness.store.slow = True
    harness.reactor.idle()
    for _ in range(READYS_WAITING_MAX + 1000):
        harness.hear("a", Heartbeat(LOW, 0, 1))
    assert harness.node.counters[Count.DROPPED_WHILE_DISK_BUSY] >= 1000
    assert harness.node._performer.waiting == READYS_WAITING_MAX + 1
    harness.store.slow = False
    harness.store.finish()
    harness.hear("a", AcceptSlot(LOW, 2, b"", 0))
    harness.reactor.idle()
    assert harness.story()[-1] == "AcceptedSlot>a"


def test_a_slow_disk_leaves_the_processor_alone() -> None:
    """What is to be forwarded rests on nothing, and is gone at once; the timer must not ask again and again."""
    harness = NodeHarness("b")
    harness.hear("a", Heartbeat(LOW, 0, 1))
    harness.reactor.idle()
    harness.store.slow = True
    harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
    harness.reactor.idle()
    waiting = harness.node.submit(b"x")
    harness.hear("a", Fetch(1))
    harness.reactor.turn(100)
    assert harness.story().count("Forward>a") == 1
    assert harness.node._performer.waiting < 10
    assert len(harness.reactor.getDelayedCalls()) == 1  # the timer
    harness.store.finish()
    harness.node.stop()
    assert isinstance(error_of(waiting), OutcomeUnknown)
