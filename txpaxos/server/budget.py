"""What the clients of one node have in work and in memory, and how much of that they may have.

The client port has one :class:`Budget`. Each of its connections has a :class:`Usage`, which says what that connection
has taken of the budget. Connections take and give back through the methods of the budget; nothing else changes a count.

The invariant, which :meth:`Budget.check` asserts:

* Each total is the sum of what the connections have taken.
* No count is below zero.
* Only a connection whose client does not read has bytes in its buffer.
* A connection that has ended has nothing but requests in work, and is forgotten with the last of these.

So when the last connection is forgotten every total is zero, and the budget checks itself then.
"""

from __future__ import annotations

from typing import Protocol

import attrs

REQUESTS_MAX = 4096
"""Requests of one connection in work at a time."""

REQUESTS_ALL_MAX = 2**17
"""Requests of all connections in work at a time. A request beyond them is refused at once."""

REQUEST_BYTES_ALL_MAX = 2**28
"""Bytes of the requests of all connections in work. A request beyond them is refused at once."""

PARTIAL_BYTES_FREE = 2**16
"""Bytes of a request that has come in part which any connection may have, however much the others have."""

PARTIAL_BYTES_ALL_MAX = 2**28
"""Bytes of requests of all connections that have come in part. When there are more, a connection that brings bytes and
has more than :data:`PARTIAL_BYTES_FREE` is closed."""

BUFFERED_BYTES_MAX = 8 * 2**20
"""Bytes of answers buffered for one client that reads slowly. Beyond them its requests are deferred, as if they had not
come. One answer may come on top."""

BUFFERED_BYTES_ALL_MAX = 2**28
"""Bytes of answers buffered for all clients. Beyond them the client that has not read for the longest time is
disconnected."""


class BudgetedConnection(Protocol):
    """A connection, as far as the budget knows it."""

    def close(self) -> None:
        """Close the connection at once."""


@attrs.define(eq=False)
class Usage:
    """What one connection has taken of the budget and not given back. Only the budget changes it.

    :ivar connection: whose usage this is.
    :ivar requests: requests in work.
    :ivar request_bytes: the bytes of these requests.
    :ivar partial_bytes: bytes of a request that has come in part.
    :ivar buffered_bytes: bytes of answers written that the client may not have read.
    :ivar is_paused: whether the client reads more slowly than the node writes.
    :ivar has_ended: whether the connection is gone.
    """

    connection: BudgetedConnection
    requests: int = 0
    request_bytes: int = 0
    partial_bytes: int = 0
    buffered_bytes: int = 0
    is_paused: bool = False
    has_ended: bool = False

    @property
    def is_write_blocked(self) -> bool:
        """Whether as many bytes are buffered as may be, so that no further answer is written."""
        return self.is_paused and self.buffered_bytes > BUFFERED_BYTES_MAX

    def admits(self, requests: int) -> bool:
        """Whether this connection may have ``requests`` more in work."""
        return self.requests + requests <= REQUESTS_MAX


class Budget:
    """The counts of all connections, in total and for each.

    :ivar requests: requests in work.
    :ivar request_bytes: the bytes of these requests.
    :ivar partial_bytes: bytes of requests that have come in part.
    :ivar buffered_bytes: bytes of answers written that clients may not have read.
    :cvar too_many: what a client is told whose requests find no room.
    """

    too_many = "too many requests of all clients are in work; try again later"

    def __init__(self) -> None:
        self.requests = self.request_bytes = self.partial_bytes = self.buffered_bytes = 0
        self._usages: dict[Usage, None] = {}
        self._paused: dict[Usage, None] = {}  # The client that has not read for the longest time comes first.

    @property
    def paused(self) -> int:
        """How many clients do not read at the moment."""
        return len(self._paused)

    def open(self, connection: BudgetedConnection) -> Usage:
        """Begin to count for ``connection``."""
        usage = Usage(connection)
        self._usages[usage] = None
        return usage

    def end(self, usage: Usage) -> None:
        """A connection is gone: it gives back everything but its requests in work, which end later."""
        assert not usage.has_ended, usage
        usage.has_ended = True
        self.give_back_buffer(usage)
        self.partial_bytes -= usage.partial_bytes
        usage.partial_bytes = 0
        self._forget_if_over(usage)

    # requests in work

    def take_requests(self, usage: Usage, requests: int, size_bytes: int) -> bool:
        """Count ``requests`` of ``size_bytes`` together as in work. False, and nothing is counted, if all connections
        together have no room for them."""
        total, total_bytes = self.requests + requests, self.request_bytes + size_bytes
        if total > REQUESTS_ALL_MAX or total_bytes > REQUEST_BYTES_ALL_MAX:
            return False
        self.requests, self.request_bytes = total, total_bytes
        usage.requests += requests
        usage.request_bytes += size_bytes
        return True

    def give_back_requests(self, usage: Usage, requests: int, size_bytes: int) -> None:
        """Requests are answered, or nothing waits for them any more."""
        self.requests -= requests
        self.request_bytes -= size_bytes
        usage.requests -= requests
        usage.request_bytes -= size_bytes
        assert usage.requests >= 0, usage
        assert usage.request_bytes >= 0, usage
        if usage.has_ended:
            self._forget_if_over(usage)

    # requests in part

    def take_partial(self, usage: Usage, size_bytes: int) -> bool:
        """Count ``size_bytes``, instead of what was counted before, as the part of a request that has come. False if
        the connection has to be closed for it; the bytes are counted all the same."""
        self.partial_bytes += size_bytes - usage.partial_bytes
        usage.partial_bytes = size_bytes
        return size_bytes <= PARTIAL_BYTES_FREE or self.partial_bytes <= PARTIAL_BYTES_ALL_MAX

    # buffered answers

    def pause(self, usage: Usage) -> None:
        """A client reads more slowly than the node writes. What is written from now on is buffered."""
        usage.is_paused = True
        self._paused[usage] = None

    def take_buffer(self, usage: Usage, size_bytes: int) -> None:
        """Count ``size_bytes`` more as buffered for a client that does not read."""
        assert usage.is_paused, usage
        self.buffered_bytes += size_bytes
        usage.buffered_bytes += size_bytes

    def give_back_buffer(self, usage: Usage) -> None:
        """A client has read everything, or its connection is closed: nothing is buffered for it any more."""
        self.buffered_bytes -= usage.buffered_bytes
        usage.buffered_bytes = 0
        usage.is_paused = False
        self._paused.pop(usage, None)

    def slowest(self) -> BudgetedConnection | None:
        """The connection to close because too much is buffered for all clients: that of the client that has not read
        for the longest time. ``None`` if there is room."""
        if self.buffered_bytes <= BUFFERED_BYTES_ALL_MAX:
            return None
        return next(iter(self._paused)).connection

    # the invariant

    def check(self) -> None:
        """Assert what the head of this module says of the counts."""
        for name in ("requests", "request_bytes", "partial_bytes", "buffered_bytes"):
            counts = [getattr(usage, name) for usage in self._usages]
            assert min(counts, default=0) >= 0, (name, counts)
            assert getattr(self, name) == sum(counts), (name, getattr(self, name), counts)
        for usage in self._usages:
            assert usage.is_paused == (usage in self._paused), usage
            assert usage.is_paused or not usage.buffered_bytes, usage
            if usage.has_ended:
                assert usage.requests, usage
                assert not usage.partial_bytes, usage
                assert not usage.is_paused, usage
        assert self._paused.keys() <= self._usages.keys()

    def _forget_if_over(self, usage: Usage) -> None:
        if not usage.requests:
            del self._usages[usage]
            if not self._usages:
                self.check()
