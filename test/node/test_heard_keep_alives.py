"""What the leader has heard goes into its next values, each once, and fits into them."""

from __future__ import annotations

import pytest

from txpaxos.node import heard_keep_alives as module
from txpaxos.node.heard_keep_alives import PAUSE_SECONDS, HeardKeepAlives
from txpaxos.node.timers import Timers
from txpaxos.replicated_time import ReplicatedTime
from txpaxos.wire.stamps import KeptAlive

NOW = 1000.0


def with_timers(*names: str, seconds: float = 1.0) -> tuple[HeardKeepAlives, Timers]:
    timers = Timers()
    timers.allow_changes(True)
    for name in names:
        timers.set(name, seconds, kept_alive=True)
    timers.set("plain", 10)
    return HeardKeepAlives(lambda: timers), timers


def kept(*rows: tuple[str | int, int]) -> tuple[KeptAlive, ...]:
    return tuple(KeptAlive(*row) for row in rows)


def test_what_was_heard_goes_into_one_value() -> None:
    heard, _ = with_timers("a", "b")
    assert (heard.propose_at(), heard.take(NOW)) == (None, ())
    heard.hear(kept(("b", 2), ("a", 3), ("a", 5), ("a", 4)))
    assert heard.take(NOW) == kept(("b", 2), ("a", 5))
    assert (heard.propose_at(), heard.take(NOW)) == (None, ())


def test_timers_that_are_together_are_heard_by_one_number() -> None:
    heard, timers = with_timers("a", "b")
    list(timers.advance(ReplicatedTime(1), kept(("a", 3), ("b", 3))))
    heard.hear(kept((3, 5), (4, 6), (3, 2), (3, 4)))
    assert heard.take(NOW) == kept((3, 5))


def test_what_is_no_kept_alive_timer_or_has_counted_is_not_heard() -> None:
    heard, timers = with_timers("a")
    list(timers.advance(ReplicatedTime(1), kept(("a", 3))))
    heard.hear(kept(("plain", 1), ("never", 1), ("a", 3), ("a", 2)))
    assert heard.propose_at() is None


def test_values_for_nothing_else_have_a_pause_between_them() -> None:
    heard, _ = with_timers("a")
    heard.hear(kept(("a", 1)))
    at = heard.propose_at()
    assert at is not None
    assert at < NOW, "the first one is due at once"
    heard.take(NOW)
    heard.hear(kept(("a", 2)))
    assert heard.propose_at() == NOW + PAUSE_SECONDS


@pytest.mark.parametrize(("seconds", "pause"), [(0.001, 0.1), (2.0, 0.1), (10.0, 0.5), (20.0, 1.0), (3600.0, 1.0)])
def test_the_pause_is_a_twentieth_of_the_shortest_period(seconds: float, pause: float) -> None:
    heard, timers = with_timers("a", "b", seconds=seconds)
    timers.set("long", 10_000, kept_alive=True)
    heard.take(NOW)
    heard.hear(kept(("a", 1), ("long", 1)))
    heard.take(NOW)
    heard.hear(kept(("long", 2), ("b", 2)))
    assert heard.propose_at() == NOW + pause
    heard.take(NOW + pause)
    heard.hear(kept(("long", 3)))
    assert heard.propose_at() == NOW + pause + 1.0, "what was heard before does not count"


def test_more_than_one_value_holds_is_due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALUE_BYTES", 35)
    heard, _ = with_timers("a", "b", "c", "x" * 500)
    heard.hear(kept(("a", 1), ("b", 1)))
    heard.take(NOW)
    heard.hear(kept(("a", 2), ("b", 2), ("c", 2)))
    at = heard.propose_at()
    assert at is not None
    assert at < NOW
    assert heard.take(NOW) == kept(("a", 2), ("b", 2))
    assert heard.propose_at() == NOW + PAUSE_SECONDS
    heard.hear(kept(("x" * 500, 1)))
    assert [heard.take(NOW), heard.take(NOW)] == [kept(("c", 2)), kept(("x" * 500, 1))], "however long one is"


def test_the_number_in_one_value_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ALIVE_MAX", 2)
    heard, _ = with_timers("a", "b", "c")
    heard.hear(kept(("a", 2), ("b", 2), ("c", 2)))
    at = heard.propose_at()
    assert at is not None
    assert at < NOW
    assert [len(heard.take(NOW)) for _ in range(3)] == [2, 1, 0]


def test_followers_that_wait_are_known() -> None:
    heard, _ = with_timers("a", "b")
    heard.hear(kept(("a", 1)))
    assert not heard.is_forwarded
    heard.hear(kept(("b", 1)), forwarded=True)
    assert heard.is_forwarded
    heard.take(NOW)
    assert not heard.is_forwarded


def test_a_deposed_leader_forgets() -> None:
    heard, _ = with_timers("a")
    heard.hear(kept(("a", 1)), forwarded=True)
    heard.clear()
    assert (heard.propose_at(), heard.take(NOW), heard.is_forwarded) == (None, (), False)
