"""One timer for all that a node has to do in time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timer:
    """Calls ``fire`` at the earliest of the times that were scheduled since the last call.

    There is no way to postpone a call. An owner whose next duty moves to a later time leaves the timer as it is: the
    timer fires at the earlier time, finds nothing due, and is given the later time then.

    :param clock: counts monotonic seconds (:mod:`txpaxos.clock`).
    """

    def __init__(self, clock: IReactorTime, fire: Callable[[], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._call: IDelayedCall | None = None
        self._fire_at = 0.0

    def schedule_no_later_than(self, fire_at: float) -> None:
        """Fire at ``fire_at``, unless an earlier time is scheduled already."""
        if self._call is None:
            self._fire_at = fire_at
            self._call = self._clock.callLater(max(0.0, fire_at - self._clock.seconds()), self._expire)
        elif fire_at < self._fire_at:
            self._fire_at = fire_at
            self._call.reset(max(0.0, fire_at - self._clock.seconds()))

    def cancel(self) -> None:
        """Forget the scheduled time: nothing fires until another time is scheduled."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _expire(self) -> None:
        self._call = None
        self._fire()
