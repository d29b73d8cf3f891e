"""Multi-Paxos: a log of chosen values, one node's part of it.

*Paxos Made Simple*, section 3: a leader runs phase 1 once for every slot there is or will be, and from then on each
value costs one phase 2. A :class:`Replica` is put together from parts that have one subject each:

=====================================  ==============================================================================
:class:`~txpaxos.core.log.Log`         what this node has promised, accepted and learned: acceptor and learner
:mod:`~txpaxos.core.membership`        who the members are, and what makes a quorum
:mod:`~txpaxos.core.election`          who leads, and when this node campaigns
:mod:`~txpaxos.core.leader`            the open slots, and all else that exists only while this node leads
:mod:`~txpaxos.core.catch_up`          asking for chosen values that this node misses
:mod:`~txpaxos.core.read_index`        reading without a slot of the log
:mod:`~txpaxos.core.hand_over`         handing over the lead to another node
=====================================  ==============================================================================

Laws:

* Every call that changes more than bookkeeping returns a :class:`~txpaxos.core.ready.Ready`; see there for what the
  caller owes.
* A leader proposes a slot once in its ballot, and only slots above all it was told to be chosen.
* Votes to oneself are messages like any other: sent, saved, then received.
* What is stale or misdirected is dropped by a guard with a name, and counted under that name in ``dropped``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from random import Random
from typing import assert_never

from txpaxos.core.catch_up import CatchUp
from txpaxos.core.config import Limits, Timing
from txpaxos.core.drops import Drop, by_name
from txpaxos.core.election import Election, TimerAction
from txpaxos.core.guards import BrokenInvariant, TwoValues, is_within_reason, refusal_ballot
from txpaxos.core.hand_over import HandOvers
from txpaxos.core.leader import LeaderState
from txpaxos.core.log import Log
from txpaxos.core.membership import Change, Configuration, Membership
from txpaxos.core.messages import (
    LOWEST,
    MEMBERS_BYTE,
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Decided,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    NodeId,
    Prepare,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    Promise,
    PromiseLog,
    ReadIndexReply,
    ReadIndexRequest,
    Slot,
    TakeOver,
    Truncated,
)
from txpaxos.core.read_index import ReadIndexClient
from txpaxos.core.ready import (
    ChangeCompleted,
    Checkpoint,
    Chosen,
    Configured,
    Installed,
    Learned,
    LogRecord,
    ReadIndexConfirmed,
    Ready,
    Status,
    Work,
)

ASKS_IN_VAIN = 20
"""A node that has asked for pre-votes this many times in vain, which takes as many heartbeats, asks another node what
was chosen. The members may have changed while it was away, and those that lead now not be known to it."""

NEWCOMER = "newcomer"
"""The role of a voter that may not vote yet."""
LEARNER = "learner"
"""The role of a node that is no voter: it only learns what is chosen."""


class Replica:
    """One node's part of the log.

    :param node: this node's id. A node that is no member yet may learn, too.
    :param members: the ids of the nodes that founded the cluster: the voters until the log says otherwise.
    :param rng: the only source of chance.
    :param now: the current time, in monotonic seconds, as in every call below.
    :param saved: all log records that this node ever saved, in order; of slots up to ``base``, some may be missing.
    :param base: every slot up to this one is in a snapshot.
    :param votes: whether this node may vote where it is a voter. A newcomer may not yet: it learns what is chosen, and
        says nothing that other nodes would count.
    :param admits: whether a value that a peer proposes, or (True) says to be chosen, is one that can be applied. A
        value that it refuses is neither voted for nor saved. All values are taken unless it is given.
    :param change_of: what a value that begins with ``MEMBERS_BYTE`` says about members; ``None`` for nothing. No value
        says anything unless it is given.
    :param configurations: the configurations of the snapshot at ``base``, oldest first. Those of the founders unless
        given.
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
        change_of: Callable[[bytes], Change | None] | None = None,
        configurations: Sequence[Configuration] = (),
    ) -> None:
        self.node = node
        self._timing = timing or Timing()
        self._limits = limits or Limits()
        self.log = Log.recover(saved, base)
        self.membership = Membership(
            node, configurations or [Configuration(0, tuple(members))], self._limits.window_slots, base
        )
        self._change_of = change_of or (lambda value: None)
        self._recover_configurations()
        # The last slot before the newest configuration governs, until this node has learned and saved all up to it.
        self._reached_slot = self._next_reached_slot()
        self._completed_slot = 0
        self.dropped: Counter[Drop] = Counter()
        self._rng = rng
        self.election: Election[PromiseLog] = Election(
            node, self.membership, self._timing, rng, now, highest_seen=self.log.promised, is_admitted=votes
        )
        # While this node leads, and only then.
        self._leader: LeaderState | None = None
        self._hand_over = HandOvers(node, self.membership, self.election, self.log, self._timing, self._limits)
        self._read_index = ReadIndexClient(self._timing, rng)
        self._catch_up = CatchUp(self.log, self.membership, self._timing, rng)
        self._base = base
        self._admits = admits or (lambda value, chosen: True)
        if self.log.lost_through and self.membership.others:
            # Some other node knows what is chosen there. No leader may be needed to get it.
            self._catch_up.note_missing(rng.choice(self.membership.others), self.log.lost_through, now)

    # what others may see

    @property
    def votes(self) -> bool:
        """Whether this node is a voter that may vote."""
        return self.election.is_voter

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

    @property
    def has_room(self) -> bool:
        """Whether :meth:`propose` may be called: this node leads, its window has a slot free, and it does not hand over
        the lead."""
        return self._leader is not None and self._leader.has_room and self._hand_over.current is None

    @property
    def first_own_slot(self) -> float:
        """The first slot in which this leader was free in what to propose: once it is applied, all is that earlier
        leaders may have had chosen. Infinite if that slot is not open yet, or this node does not lead."""
        return inf if self._leader is None else self._leader.first_own_slot

    @property
    def hand_over_target(self) -> NodeId | None:
        """The node to which this one is handing over the lead; ``None`` if it is not."""
        return None if self._hand_over.current is None else self._hand_over.current.target

    @property
    def is_leaving(self) -> bool:
        """Whether this node is about to stop, so that it does not campaign."""
        return self._hand_over.is_leaving

    @property
    def may_change_members(self) -> bool:
        """Whether a change of members may be proposed: this node leads, has had an entry of its own chosen, and no
        change is under way."""
        leader = self._leader
        return leader is not None and leader.knows_what_was_chosen and not self.membership.is_changing

    def level_nodes(self, now: float) -> set[NodeId]:
        """While this node leads: itself, and the nodes that it hears and that have learned what was chosen a moment
        ago. Empty if it does not lead."""
        leader = self._leader
        if leader is None:
            return set()
        return {self.node} | {node for node in self.election.heard_nodes(now) if leader.progress.is_level(node)}

    def failure_tolerance(self, now: float) -> int | None:
        """While this node leads: how many more voters may fail, whichever they are, and a quorum is left that it hears
        and that has learned what was chosen a moment ago; -1 if there is none any more. ``None`` if it does not lead:
        then it does not know."""
        if self._leader is None or not self.election.is_leader:
            return None
        return self.membership.spare_voters(self.level_nodes(now))

    @property
    def heard_through(self) -> Slot:
        """The last slot up to which any node has said that all slots are chosen."""
        return max(self.log.chosen_through, self._catch_up.heard_through)

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due, as every Ready says."""
        wake_at = min(self.election.wake_at, self._catch_up.wake_at)
        if self._read_index.is_asking:
            wake_at = min(wake_at, self._read_index.wake_at(self.election.leader_node))
        if self._hand_over.current is not None:
            wake_at = min(wake_at, self._hand_over.wake_at)
        return wake_at if self._leader is None else min(wake_at, self._leader.wake_at)

    def status(self) -> Status:
        """A frozen copy of what is worth knowing."""
        election, leader = self.election, self._leader
        without_vote = NEWCOMER if self.membership.is_voter else LEARNER
        return Status(
            node=self.node,
            role=election.role.value if self.votes else without_vote,
            ballot=election.leader_ballot,
            leader=election.leader_node,
            promised=self.log.promised,
            chosen_through=self.log.chosen_through,
            open_slots=0 if leader is None else len(leader.window.slots),
            lag_slots={} if leader is None else leader.lag_slots(),
            dropped=by_name(self.dropped),
        )

    # from the application

    def recovered(self) -> tuple[Chosen | Configured, ...]:
        """What was chosen and on disk when this node started, for an application that starts anew. Ask before the
        first call of anything else."""
        recovered: list[Chosen | Configured] = []
        first_slot = self.log.first_slot
        for slot, value in enumerate(self.log.values_from(first_slot), first_slot):
            if slot in self._configured_at:
                recovered.append(Configured(self._configured_at[slot], value))
            recovered.append(Chosen(slot, value))
        return tuple(recovered)

    def missing_checkpoint(self) -> tuple[LogRecord, ...]:
        """What to save before anything else, if a crash came between the snapshot this node starts from and the
        Checkpoint that belongs to it; else nothing. Ask before the first call of anything else.

        Without that Checkpoint no record says that this node went on from a snapshot. Should it lose that snapshot
        later, it would take its own old votes below it for chosen values."""
        if not self.log.lacks_checkpoint(self._base):
            return ()
        return (Checkpoint(self._base, installed=True), *self.log.checkpoint(self._base))

    def admit_contacts(self, contacts: Sequence[NodeId], slot: Slot = 0) -> None:
        """Take messages of ``contacts``, too. See :meth:`Membership.admit_contacts
        <txpaxos.core.membership.Membership.admit_contacts>`."""
        self.membership.admit_contacts(contacts, slot)

    def start_voting(self, now: float) -> Ready:
        """This node may vote from now on where it is a voter. That is on its disk."""
        self.election.start_voting(now)
        return self._ready(Work())

    def propose(self, value: bytes, now: float, urgent: bool = False) -> Ready:
        """Propose ``value`` at the next slot. Only while :attr:`has_room`.

        :param urgent: followers are to learn at once that it is chosen; else with the next value, or soon.
        """
        leader = self._leader
        if leader is None or not self.has_room:
            raise BrokenInvariant(self.status())
        # To lead with a ballot, its round had to be on disk. This node's own vote is still to come, and is saved.
        work = Work(needs_no_prior_save=True)
        leader.propose(work, value, now, urgent)
        return self._ready(work)

    def hand_over(self, target: NodeId | None, now: float) -> tuple[str, Ready]:
        """Begin to hand over the lead to ``target``; ``None`` for the node that is best for it.
        :class:`~txpaxos.core.ready.HandOverEnded` says later how the hand-over has ended.

        :returns: why that cannot be, in a few words, and what to do. The words are empty if the hand-over has begun.
        """
        leader, hand_over, work = self._leader, self._hand_over, Work()
        if leader is None:
            return f"{self.node} does not lead", self._ready(work)
        if hand_over.current is not None:
            return f"{self.node} hands over to {hand_over.current.target} already", self._ready(work)
        chosen = hand_over.default_target(leader, now) if target is None else target
        if chosen is None:
            return "no other node can take over", self._ready(work)
        if objection := hand_over.objection(leader, chosen, now):
            return f"{chosen} {objection}", self._ready(work)
        hand_over.begin(leader, chosen, now)
        return "", self._ready(work)

    def leave(self, now: float) -> Ready:
        """This node is about to stop: it does not campaign any more, and tells its leader not to hand over to it."""
        work = Work()
        self._hand_over.leave()
        self._say_leaving(work)
        return self._ready(work)

    def _say_leaving(self, work: Work) -> None:
        leader_node = self.leader_node
        if self.votes and leader_node is not None and leader_node != self.node:
            ballot = self.election.leader_ballot
            work.send_to(leader_node, HeartbeatAck(ballot, self.log.chosen_through, leaving=True))

    def request_read_index(self, now: float) -> tuple[int, Ready]:
        """Find out how far the log must be applied to see all that is acknowledged by now. One request at a time.

        :returns: the number of the request, which :class:`~txpaxos.core.ready.ReadIndexConfirmed` repeats, and what to
            do.
        """
        number = self._read_index.begin(now)
        work = Work()
        self._ask_for_read_index(work, now)
        return number, self._ready(work)

    def checkpoint(self, slot: Slot) -> tuple[LogRecord, ...]:
        """What to save so that, once there is this node's own snapshot at ``slot``, nothing saved before is needed.
        This changes nothing."""
        return (Checkpoint(slot), *self.log.checkpoint(slot))

    def compact(self, through: Slot) -> None:
        """Forget the values of the slots up to ``through``: a snapshot on disk holds what came of them.

        This is bookkeeping, so it returns no Ready: nothing is to be saved or sent, no timer changes, and no promise,
        vote or chosen slot does. A node that asks for one of those values later is told to take a snapshot."""
        self.log.compact(through)

    def install(self, slot: Slot, now: float, configurations: Sequence[Configuration] = ()) -> Ready:
        """Go on from a snapshot at ``slot`` that came from another node and is on disk. It changes nothing if all those
        slots are known.

        :param configurations: those that the snapshot holds, oldest first; those known here stay if there are none.
        """
        work = Work()
        if slot > self.log.chosen_through:
            if self.election.is_leader:
                self.election.step_down(now)
            self.log.install(slot)
            work.save.extend((Checkpoint(slot, installed=True), *self.log.checkpoint(slot)))
            work.chosen.append(Installed(slot))
            if configurations:
                self.membership.replace(configurations, slot)
                self._reached_slot = self._next_reached_slot()
            self._advance(work, now)
            self._catch_up.ask_at_once(work, now)  # Other nodes will not keep the later slots for long.
        return self._ready(work)

    # from the timer

    def tick(self, now: float) -> Ready:
        """Do what time asks for. Call it at ``wake_at``; too early does no harm."""
        work = Work()
        action = self.election.tick(now)
        match action:
            # A node that has lost a part of the log could not promise its own ballot.
            case TimerAction.REQUEST_PRE_VOTES if not self.log.lost_through:
                work.send_to(self._other_voters(), PreVote(self.election.pre_vote_number))
                if self.election.asked_in_vain % ASKS_IN_VAIN == 0:
                    self._catch_up.ask_any(work)
            case TimerAction.ASK_WHAT_IS_CHOSEN if self.membership.sources:
                # This node stands for no election, so no other one asks it anything, and the leader may be another, or
                # elsewhere, by an entry that it misses.
                self._catch_up.ask_any(work)
            case TimerAction.START_CAMPAIGN:
                self._start_campaign(work, now)
            case TimerAction.RESEND_PREPARE:
                work.send_to(
                    self.election.silent_voters(), PrepareLog(self.election.own_ballot, self.log.chosen_through + 1)
                )
        leader = self._leader
        if leader is not None and self.election.is_leader:
            if action is TimerAction.SEND_HEARTBEAT:
                leader.send_heartbeat(work, self.election.sequence)
                leader.progress.heartbeat_sent(self.log.chosen_through, now)
                leader.ask_for_promises(work)
                if self.election.is_refused:
                    work.send_to(self._other_voters(), PreVote(self.election.pre_vote_number))
            leader.resend_unanswered(work, now)
            if now >= leader.notify_at:
                leader.send_heartbeat(work)
        if (current := self._hand_over.current) is not None:
            still_leading = leader if self.election.is_leader else None
            self._hand_over.tick(work, current, still_leading, action is TimerAction.SEND_HEARTBEAT, now)
        self._catch_up.tick(work, now)
        self._ask_for_read_index(work, now)
        return self._ready(work)

    # from the disk

    def suspend(self, now: float) -> Ready:
        """The disk hangs: nothing can be saved, so this node can neither promise, vote nor lead."""
        self.election.suspend(now)
        return self._ready(Work())

    def resume(self, now: float) -> Ready:
        """The disk works again."""
        self.election.resume(now)
        return self._ready(Work())

    # from the network

    def observe_end(self, node: NodeId, now: float) -> Ready:
        """There is a sign that ``node`` does not run any more. If it leads, or is to take over, this node waits for it
        no longer."""
        work = Work()
        self.election.observe_end(node, now)
        self._hand_over.observe_end(work, self._leader, node, now)
        return self._ready(work)

    def receive_hint(self, source: NodeId, now: float) -> Ready:
        """A message that claims to be from ``source`` says that it has what this node misses: ask it, now and then."""
        work = Work()
        self._catch_up.receive_hint(work, source, now)
        return self._ready(work)

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Take one message. The commonest kinds come first: each message passes all cases before its own."""
        work = Work()
        if sender not in self.membership.senders:
            self.dropped[Drop.NOT_FROM_A_MEMBER] += 1
            return self._ready(work)
        match message:
            case AcceptedSlot():
                self._receive_accepted(work, sender, message, now)
            case AcceptSlot():
                self._receive_accept(work, sender, message, now)
            case Heartbeat():
                self._receive_heartbeat(work, sender, message, now)
            case HeartbeatAck():
                self._receive_heartbeat_ack(work, sender, message, now)
            case ReadIndexRequest():
                self._receive_read_index_request(work, sender, message)
            case ReadIndexReply():
                self._receive_read_index_reply(work, message)
            case PreVote():
                self._receive_pre_vote(work, sender, message, now)
            case PreVoteGranted():
                self._receive_pre_vote_granted(work, sender, message, now)
            case PrepareLog():
                self._receive_prepare(work, sender, message, now)
            case PromiseLog():
                self._receive_promise(work, sender, message, now)
            case Nack():
                self._receive_nack(sender, message, now)
            case TakeOver():
                self._receive_take_over(work, sender, message, now)
            case Fetch():
                self._receive_fetch(work, sender, message)
                self._hand_over.asked(work, sender)
            case ChosenValues():
                self._receive_chosen_values(work, sender, message, now)
            case Truncated():
                self._receive_truncated(work, sender, message, now)
            case Prepare() | Promise() | Accept() | Accepted() | Decided():
                self.dropped[Drop.NOT_ABOUT_THE_LOG] += 1
            case _:
                assert_never(message)
        return self._ready(work)

    def _is_believed(self, sender: NodeId, ballot: Ballot) -> bool:
        """Whether ``sender`` may lead, or want to lead, with ``ballot``: it is its own, not far above all others."""
        if ballot == self.log.promised and ballot.node == sender:
            return True
        if ballot.node != sender:
            self.dropped[Drop.BALLOT_OF_ANOTHER_NODE] += 1
            return False
        if ballot > self.election.highest_seen and not is_within_reason(ballot, self.election.highest_seen):
            self.dropped[Drop.BALLOT_BEYOND_REASON] += 1
            return False
        return True

    def _other_voters(self) -> list[NodeId]:
        return [voter for voter in self.membership.voters if voter != self.node]

    # pre-votes and phase 1

    def _receive_pre_vote(self, work: Work, sender: NodeId, message: PreVote, now: float) -> None:
        if not self.votes:
            self.dropped[Drop.PRE_VOTE_AT_A_NEWCOMER] += 1
        elif self.election.grants_pre_vote(sender, now):
            work.send_to(sender, PreVoteGranted(message.sequence))

    def _receive_pre_vote_granted(self, work: Work, sender: NodeId, message: PreVoteGranted, now: float) -> None:
        if self.election.observe_pre_vote_granted(sender, message.sequence):
            self._start_campaign(work, now)

    def _start_campaign(self, work: Work, now: float) -> None:
        """Start a ballot. This node promises it to itself at once: that puts its round on disk before it is used."""
        ballot = self.election.next_ballot()
        self.election.become_candidate(ballot, now)
        work.save_record(self.log.promise(ballot))
        work.send_to(self.membership.voters, PrepareLog(ballot, self.log.chosen_through + 1))

    def _receive_prepare(self, work: Work, sender: NodeId, message: PrepareLog, now: float) -> None:
        if not self.votes:
            self.dropped[Drop.PREPARE_AT_A_NEWCOMER] += 1
            return
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        if message.first_slot < self.log.first_slot:
            self.dropped[Drop.CANDIDATE_TOO_FAR_BEHIND] += 1
            work.send_to(sender, Truncated(self.log.first_slot))
            return
        values = self._values_from(message.first_slot)
        known_through = self.log.known_through(message.first_slot)
        if message.first_slot <= self.log.lost_through:
            # Its votes there are gone. Silent about them, a promise would be a lie.
            self.dropped[Drop.CANDIDATE_AT_LOST_SLOTS] += 1
            if values:
                work.send_to(sender, ChosenValues(message.first_slot, values, known_through))
            return
        if message.first_slot + len(values) <= known_through:
            # The candidate misses more than one message holds. Let it catch up first; it asks again.
            self.dropped[Drop.CANDIDATE_TOO_FAR_BEHIND] += 1
            work.send_to(sender, ChosenValues(message.first_slot, values, known_through))
            return
        self.election.observe_candidate(message.ballot, now)
        work.save_record(self.log.promise(message.ballot))
        votes = self.log.votes_from(message.first_slot + len(values))
        work.send_to(sender, PromiseLog(message.ballot, message.first_slot, values, votes))

    def _receive_promise(self, work: Work, sender: NodeId, message: PromiseLog, now: float) -> None:
        leader = self._leader
        is_late = leader is not None and not leader.awaits_promise(sender)
        if message.ballot != self.election.own_ballot or message.ballot == LOWEST or is_late:
            self.dropped[Drop.PROMISE_OF_ANOTHER_BALLOT] += 1
            return
        if not self._is_plausible(message):
            self.dropped[Drop.IMPLAUSIBLE_PROMISE] += 1
            return
        if not self._are_admitted(message.first_slot, message.values):
            return
        self._learn(work, message.first_slot, message.values, now)
        if leader is not None:
            self._receive_later_promise(work, leader, sender, message, now)
            return
        promises = self.election.observe_promise(sender, message, now)
        if promises:
            self._start_leading(work, promises, now)

    def _receive_later_promise(
        self, work: Work, leader: LeaderState, sender: NodeId, message: PromiseLog, now: float
    ) -> None:
        """Take the promise of a voter of a new configuration, for which this leader waits."""
        if not self.election.is_leader:  # What it told was chosen showed that this leader was deposed.
            return
        self.election.observe_follower(sender, now)
        leader.receive_promise(work, sender, message, now)

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

    def _start_leading(self, work: Work, promises: Mapping[NodeId, PromiseLog], now: float) -> None:
        """Phase 1 is complete for every slot that may be open: a quorum has made ``promises``."""
        self._completed_slot = 0
        leader = self._leader = LeaderState(
            self.election.own_ballot, self.membership, self.log, self._timing, self._limits, self._rng, promises
        )
        leader.propose_required(work, now)
        leader.send_heartbeat(work)

    def _refuse(self, work: Work, sender: NodeId, ballot: Ballot) -> None:
        """Tell ``sender`` that its ``ballot`` is below what this node has promised."""
        work.send_to(sender, Nack(ballot, refusal_ballot(self.log.promised, self.node, self.membership.senders)))

    def _receive_nack(self, sender: NodeId, message: Nack, now: float) -> None:
        if message.ballot.node != self.node or message.promised <= message.ballot:
            self.dropped[Drop.REFUSAL_OF_NO_OWN_BALLOT] += 1
            return
        if message.promised.node not in self.membership.senders:
            self.dropped[Drop.BALLOT_OF_NO_MEMBER] += 1
            return
        if not is_within_reason(message.promised, self.election.highest_seen):
            self.dropped[Drop.BALLOT_BEYOND_REASON] += 1
            return
        self.election.observe_nack(sender, message, now)

    def _receive_take_over(self, work: Work, sender: NodeId, message: TakeOver, now: float) -> None:
        """The leader hands over to this node, which campaigns as soon as it has learned what the leader tells."""
        if not self._is_believed(sender, message.ballot):
            return
        hand_over = self._hand_over
        if hand_over.is_leaving:
            self.dropped[Drop.TAKE_OVER_WHILE_LEAVING] += 1
            self._say_leaving(work)
            return
        if hand_over.may_obey(message):
            self._advance_from_leader(work, sender, message.ballot, message.chosen_through, now)
            if message.chosen_through > self.log.chosen_through:
                self._catch_up.request_next(work, sender, message.chosen_through, now)
                return
            self.election.become_pre_candidate(now)
            self._start_campaign(work, now)
            return
        self.dropped[Drop.TAKE_OVER_TOO_LATE] += 1

    # phase 2

    def _receive_accept(self, work: Work, sender: NodeId, message: AcceptSlot, now: float) -> None:
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        self.election.observe_leader(message.ballot, now)
        self._advance_from_leader(work, sender, message.ballot, message.chosen_through, now)
        if not self.votes:
            self.dropped[Drop.ACCEPT_AT_A_NEWCOMER] += 1
            return
        if message.slot > self.log.chosen_through + self._limits.ahead_slots:
            self.dropped[Drop.ACCEPT_TOO_FAR_AHEAD] += 1
            return
        if message.slot < self.log.first_slot:
            self.dropped[Drop.ACCEPT_OF_A_SLOT_IN_A_SNAPSHOT] += 1
            work.send_to(sender, Truncated(self.log.first_slot))
            return
        if self.log.contradicts(message.slot, message.value):
            self.dropped[Drop.ACCEPT_OF_A_DEPOSED_LEADER] += 1
            values = self._values_from(message.slot)
            work.send_to(sender, ChosenValues(message.slot, values, self.log.known_through(message.slot)))
            return
        if sender != self.node and not self._admits(message.value, False):
            self.dropped[Drop.VALUE_THAT_CANNOT_BE_APPLIED] += 1
            return
        try:
            work.save_record(self.log.accept(message.ballot, message.slot, message.value))
        except TwoValues:
            self.dropped[Drop.TWO_VALUES_IN_ONE_BALLOT] += 1
            return
        # A leader's own vote may wait: its followers may be a quorum before that vote is on disk.
        work.may_defer = sender == self.node and not self.membership.needs_own_vote
        work.send_to(sender, AcceptedSlot(message.ballot, message.slot))

    def _receive_accepted(self, work: Work, sender: NodeId, message: AcceptedSlot, now: float) -> None:
        leader = self._leader
        if leader is None or message.ballot != leader.ballot:
            self.dropped[Drop.VOTE_FOR_ANOTHER_BALLOT] += 1
            return
        self.election.observe_follower(sender, now)
        chosen = leader.count_vote(sender, message.slot)
        if chosen is None:
            return
        work.save_record(self.log.learn(message.slot, chosen.value))
        self._advance(work, now)
        work.needs_no_prior_save = not work.save  # The votes are on their voters' disks.
        leader.notify_soon(work, now, chosen.urgent)

    def _advance(self, work: Work, now: float) -> None:
        """Hand out what is known to be chosen without a gap, and go by the configurations among it. A leader has no
        such slot open any more, even one that was chosen before its ballot."""
        for chosen in self.log.advance():
            if chosen.value[:1] == MEMBERS_BYTE:
                self._note_change(work, chosen)
            work.chosen.append(chosen)
        if self.membership.is_changing:
            self._follow_change(work, now)
        leader = self._leader
        if leader is not None:
            leader.window.close_through(self.log.chosen_through)
            # What is chosen may just have shown that this leader was deposed.
            if leader.next_slot <= leader.required_through and self.election.is_leader:
                leader.propose_required(work, now)

    # members

    def _recover_configurations(self) -> None:
        """Go by the configurations among what was chosen and on disk when this node started."""
        self._configured_at: dict[Slot, Configuration] = {}
        first_slot = self.log.first_slot
        for slot, value in enumerate(self.log.values_from(first_slot), first_slot):
            self.membership.advance(slot)
            change = self._change_of(value) if value[:1] == MEMBERS_BYTE else None
            if change is not None and (configuration := self.membership.note(slot, change)) is not None:
                self._configured_at[slot] = configuration
        self.membership.advance(self.log.chosen_through)

    def _note_change(self, work: Work, chosen: Chosen) -> None:
        """A value about members is chosen, and all values before it: if it counts, it governs from alpha slots on."""
        change = self._change_of(chosen.value)
        self.membership.advance(chosen.slot)
        configuration = None if change is None else self.membership.note(chosen.slot, change)
        if configuration is None:
            return
        work.chosen.append(Configured(configuration, chosen.value))
        self._reached_slot = self._next_reached_slot()
        if self._leader is not None and self.election.is_leader:
            self._leader.begin_configuration(work, configuration)

    def _next_reached_slot(self) -> float:
        """The last slot before the newest configuration governs, if its end is not on disk yet; else infinite."""
        newest = self.membership.newest
        reached = self.membership.governs_from(newest) - 1
        return reached if newest.slot and reached > self.log.learned_through else inf

    def _follow_change(self, work: Work, now: float) -> None:
        """More slots are chosen while two configurations are in force: when the newer one governs all that follow, note
        on disk that this node has learned all before. From then on the old members are not needed for that."""
        chosen_through = self.log.chosen_through
        if chosen_through >= self._reached_slot:
            work.save_record(self.log.reach(int(self._reached_slot)))
            self._reached_slot = inf
        self.membership.advance(chosen_through)
        if not self.membership.is_voter and self.election.candidacy is not None:
            if self._leader is not None:
                self._leader.send_heartbeat(work)  # The others need not ask for what was chosen last.
            self.election.step_down(now)
        self._complete_change(work)

    def _complete_change(self, work: Work) -> None:
        """Say so, once, when a majority of the newest voters has durably learned all slots before theirs."""
        newest, leader = self.membership.newest, self._leader
        if leader is None or newest.slot == self._completed_slot or self.membership.is_changing:
            return
        reached = self.membership.governs_from(newest) - 1
        level = [node for node, slot in leader.progress.chosen_through.items() if slot >= reached and node != self.node]
        if newest.is_majority([self.node, *level]):
            self._completed_slot = newest.slot
            work.answers.append(ChangeCompleted(newest.slot))

    # learning

    def _receive_heartbeat(self, work: Work, sender: NodeId, message: Heartbeat, now: float) -> None:
        if not self._is_believed(sender, message.ballot):
            return
        if message.ballot < self.log.promised:
            self._refuse(work, sender, message.ballot)
            return
        self.election.observe_leader(message.ballot, now)
        self._advance_from_leader(work, sender, message.ballot, message.chosen_through, now)
        if message.sequence and (self.votes or not self.membership.is_voter):
            leaving = self._hand_over.is_leaving
            work.send_to(sender, HeartbeatAck(message.ballot, self.log.chosen_through, message.sequence, leaving))

    def _receive_heartbeat_ack(self, work: Work, sender: NodeId, message: HeartbeatAck, now: float) -> None:
        leader = self._leader
        if leader is None or message.ballot != leader.ballot:
            self.dropped[Drop.ACKNOWLEDGEMENT_OF_ANOTHER_BALLOT] += 1
            return
        if message.sequence > self.election.sequence:
            self.dropped[Drop.ACKNOWLEDGEMENT_OF_AN_UNSENT_HEARTBEAT] += 1
            return
        self.election.observe_follower(sender, now)
        leader.progress.acknowledged(sender, message.chosen_through, self.log.chosen_through)
        self._hand_over.observe_ack(work, leader, sender, message.leaving, now)
        if self.membership.newest.slot != self._completed_slot:
            self._complete_change(work)
        settled, ask_again = leader.read_index.observe_answer(sender, message.sequence, self.election.sequence)
        for pending in settled:
            work.send_to(pending.client, ReadIndexReply(pending.number, pending.read_index))
        if ask_again:
            leader.send_heartbeat(work, self.election.next_sequence())

    def _advance_from_leader(
        self, work: Work, sender: NodeId, ballot: Ballot, chosen_through: Slot, now: float
    ) -> None:
        """The leader of ``ballot`` says that every slot up to ``chosen_through`` is chosen."""
        if chosen_through > self.log.chosen_through:
            self.log.mark_chosen_by_ballot(ballot, chosen_through)
            self._advance(work, now)
            self._catch_up.note_missing(sender, chosen_through, now)

    # reconciliation

    def _receive_fetch(self, work: Work, sender: NodeId, message: Fetch) -> None:
        if message.first_slot < self.log.first_slot:
            work.send_to(sender, Truncated(self.log.first_slot))
            return
        if not (values := self._values_from(message.first_slot)):
            self.dropped[Drop.FETCH_OF_UNKNOWN_SLOTS] += 1
            return
        work.send_to(sender, ChosenValues(message.first_slot, values, self.log.known_through(message.first_slot)))

    def _receive_chosen_values(self, work: Work, sender: NodeId, message: ChosenValues, now: float) -> None:
        if not self._are_admitted(message.first_slot, message.values):
            return
        if not self._learn(work, message.first_slot, message.values, now):
            self.dropped[Drop.VALUES_KNOWN_OR_ABOVE_A_GAP] += 1
            return
        self._catch_up.request_next(work, sender, message.chosen_through, now)

    def _receive_truncated(self, work: Work, sender: NodeId, message: Truncated, now: float) -> None:
        if message.first_slot <= self.log.chosen_through + 1:
            self.dropped[Drop.SNAPSHOT_NOT_NEEDED] += 1
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
                self.dropped[Drop.VALUES_CONTRADICTING_CHOSEN_ONES] += 1
                return False
            if not self.log.knows(slot) and not self._admits(value, True):
                self.dropped[Drop.VALUE_THAT_CANNOT_BE_APPLIED] += 1
                return False
        return True

    def _learn(self, work: Work, first_slot: Slot, values: tuple[bytes, ...], now: float) -> bool:
        """Take chosen values that another node sent. Whether there was anything new among them.

        A leader is the first to know what is chosen in its ballot. A leader that is told of a chosen value it did not
        propose was deposed without noticing."""
        skip = self.log.chosen_through + 1 - first_slot
        if skip < 0 or skip >= len(values):
            return False
        first_slot, values = first_slot + skip, values[skip:]
        for slot, value in enumerate(values, first_slot):
            known = self.log.knows(slot)  # Above a gap; so it is not open any more.
            self.log.learn(slot, value)
            proposed_here = self._leader is not None and self._leader.confirm_chosen(slot, value)
            if not proposed_here and not known and self.election.is_leader:
                self.election.step_down(now)
        work.save_record(Learned(first_slot, values))
        self._advance(work, now)
        return True

    # reading

    def _ask_for_read_index(self, work: Work, now: float) -> None:
        """Ask the leader, if this node has a request and it is time to send it."""
        leader_node = self.election.leader_node
        if self._read_index.is_due(leader_node, now) and leader_node is not None:
            work.send_to(leader_node, ReadIndexRequest(self._read_index.number))

    def _receive_read_index_request(self, work: Work, sender: NodeId, message: ReadIndexRequest) -> None:
        leader = self._leader
        if leader is None:
            self.dropped[Drop.READ_INDEX_REQUEST_AT_A_FOLLOWER] += 1
            return
        read_index = self.log.chosen_through
        if not leader.knows_what_was_chosen:
            self.dropped[Drop.READ_INDEX_REQUEST_TOO_EARLY] += 1
            return
        if self.membership.is_quorum((self.node,)):
            work.send_to(sender, ReadIndexReply(message.number, read_index))
        elif leader.read_index.request(sender, message.number, read_index, self.election.sequence):
            leader.send_heartbeat(work, self.election.next_sequence())

    def _receive_read_index_reply(self, work: Work, message: ReadIndexReply) -> None:
        if self._read_index.end(message.number):
            work.answers.append(ReadIndexConfirmed(message.number, message.slot))
        else:
            self.dropped[Drop.READ_INDEX_REPLY_NOT_AWAITED] += 1

    # closing

    def _ready(self, work: Work) -> Ready:
        """Close every call. What belongs to a lead that this call has lost is dropped here, and only here."""
        if not self.election.is_leader:
            self._leader = None
        if (current := self._hand_over.current) is not None:
            self._hand_over.follow(work, current, self._leader)
        return work.ready(self.election.changes(), self.wake_at)
