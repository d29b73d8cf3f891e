"""Linearizable reads that need no slot of the log.

A read must see everything that was acknowledged before it began. The *read index* is the slot up to which the log must
be applied for that. The leader knows it, if it still leads; and that it still led when the request came, it knows once
a quorum has answered a heartbeat that was sent after the request (Ongaro's thesis, 2014, section 6.4). Requests that
come while such a round of heartbeats is under way share the next one.

No clock is trusted: a leader that was stopped for an hour finds out before it answers.
"""

from __future__ import annotations

from math import inf
from random import Random

import attrs

from txpaxos.core.config import Timing
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.membership import Configuration, Membership
from txpaxos.core.messages import NodeId, Slot


@attrs.frozen
class PendingRead:
    """A node's request for a read index, which waits for a quorum.

    :ivar client: the node that asked.
    :ivar number: the number of its request.
    :ivar read_index: the slot up to which it must at least have applied the log.
    :ivar sequence: the heartbeat that a quorum has to answer before the client may be told.
    :ivar retirements: how many configurations had ceased to govern when it came.
    """

    client: NodeId
    number: int
    read_index: Slot
    sequence: int
    retirements: int


class ReadIndexServer:
    """The leader's part, for as long as it leads with one ballot: which nodes wait for a read index, and which
    heartbeats a quorum has answered.

    :param membership: who the members are. It may change.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._answered: dict[NodeId, int] = {}
        self._pending: dict[NodeId, PendingRead] = {}
        # The number of the heartbeat that was sent last for the sake of a request.
        self._sequence = 0

    def request(self, client: NodeId, number: int, read_index: Slot, last_sequence: int) -> bool:
        """Take a request. Of one client only its newest counts; the same request again does not wait any longer.

        :param last_sequence: the number of the last heartbeat sent.
        :returns: whether the next heartbeat is to be sent now, ahead of its time.
        """
        pending = self._pending.get(client)
        retirements = self._membership.retirements
        if pending is None or pending.number != number or pending.retirements != retirements:
            self._pending[client] = PendingRead(client, number, read_index, last_sequence + 1, retirements)
        return self._start_round(last_sequence)

    def observe_answer(self, node: NodeId, sequence: int, last_sequence: int) -> tuple[list[PendingRead], bool]:
        """``node`` has answered the heartbeat ``sequence``.

        What counts for a request is every configuration that governs a slot above its read index: each of them may have
        let another leader go on there. When one of these has ceased to govern, its members may be gone. So the request
        is dropped, and its client asks again.

        :returns: the requests that may be answered now, and whether the next heartbeat is to be sent now for the rest.
        """
        self._answered[node] = max(sequence, self._answered.get(node, 0))
        confirmed = self._confirmed()
        retirements = self._membership.retirements
        for pending in [pending for pending in self._pending.values() if pending.retirements != retirements]:
            del self._pending[pending.client]
        settled = [pending for pending in self._pending.values() if pending.sequence <= confirmed]
        for pending in settled:
            del self._pending[pending.client]
        return settled, self._start_round(last_sequence)

    def _start_round(self, last_sequence: int) -> bool:
        """There is one round at a time: a request that comes while one is under way waits for its end."""
        if not self._pending or self._confirmed() < self._sequence:
            return False
        self._sequence = last_sequence + 1
        return True

    def _confirmed(self) -> int:
        """The last heartbeat that a quorum has answered; this node, if it is a voter, has answered them all."""
        return min(map(self._confirmed_by, self._membership.configurations))

    def _confirmed_by(self, configuration: Configuration) -> int:
        answered, own = self._answered, self._membership.node
        sequences = sorted((answered.get(voter, 0) for voter in configuration.voters if voter != own), reverse=True)
        missing = configuration.quorum - (own in configuration.voter_set)
        return sequences[missing - 1] if missing else self._sequence


class ReadIndexClient:
    """The reader's part: one request at a time, sent to the leader again and again until it is answered.

    All reads of a node wait for that one request. So it is sent at least once in a liveness window: a leader that can
    be reached again is asked at once, however long it could not be.
    """

    def __init__(self, timing: Timing, rng: Random) -> None:
        self.number = 0
        self._timing = timing
        self._rng = rng
        # When to ask; infinite without a request.
        self._ask_at = inf
        self._asked: NodeId | None = None
        self._attempts = 0
        # The last attempt after which the wait still doubles.
        self._attempts_max = 0
        while 0 < timing.retry_seconds * 2.0 ** (self._attempts_max + 1) <= timing.liveness_window_seconds[0]:
            self._attempts_max += 1

    @property
    def is_asking(self) -> bool:
        """Whether a request waits for its answer. Else nothing is ever due."""
        return self._ask_at != inf

    def begin(self, now: float) -> int:
        """Begin a new request, to be sent at once.

        :returns: its number. No request of this node had it, nor any before a restart: an answer to one of those may
            still be under way.
        """
        if self._ask_at != inf:
            raise BrokenInvariant("one request at a time", self.number)
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
        self._attempts = min(self._attempts + 1, self._attempts_max)
        return True

    def wake_at(self, leader: NodeId | None) -> float:
        """When :meth:`is_due` may next be true."""
        return -inf if self._ask_at != inf and leader not in (None, self._asked) else self._ask_at

    def end(self, number: int) -> bool:
        """An answer to the request of that ``number`` has come. Whether it is the one under way, which then is over."""
        if self._ask_at == inf or number != self.number:
            return False
        self._ask_at = inf
        return True
