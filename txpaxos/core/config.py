"""What the owner of a node may set: how long things take, and how much of everything there may be."""

from __future__ import annotations

from random import Random

import attrs
from attrs.validators import ge, le

VALUES_MAX = 4096
"""The most chosen values in one message."""
VOTES_MAX = 4096
"""The most votes in one message."""


@attrs.frozen
class Timing:
    """How long things take, in seconds.

    :ivar heartbeat_seconds: between two heartbeats of a leader.
    :ivar liveness_window_seconds: (shortest, longest) silence after which a follower takes its leader for dead.
    :ivar retry_seconds: until an unanswered message is sent again, the first time; doubles up to ``retry_seconds_max``.
    :ivar commit_notification_seconds: until a leader that has nothing else to send tells its followers what was chosen
        last.
    :ivar bytes_per_second: a message with a big value is given the time on top that it takes at this speed.
    """

    heartbeat_seconds: float = 0.1
    liveness_window_seconds: tuple[float, float] = (0.25, 0.5)
    retry_seconds: float = 0.05
    retry_seconds_max: float = 1.0
    commit_notification_seconds: float = 0.002
    bytes_per_second: float = 20e6

    def retry_after(self, attempt: int, rng: Random, value_bytes: int = 0) -> float:
        """Seconds until try number ``attempt`` (from 0) counts as lost. Jitter keeps nodes from retrying in step."""
        seconds: float = min(self.retry_seconds * 2.0**attempt, self.retry_seconds_max)
        return seconds * rng.uniform(0.75, 1.25) + value_bytes / self.bytes_per_second


@attrs.frozen
class Limits:
    """How much of everything the log may hold, or one message.

    :ivar window_slots: how many slots above those it knows to be chosen a leader may propose.
    :ivar window_bytes: the bytes of values in open slots, from which on a leader opens no further slot.
    :ivar ahead_slots: how far above the slots it knows to be chosen an acceptor votes; else it catches up first.
    :ivar fetch_values: the most chosen values in one answer to a Fetch.
    :ivar fetch_bytes: the most bytes of values in one answer to a Fetch; a single value may be bigger.
    """

    window_slots: int = 8
    window_bytes: int = 8 * 2**20
    ahead_slots: int = attrs.field(default=32, validator=[ge(1), le(VOTES_MAX)])
    fetch_values: int = attrs.field(default=1024, validator=[ge(1), le(VALUES_MAX)])
    fetch_bytes: int = 2**20
