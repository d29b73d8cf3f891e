"""A leader's window: the slots it has proposed and not yet seen chosen."""

from __future__ import annotations

from math import inf
from random import Random

import attrs

from txpaxos.core.config import Timing
from txpaxos.core.messages import NodeId, Slot


@attrs.define
class OpenSlot:
    """A slot its leader has proposed and not yet seen chosen. If ``urgent``, followers wait for it."""

    value: bytes
    resend_at: float
    urgent: bool
    attempts: int = 0
    voters: set[NodeId] = attrs.field(factory=set)


class Window:
    """The open slots.

    :ivar slots: by their number.
    :ivar size_bytes: of their values.
    :ivar resend_at: no slot is to be sent again before that; infinite if none is open.
    """

    def __init__(self, timing: Timing, rng: Random) -> None:
        self.slots: dict[Slot, OpenSlot] = {}
        self.size_bytes = 0
        self.resend_at = inf
        self._timing = timing
        self._rng = rng

    def open(self, slot: Slot, value: bytes, now: float, urgent: bool) -> None:
        """``value`` is proposed at ``slot``."""
        resend_at = now + self._timing.retry_after(0, self._rng, len(value))
        self.slots[slot] = OpenSlot(value, resend_at, urgent)
        self.size_bytes += len(value)
        self.resend_at = min(self.resend_at, resend_at)

    def close(self, slot: Slot) -> None:
        """``slot`` is chosen."""
        self.size_bytes -= len(self.slots.pop(slot).value)

    def close_through(self, through: Slot) -> None:
        """All up to ``through`` is chosen, whoever found out."""
        for slot in [slot for slot in self.slots if slot <= through]:
            self.close(slot)

    def clear(self) -> None:
        """Whoever leads now, it is not this node."""
        self.slots, self.size_bytes, self.resend_at = {}, 0, inf

    def due(self, now: float) -> list[tuple[Slot, OpenSlot]]:
        """The slots that are to be sent again. They count as sent."""
        if now < self.resend_at:
            return []
        due = [(slot, open_slot) for slot, open_slot in self.slots.items() if now >= open_slot.resend_at]
        for _, open_slot in due:
            open_slot.attempts += 1
            again_after = self._timing.retry_after(open_slot.attempts, self._rng, len(open_slot.value))
            open_slot.resend_at = now + again_after
        self.resend_at = min((open_slot.resend_at for open_slot in self.slots.values()), default=inf)
        return due
