"""A change of members in Multi-Paxos, small enough that every order of events is tried.

The model is one of the argument, and runs none of the shipped code. It has acceptors, ballots, a log of few slots, and
one members entry that replaces the founding configuration by the wanted one. An entry that is chosen at a slot governs
the slots from ``ALPHA`` later on. The rules are these:

* A leader opens a slot only when it knows what is chosen at all slots up to ``ALPHA`` before.
* A leader opens a slot only when a majority of the configuration that governs the slot has promised its ballot. The
  leader proposes the vote with the highest ballot that they reported for the slot.
* Votes are counted by the configuration that governs their slot.
* A leader serves a read from the chosen prefix that it knows, if two things hold for the ``ALPHA`` slots after that
  prefix: every configuration that governs one of them has promised the leader's ballot by majority, and no node that
  promised has reported a vote there or above.
* The change is complete when a majority of the wanted configuration has saved all slots below the first that it
  governs. Then the nodes that left may be destroyed.

The faults that the tests put in each leave one of these rules out.

Whatever was sent may arrive at any time, repeatedly or never, so no network is kept. A promise reports the votes of its
node in lower ballots. They cannot change any more, so they are read from the node. Three things are left open, which
allows more than a real cluster does: each ballot has a leader of its own that is no node, the leader may know of any
chosen slot, and for each slot it may have received other promises.

Two reductions keep the states few. A vote is cast at the last moment at which it matters: when it completes a quorum,
or when its node goes on to a higher ballot. And nodes that are members of the same configurations may swap places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, permutations, product
from typing import NamedTuple, TypeAlias

import attrs

from txpaxos.testing.model.node import ModelEvent

ALPHA = 2
"""How many slots after its entry a configuration begins to govern. No leader opens more slots at once."""

Nodes: TypeAlias = int
"""A set of nodes, a bit each."""
Value: TypeAlias = int
"""0 is none. The leader of a ballot proposes a value of its own, which has the number of that ballot, or the members
entry."""
Step: TypeAlias = tuple[ModelEvent, ...]


class State(NamedTuple):
    """A state of the cluster. Each byte string has one byte for each ballot, or for each ballot and slot, or for each
    slot.

    :ivar promised: by ballot, the nodes that have promised it or voted in it.
    :ivar votes: by ballot and slot, the nodes that have voted.
    :ivar proposals: by ballot and slot, the value that the leader proposed.
    :ivar counted: by slot, the ballots in which a value was taken for chosen, a bit each.
    :ivar saved: the wanted members that have saved all slots below the first that they govern.
    :ivar destroyed: 1 if the nodes that left were destroyed.
    """

    promised: bytes
    votes: bytes
    proposals: bytes
    counted: bytes
    saved: Nodes
    destroyed: int


@attrs.frozen
class MembershipBounds:
    """The bounds that make the model finite.

    :ivar founding: the voters in the beginning, a letter each. ``wanted``: those of the members entry.
    :ivar entry_slots: where the members entry may be proposed.
    :ivar ends: whether changes become complete, and the nodes that left are destroyed.
    """

    founding: str
    wanted: str
    ballots: int = 2
    slots: int = 3
    entry_slots: tuple[int, ...] = (1,)
    ends: bool = False


class MembershipSpace:
    """The states of the cluster, and the steps between them. Inside, slots and ballots are counted from 0."""

    def __init__(self, bounds: MembershipBounds) -> None:
        self.names = sorted({*bounds.founding, *bounds.wanted})
        self.founding, self.wanted = (
            sum(1 << self.names.index(name) for name in names) for names in (bounds.founding, bounds.wanted)
        )
        self.entry: Value = bounds.ballots + 1
        self.slots, self.ballots = range(bounds.slots), range(bounds.ballots)
        self._bounds = bounds
        self._everyone = range(len(self.names))
        self._swaps = self._interchanges()

    # states as numbers

    def initial(self) -> int:
        """Nothing was promised, voted for or proposed."""
        slots, ballots = len(self.slots), len(self.ballots)
        return self._number(State(bytes(ballots), bytes(ballots * slots), bytes(ballots * slots), bytes(slots), 0, 0))

    def fold(self, number: int) -> int:
        """The state with interchangeable nodes in order."""
        if not self._swaps:
            return number
        promised, votes, proposals, counted, saved, destroyed = self._state(number)
        swapped = min((votes.translate(swap), promised.translate(swap), swap[saved]) for swap in self._swaps)
        return self._number(State(swapped[1], swapped[0], proposals, counted, swapped[2], destroyed))

    def _number(self, state: State) -> int:
        promised, votes, proposals, counted, saved, destroyed = state
        return int.from_bytes(promised + votes + proposals + counted + bytes((saved, destroyed)), "big")

    def _state(self, number: int) -> State:
        slots, ballots = len(self.slots), len(self.ballots)
        ends = ballots, ballots + ballots * slots, ballots + 2 * ballots * slots, ballots + 2 * ballots * slots + slots
        held = number.to_bytes(ends[-1] + 2, "big")
        return State(
            held[: ends[0]], held[ends[0] : ends[1]], held[ends[1] : ends[2]], held[ends[2] : ends[3]], *held[ends[3] :]
        )

    def _interchanges(self) -> list[bytes]:
        """For each way to swap interchangeable nodes, the table that swaps them in a set of nodes."""
        groups: dict[tuple[int, int], list[int]] = {}
        for node in self._everyone:
            groups.setdefault((self.founding >> node & 1, self.wanted >> node & 1), []).append(node)
        tables = []
        for arranged in product(*map(permutations, groups.values())):
            places = dict(
                pair
                for group, new in zip(groups.values(), arranged, strict=True)
                for pair in zip(group, new, strict=True)
            )
            table = (sum((nodes >> old & 1) << new for old, new in places.items()) for nodes in range(256))
            tables.append(bytes(one & 255 for one in table))
        return tables if len(tables) > 1 else []

    # the rules of the change

    def governing(self, chosen: Sequence[Value], slot: int) -> Nodes:
        """The configuration that governs ``slot``."""
        return self.wanted if self.entry in chosen[: max(slot - ALPHA + 1, 0)] else self.founding

    def counts_by(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        """The configuration by which the leader of ``ballot`` counts votes at ``slot``."""
        return self.governing(chosen, slot)

    def asks(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        """The configuration whose promises the leader needs to open ``slot``."""
        return self.governing(chosen, slot)

    def may_open(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> bool:
        """Whether the leader knows enough to open ``slot``."""
        return is_known(chosen, slot - ALPHA)

    def reporting(self, state: State, ballot: int, slot: int) -> Nodes:
        """The nodes whose promises the leader may go by at ``slot``."""
        return state.promised[ballot]

    def serves_reads(self, state: State, chosen: Sequence[Value], ballot: int, through: int) -> bool:
        """Whether the leader serves reads from the ``through`` slots of ``chosen`` that it knows, if it is heard."""
        silent = state.promised[ballot]
        for lower in range(ballot):
            for slot in self.slots[through:]:
                silent &= ~state.votes[self.at(lower, slot)]
        return all(is_quorum(silent, one) for one in self.window(chosen, through))

    def is_complete(self, state: State) -> bool:
        """Whether the nodes that left may be destroyed."""
        return is_quorum(state.saved, self.wanted)

    # what follows from them

    def at(self, ballot: int, slot: int) -> int:
        """The place of a ballot and slot."""
        return ballot * len(self.slots) + slot

    def window(self, chosen: Sequence[Value], through: int) -> set[Nodes]:
        """The configurations that govern the slots in which a leader may propose that knows ``through`` slots."""
        known = chosen[:through]
        return {self.governing(known, slot) for slot in range(through, through + ALPHA)}

    def chosen(self, state: State) -> list[Value]:
        """The value taken for chosen at each slot; 0 for none."""
        return [
            state.proposals[self.at(ballots.bit_length() - 1, slot)] if ballots else 0
            for slot, ballots in enumerate(state.counted)
        ]

    def values(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Iterator[Value]:
        """The values that the leader may have to propose at ``slot``, for every quorum of promises; 0 for any of its
        own."""
        asked, promised = self.asks(state, chosen, ballot, slot), self.reporting(state, ballot, slot)
        highest = [0] * ballot  # The nodes whose highest vote below the ballot is that of each lower ballot.
        rest = promised
        for lower in reversed(range(ballot)):
            highest[lower] = rest & state.votes[self.at(lower, slot)]
            rest &= ~highest[lower]
        if is_quorum(rest, asked):
            yield 0
        for lower, voters in enumerate(highest):
            rest |= voters
            if voters and is_quorum(rest, asked):
                yield state.proposals[self.at(lower, slot)]

    # steps

    def successors(self, number: int) -> Iterator[tuple[int, Step, str]]:
        """The steps from the state: the state after each, the event, and the violation, which may be empty."""
        state = self._state(number)
        for after, who, what in self.steps(state, self.chosen(state)):
            wrong = ""
            if after.votes is not state.votes:
                after, wrong = self._count(after)
            wrong = wrong or self._judge(after)
            yield self._number(after), (ModelEvent(who, what),), wrong

    def steps(self, state: State, chosen: Sequence[Value]) -> Iterator[tuple[State, str, str]]:
        """The steps: the state after each, who acts, and what happens."""
        for ballot in self.ballots:
            for node in self._everyone:
                yield from self._promises(state, chosen, ballot, node)
            for slot in self.slots:
                if state.proposals[self.at(ballot, slot)]:
                    yield from self._votes(state, chosen, ballot, slot)
                elif self._is_next(state, chosen, ballot, slot) and self.may_open(state, chosen, ballot, slot):
                    yield from self._opens(state, chosen, ballot, slot)
        if self._bounds.ends and self.entry in chosen and not state.destroyed:
            yield from self._ends(state, chosen)

    def takes_part(self, state: State, chosen: Sequence[Value], node: int) -> bool:
        """Whether the node promises and votes: it was not destroyed, and is a founder or knows the members entry."""
        if state.destroyed and not self.wanted >> node & 1:
            return False
        return bool(self.founding >> node & 1) or self.entry in chosen

    def _is_next(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> bool:
        """Whether the leader has proposed at the slot before, or knows all slots before."""
        return is_known(chosen, slot - 1) or bool(state.proposals[self.at(ballot, slot - 1)])

    def _promises(
        self, state: State, chosen: Sequence[Value], ballot: int, node: int
    ) -> Iterator[tuple[State, str, str]]:
        """The node promises the ballot. Before that it may vote in the ballot that it had promised."""
        bit = 1 << node
        current = max((each for each in self.ballots if state.promised[each] & bit), default=-1)
        if current >= ballot or not self.takes_part(state, chosen, node):
            return
        promised = put(state.promised, ballot, state.promised[ballot] | bit)
        open_slots = [
            slot
            for slot in self.slots
            if current >= 0
            and state.proposals[self.at(current, slot)]
            and not state.votes[self.at(current, slot)] & bit
            and self.counts_by(state, chosen, current, slot) & bit
        ]
        for some in subsets(open_slots):
            votes, told = state.votes, ""
            for slot in some:
                votes = put(votes, self.at(current, slot), votes[self.at(current, slot)] | bit)
                told += f"votes for {self._show(state, current, slot)}, "
            after = state._replace(promised=promised, votes=votes)
            yield after, self.names[node], f"{told}promises ballot {ballot + 1}"

    def _opens(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Iterator[tuple[State, str, str]]:
        for value in set(self.values(state, chosen, ballot, slot)):
            own = [ballot + 1, self.entry] if slot + 1 in self._bounds.entry_slots else [ballot + 1]
            for proposal in [value] if value else own:
                after = state._replace(proposals=put(state.proposals, self.at(ballot, slot), proposal))
                again = "again " if value else ""
                yield after, f"leader {ballot + 1}", f"proposes {again}{self._show(after, ballot, slot)}"

    def _votes(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Iterator[tuple[State, str, str]]:
        """The last votes of a quorum."""
        place = self.at(ballot, slot)
        able = state.promised[ballot]
        for higher in self.ballots[ballot + 1 :]:
            able &= ~state.promised[higher]
        voted = state.votes[place]
        for one in {self.governing(chosen, slot), self.counts_by(state, chosen, ballot, slot)}:
            voters = [
                node
                for node in self._everyone
                if one >> node & 1
                and (voted >> node & 1 or (able >> node & 1 and self.takes_part(state, chosen, node)))
            ]
            for some in combinations(voters, one.bit_count() // 2 + 1):
                after = voted | sum(1 << node for node in some)
                if after != voted:
                    names = " ".join(self.names[node] for node in some if not voted >> node & 1)
                    votes = put(state.votes, place, after)
                    yield state._replace(votes=votes), names, f"vote for {self._show(state, ballot, slot)}"

    def _ends(self, state: State, chosen: Sequence[Value]) -> Iterator[tuple[State, str, str]]:
        """A wanted member saves what it learned, or the nodes that left are destroyed."""
        through = chosen.index(self.entry) + ALPHA - 1
        if is_known(chosen, through):
            for node in self._everyone:
                if (self.wanted & ~state.saved) >> node & 1:
                    after = state._replace(saved=state.saved | 1 << node)
                    yield after, self.names[node], f"has learned and saved slots 1 to {through + 1}"
        if self.is_complete(state):
            left = " ".join(name for node, name in enumerate(self.names) if not self.wanted >> node & 1)
            yield state._replace(destroyed=1), left, "are destroyed with their disks"

    # rules

    def _count(self, state: State) -> tuple[State, str]:
        """The state with all that leaders can take for chosen by now, and the violation."""
        chosen = self.chosen(state)
        for ballot in self.ballots:
            for slot in self.slots:
                place = self.at(ballot, slot)
                if state.counted[slot] >> ballot & 1 or not state.proposals[place]:
                    continue
                is_chosen = is_quorum(state.votes[place], self.governing(chosen, slot))
                is_taken = is_quorum(state.votes[place], self.counts_by(state, chosen, ballot, slot))
                if is_taken and not is_chosen:
                    return state, f"taken for chosen, and is not: {self._show(state, ballot, slot)}"
                if is_chosen and chosen[slot] not in (0, state.proposals[place]):
                    return state, f"two values chosen at slot {slot + 1}"
                if is_chosen:
                    counted = put(state.counted, slot, state.counted[slot] | 1 << ballot)
                    return self._count(state._replace(counted=counted))
        return state, ""

    def _judge(self, state: State) -> str:
        chosen = self.chosen(state)
        return self._lost(state, chosen) or self._stale(state, chosen)

    def _lost(self, state: State, chosen: Sequence[Value]) -> str:
        """Once the nodes that left are destroyed, any majority of the others knows all that was chosen before, or can
        find it out."""
        if not state.destroyed:
            return ""
        first_slot = chosen.index(self.entry) + ALPHA
        for some in combinations(self._everyone, self.wanted.bit_count() // 2 + 1):
            nodes = sum(1 << node for node in some)
            knows = bool(nodes & state.saved) or is_quorum(nodes, self.founding)
            if not nodes & ~self.wanted and not knows and any(chosen[:first_slot]):
                return f"what was chosen is lost to {' '.join(self.names[node] for node in some)}"
        return ""

    def _stale(self, state: State, chosen: Sequence[Value]) -> str:
        """A leader that serves a read knows all that was acknowledged: the slots chosen in other ballots, as far as all
        slots before them are chosen.

        The read began now, and the leader is still heard by a majority of each configuration in its window. So such
        majorities have promised no higher ballot by now.
        """
        acknowledged = next((slot for slot, value in enumerate(chosen) if not value), len(chosen))
        hearing = (1 << len(self.names)) - 1
        for ballot in reversed(self.ballots):
            opened = max((slot for slot in self.slots if state.proposals[self.at(ballot, slot)]), default=-1)
            for through in range(max(opened - ALPHA + 1, 0), acknowledged):
                if (
                    state.counted[through] & ~(1 << ballot)
                    and all(is_quorum(hearing, one) for one in self.window(chosen, through))
                    and self.serves_reads(state, chosen, ballot, through)
                ):
                    return f"leader {ballot + 1} serves a read at slot {through}; slot {through + 1} was acknowledged"
            hearing &= ~state.promised[ballot]
        return ""

    def _show(self, state: State, ballot: int, slot: int) -> str:
        value = state.proposals[self.at(ballot, slot)]
        shown = "the members entry" if value == self.entry else f"value {value}"
        return f"{shown} at slot {slot + 1} in ballot {ballot + 1}"


def is_quorum(nodes: Nodes, configuration: Nodes) -> bool:
    """Whether ``nodes`` has a majority of ``configuration``."""
    return 2 * (nodes & configuration).bit_count() > configuration.bit_count()


def is_known(chosen: Sequence[Value], slot: int) -> bool:
    """Whether all slots up to ``slot`` are chosen."""
    return 0 not in chosen[: max(slot + 1, 0)]


def put(held: bytes, place: int, value: int) -> bytes:
    """``held`` with the byte at ``place`` replaced."""
    return held[:place] + bytes((value,)) + held[place + 1 :]


def subsets(slots: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """All subsets of ``slots``."""
    return (some for count in range(len(slots) + 1) for some in combinations(slots, count))
