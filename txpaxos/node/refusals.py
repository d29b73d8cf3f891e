"""Which senders a node refuses, and why.

The log gets one line for each sender and reason, not one for each message. A node whose messages all its peers refuse
cannot find that out by itself. So its peers tell it, and show it in their own status.
"""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import Logger

from txpaxos.core.messages import NodeId

PEER_LINES_MAX = 16
"""Lines of the log about one peer. A reason that differs in every message would otherwise fill the disk."""

UNKNOWN_SENDER_LINES_MAX = 16
"""Lines of the log about all senders that are no peers, together."""

REASON_SECONDS = 10.0
"""A reason is dropped from the status when no message of the peer was refused for this long."""


class Refusals:
    """The senders that one node refuses, and the lines that it has logged about them.

    :param peers: the ids of the node's peers.
    :ivar reasons: for each peer whose messages are refused now, the reason in a few words.
    :ivar refused_by: for each peer that refuses this node's messages, the reason that the peer gave.
    """

    log = Logger()

    def __init__(self, peers: Collection[NodeId]) -> None:
        self.reasons: dict[NodeId, str] = {}
        self.refused_by: dict[NodeId, str] = {}
        self._refused: set[NodeId] = set()
        self._refused_at: dict[NodeId, float] = {}
        self._logged: dict[NodeId, set[str]] = {peer: set() for peer in peers}
        self._unknown_senders: set[str] = set()

    def add_peer(self, peer: NodeId) -> None:
        """Leave room for lines about one more peer."""
        self._logged.setdefault(peer, set())

    def remove_peer(self, peer: NodeId) -> None:
        """Drop all that is noted of a node that is no peer any more."""
        for noted in (self._logged, self.reasons, self.refused_by, self._refused_at):
            noted.pop(peer, None)
        self._refused.discard(peer)

    def log_once(self, who: str, kind: str, line: str) -> None:
        """Log ``line``, unless a line of this ``kind`` about ``who`` was logged before, or too many lines were.

        :param who: the id of a peer, or the address of another sender.
        :param kind: what the line says, without the parts that differ from message to message.
        """
        reason = kind
        logged, most = self._logged.get(who), PEER_LINES_MAX
        if logged is None:
            logged, kind, most = self._unknown_senders, f"{who} {kind}", UNKNOWN_SENDER_LINES_MAX
        if kind not in logged and len(logged) < most:
            logged.add(kind)
            place = "peer" if who in self._logged else "sender"
            self.log.warn("{line}", line=line, **{place: who}, reason=reason, event="peer_refused")

    def refuse(self, peer: NodeId, reason: str, line: str | None = None) -> None:
        """Note that messages of ``peer`` are refused for ``reason``. Logs ``line`` once, if it is given."""
        self.reasons[peer] = reason
        self._refused.add(peer)
        if line is not None:
            self.log_once(peer, reason, line)

    def clear(self, peer: NodeId) -> None:
        """Note that messages of ``peer`` are accepted."""
        self.reasons.pop(peer, None)

    def tick(self, now: float) -> None:
        """Drop the reasons that are older than :data:`REASON_SECONDS`. ``now`` is in monotonic seconds."""
        self._refused_at.update(dict.fromkeys(self._refused, now))
        self._refused.clear()
        for peer in [peer for peer in self.reasons if now - self._refused_at.get(peer, now) > REASON_SECONDS]:
            del self.reasons[peer]

    def status(self) -> dict[str, dict[NodeId, str]]:
        """The refused peers and the refusing peers, each with its reason, as fields of the node's status."""
        return {"refuses": dict(self.reasons), "refused_by": dict(self.refused_by)}
