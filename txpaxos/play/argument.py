"""Why it is safe, pointed at in a run: who voted, who promised, who is in both, and what a proposer had to propose.

An :class:`Argument` watches what is saved, sent and received on the stage, and tells it in sentences. It decides
nothing, and no node asks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import (
    Accept,
    AcceptSlot,
    Ballot,
    Message,
    NodeId,
    Promise,
    PromiseLog,
    Proposal,
    Slot,
)
from txpaxos.core.ready import DecreeState, Record, Voted
from txpaxos.play.words import nodes_in_words, proposal_in_words, value_in_words

SLOTS_TOLD_MAX = 4
"""The number of slots that are told about: those with the highest numbers."""


@attrs.frozen
class Point:
    """One sentence of the argument.

    :ivar kind: ``votes``, ``chosen``, ``free``, ``bound`` or ``shared``.
    :ivar nodes: those that it is about.
    """

    kind: str
    text: str
    nodes: tuple[NodeId, ...]


@attrs.define
class Votes:
    """The acceptors that have voted for ``value`` in one ballot at one slot. Their votes are on their disks."""

    value: bytes
    voters: list[NodeId] = attrs.field(factory=list)


@attrs.frozen
class Proposed:
    """What a proposer knew when it asked for votes first.

    :ivar promised_by: the quorum that promised its ballot.
    :ivar reports: what nodes of that quorum had accepted at this slot.
    """

    value: bytes
    promised_by: tuple[NodeId, ...]
    reports: tuple[tuple[NodeId, Proposal], ...]

    @property
    def highest(self) -> Proposal | None:
        """The report of the highest ballot, if there is any."""
        return max((proposal for _, proposal in self.reports), key=lambda one: one.ballot, default=None)


class Argument:
    """What is known about quorums, seen from outside.

    :param voters: the nodes whose votes count.
    :ivar votes: the votes on disks, by slot and ballot. A single decree is slot 0.
    :ivar proposed: what was proposed, by slot and ballot.
    """

    def __init__(self, voters: Sequence[NodeId]) -> None:
        self.voters = tuple(voters)
        self.quorum = quorum_size(len(self.voters))
        self.votes: dict[Slot, dict[Ballot, Votes]] = {}
        self.proposed: dict[Slot, dict[Ballot, Proposed]] = {}
        # For each ballot the first quorum of promises that its proposer has received, and what each reports.
        self._promises: dict[Ballot, dict[NodeId, dict[Slot, Proposal]]] = {}

    def saved(self, node: NodeId, record: Record) -> None:
        """``record`` is on the disk of ``node``."""
        match record:
            case DecreeState(_, accepted) if accepted is not None:
                self._vote(node, 0, accepted)
            case Voted(ballot, slot, value):
                self._vote(node, slot, Proposal(ballot, value))

    def received(self, node: NodeId, sender: NodeId, message: Message) -> None:
        """``message`` of ``sender`` has arrived at ``node``."""
        match message:
            case Promise(ballot, accepted):
                reports = {} if accepted is None else {0: accepted}
            case PromiseLog(ballot, _, _, votes):
                reports = {vote.slot: Proposal(vote.ballot, vote.value) for vote in votes}
            case _:
                return
        promises = self._promises.setdefault(ballot, {})
        if ballot.node == node and len(promises) < self.quorum:
            promises.setdefault(sender, reports)

    def sent(self, node: NodeId, message: Message) -> None:
        """``node`` has sent ``message``."""
        match message:
            case Accept(ballot, value):
                slot = 0
            case AcceptSlot(ballot, slot, value):
                pass
            case _:
                return
        promises = self._promises.get(ballot, {})
        reports = tuple((promiser, told[slot]) for promiser, told in promises.items() if slot in told)
        proposal = Proposed(value, tuple(sorted(promises)), reports)
        self.proposed.setdefault(slot, {}).setdefault(ballot, proposal)

    def _vote(self, node: NodeId, slot: Slot, accepted: Proposal) -> None:
        votes = self.votes.setdefault(slot, {}).setdefault(accepted.ballot, Votes(accepted.value))
        if node not in votes.voters:
            votes.voters.append(node)

    def chosen(self, slot: Slot) -> bytes | None:
        """The value that is chosen at ``slot``, whether or not any node knows: a quorum of disks holds votes for it in
        one ballot."""
        ballots = self.votes.get(slot, {})
        return next((votes.value for votes in ballots.values() if len(votes.voters) >= self.quorum), None)

    def points(self) -> list[Point]:
        """The argument in sentences, slot by slot, and there ballot by ballot."""
        slots = sorted({*self.votes, *self.proposed})[-SLOTS_TOLD_MAX:]
        return [point for slot in slots for point in self._points_of(slot)]

    def _points_of(self, slot: Slot) -> Iterator[Point]:
        where = f"Slot {slot}: " if slot else ""
        ballots = self.votes.get(slot, {})
        proposed = self.proposed.get(slot, {})
        for ballot in sorted({*ballots, *proposed}):
            if ballot in proposed:
                yield self._why(where, ballot, proposed[ballot])
                yield from self._shared(where, ballot, proposed[ballot], ballots)
            if ballot in ballots:
                yield self._count(where, ballot, ballots[ballot])

    def _why(self, where: str, ballot: Ballot, proposed: Proposed) -> Point:
        """Why a proposer proposes what it does."""
        value, highest = value_in_words(proposed.value), proposed.highest
        quorum = nodes_in_words(proposed.promised_by)
        if highest is None:
            free = f"{where}{ballot.node} is free in {ballot}: {quorum} promised it, and reported no vote."
            return Point("free", f"{free} It proposes {value}.", proposed.promised_by)
        reporters = tuple(sorted(node for node, one in proposed.reports if one == highest))
        told = f"{nodes_in_words(reporters)} reported {proposal_in_words(highest)}"
        best = ", the highest ballot reported" if len({one for _, one in proposed.reports}) > 1 else ""
        return Point("bound", f"{where}{ballot.node} must propose {value} in {ballot}: {told}{best}.", reporters)

    def _shared(self, where: str, ballot: Ballot, proposed: Proposed, ballots: dict[Ballot, Votes]) -> Iterator[Point]:
        """Who is in the quorum of a chosen value and in that of the promises of a later ballot."""
        for earlier, votes in sorted(ballots.items()):
            if earlier < ballot and len(votes.voters) >= self.quorum:
                both = tuple(sorted({*votes.voters} & {*proposed.promised_by}))
                has = "is" if len(both) == 1 else "are"
                text = f"{where}{nodes_in_words(both)} {has} in both quorums: that of the votes in {earlier}"
                yield Point("shared", f"{text}, and that of the promises of {ballot}.", both)

    def _count(self, where: str, ballot: Ballot, votes: Votes) -> Point:
        """Whether the votes in a ballot are a quorum."""
        voters, value = tuple(sorted(votes.voters)), value_in_words(votes.value)
        told = f"{where}{nodes_in_words(voters)} accepted {value} in {ballot}"
        share = f"{len(voters)} of {len(self.voters)}"
        if len(voters) < self.quorum:
            return Point("votes", f"{told}: {share}, which is no quorum.", voters)
        return Point("chosen", f"{told}: {share}, a quorum. {value} is chosen.", voters)
