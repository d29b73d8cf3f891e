"""The slots that a leader has proposed values for and does not yet know to be chosen."""

from __future__ import annotations

from math import inf
from random import Random

import attrs

from txpaxos.core.config import Timing
from txpaxos.core.membership import Configuration
from txpaxos.core.messages import NodeId, Slot


@attrs.define
class OpenSlot:
    """A slot that its leader has proposed a value for and does not yet know to be chosen.

    :ivar configuration: the members that govern it.
    :ivar resend_at: when its Accept counts as lost.
    :ivar urgent: whether followers wait to hear that it is chosen.
    :ivar attempts: how often its Accept was sent again.
    :ivar voters: the nodes that have voted for it, of those that its configuration counts.
    """

    configuration: Configuration
    value: bytes
    resend_at: float
    urgent: bool
    attempts: int = 0
    voters: set[NodeId] = attrs.field(factory=set)


class Window:
    """The open slots of one leader.

    :ivar slots: the open slots, by their number.
    :ivar size_bytes: the size of their values together.
    :ivar resend_at: no slot is to be sent again before that; infinite if none is open.
    """

    def __init__(self, timing: Timing, rng: Random) -> None:
        self.slots: dict[Slot, OpenSlot] = {}
        self.size_bytes = 0
        self.resend_at = inf
        self._timing = timing
        self._rng = rng

    def open(self, slot: Slot, configuration: Configuration, value: bytes, now: float, urgent: bool) -> None:
        """Note that ``value`` is proposed at ``slot``, which ``configuration`` governs."""
        resend_at = now + self._timing.retry_after(0, self._rng, len(value))
        self.slots[slot] = OpenSlot(configuration, value, resend_at, urgent)
        self.size_bytes += len(value)
        self.resend_at = min(self.resend_at, resend_at)

    def close(self, slot: Slot) -> None:
        """Forget ``slot``: it is chosen."""
        self.size_bytes -= len(self.slots.pop(slot).value)

    def close_through(self, through: Slot) -> None:
        """Forget every slot up to ``through``: they are chosen, whether or not their votes have arrived here."""
        for slot in [slot for slot in self.slots if slot <= through]:
            self.close(slot)

    def due(self, now: float) -> list[tuple[Slot, OpenSlot]]:
        """The slots whose Accepts are to be sent again now. From here on they count as sent."""
        if now < self.resend_at:
            return []
        due = [(slot, open_slot) for slot, open_slot in self.slots.items() if now >= open_slot.resend_at]
        for _, open_slot in due:
            open_slot.attempts += 1
            again_after = self._timing.retry_after(open_slot.attempts, self._rng, len(open_slot.value))
            open_slot.resend_at = now + again_after
        self.resend_at = min((open_slot.resend_at for open_slot in self.slots.values()), default=inf)
        return due
