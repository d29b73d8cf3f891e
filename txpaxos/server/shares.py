"""The budget of a node whose clients have shown who they are: no principal takes the share of the others.

With keys on, the client port has a :class:`SharedBudget` in place of a :class:`~txpaxos.server.budget.Budget`. It
counts for each principal, over all of its connections, what the budget counts in total. One principal may have half of
everything. So however many connections a client opens and whatever it sends, others find room.
"""

from __future__ import annotations

import attrs

import txpaxos.server.budget as limits
from txpaxos.server.budget import Budget, BudgetedConnection, Usage

SHARES = 2
"""One principal may have one of this number of equal shares."""


@attrs.define(eq=False)
class Share:
    """What one principal has taken of the budget.

    :ivar principal: its name; empty for all clients that have shown nothing.
    :ivar connections: the connections that count for it, also those that have ended and have a request in work.
    """

    principal: str
    connections: int = 0
    requests: int = 0
    request_bytes: int = 0
    partial_bytes: int = 0
    buffered_bytes: int = 0


class SharedBudget(Budget):
    """A budget that counts for each principal, too. Connections of no principal yet count in total only."""

    too_many = "too many requests of this client, or of all clients, are in work; try again later"

    def __init__(self) -> None:
        super().__init__()
        self._shares: dict[str, Share] = {}
        self._share_of: dict[Usage, Share] = {}

    def connections_of(self, principal: str) -> int:
        """How many connections count for ``principal``."""
        share = self._shares.get(principal)
        return 0 if share is None else share.connections

    def assign(self, usage: Usage, principal: str) -> None:
        """A connection that has nothing in work counts for ``principal`` from now on."""
        assert not usage.requests, usage
        self._leave(usage)
        share = self._shares.setdefault(principal, Share(principal))
        share.connections += 1
        share.partial_bytes += usage.partial_bytes
        share.buffered_bytes += usage.buffered_bytes
        self._share_of[usage] = share

    def take_requests(self, usage: Usage, requests: int, size_bytes: int) -> bool:
        """Count requests as in work. False, and nothing is counted, if the principal or all together have no room."""
        share = self._share_of[usage]
        total, total_bytes = share.requests + requests, share.request_bytes + size_bytes
        if total > limits.REQUESTS_ALL_MAX // SHARES or total_bytes > limits.REQUEST_BYTES_ALL_MAX // SHARES:
            return False
        if not super().take_requests(usage, requests, size_bytes):
            return False
        share.requests, share.request_bytes = total, total_bytes
        return True

    def give_back_requests(self, usage: Usage, requests: int, size_bytes: int) -> None:
        """Requests are answered, or nothing waits for them any more."""
        share = self._share_of[usage]
        share.requests -= requests
        share.request_bytes -= size_bytes
        super().give_back_requests(usage, requests, size_bytes)

    def take_partial(self, usage: Usage, size_bytes: int) -> bool:
        """Count ``size_bytes`` as the part of a request that has come. False if the connection has to be closed."""
        share, change = self._share_of.get(usage), size_bytes - usage.partial_bytes
        has_room = super().take_partial(usage, size_bytes)
        if share is None:
            return has_room
        share.partial_bytes += change
        is_fair = share.partial_bytes <= limits.PARTIAL_BYTES_ALL_MAX // SHARES
        return has_room and (is_fair or size_bytes <= limits.PARTIAL_BYTES_FREE)

    def take_buffer(self, usage: Usage, size_bytes: int) -> None:
        """Count ``size_bytes`` more as buffered for a client that does not read."""
        super().take_buffer(usage, size_bytes)
        if usage in self._share_of:
            self._share_of[usage].buffered_bytes += size_bytes

    def give_back_buffer(self, usage: Usage) -> None:
        """A client has read everything, or its connection is closed."""
        if usage in self._share_of:
            self._share_of[usage].buffered_bytes -= usage.buffered_bytes
        super().give_back_buffer(usage)

    def end(self, usage: Usage) -> None:
        """A connection is gone: it gives back everything but its requests in work."""
        if usage in self._share_of:
            self._share_of[usage].partial_bytes -= usage.partial_bytes
        super().end(usage)

    def slowest(self) -> BudgetedConnection | None:
        """The connection to close because too much is buffered for all clients: of the principal for which most is, the
        one that has not read for the longest time. ``None`` if there is room."""
        if super().slowest() is None:
            return None
        most = max((self._share_of.get(usage) for usage in self._paused), key=_buffered)
        return next(usage for usage in self._paused if self._share_of.get(usage) is most).connection

    def check(self) -> None:
        """Assert that the counts of each share are the sums of those of its connections."""
        super().check()
        for share in self._shares.values():
            usages = [usage for usage, its in self._share_of.items() if its is share]
            assert share.connections == len(usages) > 0, share
            for name in ("requests", "request_bytes", "partial_bytes", "buffered_bytes"):
                assert getattr(share, name) == sum(getattr(usage, name) for usage in usages), (name, share)
        assert self._share_of.keys() <= self._usages.keys()

    def _forget_if_over(self, usage: Usage) -> None:
        if not usage.requests:
            self._leave(usage)
        super()._forget_if_over(usage)

    def _leave(self, usage: Usage) -> None:
        """A connection counts for its principal no more."""
        share = self._share_of.pop(usage, None)
        if share is None:
            return
        share.connections -= 1
        share.partial_bytes -= usage.partial_bytes
        share.buffered_bytes -= usage.buffered_bytes
        if not share.connections:
            del self._shares[share.principal]


def _buffered(share: Share | None) -> int:
    return 0 if share is None else share.buffered_bytes
