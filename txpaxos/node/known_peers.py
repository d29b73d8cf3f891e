"""Which data folder each peer has, by its incarnation.

A peer that comes back with another data folder has lost what it promised. Its messages are not accepted.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Count, Counts


class KnownPeers:
    """The incarnations of one node's peers.

    A peer becomes known when it has shown that it receives what is sent to its address. A forged message must not
    decide for ever what the incarnation of a peer is.

    No message of a peer counts before the incarnation of that peer is on this node's disk. Otherwise the peer could
    vote, lose its data folder, and vote again as if it were new.

    The log says of a member that joined which incarnation it has (:meth:`expect`). Nothing is saved for such a peer.

    :param save: saves the record of a new peer. Its caller calls :meth:`peer_saved` when the record is on disk.
    :param counters: counts the messages of peers that have another data folder.
    """

    log = Logger()

    def __init__(self, save: Callable[[PeerMet], None], counters: Counts) -> None:
        self._save = save
        self._counters = counters
        self._incarnations: dict[NodeId, int] = {}
        self._unsaved: set[NodeId] = set()
        self._expected: set[NodeId] = set()

    def __contains__(self, peer: NodeId) -> bool:
        """Whether the incarnation of ``peer`` is known and on disk."""
        return peer in self._incarnations and peer not in self._unsaved

    def has_met(self, peer: NodeId, incarnation: int) -> bool:
        """Whether ``peer`` is known with this incarnation, on disk or not."""
        return self._incarnations.get(peer) == incarnation

    def incarnation(self, peer: NodeId) -> int:
        """The incarnation of ``peer``, 0 if it is not known, or not on disk yet."""
        return self._incarnations[peer] if peer in self else 0

    def recover(self, peer: NodeId, incarnation: int) -> None:
        """Add a peer that was saved before this node was restarted."""
        self._incarnations[peer] = incarnation

    def expect(self, peer: NodeId, incarnation: int) -> None:
        """Note that ``peer`` has this incarnation, as the log says. No other one is admitted from now on.

        :param incarnation: 0 if the log does not say it, as of a founder. Such a peer has to show itself, as before.
        """
        if incarnation:
            self._incarnations[peer] = incarnation
            self._unsaved.discard(peer)
            self._expected.add(peer)

    def forget(self, peer: NodeId) -> None:
        """Drop a peer that was removed from the cluster. Its id is never used again."""
        self._incarnations.pop(peer, None)
        self._unsaved.discard(peer)
        self._expected.discard(peer)

    def admits(self, peer: NodeId, incarnation: int) -> bool:
        """Whether no other incarnation of ``peer`` is known. A contradiction is counted, and logged the first time."""
        if self._incarnations.get(peer, incarnation) == incarnation:
            return True
        if not self._counters[Count.PEER_WITH_ANOTHER_FOLDER]:
            self.log.critical(
                "node {peer} came back with another data folder and is not heard: give it back its own, or"
                " replace it by a node of another name",
                peer=peer,
                event="peer_with_another_folder",
            )
        self._counters[Count.PEER_WITH_ANOTHER_FOLDER] += 1
        return False

    def remember(self, peer: NodeId, incarnation: int) -> None:
        """Save the incarnation of ``peer``, which has shown that it is at its address. It is final."""
        if peer not in self._incarnations:
            self._incarnations[peer] = incarnation
            self._unsaved.add(peer)
            self._save(PeerMet(peer, incarnation))

    def peer_saved(self, met: PeerMet) -> None:
        """Messages of the peer count from now on: its record ``met`` is on disk."""
        self._unsaved.discard(met.peer)

    def records(self) -> list[PeerMet]:
        """All records to keep, for a checkpoint: those of peers whose incarnation is not in the log."""
        return [
            PeerMet(peer, incarnation) for peer, incarnation in self._incarnations.items() if peer not in self._expected
        ]
