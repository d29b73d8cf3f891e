"""Whole numbers by name."""

from __future__ import annotations

from txpaxos.recipes.replicated.bounds import LimitReached, Name, bytes_of
from txpaxos.service.declaration import Service, command, query, state

COUNTERS_MAX = 1_000_000
NAMES_BYTES_MAX = 2**28
"""How many bytes the names of all counters may have."""
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class Counters(Service):
    """Counters, each of which is 0 at first. One that is 0 takes no room."""

    values: dict[str, int] = state(dict)
    names_bytes: int = state(int)

    @command(raises=LimitReached)
    def add(self, counter: Name, amount: int) -> int:
        """Add to a counter.

        :returns: its value after that.
        """
        value = self.values.get(counter, 0) + amount
        self._set(counter, value)
        return value

    @command(raises=LimitReached)
    def set(self, counter: Name, value: int, expected: int | None = None) -> bool:
        """Set a counter.

        :param expected: what it must be before; ``None`` for any value.
        :returns: whether it was that, and was set.
        """
        if expected is not None and self.values.get(counter, 0) != expected:
            return False
        self._set(counter, value)
        return True

    @query(topic="counter {counter}")
    def value(self, counter: Name) -> int:
        """The value of a counter."""
        return self.values.get(counter, 0)

    def _set(self, counter: str, value: int) -> None:
        if not _LOWEST <= value <= _HIGHEST:
            raise LimitReached(f"a counter has 64 bits, and {value} has more")
        size, is_new = bytes_of(counter), counter not in self.values
        if is_new and value and (len(self.values) >= COUNTERS_MAX or self.names_bytes + size > NAMES_BYTES_MAX):
            had = f"{len(self.values)} counters, whose names have {self.names_bytes} bytes"
            raise LimitReached(f"there are {had}, already: set some to 0 first")
        if value:
            self.values[counter] = value
            self.names_bytes += size * is_new
        elif not is_new:
            del self.values[counter]
            self.names_bytes -= size
        self.changed(f"counter {counter}")
