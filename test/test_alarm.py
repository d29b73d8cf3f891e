"""The alarm keeps monotonic time, though the reactor's clock is the wall clock and steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from twisted.logger import LogLevel

from test.fakes import Bench, Reactor, logged
from txpaxos.alarm import Alarm
from txpaxos.core.functional import Timing
from txpaxos.core.messages import AboutSubject, Fetch

HOUR = 3600.0
approx = partial(pytest.approx, abs=1e-4)


class Bell:
    """An alarm and when it rang, in monotonic seconds."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.rung: list[float] = []
        self.alarm = Alarm(self.reactor, self.reactor.monotonic, lambda: self.rung.append(self.reactor.monotonic()))

    def check(self) -> bool:
        """Whether it rang because it was overdue."""
        rung = len(self.rung)
        self.alarm.check(self.reactor.monotonic())
        return len(self.rung) > rung


@pytest.fixture
def bell() -> Bell:
    return Bell()


def test_rings_once_when_it_is_time(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    bell.reactor.spend(1.9)
    assert bell.rung == []
    bell.reactor.spend(100.0)
    assert bell.rung == approx([2.0])


def test_the_earliest_time_counts(bell: Bell) -> None:
    for ring_at in (5.0, 2.0, 3.0, 3.0):
        bell.alarm.ring_by(ring_at)
    bell.reactor.spend(100.0)
    assert bell.rung == approx([2.0])


def test_set_again_after_it_rang(bell: Bell) -> None:
    bell.alarm.ring_by(1.0)
    bell.reactor.spend(1.0)
    bell.alarm.ring_by(4.0)
    bell.reactor.spend(100.0)
    assert bell.rung == approx([1.0, 4.0])


def test_a_time_that_has_passed_rings_in_the_next_turn(bell: Bell) -> None:
    bell.reactor.spend(10.0)
    bell.alarm.ring_by(3.0)
    assert bell.rung == []
    bell.reactor.turn()
    assert bell.rung == approx([10.0])


def test_a_cancelled_alarm_does_not_ring(bell: Bell) -> None:
    bell.alarm.cancel()
    bell.alarm.ring_by(1.0)
    bell.alarm.cancel()
    bell.alarm.cancel()
    assert not bell.check()
    bell.reactor.spend(100.0)
    assert bell.rung == []
    assert not bell.check()


def test_it_rings_when_a_check_finds_it_overdue(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    assert not bell.check()
    bell.alarm.check(2.0)
    assert len(bell.rung) == 1
    bell.reactor.spend(100.0)
    assert len(bell.rung) == 1


def test_a_step_back_stalls_it_no_longer_than_to_the_next_check(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    bell.reactor.spend(1.0)
    bell.reactor.step(-HOUR)
    bell.reactor.spend(0.5)
    assert not bell.check()  # noticed, and not overdue: it is set anew
    bell.reactor.spend(100.0)
    assert bell.rung == approx([2.0])


def test_a_step_back_noticed_too_late_makes_it_overdue(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    bell.reactor.step(-HOUR)
    bell.reactor.spend(7.0)
    assert bell.rung == []
    assert bell.check()
    bell.reactor.spend(100.0)
    assert bell.rung == approx([7.0])


def test_a_step_forward_rings_early_and_once(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    bell.reactor.step(HOUR)
    bell.reactor.turn()
    assert bell.rung == approx([0.0])
    bell.alarm.ring_by(2.0)  # the owner found nothing to do yet
    bell.check()
    bell.reactor.spend(100.0)
    assert bell.rung == approx([0.0, 2.0])


def test_a_step_forward_that_is_checked_first_does_not_ring_early(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    bell.reactor.step(HOUR)
    assert not bell.check()
    bell.reactor.spend(100.0)
    assert bell.rung == approx([2.0])


def test_a_step_is_noticed_once(bell: Bell) -> None:
    def step_and_check() -> None:
        for step in (HOUR, -HOUR):
            bell.reactor.step(step)
            for _ in range(3):
                bell.check()

    assert [event["step"] for event in logged(step_and_check, LogLevel.warn)] == approx([HOUR, -HOUR])


def test_a_small_difference_is_no_step(bell: Bell) -> None:
    bell.alarm.ring_by(2.0)
    bell.reactor.step(-0.5)
    assert not bell.check()
    bell.reactor.spend(100.0)
    assert bell.rung == approx([2.5])


@pytest.mark.parametrize("clock", [time.time, time.monotonic])
def test_a_wall_clock_is_told_of(clock: Callable[[], float]) -> None:
    reactor = Reactor()
    reactor.rightNow = clock()
    events = logged(lambda: Alarm(reactor, time.monotonic, lambda: None), LogLevel.warn)
    assert len(events) == (clock is time.time)


@pytest.mark.parametrize("seed", range(5))
def test_steps_at_any_time(seed: int) -> None:
    """Whatever the wall clock does, it rings once: at the latest at the check that comes each 0.1 s."""
    rng, bell = Random(seed), Bell()
    for _ in range(200):
        ring_at = bell.reactor.monotonic() + rng.uniform(0.0, 1.0)
        bell.rung.clear()
        bell.alarm.ring_by(ring_at)
        stepped_forward = False
        while not bell.rung:
            if rng.random() < 0.2:
                step = rng.choice((-HOUR, HOUR, rng.uniform(-5.0, 5.0)))
                stepped_forward |= step > 0.0
                bell.reactor.step(step)
            bell.reactor.spend(rng.uniform(0.0, 0.1))
            bell.check()
        assert bell.reactor.monotonic() <= ring_at + 0.11
        assert bell.reactor.monotonic() >= ring_at - 1e-4 or stepped_forward
        assert len(bell.rung) == 1
        bell.alarm.cancel()


# ---------------------------------------------------------------- a whole node


@pytest.mark.parametrize("step", [-HOUR, HOUR])
@pytest.mark.parametrize("submits", [False, True])
def test_a_node_goes_on_after_a_step(step: float, submits: bool) -> None:
    """What arrives, from a peer or a caller, wakes a node whose timers a step has stalled: it looks for a leader."""
    bench = Bench("b")
    bench.reactor.spend(0.1)
    bench.reactor.step(step)
    bench.reactor.spend(5.0)
    bench.forget()
    if submits:
        bench.node.submit(b"x").addErrback(lambda _: None)
    else:
        bench.hear("a", Fetch(1))
    bench.reactor.spend(2.0)
    assert "Canvass>a" in bench.story()
    bench.node.stop()


def test_a_node_that_asks_after_a_step_goes_on() -> None:
    bench = Bench("b", timing=Timing(retry_seconds=1.0))
    answer = bench.node.ask("king", b"x")
    bench.reactor.spend(0.6)  # so that what comes now is due later than the first question
    bench.reactor.step(-HOUR)
    bench.forget()
    bench.node.ask("queen", b"y").addErrback(lambda _: None)
    bench.reactor.spend(0.7)
    asked = [message.subject for _, message in bench.said() if isinstance(message, AboutSubject)]
    assert asked.count("king") == 2  # the first question is asked again, too, of both peers
    answer.addErrback(lambda _: None)
    bench.node.stop()
