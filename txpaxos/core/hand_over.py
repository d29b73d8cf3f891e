"""The hand-over of the lead from a leader to a follower that it picks.

.. code-block:: text

    leader                                          target
    proposes nothing more, until its open slots
    are chosen
    TakeOver(ballot, chosen_through)          ->    asks for what it misses up to chosen_through
    what was asked for, TakeOver again        ->    campaigns at once, without pre-votes
    promises, follows                         <-    leads
    the hand-over is done                     <-    has an entry of its own ballot chosen

It is easier than in Raft (Ongaro's thesis, 2014, section 3.10): any node may win, since promises tell what a candidate
misses, and a node answers PrepareLog although it hears a leader. Only the pre-votes have to be skipped. Safety does not
depend on any of this: a hand-over is an election that the leader asks for.

* **Nothing is lost.** Commands wait at the old leader, which forwards them to the new one.
* **A hand-over ends.** After the longest liveness window the old leader leads on, unless the target leads by then. It
  has a no-op chosen then. So a TakeOver that is still under way tells less than its target knows, and is dropped.
* **The old leader does not win back.** It asks for no pre-votes for two of the longest liveness windows.
* **A node that is about to stop** says so in each HeartbeatAck. No leader hands over to it, and it does not campaign.
"""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from txpaxos.core.config import Limits, Timing
from txpaxos.core.election import Election, Role
from txpaxos.core.leader import LeaderState
from txpaxos.core.log import Log
from txpaxos.core.membership import Membership
from txpaxos.core.messages import NO_OP, Ballot, NodeId, Slot, TakeOver
from txpaxos.core.ready import HandOverEnded, Work

QUIET_WINDOWS = 2
"""For how many of the longest liveness windows, from the begin of a hand-over on, the old leader does not campaign."""


@attrs.define
class HandOver:
    """A hand-over under way, at the old leader.

    :ivar ballot: the ballot that the old leader leads with.
    :ivar target: the node that is to lead next.
    :ivar give_up_at: when the old leader leads on.
    :ivar told_through: the last slot that was chosen when the target was told to take over; ``None`` before that.
    """

    ballot: Ballot
    target: NodeId
    give_up_at: float
    told_through: Slot | None = None


class HandOvers:
    """What one node knows about hand-overs: its own, as a leader, and what its peers say.

    :param node: this node's id.
    :param membership: who the members are. It may change.
    :ivar current: the hand-over that this node began as the leader and that has not ended. While there is one, this
        node proposes nothing.
    :ivar is_leaving: whether this node is about to stop.
    :ivar leaving: the peers that are about to stop.
    """

    def __init__(
        self,
        node: NodeId,
        membership: Membership,
        election: Election[Any],
        log: Log,
        timing: Timing,
        limits: Limits,
    ) -> None:
        self.current: HandOver | None = None
        self.is_leaving = False
        self.leaving: set[NodeId] = set()
        self._node = node
        self._membership = membership
        self._election = election
        self._log = log
        self._timing = timing
        self._limits = limits

    # the old leader

    @property
    def wake_at(self) -> float:
        """When :meth:`tick` is next due; infinite for never."""
        return inf if self.current is None else self.current.give_up_at

    def default_target(self, leader: LeaderState, now: float) -> NodeId | None:
        """The best target, ``None`` if no node can be one: the node that has learned most of the log, then the one with
        the highest priority, then the first by name."""
        newest, known = self._membership.newest, leader.progress.chosen_through
        able = [node for node in sorted(newest.voters) if not self.objection(leader, node, now)]
        return max(able, key=lambda node: (known.get(node, -1), newest.priority(node)), default=None)

    def objection(self, leader: LeaderState, target: NodeId, now: float) -> str:
        """Why ``target`` cannot take over now, in a few words whose subject is the target; empty if it can. A leader
        that has just been elected does not know yet how far its followers are, and will wait for their word."""
        if target == self._node or target not in self._membership.newest.voter_set:
            return "is no other voter of this cluster"
        if not self._membership.newest.priority(target):
            return "has priority 0, so it never leads"
        if target in self.leaving:
            return "is about to stop"
        if not self._election.heard_since(target, now - self._timing.liveness_window_seconds[0]):
            return "was not heard lately"
        if leader.progress.lag_slots.get(target, 0) > self._limits.ahead_slots:
            return "is too far behind"
        return ""

    def begin(self, leader: LeaderState, target: NodeId, now: float) -> None:
        """Begin to hand over to ``target``, to which there is no objection. :meth:`follow` tells the target."""
        longest = self._timing.liveness_window_seconds[1]
        self.current = HandOver(leader.ballot, target, now + longest)
        self._stay_quiet(now + QUIET_WINDOWS * longest)

    def follow(self, work: Work, current: HandOver, leader: LeaderState | None) -> None:
        """Something may have changed during the hand-over ``current``. Tell the target when all open slots are chosen,
        and notice when the hand-over is over.

        :param leader: the state of this node's lead; ``None`` if it leads no longer.
        """
        if leader is not None:
            is_known = current.target in leader.progress.chosen_through
            if current.told_through is None and is_known and not leader.window.slots:
                current.told_through = self._log.chosen_through
                leader.send_heartbeat(work)
                self._tell(work, current, current.told_through)
        elif self._election.leader_node == current.target:
            if self._log.chosen_through > (current.told_through or 0):
                self._end(work, current, "")
        elif self._election.leader_node is not None:
            self._end(work, current, f"{self._election.leader_node} leads now")

    def tick(self, work: Work, current: HandOver, leader: LeaderState | None, beats: bool, now: float) -> None:
        """Tell the target of the hand-over ``current`` again, or give up, if it is time.

        :param beats: whether this node sends a heartbeat now.
        """
        if now >= current.give_up_at:
            self._abort(work, current, leader, f"{current.target} did not take over in time", now)
        elif leader is not None and beats and current.told_through is not None:
            self._tell(work, current, current.told_through)

    def asked(self, work: Work, sender: NodeId) -> None:
        """``sender`` has asked for chosen values, which are sent before. If it is the target, tell it again: it missed
        those values, or did not believe the last TakeOver, and has opened a stream since on which it believes one."""
        current = self.current
        if current is not None and current.target == sender and current.told_through is not None:
            self._tell(work, current, current.told_through)

    def _abort(self, work: Work, current: HandOver, leader: LeaderState | None, reason: str, now: float) -> None:
        """Give up the hand-over ``current``. If this node still leads, it leads on."""
        if leader is not None:
            self._stay_quiet(-inf)
            if current.told_through is not None and leader.has_room:
                leader.propose(work, NO_OP, now)
        self._end(work, current, reason)

    def leave(self) -> None:
        """This node is about to stop: it does not campaign any more, and obeys no TakeOver."""
        self.is_leaving = True
        self._stay_quiet(inf)

    def _stay_quiet(self, until: float) -> None:
        self._election.stay_quiet(inf if self.is_leaving else until)

    def _tell(self, work: Work, current: HandOver, told_through: Slot) -> None:
        work.send_to(current.target, TakeOver(current.ballot, told_through))

    def _end(self, work: Work, current: HandOver, reason: str) -> None:
        work.answers.append(HandOverEnded(current.target, reason))
        self.current = None

    # what peers say

    def observe_end(self, work: Work, leader: LeaderState | None, node: NodeId, now: float) -> None:
        """There is a sign that ``node`` does not run any more."""
        current = self.current
        if current is not None and current.target == node and leader is not None:
            self._abort(work, current, leader, f"{node} does not run any more", now)

    def observe_ack(self, work: Work, leader: LeaderState, sender: NodeId, is_leaving: bool, now: float) -> None:
        """A follower has answered a heartbeat. It says whether it is about to stop."""
        if is_leaving:
            self.leaving.add(sender)
            current = self.current
            if current is not None and current.target == sender:
                self._abort(work, current, leader, f"{sender} is about to stop", now)
        else:
            self.leaving.discard(sender)

    # the target

    def may_obey(self, message: TakeOver) -> bool:
        """Whether this node may take over, perhaps after it has learned what it misses. A TakeOver of another ballot
        than that of its leader is too late, and one that tells less than this node knows is so, too: during a hand-over
        nothing is proposed."""
        election = self._election
        return (
            election.role is Role.FOLLOWER
            and message.ballot == election.leader_ballot
            and message.ballot >= self._log.promised
            and message.chosen_through >= self._log.chosen_through
            and election.is_voter
            and not election.is_suspended
            and not self._log.lost_through
        )
