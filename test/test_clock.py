"""Timers keep monotonic time, though the reactor's clock is the wall clock and steps."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import Clock, LoopingCall, deferLater
from zope.interface.verify import verifyObject

from test.helpers.fakes import Reactor, free_ports
from txpaxos import clock as clock_module
from txpaxos.clock import (
    STALE_MAX,
    WATCH_SECONDS,
    MonotonicClock,
    MonotonicReactor,
    TimedCall,
    monotonic_clock,
    seconds_with_sleep,
)
from txpaxos.cluster import Address, Cluster, Member

HOUR = 3600.0
approx = partial(pytest.approx, abs=1e-4)
real: Any = installed_reactor


class Timers:
    """A clock, and when its calls came, in monotonic seconds from now."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.clock = monotonic_clock(self.reactor)
        self.called: list[tuple[str, float]] = []
        self._began = self.clock.seconds()

    def set(self, name: str, seconds: float) -> TimedCall:
        return self.clock.callLater(seconds, self.call, name)

    def call(self, name: str) -> None:
        self.called.append((name, self.clock.seconds() - self._began))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.called]


@pytest.fixture
def timers() -> Timers:
    return Timers()


def test_calls_come_in_their_time(timers: Timers) -> None:
    for name, seconds in (("c", 3.0), ("a", 1.0), ("now", 0), ("b", 2.0)):
        timers.set(name, seconds)
    timers.reactor.spend(10.0)
    assert timers.names == ["now", "a", "b", "c"]
    assert [when for _, when in timers.called] == approx([0.0, 1.0, 2.0, 3.0])
    assert timers.reactor.getDelayedCalls() == []


def test_arguments(timers: Timers) -> None:
    got: list[Any] = []
    timers.clock.callLater(0, lambda *args, **kwargs: got.extend((args, kwargs)), 1, two=2)
    timers.reactor.turn()
    assert got == [(1,), {"two": 2}]


@pytest.mark.parametrize("seconds", [0, 2.0])
def test_a_call_is_cancelled_put_off_or_hurried(timers: Timers, seconds: float) -> None:
    cancelled, later, delayed, sooner = (
        timers.set(name, seconds) for name in ("cancelled", "later", "delayed", "sooner")
    )
    cancelled.cancel()
    later.reset(5.0)
    delayed.delay(7.0)
    sooner.reset(0.001)
    assert [call.active() for call in (cancelled, later)] == [False, True]
    assert later.getTime() == approx(timers.clock.seconds() + 5.0)
    assert set(timers.clock.getDelayedCalls()) == {later, delayed, sooner}
    timers.reactor.spend(20.0)
    assert timers.names == ["sooner", "later", "delayed"]
    assert [when for _, when in timers.called] == approx([0.001, 5.0, seconds + 7.0])
    for call, error in ((cancelled, AlreadyCancelled), (later, AlreadyCalled)):
        for change in (call.cancel, partial(call.reset, 1.0), partial(call.delay, 1.0)):
            with pytest.raises(error):
                change()


def test_a_call_in_the_next_turn_that_cannot_be_cancelled(timers: Timers) -> None:
    """In its order, and also when the clock steps back before it comes."""
    timers.set("first", 0)
    timers.clock.call_soon(lambda: timers.call("second"))
    kept = timers.set("third", 0)
    assert timers.clock.getDelayedCalls() == [timers.clock._soon[0][0], kept]
    timers.reactor.step(-HOUR)
    timers.reactor.turn()
    assert timers.names == []
    timers.reactor.spend(2 * WATCH_SECONDS)
    assert timers.names == ["first", "second", "third"]
    assert timers.reactor.getDelayedCalls() == []


def test_without_a_call_the_reactor_has_none(timers: Timers) -> None:
    calls = [timers.set("x", 1.0 + number) for number in range(3)]
    for call in calls:
        call.cancel()
    assert timers.reactor.getDelayedCalls() == []
    assert timers.clock.getDelayedCalls() == []


def test_cancelled_calls_take_no_room(timers: Timers) -> None:
    """A deadline of a minute for each of a million requests that are answered at once."""
    kept = timers.set("kept", 1.0)
    for _ in range(10 * STALE_MAX):
        timers.set("x", 60.0).cancel()
    assert len(timers.clock._queue) <= 2 * STALE_MAX
    assert timers.clock.getDelayedCalls() == [kept]
    timers.reactor.spend(100.0)
    assert timers.names == ["kept"]


@pytest.mark.parametrize("seconds", [0, 1.0])
def test_a_call_that_raises_harms_no_other(timers: Timers, seconds: float) -> None:
    """The reactor logs it, as it does with its own."""
    timers.set("before", seconds)
    timers.clock.callLater(seconds, int, "no number")
    timers.set("after", seconds)
    timers.set("later", seconds + 1.0)
    with pytest.raises(ValueError, match="no number"):
        timers.reactor.spend(10.0)
    timers.reactor.spend(10.0)
    assert timers.names == ["before", "after", "later"]


def test_what_comes_up_meanwhile_has_the_next_turn(timers: Timers) -> None:
    """Else a program that schedules its next step at each would keep the reactor from its sockets."""

    def again() -> None:
        timers.call("again")
        timers.clock.callLater(0, again)

    timers.clock.callLater(0, again)
    timers.reactor.turn(3)
    assert timers.names == ["again"] * 3


@pytest.mark.parametrize("seconds", [0, 0.5, 2.0])
def test_a_step_back_is_got_over(timers: Timers, seconds: float) -> None:
    timers.set("x", seconds)
    timers.reactor.step(-HOUR)
    timers.reactor.spend(100.0)
    ((_, when),) = timers.called
    assert max(seconds, WATCH_SECONDS) + 1e-3 >= when >= seconds


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_a_step_forward_calls_nothing_early(timers: Timers, seconds: float) -> None:
    timers.set("x", seconds)
    timers.reactor.step(HOUR)
    timers.reactor.spend(100.0)
    assert [when for _, when in timers.called] == approx([seconds])


@pytest.mark.parametrize("seed", range(5))
def test_steps_at_any_time(seed: int) -> None:
    """Whatever the wall clock does, no call is early, and none later than until the clocks are next compared."""
    rng, timers = Random(seed), Timers()
    due: dict[str, float] = {}
    stepped_at = 0.0
    for number in range(300):
        if rng.random() < 0.4 and timers.clock.seconds() - stepped_at > 2 * WATCH_SECONDS:
            stepped_at = timers.clock.seconds()
            timers.reactor.step(rng.choice((-HOUR, HOUR, rng.uniform(-5.0, 5.0))))
        seconds = rng.choice((0.0, rng.uniform(0.0, 1.0)))
        due[str(number)] = timers.clock.seconds() - timers._began + seconds
        timers.set(str(number), seconds)
        timers.reactor.spend(rng.uniform(0.0, 0.1))
    timers.reactor.spend(5.0)
    assert sorted(timers.names) == sorted(due)
    for name, when in timers.called:
        assert due[name] <= when <= due[name] + WATCH_SECONDS + 0.01, name


def test_it_is_a_reactor_s_time() -> None:
    assert verifyObject(IReactorTime, monotonic_clock(Reactor()))
    seconds: list[float] = []
    reactor = Reactor()
    looping = LoopingCall(lambda: seconds.append(reactor.monotonic()))
    looping.clock = monotonic_clock(reactor)
    looping.start(0.5)
    reactor.step(-HOUR)
    reactor.spend(2.1)
    assert len(seconds) == 5
    looping.stop()


def test_a_time_that_a_test_moves_is_taken_as_it_is() -> None:
    clock = Clock()
    called: list[float] = []
    monotonic_clock(clock).callLater(5.0, lambda: called.append(clock.seconds()))
    clock.advance(4.9)
    assert called == []
    clock.advance(0.2)
    assert called == approx([5.1])


# ------------------------------------------------------------------ the real reactor


async def test_a_real_reactor_has_one_clock() -> None:
    clock = monotonic_clock(real)
    assert monotonic_clock(real) is clock
    assert monotonic_clock(MonotonicReactor(real)) is clock
    await deferLater(clock, 0.001)
    assert real.seconds is not clock.seconds


async def test_a_reactor_that_keeps_monotonic_time() -> None:
    assert IReactorTCP.providedBy(MonotonicReactor(real))
    reactor: Any = MonotonicReactor(real)
    began = reactor.seconds()
    await deferLater(reactor, 0.01)
    assert reactor.seconds() - began >= 0.01
    assert reactor.installed == real.installed


async def test_the_thread_ends_when_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins again with the next timer; a step is noticed by both."""
    monkeypatch.setattr(clock_module, "WATCH_SECONDS", 0.002)
    monkeypatch.setattr(clock_module, "IDLE_WATCHES_MAX", 3)
    stepped = [0.0]

    class Stepping:
        """The real reactor, but for its clock."""

        def seconds(self) -> float:
            return float(real.seconds() + stepped[0])

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    clock = MonotonicClock(Stepping(), MonotonicReactor(real).seconds)
    for _ in range(2):
        checked: Deferred[None] = Deferred()
        monkeypatch.setattr(clock, "check", lambda checked=checked: checked.callback(None))
        call = clock.callLater(60.0, lambda: None)
        assert clock._watcher is not None
        thread = clock._watcher._thread
        assert thread is not None
        stepped[0] -= HOUR
        await checked.addTimeout(20.0, real)
        call.cancel()
        await real_thread_end(thread)
        assert clock._watcher._thread is None


async def real_thread_end(thread: Any) -> None:
    while thread.is_alive():
        await deferLater(real, 0.002)


def test_seconds_with_sleep_are_those_of_the_machine_or_of_the_test() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= seconds_with_sleep(installed_reactor)() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    simulated = Clock()
    simulated.advance(7.0)
    assert seconds_with_sleep(simulated)() == 7.0


STEPPED = """\
import sys, time
step, began, real_time = float(sys.argv[1]), time.monotonic(), time.time
time.time = lambda: real_time() + (step if time.monotonic() - began > 0.5 else 0.0)
from twisted.internet import base, reactor
base.seconds = time.time
type(reactor).seconds = staticmethod(lambda: time.time())
from twisted.internet.task import react
from txpaxos import Client, Cluster, NotChosen, ServedNode
from txpaxos.counter import Counter

async def main(reactor):
    cluster = Cluster.load("cluster.toml")
    client = Client(reactor, cluster)
    try:
        await client.submit(b"+1", deadline_seconds=1.5)
    except NotChosen:
        print("deadline", time.monotonic() - began < 30, flush=True)
    waiting = client.submit(b"+5")
    served = ServedNode(Counter, "a", cluster, "data", reactor=reactor)
    served.start()
    print("answer", await waiting, flush=True)
    print("clock", abs(reactor.seconds() - time.time()) < 1, flush=True)
    client.close()
    await served.stop()

react(main)
"""


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_client_in_an_ordinary_program(step: float, tmp_path: Path) -> None:
    """Its deadline is kept, it finds the node that comes later, and the program's own clock is the wall clock still."""
    member = Member(*(Address("127.0.0.1", port) for port in free_ports(2)))
    (tmp_path / "cluster.toml").write_text(Cluster("own", {"a": member}).dumps())
    program = [sys.executable, "-c", STEPPED, str(step)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("deadline True\nanswer 5\nclock True\n", 0), done.stderr
