"""Timers that keep monotonic time, whatever clock their reactor has.

Twisted's reactor counts by the wall clock. When the wall clock is set back by an hour, every timer of the process waits
an hour longer; when it is set forward, timers are due too early. Giving the reactor another clock would not do: other
services in the process date their logs by it. So nodes and clients take their timers from a :class:`MonotonicClock`,
which is built on the timers of the reactor.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import directlyProvides, implementer, providedBy

WATCH_SECONDS = 0.1
"""The interval at which the two clocks are compared while a timer is set. After a step of the wall clock a timer may be
late by as much."""

STEP_SECONDS = 0.01
"""A difference between the clocks that has changed by more counts as a step."""

IDLE_WATCHES_MAX = 50
"""After this number of comparisons in a row without a timer, the thread that compares the clocks ends."""

REARM_SECONDS_MIN = 1e-6
"""The least wait of a timer that was woken too early, so that rounding cannot make it spin."""

STALE_MAX = 64
"""The queue is cleared of stale entries when it has more than this number, and four entries for each active call."""


@implementer(IDelayedCall)
class TimedCall:
    """A call that is due at a monotonic time."""

    __slots__ = ("_clock", "_state", "args", "function", "kwargs", "when")

    def __init__(
        self,
        clock: MonotonicClock,
        when: float,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._clock = clock
        self._state: type[Exception] | None = None
        self.when = when
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def active(self) -> bool:
        """Whether the call is still to come."""
        return self._state is None

    def cancel(self) -> None:
        """Cancel the call."""
        self._end(AlreadyCancelled)
        self._clock.ended()

    def reset(self, secondsFromNow: float) -> None:
        """Have the call made ``secondsFromNow`` seconds from now instead."""
        self._check()
        self.when = self._clock.seconds() + secondsFromNow
        self._clock.schedule(self)

    def delay(self, secondsLater: float) -> None:
        """Have the call made ``secondsLater`` seconds later."""
        self._check()
        self.when += secondsLater
        self._clock.schedule(self)

    def getTime(self) -> float:
        """When the call is due, in seconds of its own clock."""
        return self.when

    def is_due_at(self, when: float) -> bool:
        """Whether the call is still to come, and is due at ``when``."""
        return self._state is None and self.when == when

    def run(self) -> None:
        """Make the call."""
        self._end(AlreadyCalled)
        self._clock.ended()
        self.function(*self.args, **self.kwargs)

    def _end(self, state: type[Exception]) -> None:
        self._check()
        self._state = state

    def _check(self) -> None:
        if self._state is not None:
            raise self._state


@implementer(IReactorTime)
class MonotonicClock:
    """A clock with timers of its own, built on one timer of a reactor.

    The reactor's timer is set for the earliest call. If it fires too early, it is set again. It would fire too late
    after the wall clock is set back, which only another source of time can notice. So, for a real reactor, a thread
    compares the clocks while any timer is set. A reactor with simulated time reports a step by itself: its method
    ``watch_clock`` takes a function to be called then.

    :param reactor: provides ``IReactorTime``.
    :param monotonic: returns monotonic seconds.
    """

    def __init__(self, reactor: Any, monotonic: Callable[[], float]) -> None:
        self.seconds = monotonic
        self._reactor = reactor
        self._live = 0
        self._numbers = itertools.count()
        # A heap. An entry whose time is not that of its call any more is stale, and is skipped.
        self._queue: list[tuple[float, int, TimedCall]] = []
        self._timer: IDelayedCall | None = None
        self._timer_at = 0.0
        # Calls that are due at once, each with its time. One call of the reactor makes them all. A call that cannot be
        # cancelled is just a function.
        self._soon: deque[tuple[TimedCall | Callable[[], object], float]] = deque()
        self._soon_timer: IDelayedCall | None = None
        self._watcher: _StepWatcher | None = None
        if hasattr(reactor, "watch_clock"):
            reactor.watch_clock(self.check)
        elif is_real(reactor):
            self._watcher = _StepWatcher(reactor, self)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> TimedCall:
        """See ``IReactorTime``."""
        call = TimedCall(self, self.seconds() + delay, callable, args, kw)
        self._live += 1
        if self._live == 1 and self._watcher is not None:
            self._watcher.watch()
        if delay <= 0:
            self._soon.append((call, call.when))
            if self._soon_timer is None:
                self._soon_timer = self._reactor.callLater(0, self._run_soon)
        else:
            self.schedule(call)
        return call

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call ``function`` in the reactor's next iteration. This is cheaper than ``callLater(0, function)``, and the
        call cannot be cancelled."""
        self._soon.append((function, 0.0))
        if self._soon_timer is None:
            self._soon_timer = self._reactor.callLater(0, self._run_soon)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """See ``IReactorTime``."""
        entries = [*self._soon, *((call, when) for when, _, call in self._queue)]
        calls = (call for call, when in entries if isinstance(call, TimedCall) and call.is_due_at(when))
        return list(dict.fromkeys(calls))

    @property
    def is_idle(self) -> bool:
        """Whether no timer is set."""
        return not self._live

    # from a call

    def schedule(self, call: TimedCall) -> None:
        """Note that ``call`` has a new time."""
        heapq.heappush(self._queue, (call.when, next(self._numbers), call))
        if self._timer is None or call.when < self._timer_at:
            self._set_timer(call.when)

    def ended(self) -> None:
        """Note that a call was made or cancelled."""
        self._live -= 1
        if not self._live:
            self._queue.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif len(self._queue) > STALE_MAX + 4 * self._live:
            self._queue = [entry for entry in self._queue if entry[2].is_due_at(entry[0])]
            heapq.heapify(self._queue)

    # from the reactor

    def check(self) -> None:
        """Set the reactor's timers again, since its clock has stepped."""
        if self._timer is not None:
            self._set_timer(self._timer_at)
        if self._soon_timer is not None:
            self._soon_timer.reset(0)

    def _run_soon(self) -> None:
        self._soon_timer = None
        count = len(self._soon)  # Calls that are added meanwhile wait for the reactor's next iteration.
        try:
            while count:
                count -= 1
                call, when = self._soon.popleft()
                if type(call) is not TimedCall:
                    call()  # type: ignore[operator]
                elif call.is_due_at(when):
                    call.run()
        finally:  # If a call raises, the reactor logs that, and the remaining calls are made in its next iteration.
            if self._soon and self._soon_timer is None:
                self._soon_timer = self._reactor.callLater(0, self._run_soon)

    def _run_due(self) -> None:
        self._timer = None
        now = self.seconds()
        queue = self._queue
        try:
            while queue and queue[0][0] <= now:
                when, _, call = heapq.heappop(queue)
                if call.is_due_at(when):
                    call.run()
                queue = self._queue
        finally:
            queue = self._queue
            while queue and not queue[0][2].is_due_at(queue[0][0]):
                heapq.heappop(queue)
            if queue and (self._timer is None or queue[0][0] < self._timer_at):
                self._set_timer(queue[0][0])

    def _set_timer(self, when: float) -> None:
        self._timer_at = when
        seconds = max(REARM_SECONDS_MIN, when - self.seconds())
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._run_due)
        else:
            self._timer.reset(seconds)


class _StepWatcher:
    """A thread that compares a reactor's clock with the monotonic clock while any timer is set.

    It does not wake the reactor unless the reactor's clock has stepped.
    """

    def __init__(self, reactor: Any, clock: MonotonicClock) -> None:
        self._reactor = reactor
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._offset = 0.0

    def watch(self) -> None:
        """Start the thread, unless it runs, since a timer is set."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # A thread does not survive a fork.
                self._offset = self._difference()
                self._thread = threading.Thread(target=self._watch, name="txpaxos clock", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(WATCH_SECONDS)
            difference = self._difference()
            if abs(difference - self._offset) > STEP_SECONDS:
                self._offset = difference
                self._reactor.callFromThread(self._clock.check)
            idle = idle + 1 if self._clock.is_idle else 0
            if idle > IDLE_WATCHES_MAX:
                with self._lock:
                    if self._clock.is_idle:
                        self._thread = None
                        return

    def _difference(self) -> float:
        difference: float = self._reactor.seconds() - self._clock.seconds()
        return difference


class MonotonicReactor:
    """A reactor with the time and the timers of a :class:`MonotonicClock`, for a program that measures time with it.

    The wrapped reactor is not changed."""

    def __init__(self, reactor: Any) -> None:
        self.clock = monotonic_clock(reactor)
        self.seconds = self.clock.seconds
        self.callLater = self.clock.callLater
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


_clocks: WeakKeyDictionary[Any, MonotonicClock] = WeakKeyDictionary()


def is_real(reactor: Any) -> bool:
    """Whether a reactor's time is that of the machine, and not moved by a test."""
    return hasattr(reactor, "callFromThread") and not isinstance(reactor, Clock)


def seconds_with_sleep(reactor: Any) -> Callable[[], float]:
    """Monotonic seconds that go on while the machine sleeps, where it has such a clock. In a reactor with simulated
    time they are those of its monotonic clock."""
    boot: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if is_real(reactor) and boot is not None:
        return partial(time.clock_gettime, boot)
    return monotonic_clock(reactor).seconds


def monotonic_clock(reactor: Any, monotonic: Callable[[], float] | None = None) -> MonotonicClock:
    """The clock for nodes and clients that run in ``reactor``. They share one clock in a real reactor.

    :param monotonic: returns monotonic seconds. By default, those of the machine; in a reactor with simulated time,
        those of its method ``monotonic``, or of its ``seconds`` if it has none.
    """
    if isinstance(reactor, MonotonicReactor):
        return reactor.clock
    if is_real(reactor) and monotonic in (None, time.monotonic):
        clock = _clocks.get(reactor)
        if clock is None:
            clock = _clocks[reactor] = MonotonicClock(reactor, time.monotonic)
        return clock
    return MonotonicClock(reactor, monotonic or getattr(reactor, "monotonic", None) or reactor.seconds)
