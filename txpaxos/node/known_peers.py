"""Which data folder each peer speaks from. A peer that comes with another has lost its memory, and is not heard."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Count, Counts


class KnownPeers:
    """What one node knows of its peers.

    A peer is met once it has shown that it receives what is sent to its address: a message that was forged must not
    settle for ever what the incarnation of a peer is.

    Nothing that a peer says counts before it is on disk which incarnation it had: else that peer could lose its memory
    after it has voted, and come back as if nothing had been.

    :param save: saves what must be remembered of a peer; :meth:`peer_saved` is to be told then.
    """

    log = Logger()

    def __init__(self, save: Callable[[PeerMet], None], counters: Counts) -> None:
        self._save = save
        self._counters = counters
        self._incarnations: dict[NodeId, int] = {}
        self._unsaved: set[NodeId] = set()

    def __contains__(self, peer: NodeId) -> bool:
        """Whether this node has met ``peer``, and will not forget it."""
        return peer in self._incarnations and peer not in self._unsaved

    def has_met(self, peer: NodeId, incarnation: int) -> bool:
        """Whether this node has met ``peer``, with this very incarnation."""
        return self._incarnations.get(peer) == incarnation

    def recover(self, peer: NodeId, incarnation: int) -> None:
        """This node has met ``peer`` in an earlier life."""
        self._incarnations[peer] = incarnation

    def admits(self, peer: NodeId, incarnation: int) -> bool:
        """Whether ``peer`` may have this incarnation: it has not been met yet, or with this one."""
        if self._incarnations.get(peer, incarnation) == incarnation:
            return True
        if not self._counters[Count.PEER_WITH_ANOTHER_FOLDER]:
            self.log.critical(
                "node {peer} came back with another data folder and is not heard: give it back its own, or"
                " replace it by a node of another name",
                peer=peer,
            )
        self._counters[Count.PEER_WITH_ANOTHER_FOLDER] += 1
        return False

    def remember(self, peer: NodeId, incarnation: int) -> None:
        """``peer`` has shown that it is at its address, with this incarnation: from now on it must have no other."""
        if peer not in self._incarnations:
            self._incarnations[peer] = incarnation
            self._unsaved.add(peer)
            self._save(PeerMet(peer, incarnation))

    def peer_saved(self, met: PeerMet) -> None:
        """``met`` is on disk."""
        self._unsaved.discard(met.peer)

    def records(self) -> list[PeerMet]:
        """All that must be remembered."""
        return [PeerMet(peer, incarnation) for peer, incarnation in self._incarnations.items()]
