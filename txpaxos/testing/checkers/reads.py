"""Questions for read indexes, what confirms them, and what readers were told, as seen from outside."""

from __future__ import annotations

import itertools
from typing import Any

import attrs

from txpaxos.core.messages import Ballot, NodeId, Slot


@attrs.frozen
class _Question:
    start_number: int
    chosen_through: Slot
    asked_at: int


class ObservedReads:
    """All reads of a cluster. Moments are counted, not measured.

    :param quorum: how many nodes are one.
    :ivar reported_through: the newest slot that anybody was told of.
    """

    def __init__(self, quorum: int) -> None:
        self.reported_through: Slot = 0
        self._quorum = quorum
        self._moments = itertools.count()
        self._questions: dict[tuple[NodeId, int], _Question] = {}
        # When each heartbeat was sent, and of those that a node has answered, the latest of each leader.
        self._heartbeats: dict[tuple[Ballot, int], int] = {}
        self._answered: dict[tuple[NodeId, NodeId], int] = {}
        self._results: dict[tuple[Slot, bytes], Any] = {}

    def ask(self, asker: NodeId, start_number: int, number: int, chosen_through: Slot) -> str:
        """A question goes out. Returns what is wrong with it."""
        question = _Question(start_number, chosen_through, next(self._moments))
        return (
            ""
            if self._questions.setdefault((asker, number), question).start_number == start_number
            else "no question twice"
        )

    def note_heartbeat(self, ballot: Ballot, sequence: int) -> None:
        """A heartbeat goes out."""
        self._heartbeats[ballot, sequence] = next(self._moments)

    def note_heartbeat_answer(self, node: NodeId, ballot: Ballot, sequence: int) -> None:
        """``node`` answers a heartbeat."""
        self._answered[node, ballot.node] = max(
            self._heartbeats[ballot, sequence], self._answered.get((node, ballot.node), 0)
        )

    def answer(self, leader: NodeId, asker: NodeId, number: int, slot: Slot) -> str:
        """A read index goes out. Returns what is wrong with it: it has to tell of all that was known to be chosen when
        the question was asked, and a quorum, the leader with it, must have answered heartbeats sent after that."""
        question = self._questions[asker, number]
        if slot < question.chosen_through:
            return "no old read index"
        answered = [at for (_, to), at in self._answered.items() if to == leader and at > question.asked_at]
        return "" if len(answered) + 1 >= self._quorum else "a read is confirmed after it is asked"

    def report(self, slot: Slot) -> None:
        """Somebody is told of ``slot``."""
        self.reported_through = max(self.reported_through, slot)

    def is_another_result(self, slot: Slot, query: bytes, result: Any) -> bool:
        """Whether a node answers ``query`` at ``slot`` with something else than those before it."""
        return bool(self._results.setdefault((slot, query), result) != result)
