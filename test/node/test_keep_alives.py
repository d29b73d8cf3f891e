"""Keep-alives wait at a node until the log has them, and the leader is told until then."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from test.helpers.fakes import outcome_of
from txpaxos.errors import NodeStopped, Overloaded
from txpaxos.node import keep_alives as module
from txpaxos.node.keep_alives import AGAIN_SECONDS, AGAIN_SECONDS_MAX, PAUSE_SECONDS, KeepAlives, Kept
from txpaxos.node.timers import Timers
from txpaxos.replicated_time import ReplicatedTime
from txpaxos.wire.stamps import KeptAlive

FIRST, SECOND = "first", "second"


class Waiting:
    """The keep-alives of a node. The test is its log, its leader and its clock.

    :ivar questions: whether the node has applied everything, as often as that was asked.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.wanted = 0
        self.questions: list[Deferred[object]] = []
        self.keep_alives = KeepAlives(lambda: self.timers, self._catch_up, self._want)
        self.timers = Timers(self.keep_alives.note)
        self.set(FIRST, SECOND)

    def _want(self) -> None:
        self.wanted += 1

    def _catch_up(self) -> Deferred[object]:
        self.questions.append(Deferred())
        return self.questions[-1]

    def set(self, *names: str, seconds: float = 1.0) -> None:
        self.timers.allow_changes(True)
        for name in names:
            self.timers.set(name, seconds, kept_alive=True)

    def ask(self, number: int, *names: str) -> list[Any]:
        """The numbers that the client is told."""
        return outcome_of(self.keep_alives.keep_alive(number, names).addCallback(lambda kept: kept.numbers))

    def apply(self, *kept_alive: tuple[str | int, int], elapsed_ms: int = 0) -> None:
        """A value of the log."""
        list(self.timers.advance(ReplicatedTime(elapsed_ms), [KeptAlive(*one) for one in kept_alive]))
        self.keep_alives.applied()

    def told(self, pause: bool = True) -> dict[str | int, int]:
        """What the leader is told now."""
        told: dict[str | int, int] = {}
        while some := self.keep_alives.take_due(self.now, pause):
            told.update(some)
        return told


def failed(outcome: Any) -> type[BaseException] | None:
    """The error with which a call has failed."""
    return outcome.type if isinstance(outcome, Failure) else None


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_a_client_is_answered_when_the_log_has_all_its_keep_alives(waiting: Waiting) -> None:
    answer = waiting.ask(5, FIRST, SECOND, FIRST)
    assert (waiting.told(), len(waiting.keep_alives), waiting.wanted) == ({FIRST: 5, SECOND: 5}, 2, 1)
    waiting.apply((FIRST, 5))
    assert answer == []
    waiting.apply((SECOND, 7))
    assert answer == [(5, 7, 5)]
    assert (len(waiting.keep_alives), waiting.keep_alives.wake_at) == (0, None)


def test_what_has_counted_already_is_answered_at_once(waiting: Waiting) -> None:
    waiting.apply((FIRST, 5))
    assert waiting.ask(5, FIRST) == [(5,)]
    assert (waiting.told(), waiting.wanted) == ({}, 0)


def test_a_lower_number_in_the_log_is_no_answer(waiting: Waiting) -> None:
    answer = waiting.ask(5, FIRST)
    waiting.apply((FIRST, 4))
    assert answer == []
    waiting.keep_alives.leader_changed()
    assert waiting.told() == {FIRST: 5}


def test_several_clients_may_wait_for_one_timer(waiting: Waiting) -> None:
    answers = [waiting.ask(number, FIRST) for number in (5, 7, 6)]
    assert waiting.told() == {FIRST: 7}
    waiting.apply((FIRST, 6))
    assert answers == [[(6,)], [], [(6,)]]
    waiting.apply((FIRST, 7))
    assert answers[1] == [(7,)]


def test_names_of_one_client_leave_room_for_those_of_others(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 4)

    def ask(owner: str, *names: str) -> Deferred[Any]:
        return waiting.keep_alives.keep_alive(5, names, owner).addCallback(lambda kept: kept.numbers)

    unknown = ask("greedy", "x", "y")
    refused = outcome_of(ask("greedy", "z"))
    assert (failed(refused[0]), len(waiting.keep_alives)) == (Overloaded, 2)
    assert str(refused[0].value) == "keep-alives of this client for 2 timers wait already; try again later"
    other = outcome_of(ask("other", FIRST, SECOND))
    assert other == []
    waiting.apply((FIRST, 5), (SECOND, 5))
    assert other == [(5, 5)]
    unknown.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    assert not waiting.keep_alives._count_of, "nothing is kept of those that wait no more"
    assert outcome_of(ask("greedy", FIRST)) == [(5,)]
    assert not waiting.keep_alives._count_of


def test_a_timer_that_ends_is_known_at_once(waiting: Waiting) -> None:
    answer = waiting.ask(5, FIRST, SECOND)
    waiting.apply((SECOND, 5), elapsed_ms=10_000)
    assert answer == [(None, 5)]
    cancelled = waiting.ask(6, SECOND)
    waiting.timers.cancel(SECOND)
    waiting.keep_alives.applied()
    assert cancelled == [(None,)]


def test_a_timer_that_is_set_anew_is_told_of_again(waiting: Waiting) -> None:
    answer = waiting.ask(5, FIRST)
    assert waiting.told() == {FIRST: 5}
    waiting.timers.cancel(FIRST)
    waiting.set(FIRST)
    waiting.keep_alives.applied()
    assert answer == []
    waiting.now += AGAIN_SECONDS + 2 * PAUSE_SECONDS
    assert waiting.told() == {FIRST: 5}


def test_a_node_says_that_there_is_no_timer_when_it_has_applied_everything(waiting: Waiting) -> None:
    """It may be behind: the timer may have been set, or been confirmed, where it has not come to."""
    answer = waiting.ask(5, "not yet", "never")
    assert (answer, waiting.told(), len(waiting.questions)) == ([], {}, 1)
    waiting.set("not yet")
    waiting.questions[0].callback(None)
    assert (answer, waiting.told(), waiting.wanted) == ([], {"not yet": 5}, 2)
    waiting.apply(("not yet", 5))
    assert answer == [(5, None)]


def test_a_node_that_cannot_find_out_says_why(waiting: Waiting) -> None:
    answer = waiting.ask(5, FIRST, "never")
    waiting.questions[0].errback(Overloaded("too many queries"))
    assert [failed(one) for one in answer] == [Overloaded]
    assert len(waiting.keep_alives) == 0


def test_a_client_that_is_gone_waits_no_more(waiting: Waiting) -> None:
    call = waiting.keep_alives.keep_alive(5, (FIRST, "never"))
    answer, other = outcome_of(call), waiting.ask(4, FIRST)
    call.cancel()
    assert [failed(one) for one in answer] == [CancelledError]
    waiting.questions[0].callback(None)
    waiting.apply((FIRST, 4))
    assert (other, len(waiting.keep_alives)) == ([(4,)], 0)
    call = waiting.keep_alives.keep_alive(5, ("never",))
    call.addErrback(lambda _: None).cancel()
    waiting.questions[1].errback(Overloaded("too many queries"))


def test_a_follower_tells_its_leader_now_and_then(waiting: Waiting) -> None:
    waiting.ask(5, FIRST)
    assert waiting.told() == {FIRST: 5}
    waiting.now += PAUSE_SECONDS / 2
    waiting.ask(6, SECOND)
    waiting.ask(7, SECOND)
    assert waiting.told() == {}
    assert waiting.keep_alives.wake_at == 1000 + PAUSE_SECONDS
    assert waiting.told(pause=False) == {SECOND: 7}, "a leader has nothing to wait for"
    waiting.now += PAUSE_SECONDS
    assert waiting.told() == {}


def test_the_leader_is_told_again_and_less_and_less_often(waiting: Waiting) -> None:
    waiting.ask(5, FIRST)
    delays, at = [], waiting.now
    for _ in range(8):
        assert waiting.told() == {FIRST: 5}
        assert waiting.told() == {}
        wake_at = waiting.keep_alives.wake_at
        assert wake_at is not None
        delays.append(wake_at - waiting.now)
        waiting.now = wake_at
    assert delays == [pytest.approx(PAUSE_SECONDS + one) for one in (0.25, 0.5, 1, 2, 4, 4, 4, AGAIN_SECONDS_MAX)]
    waiting.apply((FIRST, 5))
    waiting.now = at + 3600
    waiting.ask(6, FIRST)
    assert waiting.told() == {FIRST: 6}
    assert waiting.keep_alives.wake_at == pytest.approx(waiting.now + AGAIN_SECONDS + PAUSE_SECONDS)


def test_the_shortest_period_says_how_long_a_follower_collects(waiting: Waiting) -> None:
    waiting.set("long", "longer", seconds=10.0)
    waiting.ask(5, "long")
    waiting.told()
    waiting.ask(6, "longer")
    assert waiting.keep_alives.wake_at == waiting.now + 0.5
    waiting.now += 0.4
    assert waiting.told() == {}
    waiting.ask(7, FIRST)
    assert waiting.told() == {"longer": 6, FIRST: 7}
    waiting.apply((FIRST, 7), ("longer", 6), ("long", 5))
    waiting.ask(8, "long")
    waiting.now += 0.4
    assert waiting.told() == {}, "what was told before does not count"


def test_a_client_is_told_the_shortest_period(waiting: Waiting) -> None:
    waiting.set("long", seconds=10.0)
    told = [outcome_of(waiting.keep_alives.keep_alive(5, names)) for names in (("long", FIRST), ("long",), ("never",))]
    waiting.apply((FIRST, 5), ("long", 5))
    waiting.questions[0].callback(None)
    assert told == [[Kept((5, 5), 1000)], [Kept((5,), 10_000)], [Kept((None,), 0)]]


def test_a_node_that_was_behind_knows_the_period_when_it_knows_the_timer(waiting: Waiting) -> None:
    told = outcome_of(waiting.keep_alives.keep_alive(5, ("new",)))
    waiting.set("new", seconds=10.0)
    waiting.questions[0].callback(None)
    waiting.apply(("new", 5))
    assert told == [Kept((5,), 10_000)]


def test_a_new_leader_is_told_of_all_that_waits(waiting: Waiting) -> None:
    waiting.ask(5, FIRST)
    waiting.ask(6, FIRST, SECOND)
    waiting.told()
    waiting.apply((SECOND, 6))
    waiting.now += PAUSE_SECONDS / 2
    assert waiting.told() == {}
    waiting.keep_alives.leader_changed()
    assert waiting.told() == {FIRST: 6}


def together(waiting: Waiting, before: int, number: int, count: int) -> list[Any]:
    """The answer to a client that names no timers."""
    kept = waiting.keep_alives.keep_alive(number, (before,), together=count)
    return outcome_of(kept.addCallback(lambda kept: kept.numbers))


def test_timers_that_are_together_are_kept_alive_by_one_number(waiting: Waiting) -> None:
    waiting.apply((FIRST, 5), (SECOND, 5))
    answer = together(waiting, 5, 7, 2)
    assert waiting.told() == {5: 7}
    waiting.apply((5, 7), elapsed_ms=100)
    assert (answer, len(waiting.keep_alives)) == ([(7,)], 0)
    assert waiting.timers.due_in_seconds(FIRST) == waiting.timers.due_in_seconds(SECOND) == 1.0
    assert together(waiting, 5, 7, 2) == [(7,)], "it is sent again, to another node perhaps"
    assert waiting.told() == {}


@pytest.mark.parametrize("when", ["before", "while it waits", "with it", "before it is asked for again"])
def test_one_that_has_ended_is_not_taken_for_alive(waiting: Waiting, when: str) -> None:
    waiting.apply((FIRST, 5), (SECOND, 5))
    if when == "before":
        waiting.timers.cancel(FIRST)
        answer = together(waiting, 5, 7, 2)
        assert answer == [], "this node may be behind"
        waiting.questions[0].callback(None)
    elif when == "while it waits":
        answer = together(waiting, 5, 7, 2)
        waiting.timers.cancel(FIRST)
        waiting.keep_alives.applied()
    elif when == "with it":
        answer = together(waiting, 5, 7, 2)
        waiting.timers.cancel(FIRST)
        waiting.apply((5, 7))
    else:
        waiting.apply((5, 7))
        waiting.timers.cancel(FIRST)
        answer = together(waiting, 5, 7, 2)
        waiting.questions[0].callback(None)
    assert (answer, len(waiting.keep_alives)) == ([(None,)], 0)


def test_one_that_another_client_has_kept_alive_is_not_among_them(waiting: Waiting) -> None:
    waiting.apply((FIRST, 5), (SECOND, 5))
    answer = together(waiting, 5, 7, 2)
    waiting.apply((FIRST, 9))
    waiting.apply((5, 7))
    assert answer == [(None,)]


def test_a_node_that_is_behind_finds_out_what_is_together(waiting: Waiting) -> None:
    answer = together(waiting, 5, 7, 2)
    assert waiting.told() == {}
    waiting.apply((FIRST, 5), (SECOND, 5))
    waiting.questions[0].callback(None)
    assert (answer, waiting.told()) == ([], {5: 7})
    waiting.apply((5, 7))
    assert answer == [(7,)]


def test_a_name_is_confirmed_by_a_number_for_all(waiting: Waiting) -> None:
    """The client was told by another node that its keep-alive counted, and has sent the next one there."""
    waiting.apply((FIRST, 5), (SECOND, 5))
    answer = waiting.ask(6, FIRST)
    waiting.told()
    waiting.apply((5, 7))
    waiting.now += 10.0
    assert (waiting.told(), answer) == ({}, [(7,)])


def test_a_snapshot_may_confirm_what_was_together(waiting: Waiting) -> None:
    waiting.apply((FIRST, 5), (SECOND, 5))
    kept, lost = together(waiting, 5, 7, 2), together(waiting, 5, 8, 2)
    waiting.timers = Timers(waiting.keep_alives.note)
    waiting.set(FIRST, SECOND)
    list(waiting.timers.advance(ReplicatedTime(1), [KeptAlive(FIRST, 7), KeptAlive(SECOND, 7)]))
    waiting.keep_alives.restored()
    for question in waiting.questions:
        question.callback(None)
    assert (kept, lost) == ([(7,)], [(None,)])


def test_a_snapshot_may_confirm_or_end_or_bring_timers(waiting: Waiting) -> None:
    answers = [waiting.ask(5, name) for name in (FIRST, SECOND, "third", "never")]
    waiting.questions.clear()  # As if they were never answered.
    waiting.timers = Timers(waiting.keep_alives.note)
    waiting.set(FIRST, "third")
    list(waiting.timers.advance(ReplicatedTime(1), [KeptAlive(FIRST, 5)]))
    waiting.keep_alives.restored()
    assert answers == [[(5,)], [], [], []]
    for question in waiting.questions:
        question.callback(None)
    assert answers == [[(5,)], [(None,)], [], [(None,)]]
    assert waiting.told() == {"third": 5}


def test_what_a_message_holds_is_bounded(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE_BYTES", 40)
    names = [f"timer {number}" for number in range(10)]
    waiting.set(*names)
    waiting.ask(5, *names)
    sizes = []
    while some := waiting.keep_alives.take_due(waiting.now, pause=True):
        sizes.append(len(some))
    assert sizes == [2, 2, 2, 2, 2]


def test_what_waits_is_bounded(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    waiting.ask(5, FIRST, SECOND)
    (refused,) = waiting.ask(6, FIRST, SECOND)
    assert failed(refused) is Overloaded
    assert waiting.ask(6, FIRST) == []


def test_a_node_that_stops_tells_all_that_wait(waiting: Waiting) -> None:
    answers = [waiting.ask(5, FIRST, SECOND), waiting.ask(6, FIRST)]
    waiting.keep_alives.close(NodeStopped("it stops"))
    assert [failed(one) for answer in answers for one in answer] == [NodeStopped, NodeStopped]
    assert len(waiting.keep_alives) == 0
