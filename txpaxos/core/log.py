"""The acceptor and the learner of every slot: what one node has promised, accepted and learned of the log.

Laws:

* One promise holds for all slots (*Paxos Made Simple*, section 3). It never goes down, and no vote is above it.
* A chosen slot keeps its value for ever.
* Whatever changes here comes back as the record to save; a node rebuilt from its records answers as it did before.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from txpaxos.core.messages import LOWEST, Ballot, Proposal, Slot, Vote
from txpaxos.core.ready import Chosen, Learned, LogRecord, Promised, Voted


class Log:
    """One node's part of the log. Slots count from 1.

    :ivar promised: nothing below this ballot is accepted, at any slot.
    :ivar chosen_through: every slot up to this one is chosen, and its value is here.
    """

    def __init__(self) -> None:
        self.promised = LOWEST
        self.chosen_through: Slot = 0
        self._values: list[bytes] = []
        self._votes: dict[Slot, Proposal] = {}
        # Chosen, but above a slot that is still unknown.
        self._learned: dict[Slot, bytes] = {}

    @classmethod
    def recover(cls, records: Iterable[LogRecord]) -> Log:
        """The log that saved ``records``, in the order in which it did."""
        log = cls()
        hint: Slot = 0
        for record in records:
            match record:
                case Promised():
                    log.promise(record.ballot)
                case Voted():
                    # A vote was cast at a slot not known to be chosen; Learned, where there is one, came after it.
                    log.promised = max(log.promised, record.ballot)
                    log._votes[record.slot] = Proposal(record.ballot, record.value)
                    hint = max(hint, record.chosen_through)
                case Learned():  # pragma: no branch
                    log._learned.update(enumerate(record.values, record.first_slot))
        for slot in range(1, hint + 1):
            # A value that this node learned to be chosen is its own vote's, or else it saved a Learned.
            if slot not in log._learned:
                log._learned[slot] = log._votes[slot].value
        log.advance()
        return log

    # the acceptor

    def promise(self, ballot: Ballot) -> Promised | None:
        """Promise ``ballot``. ``None`` if that is on disk already."""
        assert ballot >= self.promised, (ballot, self.promised)
        if ballot == self.promised:
            return None
        self.promised = ballot
        return Promised(ballot)

    def accept(self, ballot: Ballot, slot: Slot, value: bytes) -> Voted | Promised | None:
        """Vote, which promises too. ``None`` if the vote is on disk already, or cannot matter: the slot is chosen.

        Not for a value :meth:`contradicts` knows better than."""
        if slot <= self.chosen_through:
            assert not self.contradicts(slot, value), (slot, ballot)
            return self.promise(ballot)
        vote = self._votes.get(slot)
        if vote is not None and vote.ballot == ballot:
            assert vote.value == value, (slot, ballot)
            return self.promise(ballot)
        assert ballot >= self.promised, (ballot, self.promised)
        self.promised = ballot
        self._votes[slot] = Proposal(ballot, value)
        return Voted(ballot, slot, value, self.chosen_through)

    def contradicts(self, slot: Slot, value: bytes) -> bool:
        """Whether another value is known to be chosen at ``slot``: then whoever proposes this one was deposed."""
        return slot <= self.chosen_through and self._values[slot - 1] != value

    def votes_from(self, first_slot: Slot) -> tuple[Vote, ...]:
        """Every vote at ``first_slot`` or above, but for slots that are known to be chosen."""
        lowest = max(first_slot, self.chosen_through + 1)
        return tuple(Vote(slot, *vote) for slot, vote in sorted(self._votes.items()) if slot >= lowest)

    # the learner

    def learn(self, slot: Slot, value: bytes) -> Learned | None:
        """Note that ``value`` is chosen at ``slot``.

        :returns: the record to save, unless this node's own vote says the same.
        """
        if slot <= self.chosen_through:
            assert self._values[slot - 1] == value, slot
            return None
        known = self._learned.setdefault(slot, value)
        assert known == value, slot
        vote = self._votes.get(slot)
        return None if vote is not None and vote.value == value else Learned(slot, (value,))

    def vouch(self, ballot: Ballot, through: Slot) -> None:
        """The leader of ``ballot`` says that every slot up to ``through`` is chosen.

        Where this node voted in that very ballot its vote is the chosen value. Where it voted in another it may not
        be: that slot has to be asked for. Stops at the first such slot.
        """
        slot = self.chosen_through + 1
        while slot <= through:
            vote = self._votes.get(slot)
            if vote is not None and vote.ballot == ballot:
                self._learned[slot] = vote.value
            elif slot not in self._learned:
                return
            slot += 1

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
        """The chosen values from ``first_slot`` on, within both limits, but at least one if there is one."""
        start = first_slot - 1
        values = self._values[start : None if count_max is None else start + count_max]
        if bytes_max is not None:
            sizes = accumulate(map(len, values))
            del values[max(1, sum(1 for size in sizes if size <= bytes_max)) :]
        return values
