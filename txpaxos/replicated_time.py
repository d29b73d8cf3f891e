"""The time of a cluster: what the replicated state goes by instead of the clock of one machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

ELAPSED_MS_MAX = 2**53 - 1
"""A leader that counted milliseconds since the founding of its cluster would need 285,000 years for them."""

UTC_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which Python has no dates."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen(order=True)
class ReplicatedTime:
    """A moment on the two clocks of a cluster, equal on all nodes at each slot of the log.

    :ivar elapsed_ms: milliseconds that the cluster has had a leader. It never jumps and never goes back, and it stands
        still while there is no leader. Use it for whatever expires.
    :ivar utc_ms: the time of day, in milliseconds since 1970. It never goes back. It is for people: it may be off as
        far as the clocks of the machines are, and stand still while a clock that was ahead is put right.
    """

    elapsed_ms: int = 0
    utc_ms: int = 0

    @property
    def elapsed_seconds(self) -> float:
        """How many seconds the cluster has had a leader."""
        return self.elapsed_ms / 1000

    @property
    def utc(self) -> datetime:
        """The time of day."""
        return _EPOCH + timedelta(milliseconds=self.utc_ms)

    def advanced_to(self, other: ReplicatedTime) -> ReplicatedTime:
        """The later one, of each of the two clocks."""
        return ReplicatedTime(max(self.elapsed_ms, other.elapsed_ms), max(self.utc_ms, other.utc_ms))


BEGINNING = ReplicatedTime()
"""Before the first command of a cluster."""


def checked_time(elapsed_ms: int, utc_ms: int) -> ReplicatedTime:
    """The time with these clocks.

    :raises ValueError: if one of them is out of its bounds."""
    if not (0 <= elapsed_ms <= ELAPSED_MS_MAX and 0 <= utc_ms <= UTC_MS_MAX):
        raise ValueError(f"no time: {elapsed_ms} ms elapsed, {utc_ms} ms since 1970")
    return ReplicatedTime(elapsed_ms, utc_ms)
