"""Simulated time: one queue of events for all processes, and a reactor's clock for each process in it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from txpaxos.clock import WATCH_SECONDS

TICK_SECONDS = 1e-7
"""No timer is more exact than this."""

EVENTS_AT_ONCE_MAX = 100_000
"""More events in one moment than this mean that they cause each other without end."""


@implementer(IDelayedCall)
class SimulatedCall:
    """A call that is due. Twisted's interface, without its cost."""

    __slots__ = ("_clock", "_work", "args", "function", "kwargs", "when")

    def __init__(self, clock: ProcessClock, when: float, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._clock = clock
        self.when = when
        self.function: Callable[..., Any] | None = function
        self.args = args
        self.kwargs = kwargs

    def active(self) -> bool:
        """Whether it is still to come."""
        return self.function is not None

    def cancel(self) -> None:
        """Do not call."""
        self._check()
        self.function = None
        self.when = -1.0
        self._clock.forget_call(self)

    def reset(self, delay: float) -> None:
        """Call ``delay`` seconds from now instead."""
        self._check()
        self.when = self._clock.due(delay)
        self._clock.time.at(self.when, self._clock.run_call, self, self.when)

    def delay(self, delay: float) -> None:
        """Call so many seconds later."""
        self._check()
        self.when += delay
        self._clock.time.at(self.when, self._clock.run_call, self, self.when)

    def getTime(self) -> float:
        """When it is due, on its reactor's clock."""
        return self._clock.local(self.when) + self._clock.wall_offset

    def _check(self) -> None:
        if self.function is None:
            raise AlreadyCancelled if self.when < 0 else AlreadyCalled


class SimulatedTime:
    """The queue of events. Those of one moment happen in the order in which they were put in.

    :ivar now: the true time, in seconds since the simulation began.
    :ivar events: how many have happened.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._events_now = 0
        self._queue: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = itertools.count()

    def at(self, when: float, function: Callable[..., Any], *args: Any) -> None:
        """Have ``function`` called at ``when``."""
        heapq.heappush(self._queue, (when, next(self._count), function, args))

    def after(self, seconds: float, function: Callable[..., Any], *args: Any) -> None:
        """Have ``function`` called ``seconds`` from now."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._count), function, args))

    def step(self) -> bool:
        """Let the next event happen; whether there was one."""
        if not self._queue:
            return False
        when, _, function, args = heapq.heappop(self._queue)
        if when > self.now:
            self.now = when
            self._events_now = 0
        self._events_now += 1
        self.events += 1
        assert self._events_now < EVENTS_AT_ONCE_MAX, f"time stands still at {self.now}: {function}"
        function(*args)
        return True

    def run_until(self, when: float) -> None:
        """Let everything happen up to ``when``."""
        queue = self._queue
        while queue and queue[0][0] <= when:
            self.step()
        self.now = max(self.now, when)


@implementer(IReactorTime)
class ProcessClock:
    """The clock of one process: it may drift, its wall clock may step, and a process that stands still misses time.

    :ivar rate: seconds it counts while a true one passes.
    :ivar wall_offset: what its wall clock is off by; :meth:`seconds` is that clock, as in Twisted.
    """

    def __init__(self, time: SimulatedTime, rate: float = 1.0) -> None:
        self.time = time
        self.rate = rate
        self.wall_offset = 0.0
        self.alive = True
        self._paused_until = 0.0
        self._calls: dict[SimulatedCall, None] = {}
        self._watchers: list[Callable[[], None]] = []

    def seconds(self) -> float:
        """The wall clock."""
        return self.local(self.time.now) + self.wall_offset

    def monotonic(self) -> float:
        """The monotonic clock: it drifts, and never steps."""
        return self.local(self.time.now)

    def local(self, when: float) -> float:
        """What the monotonic clock shows at the true time ``when``."""
        return 1000.0 + when * self.rate

    def due(self, delay: float) -> float:
        """The true time ``delay`` of this clock's seconds from now; not a moment too soon for rounding's sake."""
        return self.time.now + delay / self.rate + (TICK_SECONDS if delay > 0 else 0.0)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> SimulatedCall:
        """As in Twisted."""
        call = SimulatedCall(self, self.due(delay), callable, args, kw)
        self._calls[call] = None
        self.time.at(call.when, self.run_call, call, call.when)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Not kept; nobody here needs it."""
        return []

    def forget_call(self, call: SimulatedCall) -> None:
        """The call was made, or cancelled."""
        self._calls.pop(call, None)

    def watch_clock(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` soon after each step of the wall clock, as a thread that compares the clocks would."""
        self._watchers.append(watcher)

    def step_wall_clock(self, seconds: float) -> None:
        """The wall clock steps, and Twisted's timers with it: those that are set are due sooner, or later."""
        for watcher in self._watchers:
            self.time.after(WATCH_SECONDS / self.rate, self.run, watcher)
        self.wall_offset += seconds
        for call in self._calls:
            call.when = max(self.time.now, call.when - seconds / self.rate)
            self.time.at(call.when, self.run_call, call, call.when)

    def pause(self, seconds: float) -> None:
        """Stand still: what is due meanwhile happens at the end."""
        self._paused_until = max(self._paused_until, self.time.now + seconds)

    def resume_at(self) -> float | None:
        """When the process goes on, if it stands still now."""
        return self._paused_until if self._paused_until > self.time.now else None

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Let something happen in this process: now, when it goes on, or never if it is dead."""
        if not self.alive:
            return
        resume_at = self.resume_at()
        if resume_at is not None:
            self.time.at(resume_at, self.run, function, *args)
        else:
            function(*args)

    def run_call(self, call: SimulatedCall, when: float) -> None:
        """A timer's moment has come, unless it was cancelled or put off."""
        if self.alive and call.function is not None and call.when == when:
            resume_at = self.resume_at()
            if resume_at is not None:
                call.when = resume_at
                self.time.at(resume_at, self.run_call, call, resume_at)
                return
            function, call.function = call.function, None
            self.forget_call(call)
            function(*call.args, **call.kwargs)

    def kill(self) -> None:
        """Nothing happens in this process any more."""
        self.alive = False
