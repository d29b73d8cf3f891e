"""The shortest part of a history that is not linearizable.

A window begins with the end of one operation and ends with the end of another. Operations invoked before it may have
been applied before it, so nothing is required of them. The search in the window starts with nothing spent, so it may
use more than the history had left. If there is no order even so, the window proves that the history is not
linearizable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from typing import TypeAlias

import attrs

from txpaxos.testing.linearizability.history import Operation
from txpaxos.testing.linearizability.models import Model
from txpaxos.testing.linearizability.problem import Problem
from txpaxos.testing.linearizability.search import LinearizationSearch

LEVELS_ONE_BY_ONE = 32
"""Up to this many levels every length is tried. Beyond that, lengths grow by half."""

LEVELS_MAX = 2000
"""The maximal length of a window that proves the case in every state in which it may start."""

CONFIGURATIONS_MAX = 20_000
"""How many configurations the search visits in one window. If they do not decide it, the window counts as
linearizable."""

STATES_MAX = 1000
"""In how many states the search starts in a window, if all possible states are not known."""

THINNED_MAX = 200
"""Up to this many operations, each is tried whether it is needed."""


@attrs.frozen
class OperationWindow:
    """A part of a history.

    :ivar operations: operations of which there is no order, in the order of their invocations.
    :ivar ending: the last of them to end.
    :ivar states: the possible states at the start; ``None`` if the window has no order from any state.
    :ivar beside: the other operations that may have been applied meanwhile, which does not help.
    """

    operations: tuple[Operation, ...]
    ending: Operation
    states: tuple[Hashable, ...] | None
    beside: tuple[Operation, ...]


States: TypeAlias = Callable[[int, Problem], list[Hashable] | None]
"""Returns the states in which a search in the window from that level on is to start; ``None`` if they are not known."""


class Windows:
    """The windows of ``problem`` that end with level ``last``, which no search came past so far."""

    def __init__(self, model: Model, problem: Problem, last: int) -> None:
        self._model = model
        self._last = last
        self._levels = problem.levels
        self.ending = self._levels[last].ending.operation
        pending = [each.operation for each in self._levels[last].pending if each.changes]
        unknown = [each for each in problem.unknown if each.invoked < (self.ending.returned or 0)]
        self._open = [each for each in pending if each is not self.ending] + unknown

    def shortest_from_anywhere(self) -> OperationWindow | None:
        """The shortest window found that has no order in any state at all; ``None`` if none was found."""

        def states(_: int, problem: Problem) -> list[Hashable] | None:
            return named_states(problem)

        first = self._shortest(states, min(self._last + 1, LEVELS_MAX))
        return None if first is None else self._window(first, states, None)

    def shortest_from(self, search: LinearizationSearch) -> OperationWindow:
        """The shortest window found that has no order in any of the states that were possible at its start or shortly
        before, going by a ``search`` that tried everything."""
        reached = search.reached()

        def states(first: int, _: Problem) -> list[Hashable]:
            if first == 0:
                return [self._model.initial()]
            end = bisect_right(reached, first, key=lambda place: place[0])
            return list(dict.fromkeys(state for _, state in reversed(reached[max(0, end - STATES_MAX) : end])))

        first = self._shortest(states, self._last + 1) or 0
        at_first = [state for number, state in reached if number == first] if first else [self._model.initial()]
        return self._window(first, states, tuple(dict.fromkeys(at_first)))

    def _shortest(self, states: States, length_max: int) -> int | None:
        """The first level of the shortest window found that makes no sense."""
        length = makes_sense = 0
        while length < length_max:
            length = min(length_max, length + max(1, length // 2 if length >= LEVELS_ONE_BY_ONE else 1))
            if self._makes_no_sense(self._last + 1 - length, states, frozenset()):
                break
            makes_sense = length
        else:
            return None
        while length - makes_sense > 1:
            middle = (length + makes_sense) // 2
            if self._makes_no_sense(self._last + 1 - middle, states, frozenset()):
                length = middle
            else:
                makes_sense = middle
        return self._last + 1 - length

    def _makes_no_sense(self, first: int, states: States, spared: frozenset[Operation]) -> bool:
        """Whether there is no order, even if nothing is required of those that are ``spared``."""
        ended = self._ended_from(first)
        before = [each for each in ended if each.invoked < self._start(first)]
        problem = Problem(self._model, ended + self._open, spared.union(before))
        starts = states(first, problem)
        if starts is None:
            return False
        return LinearizationSearch(problem, len(ended), starts).run(CONFIGURATIONS_MAX, CONFIGURATIONS_MAX) is False

    def _start(self, first: int) -> int:
        """The line where the window begins."""
        return (self._levels[first - 1].ending.operation.returned or 0) if first else 0

    def _ended_from(self, first: int) -> list[Operation]:
        return [level.ending.operation for level in self._levels[first : self._last + 1]]

    def _window(self, first: int, states: States, shown_states: tuple[Hashable, ...] | None) -> OperationWindow:
        """The window, less what is not needed to prove the case."""
        ended = self._ended_from(first)
        required = [each for each in ended if each.invoked > self._start(first)]
        spared: frozenset[Operation] = frozenset()
        if len(required) <= THINNED_MAX:
            for operation in required:
                if operation is not self.ending and self._makes_no_sense(first, states, spared | {operation}):
                    spared |= {operation}
        shown = [each for each in required if each not in spared]
        beside = [each for each in ended + self._open if each not in shown]
        shown.sort(key=lambda operation: operation.invoked)
        return OperationWindow(tuple(shown), self.ending, shown_states, tuple(beside))


def named_states(problem: Problem) -> list[Hashable] | None:
    """States that stand for all there are: if ``problem`` has no order from any of these, it has none at all.

    ``None`` if there is no telling, since there are operations of which nothing is known.
    """
    if problem.named is not None:
        return [object(), *problem.named]  # the new object stands for all that are not named
    # What is of unknown outcome may come before the first of the others, if that proves the state in which it came.
    known = dict.fromkeys(each for level in problem.levels for each in level.pending)
    return list(dict.fromkeys(each.needs for each in known)) if all(each.pinned for each in known) else None
