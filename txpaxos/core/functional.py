"""Paxos that keeps itself going: heartbeats, detection of a dead leader, acquiring and losing leadership.

Read after :mod:`~txpaxos.core.practical`. Paxos is safe without a leader, but only with one does it make progress for
certain (*Paxos Made Simple*, section 2.4). :class:`Election` finds one: it is the one piece that the single decree
(:class:`Node`, here) and the log (:mod:`txpaxos.core.replica`) share.

The idea in a few lines, before what makes it last:

.. code-block:: text

    on a tick, if leading:      send Heartbeat to everyone, every heartbeat_seconds
    on a tick, if following     the leader is silent: ask everyone PreVote
      and the window is over:
    on PreVote:                 have I lost the leader, too? then answer PreVoteGranted
    on PreVoteGranted from a quorum:   prepare a ballot above all I have seen
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

from collections.abc import Sequence
from random import Random

import attrs

from txpaxos.core import practical
from txpaxos.core.config import Timing
from txpaxos.core.election import Election, TimerAction
from txpaxos.core.messages import (
    Accept,
    Decided,
    Heartbeat,
    HeartbeatAck,
    LeadershipMessage,
    Nack,
    NodeId,
    OneDecreeMessage,
    Prepare,
    PreVote,
    PreVoteGranted,
    Promise,
)
from txpaxos.core.ready import (
    DecreeState,
    Envelope,
    Ready,
)


class Node:
    """One decree among nodes that elect a leader to get it done. The practical node, plus :class:`Election`.

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
        self.election = Election(self.decree.proposer, members, timing or Timing(), rng, now)

    # from the owner

    def propose(self, value: bytes) -> Ready:
        """Offer a value: proposed at once when this node leads, else when it ever does."""
        return self._ready(self.decree.propose(value))

    # from the timer

    def tick(self, now: float) -> Ready:
        """Do what time asks for. Call it at ``wake_at``; too early does no harm."""
        match self.election.tick(now):
            case TimerAction.REQUEST_PRE_VOTES:
                return self._ready(Ready(), self._pre_vote())
            case TimerAction.START_CAMPAIGN:
                return self._campaign(now)
            case TimerAction.RESEND_PREPARE:
                return self._ready(self.decree.resend())
            case TimerAction.SEND_HEARTBEAT:
                pre_vote = [self._pre_vote()] if self.election.is_refused else []
                return self._ready(self.decree.resend(), self._heartbeat(), *pre_vote)
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
                self.election.observe_leader(message.ballot, now)
                ack = HeartbeatAck(message.ballot, self._chosen_through, message.sequence)
                return self._ready(Ready(), Envelope((sender,), ack))
            case HeartbeatAck():
                return self._ready(Ready(), *self._receive_heartbeat_ack(sender, message, now))
            case PreVote():
                backed = self.election.grants_pre_vote(sender, now)
                return self._ready(
                    Ready(), *([Envelope((sender,), PreVoteGranted(message.sequence))] if backed else [])
                )
            case PreVoteGranted():
                if self.election.observe_pre_vote_granted(sender, message.sequence):
                    return self._campaign(now)
                return self._ready(Ready())
            case Nack():
                self.election.observe_nack(sender, message, now)
                return self._ready(Ready())
        ready = self.decree.receive(sender, message)
        match message:
            case Prepare() if message.ballot == self.decree.acceptor.promised:
                self.election.observe_candidate(message.ballot, now)
            case Accept() if message.ballot == self.decree.acceptor.promised:
                self.election.observe_leader(message.ballot, now)
            case Promise() if self.election.observe_promise(now):
                return self._ready(ready, self._heartbeat())
        return self._ready(ready)

    def _receive_heartbeat_ack(self, sender: NodeId, message: HeartbeatAck, now: float) -> list[Envelope]:
        if self.election.is_leader and message.ballot == self.election.leader_ballot:
            self.election.observe_follower(sender, now)
        chosen = self.decree.learner.chosen
        return [Envelope((sender,), Decided(chosen))] if chosen is not None and not message.chosen_through else []

    def _campaign(self, now: float) -> Ready:
        self.election.start_campaign(now)
        return self._ready(self.decree.prepare())

    @property
    def _others(self) -> tuple[NodeId, ...]:
        return tuple(member for member in self.decree.members if member != self.decree.node)

    def _pre_vote(self) -> Envelope:
        return Envelope(self._others, PreVote(self.election.pre_vote_number))

    def _heartbeat(self) -> Envelope:
        return Envelope(
            self._others, Heartbeat(self.election.leader_ballot, self._chosen_through, self.election.sequence)
        )

    @property
    def _chosen_through(self) -> int:
        """The one decree seen as a log: 1 once it is chosen."""
        return int(self.decree.learner.chosen is not None)

    def _ready(self, ready: Ready, *more: Envelope) -> Ready:
        return attrs.evolve(
            ready,
            send=ready.send + more,
            leadership=self.election.changes(),
            wake_at=self.election.wake_at,
        )
