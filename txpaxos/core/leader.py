"""What a leader of the log knows and does that no other node does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from random import Random

from txpaxos.core.config import Limits, Timing
from txpaxos.core.essential import quorum_size
from txpaxos.core.log import Log
from txpaxos.core.messages import NO_OP, AcceptSlot, Ballot, Heartbeat, NodeId, PromiseLog, Proposal, Slot
from txpaxos.core.read_index import ReadIndexServer
from txpaxos.core.ready import Work
from txpaxos.core.window import OpenSlot, Window


class LeaderState:
    """What exists only while this node leads, with one ballot.

    It is made when a quorum has promised that ballot, and dropped when the lead is lost. So nothing of one lead can be
    left over in the next, and a node that does not lead has none of it.

    :param ballot: the ballot that this node leads with. A quorum has promised it for every slot.
    :param members: the ids of all nodes, this one included.
    :param log: this node's part of the log.
    :ivar window: the slots proposed and not yet known to be chosen.
    :ivar next_slot: where the next value goes.
    :ivar first_own_slot: the first slot above all that any of the quorum had voted at. Once a value is chosen there,
        everything is known that earlier leaders had chosen, and reads may be served.
    :ivar follower_chosen: how far each follower had learned the log when it was last heard.
    :ivar notify_at: when followers are to be told what is chosen, unless another message tells them earlier.
    :ivar read_index: the reads of other nodes that wait for a quorum to confirm this lead.
    """

    def __init__(
        self,
        ballot: Ballot,
        members: Sequence[NodeId],
        log: Log,
        timing: Timing,
        limits: Limits,
        rng: Random,
    ) -> None:
        self.ballot = ballot
        self.window = Window(timing, rng)
        self.next_slot = self.first_own_slot = log.chosen_through + 1
        self.follower_chosen: dict[NodeId, Slot] = {}
        self.notify_at = inf
        self.quorum = quorum_size(len(members))
        self.read_index = ReadIndexServer(self.quorum)
        self._members = tuple(members)
        self._followers = tuple(member for member in members if member != ballot.node)
        self._log = log
        self._timing = timing
        self._limits = limits

    @property
    def has_room(self) -> bool:
        """Whether one more value may be proposed."""
        return (
            self.next_slot <= self._log.chosen_through + self._limits.window_slots
            and self.window.size_bytes < self._limits.window_bytes
        )

    @property
    def wake_at(self) -> float:
        """When a follower is next to be told something; infinite for never."""
        return min(self.notify_at, self.window.resend_at)

    def lag_slots(self) -> dict[NodeId, int]:
        """How many chosen slots each follower had not learned when it was last heard."""
        return {node: self._log.chosen_through - slot for node, slot in self.follower_chosen.items()}

    # proposing

    def complete_earlier_slots(self, work: Work, promises: Iterable[PromiseLog], now: float) -> None:
        """Begin the lead: propose again what may have been chosen in lower ballots, and fill the gaps with no-ops. Then
        have one entry of this ballot chosen.

        :param promises: those of a quorum. All that any of them knew to be chosen is in the log already.
        """
        chosen_through = self._log.chosen_through
        proposals: dict[Slot, Proposal] = {}
        for promise in promises:
            for slot, ballot, value in promise.votes:
                if slot > chosen_through and (slot not in proposals or ballot > proposals[slot].ballot):
                    proposals[slot] = Proposal(ballot, value)
        self.first_own_slot = max(proposals, default=chosen_through) + 1
        for slot in range(chosen_through + 1, self.first_own_slot + 1):
            self.propose(work, proposals[slot].value if slot in proposals else NO_OP, now)

    def propose(self, work: Work, value: bytes, now: float, urgent: bool = False) -> None:
        """Propose ``value`` at the next slot.

        :param urgent: followers are to learn at once that it is chosen; else with the next value, or soon.
        """
        slot = self.next_slot
        self.next_slot += 1
        self.window.open(slot, value, now, urgent)
        self.notify_at = inf  # The Accept tells what is chosen.
        work.send_to(self._members, AcceptSlot(self.ballot, slot, value, self._log.chosen_through))

    def resend_unanswered(self, work: Work, now: float) -> None:
        """Send the Accepts again that are due, to the nodes that have not answered them."""
        for slot, open_slot in self.window.due(now):
            silent = [member for member in self._members if member not in open_slot.voters]
            work.send_to(silent, AcceptSlot(self.ballot, slot, open_slot.value, self._log.chosen_through))

    def count_vote(self, sender: NodeId, slot: Slot) -> OpenSlot | None:
        """``sender`` has voted for this leader's value at ``slot``.

        :returns: the slot, if that vote makes a quorum: it is chosen, and open no more.
        """
        open_slot = self.window.slots.get(slot)
        if open_slot is None:
            return None  # A quorum was complete without this vote.
        open_slot.voters.add(sender)
        if len(open_slot.voters) < self.quorum:
            return None
        self.window.close(slot)
        return open_slot

    def confirm_chosen(self, slot: Slot, value: bytes) -> bool:
        """Another node says that ``value`` is chosen at ``slot``. Whether this leader has proposed just that; then the
        slot is open no more."""
        open_slot = self.window.slots.get(slot)
        if open_slot is None or open_slot.value != value:
            return False
        self.window.close(slot)
        return True

    # telling followers

    def send_heartbeat(self, work: Work, sequence: int = 0) -> None:
        """A heartbeat to all followers. Without a ``sequence`` it only notifies them of what is chosen, and is not
        answered."""
        self.notify_at = inf
        if self._followers:
            work.send_to(self._followers, Heartbeat(self.ballot, self._log.chosen_through, sequence))

    def notify_soon(self, work: Work, now: float, urgent: bool) -> None:
        """A value was chosen. Followers hear of it with the next Accept; if none follows, by a notification, which does
        not wait if the value is ``urgent`` and no slot is open."""
        due = now if urgent else now + self._timing.commit_notification_seconds
        self.notify_at = min(self.notify_at, due)
        if not self.window.slots and now >= self.notify_at:
            self.send_heartbeat(work)
