"""One timer that keeps monotonic time, whatever clock its reactor has."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

CLOCK_STEP_SECONDS = 1.0
"""The reactor's clock may drift so far from the monotonic one before that counts as a step."""


class Alarm:
    """Calls ``ring`` when the monotonic clock has reached the earliest of the times it was given since it rang last.

    An owner whose next duty is put off all the time need not say so: the alarm rings at the old time, which does no
    harm, and is told the new one then.

    Twisted's own clock is the wall clock unless somebody changed that: a step forward fires every timer at once, a step
    back stalls them. Ringing early does no harm here; after a step back the alarm sets itself anew at the next
    :meth:`check`, which the owner calls whenever something arrives. Until then it is silent.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, monotonic: Callable[[], float], ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._ring = ring
        self._call: IDelayedCall | None = None
        self._ring_at = 0.0
        self._offset = reactor.seconds() - monotonic()
        if abs(reactor.seconds() - time.time()) < CLOCK_STEP_SECONDS:
            self.log.warn(
                "the reactor's clock is the wall clock: if that is set back while nothing is under way, this node waits"
                " until something arrives; reactor.seconds = time.monotonic, before anything is scheduled, cures that"
            )

    def ring_by(self, ring_at: float) -> None:
        """Ring at ``ring_at`` (monotonic seconds), unless it rings sooner anyway."""
        if self._call is None:
            self._ring_at = ring_at
            self._call = self._reactor.callLater(max(0.0, ring_at - self._monotonic()), self._fire)
        elif ring_at < self._ring_at:
            self._ring_at = ring_at
            self._call.reset(max(0.0, ring_at - self._monotonic()))

    def check(self, now: float) -> None:
        """Notice a step of the reactor's clock, and ring if the alarm is overdue."""
        step = self._reactor.seconds() - now - self._offset
        if abs(step) > CLOCK_STEP_SECONDS:
            self.log.warn("the reactor's clock stepped by {step:+.1f} s", step=step)
            self._offset += step
            if self._call is not None:
                self._call.reset(max(0.0, self._ring_at - now))
        if self._call is not None and now >= self._ring_at:
            self.cancel()
            self._ring()

    def cancel(self) -> None:
        """Do not ring."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _fire(self) -> None:
        self._call = None
        self._ring()
