"""Paxos for one decree that keeps itself going: the practical node, plus an election of who gets it done.

Read after :mod:`~txpaxos.core.practical` and :mod:`~txpaxos.core.election`. No node of a cluster runs this: it is the
lesson, the same election as in the log (:mod:`~txpaxos.core.replica`) on the smallest Paxos there is. In a few lines:

.. code-block:: text

    on a tick, as the leader:       send Heartbeat to all others, every heartbeat_seconds
    on a tick, as a follower, when
      the liveness window is over:  ask all others for a PreVote
    on PreVote:                     no leader is heard here, either? answer PreVoteGranted
    on PreVoteGranted by a quorum:  prepare a ballot above all that were seen
    on Promise by a quorum:         this node leads; it asks for votes, if it has a value
    on Nack by so many that
      no quorum is left:            this node leads no more; it waits, longer each time, and tries again
    on Heartbeat of a ballot not
      below the promised one:       follow it, and begin a new window, drawn at random
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from txpaxos.core import practical
from txpaxos.core.config import Timing
from txpaxos.core.election import Election, TimerAction
from txpaxos.core.membership import Membership
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
from txpaxos.core.ready import DecreeState, Envelope, Ready


class Node:
    """One decree among nodes that elect a leader to get it done.

    :param node: this node's id.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param now: the current time, in monotonic seconds.
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
        self.election: Election[Promise] = Election(
            node,
            Membership.fixed(node, members),
            timing or Timing(),
            rng,
            now,
            highest_seen=self.decree.acceptor.promised,
        )
        self._others = tuple(member for member in members if member != node)

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
                return self._start_campaign(now)
            case TimerAction.RESEND_PREPARE:
                return self._ready(self.decree.resend())
            case TimerAction.SEND_HEARTBEAT:
                pre_vote = [self._pre_vote()] if self.election.is_refused else []
                return self._ready(self.decree.resend(), self._heartbeat(), *pre_vote)
        return self._ready(Ready())

    # from the network

    def receive(self, sender: NodeId, message: OneDecreeMessage | LeadershipMessage, now: float) -> Ready:
        """Take one message. The election observes what it says about leaders, the decree all the rest."""
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
                is_granted = self.election.grants_pre_vote(sender, now)
                answer = [Envelope((sender,), PreVoteGranted(message.sequence))] if is_granted else []
                return self._ready(Ready(), *answer)
            case PreVoteGranted():
                if self.election.observe_pre_vote_granted(sender, message.sequence):
                    return self._start_campaign(now)
                return self._ready(Ready())
        ready = self.decree.receive(sender, message)
        match message:
            case Prepare() if message.ballot == self.decree.acceptor.promised:
                self.election.observe_candidate(message.ballot, now)
            case Accept() if message.ballot == self.decree.acceptor.promised:
                self.election.observe_leader(message.ballot, now)
            case Promise() if self.election.observe_promise(sender, message, now):
                return self._ready(ready, self._heartbeat())
            case Nack():
                self.election.observe_nack(sender, message, now)
        return self._ready(ready)

    def _receive_heartbeat_ack(self, sender: NodeId, message: HeartbeatAck, now: float) -> list[Envelope]:
        if self.election.is_leader and message.ballot == self.election.leader_ballot:
            self.election.observe_follower(sender, now)
        chosen = self.decree.learner.chosen
        return [Envelope((sender,), Decided(chosen))] if chosen is not None and not message.chosen_through else []

    def _start_campaign(self, now: float) -> Ready:
        """Prepare a ballot above all that were seen. A node that knows the outcome has nothing left to prepare."""
        if self.decree.learner.chosen is not None:
            self.election.step_down(now)
            return self._ready(Ready())
        self.decree.proposer.observe(self.election.highest_seen)
        ready = self.decree.prepare()
        self.election.become_candidate(self.decree.proposer.ballot, now)
        return self._ready(ready)

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
        """Close every call. A ballot that the election has given up is given up for the decree, too."""
        if self.election.candidacy is None:
            self.decree.proposer.give_up()
        return attrs.evolve(
            ready,
            send=ready.send + more,
            leadership=self.election.changes(),
            wake_at=self.election.wake_at,
        )
