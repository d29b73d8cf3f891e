"""The recipes of a cluster, as a program has them."""

from __future__ import annotations

import math
import secrets
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from txpaxos.arguments import check_deadline, check_reactor, check_seconds
from txpaxos.client.client import Client
from txpaxos.clock import monotonic_clock, seconds_with_sleep
from txpaxos.recipes.counter import Counter
from txpaxos.recipes.lease_keeper import LeaseKeeper
from txpaxos.recipes.map import Map
from txpaxos.recipes.queue import Queue
from txpaxos.recipes.replicated.bounds import SessionOver
from txpaxos.recipes.replicated.counters import Counters
from txpaxos.recipes.replicated.gatherings import Gatherings
from txpaxos.recipes.replicated.maps import Maps
from txpaxos.recipes.replicated.permits import Permits
from txpaxos.recipes.replicated.queues import Queues
from txpaxos.recipes.replicated.sessions import Sessions, timer_of
from txpaxos.recipes.replicated.sets import Sets
from txpaxos.recipes.session import Session
from txpaxos.recipes.set import Set
from txpaxos.recipes.waiting import Waits

T = TypeVar("T")

TTL_SECONDS = 10.0


class Recipes:
    """Sessions, queues, maps, counters and sets in a cluster whose nodes run the services of the recipes.

    :param client: the client of the cluster.
    :param reactor: the reactor of the client.
    :param deadline_seconds: how long each request that does not wait for others may take; ``None`` for as long as it
        takes.
    :ivar reactor: that reactor.
    """

    def __init__(self, client: Client, reactor: Any, deadline_seconds: float | None = None) -> None:
        _check_client(client)
        check_reactor(reactor, "reactor")
        self.reactor = reactor
        self._client = client
        self._clock = monotonic_clock(reactor)
        self._seconds = seconds_with_sleep(reactor)
        self._keeper = LeaseKeeper(client, self._clock, self._seconds)
        self._deadline_seconds = check_deadline(deadline_seconds)
        self._waits = Waits(self._clock, lambda: client.is_closed)
        self._sessions = client.service(Sessions, deadline_seconds=self._deadline_seconds)

    def session(self, ttl_seconds: float = TTL_SECONDS) -> Deferred[Session]:
        """Open a session.

        :param ttl_seconds: it ends when the nodes have not heard of it for so long: 1 second to a day.
        :returns: fires with the session; fails with :class:`~txpaxos.recipes.LimitReached` if there are too many.
        """
        ttl_ms = math.ceil(check_seconds(ttl_seconds, "ttl_seconds") * 1000)
        session_id, sent_at = secrets.token_hex(16), self._seconds()
        opened = self._sessions.open(session_id, ttl_ms)
        return opened.addCallback(lambda _: self._session(session_id, ttl_ms, sent_at))

    def resume(self, session_id: str) -> Deferred[Session]:
        """Go on with a session that another process, or this one before a restart, has opened. That one must not use it
        any more.

        :returns: fires with the session; fails with :class:`~txpaxos.recipes.SessionOver` if it is over.
        """
        return Deferred.fromCoroutine(self._resume(session_id))

    def queue(self, name: str, kind: type[T]) -> Queue[T]:
        """A queue of values of the type ``kind``.

        :raises TypeError: if values of this type cannot be sent.
        """
        return Queue(self._waits, self._client.service(Queues, deadline_seconds=self._deadline_seconds), name, kind)

    def map(self, name: str, kind: type[T]) -> Map[T]:
        """A map whose values are of the type ``kind``.

        :raises TypeError: if values of this type cannot be sent.
        """
        return Map(self._waits, self._client.service(Maps, deadline_seconds=self._deadline_seconds), name, kind)

    def counter(self, name: str) -> Counter:
        """A counter."""
        return Counter(self._waits, self._client.service(Counters, deadline_seconds=self._deadline_seconds), name)

    def set(self, name: str, kind: type[T]) -> Set[T]:
        """A set of values of the type ``kind``.

        :raises TypeError: if values of this type cannot be sent.
        """
        return Set(self._client.service(Sets, deadline_seconds=self._deadline_seconds), name, kind)

    async def _resume(self, session_id: str) -> Session:
        ttl_ms = await self._sessions.ttl_of(session_id)
        if ttl_ms is not None:
            name, sent_at = timer_of(session_id), self._seconds()
            kept = await self._client.keep_alive([name], self._deadline_seconds)
            if kept[name]:
                return self._session(session_id, ttl_ms, sent_at)
        raise SessionOver(f"the session {session_id} is over: open a new one")

    def _session(self, session_id: str, ttl_ms: int, sent_at: float) -> Session:
        permits = self._client.service(Permits, deadline_seconds=self._deadline_seconds)
        gatherings = self._client.service(Gatherings, deadline_seconds=self._deadline_seconds)
        services = self._sessions, permits, gatherings
        ttl_seconds = ttl_ms / 1000
        return Session(self._keeper, self._waits, *services, session_id, ttl_seconds, self._seconds, sent_at)


def _check_client(client: object) -> None:
    if not all(hasattr(client, name) for name in ("service", "keep_alive", "is_closed")):
        raise TypeError(f"client must be a Client, as of Client(reactor, cluster), not {type(client).__name__}")
