"""Who leads, as one node sees it, and when this node campaigns to lead.

Paxos is safe without a leader, but makes progress for certain only with one (*Paxos Made Simple*, section 2.4). An
:class:`Election` finds one. It sends nothing: its owner feeds it what arrives, asks it what is due, and carries that
out. Its owners are :class:`txpaxos.core.functional.Node` (one decree) and :class:`txpaxos.core.replica.Replica` (the
log).

.. code-block:: text

    FOLLOWER       -> PRE_CANDIDATE   its leader was silent for a liveness window
    PRE_CANDIDATE  -> CANDIDATE       a quorum, itself included, has granted its pre-vote
    CANDIDATE      -> LEADER          a quorum has promised its ballot
    LEADER         -> CANDIDATE       some nodes refuse its ballot, and a quorum grants its pre-vote: it takes a higher
                                      ballot
    any            -> FOLLOWER        it has heard a leader of a higher ballot, lost its own ballot, or given up

* **Silence.** A leader sends a heartbeat every ``heartbeat_seconds``. A follower that has heard none for its liveness
  window asks all others for a pre-vote. The window is drawn anew each time, so that two nodes seldom wake together.
* **Pre-votes.** Only a node that a quorum grants a pre-vote starts a ballot. So a node that cannot win, or that alone
  has lost the leader, raises no ballot and disturbs no other node (Ongaro's thesis, 2014, section 9.6).
* **Back-off.** Of two candidates the one with the higher ballot goes on; the other has promised it, and waits. A
  candidate that was refused waits for a random time that doubles with each failure, so duels end.
* **Quorum contact.** A leader that has not heard a quorum for the longest liveness window steps down: it must not hold
  on to followers that another node could lead. A leader that a minority refuses asks for pre-votes while it goes on
  leading; with a quorum's it runs phase 1 again, above what that minority has promised.
"""

from __future__ import annotations

import enum
from math import inf
from random import Random
from typing import Generic, TypeVar

import attrs

from txpaxos.core.config import Timing
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.membership import Membership
from txpaxos.core.messages import LOWEST, Ballot, Nack, NodeId, Promise, PromiseLog
from txpaxos.core.ready import LeadershipAcquired, LeadershipChanged, LeadershipFact, LeadershipLost

BACK_OFF_DOUBLINGS_MAX = 5
"""A refused candidate waits up to 2**5 liveness windows."""

AnyPromise = TypeVar("AnyPromise", Promise, PromiseLog)
"""The promise of the owner's kind of Paxos: for one decree, or for the log."""


class Role(enum.Enum):
    """What a node is to the others."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class TimerAction(enum.Enum):
    """What the owner of an :class:`Election` must do, now that time has passed."""

    NOTHING = enum.auto()
    REQUEST_PRE_VOTES = enum.auto()
    START_CAMPAIGN = enum.auto()
    RESEND_PREPARE = enum.auto()
    SEND_HEARTBEAT = enum.auto()
    ASK_WHAT_IS_CHOSEN = enum.auto()


@attrs.define
class Candidacy(Generic[AnyPromise]):
    """What exists only while this node has a ballot of its own: as a candidate, and as the leader it becomes.

    :ivar ballot: the ballot. No other node ever uses it.
    :ivar give_up_at: when a candidate that no quorum has promised becomes a follower again.
    :ivar promises: what each node said when it promised the ballot. Empty for a leader: they have served.
    :ivar refused_by: the nodes that refused the ballot.
    :ivar heard_at: when the leader last heard each of its followers. Empty for a candidate.
    """

    ballot: Ballot
    give_up_at: float
    promises: dict[NodeId, AnyPromise] = attrs.field(factory=dict)
    refused_by: set[NodeId] = attrs.field(factory=set)
    heard_at: dict[NodeId, float] = attrs.field(factory=dict)


class Election(Generic[AnyPromise]):
    """Who leads, as one node sees it, and when that is due to change.

    :param node: this node's id.
    :param membership: who the members are. It may change.
    :param rng: the only source of chance.
    :param now: the current time, in monotonic seconds.
    :param highest_seen: the highest ballot on this node's disk.
    :param is_admitted: whether this node may vote if it is a voter: it has not lost what it promised. A node that is no
        voter, or is not admitted, follows each leader, and starts nothing itself.
    :ivar role: what this node is. Only the four methods ``become_...`` change it.
    :ivar leader_ballot: the ballot of the leader that this node believes in; ``LOWEST`` if there is none.
    :ivar highest_seen: the highest ballot known to be in use. A ballot of this node's own will be above it.
    :ivar candidacy: this node's own ballot, while it is a candidate or leads; else ``None``.
    :ivar sequence: the number of the heartbeat sent last.
    :ivar pre_vote_number: the number of the round of pre-votes begun last.
    :ivar asked_in_vain: how often this pre-candidate has asked for pre-votes without a quorum.
    :ivar is_suspended: whether this node cannot do its part just now, so that another node must lead.
    :ivar quiet_until: until when this node asks for no pre-votes, because it has handed over the lead or is about to
        stop.
    """

    def __init__(
        self,
        node: NodeId,
        membership: Membership,
        timing: Timing,
        rng: Random,
        now: float,
        highest_seen: Ballot = LOWEST,
        is_admitted: bool = True,
    ) -> None:
        self.node = node
        self.membership = membership
        self.is_admitted = is_admitted
        self.role = Role.FOLLOWER
        self.leader_ballot = LOWEST
        self.highest_seen = highest_seen
        self.candidacy: Candidacy[AnyPromise] | None = None
        self.sequence = 0
        self.pre_vote_number = 0
        self.asked_in_vain = 0
        self.is_suspended = False
        self.quiet_until = -inf
        self._is_quiet = False  # Whether quiet_until was still to come when a leader last looked.
        self._timing = timing
        self._rng = rng
        self._failures = 0
        self._granted_by: set[NodeId] = set()
        self._heard_leader_at = -inf
        # The ballot of the candidate that was given time last.
        self._awaited_ballot = LOWEST
        # What changes() has told last: the leader's ballot, and whether it was this node's own.
        self._reported_ballot = LOWEST
        self._reported_own = False
        # When a follower stops waiting for its leader. A node that is alone has no other to wait for.
        self._silent_at = now if self._is_alone else now + self._liveness_window()
        # When a node of any other role is to send something again.
        self._act_at = now

    @property
    def is_voter(self) -> bool:
        """Whether this node votes, promises and grants pre-votes."""
        return self.is_admitted and self.membership.is_voter

    @property
    def _is_alone(self) -> bool:
        """Whether this node is a quorum by itself: it has no other to wait for."""
        return self.membership.is_quorum((self.node,))

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.role is Role.LEADER

    @property
    def is_refused(self) -> bool:
        """Whether this node leads, and some nodes refuse its ballot: it asks for pre-votes with every heartbeat."""
        if self.role is not Role.LEADER or self._is_quiet:
            return False
        return self.candidacy is not None and bool(self.candidacy.refused_by)

    @property
    def leader_node(self) -> NodeId | None:
        """The node that this one believes to lead, if any."""
        return self.leader_ballot.node or None

    @property
    def own_ballot(self) -> Ballot:
        """The ballot of this node's own that it campaigns or leads with; ``LOWEST`` if it does neither."""
        return LOWEST if self.candidacy is None else self.candidacy.ballot

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due."""
        return self._silent_at if self.role is Role.FOLLOWER else self._act_at

    def next_ballot(self) -> Ballot:
        """A ballot of this node's own, above all that are known to be in use."""
        return Ballot(self.highest_seen.round + 1, self.node)

    def silent_voters(self) -> list[NodeId]:
        """The voters that have not promised this candidate's ballot."""
        promised_by = () if self.candidacy is None else self.candidacy.promises
        return [voter for voter in self.membership.voters if voter not in promised_by]

    # transitions

    def become_follower(self, leader_ballot: Ballot, silent_at: float) -> None:
        """Follow the leader of ``leader_ballot``, until ``silent_at`` if nothing is heard. ``LOWEST``: no leader is
        known. From any role; a ballot of this node's own is given up."""
        self.role = Role.FOLLOWER
        self.candidacy = None
        self.leader_ballot = leader_ballot
        self._silent_at = silent_at

    def become_pre_candidate(self, now: float) -> None:
        """Give up the leader, and ask whether the other nodes would promise a ballot. From follower only."""
        if self.role is not Role.FOLLOWER:
            raise self._illegal(Role.PRE_CANDIDATE)
        self.role = Role.PRE_CANDIDATE
        self.leader_ballot = LOWEST
        self.asked_in_vain = 0
        self._begin_pre_vote()
        self._act_at = now + self._timing.heartbeat_seconds

    def become_candidate(self, ballot: Ballot, now: float) -> None:
        """Start ``ballot``, and wait for promises. From pre-candidate; from leader, for a higher ballot."""
        if self.role not in (Role.PRE_CANDIDATE, Role.LEADER):
            raise self._illegal(Role.CANDIDATE)
        self.role = Role.CANDIDATE
        self.leader_ballot = LOWEST
        self.observe_ballot(ballot)
        self.candidacy = Candidacy(ballot, now + self._liveness_window())
        self._act_at = now + self._timing.heartbeat_seconds

    def become_leader(self, now: float) -> None:
        """A quorum has promised this node's ballot: lead with it. From candidate only."""
        candidacy = self.candidacy
        if self.role is not Role.CANDIDATE or candidacy is None:
            raise self._illegal(Role.LEADER)
        self.role = Role.LEADER
        self.leader_ballot = candidacy.ballot
        candidacy.promises = {}
        candidacy.heard_at = dict.fromkeys(self.membership.others, now)
        self._failures = 0
        self._act_at = now + self._timing.heartbeat_seconds

    def _illegal(self, role: Role) -> BrokenInvariant:
        return BrokenInvariant(f"a {self.role.value} cannot become a {role.value}")

    # from the timer

    def tick(self, now: float) -> TimerAction:
        """What is due at ``now``. The owner carries it out; a campaign begins with :meth:`become_candidate`."""
        if now < self.wake_at:
            return TimerAction.NOTHING
        if self.is_suspended or not self.is_admitted or not self.membership.may_lead:
            self.become_follower(LOWEST, now + self._liveness_window())  # It may have been a candidate before.
            is_waiting = self.is_suspended or self.membership.may_lead
            return TimerAction.NOTHING if is_waiting else TimerAction.ASK_WHAT_IS_CHOSEN
        candidacy = self.candidacy
        if candidacy is None:
            if now < self.quiet_until:
                self.become_follower(LOWEST, now + self._liveness_window())
                return TimerAction.NOTHING
            return self._keep_asking(now)
        return self._keep_leading(candidacy, now) if self.is_leader else self._keep_campaigning(candidacy, now)

    def _keep_asking(self, now: float) -> TimerAction:
        """No leader is heard. A node that is alone grants itself a quorum at once."""
        if self.role is Role.FOLLOWER:
            self.become_pre_candidate(now)
        self._act_at = now + self._timing.heartbeat_seconds
        self.asked_in_vain += 1
        return TimerAction.START_CAMPAIGN if self._is_alone else TimerAction.REQUEST_PRE_VOTES

    def _keep_campaigning(self, candidacy: Candidacy[AnyPromise], now: float) -> TimerAction:
        if now >= candidacy.give_up_at:
            self.step_down(now)
            return TimerAction.NOTHING
        self._act_at = now + self._timing.heartbeat_seconds
        return TimerAction.RESEND_PREPARE

    def _keep_leading(self, candidacy: Candidacy[AnyPromise], now: float) -> TimerAction:
        if not self._hears_quorum(now):
            self.step_down(now)
            return TimerAction.NOTHING
        self._is_quiet = now < self.quiet_until
        if candidacy.refused_by and not self._is_quiet:
            self._begin_pre_vote()
        self._act_at = now + self._timing.heartbeat_seconds
        self.next_sequence()
        return TimerAction.SEND_HEARTBEAT

    def _begin_pre_vote(self) -> None:
        self.pre_vote_number += 1
        self._granted_by = {self.node}

    # from the network

    def grants_pre_vote(self, candidate: NodeId, now: float) -> bool:
        """Whether this node would promise a ballot to ``candidate``: it neither leads nor hears a leader, or
        ``candidate`` is its leader."""
        if self.is_leader or self.is_suspended:
            return False
        is_silent = now - self._heard_leader_at >= self._timing.liveness_window_seconds[0]
        return is_silent or self.leader_node == candidate

    def observe_pre_vote_granted(self, sender: NodeId, number: int) -> bool:
        """``sender`` has granted this node the pre-vote of that ``number``.

        :returns: whether the owner is to start a campaign now, since a quorum has granted it.
        """
        is_asking = self.role is Role.PRE_CANDIDATE or self.is_refused
        if not is_asking or number != self.pre_vote_number:
            return False
        self._granted_by.add(sender)
        return self.membership.is_quorum(self._granted_by)

    def observe_promise(self, sender: NodeId, promise: AnyPromise, now: float) -> dict[NodeId, AnyPromise]:
        """``sender`` has promised a ballot. Promises of a ballot that this node does not campaign with count for
        nothing.

        :returns: the promises of a quorum, by node, once it is complete: this node leads now, and the owner sends a
            heartbeat at once. Empty before that, and after it.
        """
        candidacy = self.candidacy
        if candidacy is None or self.is_leader or promise.ballot != candidacy.ballot:
            return {}
        candidacy.promises[sender] = promise
        if not self.membership.is_quorum(candidacy.promises):
            return {}
        promises = candidacy.promises
        self.become_leader(now)
        return promises

    def observe_nack(self, sender: NodeId, nack: Nack, now: float) -> None:
        """``sender`` has refused a ballot. A ballot of this node's own is given up when the nodes that have not refused
        it are too few for a quorum."""
        self.observe_ballot(nack.promised)
        candidacy = self.candidacy
        if candidacy is not None and nack.ballot == candidacy.ballot:
            candidacy.refused_by.add(sender)
            if not self.membership.is_quorum(
                [one for one in self.membership.voters if one not in candidacy.refused_by]
            ):
                self.step_down(now)

    def observe_ballot(self, ballot: Ballot) -> None:
        """``ballot`` is in use: the next one of this node's own is to be above it."""
        if ballot > self.highest_seen:
            self.highest_seen = ballot

    def observe_leader(self, ballot: Ballot, now: float) -> None:
        """A heartbeat has come, or another message that only a leader sends, of a ballot that this node has not
        promised away."""
        if ballot.node == self.node or ballot < self.leader_ballot:
            return
        self.observe_ballot(ballot)
        self._failures = 0
        self._heard_leader_at = now
        self.become_follower(ballot, now + self._liveness_window())

    def observe_candidate(self, ballot: Ballot, now: float) -> None:
        """This node has promised ``ballot`` to a candidate. It gives the candidate time, once, and does not race it."""
        self.observe_ballot(ballot)
        if ballot.node != self.node and ballot > self._awaited_ballot and not self.is_leader:
            self._awaited_ballot = ballot
            self.become_follower(self.leader_ballot, now + self._liveness_window())

    def observe_follower(self, sender: NodeId, now: float) -> None:
        """``sender`` has answered a message of the ballot that this node leads with."""
        candidacy = self.candidacy
        if candidacy is not None and sender != self.node:
            candidacy.heard_at[sender] = now

    def heard_nodes(self, now: float) -> set[NodeId]:
        """The nodes that this leader has heard within the longest time that they would wait for it."""
        heard_at = {} if self.candidacy is None else self.candidacy.heard_at
        oldest = now - self._timing.liveness_window_seconds[1]
        return {node for node, at in heard_at.items() if at >= oldest}

    def observe_end(self, node: NodeId, now: float) -> None:
        """There is a sign that ``node`` does not run any more. If it leads, this node stops waiting for it.

        It asks for pre-votes soon, at a random time, so that two followers seldom do so in the same moment. Nodes that
        still hear the leader will not grant them."""
        if self.role is Role.FOLLOWER and node == self.leader_node:
            self._heard_leader_at = -inf
            self._silent_at = min(self._silent_at, now + self._rng.uniform(0.0, self._timing.heartbeat_seconds / 4))

    # for the owner

    def start_voting(self, now: float) -> None:
        """This node is a voter from now on. A node that is alone has no other to wait for."""
        self.is_admitted = True
        if self._is_alone:
            self._silent_at = now

    def step_down(self, now: float) -> None:
        """Be a follower without a leader, and try again after a back-off, unless another node leads by then."""
        self._failures += 1
        self.become_follower(LOWEST, now + self._back_off())

    def heard_since(self, follower: NodeId, when: float) -> bool:
        """Whether ``follower`` has answered a message of the ballot that this node leads with, at ``when`` or later."""
        candidacy = self.candidacy
        return candidacy is not None and candidacy.heard_at.get(follower, -inf) >= when

    def stay_quiet(self, until: float) -> None:
        """Ask for no pre-votes before ``until``. This node still votes, promises and grants pre-votes."""
        self.quiet_until = until
        self._is_quiet = until > -inf

    def suspend(self, now: float) -> None:
        """This node cannot do its part: until :meth:`resume` it neither leads nor campaigns, and grants no pre-vote."""
        self.is_suspended = True
        if self.role is not Role.FOLLOWER:
            self.become_follower(LOWEST, now + self._liveness_window())

    def resume(self, now: float) -> None:
        """This node can do its part again. Other nodes may have found a leader; it is given time to be heard."""
        self.is_suspended = False
        self.become_follower(self.leader_ballot, now + self._liveness_window())

    def next_sequence(self) -> int:
        """The number of the next heartbeat."""
        self.sequence += 1
        return self.sequence

    def changes(self) -> tuple[LeadershipFact, ...]:
        """What has changed about who leads, since the last call."""
        ballot, is_own = self.leader_ballot, self.role is Role.LEADER
        if ballot == self._reported_ballot and is_own is self._reported_own:
            return ()
        led = self._reported_ballot if self._reported_own else LOWEST
        leads = ballot if is_own else LOWEST
        previous, current = self._reported_ballot.node or None, ballot.node or None
        self._reported_ballot, self._reported_own = ballot, is_own
        facts: list[LeadershipFact] = []
        if led not in (LOWEST, leads):
            facts.append(LeadershipLost(led))
        if leads not in (LOWEST, led):
            facts.append(LeadershipAcquired(leads))
        if previous != current:
            facts.append(LeadershipChanged(previous, current))
        return tuple(facts)

    def _hears_quorum(self, now: float) -> bool:
        """Whether enough followers were heard within the longest time that they would wait for this leader."""
        return self.membership.is_quorum(self.heard_nodes(now) | {self.node})

    def _liveness_window(self) -> float:
        return self._rng.uniform(*self._timing.liveness_window_seconds)

    def _back_off(self) -> float:
        """A random wait, whose longest doubles with each failure: of two rivals the one with the shorter wait wins."""
        longest = self._timing.liveness_window_seconds[0] * 2 ** min(self._failures, BACK_OFF_DOUBLINGS_MAX)
        return self._rng.uniform(self._timing.heartbeat_seconds, longest)
