"""What a node does not take from others, and why: one line of the log for each of them and each kind, not one for each
message. A node that nobody hears looks well to itself, so its peers say so, to it and in their own status."""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import Logger

from txpaxos.core.messages import NodeId

PEER_LINES_MAX = 16
"""Lines about one peer. What differs in every message would else fill the disk."""

UNKNOWN_SENDER_LINES_MAX = 16
"""Lines about anybody who is no peer, together."""

REASON_SECONDS = 10.0
"""A peer that has said nothing for so long, which was not taken, is one that is not heard for no other reason than that
it says nothing."""


class Refusals:
    """The lines that one node has written about others.

    :param peers: its peers.
    :ivar reasons: why a peer is not heard now, in a few words.
    :ivar refused_by: why a peer does not hear this node, by its own word.
    """

    log = Logger()

    def __init__(self, peers: Collection[NodeId]) -> None:
        self.reasons: dict[NodeId, str] = {}
        self.refused_by: dict[NodeId, str] = {}
        self._refused: set[NodeId] = set()
        self._refused_at: dict[NodeId, float] = {}
        self._logged: dict[NodeId, set[str]] = {peer: set() for peer in peers}
        self._unknown_senders: set[str] = set()

    def log_once(self, who: str, kind: str, line: str) -> None:
        """Write ``line``, unless one of this kind was written about ``who`` before, or too many were.

        :param who: a peer, or what names anybody else.
        """
        logged, most = self._logged.get(who), PEER_LINES_MAX
        if logged is None:
            logged, kind, most = self._unknown_senders, f"{who} {kind}", UNKNOWN_SENDER_LINES_MAX
        if kind not in logged and len(logged) < most:
            logged.add(kind)
            self.log.warn("{line}", line=line)

    def refuse(self, peer: NodeId, reason: str, line: str | None = None) -> None:
        """``peer`` is not heard, for ``reason``. Without a ``line``, the log has been logged."""
        self.reasons[peer] = reason
        self._refused.add(peer)
        if line is not None:
            self.log_once(peer, reason, line)

    def clear(self, peer: NodeId) -> None:
        """``peer`` is heard."""
        self.reasons.pop(peer, None)

    def tick(self, now: float) -> None:
        """Forget reasons that have not come up for some time."""
        self._refused_at.update(dict.fromkeys(self._refused, now))
        self._refused.clear()
        for peer in [peer for peer in self.reasons if now - self._refused_at.get(peer, now) > REASON_SECONDS]:
            del self.reasons[peer]

    def status(self) -> dict[str, dict[NodeId, str]]:
        """Who is not heard here, and who does not hear this node, and why."""
        return {"refuses": dict(self.reasons), "refused_by": dict(self.refused_by)}
