"""Sets of values, in an order that is the same on all nodes."""

from __future__ import annotations

import attrs

from txpaxos.recipes.replicated.bounds import Count, LimitReached, Name, SmallData, bytes_of
from txpaxos.recipes.replicated.ordered import Ordered
from txpaxos.service.declaration import Service, command, query, state

MEMBERS_MAX = 4_000_000
MEMBERS_BYTES_MAX = 2**30
PAGE_MEMBERS_MAX = 10_000
PAGE_BYTES_MAX = 2**20


@attrs.frozen
class MembersPage:
    """Some members of a set, in order.

    :ivar more: whether there are others behind them.
    """

    members: tuple[bytes, ...]
    more: bool


class Sets(Service):
    """Sets by name. The members of each are in the order of their bytes. An empty set takes no room."""

    members_count: int = state(int)
    members_bytes: int = state(int)
    rows: dict[str, tuple[int, ...]] = state(dict)
    blocks: dict[tuple[str, int], tuple[bytes, ...]] = state(dict)

    @command(raises=LimitReached)
    def add(self, name: Name, member: SmallData) -> bool:
        """Add a member.

        :returns: whether it was not there before.
        """
        size = bytes_of(name) + len(member)
        if self._members.has(name, member):
            return False
        if self.members_count >= MEMBERS_MAX or self.members_bytes + size > MEMBERS_BYTES_MAX:
            had = f"{self.members_count} members of {self.members_bytes} bytes"
            raise LimitReached(f"the sets have {had} already: discard some first")
        self._members.add(name, member)
        self._count(name, 1, size)
        return True

    @command
    def discard(self, name: Name, member: SmallData) -> bool:
        """Remove a member.

        :returns: whether it was there.
        """
        if not self._members.discard(name, member):
            return False
        self._count(name, -1, -bytes_of(name) - len(member))
        return True

    @command
    def pop(self, name: Name) -> bytes | None:
        """Remove the first member, the same one on all nodes.

        :returns: what it was; ``None`` if there is none.
        """
        first = self._members.first(name)
        if first is not None:
            self.discard(name, first)
        return first

    @query(topic="set {name}")
    def has(self, name: Name, member: SmallData) -> bool:
        """Whether something is a member."""
        return self._members.has(name, member)

    @query(topic="set {name}")
    def size(self, name: Name) -> int:
        """How many members there are."""
        return self._members.count(name)

    @query(topic="set {name}")
    def page(self, name: Name, after: SmallData | None = None, count_max: Count = PAGE_MEMBERS_MAX) -> MembersPage:
        """The members in order, as many as one answer may have.

        :param after: the last member of the page before; ``None`` for the first page.
        """
        found: list[bytes] = []
        size = 0
        for member in self._members.since(name, after):
            if member == after:
                continue
            if len(found) >= min(count_max, PAGE_MEMBERS_MAX) or (found and size + len(member) > PAGE_BYTES_MAX):
                return MembersPage(tuple(found), True)
            found.append(member)
            size += len(member)
        return MembersPage(tuple(found), False)

    @property
    def _members(self) -> Ordered[bytes]:
        return Ordered(self.rows, self.blocks)

    def _count(self, name: str, members: int, size: int) -> None:
        self.members_count += members
        self.members_bytes += size
        self.changed(f"set {name}")
