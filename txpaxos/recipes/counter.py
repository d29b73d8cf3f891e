"""A counter as a program has it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from txpaxos.arguments import check_timeout
from txpaxos.recipes.arguments import check_name
from txpaxos.recipes.replicated.counters import Counters
from txpaxos.recipes.waiting import Waits
from txpaxos.service.declaration import Remote


class Counter:
    """A whole number of 64 bits, which is 0 at first.

    Each method gives a Deferred, and raises TypeError at the call if an argument is wrong.
    """

    def __init__(self, waits: Waits, counters: Remote[Counters], name: str) -> None:
        self._waits = waits
        self._counters = counters
        self.name: str = check_name(name)

    def add(self, amount: int = 1) -> Deferred[int]:
        """Add to the counter, once, however often the request must be sent.

        :returns: fires with the value after that; fails with :class:`~txpaxos.recipes.LimitReached` if it would have
            more than 64 bits.
        """
        return self._counters.add(self.name, amount)

    def set(self, value: int, expected: int | None = None) -> Deferred[bool]:
        """Set the counter.

        :param expected: what it must be before; ``None`` for whatever it is.
        :returns: fires with whether it was that, and was set.
        """
        return self._counters.set(self.name, value, expected)

    def value(self) -> Deferred[int]:
        """The value."""
        return self._counters.value(self.name)

    def changed(self, value: int, timeout_seconds: float | None = None) -> Deferred[int]:
        """Wait until the value is another one.

        :param value: what the caller knows.
        :param timeout_seconds: how long to wait; ``None`` for as long as it takes.
        :returns: fires with the newest value; those between may be left out. It fails with
            :class:`~txpaxos.recipes.WaitTimedOut` after the time.
        """
        timeout_seconds = check_timeout(timeout_seconds)
        waiting = self._waits.until(lambda found: found != value, self._counters.value, self.name)
        return self._waits.within(waiting, timeout_seconds, f"another value of the counter {self.name}")
