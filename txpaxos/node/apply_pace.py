"""How long commands take to apply, and how many of them the leader puts into one slot for that reason.

A node does nothing else while it applies a slot: it answers no client and sends no heartbeat. A thousand commands of
some milliseconds each would keep every node for seconds, and cost the leader its lead. So the leader makes slots that
take about ``SLOT_SECONDS``. That is its choice alone: the nodes apply what is in the log, however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable

from txpaxos.wire.commands import RUNS_MAX

SLOT_SECONDS = 0.02
"""How long a slot may take to apply, as far as that can be known before."""

COMMANDS_MIN = 16
"""How many commands a slot may have after a time of none: the first that are heavy come unexpected."""

GROWTH = 2
"""By what the commands of the biggest slot of late are multiplied: a slot has no more than that. What follows a few
commands may be heavier than these were."""

LATE_SECONDS = 1.0
"""What was applied before a pause of so long says nothing of what comes after it."""

KEPT = 0.9
"""What counts of the earlier slots when one more was applied."""


class ApplyPace:
    """How long the latest commands took.

    :param monotonic: the seconds of a clock.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._noted_at = 0.0
        self._seconds = self._commands = self._most = 0.0

    def begin(self) -> float:
        """A slot is about to be applied. What this returns is for :meth:`note`."""
        return self._monotonic()

    def note(self, commands: int, began_at: float) -> None:
        """A slot with that many commands is applied."""
        now = self._monotonic()
        self._seconds = self._seconds * KEPT + now - began_at
        self._commands = self._commands * KEPT + commands
        self._most = max(commands, self._most * KEPT)
        self._noted_at = now

    @property
    def commands_max(self) -> int:
        """How many commands the next slot may have."""
        most = self._most if self._monotonic() - self._noted_at < LATE_SECONDS else 0.0
        limit = max(COMMANDS_MIN, GROWTH * most)
        if self._seconds * limit > SLOT_SECONDS * self._commands:
            limit = SLOT_SECONDS * self._commands / self._seconds
        return min(max(1, int(limit)), RUNS_MAX)
