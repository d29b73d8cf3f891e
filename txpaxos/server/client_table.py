"""The clients that are connected to one node: which of them are idle, and which goes when there are too many.

Until clients show who they are, those of one address count as one principal. However many connections it opens, others
get in: when the table is full, the principal that has most loses one that is idle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol

PING_SECONDS = 30
"""Of a client that has nothing in work, and has said nothing for so long, a sign of life is asked."""

DROP_SECONDS = 15
"""If none comes for so long, it is disconnected."""

ASKED_A_SECOND_MAX = 500
LOOKS_MAX = 256
"""So many connections are looked at for one that is idle."""

SESSIONS_BURST = 16_384
SESSIONS_A_SECOND = 16.0
"""Sessions that one principal may begin at once, and for how long: a quarter of those that nodes remember, so that it
takes it more than an hour to have a session of another forgotten that was used just before."""


class Connected(Protocol):
    """A connection, as far as the table knows it.

    :ivar host: the address from which it came.
    :ivar heard_at: when it last said something, in seconds of the table.
    """

    host: str
    heard_at: int

    @property
    def is_waiting(self) -> bool:
        """Whether something it has asked for is in work, or on its way to it."""

    def welcome(self, data: bytes) -> None:
        """Tell it who leads now."""

    def ping(self) -> None:
        """Ask it to say something."""

    def close(self) -> None:
        """Close the connection at once."""


class ClientTable:
    """All connections.

    :ivar seconds: seconds for which there were connections.
    """

    def __init__(self) -> None:
        self.seconds = 1
        # When each is looked at next, in that order; and those that were asked for a sign of life.
        self._due: dict[Connected, int] = {}
        self._asked: dict[Connected, int] = {}
        self._hosts: dict[str, dict[Connected, None]] = {}
        self._begun: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._due) + len(self._asked)

    def __iter__(self) -> Iterator[Connected]:
        return iter([*self._due, *self._asked])

    def add(self, connection: Connected) -> None:
        """A client came."""
        connection.heard_at = self.seconds
        self._due[connection] = self.seconds + PING_SECONDS
        self._hosts.setdefault(connection.host, {})[connection] = None

    def remove(self, connection: Connected) -> None:
        """It is gone."""
        self._due.pop(connection, None)
        self._asked.pop(connection, None)
        same = self._hosts.get(connection.host, {})
        same.pop(connection, None)
        if not same:
            self._hosts.pop(connection.host, None)

    def make_room(self) -> bool:
        """Disconnect a client that is idle, of the principal that has most connections. False if none of them is."""
        most = max(self._hosts.values(), key=len, default={})
        idle: Connected | None = None
        for _ in range(min(LOOKS_MAX, len(most))):
            connection = next(iter(most))
            del most[connection]  # It is looked at last from now on, if it stays.
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
        """A second has passed: ask those that have been silent for long, and disconnect those that did not answer.

        :returns: how many were disconnected.
        """
        self.seconds += 1
        silent = [one for one in self._take_due(self._asked) if not self._has_spoken(one)]
        for connection in silent:
            self.remove(connection)
            connection.close()
        for connection in self._take_due(self._due):
            if not self._has_spoken(connection):
                self._asked[connection] = self.seconds + DROP_SECONDS
                connection.ping()
        return len(silent)

    def _take_due(self, due: dict[Connected, int]) -> list[Connected]:
        """Those that are to be looked at now, but not too many at once; they are in neither list then."""
        taken = [one for one, at in itertools.islice(due.items(), ASKED_A_SECOND_MAX) if at <= self.seconds]
        for connection in taken:
            del due[connection]
        return taken

    def _has_spoken(self, connection: Connected) -> bool:
        """Whether it has said something not long ago, or waits for something: then it is looked at again later."""
        if not connection.is_waiting and self.seconds - connection.heard_at >= PING_SECONDS:
            return False
        self._due[connection] = self.seconds + PING_SECONDS
        return True

    def admits_session(self, host: str) -> bool:
        """A client at ``host`` begins a session that is not known. False if it has begun too many."""
        left, at = self._begun.get(host, (float(SESSIONS_BURST), self.seconds))
        left = min(float(SESSIONS_BURST), left + (self.seconds - at) * SESSIONS_A_SECOND)
        if left < 1.0:
            return False
        if len(self._begun) > SESSIONS_BURST:  # Those that have not been heard of for long may begin as many again.
            self._begun.clear()
        self._begun[host] = left - 1.0, self.seconds
        return True
