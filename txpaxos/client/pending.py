"""The requests of a client that have no answer. The dispatcher adds and takes them; the route sees what they need.

Nothing else is told of a request that has ended: :attr:`Request.is_pending
<txpaxos.client.requests.Request.is_pending>` says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from txpaxos.client.requests import CommandRequest, Request
from txpaxos.errors import Overloaded

REQUESTS_MAX = 4096
"""Requests that may be without an answer at a time. From the first command without an answer to the last one submitted
there are no more commands than that, either, whether they have an answer or not: a node remembers a limited number of
outcomes of one session."""

WAITS_MAX = REQUESTS_MAX * 3 // 4
"""How many of them may wait for something to happen, such as for a lock. The others are for what has to come through
whatever is waited for: keep-alives, without which sessions are lost, and the releases that the waits are for."""

PENDING_BYTES_MAX = 2**27
"""Bytes of requests that may be without an answer at a time."""


class PendingRequests:
    """All requests without an answer, in the order in which they were made.

    :ivar size_bytes: the bytes of their commands, queries and values.
    :ivar quorum_answers: answers so far that show that the node has a quorum. An Answer to many commands counts once.
    """

    def __init__(self) -> None:
        self.size_bytes = self.quorum_answers = 0
        self._requests: dict[int, Request] = {}
        self._waits = 0
        self._patient: dict[int, float] = {}  # The patience of those that have some.
        self._sequences: dict[int, None] = {}  # Of the commands among them, the lowest first.

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    @property
    def all_wait(self) -> bool:
        """Whether all of them wait for something to happen, so that no answer is due."""
        return self._waits == len(self._requests)

    @property
    def patience_seconds(self) -> float:
        """How long the node may be silent for the sake of all those that do not wait for something to happen; 0 if one
        of them is to be answered at once."""
        if self._waits + len(self._patient) < len(self._requests):
            return 0.0
        return min(self._patient.values(), default=0.0)

    @property
    def has_waits(self) -> bool:
        """Whether one of them waits for something to happen."""
        return self._waits > 0

    def get(self, number: int) -> Request | None:
        """The request with this number; ``None`` if it has ended, or never was."""
        return self._requests.get(number)

    def first_sequence(self, sequence: int) -> int:
        """The sequence of the first command without an answer, but ``sequence`` if there is none below it."""
        first = next(iter(self._sequences), sequence)
        return first if first < sequence else sequence

    def refusal(self, size_bytes: int, waits: bool = False) -> Overloaded | None:
        """Why there is no room for a request of ``size_bytes``; ``None`` if there is.

        :param waits: whether it waits for something to happen.
        """
        if waits and self._waits >= WAITS_MAX:
            return Overloaded(f"{self._waits} waits of this client are under way: end some, or use another client")
        if len(self._requests) < REQUESTS_MAX and self.size_bytes + size_bytes <= PENDING_BYTES_MAX:
            return None
        count = len(self._requests)
        return Overloaded(f"{count} requests of {self.size_bytes} bytes wait for an answer already; try again later")

    def refusal_of_command(self, sequence: int, size_bytes: int) -> Overloaded | None:
        """Why there is no room for the next command, which has ``sequence``; ``None`` if there is."""
        if self._sequences and sequence - next(iter(self._sequences)) >= REQUESTS_MAX:
            return Overloaded(f"a command that was submitted {REQUESTS_MAX} commands ago waits for an answer yet")
        if len(self._requests) < REQUESTS_MAX and self.size_bytes + size_bytes <= PENDING_BYTES_MAX:
            return None
        return self.refusal(size_bytes)

    def add(self, request: Request) -> None:
        """A request is made."""
        self._requests[request.number] = request
        self.size_bytes += request.size_bytes
        self._waits += request.waits
        if request.patience_seconds:
            self._patient[request.number] = request.patience_seconds
        if isinstance(request, CommandRequest):
            self._sequences[request.sequence] = None

    def take(self, number: int) -> Request | None:
        """A request ends: it is answered, given up or cancelled. Its deadline is cancelled.

        :returns: the request, whose Deferred is for the caller to fire; ``None`` if it has ended before.
        """
        request = self._requests.pop(number, None)
        if request is not None:
            request.is_pending = False
            self.size_bytes -= request.size_bytes
            self._waits -= request.waits
            self._patient.pop(number, None)
            if isinstance(request, CommandRequest):
                self._sequences.pop(request.sequence, None)
            if request.deadline is not None and request.deadline.active():
                request.deadline.cancel()
        return request
