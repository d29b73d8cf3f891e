"""Save before send: nothing a node says, and nothing it applies, outruns its disk."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
import pytest
from twisted.python.failure import Failure

from test.helpers.fakes import Events, NodeHarness, Reactor, RecordingStore
from txpaxos.clock import WATCH_SECONDS, monotonic_clock
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.messages import (
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
)
from txpaxos.core.ready import Chosen, Envelope, Promised, Ready, Voted
from txpaxos.errors import StoreError
from txpaxos.node.performer import Performer
from txpaxos.wire.commands import Run, encode_batch


def saving(number: int) -> Ready:
    """A Ready that saves something."""
    return Ready(save=(Promised(Ballot(number, "a")),), wake_at=number)


def may_defer(number: int) -> Ready:
    """A Ready that saves something which others may make superfluous."""
    return Ready(save=(Promised(Ballot(number, "a")),), may_defer=True, wake_at=number)


def plain(number: int) -> Ready:
    """A Ready that saves nothing."""
    return Ready(wake_at=number)


class PerformerHarness:
    """A performer without a node. ``done`` is what happened: ``save 1 2``, ``release 1``, ``refill``, ``fail``."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.events: Events = []
        self.store = RecordingStore(self.events)
        self.store.load()
        self.refill: Callable[[], None] = lambda: None
        self.release: Callable[[Ready], None] = lambda ready: None
        self.failures: list[Failure] = []
        self.performer = Performer(monotonic_clock(self.reactor), self.store, self._refill, self._release, self._fail)

    @property
    def done(self) -> list[str]:
        lines = []
        for name, what in self.events:
            numbers = [f"{record.ballot.round}" for record in what] if name == "save" else [f"{what}"]
            lines.append(" ".join([name, *numbers]))
        return lines

    def add(self, *readys: Ready) -> None:
        for ready in readys:
            self.performer.add(ready)

    def _refill(self) -> None:
        self.refill()

    def _release(self, ready: Ready) -> None:
        if ready.wake_at is not None:  # It is None of messages that go ahead.
            self.events.append(("release", int(ready.wake_at)))
        self.release(ready)

    def _fail(self, failure: Failure) -> None:
        self.events.append(("fail", type(failure.value).__name__))
        self.failures.append(failure)


@pytest.fixture
def harness() -> PerformerHarness:
    return PerformerHarness()


# ------------------------------------------------------------------ the order


def test_saved_then_released(harness: PerformerHarness) -> None:
    harness.add(saving(1))
    assert harness.done == []
    harness.reactor.turn()
    assert harness.done == ["save 1", "release 1"]


def test_all_of_one_turn_is_one_save(harness: PerformerHarness) -> None:
    harness.add(saving(1), saving(2), plain(3), saving(4))
    harness.reactor.turn()
    assert harness.done == ["save 1 2 4", "release 1", "release 2", "release 3", "release 4"]


def test_what_waits_for_the_end_is_called_when_all_is_released(harness: PerformerHarness) -> None:
    performer, events = harness.performer, harness.events

    def again() -> None:
        events.append(("end", performer.at_end(lambda: None)))

    def release(ready: Ready) -> None:
        if ready.wake_at in (1, 4):
            assert performer.at_end(again)

    harness.release = release
    assert not performer.at_end(again)
    harness.add(saving(1), plain(2))
    harness.reactor.turn()
    assert harness.done == ["save 1", "release 1", "release 2", "end False"]
    harness.add(Ready(needs_no_prior_save=True, wake_at=4))  # Released at once, outside of any turn.
    assert harness.done[4:] == ["release 4", "end False"]


def test_nothing_is_released_before_the_save_has_ended(harness: PerformerHarness) -> None:
    harness.store.slow = True
    harness.add(saving(1), plain(2))
    harness.reactor.turn(5)
    assert harness.done == ["save 1"]
    assert harness.performer.waiting == 2
    harness.store.finish()
    assert harness.done == ["save 1", "release 1", "release 2"]
    assert harness.performer.waiting == 0


def test_a_save_that_may_wait_lets_the_reactor_look_at_its_sockets_first(harness: PerformerHarness) -> None:
    harness.add(plain(1), may_defer(2))
    harness.reactor.turn()
    assert harness.done == ["release 1"]
    harness.add(may_defer(3))  # It is put off once, whatever comes meanwhile.
    harness.reactor.turn()
    assert harness.done == ["release 1", "save 2 3", "release 2", "release 3"]
    harness.add(may_defer(4))
    harness.reactor.turn()
    assert harness.done[4:] == []
    harness.add(saving(5))
    harness.reactor.turn()
    assert harness.done[4:] == ["save 4 5", "release 4", "release 5"]


def test_a_save_that_must_not_wait_takes_the_others_along(harness: PerformerHarness) -> None:
    harness.add(may_defer(1), saving(2))
    harness.reactor.turn()
    assert harness.done == ["save 1 2", "release 1", "release 2"]


def test_what_needs_no_save_does_not_wait_for_a_later_one(harness: PerformerHarness) -> None:
    harness.store.slow = True
    harness.add(plain(1), plain(2), saving(3), plain(4), saving(5))
    harness.reactor.turn(5)
    assert harness.done == ["release 1", "release 2", "save 3 5"]
    harness.store.finish()
    assert harness.done[3:] == ["release 3", "release 4", "release 5"]


def test_a_save_releases_only_what_it_covered(harness: PerformerHarness) -> None:
    harness.store.slow = True
    harness.add(saving(1))
    harness.reactor.turn()
    harness.add(saving(2), plain(3))
    harness.reactor.turn(5)
    assert harness.done == ["save 1"]
    harness.store.finish()
    assert harness.done == ["save 1", "release 1", "save 2"]
    harness.reactor.turn(5)
    harness.store.finish()
    assert harness.done == ["save 1", "release 1", "save 2", "release 2", "release 3"]


def test_what_saves_nothing_waits_for_the_saves_before_it(harness: PerformerHarness) -> None:
    harness.store.slow = True
    harness.add(saving(1))
    harness.reactor.turn()
    harness.add(plain(2))
    harness.reactor.turn(5)
    assert harness.done == ["save 1"]
    harness.store.finish()
    assert harness.done == ["save 1", "release 1", "release 2"]


def test_what_saves_nothing_does_not_touch_an_idle_disk(harness: PerformerHarness) -> None:
    harness.add(plain(1))
    harness.reactor.turn()
    assert harness.done == ["release 1"]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_adding_turning_and_finishing(seed: int) -> None:
    """Released in the order in which they came, and each only when all saves up to it have ended."""
    rng, harness = Random(seed), PerformerHarness()
    harness.store.slow = True
    added: list[Ready] = []
    finished = 0

    def check(ready: Ready) -> None:
        number = int(ready.wake_at or 0)
        on_disk = {record.ballot.round for save in harness.store.saves[:finished] for record in save}  # type: ignore
        assert {int(one.wake_at or 0) for one in added[:number] if one.save} <= on_disk

    harness.release = check
    for number in range(1, 60):
        ready = rng.choice((saving, plain))(number)
        added.append(ready)
        harness.add(ready)
        if rng.random() < 0.5:
            harness.reactor.turn()
        if finished < len(harness.store.saves) and rng.random() < 0.4:
            finished += 1
            harness.store.finish()
    while harness.performer.waiting:
        harness.reactor.turn()
        if finished < len(harness.store.saves):
            finished += 1
            harness.store.finish()
    assert [number for name, number in harness.events if name == "release"] == list(range(1, 60))
    assert harness.failures == []


# ------------------------------------------------------------------- failures


def test_a_failed_save_is_the_end(harness: PerformerHarness) -> None:
    harness.store.slow = True
    harness.add(saving(1))
    harness.reactor.turn()
    harness.add(saving(2), plain(3))
    harness.store.failing = True
    harness.store.finish()
    assert harness.done == ["save 1", "fail StoreError"]
    harness.store.failing = False
    harness.add(saving(4), plain(5))
    harness.performer.schedule()
    harness.reactor.turn(5)
    assert harness.done == ["save 1", "fail StoreError"]
    assert isinstance(harness.failures[0].value, StoreError)


def test_a_save_that_fails_on_the_spot_is_the_end(harness: PerformerHarness) -> None:
    harness.store.failing = True
    harness.add(saving(1), plain(2))
    harness.reactor.turn(5)
    assert harness.done == ["save 1", "fail StoreError"]


def test_a_save_that_raises_is_the_end(harness: PerformerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.store, "save", lambda records: [][0])
    harness.add(saving(1), plain(2))
    harness.reactor.turn(5)
    assert harness.done == ["fail IndexError"]


@pytest.mark.parametrize("slow", [False, True])
def test_an_error_while_releasing_is_the_end(harness: PerformerHarness, slow: bool) -> None:
    def release(ready: Ready) -> None:
        assert ready.wake_at != 2, "broken"

    harness.store.slow, harness.release = slow, release
    harness.add(saving(1), saving(2), saving(3))
    harness.reactor.turn()
    if slow:
        harness.store.finish()
    harness.add(saving(4))
    harness.reactor.turn(5)
    assert harness.done == ["save 1 2 3", "release 1", "release 2", "fail AssertionError"]


def test_an_error_while_refilling_is_the_end(harness: PerformerHarness) -> None:
    harness.refill = lambda: [][0]
    harness.add(saving(1))
    harness.reactor.turn(5)
    assert harness.done == ["fail IndexError"]


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_comes_of_a_save_after_stop(harness: PerformerHarness, failing: bool) -> None:
    harness.store.slow = True
    harness.add(saving(1))
    harness.reactor.turn()
    harness.add(plain(2))
    harness.performer.stop()
    harness.store.failing = failing
    harness.store.finish()
    harness.add(plain(3))
    harness.reactor.turn(5)
    assert harness.done == ["save 1"]


def test_stop_before_the_turn(harness: PerformerHarness) -> None:
    harness.add(saving(1))
    harness.performer.stop()
    harness.performer.stop()
    harness.reactor.turn(5)
    assert harness.done == []
    assert harness.reactor.getDelayedCalls() == []


def test_stop_while_releasing(harness: PerformerHarness) -> None:
    harness.release = lambda ready: harness.performer.stop()
    harness.add(saving(1), saving(2))
    harness.reactor.turn(5)
    assert harness.done == ["save 1 2", "release 1"]


# ---------------------------------------------------------------- re-entrancy


def test_what_comes_up_while_releasing_comes_after(harness: PerformerHarness) -> None:
    """As votes to oneself do: not in the middle, but in the same turn."""

    def release(ready: Ready) -> None:
        if ready.wake_at == 1:
            harness.add(saving(3), plain(4))

    harness.release = release
    harness.add(saving(1), plain(2))
    harness.reactor.turn()
    assert harness.done == ["save 1", "release 1", "release 2", "save 3", "release 3", "release 4"]
    assert harness.reactor.getDelayedCalls() == []


def test_refill_is_asked_when_something_was_done_and_during_a_save(harness: PerformerHarness) -> None:
    harness.refill = lambda: harness.events.append(("refill", harness.performer.waiting))
    harness.store.slow = True
    harness.add(saving(1))
    harness.reactor.turn()
    assert harness.done == ["refill 1", "save 1", "refill 1"]
    harness.performer.schedule()
    harness.reactor.turn(5)
    assert harness.done[3:] == ["refill 1"]
    harness.store.finish()
    assert harness.done[4:] == ["release 1", "refill 0"]


def test_what_refill_adds_is_saved_with_the_rest(harness: PerformerHarness) -> None:
    more = [saving(3), saving(2)]

    def refill() -> None:
        if more:
            harness.add(more.pop())

    harness.refill = refill
    harness.add(saving(1))
    harness.reactor.turn()
    assert harness.done == ["save 1 2", "release 1", "release 2", "save 3", "release 3"]


def test_the_reactor_gets_its_turn_however_much_comes_up(harness: PerformerHarness) -> None:
    """A caller that submits again at each answer must not keep a single node from its sockets and signals."""
    harness.release = lambda ready: harness.add(saving(int(ready.wake_at or 0) + 1))
    harness.add(saving(1))
    harness.reactor.callLater(0, harness.events.append, ("reactor", ""))
    harness.reactor.turn()
    released = harness.done.count("release 1") + sum(line.startswith("release") for line in harness.done)
    assert 1 < released < 1000
    harness.reactor.turn()
    assert sum(line.startswith("release") for line in harness.done) > released  # it goes on, in the next turn


def applying(number: int, saves: bool = False) -> Ready:
    """A Ready with a value to apply, which takes 15 ms in the tests below."""
    save = (Promised(Ballot(number, "a")),) if saves else ()
    return Ready(save=save, chosen=(Chosen(number, b""),), needs_no_prior_save=not saves, wake_at=number)


def slow_harness() -> PerformerHarness:
    harness = PerformerHarness()

    def release(ready: Ready) -> None:
        if ready.chosen:
            harness.reactor.rightNow += 0.015

    harness.release = release
    return harness


def test_the_reactor_gets_its_turn_when_values_take_long_to_apply() -> None:
    harness = slow_harness()
    harness.add(*(applying(number, saves=True) for number in range(1, 6)), saving(6))
    released = []
    for _ in range(4):
        harness.reactor.turn()
        released.append(len(harness.done) - 1)
        harness.add(Ready(needs_no_prior_save=True, wake_at=9))  # A heartbeat goes at once.
        assert harness.done.pop() == "release 9"
        harness.events.pop()
    assert released == [3, 5, 6, 6]
    assert harness.done == ["save 1 2 3 4 5 6", *(f"release {number}" for number in (1, 2, 6, 3, 4, 5))]


def test_values_that_need_no_save_leave_the_reactor_its_turn_too() -> None:
    harness = slow_harness()
    harness.add(*(applying(number) for number in range(1, 6)))
    assert harness.done == ["release 1", "release 2"], "the others wait for the next turns"
    harness.reactor.turn()
    assert harness.done[2:] == ["release 3", "release 4"]
    harness.add(applying(6))
    harness.reactor.turn()
    assert harness.done[4:] == ["release 5", "release 6"]


def test_a_save_that_ends_between_turns_is_released_in_order() -> None:
    harness = slow_harness()
    harness.store.slow = True
    harness.add(*(applying(number, saves=True) for number in range(1, 4)))
    harness.reactor.turn()
    harness.store.finish()
    assert harness.done == ["save 1 2 3", "release 1", "release 2"]
    harness.add(saving(4), applying(5))
    harness.reactor.turn()
    harness.store.finish()
    harness.reactor.turn(3)
    assert harness.done[3:] == ["release 3", "save 4", "release 4", "release 5"]


def test_rounds_of_values_that_take_long_end_with_the_turn() -> None:
    harness = slow_harness()
    numbers = iter(range(1, 7))
    harness.refill = lambda: harness.add(*(applying(number, saves=True) for number in [next(numbers, 0)] if number))
    harness.performer.schedule()
    harness.reactor.turn()
    applied = [what for what in harness.done if what.startswith("release")]
    assert applied == ["release 1", "release 2"]
    assert harness.performer.is_behind
    harness.reactor.turn(5)
    assert [what for what in harness.done if what.startswith("release")] == [f"release {one}" for one in range(1, 7)]
    assert not harness.performer.is_behind


def test_messages_do_not_wait_for_values_that_take_long_to_apply() -> None:
    """Votes and answers to heartbeats: else a leader would take followers that apply for dead ones."""
    harness = slow_harness()
    harness.add(*(applying(number, saves=True) for number in range(1, 4)))
    sent: list[object] = []
    slow = harness.release

    def release(ready: Ready) -> None:
        sent.extend(envelope.message for envelope in ready.send)
        slow(ready)

    harness.release = release
    votes = [AcceptedSlot(Ballot(1, "a"), slot) for slot in (4, 5)]
    for vote in votes:
        harness.add(attrs.evolve(applying(vote.slot, saves=True), send=(Envelope(("b",), vote),)))
    harness.reactor.turn()
    assert sent == votes
    assert harness.done[-1] == "release 2"
    harness.reactor.turn(5)
    assert sent == votes
    assert harness.done[-3:] == ["release 3", "release 4", "release 5"]


def test_what_is_left_of_a_ready_is_released_first() -> None:
    harness = PerformerHarness()
    release_one = harness.performer._release

    def release(ready: Ready) -> Ready | None:
        release_one(ready)
        harness.reactor.rightNow += 0.03
        return attrs.evolve(ready, chosen=ready.chosen[1:]) if len(ready.chosen) > 1 else None

    harness.performer._release = release
    harness.add(attrs.evolve(applying(1, saves=True), chosen=(Chosen(1, b""), Chosen(2, b""))), applying(3, saves=True))
    for _ in range(4):
        harness.reactor.turn()
    assert harness.done == ["save 1 3", "release 1", "release 1", "release 3"]


def test_a_turn_is_not_lost_when_the_clock_steps_back(harness: PerformerHarness) -> None:
    harness.add(plain(1))
    harness.reactor.step(-3600.0)
    harness.reactor.turn()
    assert harness.done == []
    harness.reactor.spend(2 * WATCH_SECONDS)
    assert harness.done == ["release 1"]


# --------------------------------------------------- a whole node on slow disk

LOW, HIGH = Ballot(1, "a"), Ballot(2, "c")


@pytest.fixture
def node_harness() -> NodeHarness:
    node_harness = NodeHarness("b")
    node_harness.reactor.idle()
    node_harness.forget()
    node_harness.store.slow = True
    return node_harness


def test_a_node_saves_before_it_sends(node_harness: NodeHarness) -> None:
    node_harness.store.slow = False
    node_harness.hear("a", PrepareLog(LOW, 1))
    node_harness.reactor.turn()
    node_harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
    node_harness.reactor.turn()
    assert node_harness.story() == ["save(Promised)", "PromiseLog>a", "save(Voted)", "AcceptedSlot>a"]


def test_a_repeated_prepare_is_not_answered_before_its_save(node_harness: NodeHarness) -> None:
    for _ in range(3):
        node_harness.hear("a", PrepareLog(LOW, 1))
        node_harness.reactor.turn()
    assert node_harness.story() == ["save(Promised)"]
    node_harness.store.finish()
    assert node_harness.story() == ["save(Promised)", "PromiseLog>a", "PromiseLog>a", "PromiseLog>a"]


def test_a_repeated_accept_is_not_answered_before_its_save(node_harness: NodeHarness) -> None:
    for _ in range(3):
        node_harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
        node_harness.reactor.turn()
    assert node_harness.story() == ["save(Voted)"]
    node_harness.store.finish()
    assert node_harness.story() == ["save(Voted)", "AcceptedSlot>a", "AcceptedSlot>a", "AcceptedSlot>a"]


def test_a_finished_save_answers_only_what_it_covered(node_harness: NodeHarness) -> None:
    """A vote that came during the save of a promise waits for a save of its own."""
    node_harness.hear("a", PrepareLog(LOW, 1))
    node_harness.reactor.turn()
    node_harness.hear("a", AcceptSlot(LOW, 1, b"", 0), AcceptSlot(LOW, 2, b"", 0))
    node_harness.reactor.turn()
    node_harness.store.finish()
    assert node_harness.story() == ["save(Promised)", "PromiseLog>a", "save(Voted, Voted)"]
    node_harness.store.finish()
    assert node_harness.story()[3:] == ["AcceptedSlot>a", "AcceptedSlot>a"]


def test_a_refusal_waits_for_the_promise_it_tells_of(node_harness: NodeHarness) -> None:
    """A Nack saves nothing, but it tells of a promise that is not on disk yet."""
    node_harness.hear("c", PrepareLog(HIGH, 1))
    node_harness.reactor.turn()
    node_harness.hear("a", PrepareLog(LOW, 1))
    node_harness.reactor.turn(5)
    assert node_harness.story() == ["save(Promised)"]
    node_harness.store.finish()
    assert node_harness.story() == ["save(Promised)", "PromiseLog>c", "Nack>a"]


def test_a_promise_tells_only_of_what_is_on_disk(node_harness: NodeHarness) -> None:
    one = encode_batch([Run(b"session!", 1, 0, (b"one",))])
    node_harness.hear("a", AcceptSlot(LOW, 1, one, 0))
    node_harness.reactor.turn()
    node_harness.hear("c", PrepareLog(HIGH, 1))
    node_harness.reactor.turn()
    node_harness.store.finish()
    assert node_harness.said() == [("a", AcceptedSlot(LOW, 1))]
    node_harness.store.finish()
    to, promise = node_harness.said()[1]
    assert (to, isinstance(promise, PromiseLog) and promise.votes) == ("c", ((1, LOW, one),))


def test_datagrams_of_one_turn_share_a_save(node_harness: NodeHarness) -> None:
    node_harness.hear("a", *[AcceptSlot(LOW, slot, b"", 0) for slot in range(1, 21)])
    node_harness.reactor.turn()
    assert [len(records) for records in node_harness.store.saves] == [20]
    assert all(isinstance(record, Voted) for record in node_harness.store.saves[0])
    node_harness.store.finish()
    assert [message for _, message in node_harness.said()] == [AcceptedSlot(LOW, slot) for slot in range(1, 21)]


def test_a_candidate_saves_its_ballot_before_it_asks(node_harness: NodeHarness) -> None:
    node_harness.reactor.spend(5.0, lambda: node_harness.events)
    _, pre_vote = node_harness.said()[-1]
    assert isinstance(pre_vote, PreVote)
    node_harness.forget()
    node_harness.hear("a", PreVoteGranted(pre_vote.sequence))
    node_harness.reactor.spend(5.0)
    assert node_harness.story() == ["save(Promised)"]
    node_harness.store.finish()
    assert set(node_harness.story()[1:3]) == {"PrepareLog>a", "PrepareLog>c"}


def test_a_failed_save_silences_the_node(node_harness: NodeHarness) -> None:
    waiting = node_harness.node.submit(b"x")
    node_harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
    node_harness.reactor.turn()
    node_harness.store.failing = True
    node_harness.store.finish()
    assert [type(failure.value) for failure in node_harness.failures] == [StoreError]
    waiting.addErrback(lambda _: None)
    node_harness.store.failing = False
    node_harness.hear("a", AcceptSlot(LOW, 1, b"", 0), PrepareLog(Ballot(9, "a"), 1))
    node_harness.reactor.spend(10.0)
    assert node_harness.story() == ["Forward>a", "save(Voted)"]
    assert node_harness.store.closes == 1


def test_an_error_in_the_core_silences_the_node(
    node_harness: NodeHarness, logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invariant that does not hold: the node must not go on voting."""
    node_harness.store.slow = False

    def broken(*_: object) -> None:
        raise BrokenInvariant("another value is chosen", 1)

    monkeypatch.setattr(node_harness.node._replica.log, "accept", broken)
    node_harness.hear("a", AcceptSlot(LOW, 1, b"", 0))
    assert [type(failure.value) for failure in node_harness.failures] == [BrokenInvariant]
    node_harness.hear("a", AcceptSlot(LOW, 2, b"", 0))
    node_harness.reactor.spend(10.0)
    assert node_harness.story() == []
    logged_errors.clear()
