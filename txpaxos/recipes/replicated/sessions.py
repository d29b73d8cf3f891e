"""Sessions: what a program holds ends when the program does.

A session is a timer that its program keeps alive. When the program closes it, or is not heard for as long as the
session may be silent, the session ends, and every service of the node drops what belongs to it, in the same slot.
"""

from __future__ import annotations

from typing import Annotated, Protocol, TypeAlias, runtime_checkable

import msgspec

from txpaxos.recipes.replicated.bounds import LimitReached
from txpaxos.service.declaration import Service, command, query, state

SESSIONS_MAX = 100_000
DROPPED_MAX = 2_000
"""When sessions have lost as much as this at one time, others whose time is over too end in later slots: so no slot
takes long."""

TTL_MS_MIN, TTL_MS_MAX = 1_000, 86_400_000

SessionId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
"""The name of a session, which its program has drawn."""

TtlMs: TypeAlias = Annotated[int, msgspec.Meta(ge=TTL_MS_MIN, le=TTL_MS_MAX)]


def timer_of(session_id: str) -> str:
    """What the timer of a session is called on the node, and by those who keep it alive."""
    return f"{Sessions.__name__}/{session_id}"


@runtime_checkable
class SessionBound(Protocol):
    """A service that keeps what belongs to sessions."""

    def session_ended(self, session_id: str) -> int | None:
        """Drop what belongs to a session, which has ended. Called on every node, in the same slot.

        :returns: how many things that were; ``None`` for few.
        """


class Sessions(Service):
    """The open sessions."""

    ttl_ms: dict[str, int] = state(dict)
    dropped: int = state(int)
    dropped_at_ms: int = state(int)

    @command(raises=LimitReached)
    def open(self, session_id: SessionId, ttl_ms: TtlMs) -> None:
        """Open a session; of one that is open, begin its time anew.

        :param ttl_ms: it ends when it was not kept alive for so long.
        """
        if session_id not in self.ttl_ms and len(self.ttl_ms) >= SESSIONS_MAX:
            raise LimitReached(f"{SESSIONS_MAX} sessions are open already")
        try:
            self.timers.set(session_id, ttl_ms / 1000, kept_alive=True)
        except ValueError as error:
            raise LimitReached(str(error)) from None
        self.ttl_ms[session_id] = ttl_ms
        self.changed(f"session {session_id}")

    @command
    def close(self, session_id: SessionId) -> bool:
        """End a session, and with it what belongs to it.

        :returns: whether it was open.
        """
        if session_id not in self.ttl_ms:
            return False
        self.timers.cancel(session_id)
        self._end(session_id)
        return True

    @query(topic="session {session_id}")
    def ttl_of(self, session_id: SessionId) -> int | None:
        """How long a session may be silent, in milliseconds; ``None`` if it is not open."""
        return self.ttl_ms.get(session_id)

    def is_open(self, session_id: str) -> bool:
        """Whether a session is open, for services beside this one."""
        return session_id in self.ttl_ms

    def timer_fired(self, name: str, payload: bytes) -> None:
        """End a session that was not kept alive. If much was dropped already at this time, it ends in a later slot."""
        if self.dropped_at_ms != self.now.elapsed_ms:
            self.dropped_at_ms, self.dropped = self.now.elapsed_ms, 0
        if self.dropped >= DROPPED_MAX:
            # A keep-alive does not put this timer off: the program of the session is told that the session is over.
            self.timers.set(name, 0.001)
        else:
            self._end(name)

    def _end(self, session_id: str) -> None:
        del self.ttl_ms[session_id]
        self.changed(f"session {session_id}")
        errors = []
        for service in self.siblings():
            if isinstance(service, SessionBound):
                try:
                    self.dropped += service.session_ended(session_id) or 0
                except Exception as error:  # The other services must hear of it.
                    errors.append(error)
        if errors:
            raise errors[0]
