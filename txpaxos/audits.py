"""Do all nodes make the same of the same log? Whoever takes a snapshot tells the others its hash.

An application that looks at a clock, or at the order of a set, comes to another state on each node, and nobody notices
until a leader dies. Here it is noticed at the next snapshot: the node that differs from a majority stops.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import PaxosError
from txpaxos.wire.peer_messages import Audit

KEPT = 4
"""So many of the newest slots at which somebody took a snapshot are remembered."""


class Diverged(PaxosError):
    """This node has made something else of the log than the majority. Its ``apply`` is not deterministic, or its memory
    or disk is at fault. It stops, so that nobody is told what it believes.

    :ivar finding: what differs, at which slot, and who is against whom.
    """

    def __init__(self, finding: str, node: NodeId) -> None:
        super().__init__(f"{finding}; node {node} stops, see docs/operations.rst on diverged nodes")
        self.finding = finding


class Audits:
    """What the nodes say of their states at the slots of snapshots.

    :param quorum: how many nodes are a majority.
    :param tell: sends a message to some nodes.
    :param diverged: called once, with a :class:`Diverged`, if this node is the one that is wrong.
    """

    log = Logger()

    def __init__(
        self,
        node: NodeId,
        others: tuple[NodeId, ...],
        quorum: int,
        tell: Callable[[tuple[NodeId, ...], Audit], None],
        diverged: Callable[[Diverged], None],
    ) -> None:
        self._node = node
        self._others = others
        self._quorum = quorum
        self._tell = tell
        self._diverged = diverged
        self._heard: dict[Slot, dict[NodeId, Audit]] = {}

    def add(self, audit: Audit) -> None:
        """This node has taken a snapshot."""
        self._note(self._node, audit)
        self._tell(self._others, audit)

    def tell_again(self, asker: NodeId, slot: Slot) -> None:
        """``asker`` wants to hear what this node says of its state at ``slot``, if it does."""
        own = self._heard.get(slot, {}).get(self._node)
        if own is not None:
            self._tell((asker,), own)

    def receive(self, sender: NodeId, audit: Audit) -> None:
        """Another node has."""
        own = self._heard.get(audit.slot, {}).get(self._node)
        if own is not None and sender not in self._heard[audit.slot]:
            self._tell((sender,), own)  # What was told it before may have been lost.
        self._note(sender, audit)

    def _note(self, node: NodeId, audit: Audit) -> None:
        heard = self._heard.setdefault(audit.slot, {})
        if heard.get(node) == audit:
            return
        heard[node] = audit
        for slot in sorted(self._heard)[:-KEPT]:
            del self._heard[slot]
        own = heard.get(self._node)
        if own is not None and len(set(heard.values())) > 1:
            self._judge(own, heard)

    def _judge(self, own: Audit, heard: dict[NodeId, Audit]) -> None:
        """Some differ at this slot. Whoever has no majority is wrong; if nobody can have one any more, nobody knows."""
        camps = [[node for node, audit in heard.items() if audit == kind] for kind in set(heard.values())]
        what = "log" if len({audit.log_hash for audit in heard.values()}) > 1 else "state"
        told = " against ".join(sorted(", ".join(sorted(camp)) for camp in camps))
        line = f"the {what} differs at slot {own.slot}: {told}"
        silent = 1 + len(self._others) - len(heard)
        largest = max(camps, key=len)
        if len(largest) >= self._quorum and heard[largest[0]] == own:
            self.log.critical("{line}; this node, {node}, is with the majority", line=line, node=self._node)
        elif len(largest) + silent < self._quorum or len(largest) >= self._quorum:
            self._diverged(Diverged(line, self._node))
