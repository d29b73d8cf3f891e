"""Timers that keep monotonic time, whatever clock their reactor has.

Twisted's reactor counts by the wall clock. When that is set back by an hour, every timer of the process waits an hour
longer; when it is set forward, every timer is due at once. A program may not cure that by giving the reactor another
clock: other services in the process date their logs by it. So nodes and clients take their timers from a
:class:`MonotonicClock`, which lies on top of the reactor's.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import directlyProvides, implementer, providedBy

WATCH_SECONDS = 0.1
"""How often the two clocks are compared while a timer is set, so how late a timer may be when the wall clock steps."""

STEP_SECONDS = 0.01
"""The clocks may drift apart by so much before that counts as a step."""

IDLE_WATCHES_MAX = 50
"""After so many in a row without a timer, the thread that compares the clocks ends."""

REARM_SECONDS_MIN = 1e-6
"""A timer that was woken too early waits at least so long, so that rounding cannot make it spin."""


STALE_MAX = 64
"""So many entries, and four times as many as calls are to come, may stand in the queue before it is cleared of the
others."""


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
        """Whether it is still to come."""
        return self._state is None

    def cancel(self) -> None:
        """Do not call."""
        self._end(AlreadyCancelled)
        self._clock.ended()

    def reset(self, secondsFromNow: float) -> None:
        """Call so many seconds from now instead."""
        self._check()
        self.when = self._clock.seconds() + secondsFromNow
        self._clock.schedule(self)

    def delay(self, secondsLater: float) -> None:
        """Call so many seconds later."""
        self._check()
        self.when += secondsLater
        self._clock.schedule(self)

    def getTime(self) -> float:
        """When it is due, on its own clock."""
        return self.when

    def is_due_at(self, when: float) -> bool:
        """Whether it is still to come, and at ``when``."""
        return self._state is None and self.when == when

    def run(self) -> None:
        """Call."""
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
    """A clock with timers, on top of a reactor's.

    Of all timers the earliest is set with the reactor. What wakes it too early is passed over. What would wake it too
    late, a step back of the wall clock, only another source of time can notice: for a real reactor a thread compares
    the clocks while any timer is set. A reactor whose time is simulated says itself when its clock steps, with a method
    ``watch_clock`` that takes a function to be called then.

    :param reactor: provides ``IReactorTime``.
    :param monotonic: monotonic seconds.
    """

    def __init__(self, reactor: Any, monotonic: Callable[[], float]) -> None:
        self.seconds = monotonic
        self._reactor = reactor
        self._live = 0
        self._numbers = itertools.count()
        # A heap. What is not due when its call is any more is passed over.
        self._queue: list[tuple[float, int, TimedCall]] = []
        self._timer: IDelayedCall | None = None
        self._timer_at = 0.0
        # Those that are due at once, each with its time, and the reactor's call for all of them. A call that cannot be
        # cancelled is just a function.
        self._soon: deque[tuple[TimedCall | Callable[[], object], float]] = deque()
        self._soon_timer: IDelayedCall | None = None
        self._watcher: _StepWatcher | None = None
        if hasattr(reactor, "watch_clock"):
            reactor.watch_clock(self.check)
        elif is_real(reactor):
            self._watcher = _StepWatcher(reactor, self)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> TimedCall:
        """As in Twisted."""
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
        """Call ``function`` in the reactor's next turn, as ``callLater(0, function)`` does, for less: there is no way
        back."""
        self._soon.append((function, 0.0))
        if self._soon_timer is None:
            self._soon_timer = self._reactor.callLater(0, self._run_soon)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """As in Twisted."""
        entries = [*self._soon, *((call, when) for when, _, call in self._queue)]
        calls = (call for call, when in entries if isinstance(call, TimedCall) and call.is_due_at(when))
        return list(dict.fromkeys(calls))

    @property
    def is_idle(self) -> bool:
        """Whether no timer is set."""
        return not self._live

    # from a call

    def schedule(self, call: TimedCall) -> None:
        """``call`` is due at a time that is new."""
        heapq.heappush(self._queue, (call.when, next(self._numbers), call))
        if self._timer is None or call.when < self._timer_at:
            self._set_timer(call.when)

    def ended(self) -> None:
        """A call was made or cancelled."""
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
        """The reactor's clock has stepped: its calls are not due when they should be."""
        if self._timer is not None:
            self._set_timer(self._timer_at)
        if self._soon_timer is not None:
            self._soon_timer.reset(0)

    def _run_soon(self) -> None:
        self._soon_timer = None
        count = len(self._soon)  # What comes up meanwhile has the reactor's next turn.
        try:
            while count:
                count -= 1
                call, when = self._soon.popleft()
                if type(call) is not TimedCall:
                    call()  # type: ignore[operator]
                elif call.is_due_at(when):
                    call.run()
        finally:  # If one raises, that is the reactor's to log, and the others are called all the same.
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
    """A thread that compares a reactor's clock with the monotonic one, while any timer is set.

    It looks at two clocks and wakes nobody, unless one has stepped.
    """

    def __init__(self, reactor: Any, clock: MonotonicClock) -> None:
        self._reactor = reactor
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._offset = 0.0

    def watch(self) -> None:
        """A timer is set."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # It does not survive a fork.
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
    """A reactor whose time and timers are a :class:`MonotonicClock`'s, for a program that measures time with it. The
    reactor itself, and what others do with it, stays as it is."""

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
    """Whether a reactor's time is that of the machine, and not one that a test moves."""
    return hasattr(reactor, "callFromThread") and not isinstance(reactor, Clock)


def monotonic_clock(reactor: Any, monotonic: Callable[[], float] | None = None) -> MonotonicClock:
    """The clock of nodes and clients that run in ``reactor``.

    :param monotonic: monotonic seconds. Unless given: the machine's, or, where a reactor's time is simulated, its
        method ``monotonic``, or else its own time, which then does not step.
    """
    if isinstance(reactor, MonotonicReactor):
        return reactor.clock
    if is_real(reactor) and monotonic in (None, time.monotonic):
        clock = _clocks.get(reactor)
        if clock is None:
            clock = _clocks[reactor] = MonotonicClock(reactor, time.monotonic)
        return clock
    return MonotonicClock(reactor, monotonic or getattr(reactor, "monotonic", None) or reactor.seconds)
