"""Whole numbers by name."""

from __future__ import annotations

from txpaxos.recipes.replicated.bounds import LimitReached, Name
from txpaxos.service.declaration import Service, command, query, state

COUNTERS_MAX = 1_000_000
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class Counters(Service):
    """Counters, each of which is 0 at first. One that is 0 takes no room."""

    values: dict[str, int] = state(dict)

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
        if counter not in self.values and len(self.values) >= COUNTERS_MAX:
            raise LimitReached(f"there are {COUNTERS_MAX} counters already: set some to 0 first")
        if value:
            self.values[counter] = value
        else:
            self.values.pop(counter, None)
        self.changed(f"counter {counter}")
