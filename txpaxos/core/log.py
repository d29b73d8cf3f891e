"""The acceptor and the learner of every slot: what one node has promised, accepted and learned of the log.

Laws:

* One promise holds for all slots (*Paxos Made Simple*, section 3). It never goes down, and no vote is above it.
* A chosen slot keeps its value for ever.
* A vote of this node is a chosen value only where this node learned so itself, in the history that its records tell.
* Whatever changes here comes back as the record to save; a node rebuilt from its records answers as it did before.
* What a snapshot holds may be forgotten: every slot below ``first_slot`` is chosen, and only its value is not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from txpaxos.core.guards import BrokenInvariant, TwoValues
from txpaxos.core.messages import LOWEST, Ballot, Proposal, Slot, Vote
from txpaxos.core.ready import Checkpoint, Chosen, Learned, LearnedThrough, LogRecord, Promised, Voted


class Log:
    """One node's part of the log. Slots count from 1.

    :ivar promised: nothing below this ballot is accepted, at any slot.
    :param base: every slot up to this one is in a snapshot.
    :ivar chosen_through: every slot up to this one is chosen.
    :ivar first_slot: the first slot whose chosen value is kept here.
    :ivar learned_through: this node has on disk that it has learned every slot up to this one; 0 if it never said so.
    """

    def __init__(self, base: Slot = 0) -> None:
        self.promised = LOWEST
        self.chosen_through = base
        self.first_slot = base + 1
        self.learned_through = base
        self._values: list[bytes] = []
        self._votes: dict[Slot, Proposal] = {}
        # Chosen, but above a slot that is still unknown.
        self._learned: dict[Slot, bytes] = {}
        # The highest Checkpoint among the records, and the last slot at or below it of which nothing is known.
        self._checkpoint = self._lost_through = 0

    @classmethod
    def recover(cls, records: Iterable[LogRecord], base: Slot = 0) -> Log:
        """The log that saved ``records``, in the order in which it did. Every slot up to ``base`` is in a snapshot, and
        records of it may be missing."""
        log = cls(base)
        believed = base
        for record in records:
            match record:
                case Promised():
                    log.promise(record.ballot)
                case Voted():
                    # A vote was cast at a slot not known to be chosen; Learned, where there is one, came after it.
                    believed = log._adopt_votes(believed, record.chosen_through)
                    log.promised = max(log.promised, record.ballot)
                    if record.slot > base:
                        log._votes[record.slot] = Proposal(record.ballot, record.value)
                case Learned():
                    known = enumerate(record.values, record.first_slot)
                    log._learned.update((slot, value) for slot, value in known if slot > base)
                case LearnedThrough():
                    believed = log._adopt_votes(believed, record.slot)
                    log.learned_through = max(log.learned_through, record.slot)
                case Checkpoint():  # pragma: no branch
                    if not record.installed:
                        believed = log._adopt_votes(believed, record.slot)
                    # What a snapshot of another node stands for this node may never have learned.
                    believed = max(believed, record.slot)
                    log._checkpoint = max(log._checkpoint, record.slot)
        log._lost_through = log._checkpoint
        while log._lost_through in log._learned:
            log._lost_through -= 1
        log.advance()
        return log

    def _adopt_votes(self, after: Slot, through: Slot) -> Slot:
        """This node had learned every slot up to ``through``, and up to ``after`` that was said before.

        Where it did so one slot after the other, it has saved a Learned of each, or its own vote is the chosen value.
        With neither at some slot it must have gone on from another node's snapshot, or its records of that are gone;
        then a vote in the records may be one that never was chosen, and none is adopted.

        :returns: up to where that is said now.
        """
        slots = range(after + 1, through + 1)
        if all(slot in self._learned or slot in self._votes for slot in slots):
            for slot in slots:
                if slot not in self._learned:
                    self._learned[slot] = self._votes[slot].value
        return max(after, through)

    @property
    def lost_through(self) -> Slot:
        """The last slot of which this node has forgotten what it voted and learned, before it has learned the outcome
        anew; 0 if there is none.

        Votes of chosen slots are forgotten once a snapshot holds what came of them. When that snapshot is gone, too,
        this node cannot say any more what it accepted at slots up to here, so it may promise nothing about them.
        """
        return self._lost_through if self._lost_through > self.chosen_through else 0

    def lacks_checkpoint(self, base: Slot) -> bool:
        """Whether a snapshot at ``base`` is on disk and the Checkpoint that belongs to it is not: a crash came between
        the two."""
        return base > self._checkpoint

    # the acceptor

    def promise(self, ballot: Ballot) -> Promised | None:
        """Promise ``ballot``. ``None`` if that is on disk already."""
        if ballot == self.promised:
            return None
        if ballot < self.promised:
            raise BrokenInvariant(ballot, self.promised)
        self.promised = ballot
        return Promised(ballot)

    def accept(self, ballot: Ballot, slot: Slot, value: bytes) -> Voted | Promised | None:
        """Vote, which promises too. ``None`` if the vote is on disk already, or cannot matter: the slot is chosen.

        Not for a value that :meth:`contradicts` what is known.

        :raises TwoValues: if this node has voted for another one in just that ballot. Nothing is changed."""
        if (self._learned or slot <= self.chosen_through) and self.contradicts(slot, value):
            raise BrokenInvariant("another value is chosen", slot, ballot)
        if slot <= self.chosen_through:
            return self.promise(ballot)
        vote = self._votes.get(slot)
        if vote is not None and vote.ballot == ballot:
            if vote.value != value:
                raise TwoValues(slot, ballot)
            return self.promise(ballot)
        if ballot < self.promised:
            raise BrokenInvariant(ballot, self.promised)
        self.promised = ballot
        self._votes[slot] = Proposal(ballot, value)
        return Voted(ballot, slot, value, self.chosen_through)

    def contradicts(self, slot: Slot, value: bytes) -> bool:
        """Whether another value is known to be chosen at ``slot``: then a leader that proposes this one was deposed."""
        if slot > self.chosen_through:
            return self._learned.get(slot, value) != value
        return slot >= self.first_slot and self._values[slot - self.first_slot] != value

    def knows(self, slot: Slot) -> bool:
        """Whether this node knows what is chosen at ``slot``."""
        return slot <= self.chosen_through or slot in self._learned

    def votes_from(self, first_slot: Slot) -> tuple[Vote, ...]:
        """Every vote at ``first_slot`` or above, but for the slots up to ``chosen_through``."""
        lowest = max(first_slot, self.chosen_through + 1)
        return tuple(Vote(slot, *vote) for slot, vote in sorted(self._votes.items()) if slot >= lowest)

    # the learner

    def learn(self, slot: Slot, value: bytes) -> Learned | None:
        """Note that ``value`` is chosen at ``slot``.

        :returns: the record to save, unless this node's own vote says the same.
        """
        if self.contradicts(slot, value):
            raise BrokenInvariant("two values are chosen", slot)
        if slot <= self.chosen_through:
            return None
        self._learned[slot] = value
        vote = self._votes.get(slot)
        return None if vote is not None and vote.value == value else Learned(slot, (value,))

    def mark_chosen_by_ballot(self, ballot: Ballot, through: Slot) -> None:
        """The leader of ``ballot`` says that every slot up to ``through`` is chosen.

        Where this node voted in that very ballot its vote is the chosen value. Where it voted in another it may not
        be: that slot has to be asked for. Stops at the first such slot.
        """
        slot = self.chosen_through + 1
        while slot <= through:
            if slot not in self._learned:
                vote = self._votes.get(slot)
                if vote is None or vote.ballot != ballot:
                    return
                self._learned[slot] = vote.value
            slot += 1

    def reach(self, slot: Slot) -> LearnedThrough:
        """Note for the disk that every slot up to ``slot`` is learned."""
        if slot > self.chosen_through:
            raise BrokenInvariant(slot, self.chosen_through)
        self.learned_through = max(self.learned_through, slot)
        return LearnedThrough(slot)

    def advance(self) -> list[Chosen]:
        """Move ``chosen_through`` over all that is known without a gap, and hand that out."""
        chosen: list[Chosen] = []
        while (value := self._learned.pop(self.chosen_through + 1, None)) is not None:
            self.chosen_through += 1
            self._values.append(value)
            self._votes.pop(self.chosen_through, None)
            chosen.append(Chosen(self.chosen_through, value))
        return chosen

    def values_from(self, first_slot: Slot, count_max: int | None = None, bytes_max: int | None = None) -> list[bytes]:
        """The chosen values from ``first_slot`` on, within both limits, but at least one if there is one. None if that
        one is no longer kept."""
        start = first_slot - self.first_slot
        if start < 0:
            return []
        values = self._values[start : None if count_max is None else start + count_max]
        return values if bytes_max is None else _within(values, bytes_max)

    def known_through(self, first_slot: Slot) -> Slot:
        """Every slot from ``first_slot`` up to this one is known to be chosen: also above a gap."""
        through = max(first_slot - 1, self.chosen_through)
        while through + 1 in self._learned:
            through += 1
        return through

    def known_from(self, first_slot: Slot, count_max: int, bytes_max: int) -> list[bytes]:
        """The chosen values from ``first_slot`` on that other nodes may be told, within both limits, also above a gap.

        A node that has lost a snapshot knows the values above it, and has forgotten its votes there."""
        if first_slot <= self.chosen_through + 1:
            return self.values_from(first_slot, count_max, bytes_max)
        through = min(self.known_through(first_slot), first_slot + count_max - 1)
        return _within([self._learned[slot] for slot in range(first_slot, through + 1)], bytes_max)

    # snapshots

    def checkpoint(self, slot: Slot) -> list[LogRecord]:
        """The records that make this log, together with a snapshot at ``slot``, after its Checkpoint.

        Slots above it of which memory was lost are told by another Checkpoint: a snapshot of them is needed, too."""
        if self.first_slot > slot + 1:
            raise BrokenInvariant(self.first_slot, slot)
        lost = [Checkpoint(self.lost_through, installed=True)] if self.lost_through > slot else []
        records: list[LogRecord] = [*lost, Promised(self.promised)]
        if values := self.values_from(slot + 1):
            records.append(Learned(slot + 1, tuple(values)))
        records += [Learned(above, (value,)) for above, value in self._learned.items()]
        records += [Voted(vote.ballot, vote.slot, vote.value, slot) for vote in self.votes_from(slot + 1)]
        return records

    def compact(self, through: Slot) -> None:
        """Forget the chosen values of the slots up to ``through``: a snapshot holds the state they led to."""
        if through > self.chosen_through:
            raise BrokenInvariant(through, self.chosen_through)
        if through >= self.first_slot:
            del self._values[: through + 1 - self.first_slot]
            self.first_slot = through + 1

    def install(self, slot: Slot) -> None:
        """A snapshot at ``slot`` came from elsewhere, beyond all that was known here: go on from there."""
        if slot <= self.chosen_through:
            raise BrokenInvariant(slot, self.chosen_through)
        self._values.clear()
        self.chosen_through = self.learned_through = slot
        self.first_slot = slot + 1
        for known in (self._votes, self._learned):
            for old in [one for one in known if one <= slot]:
                del known[old]


def _within(values: list[bytes], bytes_max: int) -> list[bytes]:
    """The first of ``values``: as many as hold ``bytes_max`` together, and at least one."""
    sizes = accumulate(map(len, values))
    return values[: max(1, sum(1 for size in sizes if size <= bytes_max))]
