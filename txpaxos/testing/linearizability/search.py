"""The search for an order in which one part of a history makes sense.

It is Wing and Gong's algorithm ("Testing and verifying concurrent objects", 1993) with Lowe's improvements ("Testing
for linearizability", 2017): an operation is applied no sooner than it must be (*just in time*), and no configuration
is looked at twice. It goes from the end of one operation (a
:class:`~txpaxos.testing.linearizability.problem.Level`) to the next; by then that operation must have been applied,
perhaps after others that are pending.

Three things keep the number of configurations small, however many operations are pending or never ended:

* What is accepted and changes nothing counts as applied at once (``settle``), and so does what the next operation
  overwrites unseen (``absorb``). It remains *available*: it may still be applied in plain sight instead.
* No operation is applied without a purpose: it ends here, makes another acceptable, overwrites one, or might not be
  accepted later.
* A configuration is dropped if one was seen in the same place, with the same state, with no more required and no less
  available.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeAlias

from txpaxos.testing.linearizability.problem import REJECTED, Candidate, Kind, Level, Problem

Node: TypeAlias = tuple[int, Hashable, int, int, int, bool]
"""Number of the level, state, required, spent, used, and whether the obvious was tried already. ``required`` and
``spent`` are sets of slots: what has yet to be applied, and what cannot be applied again; ``used`` is the spent ones
among those of unknown outcome."""

Seen: TypeAlias = dict[tuple[int, Hashable, bool], list[tuple[int, int, int]]]
"""Level, state and whether its ending operation is required; then required, spent and used of each configuration."""


class LinearizationSearch:
    """One search through the first ``stop`` levels of a problem.

    :ivar configurations: how many were looked at so far.
    :ivar deepest: the number of the last level that was reached.
    """

    def __init__(self, problem: Problem, stop: int, states: Iterable[Hashable]) -> None:
        """Begin in each of ``states``, the first one first."""
        self.configurations = 0
        self.deepest = 0
        self._problem = problem
        self._levels = problem.levels
        self._stop = stop
        self._stack: list[Node] = []
        self._seen: Seen = {}
        for state in reversed(list(states)):
            self._enter(0, state, 0, 0, 0)

    def run(self, configurations_max: int, patience: int) -> bool | None:
        """Continue the search.

        :param configurations_max: pause when this many configurations were visited in all,
        :param patience: or this many since a new level was reached.
        :returns: whether there is an order; ``None`` for a pause.
        """
        stack = self._stack
        pause_at = min(configurations_max, self.configurations + patience)
        while stack:
            if self.configurations >= pause_at:
                return None
            number, state, required, spent, used, is_second_visit = stack.pop()
            if number == self._stop:
                return True
            if is_second_visit:
                self._try_others(number, state, required, spent, used)
            elif not self._is_dominated(number, state, required, spent, used):
                self.configurations += 1
                if number > self.deepest:
                    self.deepest = number
                    pause_at = min(configurations_max, self.configurations + patience)
                self._try_the_obvious(number, state, required, spent, used)
        return False

    def reached(self) -> list[tuple[int, Hashable]]:
        """The levels that were reached, in ascending order, each with a state in which it was."""
        return sorted(((number, state) for number, state, _ in self._seen), key=lambda place: place[0])

    def _is_dominated(self, number: int, state: Hashable, required: int, spent: int, used: int) -> bool:
        """Whether a configuration no worse was here before. Remembers this one if not."""
        key = (number, state, required & self._levels[number].ending.bit != 0)
        others = self._seen.get(key)
        if others is None:
            self._seen[key] = [(required, spent, used)]
            return False
        for its_required, its_spent, its_used in others:
            if not (its_required & ~required or its_spent & ~spent or its_used & ~used):
                return True
        others.append((required, spent, used))
        return False

    def _enter(self, number: int, state: Hashable, required: int, spent: int, used: int) -> None:
        """Put a configuration on the stack that reached level ``number``."""
        if number < self._stop:
            level = self._levels[number]
            required = level.settle(state, required | level.arrivals)
        self._stack.append((number, state, required, spent, used, False))

    def _try_the_obvious(self, number: int, state: Hashable, required: int, spent: int, used: int) -> None:
        """End the level with no other operation than the ending one."""
        level = self._levels[number]
        ending = level.ending
        if required & ending.bit:
            self._stack.append((number, state, required, spent, used, True))
            after = ending.after(state)
            if after is not REJECTED:
                required = level.absorb(ending, required) & ~ending.bit
                self._enter(number + 1, after, required, spent, used)
            return
        self._enter(number + 1, state, required, spent & ~ending.bit, used)
        if ending.changes and not spent & ending.bit:
            # It counts as applied, but its last chance to be applied in plain sight is now.
            self._stack.append((number, state, required | ending.bit, spent, used, False))

    def _try_others(self, number: int, state: Hashable, required: int, spent: int, used: int) -> None:
        """Apply one other operation first, in every way that may serve a purpose. Known ones are tried first."""
        level = self._levels[number]
        if self._is_hopeless(level, state, spent, used):
            return
        purpose = Purpose(self._problem, level, state, required, spent)
        for kind in purpose.kinds():
            bit = kind.next(used, level.opened)
            if bit:
                self._apply(kind.candidate, number, state, required, spent, used | bit)
        for candidate in level.pending:
            if purpose.is_served_by(candidate):
                bit = candidate.bit
                self._apply(candidate, number, state, required & ~bit, spent | bit, used)

    def _apply(self, candidate: Candidate, number: int, state: Hashable, required: int, spent: int, used: int) -> None:
        after = candidate.after(state)
        if after is REJECTED:
            return
        level = self._levels[number]
        left = level.absorb(candidate, required)
        if after != state or left != required:
            self._stack.append((number, after, level.settle(after, left), spent, used, False))

    def _is_hopeless(self, level: Level, state: Hashable, spent: int, used: int) -> bool:
        """Whether the model says that the state which the ending operation needs cannot be reached any more."""
        if not (self._problem.has_opaque_kinds and level.ending.pinned):
            return False
        inputs = Counter(each.operation.input for each in level.pending if not each.bit & spent)
        for kind in self._problem.kinds:
            inputs[kind.candidate.operation.input] += kind.left(used, level.opened)
        return not self._problem.model.may_lead(state, level.ending.needs, inputs)


class Purpose:
    """Which operations it may help to apply in a configuration, before the ending one."""

    def __init__(self, problem: Problem, level: Level, state: Hashable, required: int, spent: int) -> None:
        self._problem = problem
        self._level = level
        self._required = required
        self._spent = spent
        self._anything = problem.has_opaque_kinds
        self._wanted: dict[Hashable, None] = {}
        for candidate in level.pending:
            if candidate.opaque and not candidate.bit & spent:
                self._anything = True
            elif candidate.bit & required:
                self._want_to_apply(candidate, state)
        if not self._anything:
            self._want_what_leads_there(state)
            self._wanted[state] = None  # what leaves it as it is may overwrite what would not

    def is_served_by(self, candidate: Candidate) -> bool:
        """Whether it may help to apply this pending operation."""
        if candidate.bit & self._spent or not candidate.changes or candidate is self._level.ending:
            return False
        if self._anything or (candidate.bit & self._required and not candidate.blind):
            return True
        return candidate.leaves in self._wanted

    def kinds(self) -> Iterator[Kind]:
        """The operations of unknown outcome that it may help to apply."""
        if self._anything:
            yield from self._problem.kinds
        else:
            for state in self._wanted:
                yield from self._problem.leaving.get(state, ())

    def _want_to_apply(self, candidate: Candidate, state: Hashable) -> None:
        if candidate.pinned:
            if candidate.needs != state:
                self._wanted[candidate.needs] = None
        elif candidate.after(state) is REJECTED:
            self._anything = True  # there is no telling which state it needs

    def _want_what_leads_there(self, state: Hashable) -> None:
        """Close the wanted states over those that an operation needs which leaves a wanted one."""
        available = [each for each in self._level.pending if not (each.blind or each.bit & self._spent)]
        queue = list(self._wanted)
        for wanted in queue:
            leading = [each for each in available if each.leaves == wanted]
            leading += [kind.candidate for kind in self._problem.leaving.get(wanted, ()) if not kind.candidate.blind]
            for candidate in leading:
                if candidate.pinned and candidate.needs not in self._wanted and candidate.needs != state:
                    self._wanted[candidate.needs] = None
                    queue.append(candidate.needs)
                elif not candidate.pinned and candidate.after(state) is REJECTED:
                    self._anything = True
