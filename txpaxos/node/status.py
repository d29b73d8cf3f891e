"""The status of a node."""

from __future__ import annotations

import attrs

from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Status
from txpaxos.node.snapshots.coordinator import SnapshotStatus


@attrs.frozen
class NodeStatus:
    """What one node knows of itself and its peers, for operators and tests.

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
    :ivar keys_expire_in_seconds: how long the certificate of this node is still valid; ``None`` if keys are off.
    :ivar failure_tolerance: on the leader, how many more voters may fail, whichever they are, and the service goes on,
        by what it has heard in the last liveness window: 0 if the next loss stops it, -1 if it has stopped. ``None`` on
        other nodes, which do not know.
    :ivar application: the application that the node runs, as ``module:class``.
    :ivar clock_offsets_seconds: on the leader, by how much the clock of each other voter is ahead of its own.
    :ivar clock_jump_refused_seconds: on the leader, how much later than it should be the clocks say it is, while that
        is not accepted; 0 otherwise.
    :ivar journal_bytes: the size of the journal; 0 if the node has no disk.
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
    keys_expire_in_seconds: float | None = None
    failure_tolerance: int | None = None
    application: str = ""
    clock_offsets_seconds: dict[NodeId, float] = attrs.field(factory=dict)
    clock_jump_refused_seconds: float = 0.0
    journal_bytes: int = 0
