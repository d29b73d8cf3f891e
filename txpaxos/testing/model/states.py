"""Numbers for states. A state may stand for others that allow less."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

Spent: TypeAlias = tuple[int, ...]
"""How often each limited action was done."""


class States:
    """All states found so far. A state is its content, and what was spent on the way to it.

    :param dominate: whether a state with the same content as a known one, for which no less of anything was spent, is
        replaced by the known one. It allows nothing that the known one does not.
    """

    def __init__(self, dominate: bool = True) -> None:
        self._dominate = dominate
        self._states: list[tuple[Hashable, Spent]] = []
        self._known: dict[Hashable, list[tuple[Spent, int]]] = {}

    def of(self, number: int) -> tuple[Hashable, Spent]:
        """The content of the state with that number, and what was spent."""
        return self._states[number]

    def number(self, holds: Hashable, spent: Spent) -> int:
        """The number of the state."""
        others = self._known.setdefault(holds, [])
        for less, number in others:
            if less == spent or (self._dominate and all(map(int.__le__, less, spent))):
                return number
        others.append((spent, len(self._states)))
        self._states.append((holds, spent))
        return len(self._states) - 1
