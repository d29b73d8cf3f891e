"""The argument by which registers move into the log holds, and each rule of it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest

from txpaxos.testing.model.counterexample import format_counterexample
from txpaxos.testing.model.membership import Nodes, Value
from txpaxos.testing.model.sealing import NOTHING, RegisterState, SealingSpace
from txpaxos.testing.model.search import Found, StateSearch

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.


@pytest.mark.parametrize(("voters", "ballots", "states"), [("abc", 2, 1788), ("ab", 3, 1208)])
def test_sealing_is_safe(voters: str, ballots: int, states: int) -> None:
    found: Found[Any] = StateSearch(SealingSpace(voters, ballots), 100_000).run()
    assert (found.violation, found.exhausted, found.states) == ("", True, states)


class NoReads(SealingSpace):
    """No node answers a read, so what is found is about what is imported."""

    def answers(self, state: RegisterState) -> Nodes:
        return 0


class Minority(NoReads):
    """One sealed voter is enough."""

    def imports(self, told: Sequence[Nodes], proposals: Sequence[Value]) -> Iterator[Value]:
        return (proposals[place - 1] if place else NOTHING for place, voters in enumerate(told) if voters)


class LowestVote(NoReads):
    """The vote with the lowest ballot is imported, of those that all sealed voters have told."""

    def imports(self, told: Sequence[Nodes], proposals: Sequence[Value]) -> Iterator[Value]:
        if list(super().imports(told, proposals)):
            yield next((proposals[place] for place, voters in enumerate(told[1:]) if voters), NOTHING)


class SealForgotten(NoReads):
    """A restart undoes the seal, since it is not on disk."""

    def steps(self, state: RegisterState) -> Iterator[tuple[RegisterState, str, str]]:
        yield from super().steps(state)
        for place, name in enumerate(self.names):
            if state.sealed >> place & 1:
                yield state._replace(sealed=state.sealed & ~(1 << place)), name, "restarts, and forgets its seal"


class SealedAnswers(SealingSpace):
    """A sealed voter still answers reads."""

    def answers(self, state: RegisterState) -> Nodes:
        return self.everyone


@attrs.frozen
class Fault:
    """``says`` is the violation that is found. The shortest trace has ``steps`` steps."""

    space: type[SealingSpace]
    says: str
    steps: int


FAULTS = (
    Fault(Minority, "imported nothing, chosen value 1", 6),
    Fault(LowestVote, "imported value 1, chosen value 2", 10),
    Fault(SealForgotten, "imported nothing, chosen value 1", 8),
    Fault(SealedAnswers, "a majority still answers that nothing was decided", 3),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.space.__name__)
def test_rule_is_needed(fault: Fault) -> None:
    found: Found[Any] = StateSearch(fault.space("abc", 2), 100_000).run()
    story = format_counterexample(found.trace, found.violation)
    assert (found.violation, len(found.trace)) == (fault.says, fault.steps), story
