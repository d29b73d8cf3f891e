"""How one node is."""

from __future__ import annotations

import attrs

from txpaxos.compaction import CompactionStatus
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Status


@attrs.frozen
class NodeStatus:
    """One node's view, for people and for tests.

    :ivar waiting: commands that this node has taken and not seen applied.
    :ivar counters: how often what was dropped, and why.
    """

    replica: Status
    applied_through: Slot
    waiting: int
    compaction: CompactionStatus
    counters: dict[str, int]
