"""Sorted collections in the state of a service, of a million keys and more.

A big part of the state wants values that never change, since a snapshot copies those in one go and encodes them while
the node goes on. A sorted list is no such value. So each collection is cut into blocks, and a block is a tuple: a
change makes one tuple of a few hundred keys anew, and leaves the others alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import attrs

BLOCK_KEYS_MAX = 256

K = TypeVar("K", bound=Any)


@attrs.frozen
class Ordered(Generic[K]):
    """Collections by name, each of which has its keys in order, and each key once. A collection without keys leaves
    nothing behind.

    :ivar rows: the blocks of each collection in order, after the number that its next block gets.
    :ivar blocks: the keys of each block, by the name of the collection and the number of the block.
    """

    rows: dict[str, tuple[int, ...]]
    blocks: dict[tuple[str, int], tuple[K, ...]]

    def add(self, name: str, key: K) -> bool:
        """Add a key to a collection.

        :returns: whether it was not there before.
        """
        row = self.rows.get(name)
        if row is None:
            self.rows[name], self.blocks[name, 0] = (1, 0), (key,)
            return True
        at = self._block_of(name, row, key)
        block = self.blocks[name, row[at]]
        place = bisect_left(block, key)
        if block[place : place + 1] == (key,):
            return False
        whole = (*block[:place], key, *block[place:])
        if len(whole) <= BLOCK_KEYS_MAX:
            self.blocks[name, row[at]] = whole
            return True
        # Keys that come in order fill their blocks.
        cut = len(block) if place == len(block) else len(whole) // 2
        self.blocks[name, row[at]], self.blocks[name, row[0]] = whole[:cut], whole[cut:]
        self.rows[name] = (row[0] + 1, *row[1 : at + 1], row[0], *row[at + 1 :])
        return True

    def discard(self, name: str, key: K) -> bool:
        """Remove a key from a collection.

        :returns: whether it was there.
        """
        row = self.rows.get(name)
        if row is None:
            return False
        at = self._block_of(name, row, key)
        block = self.blocks[name, row[at]]
        place = bisect_left(block, key)
        if block[place : place + 1] != (key,):
            return False
        rest = block[:place] + block[place + 1 :]
        if rest:
            self.blocks[name, row[at]] = rest
            return True
        del self.blocks[name, row[at]]
        if len(row) > 2:
            self.rows[name] = (*row[:at], *row[at + 1 :])
        else:
            del self.rows[name]
        return True

    def has(self, name: str, key: K) -> bool:
        """Whether a collection has a key."""
        row = self.rows.get(name)
        if row is None:
            return False
        block = self.blocks[name, row[self._block_of(name, row, key)]]
        place = bisect_left(block, key)
        return bool(block[place : place + 1] == (key,))

    def first(self, name: str) -> K | None:
        """The first key of a collection; ``None`` if there is none."""
        row = self.rows.get(name)
        return None if row is None else self.blocks[name, row[1]][0]

    def last(self, name: str) -> K | None:
        """The last key of a collection; ``None`` if there is none."""
        row = self.rows.get(name)
        return None if row is None else self.blocks[name, row[-1]][-1]

    def since(self, name: str, key: K | None = None) -> Iterator[K]:
        """The keys of a collection in order, from ``key`` on, or from the first one. The collection must not change
        meanwhile."""
        row = self.rows.get(name)
        if row is None:
            return
        at, place = 1, 0
        if key is not None:
            at = self._block_of(name, row, key)
            place = bisect_left(self.blocks[name, row[at]], key)
        for number in row[at:]:
            yield from self.blocks[name, number][place:]
            place = 0

    def count(self, name: str) -> int:
        """How many keys a collection has."""
        return sum(len(self.blocks[name, number]) for number in self.rows.get(name, ())[1:])

    def _block_of(self, name: str, row: tuple[int, ...], key: K) -> int:
        """The place in ``row`` of the block where a key is, or belongs. Most are at an end."""
        blocks = self.blocks
        if len(row) == 2 or key >= blocks[name, row[-1]][0]:
            return len(row) - 1
        if key < blocks[name, row[2]][0]:
            return 1
        return bisect_right(row, key, lo=2, key=lambda number: blocks[name, number][0]) - 1
