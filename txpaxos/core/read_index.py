"""Reading what the log has made of a service, without a slot of the log for it.

Whoever reads must see everything that was acknowledged before it asked. The leader knows how far that is, if it still
leads; and that it still did when the question had come it knows once a quorum has answered a heartbeat sent after that
(Ongaro's thesis, 2014, section 6.4). Questions that come while such a round is on its way share the next one.

No clock is trusted: a leader that was stopped for an hour finds out before it answers.
"""

from __future__ import annotations

from math import inf
from random import Random

import attrs

from txpaxos.core.config import Timing
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.messages import NodeId, Slot


@attrs.frozen
class Question:
    """A node's question for a read point.

    :ivar point: how far it has to read at least.
    :ivar sequence: the heartbeat which a quorum has to answer before that may be said.
    """

    asker: NodeId
    number: int
    point: Slot
    sequence: int


class ReadIndexServer:
    """The leader's part: who has asked, and which heartbeats a quorum has answered in its ballot.

    :param quorum: how many nodes are one.
    """

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
        self._answered: dict[NodeId, int] = {}
        self._questions: dict[NodeId, Question] = {}
        # Of the heartbeat sent last for a question's sake.
        self._sequence = 0

    def clear(self) -> None:
        """Another ballot has begun, or this one is over: whoever waits asks again."""
        self._answered.clear()
        self._questions.clear()
        self._sequence = 0

    def ask(self, asker: NodeId, number: int, point: Slot, last_sequence: int) -> bool:
        """Take a question; of one asker, only its newest counts. One that is asked again waits no longer for that.

        :param last_sequence: of the last heartbeat sent.
        :returns: whether the next heartbeat is to be sent now, and not in its time.
        """
        asked = self._questions.get(asker)
        if asked is None or asked.number != number:
            self._questions[asker] = Question(asker, number, point, last_sequence + 1)
        return self._start_round(last_sequence)

    def observe_answer(self, node: NodeId, sequence: int, last_sequence: int) -> tuple[list[Question], bool]:
        """``node`` has answered the heartbeat ``sequence``.

        :returns: the questions that this settles, and whether the next heartbeat is to be sent now for the others.
        """
        self._answered[node] = max(sequence, self._answered.get(node, 0))
        confirmed = self._confirmed()
        settled = [question for question in self._questions.values() if question.sequence <= confirmed]
        for question in settled:
            del self._questions[question.asker]
        return settled, self._start_round(last_sequence)

    def _start_round(self, last_sequence: int) -> bool:
        """One round at a time: a question that has come while one is on its way waits for its end."""
        if not self._questions or self._confirmed() < self._sequence:
            return False
        self._sequence = last_sequence + 1
        return True

    def _confirmed(self) -> int:
        """The last heartbeat that a quorum has answered, this node included."""
        answered = sorted(self._answered.values(), reverse=True)
        return answered[self._quorum - 2] if len(answered) >= self._quorum - 1 > 0 else 0


class ReadIndexClient:
    """The asker's part: one question at a time, asked again until there is an answer."""

    def __init__(self, timing: Timing, rng: Random) -> None:
        self.number = 0
        self._timing = timing
        self._rng = rng
        self._ask_at = inf  # Unless there is a question.
        self._asked: NodeId | None = None
        self._attempts = 0

    def begin(self, now: float) -> int:
        """There is a new question, to be asked at once. Its number was never one before, nor in an earlier life of this
        node: an answer to that may still be on its way."""
        if self._ask_at != inf:
            raise BrokenInvariant("one question at a time", self.number)
        self.number = (self.number or self._rng.getrandbits(62)) + 1
        self._ask_at = now
        self._attempts = 0
        return self.number

    def is_due(self, leader: NodeId | None, now: float) -> bool:
        """Whether to ask ``leader`` now. A new leader is asked at once."""
        if self._ask_at == inf or (now < self._ask_at and leader in (None, self._asked)):
            return False
        if leader != self._asked:
            self._asked, self._attempts = leader, 0
        self._ask_at = now + self._timing.retry_after(self._attempts, self._rng)
        self._attempts += 1
        return True

    def wake_at(self, leader: NodeId | None) -> float:
        """When :meth:`is_due` may next say so."""
        return -inf if self._ask_at != inf and leader not in (None, self._asked) else self._ask_at

    def is_answer(self, number: int) -> bool:
        """Whether that answers the question. Then it is over."""
        if self._ask_at == inf or number != self.number:
            return False
        self._ask_at = inf
        return True
