"""By how much the reactor is late: what holds it up, holds up heartbeats and answers, too."""

from __future__ import annotations

from txpaxos.clock import MonotonicClock
from txpaxos.metrics.meter import Meter

STALL_SECONDS = 0.05
"""How often the reactor is asked."""


class Stalls:
    """Measures by how much a timer comes late, again and again, until it is stopped.

    :param clock: the timers of the node.
    :param meter: is told of each.
    """

    def __init__(self, clock: MonotonicClock, meter: Meter) -> None:
        self._clock = clock
        self._meter = meter
        self._begin()

    def stop(self) -> None:
        """Measure no more. It may be called again."""
        if self._call.active():
            self._call.cancel()

    def _begin(self) -> None:
        self._due = self._clock.seconds() + STALL_SECONDS
        self._call = self._clock.callLater(STALL_SECONDS, self._late)

    def _late(self) -> None:
        self._meter.stalls.observe(max(0.0, self._clock.seconds() - self._due))
        self._begin()
