"""The smallest service worth replicating: a number that commands add to. ``twistd paxos`` runs it by default."""

from __future__ import annotations

from txpaxos.core.messages import Slot
from txpaxos.protocol import PaxosProtocol


class Counter(PaxosProtocol):
    """A replicated number. A command is a whole number in ASCII, as in ``+5``; its result is the new total, and any
    query is answered with that."""

    state_fields = ("total",)
    total: int

    def __init__(self) -> None:
        self.total = 0

    def apply(self, slot: Slot, command: bytes) -> int:
        """Add ``command`` to the total."""
        self.total += int(command)
        return self.total

    def query(self, query: bytes) -> int:
        """The total."""
        return self.total
