"""Paxos that keeps itself going: heartbeats, detection of a dead leader, acquiring and losing leadership.

Read after :mod:`~txpaxos.core.practical`. Paxos is safe without a leader, but only with one does it make progress for
certain (*Paxos Made Simple*, section 2.4). :class:`Leadership` finds one: it is the one piece that the single decree
(:class:`Node`, here) and the log (:mod:`txpaxos.core.replica`) share.

The idea in a few lines, before what makes it last:

.. code-block:: text

    on a tick, if leading:      send Heartbeat to everyone, every heartbeat_seconds
    on a tick, if following     the leader is silent: ask everyone Canvass
      and the window is over:
    on Canvass:                 have I lost the leader, too? then answer Support
    on Support from a quorum:   prepare a ballot above all I have seen
    on Promise from a quorum:   I lead
    on Nack from so many that
      no quorum is left:        I do not lead; wait, longer each time, and try again
    on Heartbeat of a ballot
      above mine:               I follow it, and begin a new window, drawn at random

* The leader sends a heartbeat every ``heartbeat_seconds``. A follower that has heard none for its liveness window,
  drawn anew each time so that two nodes seldom wake together, or is told that the leader has ended, *canvasses*: it
  asks whether others miss the leader too. Only when a quorum does, itself included, does it become a candidate and run
  phase 1. So a node that cannot win, or that alone has lost the leader, raises no ballot and disturbs nobody (Ongaro's
  thesis, 2014, section 9.6).
* Of two candidates the one with the higher ballot goes on; the other, having promised, waits. One that was refused
  waits for a random time that doubles with every failure, so duels end.
* A leader is one no longer when a higher ballot's heartbeat arrives, when so many refuse that no quorum is left, or
  when it has not heard from a quorum for as long as a follower would wait for it: it must not hold on to followers
  that others could lead. One that a minority refuses canvasses among its followers, and if a quorum still is with it
  runs phase 1 again, above what that minority has promised.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from math import inf
from random import Random

import attrs

from txpaxos.core import practical
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Ballot,
    Canvass,
    Decided,
    Heartbeat,
    HeartbeatAck,
    LeadershipMessage,
    Nack,
    NodeId,
    OneDecreeMessage,
    Prepare,
    Promise,
    Support,
)
from txpaxos.core.ready import (
    DecreeState,
    Envelope,
    LeadershipAcquired,
    LeadershipChanged,
    LeadershipFact,
    LeadershipLost,
    Ready,
)

BACK_OFF_DOUBLINGS_MAX = 5
"""A refused candidate waits up to 2**5 liveness windows."""


@attrs.frozen
class Timing:
    """How long things take, in seconds.

    :ivar heartbeat_seconds: between two heartbeats of a leader.
    :ivar liveness_window_seconds: (shortest, longest) silence after which a follower takes its leader for dead.
    :ivar retry_seconds: until an unanswered message is sent again, the first time; doubles up to ``retry_seconds_max``.
    :ivar notice_seconds: until a leader tells its followers what was chosen last, unless the next value does by then.
    :ivar bytes_per_second: a message with a big value is given the time on top that it takes at this speed.
    """

    heartbeat_seconds: float = 0.1
    liveness_window_seconds: tuple[float, float] = (0.25, 0.5)
    retry_seconds: float = 0.05
    retry_seconds_max: float = 1.0
    notice_seconds: float = 0.002
    bytes_per_second: float = 20e6

    def retry_after(self, attempt: int, rng: Random, value_bytes: int = 0) -> float:
        """Seconds until try number ``attempt`` (from 0) counts as lost. Jitter keeps nodes from retrying in step."""
        seconds: float = min(self.retry_seconds * 2.0**attempt, self.retry_seconds_max)
        return seconds * rng.uniform(0.75, 1.25) + value_bytes / self.bytes_per_second


class Role(enum.Enum):
    """What a node is to the others."""

    FOLLOWER = "follower"
    CANVASSER = "canvasser"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Duty(enum.Enum):
    """What a node must do, now that time has passed."""

    NOTHING = enum.auto()
    CANVASS = enum.auto()
    CAMPAIGN = enum.auto()
    PREPARE_AGAIN = enum.auto()
    HEARTBEAT = enum.auto()


class Leadership:
    """Who leads, as one node sees it, and when that is due to change.

    It sends nothing: its owner feeds it what arrives, asks for its :class:`Duty`, and carries it out.

    :param proposer: the owner's proposer. It counts promises and refusals; this class adds time to what it knows.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param now: the present, in monotonic seconds.
    :param votes: whether this node is a voter. One that is not follows whoever leads, and tries nothing itself.
    :ivar leader: the ballot of the leader believed in; ``LOWEST`` if there is none.
    :ivar sequence: of the heartbeat sent last.
    :ivar canvass: the number of the canvass begun last.
    :ivar suspended: whether this node can do nothing just now, so that others must lead.
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
        self.leader = LOWEST
        self.sequence = 0
        self.canvass = 0
        self.suspended = False
        self._followers = [member for member in members if member != proposer.node]
        self._timing = timing
        self._rng = rng
        self._failures = 0
        self._supporters: set[NodeId] = set()
        # When each follower was last heard by this leader, and when this follower last heard a leader.
        self._heard_at: dict[NodeId, float] = {}
        self._heard_leader_at = -inf
        # The candidate that was given time last.
        self._candidate = LOWEST
        self._told: tuple[Ballot, NodeId | None] = (LOWEST, None)
        # When a follower loses patience with its leader. Alone, there is nobody to wait for.
        self._silent_at = now + self._window() if self._followers else now
        # When whoever is no follower is to say something again, and when a candidate gives up.
        self._act_at = now
        self._give_up_at = now

    @property
    def leading(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.role is Role.LEADER

    @property
    def is_refused(self) -> bool:
        """Whether this node leads, and some refuse what it says: with every heartbeat it canvasses, too."""
        return self.leading and bool(self.proposer.refusals)

    @property
    def leader_node(self) -> NodeId | None:
        """The node believed to lead, if any."""
        return self.leader.node or None

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due."""
        return self._silent_at if self.role is Role.FOLLOWER else self._act_at

    # from the timer

    def tick(self, now: float) -> Duty:
        """What is due at ``now``. The owner carries it out; a campaign it begins with :meth:`start_campaign`."""
        if now < self.wake_at:
            return Duty.NOTHING
        if self.suspended or not self.votes:
            self.leader = LOWEST
            self._silent_at = now + self._window()
            return Duty.NOTHING
        match self.role:
            case Role.LEADER:
                return self._lead_on(now)
            case Role.CANDIDATE if now >= self._give_up_at:
                self.step_down(now)
                return Duty.NOTHING
            case Role.CANDIDATE:
                self._act_at = now + self._timing.heartbeat_seconds
                return Duty.PREPARE_AGAIN
        return self._canvass(now)

    def _lead_on(self, now: float) -> Duty:
        if not self._hears_quorum(now):
            self.step_down(now)
            return Duty.NOTHING
        if self.is_refused:
            self._begin_canvass()
        self._act_at = now + self._timing.heartbeat_seconds
        self.next_sequence()
        return Duty.HEARTBEAT

    def _canvass(self, now: float) -> Duty:
        if not self._followers:
            return Duty.CAMPAIGN
        if self.role is Role.FOLLOWER:
            self.role = Role.CANVASSER
            self.leader = LOWEST
            self._begin_canvass()
        self._act_at = now + self._timing.heartbeat_seconds
        return Duty.CANVASS

    def _begin_canvass(self) -> None:
        self.canvass += 1
        self._supporters = {self.proposer.node}

    def start_campaign(self, now: float) -> None:
        """The owner starts a ballot: follow nobody, and wait for promises."""
        self.role = Role.CANDIDATE
        self.leader = LOWEST
        self._act_at = now + self._timing.heartbeat_seconds
        self._give_up_at = now + self._window()

    # from the network

    def supports(self, canvasser: NodeId, now: float) -> bool:
        """Whether this node backs whoever canvasses: it hears no leader, nor is it one, or that is its leader."""
        if self.leading or self.suspended:
            return False
        silent = now - self._heard_leader_at >= self._timing.liveness_window_seconds[0]
        return silent or self.leader_node == canvasser

    def observe_support(self, sender: NodeId, canvass: int) -> bool:
        """Another node backs this one.

        :returns: whether the owner is to start a campaign now, since a quorum does.
        """
        canvassing = self.role is Role.CANVASSER or self.is_refused
        if not canvassing or canvass != self.canvass:
            return False
        self._supporters.add(sender)
        return len(self._supporters) >= self.proposer.quorum

    def observe_promise(self, now: float) -> bool:
        """The proposer has counted a promise.

        :returns: whether leadership was won just now; the owner then sends a heartbeat without waiting.
        """
        if self.role is not Role.CANDIDATE or not self.proposer.leading:
            return False
        self.role = Role.LEADER
        self.leader = self.proposer.ballot
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
        if ballot.node == self.proposer.node or ballot < self.leader:
            return
        self.proposer.observe(ballot)
        self.leader = ballot
        self._failures = 0
        self._heard_leader_at = now
        self._follow(now + self._window())

    def observe_candidate(self, ballot: Ballot, now: float) -> None:
        """This node promised ``ballot`` to a candidate: give it time, once, and do not race it."""
        self.proposer.observe(ballot)
        if ballot.node != self.proposer.node and ballot > self._candidate and not self.leading:
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
        self.leader = LOWEST
        self._follow(now + self._back_off())

    def suspend(self, now: float) -> None:
        """This node cannot do its part, and knows it: lead no more, and neither canvass nor back anybody, until
        :meth:`resume`."""
        self.suspended = True
        if self.role is not Role.FOLLOWER:
            self.leader = LOWEST
            self._follow(now + self._window())

    def resume(self, now: float) -> None:
        """It can again. Others may have found a leader, which is given time to be heard."""
        self.suspended = False
        self._follow(now + self._window())

    def next_sequence(self) -> int:
        """The number of the next heartbeat."""
        self.sequence += 1
        return self.sequence

    def changes(self) -> tuple[LeadershipFact, ...]:
        """What has changed since this was asked last."""
        led, previous = self._told
        leads, current = self.leader if self.leading else LOWEST, self.leader_node
        if (leads, current) == (led, previous):
            return ()
        self._told = leads, current
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


class Node:
    """One decree among nodes that elect a leader to get it done. The practical node, plus :class:`Leadership`.

    :param node: this node's id.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param now: the present, in monotonic seconds.
    :param saved: what the last Ready with a ``save`` said to save; the default for a node that never ran.
    """

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        rng: Random,
        now: float,
        saved: DecreeState | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.decree = practical.Node(node, members, saved)
        self.leadership = Leadership(self.decree.proposer, members, timing or Timing(), rng, now)

    # from the owner

    def propose(self, value: bytes) -> Ready:
        """Offer a value: proposed at once when this node leads, else when it ever does."""
        return self._ready(self.decree.propose(value))

    # from the timer

    def tick(self, now: float) -> Ready:
        """Do what time asks for. Call it at ``wake_at``; too early does no harm."""
        match self.leadership.tick(now):
            case Duty.CANVASS:
                return self._ready(Ready(), self._canvass())
            case Duty.CAMPAIGN:
                return self._campaign(now)
            case Duty.PREPARE_AGAIN:
                return self._ready(self.decree.resend())
            case Duty.HEARTBEAT:
                canvass = [self._canvass()] if self.leadership.is_refused else []
                return self._ready(self.decree.resend(), self._heartbeat(), *canvass)
        return self._ready(Ready())

    # from the network

    def receive(self, sender: NodeId, message: OneDecreeMessage | LeadershipMessage, now: float) -> Ready:
        """Take one message. What it says of leadership is noted beside what it means for the decree."""
        if sender not in self.decree.members:
            return self._ready(Ready())
        promised = self.decree.acceptor.promised
        match message:
            case Heartbeat() if message.ballot < promised:
                return self._ready(Ready(), Envelope((sender,), Nack(message.ballot, promised)))
            case Heartbeat():
                self.leadership.observe_leader(message.ballot, now)
                ack = HeartbeatAck(message.ballot, self._chosen_through, message.sequence)
                return self._ready(Ready(), Envelope((sender,), ack))
            case HeartbeatAck():
                return self._ready(Ready(), *self._receive_heartbeat_ack(sender, message, now))
            case Canvass():
                backed = self.leadership.supports(sender, now)
                return self._ready(Ready(), *([Envelope((sender,), Support(message.sequence))] if backed else []))
            case Support():
                if self.leadership.observe_support(sender, message.sequence):
                    return self._campaign(now)
                return self._ready(Ready())
            case Nack():
                self.leadership.observe_nack(sender, message, now)
                return self._ready(Ready())
        ready = self.decree.receive(sender, message)
        match message:
            case Prepare() if message.ballot == self.decree.acceptor.promised:
                self.leadership.observe_candidate(message.ballot, now)
            case Accept() if message.ballot == self.decree.acceptor.promised:
                self.leadership.observe_leader(message.ballot, now)
            case Promise() if self.leadership.observe_promise(now):
                return self._ready(ready, self._heartbeat())
        return self._ready(ready)

    def _receive_heartbeat_ack(self, sender: NodeId, message: HeartbeatAck, now: float) -> list[Envelope]:
        if self.leadership.leading and message.ballot == self.leadership.leader:
            self.leadership.observe_follower(sender, now)
        chosen = self.decree.learner.chosen
        return [Envelope((sender,), Decided(chosen))] if chosen is not None and not message.chosen_through else []

    def _campaign(self, now: float) -> Ready:
        self.leadership.start_campaign(now)
        return self._ready(self.decree.prepare())

    @property
    def _others(self) -> tuple[NodeId, ...]:
        return tuple(member for member in self.decree.members if member != self.decree.node)

    def _canvass(self) -> Envelope:
        return Envelope(self._others, Canvass(self.leadership.canvass))

    def _heartbeat(self) -> Envelope:
        return Envelope(self._others, Heartbeat(self.leadership.leader, self._chosen_through, self.leadership.sequence))

    @property
    def _chosen_through(self) -> int:
        """The one decree seen as a log: 1 once it is chosen."""
        return int(self.decree.learner.chosen is not None)

    def _ready(self, ready: Ready, *more: Envelope) -> Ready:
        return attrs.evolve(
            ready,
            send=ready.send + more,
            leadership=self.leadership.changes(),
            wake_at=self.leadership.wake_at,
        )
