"""Becoming a voter: the steps from a new data folder to the first vote.

:mod:`txpaxos.node.founding` knows whether a node may become a voter. The steps stand here: learn what is chosen, save
that this node is a voter, and only then vote.
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
    """Makes one node a voter, as soon as it may be one.

    :param members: the ids of all nodes, in the order of the cluster file.
    :param save: saves that this node is a voter, and says whether it becomes one by that.
    :param catch_up: fires when this node has applied all that was acknowledged before the call.
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

    def recover(self, records: Iterable[Record]) -> Voter | None:
        """The record that makes this node a voter, if there is one in ``records`` or if they show that it has voted.

        :raises StoreError: if it voted among more or fewer nodes: two quorums need not meet then.
        """
        records = list(records)
        voter = next((record for record in records if isinstance(record, Voter)), None)
        if voter is None and not has_voted(records):
            return None
        known = Voter(self._members) if voter is None else voter
        if len(known.members) != len(self._members):
            raise StoreError(
                f"node {self._name} has voted among {len(known.members)} nodes ({', '.join(known.members)}), and the"
                f" cluster file has {len(self._members)} ({', '.join(self._members)}): there is no way yet to have more"
                " or fewer of them; put the old cluster file back"
            )
        if set(known.members) != set(self._members):
            self.log.warn(
                "node {node} voted among {old}, and votes among {new} now, as the cluster file says",
                node=self._name,
                old=", ".join(known.members),
                new=", ".join(self._members),
            )
            known = Voter(self._members)
        if known != voter:
            self._save(known, False)
        return known

    def start(self, voter: Voter | None, met: Iterable[PeerMet], now: float) -> None:
        """Begin with what is on disk."""
        self._founding.start(voter, met, now)
        self.step(now)

    def step(self, now: float) -> None:
        """Take the next step, if there is one to take."""
        founding = self._founding
        if founding.is_over:
            return
        voter = founding.voter_to_save(now)
        if voter is not None:
            self._save_once(voter)
        elif founding.is_known_to_quorum() and not founding.catches_up:
            founding.catches_up = True
            # The leader answers once a quorum has told it, after this question, that it leads. This node tells nothing.
            self._catch_up().addCallbacks(lambda _: self._save_once(Voter(self._members)), lambda _: None)

    def _save_once(self, voter: Voter) -> None:
        if not self._founding.is_over:
            self._founding.is_over = True
            self._save(voter, True)

    def voter_saved(self, voter: Voter, now: float) -> None:
        """This node is a voter, and will know that after a crash."""
        self.log.info("node {node} is a voter now", node=self._name)
        self._founding.start_voting(voter, now)
