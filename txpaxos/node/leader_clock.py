"""The leader's part in the replicated time: it stamps values, and has one proposed when a timer is due.

The elapsed time goes on from where this node had applied it when it knew all that earlier leaders had proposed, and
as fast as the monotonic clock of this node. So it stands still from the last value of one leader to the first one of
the next, and never goes back, whatever happens to wall clocks.

A new leader has not heard what clients sent to the one before. So it gives kept-alive timers a grace when it begins.
"""

from __future__ import annotations

from collections.abc import Callable

from txpaxos.replicated_time import ELAPSED_MS_MAX, ReplicatedTime

ROUNDING_MS = 0.5
"""A value for a timer is proposed this much after the timer is due: no rounding makes it too early then."""


class LeaderClock:
    """Tells the time while this node leads.

    :param applied: the replicated time of the last slot that was applied.
    :param monotonic: in seconds.
    :param utc_ms: from the last time of day in the log to what to say now, in milliseconds since 1970.
    :param grace_ms: how long no kept-alive timer fires from when the elapsed time goes on.
    """

    def __init__(
        self,
        applied: Callable[[], ReplicatedTime],
        monotonic: Callable[[], float],
        utc_ms: Callable[[int], int],
        grace_ms: int = 0,
    ) -> None:
        self._applied = applied
        self._monotonic = monotonic
        self._utc_ms = utc_ms
        self._since: tuple[int, float] | None = None
        self._stamped_ms = -1
        self._grace_ms = grace_ms
        self._is_grace_given = False

    @property
    def is_running(self) -> bool:
        """Whether the elapsed time goes on: this node leads, and has applied all that was proposed before."""
        return self._since is not None

    def start(self) -> None:
        """This node leads, and has applied all that earlier leaders may have had chosen."""
        self._since = self._applied().elapsed_ms, self._monotonic()
        self._is_grace_given = False

    def stop(self) -> None:
        """This node leads no more."""
        self._since = None
        self._stamped_ms = -1

    def stamp(self) -> ReplicatedTime:
        """The time for the next value."""
        applied = self._applied()
        if self._since is None:
            elapsed_ms = applied.elapsed_ms
        else:
            elapsed_ms = self._since[0] + int((self._monotonic() - self._since[1]) * 1000)
            elapsed_ms = min(elapsed_ms, ELAPSED_MS_MAX)  # No node takes a value with a later time.
        self._stamped_ms = max(self._stamped_ms, elapsed_ms)
        return applied.advanced_to(ReplicatedTime(elapsed_ms, self._utc_ms(applied.utc_ms)))

    def take_grace_ms(self, stamp: ReplicatedTime) -> int:
        """The grace that the value with ``stamp`` gives. Each value gives one until the elapsed time goes on, and then
        the first one does, once."""
        if self._since is None:
            return self._grace_ms
        if self._is_grace_given:
            return 0
        self._is_grace_given = True
        return max(0, self._since[0] + self._grace_ms - stamp.elapsed_ms)

    def pulse_at(self, due_ms: int) -> float | None:
        """When a value has to be proposed for a timer that is due at ``due_ms``, by the monotonic clock; ``None`` if
        the time stands still, or a value that makes it fire is on its way.

        :param due_ms: of the next timer, by the elapsed milliseconds."""
        if self._since is None or self._stamped_ms >= due_ms > self._applied().elapsed_ms:
            return None
        return self._since[1] + (due_ms - self._since[0] + ROUNDING_MS) / 1000
