"""Requests for read indexes, the heartbeats that confirm them, and results of reads, as observed from outside."""

from __future__ import annotations

import itertools
from typing import Any

import attrs

from txpaxos.core.messages import Ballot, NodeId, Slot
from txpaxos.testing.checkers.members import ObservedMembers


@attrs.frozen
class _Question:
    start_number: int
    chosen_through: Slot
    asked_at: int


class ObservedReads:
    """All reads of a cluster. Moments are numbered, not measured.

    :param members: the configurations of the cluster.
    :ivar reported_through: the newest slot that was reported to any client.
    """

    def __init__(self, members: ObservedMembers) -> None:
        self.reported_through: Slot = 0
        self._members = members
        self._moments = itertools.count()
        self._questions: dict[tuple[NodeId, int], _Question] = {}
        # The moment of each heartbeat, and for each node and leader the latest heartbeat that the node has answered.
        self._heartbeats: dict[tuple[Ballot, int], int] = {}
        self._answered: dict[tuple[NodeId, NodeId], int] = {}
        self._results: dict[tuple[Slot, bytes], Any] = {}

    def ask(self, asker: NodeId, start_number: int, number: int, chosen_through: Slot) -> str:
        """A request for a read index is sent. Returns the rule that it breaks, or nothing."""
        question = _Question(start_number, chosen_through, next(self._moments))
        return (
            ""
            if self._questions.setdefault((asker, number), question).start_number == start_number
            else "no question twice"
        )

    def note_heartbeat(self, ballot: Ballot, sequence: int) -> None:
        """A heartbeat is sent."""
        self._heartbeats[ballot, sequence] = next(self._moments)

    def note_heartbeat_answer(self, node: NodeId, ballot: Ballot, sequence: int) -> None:
        """``node`` answers a heartbeat."""
        self._answered[node, ballot.node] = max(
            self._heartbeats[ballot, sequence], self._answered.get((node, ballot.node), 0)
        )

    def answer(self, leader: NodeId, asker: NodeId, number: int, slot: Slot) -> str:
        """A read index is sent. Returns the rule that it breaks, or nothing.

        It must cover every slot that was known to be chosen when the request was sent. A majority of each configuration
        that governs a slot above it, the leader included, must have answered heartbeats sent after the request: any of
        them may have let another leader go on above that slot.
        """
        question = self._questions[asker, number]
        if slot < question.chosen_through:
            return "no old read index"
        answered = [node for (node, to), at in self._answered.items() if to == leader and at > question.asked_at]
        is_quorum = self._members.is_quorum({leader, *answered}, slot)
        return "" if is_quorum else "a read is confirmed after it is asked"

    def report(self, slot: Slot) -> None:
        """A client is told the state at ``slot``."""
        self.reported_through = max(self.reported_through, slot)

    def is_another_result(self, slot: Slot, query: bytes, result: Any) -> bool:
        """Whether ``result`` differs from an earlier result of the same query at the same slot."""
        return bool(self._results.setdefault((slot, query), result) != result)
