"""The model finds nothing in the core, finds every fault that is put into it, and its reductions leave nothing out.

``TXPAXOS_MODEL_STATES`` sets after how many states each instance is given up here; ``make model`` visits far more.
From 100,000 on, what the reductions leave out is looked for in bigger spaces, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from test.helpers.core_node import elect
from txpaxos.core import essential, practical
from txpaxos.core.election import Election
from txpaxos.core.log import Log
from txpaxos.core.membership import Configuration, Membership
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Accepted,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    Nack,
    NodeId,
    PromiseLog,
    Proposal,
    Slot,
    Vote,
)
from txpaxos.core.ready import Ready, Work
from txpaxos.core.replica import Replica
from txpaxos.testing.model import __main__ as command
from txpaxos.testing.model.cluster_space import ClusterSpace
from txpaxos.testing.model.copies import clone, freeze
from txpaxos.testing.model.counterexample import format_counterexample
from txpaxos.testing.model.decree import EssentialAcceptor
from txpaxos.testing.model.instances import (
    INSTANCES,
    VOTERS,
    Instance,
    change_space,
    essential_space,
    functional_space,
    log_space,
    practical_space,
)
from txpaxos.testing.model.node import Local
from txpaxos.testing.model.parts import STILL
from txpaxos.testing.model.search import Found, StateSearch

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.


STATES_MAX = int(os.environ.get("TXPAXOS_MODEL_STATES", "1500"))

LOST_AT_FIRST = (Heartbeat,) if STATES_MAX < 100_000 else ()
"""What never arrives where leaders refuse each other, unless 100,000 states are asked for: else that takes twice as
long. Where leaders do not, heartbeats arrive."""


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda instance: instance.name)
def test_core_violates_nothing(instance: Instance) -> None:
    found: Found[Any] = StateSearch(instance.space(), STATES_MAX).run()
    assert not found.violation, format_counterexample(found.trace, found.violation)
    assert found.exhausted or found.states > STATES_MAX


@pytest.mark.parametrize(
    ("space", "states"),
    [
        (lambda: essential_space((1, 1)), 783),
        (lambda: practical_space((1, 0), owed_max=1), 1197),
        (lambda: functional_space((1, 0)), 537),
        (lambda: log_space((1, 0), slots_max=1), 366),
    ],
)
def test_small_ones_are_exhausted(space: Callable[[], ClusterSpace], states: int) -> None:
    found: Found[Any] = StateSearch(space(), 10_000).run()
    assert (found.exhausted, found.states, found.violation) == (True, states, "")


# --------------------------------------------------------------------- faults


def one_too_few(members: int) -> int:
    return members // 2


def accept_own_value(self: essential.Proposer) -> Accept | None:
    return Accept(self.ballot, self.value) if self.has_quorum and self.value is not None else None


def accept_without_promising(self: essential.Acceptor, accept: Accept) -> Accepted | None:
    if accept.ballot < self.promised:
        return None
    self.accepted = Proposal(accept.ballot, accept.value)
    return Accepted(accept.ballot, accept.value)


def accept_whatever_was_promised(self: essential.Acceptor, accept: Accept) -> Accepted | None:
    self.promised = max(self.promised, accept.ballot)
    self.accepted = Proposal(accept.ballot, accept.value)
    return Accepted(accept.ballot, accept.value)


def count_votes_of_all_ballots(self: essential.Learner, sender: NodeId, accepted: Accepted) -> bytes | None:
    voters = self.voters.setdefault(LOWEST, set())
    voters.add(sender)
    if len(voters) >= self.quorum:
        self.chosen = accepted.value
    return self.chosen


def save_too_late(self: practical.Node, work: Work) -> Ready:
    """The answer leaves with this Ready, and the records that it depends on are saved with the next."""
    ready = shipped_ready(self, work)
    late, self.__dict__["late"] = self.__dict__.get("late", ()), ready.save
    return attrs.evolve(ready, save=late)


def start_rounds_anew(self: practical.Proposer, node: NodeId, members: int, highest: Ballot = LOWEST) -> None:
    shipped_proposer(self, node, members)


def mark_chosen_whatever_the_ballot(self: Log, ballot: Ballot, through: Slot) -> None:
    for slot in range(self.chosen_through + 1, through + 1):
        vote = self._votes.get(slot)
        if vote is None:
            return
        self._learned[slot] = vote.value


def vote_without_promising(self: Log, ballot: Ballot, slot: Slot, value: bytes) -> Any:
    promised = self.promised
    record = shipped_accept(self, ballot, slot, value)
    self.promised = promised
    return record


def recover_no_votes(records: Any, base: int = 0) -> Log:
    log = shipped_recover(records, base)
    log._votes = {}
    return log


def tell_no_votes(self: Log, first_slot: Slot) -> tuple[Vote, ...]:
    return ()


def propose_gaps_only(self: Replica, work: Work, promises: Mapping[str, PromiseLog], now: float) -> None:
    silent = {node: attrs.evolve(promise, votes=()) for node, promise in promises.items()}
    shipped_start_leading(self, work, silent, now)


def start_log_rounds_anew(self: Election[PromiseLog], *arguments: Any, **named: Any) -> None:
    shipped_election(self, *arguments, **{**named, "highest_seen": LOWEST})


shipped_ready = practical.Node._ready
shipped_proposer = practical.Proposer.__init__
shipped_accept = Log.accept
shipped_recover = Log.recover
shipped_start_leading = Replica._start_leading
shipped_election = Election.__init__


def essential_small() -> ClusterSpace:
    return essential_space((1, 1))


def practical_small() -> ClusterSpace:
    return practical_space((1, 1))


def log_small() -> ClusterSpace:
    return log_space((1, 1), slots_max=2, lost=(Nack, Heartbeat, Fetch), own_at_once=True)


def log_with_heartbeats() -> ClusterSpace:
    return log_space((1, 1), slots_max=2, lost=(Nack, Fetch, ChosenValues), own_at_once=True)


@attrs.frozen
class Fault:
    """``what`` of ``where`` is replaced by ``by``. ``says`` is the beginning of the violation that is found in
    ``space``. The shortest trace has ``steps`` steps."""

    where: Any
    what: str
    by: Any
    space: Callable[[], ClusterSpace]
    says: str
    steps: int


NOT_CHOSEN = "taken for chosen: "
TWO_CHOSEN = "two values chosen at slot "
STARTED_BEFORE = " starts a ballot that was started before"
HOLDS = "the acceptor holds "

FAULTS = {
    "quorum off by one": Fault(essential, "quorum_size", one_too_few, essential_small, NOT_CHOSEN, 5),
    "quorum off by one, practical": Fault(practical, "quorum_size", one_too_few, practical_small, NOT_CHOSEN, 5),
    "own value first": Fault(essential.Proposer, "accept", accept_own_value, essential_small, TWO_CHOSEN, 12),
    "accept does not promise": Fault(
        essential.Acceptor, "receive_accept", accept_without_promising, essential_small, " votes above the promise ", 5
    ),
    "accept below the promise": Fault(
        essential.Acceptor, "receive_accept", accept_whatever_was_promised, practical_small, " takes back ", 10
    ),
    "accept below the promise, taken for dead": Fault(
        essential.Acceptor, "receive_accept", accept_whatever_was_promised, essential_small, " should do nothing ", 6
    ),
    "votes counted across ballots": Fault(
        essential.Learner, "receive_accepted", count_votes_of_all_ballots, essential_small, NOT_CHOSEN, 11
    ),
    "answer before save": Fault(practical.Node, "_ready", save_too_late, practical_small, " the disk has promised ", 1),
    "ballot reused after restart": Fault(
        practical.Proposer, "__init__", start_rounds_anew, practical_small, STARTED_BEFORE, 3
    ),
    "ballot reused after restart, log": Fault(
        Election, "__init__", start_log_rounds_anew, log_small, STARTED_BEFORE, 2
    ),
    "mark chosen whatever the ballot": Fault(
        Log, "mark_chosen_by_ballot", mark_chosen_whatever_the_ballot, log_with_heartbeats, NOT_CHOSEN, 13
    ),
    "vote does not promise": Fault(Log, "accept", vote_without_promising, log_small, HOLDS, 4),
    "votes not recovered": Fault(Log, "recover", recover_no_votes, log_small, HOLDS, 3),
    "votes not told": Fault(Log, "votes_from", tell_no_votes, log_small, " the votes on disk are ", 5),
    "nothing re-proposed": Fault(Replica, "_start_leading", propose_gaps_only, log_small, TWO_CHOSEN, 10),
}


def govern_by_the_oldest(self: Membership, slot: Slot) -> Configuration:
    return self.configurations[0]


def log_that_changes() -> ClusterSpace:
    return change_space("a", "b", {"a": 1}, slots_max=4, lost=(Heartbeat,))


FAULTS["votes counted by the old members"] = Fault(
    Membership, "governing", govern_by_the_oldest, log_that_changes, NOT_CHOSEN, 10
)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.where, fault.what, fault.by)
    found: Found[Any] = StateSearch(fault.space(), 100_000).run()
    story = format_counterexample(found.trace, found.violation)
    assert (fault.says in found.violation, len(found.trace)) == (True, fault.steps), story
    assert story.endswith(f"\n  =  {found.violation}")
    assert len(story.splitlines()) < 60


def test_story_tells_what_happened_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practical.Proposer, "__init__", start_rounds_anew)
    found: Found[Any] = StateSearch(practical_small(), 1000).run()
    assert format_counterexample(found.trace, found.violation).splitlines() == [
        "  1  a  starts a ballot",
        "        saves      DecreeState(promised=1.a, accepted=None, chosen=None)",
        "        sends      Prepare(ballot=1.a) to a b c",
        "  2  a  crashes, and restarts",
        "  3  a  starts a ballot",
        "  =  Prepare(ballot=1.a) starts a ballot that was started before",
    ]


def test_command_tells_figures_and_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(command.main, ["essential", "--states-max", "100"])
    head, line = result.stdout.splitlines()
    assert head.split() == ["instance", "states", "transitions", "depth", "exhausted", "violations", "seconds"]
    assert line.split()[:1] + line.split()[4:6] == ["essential", "no", "0"]
    assert result.exit_code == 0
    monkeypatch.setattr(essential, "quorum_size", one_too_few)
    result = CliRunner().invoke(command.main, ["essential"])
    assert result.exit_code == 1
    assert "essential (2 ballots of each proposer):\n  1  p  starts a ballot\n" in result.stdout
    assert result.stdout.endswith("  =  taken for chosen: b'P' at slot 0; chosen is: nothing\n")


def test_copy_is_the_same_and_apart() -> None:
    node = practical.Node("a", VOTERS)
    node.prepare()
    replica = Replica("a", VOTERS, STILL, 0.0)
    elect(replica, 1.0)
    for original in (node, replica):
        copy = clone(original)
        assert freeze(copy) == freeze(original)
        if isinstance(copy, Replica):
            copy.propose(b"v", 1.0)
        else:
            copy.prepare()
        assert freeze(copy) != freeze(original)
    copy = clone(replica)
    assert copy._leader is not replica._leader
    assert copy._leader._log is copy.log


# ----------------------------------------------------------- what keeps it small


ALL_OFF = {"forget_counts": False, "bury_dead": False, "give_at_once": False, "compact": False}


class Projection:
    """States reduced to what counts in them, whichever reductions are on."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}

    def reached(self, space: ClusterSpace, states_max: int) -> tuple[Found[Any], set[object]]:
        """All states of ``space``, up to a limit. Interchangeable nodes may have swapped places."""
        search: StateSearch[Any] = StateSearch(space, states_max)
        found = search.run()
        tables = [[self._number(node.part, local) for local in node.locals] for node in space.nodes]
        alike = [isinstance(node.part, EssentialAcceptor) for node in space.nodes]
        reached: set[object] = set()
        for state in search.states:
            nodes = [table[space.local(state, index)] for index, table in enumerate(tables)]
            others = tuple(node for node, like in zip(nodes, alike, strict=True) if not like)
            reached.add((others, tuple(sorted(node for node, like in zip(nodes, alike, strict=True) if like))))
        return found, reached

    def _number(self, part: Any, local: Local) -> int:
        running, disk = clone(local.running), local.disk
        part.forget_counts(running)
        key = freeze(running), disk.promised, disk.votes, disk.begun, local.owed, local.handed_out
        return self._numbers.setdefault(key, len(self._numbers))


def essential_for(**bounds: Any) -> ClusterSpace:
    return essential_space((1, 1), **bounds)


def practical_for(**bounds: Any) -> ClusterSpace:
    return practical_space((1, 0), **{"owed_max": 1, **bounds})


def functional_for(**bounds: Any) -> ClusterSpace:
    return functional_space((1, 0), **bounds)


def log_for(**bounds: Any) -> ClusterSpace:
    return log_space((1, 0), slots_max=1, **bounds)


def log_refused_for(**bounds: Any) -> ClusterSpace:
    return log_space((1, 1), slots_max=1, lost=LOST_AT_FIRST, own_at_once=True, **bounds)


@pytest.mark.parametrize(
    ("space", "off"),
    [
        (essential_for, {"interchangeable": ()}),
        (essential_for, {"forget_counts": False, "interchangeable": ()}),
        (essential_for, {"bury_dead": False}),
        (essential_for, {"give_at_once": False}),
        (practical_for, {"forget_counts": False}),
        (practical_for, {"bury_dead": False}),
        (practical_for, {"give_at_once": False}),
        (functional_for, {"forget_counts": False}),
        (functional_for, {"bury_dead": False}),
        (log_for, {"forget_counts": False}),
        (log_for, {"bury_dead": False}),
        (log_for, {"compact": False}),
    ],
)
def test_nothing_is_left_out(space: Callable[..., ClusterSpace], off: dict[str, Any]) -> None:
    projection = Projection()
    found, reached = projection.reached(space(), 100_000)
    found_without, reached_without = projection.reached(space(**off), 100_000)
    assert found.exhausted
    assert found_without.exhausted
    assert found_without.states >= found.states
    assert reached_without == reached


@pytest.mark.parametrize("space", [essential_for, practical_for, functional_for, log_for, log_refused_for])
def test_nothing_is_left_out_of_what_all_together_keep_small(space: Callable[..., ClusterSpace]) -> None:
    """With all reductions off there are too many states. None of those visited is missing."""
    projection = Projection()
    found, reached = projection.reached(space(), 100_000)
    off = {**ALL_OFF, "interchangeable": ()} if space is essential_for else ALL_OFF
    _, reached_without = projection.reached(space(**off), 10_000)
    assert found.exhausted
    assert reached_without <= reached
    assert len(reached_without) > 50


@pytest.mark.parametrize(
    "off",
    [
        {"interchangeable": ()},
        {"forget_counts": False, "interchangeable": ()},
        {"bury_dead": False},
        {"give_at_once": False},
    ],
)
@pytest.mark.parametrize(
    ("where", "what", "by", "says"),
    [
        (essential, "quorum_size", one_too_few, NOT_CHOSEN),
        (essential.Proposer, "accept", accept_own_value, TWO_CHOSEN),
        (essential.Learner, "receive_accepted", count_votes_of_all_ballots, NOT_CHOSEN),
    ],
)
def test_the_same_is_found_without(
    off: dict[str, Any], where: Any, what: str, by: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, what, by)
    found: Found[Any] = StateSearch(essential_for(**off), 100_000).run()
    assert found.violation.startswith(says)
