"""The argument of the change of members holds, and each rule of it is needed: without the rule a fault is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest

from txpaxos.testing.model.counterexample import format_counterexample
from txpaxos.testing.model.membership import (
    ALPHA,
    MembershipBounds,
    MembershipSpace,
    Nodes,
    State,
    Value,
    is_known,
    is_quorum,
    put,
)
from txpaxos.testing.model.search import Found, StateSearch

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.


REPLACE = MembershipBounds("abc", "abd")


@pytest.mark.parametrize(("founding", "wanted", "states"), [("ab", "abc", 5116), ("ab", "ac", 6756), ("a", "bc", 4744)])
def test_change_is_safe(founding: str, wanted: str, states: int) -> None:
    bounds = MembershipBounds(founding, wanted, ends=not set(founding) <= set(wanted))
    found: Found[Any] = StateSearch(MembershipSpace(bounds), 100_000).run()
    assert (found.violation, found.exhausted, found.states) == ("", True, states)


# --------------------------------------------------------------------- faults


class AllPromisesHeard(MembershipSpace):
    """Each promise arrives before the leader does anything else. So what is found needs no lost messages."""

    def values(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Iterator[Value]:
        promised = self.reporting(state, ballot, slot)
        if is_quorum(promised, self.asks(state, chosen, ballot, slot)):
            reported = [lower for lower in range(ballot) if promised & state.votes[self.at(lower, slot)]]
            yield state.proposals[self.at(max(reported), slot)] if reported else 0

    def entry_seen(self, state: State, ballot: int, slot: int) -> bool:
        """Whether the leader has proposed, or had reported to it, a members entry that would govern ``slot``."""
        for below in self.slots[: max(slot - ALPHA + 1, 0)]:
            for lower in range(ballot + 1):
                place = self.at(lower, below)
                reported = lower == ballot or state.votes[place] & state.promised[ballot]
                if reported and state.proposals[place] == self.entry:
                    return True
        return False

    def is_own(self, state: State, ballot: int, slot: int) -> bool:
        """Whether the leader has proposed a value of its own."""
        value = state.proposals[self.at(ballot, slot)]
        return value == ballot + 1 or (value == self.entry and ballot == 0)

    def began_below(self, state: State, ballot: int, slot: int) -> bool:
        """Whether ``slot`` was out of reach when the leader began."""
        return any(state.proposals[self.at(ballot, below)] for below in self.slots[: max(slot - ALPHA + 1, 0)])


class StopSign(MembershipSpace):
    """The configuration governs from the next slot on, with a phase 1 of its own. Nothing is proposed above a members
    entry until it is chosen.

    The search begins after ``b`` alone has voted for the entry, in ballot 1, of which nothing more comes. Reads are
    left out.
    """

    def initial(self) -> int:
        state = self._state(super().initial())
        a, b, first = 1, 2, self.at(0, 0)
        votes, proposals = put(state.votes, first, b), put(state.proposals, first, self.entry)
        return self._number(state._replace(promised=put(state.promised, 0, a | b), votes=votes, proposals=proposals))

    def steps(self, state: State, chosen: Sequence[Value]) -> Iterator[tuple[State, str, str]]:
        first = slice(len(self.slots))
        for after, who, what in super().steps(state, chosen):
            if after.votes[first] == state.votes[first] and after.promised[0] == state.promised[0]:
                yield after, who, what

    def governing(self, chosen: Sequence[Value], slot: int) -> Nodes:
        return self.wanted if self.entry in chosen[:slot] else self.founding

    def may_open(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> bool:
        open_entry = any(
            state.proposals[self.at(ballot, below)] == self.entry != chosen[below] for below in range(slot)
        )
        return super().may_open(state, chosen, ballot, slot) and not open_entry

    def serves_reads(self, state: State, chosen: Sequence[Value], ballot: int, through: int) -> bool:
        return False


class OldQuorum(AllPromisesHeard):
    """Votes at the first slot that the new configuration governs are counted by the old one."""

    def counts_by(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.governing(chosen, slot - 1)


class NoCut(AllPromisesHeard):
    """Reported votes are proposed again at once, however far above the chosen slots they are."""

    def asks(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.counts_by(state, chosen, ballot, slot)

    def counts_by(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        knew = self.is_own(state, ballot, slot) or not self.began_below(state, ballot, slot)
        return self.governing(chosen, slot) if knew else self.founding

    def may_open(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> bool:
        return True

    def values(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Iterator[Value]:
        within = is_known(chosen, slot - ALPHA)
        return (value for value in super().values(state, chosen, ballot, slot) if value or within)


class ReportsDropped(AllPromisesHeard):
    """Reports are forgotten when the lead begins."""

    def values(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Iterator[Value]:
        if self.began_below(state, ballot, slot):
            state = state._replace(votes=bytes(len(state.votes)))
        return super().values(state, chosen, ballot, slot)


class NotGrown(AllPromisesHeard):
    """Only the founding configuration is asked for promises."""

    def asks(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.founding


class VoteBelieved(AllPromisesHeard):
    """A configuration is believed when it is voted for."""

    def asks(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.counts_by(state, chosen, ballot, slot)

    def counts_by(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.wanted if self.entry_seen(state, ballot, slot) else self.governing(chosen, slot)

    def takes_part(self, state: State, chosen: Sequence[Value], node: int) -> bool:
        return self.entry in state.proposals or super().takes_part(state, chosen, node)


class Union(AllPromisesHeard):
    """A quorum is a majority of all nodes of both configurations, while both govern slots of the window."""

    def asks(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.counts_by(state, chosen, ballot, slot)

    def counts_by(self, state: State, chosen: Sequence[Value], ballot: int, slot: int) -> Nodes:
        return self.founding | self.wanted if self.entry in chosen else self.founding


class CompleteAtChosen(AllPromisesHeard):
    """The change is complete when its entry is chosen."""

    def is_complete(self, state: State) -> bool:
        return True


class NotSaved(AllPromisesHeard):
    """What was learned counts before it is saved."""

    def steps(self, state: State, chosen: Sequence[Value]) -> Iterator[tuple[State, str, str]]:
        yield from super().steps(state, chosen)
        for node, name in enumerate(self.names):
            if state.saved >> node & 1:
                yield state._replace(saved=state.saved & ~(1 << node)), name, "restarts, and forgets what it learned"


class OneFreshEntry(AllPromisesHeard):
    """A leader serves reads once a slot above all that was reported when it began is chosen."""

    def serves_reads(self, state: State, chosen: Sequence[Value], ballot: int, through: int) -> bool:
        for slot in self.slots[:through]:
            silent = state.promised[ballot]
            for lower in range(ballot):
                for above in self.slots[slot:]:
                    silent &= ~state.votes[self.at(lower, above)]
            if state.proposals[self.at(ballot, slot)] and is_quorum(silent, self.governing(chosen, slot)):
                return True
        return False


@attrs.frozen
class Fault:
    """``says`` is the beginning of the violation that is found. The shortest trace has ``steps`` steps."""

    space: type[MembershipSpace]
    says: str
    steps: int
    bounds: MembershipBounds = REPLACE


TWO_CHOSEN = "two values chosen at slot "
NOT_CHOSEN = "taken for chosen, and is not: "
LOST = "what was chosen is lost to "
FAULTS = (
    Fault(StopSign, TWO_CHOSEN, 12, MembershipBounds("abc", "abd", ballots=3, slots=2, entry_slots=())),
    Fault(OldQuorum, NOT_CHOSEN, 8),
    Fault(NoCut, NOT_CHOSEN, 11, MembershipBounds("ab", "ac")),
    Fault(ReportsDropped, TWO_CHOSEN, 9, MembershipBounds("a", "b")),
    Fault(NotGrown, TWO_CHOSEN, 9, MembershipBounds("a", "b")),
    Fault(VoteBelieved, NOT_CHOSEN, 9, MembershipBounds("a", "b")),
    Fault(Union, NOT_CHOSEN, 7, MembershipBounds("ab", "abc")),
    Fault(CompleteAtChosen, LOST, 5, MembershipBounds("abc", "abd", ends=True)),
    Fault(NotSaved, LOST, 11, MembershipBounds("ab", "ac", ends=True)),
    Fault(OneFreshEntry, "leader 2 serves a read at slot ", 10),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.space.__name__)
def test_rule_is_needed(fault: Fault) -> None:
    found: Found[Any] = StateSearch(fault.space(fault.bounds), 500_000).run()
    story = format_counterexample(found.trace, found.violation)
    assert (fault.says in found.violation, len(found.trace)) == (True, fault.steps), story


# ----------------------------------------------------------- what keeps it small


class VotesAtAnyTime(MembershipSpace):
    """Each vote is a step of its own, and no nodes swap places."""

    def __init__(self, bounds: MembershipBounds) -> None:
        super().__init__(bounds)
        self._swaps = []

    def steps(self, state: State, chosen: Sequence[Value]) -> Iterator[tuple[State, str, str]]:
        yield from super().steps(state, chosen)
        for ballot in self.ballots:
            able = state.promised[ballot]
            for higher in self.ballots[ballot + 1 :]:
                able &= ~state.promised[higher]
            for slot in self.slots:
                place = self.at(ballot, slot)
                able_here = able & ~state.votes[place] & self.counts_by(state, chosen, ballot, slot)
                for node, name in enumerate(self.names):
                    if state.proposals[place] and able_here >> node & 1 and self.takes_part(state, chosen, node):
                        votes = put(state.votes, place, state.votes[place] | 1 << node)
                        yield state._replace(votes=votes), name, "votes"


class OneFreshEntryAtAnyTime(OneFreshEntry, VotesAtAnyTime):
    """Both."""


class NotGrownAtAnyTime(NotGrown, VotesAtAnyTime):
    """Both."""


@pytest.mark.parametrize(
    ("space", "says", "bounds"),
    [
        (VotesAtAnyTime, "", MembershipBounds("a", "b")),
        (VotesAtAnyTime, "", MembershipBounds("a", "ab")),
        (VotesAtAnyTime, "", MembershipBounds("ab", "abc", slots=2)),
        (NotGrownAtAnyTime, "two values chosen at slot 3", MembershipBounds("a", "b")),
        (
            OneFreshEntryAtAnyTime,
            "leader 2 serves a read at slot 2; slot 3 was acknowledged",
            MembershipBounds("a", "b"),
        ),
    ],
)
def test_the_same_is_found_without(space: type[MembershipSpace], says: str, bounds: MembershipBounds) -> None:
    found: Found[Any] = StateSearch(space(bounds), 100_000).run()
    assert found.violation == says
    assert found.exhausted or says
