"""The content of one node's disk in the model, and what it allows the node to send.

Each record is checked when it is written, and each message when it leaves. A claim about other disks ("this value is
chosen") cannot be checked here. It is returned as a :data:`Belief`, which :mod:`txpaxos.testing.model.chosen_values`
checks against all disks together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, cast

import attrs

from txpaxos.core.log import Log
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Decided,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    NodeId,
    Prepare,
    PrepareLog,
    Promise,
    PromiseLog,
    Proposal,
    Slot,
    Vote,
)
from txpaxos.core.ready import DecreeState, Learned, LearnedThrough, LogRecord, Promised, Record, Voted
from txpaxos.testing.model.formatting import show

Belief: TypeAlias = tuple[Slot, bytes | None]
"""The claim that a value is chosen at a slot. ``None`` stands for any value."""


class ModelViolation(Exception):
    """A rule is broken. The text says which."""


def require(holds: bool, *what: object) -> None:
    """Raise :class:`ModelViolation` with the text of ``what``, unless ``holds``."""
    if not holds:
        raise ModelViolation(" ".join(part if isinstance(part, str) else show(part) for part in what))


def values_at(first_slot: Slot, values: Iterable[bytes]) -> set[Belief]:
    """The claims that ``values`` are chosen at ``first_slot``, ``first_slot + 1``, ..."""
    return set(enumerate(values, first_slot))


@attrs.frozen(cache_hash=True)
class ModelDisk:
    """All that a node ever saved.

    :ivar owner: whose disk it is; no name if the node starts no ballots.
    :ivar first_slot: 1 in a log, 0 for a node of a single decree.
    :ivar records: the records that the node starts from. For a log they are sorted, so that histories with the same
        effect are equal: by ballot and slot, with learned values last. ``Log.recover`` does not depend on their order,
        since it takes only highest ballots, the last vote at each slot, and the union of learned values.
    :ivar promised: the highest promised ballot.
    :ivar votes: every vote ever cast, also those that a later one replaced.
    :ivar begun: every ballot that the node has begun.
    """

    owner: NodeId
    first_slot: Slot
    records: tuple[Record, ...] = ()
    promised: Ballot = LOWEST
    votes: frozenset[Vote] = frozenset()
    begun: frozenset[Ballot] = frozenset()

    # what is written

    def write(self, record: Record) -> tuple[ModelDisk, set[Belief]]:
        """The disk with ``record`` on it, and what the record takes for chosen.

        :raises ModelViolation: if the record takes back a promise or a vote.
        """
        match record:
            case DecreeState(promised, accepted, chosen):
                last = self.records[0] if self.records else DecreeState()
                assert isinstance(last, DecreeState)
                require(last.chosen in (None, chosen), record, "takes back the outcome", last.chosen)
                require(not last.accepted or bool(accepted), record, "forgets the vote", last.accepted)
                disk = attrs.evolve(self, records=(record,))._promise(promised, record)
                if accepted and accepted != last.accepted:
                    disk = disk._vote(Vote(self.first_slot, *accepted), record)
                return disk, set() if chosen is None else {(self.first_slot, chosen)}
            case Promised(ballot):
                return self._add(record)._promise(ballot, record), set()
            case Voted(ballot, slot, value, chosen_through):
                disk = self._add(record)._promise(ballot, record)._vote(Vote(slot, ballot, value), record)
                return disk, self._through(chosen_through)
            case Learned(first_slot, values):
                return self._add(record), values_at(first_slot, values)
            case LearnedThrough(slot):
                return self._add(record), self._through(slot)
        raise ModelViolation(f"{show(record)} is no record of this node")

    def compacted(self) -> ModelDisk:
        """The disk with the fewest records that make the same log: the chosen values, and for every other slot the last
        vote and the learned value. Later records have the same effect on both."""
        if not self.first_slot:
            return self
        log = Log.recover(cast(tuple[LogRecord, ...], self.records))
        votes = log.votes_from(1)
        learned = {**dict(enumerate(log.values_from(1), 1)), **log._learned}
        records: list[Record] = [Voted(vote.ballot, vote.slot, vote.value, 0) for vote in votes]
        records += [Learned(slot, (value,)) for slot, value in learned.items()]
        if log.learned_through:
            records.append(LearnedThrough(log.learned_through))
        if log.promised > max((vote.ballot for vote in votes), default=LOWEST):
            records.append(Promised(log.promised))
        return attrs.evolve(self, records=tuple(sorted(records, key=_place)))

    def _add(self, record: Record) -> ModelDisk:
        return attrs.evolve(self, records=tuple(sorted({*self.records, record}, key=_place)))

    def _promise(self, ballot: Ballot, record: Record) -> ModelDisk:
        require(ballot >= self.promised, record, "takes back the promise", self.promised)
        begun = self.begun | {ballot} if ballot.node == self.owner else self.begun
        return attrs.evolve(self, promised=ballot, begun=begun)

    def _vote(self, vote: Vote, record: Record) -> ModelDisk:
        require(vote.ballot <= self.promised, record, "votes above the promise", self.promised)
        last = self._last_votes().get(vote.slot)
        require(last is None or vote.ballot >= last.ballot, record, "takes back", last)
        same = last is None or vote.ballot > last.ballot or vote == last
        require(same, record, "votes for another value than", last)
        return attrs.evolve(self, votes=self.votes | {vote})

    # what it allows the node to send

    def vouch_for(self, sender: NodeId, message: Message, cause: Message | None) -> set[Belief]:
        """What ``message``, sent in answer to ``cause``, takes for chosen.

        :raises ModelViolation: if the message depends on a promise or a vote that is not on disk.
        """
        match message:
            case Prepare() | PrepareLog() | Accept() | AcceptSlot() | Heartbeat():
                require(message.ballot.node == sender, message, "is of another's ballot")
                self._require_promised(message.ballot, message)
            case Promise() | PromiseLog():
                self._require_promised(message.ballot, message)
                self._require_votes_told(message)
            case Accepted(ballot, value):
                require(Vote(self.first_slot, ballot, value) in self.votes, message, "leaves, and is not on disk")
            case AcceptedSlot(ballot, slot):
                if not any((vote.slot, vote.ballot) == (slot, ballot) for vote in self.votes):
                    # Then the message is only sent because the value is known to be chosen.
                    assert isinstance(cause, AcceptSlot)
                    return {(slot, cause.value)}
            case Nack(ballot, promised):
                require(ballot < promised, message, "refuses what was not promised away")
                self._require_promised(promised, message)
        return self._told_to_be_chosen(message)

    def _told_to_be_chosen(self, message: Message) -> set[Belief]:
        match message:
            case Decided(value):
                return {(self.first_slot, value)}
            case PromiseLog(_, first_slot, values):
                return values_at(first_slot, values)
            case ChosenValues(first_slot, values, chosen_through):
                return values_at(first_slot, values) | self._through(chosen_through)
            case AcceptSlot() | Heartbeat() | HeartbeatAck():
                return self._through(message.chosen_through)
        return set()

    def _through(self, chosen_through: Slot) -> set[Belief]:
        """The claims that every slot up to ``chosen_through`` is chosen. (For a single decree, 1 means yes.)"""
        return {(slot, None) for slot in range(self.first_slot, self.first_slot + chosen_through)}

    def _last_votes(self) -> dict[Slot, Vote]:
        """The vote of the highest ballot at each slot."""
        return {vote.slot: vote for vote in sorted(self.votes)}

    def _require_promised(self, ballot: Ballot, message: Message) -> None:
        require(self.promised >= ballot, message, "leaves, and the disk has promised only", self.promised)

    def _require_votes_told(self, message: Promise | PromiseLog) -> None:
        """A promise must report all votes above the values that it reports as chosen, and no others."""
        last_votes = self._last_votes()
        if isinstance(message, Promise):
            vote = last_votes.get(self.first_slot)
            on_disk = None if vote is None else Proposal(vote.ballot, vote.value)
            require(message.accepted == on_disk, message, "leaves, and the vote on disk is", on_disk)
        else:
            lowest = message.first_slot + len(message.values)
            votes = tuple(vote for slot, vote in last_votes.items() if slot >= lowest)
            require(message.votes == votes, message, "leaves, and the votes on disk are", votes)


def _place(record: Record) -> tuple[int, Ballot, Slot, tuple[bytes, ...]]:
    match record:
        case Promised(ballot):
            return 0, ballot, 0, ()
        case Voted(ballot, slot):
            return 0, ballot, slot, ()
        case Learned(first_slot, values):
            return 1, LOWEST, first_slot, values
        case LearnedThrough(slot):
            return 2, LOWEST, slot, ()
    raise ModelViolation(f"{show(record)} is no record of a log")
