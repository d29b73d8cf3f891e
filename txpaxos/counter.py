"""A small example of a replicated service, which ``twistd paxos`` runs by default: a number that commands add to."""

from __future__ import annotations

from txpaxos.core.messages import Slot
from txpaxos.protocol import PaxosProtocol


class Counter(PaxosProtocol):
    """A replicated number.

    A command is a whole number in ASCII, such as ``+5``. Its result is the new total. Every query is answered with the
    total, too.
    """

    state_fields = ("total",)
    total: int

    def __init__(self) -> None:
        self.total = 0

    def apply(self, slot: Slot, command: bytes) -> int:
        """Add ``command`` to the total."""
        self.total += int(command)
        return self.total

    def query(self, query: bytes) -> int:
        """The total, whatever the query is."""
        return self.total
