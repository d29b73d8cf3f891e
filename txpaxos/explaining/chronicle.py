"""What a node remembers of its own steps: an observer that keeps the facts of the last slots and ballots."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, TypeAlias

import attrs

from txpaxos.core.messages import (
    LOWEST,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    NodeId,
    PrepareLog,
    PromiseLog,
    Slot,
)
from txpaxos.core.ready import Checkpoint, Chosen, Learned, Promised, Ready, Record, Voted
from txpaxos.explaining.facts import Fact, ValueMark, What
from txpaxos.node.events import Event, MessageReceived, PromiseCounted, ReadyReleased, SlotApplied

SLOTS_MAX = 4096
"""How many slots a node remembers."""
FACTS_MAX = 64
"""How many facts of one slot. A vote that is asked for again and again makes no more."""
BALLOTS_MAX = 64
"""How many ballots a node remembers: those that it promised, with the promises that it heard for its own."""

_Noted: TypeAlias = tuple[What, float, Ballot, NodeId, ValueMark | None, tuple[NodeId, ...]]
"""A fact of a slot, as short as can be: what, when (monotonic seconds), ballot, peer, value, who was asked."""

_Promise: TypeAlias = tuple[NodeId, float, Slot, int, dict[Slot, tuple[Ballot, ValueMark]]]
"""A promise that was heard: of whom, when, from which slot on, how many values from there on its sender knew to be
chosen, and its votes."""


class _OfBallot:
    """What is remembered of one ballot: when it was prepared and promised here, and the promises that were heard."""

    __slots__ = ("noted", "promises")

    def __init__(self) -> None:
        self.noted: list[tuple[What, float]] = []
        self.promises: dict[NodeId, _Promise] = {}


class Chronicle:
    """What one node remembers of how its last slots came to hold what they hold.

    It is given to a node as an observer, and is told of each step as it is taken. It has no values, only their marks.

    :param node: the node's id.
    :param monotonic: the clock of the steps, in monotonic seconds.
    :param utc_seconds: the wall clock. Facts are dated by what it says when they are asked for, so that a step of that
        clock moves all of them, and never one past another.
    :param slots_max: how many slots to remember.
    :param only: the slots to remember; all if not given.
    :param ballots_max: how many ballots to remember.
    """

    def __init__(
        self,
        node: NodeId,
        monotonic: Callable[[], float] = time.monotonic,
        utc_seconds: Callable[[], float] = time.time,
        slots_max: int = SLOTS_MAX,
        only: Container[Slot] | None = None,
        ballots_max: int = BALLOTS_MAX,
    ) -> None:
        self.node = node
        self._monotonic = monotonic
        self._utc_seconds = utc_seconds
        self._slots_max = slots_max
        self._only = only
        self._ballots_max = ballots_max
        self._slots: dict[Slot, list[_Noted]] = {}
        self._marked, self._mark = b"", ValueMark.of(b"")  # The last value: a leader proposes it and votes for it.
        self._asked: tuple[NodeId, ...] = ()  # The last ones that were asked for votes, who seldom change.
        self._ballots: dict[Ballot, _OfBallot] = {}

    def __call__(self, event: Event) -> None:
        """Take a step of the node. Each slot makes half a dozen of them, so this path has few calls."""
        kind = type(event)
        if kind is ReadyReleased:
            self.ready_released(event.ready, self._monotonic())  # type: ignore[union-attr]
        elif kind is MessageReceived:
            message: Any = event.message  # type: ignore[union-attr]
            if type(message) is AcceptedSlot:
                self.message_received(event.sender, message, self._monotonic())  # type: ignore[union-attr]
        elif kind is SlotApplied:
            self._note(event.slot, What.APPLIED, self._monotonic())  # type: ignore[union-attr]
        elif kind is PromiseCounted:
            self.promise_counted(event.sender, event.promise, self._monotonic())  # type: ignore[union-attr]

    def message_received(self, sender: NodeId, message: object, now: float) -> None:
        """Note a vote that was heard. Other messages tell nothing that is remembered.

        Only what was asked for is noted. So what peers send takes no room of its own."""
        if type(message) is AcceptedSlot:
            ballot, slot = message.ballot, message.slot
            if ballot.node == self.node and slot in self._slots:
                self._note(slot, What.HEARD_VOTE, now, ballot, sender)

    def promise_counted(self, sender: NodeId, promise: PromiseLog, now: float) -> None:
        """Note a promise that the core has counted. The leader does not go by one that comes later, so its votes are
        no reason for anything."""
        if promise.ballot in self._ballots:
            marks = {vote.slot: (vote.ballot, ValueMark.of(vote.value)) for vote in promise.votes[: self._slots_max]}
            noted = sender, now, promise.first_slot, len(promise.values), marks
            self._ballots[promise.ballot].promises.setdefault(sender, noted)

    def ready_released(self, ready: Ready, now: float) -> None:
        """Note what is on disk, what is about to be sent, and what is known to be chosen."""
        for record in ready.save:
            kind = type(record)
            if kind is Voted:
                self._note(record.slot, What.VOTED, now, record.ballot, value=record.value)  # type: ignore[union-attr]
            elif kind is Checkpoint:
                break  # What follows was saved before, and is saved again so that older files may go.
            else:
                self._note_record(record, now)
        for envelope in ready.send:
            message = envelope.message
            if type(message) is AcceptSlot:
                if envelope.to != self._asked:
                    self._asked = envelope.to
                self._note(message.slot, What.PROPOSED, now, message.ballot, value=message.value, asked=self._asked)
            elif type(message) is PrepareLog:
                self._note_ballot(message.ballot, What.PREPARED, now)
        for chosen in ready.chosen:
            if type(chosen) is Chosen:
                self._note(chosen.slot, What.CHOSEN, now)

    def slot_applied(self, slot: Slot, now: float) -> None:
        """Note that ``slot`` was applied."""
        self._note(slot, What.APPLIED, now)

    def _note_record(self, record: Record, now: float) -> None:
        if type(record) is Learned:
            for slot, value in enumerate(record.values, record.first_slot):
                self._note(slot, What.TOLD, now, value=value)
        elif type(record) is Promised:
            self._note_ballot(record.ballot, What.PROMISED, now)

    def _note(
        self,
        slot: Slot,
        what: What,
        now: float,
        ballot: Ballot = LOWEST,
        peer: NodeId = "",
        value: bytes | None = None,
        asked: tuple[NodeId, ...] = (),
    ) -> None:
        """Note a fact. What was noted before is sorted out when it is asked for, or when there is no room."""
        noted = self._slots.get(slot)
        if noted is None:
            if self._only is not None and slot not in self._only:
                return
            noted = self._slots[slot] = []
            if len(self._slots) > self._slots_max:
                del self._slots[next(iter(self._slots))]
        elif len(noted) >= FACTS_MAX:
            noted[:] = _each_once(noted)
            if len(noted) >= FACTS_MAX:
                return
        if value is not None and value is not self._marked:
            self._marked, self._mark = value, ValueMark.of(value)
        noted.append((what, now, ballot, peer, None if value is None else self._mark, asked))

    def _note_ballot(self, ballot: Ballot, what: What, now: float) -> None:
        of_ballot = self._ballots.get(ballot)
        if of_ballot is None:
            of_ballot = self._ballots[ballot] = _OfBallot()
            if len(self._ballots) > self._ballots_max:
                del self._ballots[min(self._ballots)]
        if all(one[0] is not what for one in of_ballot.noted):
            of_ballot.noted.append((what, now))

    # asking

    @property
    def slots(self) -> range:
        """The slots from the first to the last that is remembered. Some between them may not be."""
        return range(min(self._slots), max(self._slots) + 1) if self._slots else range(0)

    def ballots_at(self, slot: Slot) -> set[Ballot]:
        """The ballots in which this node proposed or voted at ``slot``, or heard votes."""
        return {one[2] for one in self._slots.get(slot, ())} - {LOWEST}

    def recall(self, slot: Slot, ballots: Iterable[Ballot] | None = None) -> tuple[Fact, ...]:
        """What this node remembers of ``slot``, and of the ballots that were used there, in the order of time.

        :param ballots: the ballots; those that this node knows to have been used there, unless given.
        """
        facts = [
            Fact(self.node, what, when, slot, ballot, peer=peer, value=value, asked=asked)
            for what, when, ballot, peer, value, asked in _each_once(self._slots.get(slot, ()))
        ]
        for ballot in self.ballots_at(slot) if ballots is None else ballots:
            if ballot in self._ballots:
                facts += self._facts_of(ballot, slot)
        return self._dated(facts)

    def recall_ballot(self, ballot: Ballot) -> tuple[Fact, ...]:
        """What this node remembers of ``ballot`` itself, in the order of time."""
        return self._dated(self._facts_of(ballot, 0) if ballot in self._ballots else ())

    def _facts_of(self, ballot: Ballot, slot: Slot) -> Iterator[Fact]:
        of_ballot = self._ballots[ballot]
        for what, when in of_ballot.noted:
            yield Fact(self.node, what, when, 0, ballot)
        for peer, when, first_slot, known, votes in of_ballot.promises.values():
            vote, value = votes.get(slot, (LOWEST, None))
            is_known = first_slot <= slot < first_slot + known
            yield Fact(self.node, What.HEARD_PROMISE, when, slot, ballot, peer, vote, value, is_known)

    def _dated(self, facts: Iterable[Fact]) -> tuple[Fact, ...]:
        """``facts`` in the order of time, with the time of day instead of monotonic seconds."""
        offset = self._utc_seconds() - self._monotonic()
        ordered = sorted(facts, key=lambda fact: fact.utc_seconds)
        return tuple(attrs.evolve(fact, utc_seconds=fact.utc_seconds + offset) for fact in ordered)


def _each_once(noted: Iterable[_Noted]) -> Iterator[_Noted]:
    """Each fact as it was noted first: what a node does again tells nothing new."""
    first: dict[tuple[What, Ballot, NodeId], _Noted] = {}
    for one in noted:
        first.setdefault((one[0], one[2], one[3]), one)
    return iter(first.values())
