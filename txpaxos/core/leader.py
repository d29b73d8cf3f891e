"""What a leader of the log knows and does that no other node does."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from random import Random

from txpaxos.core.config import Limits, Timing
from txpaxos.core.log import Log
from txpaxos.core.membership import Configuration, Membership
from txpaxos.core.messages import (
    NO_OP,
    AcceptSlot,
    Ballot,
    Heartbeat,
    NodeId,
    PrepareLog,
    PromiseLog,
    Proposal,
    Slot,
)
from txpaxos.core.progress import Progress
from txpaxos.core.read_index import ReadIndexServer
from txpaxos.core.ready import Work
from txpaxos.core.window import OpenSlot, Window


class LeaderState:
    """What exists only while this node leads, with one ballot.

    It is made when a quorum has promised that ballot, and dropped when the lead is lost. So nothing of one lead can be
    left over in the next, and a node that does not lead has none of it.

    :param ballot: the ballot that this node leads with. A quorum has promised it for every slot.
    :param membership: who the members are. It may change.
    :param log: this node's part of the log.
    :param promises: those of the quorum, by node. All that any of them knew to be chosen is in the log already.
    :ivar window: the slots proposed and not yet known to be chosen.
    :ivar next_slot: where the next value goes.
    :ivar first_own_slot: the first slot where this leader was free in what to propose: above all that the nodes which
        promised had voted at. Infinite until that slot is open.
    :ivar required_through: the last slot where this leader is not free yet: it proposes again what may have been
        chosen, fills gaps, has an entry of its own chosen, and brings a new configuration into force.
    :ivar progress: how far each follower has learned the log.
    :ivar notify_at: when followers are to be told what is chosen, unless another message tells them earlier.
    :ivar read_index: the reads of other nodes that wait for a quorum to confirm this lead.
    """

    def __init__(
        self,
        ballot: Ballot,
        membership: Membership,
        log: Log,
        timing: Timing,
        limits: Limits,
        rng: Random,
        promises: Mapping[NodeId, PromiseLog],
    ) -> None:
        self.ballot = ballot
        self.window = Window(timing, rng)
        self.next_slot = log.chosen_through + 1
        self.first_own_slot: float = inf
        self.required_through = self.next_slot
        self.progress = Progress(timing.liveness_window_seconds[1])
        self.notify_at = inf
        self.read_index = ReadIndexServer(membership)
        self._membership = membership
        self._log = log
        self._timing = timing
        self._limits = limits
        self._promised_by: set[NodeId] = set()
        # What those who promised had accepted, at slots that are not open yet.
        self._reports: dict[Slot, Proposal] = {}
        # The first slot whose configuration has not promised this ballot by a majority.
        self._unpromised_from: float = inf
        for node, promise in promises.items():
            self._take_promise(node, promise)
        if membership.newest.slot:
            self.required_through = max(self.required_through, membership.governs_from(membership.newest))

    @property
    def has_room(self) -> bool:
        """Whether one more value may be proposed."""
        return (
            self.required_through < self.next_slot <= self._log.chosen_through + self._limits.window_slots
            and self.window.size_bytes < self._limits.window_bytes
            and self.next_slot < self._unpromised_from
        )

    @property
    def knows_what_was_chosen(self) -> bool:
        """Whether this leader knows all that earlier leaders had answered for, and no earlier leader can go on: then it
        may serve reads.

        Every configuration that governs an open slot has promised, and a value is chosen above all that was reported.
        While the voters of a new configuration have not promised, an earlier leader may have values chosen there."""
        return self._unpromised_from == inf and self._log.chosen_through >= self.first_own_slot

    @property
    def wake_at(self) -> float:
        """When a follower is next to be told something; infinite for never."""
        return min(self.notify_at, self.window.resend_at)

    def lag_slots(self) -> dict[NodeId, int]:
        """How many of the slots that are chosen by now each follower had not learned when it was last heard."""
        return {node: self._log.chosen_through - slot for node, slot in self.progress.chosen_through.items()}

    # phase 1, for the members of now and of a new configuration

    def _take_promise(self, node: NodeId, promise: PromiseLog) -> None:
        """Note that ``node`` has promised, and keep what it had accepted until those slots are open."""
        self._promised_by.add(node)
        for slot, ballot, value in promise.votes:
            if slot >= self.next_slot and (slot not in self._reports or ballot > self._reports[slot].ballot):
                self._reports[slot] = Proposal(ballot, value)
                self.required_through = max(self.required_through, slot + 1)
                self.first_own_slot = inf

    def begin_configuration(self, work: Work, configuration: Configuration) -> None:
        """``configuration`` was chosen, and will govern from a slot on that is not open yet. That slot is opened only
        when a majority of the voters has promised this ballot; some of them may have done so before."""
        self.required_through = max(self.required_through, self._membership.governs_from(configuration))
        if not configuration.is_majority(self._promised_by):
            self._unpromised_from = self._membership.governs_from(configuration)
            self.ask_for_promises(work)

    def ask_for_promises(self, work: Work) -> None:
        """Ask the voters of a new configuration for the promises that are still missing, if there are any."""
        if self._unpromised_from < inf:
            silent = [voter for voter in self._membership.newest.voters if voter not in self._promised_by]
            work.send_to(silent, PrepareLog(self.ballot, self._log.chosen_through + 1))

    def awaits_promise(self, sender: NodeId) -> bool:
        """Whether ``sender`` has not promised yet, and a new configuration cannot govern without more promises."""
        return self._unpromised_from < inf and sender not in self._promised_by

    def receive_promise(self, work: Work, sender: NodeId, promise: PromiseLog, now: float) -> None:
        """Take the promise of a voter of a new configuration, for which this leader waits."""
        self._take_promise(sender, promise)
        if self._membership.newest.is_majority(self._promised_by):
            self._unpromised_from = inf
        self.propose_required(work, now)

    # proposing

    def propose_required(self, work: Work, now: float) -> None:
        """Propose at the next slots what this leader is not free in, as far as the window reaches: what may have been
        chosen in a lower ballot, no-ops for the gaps, one entry of this ballot, and no-ops until a new configuration
        governs. The first own entry comes after all that was reported; so it waits for what the window holds back."""
        limit = self._log.chosen_through + self._limits.window_slots
        while self.next_slot <= min(self.required_through, limit) and self.next_slot < self._unpromised_from:
            report = self._reports.pop(self.next_slot, None)
            if report is None and not self._reports:
                self.first_own_slot = min(self.first_own_slot, self.next_slot)
            self.propose(work, NO_OP if report is None else report.value, now)

    def propose(self, work: Work, value: bytes, now: float, urgent: bool = False) -> None:
        """Propose ``value`` at the next slot.

        :param urgent: followers are to learn at once that it is chosen; else with the next value, or soon.
        """
        slot = self.next_slot
        self.next_slot += 1
        configuration = self._membership.governing(slot)
        self.window.open(slot, configuration, value, now, urgent)
        self.notify_at = inf  # The Accept tells what is chosen.
        work.send_to(configuration.voters, AcceptSlot(self.ballot, slot, value, self._log.chosen_through))

    def resend_unanswered(self, work: Work, now: float) -> None:
        """Send the Accepts again that are due, to the nodes that have not answered them."""
        for slot, open_slot in self.window.due(now):
            silent = [voter for voter in open_slot.configuration.voters if voter not in open_slot.voters]
            work.send_to(silent, AcceptSlot(self.ballot, slot, open_slot.value, self._log.chosen_through))

    def count_vote(self, sender: NodeId, slot: Slot) -> OpenSlot | None:
        """``sender`` has voted for this leader's value at ``slot``.

        :returns: the slot, if that vote makes a quorum: it is chosen, and open no more.
        """
        open_slot = self.window.slots.get(slot)
        if open_slot is None:
            return None  # A quorum was complete without this vote.
        if sender not in open_slot.configuration.voter_set:
            return None  # It votes by a configuration that does not govern this slot.
        open_slot.voters.add(sender)
        if len(open_slot.voters) < open_slot.configuration.quorum:
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
        if self._membership.others:
            work.send_to(self._membership.others, Heartbeat(self.ballot, self._log.chosen_through, sequence))

    def notify_soon(self, work: Work, now: float, urgent: bool) -> None:
        """A value was chosen. Followers hear of it with the next Accept; if none follows, by a notification, which does
        not wait if the value is ``urgent`` and no slot is open."""
        due = now if urgent else now + self._timing.commit_notification_seconds
        self.notify_at = min(self.notify_at, due)
        if not self.window.slots and now >= self.notify_at:
            self.send_heartbeat(work)
