"""The steps by which a node with a new data folder becomes a voter.

:mod:`txpaxos.node.founding` decides whether a node may become a voter. This module takes the steps, in this order:
learn what is chosen, save that this node is a voter, vote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.core.ready import PeerMet, Record, Voter
from txpaxos.errors import StoreError
from txpaxos.node.founding import Founding, has_voted


class Admission:
    """Makes one node a voter as soon as it may be one.

    :param members: the ids of the founding members, in the order of the cluster file.
    :param save: called with the record to save, and with ``True`` if the node becomes a voter by it.
    :param catch_up: returns a Deferred, which fires when this node has applied every command that was acknowledged
        before the call.
    """

    log = Logger()

    def __init__(
        self,
        name: NodeId,
        members: Iterable[NodeId],
        founding: Founding,
        save: Callable[[Voter, bool], None],
        catch_up: Callable[[], Deferred[Any]],
    ) -> None:
        self._name = name
        self._members = tuple(members)
        self._founding = founding
        self._save = save
        self._catch_up = catch_up

    def recover(self, records: Iterable[Record], has_changed: bool = False) -> Voter | None:
        """The record that makes this node a voter, or ``None`` if it is no voter yet.

        The record is one of ``records``. It is made anew if ``records`` are from a release that had no such record and
        show that this node has voted.

        :param has_changed: whether the members were changed since the cluster was founded. Then the cluster file names
            nodes that may answer, and no more.
        :raises StoreError: if the node has voted in a cluster of another size. Two quorums might not intersect then.
        """
        records = list(records)
        voter = next((record for record in records if isinstance(record, Voter)), None)
        if voter is None and not has_voted(records):
            return None
        known = Voter(self._members) if voter is None else voter
        if has_changed:
            return known
        if len(known.members) != len(self._members):
            raise StoreError(
                f"node {self._name} has voted among {len(known.members)} nodes ({', '.join(known.members)}), and the"
                f" cluster file has {len(self._members)} ({', '.join(self._members)}): the members are"
                ' changed with "txpaxos members" and not in the file; put the old cluster file back'
            )
        if set(known.members) != set(self._members):
            self.log.warn(
                "node {node} voted among {old}, and votes among {new} now, as the cluster file says",
                node=self._name,
                old=", ".join(known.members),
                new=", ".join(self._members),
                event="cluster_file_changed",
            )
            known = Voter(self._members)
        if known != voter:
            self._save(known, False)
        return known

    def start(self, voter: Voter | None, met: Iterable[PeerMet], now: float) -> None:
        """Start with what is on disk: the record of this node as a voter, if any, and the peers that it has met."""
        self._founding.start(voter, met, now)
        self.step(now)

    def step(self, now: float) -> None:
        """Take the next step towards a vote, if it is possible now."""
        founding = self._founding
        if founding.is_over:
            return
        voter = founding.voter_to_save(now)
        if voter is not None:
            self._save_once(voter)
        elif founding.is_known_to_quorum() and not founding.catches_up:
            founding.catches_up = True
            # The leader answers when a quorum has confirmed that it leads. This node is not part of that quorum.
            self._catch_up().addCallbacks(lambda _: self._save_once(Voter(self._members)), lambda _: None)

    def named_in_log(self) -> None:
        """Note that the log names this node as a voter, with the incarnation of its own data folder.

        No other node ever had that id and that incarnation. So this node has no promises to remember that are not in
        its folder, and becomes a voter if it is none yet.
        """
        self._save_once(Voter(self._members))

    def _save_once(self, voter: Voter) -> None:
        if not self._founding.is_over:
            self._founding.is_over = True
            self._save(voter, True)

    def voter_saved(self, voter: Voter, now: float) -> None:
        """Begin to vote: the record ``voter`` is on disk."""
        self.log.info("node {node} is a voter now", node=self._name, event="voter_now")
        self._founding.start_voting(voter, now)
