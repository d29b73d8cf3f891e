"""One part of a history prepared for the search: operations with what is known of them, and a level for each end.

Operations that ended hold a *slot*, one bit, from invocation to end; then another operation may have it. So sets of
them are small ints, however long the history is. Operations with an unknown outcome never end and are numbered. Those
with the same effect are one *kind*, used up in the order of their invocations, since they cannot be told apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Sequence
from enum import Enum
from heapq import heappop, heappush
from typing import Final, cast

import attrs

from txpaxos.testing.linearizability.history import UNKNOWN, HistoryError, Operation
from txpaxos.testing.linearizability.models import ANY, SAME, Model, Other, Which


class _Rejected(Enum):
    REJECTED = "rejected"


REJECTED: Final = _Rejected.REJECTED
"""Returned instead of a state: the operation is not accepted in the state before it."""

_NAMELESS = object()
"""The key of all inputs that leave a state which no operation names."""


class Candidate:
    """An operation, and what its effect says.

    :ivar opaque: nothing is known of it but what ``step`` says.
    :ivar pinned: one state accepts it, ``needs``.
    :ivar blind: every state accepts it, and it always leaves ``leaves``.
    :ivar changes: it may change the state.
    :ivar bit: its slot.
    """

    __slots__ = ("_other", "_step", "bit", "blind", "changes", "leaves", "needs", "opaque", "operation", "pinned")

    def __init__(self, model: Model, operation: Operation) -> None:
        self.operation = operation
        self.bit = 0
        self._step = model.step
        effect = model.effect(operation.input, operation.output)
        self.opaque = effect is None
        self.needs, self.leaves = (None, None) if effect is None else (effect.needs, effect.leaves)
        self._other = isinstance(self.needs, Other)
        self.pinned = not (self.opaque or self._other or self.needs is ANY)
        self.changes = self.opaque or not (self.leaves is SAME or self.leaves == self.needs)
        self.blind = self.changes and self.needs is ANY

    def after(self, state: Hashable) -> Hashable:
        """The state after it, or ``REJECTED``."""
        if self.opaque:
            accepted, after = self._step(state, self.operation.input, self.operation.output)
            return after if accepted else REJECTED
        needs = self.needs
        if needs is ANY or needs == state or (self._other and cast(Other, needs).than != state):
            return self.leaves if self.changes else state
        return REJECTED


class Kind:
    """Operations of unknown outcome that have the same effect, or whose effects cannot be distinguished.

    :ivar candidate: one of them.
    :ivar mask: all of them, as a set.
    """

    __slots__ = ("_members", "candidate", "mask")

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.mask = 0
        self._members: list[int] = []

    def add(self, number: int) -> None:
        """One more, invoked after the others."""
        self._members.append(number)
        self.mask |= 1 << number

    def next(self, used: int, opened: int) -> int:
        """The bit of the first that is not ``used``; 0 if it is not among the first ``opened`` of all kinds."""
        count = (used & self.mask).bit_count()
        if count < len(self._members) and self._members[count] < opened:
            return 1 << self._members[count]
        return 0

    def left(self, used: int, opened: int) -> int:
        """How many are not ``used`` and among the first ``opened`` of all kinds."""
        return bisect_left(self._members, opened) - (used & self.mask).bit_count()


@attrs.frozen(slots=True)
class Level:
    """The end of an operation: by then it must have been applied.

    :ivar ending: the operation.
    :ivar arrivals: the operations invoked since the previous end, as a set.
    :ivar pending: the operations invoked and not ended, with ``ending``.
    :ivar opened: how many operations of unknown outcome were invoked.
    """

    ending: Candidate
    arrivals: int
    pending: tuple[Candidate, ...]
    opened: int
    _blind: int
    _quiet_in: dict[Hashable, int]
    _ask: tuple[Candidate, ...]

    @classmethod
    def at(cls, ending: Candidate, arrivals: int, pending: tuple[Candidate, ...], opened: int) -> Level:
        """The level, with what makes :meth:`settle` and :meth:`absorb` fast."""
        blind, quiet_in, ask = 0, dict[Hashable, int](), []
        for candidate in pending:
            if candidate.blind:
                blind |= candidate.bit
                quiet_in[candidate.leaves] = quiet_in.get(candidate.leaves, 0) | candidate.bit
            elif candidate.pinned and not candidate.changes:
                quiet_in[candidate.needs] = quiet_in.get(candidate.needs, 0) | candidate.bit
            elif not candidate.pinned:
                ask.append(candidate)
        return cls(ending, arrivals, pending, opened, blind, quiet_in, tuple(ask))

    def settle(self, state: Hashable, required: int) -> int:
        """``required`` without the operations that are accepted in ``state`` and leave it as it is.

        They can be applied here, whatever else happens. So nothing is required of them any more. (If they can change
        the state elsewhere, they may still be applied there instead.)
        """
        required &= ~self._quiet_in.get(state, 0)
        for candidate in self._ask:
            if required & candidate.bit and candidate.after(state) == state:
                required &= ~candidate.bit
        return required

    def absorb(self, candidate: Candidate, required: int) -> int:
        """``required`` without the operations that leave no trace if they are applied directly before ``candidate``.

        They may still be applied elsewhere instead.
        """
        if candidate.blind:
            return required & ~self._blind
        if candidate.changes and not (candidate.opaque or candidate.pinned):
            for other in self.pending:
                if other.blind and candidate.after(other.leaves) is not REJECTED:
                    required &= ~other.bit
        return required


class Problem:
    """The operations of one part of a history.

    :param optional: those that nothing is required of: they may be applied until they end, or not at all.

    :ivar levels: one for each operation that ended, in that order.
    :ivar kinds: those of unknown outcome (without those that change nothing).
    :ivar leaving: a state, and the kinds that leave it.
    :ivar named: the states that an operation names in its effect; ``None`` if there are operations without an effect.
        (States that only operations of unknown outcome leave are not there: they cannot be told from states not named.)
    :ivar has_opaque_kinds: whether there are kinds of which nothing is known.
    :ivar unknown: the operations that ``kinds`` stands for.
    :raises HistoryError: if the model knows no such input or output.
    """

    def __init__(
        self, model: Model, operations: Iterable[Operation], optional: Collection[Operation] = frozenset()
    ) -> None:
        self.model = model
        self._optional = optional
        self.levels: list[Level] = []
        self.kinds: list[Kind] = []
        self.leaving: dict[Hashable, list[Kind]] = {}
        known: list[Candidate] = []
        unknown: list[Candidate] = []
        for operation in operations:
            try:
                candidate = Candidate(model, operation)
            except ValueError as error:
                raise HistoryError(f"line {operation.invoked}: {error}") from None
            (unknown if operation.returned is None else known).append(candidate)
        unknown = sorted((each for each in unknown if each.changes), key=lambda each: each.operation.invoked)
        self.unknown = [each.operation for each in unknown]
        self.named = _named(known, unknown)
        self._take_unknown(unknown)
        self._take_known(known, [operation.invoked for operation in self.unknown])
        self.has_opaque_kinds = any(kind.candidate.opaque for kind in self.kinds)

    def _take_unknown(self, candidates: Iterable[Candidate]) -> None:
        by_input: dict[Hashable, Kind] = {}
        for number, candidate in enumerate(candidates):
            assert candidate.operation.output is UNKNOWN, candidate.operation
            is_nameless = candidate.blind and self.named is not None and candidate.leaves not in self.named
            key = _NAMELESS if is_nameless else candidate.operation.input
            kind = by_input.get(key)
            if kind is None:
                kind = by_input[key] = Kind(candidate)
                self.kinds.append(kind)
                if not candidate.opaque:
                    self.leaving.setdefault(candidate.leaves, []).append(kind)
            kind.add(number)

    def _take_known(self, candidates: Iterable[Candidate], opened_at: Sequence[int]) -> None:
        events: list[tuple[int, bool, Candidate]] = []
        for candidate in candidates:
            events.append((candidate.operation.invoked, False, candidate))
            events.append((candidate.operation.returned or 0, True, candidate))
        events.sort(key=lambda event: event[0])
        free: list[int] = []
        pending: dict[int, Candidate] = {}
        arrivals = opened = 0
        for position, is_end, candidate in events:
            if is_end:
                while opened < len(opened_at) and opened_at[opened] < position:
                    opened += 1
                self.levels.append(Level.at(candidate, arrivals, tuple(pending.values()), opened))
                arrivals = 0
                del pending[candidate.bit]
                heappush(free, candidate.bit)
            else:
                candidate.bit = heappop(free) if free else 1 << len(pending)
                pending[candidate.bit] = candidate
                arrivals |= 0 if candidate.operation in self._optional else candidate.bit


def _named(known: Collection[Candidate], unknown: Collection[Candidate]) -> dict[Hashable, None] | None:
    if any(each.opaque for each in (*known, *unknown)):
        return None
    names = [each.needs.than if isinstance(each.needs, Other) else each.needs for each in (*known, *unknown)]
    names += [each.leaves for each in known]
    return dict.fromkeys(name for name in names if not isinstance(name, Which))
