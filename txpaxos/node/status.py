"""How one node is."""

from __future__ import annotations

import attrs

from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Status
from txpaxos.node.snapshots.coordinator import SnapshotStatus


@attrs.frozen
class NodeStatus:
    """One node's view, for people and for tests.

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
