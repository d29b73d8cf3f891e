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
"""The resolution of timers."""

EVENTS_AT_ONCE_MAX = 100_000
"""More events than this at one moment mean that events cause each other without end."""


@implementer(IDelayedCall)
class SimulatedCall:
    """A scheduled call. It has Twisted's interface, without Twisted's cost."""

    __slots__ = ("_clock", "_work", "args", "function", "kwargs", "when")

    def __init__(self, clock: ProcessClock, when: float, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._clock = clock
        self.when = when
        self.function: Callable[..., Any] | None = function
        self.args = args
        self.kwargs = kwargs

    def active(self) -> bool:
        """Whether the call is still to come."""
        return self.function is not None

    def cancel(self) -> None:
        """Do not make the call."""
        self._check()
        self.function = None
        self.when = -1.0
        self._clock.forget_call(self)

    def reset(self, delay: float) -> None:
        """Make the call ``delay`` seconds from now instead."""
        self._check()
        self.when = self._clock.due(delay)
        self._clock.time.at(self.when, self._clock.run_call, self, self.when)

    def delay(self, delay: float) -> None:
        """Make the call ``delay`` seconds later."""
        self._check()
        self.when += delay
        self._clock.time.at(self.when, self._clock.run_call, self, self.when)

    def getTime(self) -> float:
        """When the call is due, on its reactor's clock."""
        return self._clock.local(self.when) + self._clock.wall_offset

    def _check(self) -> None:
        if self.function is None:
            raise AlreadyCancelled if self.when < 0 else AlreadyCalled


class SimulatedTime:
    """The queue of events. Events of one moment happen in the order in which they were added.

    :ivar now: the true time, in seconds since the simulation began.
    :ivar events: how many events have happened.
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
        """Let the next event happen. Returns whether there was one."""
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
        """Let every event up to ``when`` happen."""
        queue = self._queue
        while queue and queue[0][0] <= when:
            self.step()
        self.now = max(self.now, when)


@implementer(IReactorTime)
class ProcessClock:
    """The clock of one process. It may drift, its wall clock may step, and a paused process misses time.

    :ivar rate: how many seconds the clock counts in one true second.
    :ivar wall_offset: how far the wall clock is off. :meth:`seconds` is the wall clock, as in Twisted.
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
        """The monotonic clock. It drifts, and never steps."""
        return self.local(self.time.now)

    def local(self, when: float) -> float:
        """What the monotonic clock shows at the true time ``when``."""
        return 1000.0 + when * self.rate

    def due(self, delay: float) -> float:
        """The true time ``delay`` of this clock's seconds from now. Rounding never makes it too early."""
        return self.time.now + delay / self.rate + (TICK_SECONDS if delay > 0 else 0.0)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> SimulatedCall:
        """As in Twisted."""
        call = SimulatedCall(self, self.due(delay), callable, args, kw)
        self._calls[call] = None
        self.time.at(call.when, self.run_call, call, call.when)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Empty: no caller of the simulator needs the calls."""
        return []

    def forget_call(self, call: SimulatedCall) -> None:
        """Forget a call that was made or cancelled."""
        self._calls.pop(call, None)

    def watch_clock(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` soon after each step of the wall clock, as a thread that compares the clocks would."""
        self._watchers.append(watcher)

    def step_wall_clock(self, seconds: float) -> None:
        """Step the wall clock, and Twisted's timers with it: a timer that is set fires earlier or later."""
        for watcher in self._watchers:
            self.time.after(WATCH_SECONDS / self.rate, self.run, watcher)
        self.wall_offset += seconds
        for call in self._calls:
            call.when = max(self.time.now, call.when - seconds / self.rate)
            self.time.at(call.when, self.run_call, call, call.when)

    def pause(self, seconds: float) -> None:
        """Pause the process. Events that are due meanwhile happen at the end of the pause."""
        self._paused_until = max(self._paused_until, self.time.now + seconds)

    def resume_at(self) -> float | None:
        """When the process resumes; ``None`` if it is not paused."""
        return self._paused_until if self._paused_until > self.time.now else None

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function`` in this process: now, or when the process resumes. In a dead process nothing is called."""
        if not self.alive:
            return
        resume_at = self.resume_at()
        if resume_at is not None:
            self.time.at(resume_at, self.run, function, *args)
        else:
            function(*args)

    def run_call(self, call: SimulatedCall, when: float) -> None:
        """Make a timer's call, unless the timer was cancelled or reset."""
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
        """End the process. No event happens in it any more."""
        self.alive = False
