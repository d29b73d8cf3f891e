"""Numbers of states, of which one may stand for others that can do less."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

Spent: TypeAlias = tuple[int, ...]
"""How often something was done that may be done only so often in all."""


class States:
    """All states found so far. Each is what it holds, and what was spent on the way there.

    :param dominate: whether one that holds the same as another, and on whose way no less was spent of anything, is that
        other one: it can do nothing that the other cannot.
    """

    def __init__(self, dominate: bool = True) -> None:
        self._dominate = dominate
        self._states: list[tuple[Hashable, Spent]] = []
        self._known: dict[Hashable, list[tuple[Spent, int]]] = {}

    def of(self, number: int) -> tuple[Hashable, Spent]:
        """What the state of that number holds, and what was spent."""
        return self._states[number]

    def number(self, holds: Hashable, spent: Spent) -> int:
        """The number of that state."""
        others = self._known.setdefault(holds, [])
        for less, number in others:
            if less == spent or (self._dominate and all(map(int.__le__, less, spent))):
                return number
        others.append((spent, len(self._states)))
        self._states.append((holds, spent))
        return len(self._states) - 1
