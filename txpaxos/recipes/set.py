"""A set as a program has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from txpaxos.recipes.arguments import check_name
from txpaxos.recipes.replicated.sets import Sets
from txpaxos.recipes.values import Values
from txpaxos.service.declaration import Remote

T = TypeVar("T")


class Set(Generic[T]):
    """A set of values, of at most 4 KiB each. Values are the same if their bytes are. Equal values of the declared type
    have equal bytes. But what an earlier release has put, whose class had fewer fields, keeps its own.

    Each method gives a Deferred, and raises TypeError at the call if an argument is wrong.
    """

    def __init__(self, sets: Remote[Sets], name: str, kind: type[T]) -> None:
        self._sets = sets
        self.name: str = check_name(name)
        self._values = Values(kind, f"the set {name}")

    def add(self, value: T) -> Deferred[bool]:
        """Add a value.

        :returns: fires with whether it was not there before; fails with :class:`~txpaxos.recipes.LimitReached` if there
            are too many.
        """
        return self._sets.add(self.name, self._values.encoded(value))

    def discard(self, value: T) -> Deferred[bool]:
        """Remove a value.

        :returns: fires with whether it was there.
        """
        return self._sets.discard(self.name, self._values.encoded(value))

    def pop(self) -> Deferred[T]:
        """Remove a value, the same one on all nodes, and once, however often the request must be sent.

        :returns: fires with the value; fails with KeyError if there is none, as the sets of Python do.
        """
        return self._sets.pop(self.name).addCallback(self._popped)

    def has(self, value: T) -> Deferred[bool]:
        """Whether a value is in the set."""
        return self._sets.has(self.name, self._values.encoded(value))

    def size(self) -> Deferred[int]:
        """How many values there are."""
        return self._sets.size(self.name)

    async def members(self) -> AsyncIterator[T]:
        """All values, in the order of their bytes, page by page: what changes meanwhile may be in it or not."""
        after = None
        more = True
        while more:
            page = await self._sets.page(self.name, after)
            for member in page.members:
                yield self._values.decoded(member)
            more = page.more
            after = page.members[-1] if more else None

    def _popped(self, member: bytes | None) -> T:
        if member is None:
            raise KeyError(f"pop from the set {self.name}, which is empty")
        return self._values.decoded(member)
