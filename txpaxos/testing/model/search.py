"""Breadth-first search through the states of anything that can say where it starts and where it may go from there.

Every state is looked at once and none is forgotten, so "exhausted" means: there are no others. Breadth first, so the
way to the first violation is a shortest one.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

import attrs

Step = TypeVar("Step")
Step_co = TypeVar("Step_co", covariant=True)


class Space(Protocol[Step_co]):
    """What is searched. A state is one whole number; what it stands for is the space's own affair."""

    def initial(self) -> int:
        """The state in which everything begins."""

    def successors(self, state: int) -> Iterable[tuple[int, Step_co, str]]:
        """Where one step leads from ``state``: the state after it, the step, and what it violates (or nothing)."""

    def fold(self, state: int) -> int:
        """The state that stands for ``state`` and for all that differ from it only in names."""


@attrs.frozen
class Found(Generic[Step]):
    """What a search came to.

    :ivar states: how many different ones it looked at. ``transitions``: steps between them.
    :ivar depth: steps from the initial state to the farthest.
    :ivar exhausted: whether there are no other states; else the search was given up, or ended by a violation.
    :ivar violation: what is wrong, or nothing; ``trace``: a shortest way there.
    """

    states: int
    transitions: int
    depth: int
    exhausted: bool
    seconds: float
    violation: str = ""
    trace: tuple[Step, ...] = ()


class StateSearch(Generic[Step]):
    """One search.

    :param states_max: give up after so many states.
    :ivar states: all that were found, in that order.
    """

    def __init__(self, space: Space[Step], states_max: int) -> None:
        self._space = space
        self._states_max = states_max
        self.states: list[int] = []
        # Of each state, the number of the one it was found from.
        self._parents = array("Q")

    def run(self) -> Found[Step]:
        """StateSearch until nothing is left, something is violated, or it is enough."""
        began = time.process_time()
        states, parents, fold, successors = self.states, self._parents, self._space.fold, self._space.successors
        states.append(fold(self._space.initial()))
        parents.append(0)
        seen = set(states)
        transitions = depth = number = 0
        level_ends = 1
        while number < len(states) <= self._states_max:
            if number == level_ends:
                depth, level_ends = depth + 1, len(states)
            for successor, _, violation in successors(states[number]):
                transitions += 1
                if violation:
                    trace = self._trace(number, violation)
                    seconds = time.process_time() - began
                    return Found(len(states), transitions, len(trace), False, seconds, violation, trace)
                successor = fold(successor)
                if successor not in seen:
                    seen.add(successor)
                    states.append(successor)
                    parents.append(number)
            number += 1
        exhausted = number == len(states)
        return Found(len(states), transitions, depth, exhausted, time.process_time() - began)

    def _trace(self, number: int, violation: str) -> tuple[Step, ...]:
        """A shortest way to the state of ``number`` and on to the violation. The steps were not kept: they are found
        once more, from states that are not folded, so that whoever is named in one step has that name in the next."""
        path = [number]
        while path[-1]:
            path.append(self._parents[path[-1]])
        state, steps = self._space.initial(), []
        for target in (self.states[each] for each in reversed(path[:-1])):
            state, step = next(
                (successor, step)
                for successor, step, _ in self._space.successors(state)
                if self._space.fold(successor) == target
            )
            steps.append(step)
        wrongs = [(wrong != violation, step) for _, step, wrong in self._space.successors(state) if wrong]
        steps.append(min(wrongs, key=itemgetter(0))[1])  # Unfolded, it may have another name in it.
        return tuple(steps)
