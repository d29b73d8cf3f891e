"""Members that were removed: what they are told, and what a node does that is one of them itself.

A removed member may be needed until the change without it is complete. Then it is told, over the stream that it has
opened itself, that it is out. One that was away when it was removed asks, or is told when it sends something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from random import Random

from txpaxos.core.messages import Fetch, NodeId, Slot
from txpaxos.core.replica import Replica
from txpaxos.node.member_changes import MemberChanges
from txpaxos.node.members import Members
from txpaxos.wire.peer_messages import PeerMessage, Removed

REMOVED_SECONDS = 0.5
"""The shortest time between two messages to a former member that it is out, and between two questions of a node that
may be one."""


class FormerMembers:
    """What one node and the former members of its cluster tell each other.

    :param replica: returns this node's part of the log.
    :param ahead_slots: how far above the slots that it knows to be chosen a voter votes, at the most.
    :param send: sends a message to some nodes.
    :param wake: called with the time, in monotonic seconds, at which :meth:`tick` is due.
    """

    def __init__(
        self,
        members: Members,
        changes: MemberChanges,
        replica: Callable[[], Replica],
        ahead_slots: int,
        rng: Random,
        send: Callable[[Iterable[NodeId], PeerMessage], None],
        wake: Callable[[float], None],
    ) -> None:
        self._members = members
        self._changes = changes
        self._replica = replica
        self._ahead_slots = ahead_slots
        self._rng = rng
        self._send = send
        self._wake = wake
        self._told_at: dict[NodeId, float] = {}
        self._asked_at = -inf

    def turns_away(self, sender: NodeId, now: float) -> bool:
        """Whether ``sender`` was removed, and this node needs it no more, so that its messages do not count. It is told
        so, now and then, when no other node needs it either: the change without it is complete."""
        if sender not in self._members.entry.retired or self._replica().membership.is_changing:
            return False
        is_complete = self._members.has_left(sender) or self._is_newest_change_complete()
        if is_complete and now >= self._told_at.get(sender, -inf) + REMOVED_SECONDS:
            self._told_at[sender] = now
            self._send((sender,), Removed(self._members.slot))
        return True

    def tell(self, slot: Slot) -> None:
        """Tell those who left with the change that was chosen at ``slot``: it is complete."""
        self._send(self._members.former, Removed(slot))

    def tick(self, now: float) -> None:
        """Ask a member now and then, if the log that this node has says that it is a member no more. The answer says
        whether it is needed any longer."""
        replica = self._replica()
        if not self._members.slot or self._members.own is not None or replica.membership.is_changing:
            return
        if now >= self._asked_at + REMOVED_SECONDS and self._members.others:
            self._asked_at = now
            self._send((self._rng.choice(self._members.others),), Fetch(replica.log.chosen_through + 1))
            self._wake(now + REMOVED_SECONDS)

    def believes(self, removed: Removed) -> bool:
        """Whether this node believes a member that says it was removed. It does not, if it knows a later entry that
        names it."""
        return self._members.own is None or self._members.slot < removed.slot

    def _is_newest_change_complete(self) -> bool:
        """Whether the newest change of members is complete. The leader knows it by what the voters say. Each node knows
        it by slots that were chosen so far above the change that a majority of its voters had learned all before it:
        no voter votes further ahead."""
        replica = self._replica()
        reached = replica.membership.governs_from(replica.membership.newest) - 1
        return replica.log.chosen_through >= reached + self._ahead_slots or self._changes.is_complete
