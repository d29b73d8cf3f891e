"""Timers as clients see them: what a client was told of a kept-alive timer, and when it fired."""

from __future__ import annotations

from typing import NamedTuple

from txpaxos.core.messages import NodeId, Slot
from txpaxos.node.timers import Timers

CLOCK_RATE_MAX = 1.25
"""How fast the fastest simulated clock goes. A period may be that much shorter in true time."""


ROUNDING_SECONDS = 0.001
"""The time in the log is in whole milliseconds, rounded down. So a timer may fire up to one before its period ends."""


class _Moment(NamedTuple):
    """What the nodes agree on at one slot.

    :ivar timers: a hash of the timers, as a snapshot would have them.
    """

    elapsed_ms: int
    utc_ms: int
    timers: int


class ObservedTimers:
    """The replicated time at each slot, and the kept-alive timers of simulated clients."""

    def __init__(self) -> None:
        self._moments: dict[Slot, _Moment] = {}
        self._periods: dict[str, float] = {}
        self._safe_until: dict[str, float] = {}
        # By name, where and when each timer fired first.
        self._fired: dict[str, tuple[Slot, float]] = {}

    def applied(self, slot: Slot, timers: Timers, now: float) -> str:
        """A node has applied ``slot``, at ``now`` in true seconds, and has these timers.

        :returns: the rule that is broken; empty if none is.
        """
        now_ms, dump = timers.now, b"".join(timers.dump()) if len(timers) else b""
        moment = _Moment(now_ms.elapsed_ms, now_ms.utc_ms, hash(dump))
        if moment != self._moments.setdefault(slot, moment):
            return "equal times, and equal timers"
        before = self._moments.get(slot - 1, moment)
        if not before.elapsed_ms <= moment.elapsed_ms <= now * 1000 * CLOCK_RATE_MAX or moment.utc_ms < before.utc_ms:
            return "time goes on, and no faster than clocks do"
        return ""

    def set(self, name: str, period_seconds: float) -> None:
        """A client is about to have a kept-alive timer set."""
        self._periods[name] = period_seconds

    def confirmed(self, name: str, called_at: float) -> str:
        """A client is told that its call at ``called_at`` has set the timer, or has kept it alive.

        :returns: the rule that is broken; empty if none is.
        """
        safe_until = called_at + (self._periods[name] - ROUNDING_SECONDS) / CLOCK_RATE_MAX
        self._safe_until[name] = max(safe_until, self._safe_until.get(name, 0.0))
        return self._check_safe(name)

    def gone(self, name: str) -> str:
        """A client is told that there is no such timer.

        :returns: the rule that is broken; empty if none is.
        """
        return "" if name in self._fired else "a timer that is gone has fired"

    def fired(self, node: NodeId, slot: Slot, name: str, now: float) -> str:
        """A timer fires at a node.

        :returns: the rule that is broken; empty if none is.
        """
        first, _ = self._fired.setdefault(name, (slot, now))
        return self._check_safe(name) if first == slot else "a timer fires once"

    def _check_safe(self, name: str) -> str:
        _, fired_at = self._fired.get(name, (0, float("inf")))
        safe = fired_at >= self._safe_until.get(name, 0.0)
        return "" if safe else "no timer fires within its period of what a client was told"
