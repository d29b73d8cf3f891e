"""What the checker knows of one node."""

from __future__ import annotations

import attrs

from txpaxos.core.messages import LOWEST, Ballot, NodeId, Slot
from txpaxos.core.ready import Record, Voter


@attrs.define
class ObservedNode:
    """What one node is known to have on disk, and what its present process has done.

    :ivar lost_vote: whether the node was a voter when its folder was lost. Then it must never vote again.
    :ivar lost_promise: the highest ballot that the node had promised then. The promise holds, since the node never
        votes again.
    :ivar lost_reached: through which slot the node had all that was chosen on its disk then.
    :ivar start_number: how often the node has started.
    :ivar destroyed: whether the node is gone for ever, with its disk.
    """

    log_records: list[Record] = attrs.field(factory=list)
    promised: Ballot = LOWEST
    votes: dict[Slot, tuple[Ballot, bytes]] = attrs.field(factory=dict)
    learned: dict[Slot, bytes] = attrs.field(factory=dict)
    met: dict[NodeId, int] = attrs.field(factory=dict)
    discarded: bool = False
    voter: Voter | None = None
    lost_vote: bool = False
    lost_promise: Ballot = LOWEST
    lost_reached: Slot = 0
    start_number: int = 0
    destroyed: bool = False
    is_leader: bool = False
    handed_out: Slot = 0
    chosen_through: Slot = 0
    applied_commands: int = 0

    @property
    def effective_promise(self) -> Ballot:
        """The node votes for nothing below this ballot, even if it has lost its folder since it promised that."""
        return max(self.promised, self.lost_promise)
