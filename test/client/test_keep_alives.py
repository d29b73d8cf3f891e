"""A keep-alive counts for a client only if the log has that client's own number."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.helpers.fakes import outcome_of
from txpaxos.client import keep_alives
from txpaxos.client.keep_alives import FIRST_BITS, KeepAliveNumbers, Numbers, keep_alive
from txpaxos.errors import NoQuorum, NotChosen, Overloaded
from txpaxos.wire.client_messages import KeepTimers, KeepTogether, TimersKept
from txpaxos.wire.stamps import NUMBER_MAX


class Asked:
    """In place of a dispatcher: the test answers.

    :ivar sent: each message, its deadline, and its answer.
    :ivar told: what the last call was told of its timers, one after the other.
    :ivar call: that call.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.numbers = KeepAliveNumbers(Random(1))
        self.sent: list[tuple[Any, float | None, Deferred[Any]]] = []
        self.patience: list[float] = []

    def ask_node(
        self,
        make_message: Callable[[int], KeepTimers],
        size_bytes: int,
        deadline_seconds: float | None,
        patience_seconds: float,
    ) -> Deferred[Any]:
        self.patience.append(patience_seconds)
        self.sent.append((make_message(1), deadline_seconds, Deferred()))
        return self.sent[-1][2]

    def keep(self, *names: str, deadline_seconds: float | None = None) -> list[Any]:
        dispatcher: Any = self
        self.told: dict[str, bool] = {}
        told = self.told.__setitem__
        self.call = keep_alive(dispatcher, self.numbers, lambda: self.now, names, deadline_seconds, told)
        return outcome_of(self.call)

    def answer(self, *numbers: int | None, which: int = -1, period_ms: int = 0) -> None:
        self.sent[which][2].callback(TimersKept(1, numbers, period_ms))

    @property
    def last(self) -> int:
        number: int = self.sent[-1][0].number
        return number


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_its_own_number_or_a_later_one_confirms(asked: Asked) -> None:
    first, second = asked.keep("a", "b", "a"), asked.keep("a")
    number = asked.sent[0][0].number
    assert [message for message, _, _ in asked.sent] == [
        KeepTimers(1, number, ("a", "b")),
        KeepTimers(1, number + 1, ("a",)),
    ]
    asked.answer(number + 1, None, which=0)
    asked.answer(number + 1)
    assert (first, second) == ([{"a": True, "b": False}], [{"a": True}])


def test_the_number_of_another_client_confirms_nothing(asked: Asked) -> None:
    kept = asked.keep("a", "b")
    own = asked.last
    asked.answer(own, own + 1_000_000)
    assert (kept, asked.sent[-1][0].names) == ([], ("b",))
    assert asked.last > own + 1_000_000
    asked.answer(asked.last)
    assert kept == [{"a": True, "b": True}]


def test_another_client_that_keeps_one_timer_alive_does_not_touch_another_timer(asked: Asked) -> None:
    slow, quick = asked.keep("a"), asked.keep("b")
    old = asked.sent[0][0].number
    asked.answer(old + 5)
    asked.answer(old, which=0)
    assert (slow, quick) == ([{"a": True}], [])
    assert len(asked.sent) == 3


def test_the_number_of_a_timer_that_was_set_anew_confirms_nothing(asked: Asked) -> None:
    kept = asked.keep("a")
    asked.answer(0)
    assert kept == []
    asked.answer(asked.last)
    assert kept == [{"a": True}]


def test_a_deadline_is_for_all_attempts(asked: Asked) -> None:
    kept = asked.keep("a", deadline_seconds=5.0)
    asked.now = 2.0
    asked.answer(asked.last + 1)
    assert [deadline for _, deadline, _ in asked.sent] == [5.0, 3.0]
    asked.now = 5.0
    asked.answer(asked.last + 1)
    assert [one.type for one in kept] == [NoQuorum]


def test_the_highest_number_cannot_be_overtaken_and_harms_no_other_timer(asked: Asked) -> None:
    kept, other = asked.keep("a"), asked.keep("b")
    asked.answer(NUMBER_MAX, which=0)
    assert [one.type for one in kept] == [NotChosen]
    again = asked.keep("a")
    assert [one.type for one in again] == [NotChosen]
    asked.answer(asked.last)
    assert other == [{"b": True}]
    both = asked.keep("b", "c")
    asked.answer(asked.last, asked.last)
    assert both == [{"b": True, "c": True}]
    together = asked.keep("b", "a")
    assert (asked.sent[-1][0].names, together) == (("b",), []), "b is kept alive, and then the caller is told of a"
    asked.answer(asked.last)
    assert ([one.type for one in together], asked.told) == ([NotChosen], {"b": True})


def test_a_timer_that_was_overtaken_has_numbers_of_its_own(asked: Asked) -> None:
    first = asked.keep("a", "b")
    asked.answer(asked.last, 2**62)
    asked.answer(asked.last)
    assert first == [{"a": True, "b": True}]
    kept = asked.keep("a", "b", "c")
    (of_most, _, _), (of_b, _, _) = asked.sent[-2:]
    assert (of_most.names, of_b.names) == (("a", "c"), ("b",))
    assert of_most.number < 2**61 < 2**62 < of_b.number
    asked.answer(of_b.number)
    assert (kept, asked.told) == ([], {"b": True})
    asked.answer(of_most.number, None, which=-2)
    assert kept == [{"a": True, "b": True, "c": False}]


def test_no_timer_waits_for_one_that_another_client_keeps_alive_again_and_again(asked: Asked) -> None:
    kept = asked.keep("a", "b", "c", deadline_seconds=5.0)
    asked.answer(asked.last, asked.last + 7, None)
    assert asked.told == {"a": True, "c": False}
    asked.now = 5.0
    asked.answer(asked.last + 7)
    assert [one.type for one in kept] == [NoQuorum]
    assert asked.told == {"a": True, "c": False}


def test_a_message_that_fails_takes_no_other_with_it(asked: Asked) -> None:
    asked.keep("b")
    asked.answer(asked.last + 7)
    asked.answer(asked.last)
    kept = asked.keep("a", "b")
    asked.sent[-1][2].errback(Overloaded("too much"))
    assert (kept, asked.told) == ([], {})
    asked.answer(asked.sent[-2][0].number, which=-2)
    assert ([one.type for one in kept], asked.told) == ([Overloaded], {"a": True})


def test_a_call_that_is_cancelled_asks_no_more(asked: Asked) -> None:
    asked.keep("b")
    asked.answer(asked.last + 7)
    asked.answer(asked.last)
    kept = asked.keep("a", "b")
    asked.call.cancel()
    assert [one.type for one in kept] == [CancelledError]
    assert [answer.called for _, _, answer in asked.sent[-2:]] == [True, True]
    assert len(asked.sent) == 4


def test_numbers_of_its_own_are_given_up_for_higher_ones(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_alives, "OWN_MAX", 1)
    for name in ("a", "b"):
        asked.keep(name)
        asked.answer(asked.last + 10)
        asked.answer(asked.last)
    of_a = asked.sent[1][0].number
    asked.keep("a")
    assert asked.last > of_a


def test_timers_that_were_kept_alive_together_are_not_named_again(asked: Asked) -> None:
    asked.keep("a", "b")
    first = asked.last
    asked.answer(first, first)
    kept = asked.keep("a", "b")
    assert asked.sent[-1][0] == KeepTogether(1, first, first + 1, 2)
    asked.answer(first + 1)
    assert kept == [{"a": True, "b": True}]
    asked.keep("a", "b")
    assert asked.sent[-1][0] == KeepTogether(1, first + 1, first + 2, 2)
    asked.keep("a", "b", "c")
    assert asked.sent[-1][0] == KeepTimers(1, first + 3, ("a", "b", "c"))


@pytest.mark.parametrize("answer", [(None,), (), (1,), (NUMBER_MAX,)])
def test_timers_that_are_together_no_more_are_named(asked: Asked, answer: tuple[int | None, ...]) -> None:
    asked.keep("a", "b")
    first = asked.last
    asked.answer(first, first)
    kept = asked.keep("a", "b")
    asked.answer(*answer)
    assert (kept, asked.sent[-1][0]) == ([], KeepTimers(1, first + 2, ("a", "b")))
    asked.answer(first + 2, None)
    assert kept == [{"a": True, "b": False}]
    asked.keep("a", "b")
    assert asked.sent[-1][0] == KeepTimers(1, first + 3, ("a", "b")), "one was not kept alive"


def test_no_two_keep_alives_of_a_client_have_the_same_number(asked: Asked) -> None:
    """Or timers would count as together that are not."""
    asked.keep("a", "b")
    asked.answer(asked.last, 0)
    asked.answer(asked.last)
    asked.keep("a", "b")
    numbers = [message.number for message, *_ in asked.sent]
    assert len(numbers) == len(set(numbers)) == 4


def test_what_is_known_to_be_together_is_bounded(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_alives, "TOGETHER_MAX", 1)
    for names in (("a", "b"), ("c", "d")):
        asked.keep(*names)
        asked.answer(asked.last, asked.last)
    asked.keep("a", "b")
    assert isinstance(asked.sent[-1][0], KeepTimers)
    asked.answer(asked.last, asked.last)
    asked.keep("a", "b")
    assert isinstance(asked.sent[-1][0], KeepTogether)


def test_it_waits_patiently_for_a_tenth_of_the_shortest_period(asked: Asked) -> None:
    for period_ms in (0, 20_000, 10_000, 0, 30_000):
        asked.keep("a")
        asked.answer(asked.last, period_ms=period_ms)
    asked.keep("a")
    assert asked.patience == [0.0, 0.0, 2.0, 1.0, 1.0, 1.0]


def test_two_clients_begin_with_other_numbers() -> None:
    firsts = {Numbers(Random(seed)).next() for seed in range(100)}
    assert len(firsts) == 100
    assert 0 < min(firsts) <= max(firsts) <= 2**FIRST_BITS


def test_chance_is_drawn_when_it_is_needed() -> None:
    """Not when the client is made: runs of the simulator without keep-alives are as they were."""
    rng = Random(1)
    numbers = Numbers(rng)
    assert rng.getstate() == Random(1).getstate()
    numbers.overtake(5)
    assert numbers.next() > 5
