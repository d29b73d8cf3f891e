"""Multi-Paxos: a log of chosen values, one node's part of it.

*Paxos Made Simple*, section 3: a leader runs phase 1 once for every slot there is or will be, and from then on each
value costs one phase 2. What the paper leaves to the reader is here: a window of open slots, the new leader that
re-proposes what may have been chosen and fills gaps with no-ops, learning by chosen prefix, asking for what was
missed, and snapshots that stand for the oldest slots. Election is the piece from :mod:`txpaxos.core.election`; the
memory is :class:`txpaxos.core.log.Log`; reads are confirmed by :mod:`txpaxos.core.read_index`.

Laws:

* Every call returns a :class:`~txpaxos.core.ready.Ready`; see there for what the caller owes.
* A leader proposes a slot once in its ballot, and only slots above all it was told to be chosen.
* Votes to oneself are messages like any other: sent, saved, then received.
* What is stale or misdirected is dropped by a guard with a name, and counted under it in ``dropped``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf
from random import Random
from typing import Any

from txpaxos.core import practical
from txpaxos.core.catch_up import CatchUp
from txpaxos.core.config import Limits, Timing
from txpaxos.core.election import Election, Role, TimerAction
from txpaxos.core.guards import BrokenInvariant, TwoValues, is_within_reason, refusal_ballot
from txpaxos.core.log import Log
from txpaxos.core.messages import (
    NO_OP,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    NodeId,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    Promise,
    PromiseLog,
    Proposal,
    ReadIndexReply,
    ReadIndexRequest,
    Slot,
    Truncated,
)
from txpaxos.core.read_index import ReadIndexClient, ReadIndexServer
from txpaxos.core.ready import (
    Checkpoint,
    Chosen,
    Installed,
    Learned,
    LogRecord,
    ReadIndexConfirmed,
    Ready,
    Status,
    Work,
)
from txpaxos.core.window import Window

NEWCOMER = "newcomer"
"""The role of a node that is no voter yet."""


class Replica:
    """One node's part of the log.

    :param node: this node's id.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param now: the present, in monotonic seconds, as in every call below.
    :param saved: all log records this node ever saved, in order; of slots up to ``base``, some may be missing.
    :param base: every slot up to this one is in a snapshot.
    :param votes: whether this node is a voter. A newcomer is none yet: it learns what is chosen, and says nothing that
        others would count.
    :param admits: whether a value that a peer proposes, or (True) says to be chosen, is one that can be applied. What
        it refuses is neither voted for nor saved. All are taken unless it is given.
    """

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        rng: Random,
        now: float,
        saved: Iterable[LogRecord] = (),
        timing: Timing | None = None,
        limits: Limits | None = None,
        base: Slot = 0,
        votes: bool = True,
        admits: Callable[[bytes, bool], bool] | None = None,
    ) -> None:
        if node not in members:
            raise BrokenInvariant(node, members)
        self.node = node
        self.members = tuple(members)
        self.others = tuple(member for member in members if member != node)
        self.log = Log.recover(saved, base)
        self.proposer = practical.Proposer(node, len(members), self.log.promised)
        self.dropped: Counter[str] = Counter()
        self._rng = rng
        self._timing = timing or Timing()
        self._limits = limits or Limits()
        self.election = Election(self.proposer, members, self._timing, rng, now, votes)
        # The candidate's: what each member promised. The leader's: slots in work, and where the next one goes.
        self._reports: dict[NodeId, PromiseLog] = {}
        self._window = Window(self._timing, rng)
        self._next_slot = self._first_own_slot = 0
        self._follower_chosen: dict[NodeId, Slot] = {}
        # When followers are to be told what is chosen, unless something tells them before that.
        self._notice_at = inf
        self._read_points = ReadIndexServer(self.proposer.quorum)
        self._read_asker = ReadIndexClient(self._timing, rng)
        self._catch_up = CatchUp(self.log, self.others, self._timing, rng)
        self._base = base
        self._admits = admits or (lambda value, chosen: True)
        if self.log.lost_through and self.others:
            # Some other node knows what is chosen there. No leader may be needed to get it.
            self._catch_up.note_missing(rng.choice(self.others), self.log.lost_through, now)
        self._handlers = self._handlers_by_type()

    @property
    def votes(self) -> bool:
        """Whether this node is a voter."""
        return self.election.votes

    @property
    def leader_node(self) -> NodeId | None:
        """The node that this one believes to lead, if any."""
        return self.election.leader_node

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.election.is_leader

    @property
    def is_suspended(self) -> bool:
        """Whether this node is kept from its part in elections, between :meth:`suspend` and :meth:`resume`."""
        return self.election.is_suspended

    def start_voting(self, now: float) -> Ready:
        """This node is a voter from now on. That is on its disk."""
        self.election.start_voting(now)
        return self._ready(Work())

    # from the application

    def recovered(self) -> tuple[Chosen, ...]:
        """The chosen values that were on disk when this node started, for an application that starts anew. Ask before
        the first call of anything else."""
        first_slot = self.log.first_slot
        return tuple(Chosen(slot, value) for slot, value in enumerate(self.log.values_from(first_slot), first_slot))

    def missing_checkpoint(self) -> tuple[LogRecord, ...]:
        """What to save before anything else, if a crash came between the snapshot this node starts from and the
        Checkpoint that belongs to it; else nothing. Ask before the first call of anything else.

        Without that Checkpoint nothing says that this node went on from a snapshot. Should it lose that one later, it
        would take its own old votes below it for chosen values."""
        if not self.log.lacks_checkpoint(self._base):
            return ()
        return (Checkpoint(self._base, installed=True), *self.log.checkpoint(self._base))

    @property
    def has_room(self) -> bool:
        """Whether :meth:`propose` may be called: this node leads and its window has a slot free."""
        return (
            self.election.is_leader
            and self._next_slot <= self.log.chosen_through + self._limits.window_slots
            and self._window.size_bytes < self._limits.window_bytes
        )

    @property
    def heard_through(self) -> Slot:
        """How far some node has said that slots are chosen."""
        return max(self.log.chosen_through, self._catch_up.heard_through)

    def propose(self, value: bytes, now: float, urgent: bool = False) -> Ready:
        """Propose ``value`` at the next slot. Only while :attr:`has_room`.

        :param urgent: followers are to learn at once that it is chosen; else with the next value, or soon.
        """
        if not self.has_room:
            raise BrokenInvariant(self.status())
        # To lead with a ballot, its round had to be on disk. This node's own vote is still to come, and is saved.
        work = Work(needs_no_prior_save=True)
        self._open_slot(work, self._next_slot, value, now, urgent)
        self._next_slot += 1
        return self._ready(work)

    def request_read_index(self, now: float) -> tuple[int, Ready]:
        """Find out how far the log must be applied to see all that is acknowledged by now. One question at a time.

        :returns: the question's number, which :class:`~txpaxos.core.ready.ReadIndexConfirmed` repeats, and what to do.
        """
        number = self._read_asker.begin(now)
        work = Work()
        self._request_read_index(work, now)
        return number, self._ready(work)

    def checkpoint(self, slot: Slot) -> tuple[LogRecord, ...]:
        """What to save so that, once there is this node's own snapshot at ``slot``, nothing saved before is needed."""
        return (Checkpoint(slot), *self.log.checkpoint(slot))

    def compact(self, through: Slot) -> None:
        """A snapshot holds what came of the slots up to ``through``: whoever asks for them is told to take that."""
        self.log.compact(through)

    def install(self, slot: Slot, now: float) -> Ready:
        """A snapshot at ``slot`` came from another node and is on disk. Nothing, if it is not news any more."""
        work = Work()
        if slot > self.log.chosen_through:
            if self.election.is_leader:
                self.election.step_down(now)
            self.log.install(slot)
            work.save.extend((Checkpoint(slot, installed=True), *self.log.checkpoint(slot)))
            work.chosen += [Installed(slot), *self.log.advance()]
            self._catch_up.ask_at_once(work, now)  # The others will not keep the rest for long.
        return self._ready(work)

    def status(self) -> Status:
        """A frozen copy of what is worth knowing."""
        election = self.election
        return Status(
            node=self.node,
            role=election.role.value if self.votes else NEWCOMER,
            ballot=election.leader_ballot,
            leader=election.leader_node,
            promised=self.log.promised,
            chosen_through=self.log.chosen_through,
            open_slots=len(self._window.slots),
            lag_slots={
                node: self.log.chosen_through - slot
                for node, slot in self._follower_chosen.items()
                if election.is_leader
            },
            dropped=dict(self.dropped),
        )

    # from the timer

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due, as every Ready says."""
        return min(
            self.election.wake_at,
            self._notice_at,
            self._window.resend_at,
            self._catch_up.wake_at,
            self._read_asker.wake_at(self.election.leader_node),
        )

    def tick(self, now: float) -> Ready:
        """Do what time asks for. Call it at ``wake_at``; too early does no harm."""
        work = Work()
        match self.election.tick(now):
            case TimerAction.REQUEST_PRE_VOTES if (
                not self.log.lost_through
            ):  # Else it could not promise a ballot of its own.
                work.send_to(self.others, PreVote(self.election.pre_vote_number))
            case TimerAction.START_CAMPAIGN:
                self._campaign(work, now)
            case TimerAction.RESEND_PREPARE:
                silent = [member for member in self.members if member not in self._reports]
                work.send_to(silent, PrepareLog(self.proposer.ballot, self.log.chosen_through + 1))
            case TimerAction.SEND_HEARTBEAT:
                self._send_heartbeat(work, self.election.sequence)
                if self.election.is_refused:
                    work.send_to(self.others, PreVote(self.election.pre_vote_number))
        if self.election.is_leader:
            self._resend_unanswered(work, now)
            if now >= self._notice_at:
                self._send_heartbeat(work)
        self._catch_up.tick(work, now)
        self._request_read_index(work, now)
        return self._ready(work)

    # from the disk

    def suspend(self, now: float) -> Ready:
        """The disk hangs: nothing can be saved, so nothing promised, voted or led. See Election."""
        self.election.suspend(now)
        return self._ready(Work())

    def resume(self, now: float) -> Ready:
        """The disk works again."""
        self.election.resume(now)
        return self._ready(Work())

    # from the network

    def observe_end(self, node: NodeId, now: float) -> Ready:
        """Something tells that ``node`` does not run any more. See Election."""
        self.election.observe_end(node, now)
        return self._ready(Work())

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Take one message."""
        work = Work()
        handler = self._handlers.get(type(message))
        if sender not in self.members:
            self.dropped["not from a member"] += 1
        elif handler is None:
            self.dropped["not about the log"] += 1
        else:
            handler(work, sender, message, now)
        return self._ready(work)

    def take_hint(self, source: NodeId, now: float) -> Ready:
        """``source``, or somebody in its name, says that it has what this node misses: ask it, now and then."""
        work = Work()
        self._catch_up.take_hint(work, source, now)
        return self._ready(work)

    def _handlers_by_type(self) -> dict[type[Any], Callable[[Work, NodeId, Any, float], None]]:
        return {
            PrepareLog: self._receive_prepare,
            PromiseLog: self._receive_promise,
            AcceptSlot: self._receive_accept,
            AcceptedSlot: self._receive_accepted,
            Nack: self._receive_nack,
            Heartbeat: self._receive_heartbeat,
            HeartbeatAck: self._receive_heartbeat_ack,
            PreVote: self._receive_pre_vote,
            PreVoteGranted: self._receive_pre_vote_granted,
            Fetch: self._receive_fetch,
            ChosenValues: self._receive_chosen_values,
            Truncated: self._receive_truncated,
            ReadIndexRequest: self._receive_read_index_request,
            ReadIndexReply: self._receive_read_index_reply,
        }

    def _is_believed(self, sender: NodeId, ballot: Ballot) -> bool:
        """Whether ``sender`` may lead, or want to lead, with ``ballot``: it is its own, not far above all others."""
        if ballot == self.log.promised and ballot.node == sender:
            return True
        if ballot.node != sender:
            self.dropped["ballot of another node than its sender"] += 1
            return False
        if ballot > self.proposer.highest_seen and not is_within_reason(ballot, self.proposer.highest_seen):
            self.dropped["ballot beyond reason"] += 1
            return False
        return True

    # phase 1, and before it

    def _receive_pre_vote(self, work: Work, sender: NodeId, message: PreVote, now: float) -> None:
        if not self.votes:
            self.dropped["pre-vote at a newcomer"] += 1
        elif self.election.grants_pre_vote(sender, now):
            work.send_to(sender, PreVoteGranted(message.sequence))

    def _receive_pre_vote_granted(self, work: Work, sender: NodeId, message: PreVoteGranted, now: float) -> None:
        if self.election.observe_pre_vote_granted(sender, message.sequence):
            self._campaign(work, now)

    def _campaign(self, work: Work, now: float) -> None:
        """Start a ballot. Promising it to oneself at once is what puts its round on disk before it is used."""
        self._reports = {}
        self.election.start_campaign(now)
        prepare = self.proposer.prepare()
        work.save_record(self.log.promise(prepare.ballot))
        work.send_to(self.members, PrepareLog(prepare.ballot, self.log.chosen_through + 1))

    def _receive_prepare(self, work: Work, sender: NodeId, message: PrepareLog, now: float) -> None:
        if not self.votes:
            self.dropped["candidate at a newcomer"] += 1
            return
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        if message.first_slot < self.log.first_slot:
            self.dropped["candidate too far behind"] += 1
            work.send_to(sender, Truncated(self.log.first_slot))
            return
        values = self._values_from(message.first_slot)
        known_through = self.log.known_through(message.first_slot)
        if message.first_slot <= self.log.lost_through:
            # Its votes there are gone. Silent about them, a promise would be a lie.
            self.dropped["candidate at slots of a lost snapshot"] += 1
            if values:
                work.send_to(sender, ChosenValues(message.first_slot, values, known_through))
            return
        if message.first_slot + len(values) <= known_through:
            # It misses more than one message holds. Let it catch up first; it asks again.
            self.dropped["candidate too far behind"] += 1
            work.send_to(sender, ChosenValues(message.first_slot, values, known_through))
            return
        self.election.observe_candidate(message.ballot, now)
        work.save_record(self.log.promise(message.ballot))
        votes = self.log.votes_from(message.first_slot + len(values))
        work.send_to(sender, PromiseLog(message.ballot, message.first_slot, values, votes))

    def _receive_promise(self, work: Work, sender: NodeId, message: PromiseLog, now: float) -> None:
        if message.ballot != self.proposer.ballot or self.election.role is not Role.CANDIDATE:
            self.dropped["promise of another ballot"] += 1
            return
        if not self._is_plausible(message):
            self.dropped["promise that cannot be true"] += 1
            return
        if not self._are_admitted(message.first_slot, message.values):
            return
        self._learn(work, message.first_slot, message.values, now)
        self._reports[sender] = message
        self.proposer.receive_promise(sender, Promise(message.ballot, None))
        if self.election.observe_promise(now):
            self._become_leader(work, now)

    def _is_plausible(self, promise: PromiseLog) -> bool:
        """Whether a promise leaves no slot out of what was asked, and tells of votes that can have been cast."""
        known_through = promise.first_slot + len(promise.values) - 1
        last = known_through
        for slot, ballot, value in promise.votes:
            if not last < slot or ballot > promise.ballot:  # It may name a node that was replaced since.
                return False
            if not self._admits(value, False):
                return False
            last = slot
        # An acceptor votes only so far above what it knows; after a restart it may know less than it did.
        reach = 2 * self._limits.ahead_slots
        return promise.first_slot <= self.log.chosen_through + 1 and last <= known_through + reach

    def _become_leader(self, work: Work, now: float) -> None:
        """Phase 1 is complete for every slot: re-propose what may have been chosen, fill gaps with no-ops, then have
        one entry of this ballot chosen. All that any of the quorum knew to be chosen came with its promise."""
        chosen_through = self.log.chosen_through
        proposals: dict[Slot, Proposal] = {}
        for report in self._reports.values():
            for slot, ballot, value in report.votes:
                if slot > chosen_through and (slot not in proposals or ballot > proposals[slot].ballot):
                    proposals[slot] = Proposal(ballot, value)
        self._reports = {}
        self._follower_chosen = {}
        self._next_slot = max(proposals, default=chosen_through) + 2
        self._first_own_slot = self._next_slot - 1
        self._read_points.clear()
        for slot in range(chosen_through + 1, self._next_slot):
            self._open_slot(work, slot, proposals[slot].value if slot in proposals else NO_OP, now)
        self._send_heartbeat(work)

    def _refuse(self, work: Work, sender: NodeId, ballot: Ballot) -> None:
        """Tell ``sender`` that its ``ballot`` is below what this node has promised."""
        work.send_to(sender, Nack(ballot, refusal_ballot(self.log.promised, self.node, self.members)))

    def _receive_nack(self, work: Work, sender: NodeId, message: Nack, now: float) -> None:
        if message.ballot.node != self.node or message.promised <= message.ballot:
            self.dropped["refusal of nothing"] += 1
            return
        if message.promised.node not in self.members:
            self.dropped["ballot of no member"] += 1
            return
        if not is_within_reason(message.promised, self.proposer.highest_seen):
            self.dropped["ballot beyond reason"] += 1
            return
        self.election.observe_nack(sender, message, now)

    # phase 2

    def _open_slot(self, work: Work, slot: Slot, value: bytes, now: float, urgent: bool = False) -> None:
        self._window.open(slot, value, now, urgent)
        self._notice_at = inf  # This says it.
        work.send_to(self.members, AcceptSlot(self.proposer.ballot, slot, value, self.log.chosen_through))

    def _receive_accept(self, work: Work, sender: NodeId, message: AcceptSlot, now: float) -> None:
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        self.election.observe_leader(message.ballot, now)
        self._advance_from_leader(work, sender, message.ballot, message.chosen_through, now)
        if not self.votes:
            self.dropped["accept at a newcomer"] += 1
            return
        if message.slot > self.log.chosen_through + self._limits.ahead_slots:
            self.dropped["accept too far ahead"] += 1
            return
        if message.slot < self.log.first_slot:
            self.dropped["accept of a slot in a snapshot"] += 1
            work.send_to(sender, Truncated(self.log.first_slot))
            return
        if self.log.contradicts(message.slot, message.value):
            self.dropped["accept of a deposed leader"] += 1
            values = self._values_from(message.slot)
            work.send_to(sender, ChosenValues(message.slot, values, self.log.known_through(message.slot)))
            return
        if sender != self.node and not self._admits(message.value, False):
            self.dropped["value that cannot be applied"] += 1
            return
        try:
            work.save_record(self.log.accept(message.ballot, message.slot, message.value))
        except TwoValues:
            self.dropped["two values in one ballot"] += 1
            return
        # A leader does not wait for its own vote alone: its followers may be a quorum before that is on disk.
        work.may_defer = sender == self.node and len(self.others) >= self.proposer.quorum
        work.send_to(sender, AcceptedSlot(message.ballot, message.slot))

    def _receive_accepted(self, work: Work, sender: NodeId, message: AcceptedSlot, now: float) -> None:
        if message.ballot != self.proposer.ballot or not self.election.is_leader:
            self.dropped["vote for another ballot"] += 1
            return
        self.election.observe_follower(sender, now)
        open_slot = self._window.slots.get(message.slot)
        if open_slot is None:
            return  # The quorum was there without it.
        open_slot.voters.add(sender)
        if len(open_slot.voters) < self.proposer.quorum:
            return
        self._window.close(message.slot)
        work.save_record(self.log.learn(message.slot, open_slot.value))
        self._advance(work)
        work.needs_no_prior_save = not work.save  # The votes are on their voters' disks.
        self._notice_at = min(
            self._notice_at, now if open_slot.urgent else now + self._timing.commit_notification_seconds
        )
        if not self._window.slots and now >= self._notice_at:
            self._send_heartbeat(work)

    def _advance(self, work: Work) -> None:
        """Hand out what is known without a gap. None of it need be proposed: it may be from before this ballot."""
        work.chosen.extend(self.log.advance())
        self._window.close_through(self.log.chosen_through)

    def _resend_unanswered(self, work: Work, now: float) -> None:
        for slot, open_slot in self._window.due(now):
            silent = [member for member in self.members if member not in open_slot.voters]
            work.send_to(silent, AcceptSlot(self.proposer.ballot, slot, open_slot.value, self.log.chosen_through))

    # learning

    def _send_heartbeat(self, work: Work, sequence: int = 0) -> None:
        """A heartbeat to the followers. Without a sequence it is only a notice, and not answered."""
        self._notice_at = inf
        if self.others:
            work.send_to(self.others, Heartbeat(self.proposer.ballot, self.log.chosen_through, sequence))

    def _receive_heartbeat(self, work: Work, sender: NodeId, message: Heartbeat, now: float) -> None:
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        self.election.observe_leader(message.ballot, now)
        self._advance_from_leader(work, sender, message.ballot, message.chosen_through, now)
        if message.sequence and self.votes:
            work.send_to(sender, HeartbeatAck(message.ballot, self.log.chosen_through, message.sequence))

    def _receive_heartbeat_ack(self, work: Work, sender: NodeId, message: HeartbeatAck, now: float) -> None:
        if message.ballot != self.proposer.ballot or not self.election.is_leader:
            self.dropped["acknowledgement of another ballot"] += 1
            return
        if message.sequence > self.election.sequence:
            self.dropped["acknowledgement of what was not sent"] += 1
            return
        self.election.observe_follower(sender, now)
        self._follower_chosen[sender] = message.chosen_through
        settled, now_again = self._read_points.observe_answer(sender, message.sequence, self.election.sequence)
        for question in settled:
            work.send_to(question.asker, ReadIndexReply(question.number, question.point))
        if now_again:
            self._send_heartbeat(work, self.election.next_sequence())

    def _advance_from_leader(
        self, work: Work, sender: NodeId, ballot: Ballot, chosen_through: Slot, now: float
    ) -> None:
        """The leader of ``ballot`` says that every slot up to ``chosen_through`` is chosen."""
        if chosen_through > self.log.chosen_through:
            self.log.mark_chosen_by_ballot(ballot, chosen_through)
            work.chosen.extend(self.log.advance())
            self._catch_up.note_missing(sender, chosen_through, now)

    # reconciliation

    def _receive_fetch(self, work: Work, sender: NodeId, message: Fetch, now: float) -> None:
        if message.first_slot < self.log.first_slot:
            work.send_to(sender, Truncated(self.log.first_slot))
            return
        if not (values := self._values_from(message.first_slot)):
            self.dropped["fetch of what is not here"] += 1
            return
        work.send_to(sender, ChosenValues(message.first_slot, values, self.log.known_through(message.first_slot)))

    def _receive_chosen_values(self, work: Work, sender: NodeId, message: ChosenValues, now: float) -> None:
        if not self._are_admitted(message.first_slot, message.values):
            return
        if not self._learn(work, message.first_slot, message.values, now):
            self.dropped["values known or above a gap"] += 1
            return
        self._catch_up.request_next(work, sender, message.chosen_through, now)

    def _receive_truncated(self, work: Work, sender: NodeId, message: Truncated, now: float) -> None:
        if message.first_slot <= self.log.chosen_through + 1:
            self.dropped["snapshot of what is known"] += 1
            return
        self._catch_up.note_missing(sender, message.first_slot - 1, now)
        work.snapshot_source = sender

    def _values_from(self, first_slot: Slot) -> tuple[bytes, ...]:
        """As many chosen values from ``first_slot`` on as one message holds."""
        return tuple(self.log.known_from(first_slot, self._limits.fetch_values, self._limits.fetch_bytes))

    def _are_admitted(self, first_slot: Slot, values: tuple[bytes, ...]) -> bool:
        """Whether ``values`` may be chosen at ``first_slot`` and after it. If one may not, none is taken."""
        for slot, value in enumerate(values, first_slot):
            if self.log.contradicts(slot, value):
                self.dropped["values that contradict what is chosen"] += 1
                return False
            if not self.log.knows(slot) and not self._admits(value, True):
                self.dropped["value that cannot be applied"] += 1
                return False
        return True

    def _learn(self, work: Work, first_slot: Slot, values: tuple[bytes, ...], now: float) -> bool:
        """Take chosen values that somebody sent. Whether there was anything new among them.

        A leader is the first to know what is chosen in its ballot. One that is told of something it did not propose was
        deposed without noticing."""
        skip = self.log.chosen_through + 1 - first_slot
        if skip < 0 or skip >= len(values):
            return False
        first_slot, values = first_slot + skip, values[skip:]
        for slot, value in enumerate(values, first_slot):
            known = self.log.knows(slot)  # Above a gap; so it is not open any more.
            self.log.learn(slot, value)
            open_slot = self._window.slots.get(slot)
            if open_slot is not None and open_slot.value == value:
                self._window.close(slot)
            elif self.election.is_leader and not known:
                self.election.step_down(now)
        work.save_record(Learned(first_slot, values))
        self._advance(work)
        return True

    # reading

    def _request_read_index(self, work: Work, now: float) -> None:
        """Ask whoever leads, if this node has a question and it is time to ask it."""
        leader = self.election.leader_node
        if self._read_asker.is_due(leader, now) and leader is not None:
            work.send_to(leader, ReadIndexRequest(self._read_asker.number))

    def _receive_read_index_request(self, work: Work, sender: NodeId, message: ReadIndexRequest, now: float) -> None:
        if not self.election.is_leader:
            self.dropped["question to a node that does not lead"] += 1
            return
        point = self.log.chosen_through
        if point < self._first_own_slot:
            # Of what others had chosen before, all is chosen here only once an entry of this ballot is.
            self.dropped["read before the leader's first entry"] += 1
            return
        if not self.others:
            work.send_to(sender, ReadIndexReply(message.number, point))
        elif self._read_points.ask(sender, message.number, point, self.election.sequence):
            self._send_heartbeat(work, self.election.next_sequence())

    def _receive_read_index_reply(self, work: Work, sender: NodeId, message: ReadIndexReply, now: float) -> None:
        if self._read_asker.is_answer(message.number):
            work.answers.append(ReadIndexConfirmed(message.number, message.slot))
        else:
            self.dropped["read point nobody asked for"] += 1

    # closing

    def _ready(self, work: Work) -> Ready:
        if not self.election.is_leader:
            self._window.clear()
            self._notice_at = inf
        return work.ready(self.election.changes(), self.wake_at)
