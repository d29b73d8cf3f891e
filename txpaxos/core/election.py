"""Who leads, as one node sees it, and when to campaign."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from math import inf
from random import Random

from txpaxos.core import practical
from txpaxos.core.config import Timing
from txpaxos.core.messages import LOWEST, Ballot, Nack, NodeId
from txpaxos.core.ready import LeadershipAcquired, LeadershipChanged, LeadershipFact, LeadershipLost

BACK_OFF_DOUBLINGS_MAX = 5
"""A refused candidate waits up to 2**5 liveness windows."""


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


class Election:
    """Who leads, as one node sees it, and when that is due to change.

    It sends nothing: its owner feeds it what arrives, asks for its :class:`TimerAction`, and carries it out.

    :param proposer: the owner's proposer. It counts promises and refusals; this class adds time to what it knows.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param now: the present, in monotonic seconds.
    :param votes: whether this node is a voter. One that is not follows whoever leads, and tries nothing itself.
    :ivar leader_ballot: the ballot of the leader believed in; ``LOWEST`` if there is none.
    :ivar sequence: of the heartbeat sent last.
    :ivar pre_vote_number: the number of the pre-vote begun last.
    :ivar is_suspended: whether this node can do nothing just now, so that others must lead.
    """

    def __init__(
        self,
        proposer: practical.Proposer,
        members: Sequence[NodeId],
        timing: Timing,
        rng: Random,
        now: float,
        votes: bool = True,
    ) -> None:
        self.proposer = proposer
        self.votes = votes
        self.role = Role.FOLLOWER
        self.leader_ballot = LOWEST
        self.sequence = 0
        self.pre_vote_number = 0
        self.is_suspended = False
        self._followers = [member for member in members if member != proposer.node]
        self._timing = timing
        self._rng = rng
        self._failures = 0
        self._pre_votes: set[NodeId] = set()
        # When each follower was last heard by this leader, and when this follower last heard a leader.
        self._heard_at: dict[NodeId, float] = {}
        self._heard_leader_at = -inf
        # The candidate that was given time last.
        self._candidate = LOWEST
        self._last_reported: tuple[Ballot, NodeId | None] = (LOWEST, None)
        # When a follower loses patience with its leader. Alone, there is nobody to wait for.
        self._silent_at = now + self._window() if self._followers else now
        # When whoever is no follower is to say something again, and when a candidate gives up.
        self._act_at = now
        self._give_up_at = now

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.role is Role.LEADER

    @property
    def is_refused(self) -> bool:
        """Whether this node leads, and some refuse what it says: with every heartbeat it canvasses, too."""
        return self.is_leader and bool(self.proposer.refusals)

    @property
    def leader_node(self) -> NodeId | None:
        """The node believed to lead, if any."""
        return self.leader_ballot.node or None

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due."""
        return self._silent_at if self.role is Role.FOLLOWER else self._act_at

    # from the timer

    def tick(self, now: float) -> TimerAction:
        """What is due at ``now``. The owner carries it out; a campaign it begins with :meth:`start_campaign`."""
        if now < self.wake_at:
            return TimerAction.NOTHING
        if self.is_suspended or not self.votes:
            self.leader_ballot = LOWEST
            self._silent_at = now + self._window()
            return TimerAction.NOTHING
        match self.role:
            case Role.LEADER:
                return self._lead_on(now)
            case Role.CANDIDATE if now >= self._give_up_at:
                self.step_down(now)
                return TimerAction.NOTHING
            case Role.CANDIDATE:
                self._act_at = now + self._timing.heartbeat_seconds
                return TimerAction.RESEND_PREPARE
        return self._request_pre_votes(now)

    def _lead_on(self, now: float) -> TimerAction:
        if not self._hears_quorum(now):
            self.step_down(now)
            return TimerAction.NOTHING
        if self.is_refused:
            self._begin_pre_vote()
        self._act_at = now + self._timing.heartbeat_seconds
        self.next_sequence()
        return TimerAction.SEND_HEARTBEAT

    def _request_pre_votes(self, now: float) -> TimerAction:
        if not self._followers:
            return TimerAction.START_CAMPAIGN
        if self.role is Role.FOLLOWER:
            self.role = Role.PRE_CANDIDATE
            self.leader_ballot = LOWEST
            self._begin_pre_vote()
        self._act_at = now + self._timing.heartbeat_seconds
        return TimerAction.REQUEST_PRE_VOTES

    def _begin_pre_vote(self) -> None:
        self.pre_vote_number += 1
        self._pre_votes = {self.proposer.node}

    def start_campaign(self, now: float) -> None:
        """The owner starts a ballot: follow nobody, and wait for promises."""
        self.role = Role.CANDIDATE
        self.leader_ballot = LOWEST
        self._act_at = now + self._timing.heartbeat_seconds
        self._give_up_at = now + self._window()

    # from the network

    def grants_pre_vote(self, candidate: NodeId, now: float) -> bool:
        """Whether this node backs whoever canvasses: it hears no leader, nor is it one, or that is its leader."""
        if self.is_leader or self.is_suspended:
            return False
        silent = now - self._heard_leader_at >= self._timing.liveness_window_seconds[0]
        return silent or self.leader_node == candidate

    def observe_pre_vote_granted(self, sender: NodeId, number: int) -> bool:
        """Another node backs this one.

        :returns: whether the owner is to start a campaign now, since a quorum does.
        """
        asked = self.role is Role.PRE_CANDIDATE or self.is_refused
        if not asked or number != self.pre_vote_number:
            return False
        self._pre_votes.add(sender)
        return len(self._pre_votes) >= self.proposer.quorum

    def observe_promise(self, now: float) -> bool:
        """The proposer has counted a promise.

        :returns: whether leadership was won just now; the owner then sends a heartbeat without waiting.
        """
        if self.role is not Role.CANDIDATE or not self.proposer.leading:
            return False
        self.role = Role.LEADER
        self.leader_ballot = self.proposer.ballot
        self._failures = 0
        self._heard_at = dict.fromkeys(self._followers, now)
        self._act_at = now + self._timing.heartbeat_seconds
        return True

    def observe_nack(self, sender: NodeId, nack: Nack, now: float) -> None:
        """A refusal. When those who have not refused are too few for a quorum, the ballot is given up."""
        if self.proposer.receive_nack(sender, nack) and self.role in (Role.CANDIDATE, Role.LEADER):
            self.step_down(now)

    def observe_leader(self, ballot: Ballot, now: float) -> None:
        """A heartbeat, or anything else only a leader sends, of a ballot this node has not promised away."""
        if ballot.node == self.proposer.node or ballot < self.leader_ballot:
            return
        self.proposer.observe(ballot)
        self.leader_ballot = ballot
        self._failures = 0
        self._heard_leader_at = now
        self._follow(now + self._window())

    def observe_candidate(self, ballot: Ballot, now: float) -> None:
        """This node promised ``ballot`` to a candidate: give it time, once, and do not race it."""
        self.proposer.observe(ballot)
        if ballot.node != self.proposer.node and ballot > self._candidate and not self.is_leader:
            self._candidate = ballot
            self._follow(now + self._window())

    def observe_follower(self, sender: NodeId, now: float) -> None:
        """A follower answered this leader's present ballot."""
        if sender in self._heard_at:
            self._heard_at[sender] = now

    def observe_end(self, node: NodeId, now: float) -> None:
        """Something tells that ``node`` does not run any more. If it led, no longer wait for it: canvass soon, at a
        random time, so that others seldom do so in the same moment. Those that still hear it will not back that."""
        if self.role is Role.FOLLOWER and node == self.leader_node:
            self._heard_leader_at = -inf
            self._silent_at = min(self._silent_at, now + self._rng.uniform(0.0, self._timing.heartbeat_seconds / 4))

    # for the owner

    def start_voting(self, now: float) -> None:
        """This node is a voter now. Alone, it has nobody to wait for."""
        self.votes = True
        if not self._followers:
            self._silent_at = now

    def step_down(self, now: float) -> None:
        """Neither leader nor candidate any more; try again after a back-off unless somebody else leads by then."""
        self._failures += 1
        self.leader_ballot = LOWEST
        self._follow(now + self._back_off())

    def suspend(self, now: float) -> None:
        """This node cannot do its part, and knows it: lead no more, and neither canvass nor back anybody, until
        :meth:`resume`."""
        self.is_suspended = True
        if self.role is not Role.FOLLOWER:
            self.leader_ballot = LOWEST
            self._follow(now + self._window())

    def resume(self, now: float) -> None:
        """It can again. Others may have found a leader, which is given time to be heard."""
        self.is_suspended = False
        self._follow(now + self._window())

    def next_sequence(self) -> int:
        """The number of the next heartbeat."""
        self.sequence += 1
        return self.sequence

    def changes(self) -> tuple[LeadershipFact, ...]:
        """What has changed since this was asked last."""
        led, previous = self._last_reported
        leads, current = self.leader_ballot if self.is_leader else LOWEST, self.leader_node
        if (leads, current) == (led, previous):
            return ()
        self._last_reported = leads, current
        facts: list[LeadershipFact] = []
        if led not in (LOWEST, leads):
            facts.append(LeadershipLost(led))
        if leads not in (LOWEST, led):
            facts.append(LeadershipAcquired(leads))
        if previous != current:
            facts.append(LeadershipChanged(previous, current))
        return tuple(facts)

    def _follow(self, silent_at: float) -> None:
        """Be a follower, until ``silent_at`` if nothing is heard. A ballot of one's own is given up."""
        if self.role in (Role.CANDIDATE, Role.LEADER):
            self.proposer.give_up()
        self.role = Role.FOLLOWER
        self._silent_at = silent_at

    def _hears_quorum(self, now: float) -> bool:
        """Whether enough followers have been heard for as long as they would wait for this leader."""
        oldest = now - self._timing.liveness_window_seconds[1]
        return 1 + sum(heard >= oldest for heard in self._heard_at.values()) >= self.proposer.quorum

    def _window(self) -> float:
        return self._rng.uniform(*self._timing.liveness_window_seconds)

    def _back_off(self) -> float:
        """A random wait that doubles with each failure, from zero up: whoever draws the shorter one gets through."""
        longest = self._timing.liveness_window_seconds[0] * 2 ** min(self._failures, BACK_OFF_DOUBLINGS_MAX)
        return self._rng.uniform(self._timing.heartbeat_seconds, longest)
