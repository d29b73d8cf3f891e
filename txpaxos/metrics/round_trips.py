"""How long the peers of a leader take to answer its heartbeats."""

from __future__ import annotations

from collections.abc import Iterable

from txpaxos.core.messages import NodeId
from txpaxos.metrics.histogram import Histogram


class RoundTrips:
    """The times from a heartbeat until its answer, of each peer.

    One heartbeat of each peer is waited for at a time. The next one is timed when an answer has come. So a peer that is
    slower than heartbeats follow each other is timed, too, and there is nothing to keep for the many that linearizable
    reads send.

    :ivar seconds: these times, by peer.
    """

    def __init__(self) -> None:
        self.seconds: dict[NodeId, Histogram] = {}
        self._awaited: dict[NodeId, tuple[int, float]] = {}

    def sent(self, to: Iterable[NodeId], sequence: int, now: float) -> None:
        """The heartbeat with the number ``sequence`` is about to be sent ``to`` these peers."""
        heartbeat = sequence, now
        for peer in to:
            self._awaited.setdefault(peer, heartbeat)

    def answered(self, peer: NodeId, sequence: int, now: float) -> None:
        """``peer`` has answered the heartbeat with that number.

        An answer to a later one than that which is waited for shows that this one, or its answer, was lost."""
        awaited = self._awaited.get(peer)
        if awaited is None or sequence < awaited[0]:
            return
        del self._awaited[peer]
        if sequence == awaited[0]:
            self.seconds.setdefault(peer, Histogram()).observe(now - awaited[1])
