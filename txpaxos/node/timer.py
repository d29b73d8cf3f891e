"""One timer for all that a node has to do in time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """Calls ``ring`` when the clock has reached the earliest of the times it was given since it rang last.

    An owner whose next duty is put off all the time need not say so: the alarm rings at the old time, which does no
    harm, and is told the new one then.

    :param clock: counts monotonic seconds (:mod:`txpaxos.clock`).
    """

    def __init__(self, clock: IReactorTime, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._call: IDelayedCall | None = None
        self._ring_at = 0.0

    def ring_by(self, ring_at: float) -> None:
        """Ring at ``ring_at``, unless it rings sooner anyway."""
        if self._call is None:
            self._ring_at = ring_at
            self._call = self._clock.callLater(max(0.0, ring_at - self._clock.seconds()), self._fire)
        elif ring_at < self._ring_at:
            self._ring_at = ring_at
            self._call.reset(max(0.0, ring_at - self._clock.seconds()))

    def cancel(self) -> None:
        """Do not ring."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _fire(self) -> None:
        self._call = None
        self._ring()
