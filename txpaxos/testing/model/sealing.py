"""Registers that are sealed, so that their values move into the log. Every order of events is tried.

A register is decided once, by ballots of its own and without a leader. So a change of members could not tell which
majority decides it. Before the first change each voter *seals* its registers: it durably promises, accepts and answers
nothing more about them, and tells what it had voted for. From a majority of sealed voters a leader imports one value
into the log: the vote with the highest ballot, or nothing if there is no vote. The first import in the log counts.

A seal is a promise of a ballot above all, so an import is a phase 1 that no phase 2 follows. These are the rules:

* What is imported is what the ballots have chosen or ever will choose. If nothing is imported they choose nothing.
* After the import, no majority answers that nothing was decided.

The model is one of the argument, and runs none of the shipped code. Messages and the order of votes are as in
:mod:`~txpaxos.testing.model.membership`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

from txpaxos.testing.model.membership import Nodes, Step, Value, is_quorum, put
from txpaxos.testing.model.node import ModelEvent

NOT_IMPORTED = 255
NOTHING = 0


class RegisterState(NamedTuple):
    """A state of one register. The byte strings have a byte for each ballot.

    :ivar promised: the nodes that have promised the ballot or voted in it.
    :ivar votes: the nodes that have voted. ``proposals``: the value proposed.
    :ivar told: the sealed nodes that have told of a vote in the ballot as their last; first come those that had not
        voted.
    :ivar sealed: the nodes that refuse all that concerns the register.
    :ivar imported: the value in the log, ``NOTHING`` or ``NOT_IMPORTED``.
    """

    promised: bytes
    votes: bytes
    proposals: bytes
    told: bytes
    sealed: Nodes
    imported: Value


class SealingSpace:
    """The states of one register, and the steps between them. Inside, ballots are counted from 0.

    :param voters: the voters, a letter each. ``ballots``: how many are started, each with a value of its own.
    """

    def __init__(self, voters: str, ballots: int) -> None:
        self.names, self.ballots = voters, range(ballots)
        self.everyone: Nodes = (1 << len(voters)) - 1
        self._places = range(len(voters))
        self._swaps = [
            bytes(sum((nodes >> old & 1) << new for old, new in enumerate(places)) for nodes in range(256))
            for places in permutations(self._places)
        ]

    # states as numbers

    def initial(self) -> int:
        """Nothing was promised, voted for, proposed, sealed or imported."""
        ballots = len(self.ballots)
        nothing = bytes(ballots)
        return self._number(RegisterState(nothing, nothing, nothing, bytes(ballots + 1), 0, NOT_IMPORTED))

    def fold(self, number: int) -> int:
        """The state with its nodes in order. All are alike."""
        promised, votes, proposals, told, sealed, imported = self._state(number)
        swapped = min(
            (votes.translate(swap), promised.translate(swap), told.translate(swap), swap[sealed])
            for swap in self._swaps
        )
        votes, promised, told, sealed = swapped
        return self._number(RegisterState(promised, votes, proposals, told, sealed, imported))

    def _number(self, state: RegisterState) -> int:
        promised, votes, proposals, told, sealed, imported = state
        return int.from_bytes(promised + votes + proposals + told + bytes((sealed, imported)), "big")

    def _state(self, number: int) -> RegisterState:
        ballots = len(self.ballots)
        held = number.to_bytes(4 * ballots + 3, "big")
        promised, votes, proposals = (held[start : start + ballots] for start in (0, ballots, 2 * ballots))
        return RegisterState(promised, votes, proposals, held[3 * ballots : -2], *held[-2:])

    # the rules of sealing

    def imports(self, told: Sequence[Nodes], proposals: Sequence[Value]) -> Iterator[Value]:
        """The values that a leader may import, for every majority of those that have told their last votes."""
        nodes: Nodes = 0
        for place, voters in enumerate(told):
            nodes |= voters
            if voters and is_quorum(nodes, self.everyone):
                yield proposals[place - 1] if place else NOTHING

    def answers(self, state: RegisterState) -> Nodes:
        """The nodes that answer a read."""
        return self.everyone & ~state.sealed

    # steps

    def successors(self, number: int) -> Iterator[tuple[int, Step, str]]:
        """The steps from the state: the state after each, the event, and the violation, which may be empty."""
        for after, who, what in self.steps(self._state(number)):
            yield self._number(after), (ModelEvent(who, what),), self._judge(after)

    def steps(self, state: RegisterState) -> Iterator[tuple[RegisterState, str, str]]:
        """The steps: the state after each, who acts, and what happens."""
        for ballot in self.ballots:
            if state.proposals[ballot]:
                yield from self._votes(state, ballot)
            else:
                yield from self._proposes(state, ballot)
        for node in self._places:
            if not state.sealed >> node & 1:
                for before, told in self._last_votes(state, node):
                    yield from self._goes_on(before, node, told)
        if state.imported == NOT_IMPORTED:
            for value in set(self.imports(state.told, state.proposals)):
                yield state._replace(imported=value), "the log", f"imports {show(value)}"

    def current(self, state: RegisterState, node: int) -> int:
        """The highest ballot that the node has promised; -1 for none."""
        return max((ballot for ballot in self.ballots if state.promised[ballot] >> node & 1), default=-1)

    def _last_votes(self, state: RegisterState, node: int) -> Iterator[tuple[RegisterState, str]]:
        """The node votes in the ballot that it had promised, or does not."""
        yield state, ""
        current = self.current(state, node)
        if current >= 0 and state.proposals[current] and not state.votes[current] >> node & 1:
            votes = put(state.votes, current, state.votes[current] | 1 << node)
            yield state._replace(votes=votes), f"votes in ballot {current + 1}, "

    def _goes_on(self, state: RegisterState, node: int, told: str) -> Iterator[tuple[RegisterState, str, str]]:
        """The node promises a higher ballot, or seals the register."""
        for ballot in self.ballots[self.current(state, node) + 1 :]:
            promised = put(state.promised, ballot, state.promised[ballot] | 1 << node)
            yield state._replace(promised=promised), self.names[node], f"{told}promises ballot {ballot + 1}"
        last = 1 + max((ballot for ballot in self.ballots if state.votes[ballot] >> node & 1), default=-1)
        sealed = state._replace(
            sealed=state.sealed | 1 << node, told=put(state.told, last, state.told[last] | 1 << node)
        )
        yield sealed, self.names[node], f"{told}seals, and tells its last vote"

    def _proposes(self, state: RegisterState, ballot: int) -> Iterator[tuple[RegisterState, str, str]]:
        """The proposer has received promises of a majority."""
        reported = [0, *state.votes[:ballot]]
        rest = state.promised[ballot]
        for place in reversed(range(1, ballot + 1)):
            reported[place] &= rest
            rest &= ~reported[place]
        values: set[Value] = set()
        for place, voters in enumerate(reported):
            rest |= voters
            if is_quorum(rest, self.everyone) and (voters or not place):
                values.add(state.proposals[place - 1] if place else ballot + 1)
        for value in values:
            proposals = put(state.proposals, ballot, value)
            yield state._replace(proposals=proposals), f"ballot {ballot + 1}", f"proposes {show(value)}"

    def _votes(self, state: RegisterState, ballot: int) -> Iterator[tuple[RegisterState, str, str]]:
        """The last votes of a majority."""
        voted = state.votes[ballot]
        able = state.promised[ballot] & ~state.sealed
        for higher in self.ballots[ballot + 1 :]:
            able &= ~state.promised[higher]
        voters = [node for node in self._places if (voted | able) >> node & 1]
        for some in combinations(voters, len(self.names) // 2 + 1):
            after = voted | sum(1 << node for node in some)
            if after != voted:
                names = " ".join(self.names[node] for node in some if not voted >> node & 1)
                yield state._replace(votes=put(state.votes, ballot, after)), names, f"vote in ballot {ballot + 1}"

    def _judge(self, state: RegisterState) -> str:
        chosen = {
            value
            for value, voters in zip(state.proposals, state.votes, strict=True)
            if is_quorum(voters, self.everyone)
        }
        if len(chosen) > 1:
            return "two values chosen"
        if state.imported == NOT_IMPORTED:
            return ""
        if chosen - {state.imported}:
            return f"imported {show(state.imported)}, chosen {show(*chosen)}"
        silent = self.answers(state)
        for voters in state.votes:
            silent &= ~voters
        return "a majority still answers that nothing was decided" if is_quorum(silent, self.everyone) else ""


def show(value: Value) -> str:
    """The value as text."""
    return f"value {value}" if value else "nothing"
