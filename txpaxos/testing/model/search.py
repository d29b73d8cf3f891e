"""Breadth-first search through a space of states.

Every state is visited once and none is forgotten. So "exhausted" means that there are no other states. Since the search
is breadth-first, the path to the first violation is a shortest one.
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
    """A space to search. A state is a whole number, whose meaning only the space knows."""

    def initial(self) -> int:
        """The initial state."""

    def successors(self, state: int) -> Iterable[tuple[int, Step_co, str]]:
        """The steps from ``state``: the state after each, the step, and the violation, which may be empty."""

    def fold(self, state: int) -> int:
        """The representative of all states that differ from ``state`` only in names."""


@attrs.frozen
class Found(Generic[Step]):
    """The result of a search.

    :ivar states: how many states were visited. ``transitions``: how many steps between them.
    :ivar depth: the steps from the initial state to the farthest state.
    :ivar exhausted: whether all states were visited. Otherwise the search gave up, or found a violation.
    :ivar violation: the rule that is broken, or nothing. ``trace``: a shortest path to it.
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

    :param states_max: give up after this many states.
    :ivar states: all states found, in that order.
    """

    def __init__(self, space: Space[Step], states_max: int) -> None:
        self._space = space
        self._states_max = states_max
        self.states: list[int] = []
        # For each state, the number of the state that it was found from.
        self._parents = array("Q")

    def run(self) -> Found[Step]:
        """Search until there are no more states, a rule is broken, or ``states_max`` is reached."""
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
        """A shortest path to the state of ``number`` and on to the violation.

        The steps were not kept. They are found again, from states that are not folded, so that a node has the same name
        in every step.
        """
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
        steps.append(min(wrongs, key=itemgetter(0))[1])  # The unfolded step may name another node.
        return tuple(steps)
