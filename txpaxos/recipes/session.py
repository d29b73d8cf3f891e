"""A session as its program has it, with what it can hold."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from txpaxos.recipes.gathering import Barrier, DoubleBarrier, Party
from txpaxos.recipes.lease import Lease
from txpaxos.recipes.lease_keeper import LeaseKeeper
from txpaxos.recipes.permit import Election, Lock, Semaphore
from txpaxos.recipes.replicated.gatherings import Gatherings
from txpaxos.recipes.replicated.permits import CAPACITY_MAX, Permits
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.recipes.waiting import Waits
from txpaxos.service.declaration import Remote


def check_session(session: object) -> Session:
    """See that ``session`` is one.

    :raises TypeError: if it is none.
    """
    if not isinstance(session, Session):
        hint = ": await it first" if isinstance(session, Deferred) else ""
        raise TypeError(f"session must be a Session, not {type(session).__name__}{hint}")
    return session


class Session(Lease):
    """A session of a program. What belongs to it ends with it: holds, takes of queues, entries of maps.

    :meth:`Recipes.session <txpaxos.recipes.recipes.Recipes.session>` opens one. ``async with session:`` closes it at
    the end. Names are of one namespace: a lock and an election of one name are the same permit.
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        waits: Waits,
        sessions: Remote[Sessions],
        permits: Remote[Permits],
        gatherings: Remote[Gatherings],
        session_id: str,
        ttl_seconds: float,
        seconds: Callable[[], float],
        confirmed_at: float,
    ) -> None:
        super().__init__(keeper, waits.clock, sessions, session_id, ttl_seconds, seconds, confirmed_at)
        self._waits = waits
        self._permits = permits
        self._gatherings = gatherings
        self._parties_entered: set[str] = set()

    def lock(self, name: str, *, value: str = "", timeout_seconds: float | None = None) -> Lock:
        """A lock.

        :param value: what others see of this contender.
        :param timeout_seconds: how long to wait for it; ``None`` for as long as it takes.
        """
        return Lock(self._waits, self._permits, self, name, value=value, timeout_seconds=timeout_seconds)

    def read_lock(self, name: str, *, value: str = "", timeout_seconds: float | None = None) -> Lock:
        """The side of the readers of a read/write lock. The parameters are those of :meth:`lock`."""
        return self._shared_lock(name, 1, value, timeout_seconds)

    def write_lock(self, name: str, *, value: str = "", timeout_seconds: float | None = None) -> Lock:
        """The side of the writers of a read/write lock. The parameters are those of :meth:`lock`."""
        return self._shared_lock(name, CAPACITY_MAX, value, timeout_seconds)

    def semaphore(
        self, name: str, capacity: int, *, value: str = "", timeout_seconds: float | None = None
    ) -> Semaphore:
        """A semaphore. The other parameters are those of :meth:`lock`.

        :param capacity: how many hold it at most.
        """
        return Semaphore(
            self._waits, self._permits, self, name, capacity=capacity, value=value, timeout_seconds=timeout_seconds
        )

    def election(self, name: str, value: str = "", *, timeout_seconds: float | None = None) -> Election:
        """An election, in which this program contends when it acquires it.

        :param value: what others see of this contender, such as its address.
        """
        return Election(self._waits, self._permits, self, name, value=value, timeout_seconds=timeout_seconds)

    def party(self, name: str, value: str = "") -> Party:
        """A party.

        :param value: what others see of this member, such as its address.
        """
        return Party(self._waits, self._gatherings, self, name, value, self._parties_entered)

    def barrier(self, name: str) -> Barrier:
        """A barrier."""
        return Barrier(self._waits, self._gatherings, self, name)

    def double_barrier(self, name: str, count: int, *, timeout_seconds: float | None = None) -> DoubleBarrier:
        """A double barrier.

        :param count: how many begin and end together; the same for all who use it at one time.
        :param timeout_seconds: how long to wait for the others at each side; ``None`` for as long as it takes.
        """
        return DoubleBarrier(self._waits, self._gatherings, self, name, count, timeout_seconds)

    def _shared_lock(self, name: str, units: int, value: str, timeout_seconds: float | None) -> Lock:
        return Lock(
            *(self._waits, self._permits, self, name),
            units=units,
            capacity=CAPACITY_MAX,
            value=value,
            timeout_seconds=timeout_seconds,
        )
