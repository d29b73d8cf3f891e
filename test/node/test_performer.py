"""Save before send: nothing a node says, and nothing it applies, outruns its disk."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from twisted.python.failure import Failure

from test.helpers.fakes import Bench, Events, Reactor, RecordingStore
from txpaxos.clock import WATCH_SECONDS, monotonic_clock
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.messages import (
    AboutSubject,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    Prepare,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
)
from txpaxos.core.ready import Promised, Ready, Voted
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


class Bare:
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
        assert ready.wake_at is not None
        self.events.append(("release", int(ready.wake_at)))
        self.release(ready)

    def _fail(self, failure: Failure) -> None:
        self.events.append(("fail", type(failure.value).__name__))
        self.failures.append(failure)


@pytest.fixture
def bare() -> Bare:
    return Bare()


# ------------------------------------------------------------------ the order


def test_saved_then_released(bare: Bare) -> None:
    bare.add(saving(1))
    assert bare.done == []
    bare.reactor.turn()
    assert bare.done == ["save 1", "release 1"]


def test_all_of_one_turn_is_one_save(bare: Bare) -> None:
    bare.add(saving(1), saving(2), plain(3), saving(4))
    bare.reactor.turn()
    assert bare.done == ["save 1 2 4", "release 1", "release 2", "release 3", "release 4"]


def test_nothing_is_released_before_the_save_has_ended(bare: Bare) -> None:
    bare.store.slow = True
    bare.add(saving(1), plain(2))
    bare.reactor.turn(5)
    assert bare.done == ["save 1"]
    assert bare.performer.waiting == 2
    bare.store.finish()
    assert bare.done == ["save 1", "release 1", "release 2"]
    assert bare.performer.waiting == 0


def test_a_save_nobody_is_in_a_hurry_for_lets_the_reactor_look_at_its_sockets_first(bare: Bare) -> None:
    bare.add(plain(1), may_defer(2))
    bare.reactor.turn()
    assert bare.done == ["release 1"]
    bare.add(may_defer(3))  # It is put off once, whatever comes meanwhile.
    bare.reactor.turn()
    assert bare.done == ["release 1", "save 2 3", "release 2", "release 3"]
    bare.add(may_defer(4))
    bare.reactor.turn()
    assert bare.done[4:] == []
    bare.add(saving(5))
    bare.reactor.turn()
    assert bare.done[4:] == ["save 4 5", "release 4", "release 5"]


def test_a_save_somebody_waits_for_takes_the_others_along(bare: Bare) -> None:
    bare.add(may_defer(1), saving(2))
    bare.reactor.turn()
    assert bare.done == ["save 1 2", "release 1", "release 2"]


def test_what_needs_no_save_does_not_wait_for_a_later_one(bare: Bare) -> None:
    bare.store.slow = True
    bare.add(plain(1), plain(2), saving(3), plain(4), saving(5))
    bare.reactor.turn(5)
    assert bare.done == ["release 1", "release 2", "save 3 5"]
    bare.store.finish()
    assert bare.done[3:] == ["release 3", "release 4", "release 5"]


def test_a_save_releases_only_what_it_covered(bare: Bare) -> None:
    bare.store.slow = True
    bare.add(saving(1))
    bare.reactor.turn()
    bare.add(saving(2), plain(3))
    bare.reactor.turn(5)
    assert bare.done == ["save 1"]
    bare.store.finish()
    assert bare.done == ["save 1", "release 1", "save 2"]
    bare.reactor.turn(5)
    bare.store.finish()
    assert bare.done == ["save 1", "release 1", "save 2", "release 2", "release 3"]


def test_what_saves_nothing_waits_for_the_saves_before_it(bare: Bare) -> None:
    bare.store.slow = True
    bare.add(saving(1))
    bare.reactor.turn()
    bare.add(plain(2))
    bare.reactor.turn(5)
    assert bare.done == ["save 1"]
    bare.store.finish()
    assert bare.done == ["save 1", "release 1", "release 2"]


def test_what_saves_nothing_does_not_touch_an_idle_disk(bare: Bare) -> None:
    bare.add(plain(1))
    bare.reactor.turn()
    assert bare.done == ["release 1"]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_adding_turning_and_finishing(seed: int) -> None:
    """Released in the order in which they came, and each only when all saves up to it have ended."""
    rng, bare = Random(seed), Bare()
    bare.store.slow = True
    added: list[Ready] = []
    finished = 0

    def check(ready: Ready) -> None:
        number = int(ready.wake_at or 0)
        on_disk = {record.ballot.round for save in bare.store.saves[:finished] for record in save}  # type: ignore
        assert {int(one.wake_at or 0) for one in added[:number] if one.save} <= on_disk

    bare.release = check
    for number in range(1, 60):
        ready = rng.choice((saving, plain))(number)
        added.append(ready)
        bare.add(ready)
        if rng.random() < 0.5:
            bare.reactor.turn()
        if finished < len(bare.store.saves) and rng.random() < 0.4:
            finished += 1
            bare.store.finish()
    while bare.performer.waiting:
        bare.reactor.turn()
        if finished < len(bare.store.saves):
            finished += 1
            bare.store.finish()
    assert [number for name, number in bare.events if name == "release"] == list(range(1, 60))
    assert bare.failures == []


# ------------------------------------------------------------------- failures


def test_a_failed_save_is_the_end(bare: Bare) -> None:
    bare.store.slow = True
    bare.add(saving(1))
    bare.reactor.turn()
    bare.add(saving(2), plain(3))
    bare.store.failing = True
    bare.store.finish()
    assert bare.done == ["save 1", "fail StoreError"]
    bare.store.failing = False
    bare.add(saving(4), plain(5))
    bare.performer.schedule()
    bare.reactor.turn(5)
    assert bare.done == ["save 1", "fail StoreError"]
    assert isinstance(bare.failures[0].value, StoreError)


def test_a_save_that_fails_on_the_spot_is_the_end(bare: Bare) -> None:
    bare.store.failing = True
    bare.add(saving(1), plain(2))
    bare.reactor.turn(5)
    assert bare.done == ["save 1", "fail StoreError"]


def test_a_save_that_raises_is_the_end(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare.store, "save", lambda records: [][0])
    bare.add(saving(1), plain(2))
    bare.reactor.turn(5)
    assert bare.done == ["fail IndexError"]


@pytest.mark.parametrize("slow", [False, True])
def test_an_error_while_releasing_is_the_end(bare: Bare, slow: bool) -> None:
    def release(ready: Ready) -> None:
        assert ready.wake_at != 2, "broken"

    bare.store.slow, bare.release = slow, release
    bare.add(saving(1), saving(2), saving(3))
    bare.reactor.turn()
    if slow:
        bare.store.finish()
    bare.add(saving(4))
    bare.reactor.turn(5)
    assert bare.done == ["save 1 2 3", "release 1", "release 2", "fail AssertionError"]


def test_an_error_while_refilling_is_the_end(bare: Bare) -> None:
    bare.refill = lambda: [][0]
    bare.add(saving(1))
    bare.reactor.turn(5)
    assert bare.done == ["fail IndexError"]


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_comes_of_a_save_after_stop(bare: Bare, failing: bool) -> None:
    bare.store.slow = True
    bare.add(saving(1))
    bare.reactor.turn()
    bare.add(plain(2))
    bare.performer.stop()
    bare.store.failing = failing
    bare.store.finish()
    bare.add(plain(3))
    bare.reactor.turn(5)
    assert bare.done == ["save 1"]


def test_stop_before_the_turn(bare: Bare) -> None:
    bare.add(saving(1))
    bare.performer.stop()
    bare.performer.stop()
    bare.reactor.turn(5)
    assert bare.done == []
    assert bare.reactor.getDelayedCalls() == []


def test_stop_while_releasing(bare: Bare) -> None:
    bare.release = lambda ready: bare.performer.stop()
    bare.add(saving(1), saving(2))
    bare.reactor.turn(5)
    assert bare.done == ["save 1 2", "release 1"]


# ---------------------------------------------------------------- re-entrancy


def test_what_comes_up_while_releasing_comes_after(bare: Bare) -> None:
    """As votes to oneself do: not in the middle, but in the same turn."""

    def release(ready: Ready) -> None:
        if ready.wake_at == 1:
            bare.add(saving(3), plain(4))

    bare.release = release
    bare.add(saving(1), plain(2))
    bare.reactor.turn()
    assert bare.done == ["save 1", "release 1", "release 2", "save 3", "release 3", "release 4"]
    assert bare.reactor.getDelayedCalls() == []


def test_refill_is_asked_when_something_was_done_and_during_a_save(bare: Bare) -> None:
    bare.refill = lambda: bare.events.append(("refill", bare.performer.waiting))
    bare.store.slow = True
    bare.add(saving(1))
    bare.reactor.turn()
    assert bare.done == ["refill 1", "save 1", "refill 1"]
    bare.performer.schedule()
    bare.reactor.turn(5)
    assert bare.done[3:] == ["refill 1"]
    bare.store.finish()
    assert bare.done[4:] == ["release 1", "refill 0"]


def test_what_refill_adds_is_saved_with_the_rest(bare: Bare) -> None:
    more = [saving(3), saving(2)]

    def refill() -> None:
        if more:
            bare.add(more.pop())

    bare.refill = refill
    bare.add(saving(1))
    bare.reactor.turn()
    assert bare.done == ["save 1 2", "release 1", "release 2", "save 3", "release 3"]


def test_the_reactor_gets_its_turn_however_much_comes_up(bare: Bare) -> None:
    """A caller that submits again at each answer must not keep a single node from its sockets and signals."""
    bare.release = lambda ready: bare.add(saving(int(ready.wake_at or 0) + 1))
    bare.add(saving(1))
    bare.reactor.callLater(0, bare.events.append, ("reactor", ""))
    bare.reactor.turn()
    released = bare.done.count("release 1") + sum(line.startswith("release") for line in bare.done)
    assert 1 < released < 1000
    bare.reactor.turn()
    assert sum(line.startswith("release") for line in bare.done) > released  # it goes on, in the next turn


def test_a_turn_is_not_lost_when_the_clock_steps_back(bare: Bare) -> None:
    bare.add(plain(1))
    bare.reactor.step(-3600.0)
    bare.reactor.turn()
    assert bare.done == []
    bare.reactor.spend(2 * WATCH_SECONDS)
    assert bare.done == ["release 1"]


# --------------------------------------------------- a whole node on slow disk

LOW, HIGH = Ballot(1, "a"), Ballot(2, "c")


@pytest.fixture
def bench() -> Bench:
    bench = Bench("b")
    bench.reactor.idle()
    bench.forget()
    bench.store.slow = True
    return bench


def test_a_node_saves_before_it_sends(bench: Bench) -> None:
    bench.store.slow = False
    bench.hear("a", PrepareLog(LOW, 1))
    bench.reactor.turn()
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
    bench.reactor.turn()
    assert bench.story() == ["save(Promised)", "PromiseLog>a", "save(Voted)", "AcceptedSlot>a"]


def test_a_repeated_prepare_is_not_answered_before_its_save(bench: Bench) -> None:
    for _ in range(3):
        bench.hear("a", PrepareLog(LOW, 1))
        bench.reactor.turn()
    assert bench.story() == ["save(Promised)"]
    bench.store.finish()
    assert bench.story() == ["save(Promised)", "PromiseLog>a", "PromiseLog>a", "PromiseLog>a"]


def test_a_repeated_accept_is_not_answered_before_its_save(bench: Bench) -> None:
    for _ in range(3):
        bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
        bench.reactor.turn()
    assert bench.story() == ["save(Voted)"]
    bench.store.finish()
    assert bench.story() == ["save(Voted)", "AcceptedSlot>a", "AcceptedSlot>a", "AcceptedSlot>a"]


def test_a_repeated_prepare_about_a_subject_is_not_answered_before_its_save(bench: Bench) -> None:
    for _ in range(2):
        bench.hear("a", AboutSubject("king", Prepare(LOW)))
        bench.reactor.turn()
    assert bench.story() == ["save(SubjectState)"]
    bench.store.finish()
    assert bench.story() == ["save(SubjectState)", "AboutSubject>a", "AboutSubject>a"]


def test_a_finished_save_answers_only_what_it_covered(bench: Bench) -> None:
    """A vote that came during the save of a promise waits for a save of its own."""
    bench.hear("a", PrepareLog(LOW, 1))
    bench.reactor.turn()
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0), AcceptSlot(LOW, 2, b"", 0))
    bench.reactor.turn()
    bench.store.finish()
    assert bench.story() == ["save(Promised)", "PromiseLog>a", "save(Voted, Voted)"]
    bench.store.finish()
    assert bench.story()[3:] == ["AcceptedSlot>a", "AcceptedSlot>a"]


def test_a_refusal_waits_for_the_promise_it_tells_of(bench: Bench) -> None:
    """A Nack saves nothing, but it tells of a promise that is not on disk yet."""
    bench.hear("c", PrepareLog(HIGH, 1))
    bench.reactor.turn()
    bench.hear("a", PrepareLog(LOW, 1))
    bench.reactor.turn(5)
    assert bench.story() == ["save(Promised)"]
    bench.store.finish()
    assert bench.story() == ["save(Promised)", "PromiseLog>c", "Nack>a"]


def test_a_promise_tells_only_of_what_is_on_disk(bench: Bench) -> None:
    one = encode_batch([Run(b"session!", 1, 0, (b"one",))])
    bench.hear("a", AcceptSlot(LOW, 1, one, 0))
    bench.reactor.turn()
    bench.hear("c", PrepareLog(HIGH, 1))
    bench.reactor.turn()
    bench.store.finish()
    assert bench.said() == [("a", AcceptedSlot(LOW, 1))]
    bench.store.finish()
    to, promise = bench.said()[1]
    assert (to, isinstance(promise, PromiseLog) and promise.votes) == ("c", ((1, LOW, one),))


def test_datagrams_of_one_turn_share_a_save(bench: Bench) -> None:
    bench.hear("a", *[AcceptSlot(LOW, slot, b"", 0) for slot in range(1, 21)])
    bench.reactor.turn()
    assert [len(records) for records in bench.store.saves] == [20]
    assert all(isinstance(record, Voted) for record in bench.store.saves[0])
    bench.store.finish()
    assert [message for _, message in bench.said()] == [AcceptedSlot(LOW, slot) for slot in range(1, 21)]


def test_a_candidate_saves_its_ballot_before_it_asks(bench: Bench) -> None:
    bench.reactor.spend(5.0, lambda: bench.events)
    _, canvass = bench.said()[-1]
    assert isinstance(canvass, PreVote)
    bench.forget()
    bench.hear("a", PreVoteGranted(canvass.sequence))
    bench.reactor.spend(5.0)
    assert bench.story() == ["save(Promised)"]
    bench.store.finish()
    assert set(bench.story()[1:3]) == {"PrepareLog>a", "PrepareLog>c"}


def test_a_failed_save_silences_the_node(bench: Bench) -> None:
    waiting = bench.node.submit(b"x")
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
    bench.reactor.turn()
    bench.store.failing = True
    bench.store.finish()
    assert [type(failure.value) for failure in bench.failures] == [StoreError]
    waiting.addErrback(lambda _: None)
    bench.store.failing = False
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0), PrepareLog(Ballot(9, "a"), 1))
    bench.reactor.spend(10.0)
    assert bench.story() == ["Forward>a", "save(Voted)"]
    assert bench.store.closes == 1


def test_an_error_in_the_core_silences_the_node(
    bench: Bench, logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invariant that does not hold: the node must not go on voting."""
    bench.store.slow = False

    def broken(*_: object) -> None:
        raise BrokenInvariant("another value is chosen", 1)

    monkeypatch.setattr(bench.node._replica.log, "accept", broken)
    bench.hear("a", AcceptSlot(LOW, 1, b"", 0))
    assert [type(failure.value) for failure in bench.failures] == [BrokenInvariant]
    bench.hear("a", AcceptSlot(LOW, 2, b"", 0))
    bench.reactor.spend(10.0)
    assert bench.story() == []
    logged_errors.clear()
