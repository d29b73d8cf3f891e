"""The status of a node."""

from __future__ import annotations

import attrs

from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Status
from txpaxos.node.snapshots.coordinator import SnapshotStatus


@attrs.frozen
class NodeStatus:
    """What one node knows of itself and its peers, for operators and tests.

<<<<<<< HEAD
    :ivar waiting: commands that this node has taken and not seen applied.
    :ivar counters: how often what happened, by the names of :class:`~txpaxos.node.counts.Count`.
    :ivar refuses: the peers of which nothing is taken, and why.
    :ivar refused_by: the peers that take nothing of this node, and why, by their own word.
    :ivar heard: how many seconds ago each peer was heard; ``None`` if it never was. Followers need not hear each other.
    :ivar unheard: the peers that this node, as the leader, ought to hear and does not.
    :ivar up_seconds: since it started.
    :ivar disk_hangs_seconds: how long a save has been under way that should have ended long ago; until it has, the node
        leaves its part to the others. ``None`` if there is none.
    :ivar waits_for: the peers from which a node that is no voter yet waits to hear that they vote and know it.
    :ivar application: what it runs, ``module:class``.
=======
    :ivar replica: the state of the consensus algorithm.
    :ivar applied_through: the last slot that this node has applied; 0 if it has applied none.
    :ivar waiting: the number of commands that this node has accepted and not yet seen applied.
    :ivar compaction: the snapshots of this node: the newest one, and those under way.
    :ivar counters: how often each event happened, by the names of :class:`~txpaxos.node.counts.Count`.
    :ivar refuses: the peers whose messages this node does not accept, each with the reason.
    :ivar refused_by: the peers that do not accept this node's messages, each with the reason that it gave.
    :ivar heard: for each peer, how many seconds ago it was last heard; ``None`` if it never was. Followers need not
        hear each other.
    :ivar unheard: the peers from which this node, as the leader, expects messages and gets none. Empty on followers.
    :ivar up_seconds: how long ago the node started.
    :ivar disk_hangs_seconds: how long the current save has been under way, if it takes too long; ``None`` otherwise.
        Until it has finished the node neither leads nor votes.
    :ivar waits_for: while this node is no voter, the peers that have not yet confirmed that they vote and know it.
>>>>>>> 02f8070 (Plain English in the node: founding, admission, known peers, peer addresses, peers, streams, refusals)
    """

    replica: Status
    applied_through: Slot
    waiting: int
    compaction: SnapshotStatus
    counters: dict[str, int]
    refuses: dict[NodeId, str] = attrs.field(factory=dict)
    refused_by: dict[NodeId, str] = attrs.field(factory=dict)
    heard: dict[NodeId, float | None] = attrs.field(factory=dict)
    unheard: list[NodeId] = attrs.field(factory=list)
    up_seconds: float = 0.0
    disk_hangs_seconds: float | None = None
    waits_for: list[NodeId] = attrs.field(factory=list)
    application: str = ""
