"""The application of :mod:`bench.kept_alive`: timers that clients keep alive, and plain ones that are due at once."""

from __future__ import annotations

from txpaxos import PaxosProtocol


class Timers(PaxosProtocol):
    """A command is ``kept``, ``plain`` or ``again``, a prefix, a number of timers, and seconds.

    :ivar fired: how many timers have fired.
    """

    state_fields = ("fired",)

    def __init__(self) -> None:
        self.fired = 0

    def apply(self, slot: int, command: bytes) -> int:
        """Set that number of timers."""
        what, prefix, count, seconds = command.decode().split()
        for number in range(int(count)):
            self.timers.set(f"{prefix}/{number}", float(seconds), kept_alive=what == "kept")
        return self.fired

    def timer_fired(self, slot: int, name: str, payload: bytes) -> None:
        """Count it."""
        self.fired += 1

    def query(self, query: bytes) -> int:
        """How many have fired."""
        return self.fired
