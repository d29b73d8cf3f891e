"""Multi-Paxos: a log of chosen values, one node's part of it.

*Paxos Made Simple*, section 3: a leader runs phase 1 once for every slot there is or will be, and from then on each
value costs one phase 2. What the paper leaves to the reader is here: a window of open slots, the new leader that
re-proposes what may have been chosen and fills gaps with no-ops, learning by chosen prefix, asking for what was
missed, and snapshots that stand for the oldest slots. Leadership is the piece from :mod:`txpaxos.core.functional`; the
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
from txpaxos.core.functional import Duty, Leadership, Role, Timing
from txpaxos.core.guards import BrokenInvariant, TwoValues, is_within_reason, refusal_ballot
from txpaxos.core.limits import Limits
from txpaxos.core.log import Log
from txpaxos.core.messages import (
    NO_OP,
    AcceptedSlot,
    AcceptSlot,
    AskReadPoint,
    Ballot,
    Canvass,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    NodeId,
    PrepareLog,
    Promise,
    PromiseLog,
    Proposal,
    ReadPoint,
    Slot,
    Support,
    Truncated,
)
from txpaxos.core.read_index import ReadAsker, ReadPoints
from txpaxos.core.ready import Checkpoint, Chosen, Installed, Learned, LogRecord, ReadFrom, Ready, Status, Work
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
        self.leadership = Leadership(self.proposer, members, self._timing, rng, now, votes)
        # The candidate's: what each member promised. The leader's: slots in work, and where the next one goes.
        self._reports: dict[NodeId, PromiseLog] = {}
        self._window = Window(self._timing, rng)
        self._next_slot = self._first_own_slot = 0
        self._follower_chosen: dict[NodeId, Slot] = {}
        # When followers are to be told what is chosen, unless something tells them before that.
        self._notice_at = inf
        self._read_points = ReadPoints(self.proposer.quorum)
        self._read_asker = ReadAsker(self._timing, rng)
        self._catch_up = CatchUp(self.log, self.others, self._timing, rng)
        self._base = base
        self._admits = admits or (lambda value, chosen: True)
        if self.log.lost_through and self.others:
            # Some other node knows what is chosen there. No leader may be needed to get it.
            self._catch_up.note(rng.choice(self.others), self.log.lost_through, now)
        self._handlers = self._handlers_by_type()

    @property
    def votes(self) -> bool:
        """Whether this node is a voter."""
        return self.leadership.votes

    def start_voting(self, now: float) -> Ready:
        """This node is a voter from now on. That is on its disk."""
        self.leadership.start_voting(now)
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
            self.leadership.leading
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
        work = Work(rests_on_nothing=True)
        self._open_slot(work, self._next_slot, value, now, urgent)
        self._next_slot += 1
        return self._ready(work)

    def ask_read_point(self, now: float) -> tuple[int, Ready]:
        """Find out how far the log must be applied to see all that is acknowledged by now. One question at a time.

        :returns: the question's number, which :class:`~txpaxos.core.ready.ReadFrom` repeats, and what to do.
        """
        number = self._read_asker.begin(now)
        work = Work()
        self._ask_read_point(work, now)
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
            if self.leadership.leading:
                self.leadership.step_down(now)
            self.log.install(slot)
            work.save.extend((Checkpoint(slot, installed=True), *self.log.checkpoint(slot)))
            work.chosen += [Installed(slot), *self.log.advance()]
            self._catch_up.ask_at_once(work, now)  # The others will not keep the rest for long.
        return self._ready(work)

    def status(self) -> Status:
        """A frozen copy of what is worth knowing."""
        leadership = self.leadership
        return Status(
            node=self.node,
            role=leadership.role.value if self.votes else NEWCOMER,
            ballot=leadership.leader,
            leader=leadership.leader_node,
            promised=self.log.promised,
            chosen_through=self.log.chosen_through,
            open_slots=len(self._window.slots),
            lag_slots={
                node: self.log.chosen_through - slot
                for node, slot in self._follower_chosen.items()
                if leadership.leading
            },
            dropped=dict(self.dropped),
        )

    # from the timer

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due, as every Ready says."""
        return min(
            self.leadership.wake_at,
            self._notice_at,
            self._window.resend_at,
            self._catch_up.wake_at,
            self._read_asker.wake_at(self.leadership.leader_node),
        )

    def tick(self, now: float) -> Ready:
        """Do what time asks for. Call it at ``wake_at``; too early does no harm."""
        work = Work()
        match self.leadership.tick(now):
            case Duty.CANVASS if not self.log.lost_through:  # Else it could not promise a ballot of its own.
                work.tell(self.others, Canvass(self.leadership.canvass))
            case Duty.CAMPAIGN:
                self._campaign(work, now)
            case Duty.PREPARE_AGAIN:
                silent = [member for member in self.members if member not in self._reports]
                work.tell(silent, PrepareLog(self.proposer.ballot, self.log.chosen_through + 1))
            case Duty.HEARTBEAT:
                self._beat(work, self.leadership.sequence)
                if self.leadership.is_refused:
                    work.tell(self.others, Canvass(self.leadership.canvass))
        if self.leadership.leading:
            self._resend_unanswered(work, now)
            if now >= self._notice_at:
                self._beat(work)
        self._catch_up.tick(work, now)
        self._ask_read_point(work, now)
        return self._ready(work)

    # from the disk

    def suspend(self, now: float) -> Ready:
        """The disk hangs: nothing can be saved, so nothing promised, voted or led. See Leadership."""
        self.leadership.suspend(now)
        return self._ready(Work())

    def resume(self, now: float) -> Ready:
        """The disk works again."""
        self.leadership.resume(now)
        return self._ready(Work())

    # from the network

    def observe_end(self, node: NodeId, now: float) -> Ready:
        """Something tells that ``node`` does not run any more. See Leadership."""
        self.leadership.observe_end(node, now)
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
            Canvass: self._receive_canvass,
            Support: self._receive_support,
            Fetch: self._receive_fetch,
            ChosenValues: self._receive_chosen_values,
            Truncated: self._receive_truncated,
            AskReadPoint: self._receive_ask_read_point,
            ReadPoint: self._receive_read_point,
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

    def _receive_canvass(self, work: Work, sender: NodeId, message: Canvass, now: float) -> None:
        if not self.votes:
            self.dropped["canvass at a newcomer"] += 1
        elif self.leadership.supports(sender, now):
            work.tell(sender, Support(message.sequence))

    def _receive_support(self, work: Work, sender: NodeId, message: Support, now: float) -> None:
        if self.leadership.observe_support(sender, message.sequence):
            self._campaign(work, now)

    def _campaign(self, work: Work, now: float) -> None:
        """Start a ballot. Promising it to oneself at once is what puts its round on disk before it is used."""
        self._reports = {}
        self.leadership.start_campaign(now)
        prepare = self.proposer.prepare()
        work.keep(self.log.promise(prepare.ballot))
        work.tell(self.members, PrepareLog(prepare.ballot, self.log.chosen_through + 1))

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
            work.tell(sender, Truncated(self.log.first_slot))
            return
        values = self._values_from(message.first_slot)
        known_through = self.log.known_through(message.first_slot)
        if message.first_slot <= self.log.lost_through:
            # Its votes there are gone. Silent about them, a promise would be a lie.
            self.dropped["candidate at slots of a lost snapshot"] += 1
            if values:
                work.tell(sender, ChosenValues(message.first_slot, values, known_through))
            return
        if message.first_slot + len(values) <= known_through:
            # It misses more than one message holds. Let it catch up first; it asks again.
            self.dropped["candidate too far behind"] += 1
            work.tell(sender, ChosenValues(message.first_slot, values, known_through))
            return
        self.leadership.observe_candidate(message.ballot, now)
        work.keep(self.log.promise(message.ballot))
        votes = self.log.votes_from(message.first_slot + len(values))
        work.tell(sender, PromiseLog(message.ballot, message.first_slot, values, votes))

    def _receive_promise(self, work: Work, sender: NodeId, message: PromiseLog, now: float) -> None:
        if message.ballot != self.proposer.ballot or self.leadership.role is not Role.CANDIDATE:
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
        if self.leadership.observe_promise(now):
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
        self._beat(work)

    def _refuse(self, work: Work, sender: NodeId, ballot: Ballot) -> None:
        """Tell ``sender`` that its ``ballot`` is below what this node has promised."""
        work.tell(sender, Nack(ballot, refusal_ballot(self.log.promised, self.node, self.members)))

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
        self.leadership.observe_nack(sender, message, now)

    # phase 2

    def _open_slot(self, work: Work, slot: Slot, value: bytes, now: float, urgent: bool = False) -> None:
        self._window.open(slot, value, now, urgent)
        self._notice_at = inf  # This says it.
        work.tell(self.members, AcceptSlot(self.proposer.ballot, slot, value, self.log.chosen_through))

    def _receive_accept(self, work: Work, sender: NodeId, message: AcceptSlot, now: float) -> None:
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        self.leadership.observe_leader(message.ballot, now)
        self._heed(work, sender, message.ballot, message.chosen_through, now)
        if not self.votes:
            self.dropped["accept at a newcomer"] += 1
            return
        if message.slot > self.log.chosen_through + self._limits.ahead_slots:
            self.dropped["accept too far ahead"] += 1
            return
        if message.slot < self.log.first_slot:
            self.dropped["accept of a slot in a snapshot"] += 1
            work.tell(sender, Truncated(self.log.first_slot))
            return
        if self.log.contradicts(message.slot, message.value):
            self.dropped["accept of a deposed leader"] += 1
            values = self._values_from(message.slot)
            work.tell(sender, ChosenValues(message.slot, values, self.log.known_through(message.slot)))
            return
        if sender != self.node and not self._admits(message.value, False):
            self.dropped["value that cannot be applied"] += 1
            return
        try:
            work.keep(self.log.accept(message.ballot, message.slot, message.value))
        except TwoValues:
            self.dropped["two values in one ballot"] += 1
            return
        # A leader does not wait for its own vote alone: its followers may be a quorum before that is on disk.
        work.unhurried = sender == self.node and len(self.others) >= self.proposer.quorum
        work.tell(sender, AcceptedSlot(message.ballot, message.slot))

    def _receive_accepted(self, work: Work, sender: NodeId, message: AcceptedSlot, now: float) -> None:
        if message.ballot != self.proposer.ballot or not self.leadership.leading:
            self.dropped["vote for another ballot"] += 1
            return
        self.leadership.observe_follower(sender, now)
        open_slot = self._window.slots.get(message.slot)
        if open_slot is None:
            return  # The quorum was there without it.
        open_slot.voters.add(sender)
        if len(open_slot.voters) < self.proposer.quorum:
            return
        self._window.close(message.slot)
        work.keep(self.log.learn(message.slot, open_slot.value))
        self._advance(work)
        work.rests_on_nothing = not work.save  # The votes are on their voters' disks.
        self._notice_at = min(self._notice_at, now if open_slot.urgent else now + self._timing.notice_seconds)
        if not self._window.slots and now >= self._notice_at:
            self._beat(work)

    def _advance(self, work: Work) -> None:
        """Hand out what is known without a gap. None of it need be proposed: it may be from before this ballot."""
        work.chosen.extend(self.log.advance())
        self._window.close_through(self.log.chosen_through)

    def _resend_unanswered(self, work: Work, now: float) -> None:
        for slot, open_slot in self._window.due(now):
            silent = [member for member in self.members if member not in open_slot.voters]
            work.tell(silent, AcceptSlot(self.proposer.ballot, slot, open_slot.value, self.log.chosen_through))

    # learning

    def _beat(self, work: Work, sequence: int = 0) -> None:
        """A heartbeat to the followers. Without a sequence it is only a notice, and not answered."""
        self._notice_at = inf
        if self.others:
            work.tell(self.others, Heartbeat(self.proposer.ballot, self.log.chosen_through, sequence))

    def _receive_heartbeat(self, work: Work, sender: NodeId, message: Heartbeat, now: float) -> None:
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        self.leadership.observe_leader(message.ballot, now)
        self._heed(work, sender, message.ballot, message.chosen_through, now)
        if message.sequence and self.votes:
            work.tell(sender, HeartbeatAck(message.ballot, self.log.chosen_through, message.sequence))

    def _receive_heartbeat_ack(self, work: Work, sender: NodeId, message: HeartbeatAck, now: float) -> None:
        if message.ballot != self.proposer.ballot or not self.leadership.leading:
            self.dropped["acknowledgement of another ballot"] += 1
            return
        if message.sequence > self.leadership.sequence:
            self.dropped["acknowledgement of what was not sent"] += 1
            return
        self.leadership.observe_follower(sender, now)
        self._follower_chosen[sender] = message.chosen_through
        settled, now_again = self._read_points.observe_answer(sender, message.sequence, self.leadership.sequence)
        for question in settled:
            work.tell(question.asker, ReadPoint(question.number, question.point))
        if now_again:
            self._beat(work, self.leadership.next_sequence())

    def _heed(self, work: Work, sender: NodeId, ballot: Ballot, chosen_through: Slot, now: float) -> None:
        """The leader of ``ballot`` says that every slot up to ``chosen_through`` is chosen."""
        if chosen_through > self.log.chosen_through:
            self.log.vouch(ballot, chosen_through)
            work.chosen.extend(self.log.advance())
            self._catch_up.note(sender, chosen_through, now)

    # reconciliation

    def _receive_fetch(self, work: Work, sender: NodeId, message: Fetch, now: float) -> None:
        if message.first_slot < self.log.first_slot:
            work.tell(sender, Truncated(self.log.first_slot))
            return
        if not (values := self._values_from(message.first_slot)):
            self.dropped["fetch of what is not here"] += 1
            return
        work.tell(sender, ChosenValues(message.first_slot, values, self.log.known_through(message.first_slot)))

    def _receive_chosen_values(self, work: Work, sender: NodeId, message: ChosenValues, now: float) -> None:
        if not self._are_admitted(message.first_slot, message.values):
            return
        if not self._learn(work, message.first_slot, message.values, now):
            self.dropped["values known or above a gap"] += 1
            return
        self._catch_up.go_on(work, sender, message.chosen_through, now)

    def _receive_truncated(self, work: Work, sender: NodeId, message: Truncated, now: float) -> None:
        if message.first_slot <= self.log.chosen_through + 1:
            self.dropped["snapshot of what is known"] += 1
            return
        self._catch_up.note(sender, message.first_slot - 1, now)
        work.behind = sender

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
            elif self.leadership.leading and not known:
                self.leadership.step_down(now)
        work.keep(Learned(first_slot, values))
        self._advance(work)
        return True

    # reading

    def _ask_read_point(self, work: Work, now: float) -> None:
        """Ask whoever leads, if this node has a question and it is time to ask it."""
        leader = self.leadership.leader_node
        if self._read_asker.is_due(leader, now) and leader is not None:
            work.tell(leader, AskReadPoint(self._read_asker.number))

    def _receive_ask_read_point(self, work: Work, sender: NodeId, message: AskReadPoint, now: float) -> None:
        if not self.leadership.leading:
            self.dropped["question to a node that does not lead"] += 1
            return
        point = self.log.chosen_through
        if point < self._first_own_slot:
            # Of what others had chosen before, all is chosen here only once an entry of this ballot is.
            self.dropped["read before the leader's first entry"] += 1
            return
        if not self.others:
            work.tell(sender, ReadPoint(message.number, point))
        elif self._read_points.ask(sender, message.number, point, self.leadership.sequence):
            self._beat(work, self.leadership.next_sequence())

    def _receive_read_point(self, work: Work, sender: NodeId, message: ReadPoint, now: float) -> None:
        if self._read_asker.is_answer(message.number):
            work.answers.append(ReadFrom(message.number, message.slot))
        else:
            self.dropped["read point nobody asked for"] += 1

    # closing

    def _ready(self, work: Work) -> Ready:
        if not self.leadership.leading:
            self._window.clear()
            self._notice_at = inf
        return work.ready(self.leadership.changes(), self.wake_at)
