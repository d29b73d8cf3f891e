"""The clients that are connected to one node: which of them are idle, and which goes when there are too many.

The client port keeps one table, and asks it once a second who is silent and, when a client too many comes, who has to
go. Unless clients show who they are, all clients of one address count as one principal. However many connections one
principal opens, others get in: when the table is full, the principal that has most loses one that is idle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol

PING_SECONDS = 30
"""Silence after which a client that has nothing in work is asked for a sign of life."""

DROP_SECONDS = 15
"""Time that a client has to give the sign of life that it was asked for. Then it is disconnected."""

ASKED_A_SECOND_MAX = 500
"""Upper bound on the clients that are looked at in one second, so that a sweep over thousands does not hold up the
node."""

LOOKS_MAX = 256
"""Upper bound on the connections that are looked at to find an idle one."""


class ListedConnection(Protocol):
    """A connection, as far as the table knows it.

    :ivar counts_for: the principal for which it counts: an address, or what a client has shown to be its name.
    :ivar heard_at: when the client last sent something, in seconds of the table.
    """

    counts_for: str
    heard_at: int

    @property
    def is_waiting(self) -> bool:
        """Whether a request of the client is in work."""

    def welcome(self, data: bytes) -> None:
        """Tell the client who leads."""

    def tell_members(self, data: bytes) -> None:
        """Tell the client who the members are."""

    def ping(self) -> None:
        """Ask the client for a sign of life."""

    def close(self) -> None:
        """Close the connection at once."""


class ClientTable:
    """All connections, in the order in which they are looked at next.

    :ivar seconds: the table's clock: how many seconds there were clients.
    """

    def __init__(self) -> None:
        self.seconds = 1
        # Every connection is in one of these, with the second in which it is looked at next.
        self._due: dict[ListedConnection, int] = {}
        self._asked: dict[ListedConnection, int] = {}  # Those that were asked for a sign of life.
        self._principals: dict[str, dict[ListedConnection, None]] = {}

    def __len__(self) -> int:
        return len(self._due) + len(self._asked)

    def __iter__(self) -> Iterator[ListedConnection]:
        return iter([*self._due, *self._asked])

    def add(self, connection: ListedConnection) -> None:
        """A client has connected."""
        connection.heard_at = self.seconds
        self._due[connection] = self.seconds + PING_SECONDS
        self._principals.setdefault(connection.counts_for, {})[connection] = None

    def remove(self, connection: ListedConnection) -> None:
        """A connection is gone. One that is in the table no more is left alone."""
        self._due.pop(connection, None)
        self._asked.pop(connection, None)
        same = self._principals.get(connection.counts_for, {})
        same.pop(connection, None)
        if not same:
            self._principals.pop(connection.counts_for, None)

    def make_room(self) -> bool:
        """Disconnect an idle client of the principal that has most connections. False if that one has no idle
        client."""
        most = max(self._principals.values(), key=len, default={})
        idle: ListedConnection | None = None
        for _ in range(min(LOOKS_MAX, len(most))):
            connection = next(iter(most))
            del most[connection]  # If it stays, it is looked at last from now on.
            most[connection] = None
            if not connection.is_waiting:
                if connection.heard_at < self.seconds - 1:
                    idle = connection
                    break
                idle = idle or connection
        if idle is None:
            return False
        self.remove(idle)
        idle.close()
        return True

    def sweep(self) -> int:
        """A second has passed: ask the clients that have been silent for long, and disconnect those that did not
        answer.

        :returns: how many clients were disconnected.
        """
        self.seconds += 1
        silent = [one for one in self._take_due(self._asked) if not self._stays(one)]
        for connection in silent:
            self.remove(connection)
            connection.close()
        for connection in self._take_due(self._due):
            if not self._stays(connection):
                self._asked[connection] = self.seconds + DROP_SECONDS
                connection.ping()
        return len(silent)

    def _take_due(self, due: dict[ListedConnection, int]) -> list[ListedConnection]:
        """Take out of ``due`` those that are to be looked at now, up to :data:`ASKED_A_SECOND_MAX`."""
        taken = [one for one, at in itertools.islice(due.items(), ASKED_A_SECOND_MAX) if at <= self.seconds]
        for connection in taken:
            del due[connection]
        return taken

    def _stays(self, connection: ListedConnection) -> bool:
        """Whether a client has sent something lately or waits for an answer. If so, it is looked at again later."""
        if not connection.is_waiting and self.seconds - connection.heard_at >= PING_SECONDS:
            return False
        self._due[connection] = self.seconds + PING_SECONDS
        return True
