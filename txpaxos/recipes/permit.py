"""Locks, read/write locks, semaphores and elections, as a program has them."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any, Literal, TypeAlias

from twisted.internet.defer import Deferred, fail

from txpaxos.arguments import check_timeout
from txpaxos.recipes.arguments import check_name, check_text, check_whole_number
from txpaxos.recipes.block import AlreadyContending, Block
from txpaxos.recipes.lease import Lease, SessionState, ended_with
from txpaxos.recipes.replicated.bounds import SessionOver
from txpaxos.recipes.replicated.permits import CAPACITY_MAX, Contender, Fenced, Permits, Standing
from txpaxos.recipes.waiting import Waits, end_of_block, wait_for
from txpaxos.service.declaration import Remote
from txpaxos.service.remote import watch
from txpaxos.service.watching import Watch

_WAITING = Standing(True, 0)

HoldEnd: TypeAlias = Literal["released", "lost", "closed"]
"""How a hold has ended: by its program, or with its session."""


class Hold:
    """A permit in the hands of this program.

    What the hold protects should see its ``token``, and refuse a lower one than the highest it has seen
    (:class:`~txpaxos.recipes.Fence`). ``still_held`` alone cannot keep a program that was stopped for a while from
    acting too late.

    :ivar name: of the permit.
    :ivar token: higher than that of every earlier hold of any permit.
    """

    def __init__(self, waits: Waits, permits: Remote[Permits], lease: Lease, name: str, token: int) -> None:
        self._waits = waits
        self._permits = permits
        self._lease = lease
        self.name = name
        self.token = token
        self._is_released = False
        self._ends: list[Deferred[HoldEnd]] = []
        self._stop_watching = lease.watch(self._session_changed)

    def still_held(self) -> bool:
        """Whether no other can hold it yet, by the clock of this program and without asking a node."""
        return not self._is_released and self._lease.lease_left_seconds > 0

    def over(self) -> Deferred[HoldEnd]:
        """Fires with how the hold has ended; at once if it has. With ``"lost"`` it fires before another can hold it.

        Each call gives a Deferred of its own. ``session.watch`` tells earlier that a session is suspended.
        """
        over: Deferred[HoldEnd] = Deferred(self._ends.remove)
        self._ends.append(over)
        if self._is_released:
            self._end("released")
        elif self._lease.is_over:
            self._end("lost" if self._lease.state == "lost" else "closed")
        return over

    def release(self) -> Deferred[None]:
        """Let the next one have it.

        :returns: fires when the nodes have it; fails with :class:`~txpaxos.recipes.Fenced` if the hold was over before:
            then another may have held the permit meanwhile. If it fails after a deadline, the release goes on behind.
        """
        was_over = self._is_released or not self._lease.lease_left_seconds
        self._is_released = True
        self._stop_watching()
        self._end("released")
        if was_over:
            return fail(Fenced(f"the hold of {self.name} with token {self.token} is over"))
        released = self._waits.give_back(self._release)
        error = Fenced(
            f"the session of the hold of {self.name} with token {self.token} was over before it was released"
        )
        return ended_with(self._lease, released, error)

    def _release(self) -> Deferred[None]:
        return self._permits.release(self.name, self.token, self._lease.session_id)

    def _session_changed(self, state: SessionState) -> None:
        if state in ("lost", "closed"):
            self._stop_watching()
            self._end("lost" if state == "lost" else "closed")

    def _end(self, end: HoldEnd) -> None:
        ends, self._ends = self._ends, []
        for one in ends:
            one.callback(end)


class Permit:
    """What is held by some at a time, and waited for by others in the order in which they came.

    An object contends once at a time, and is in one block at a time. It is not re-entrant. ``async with`` acquires and
    releases it:

    .. code-block:: python

        async with session.lock("reports", timeout_seconds=5.0) as hold:
            await storage.write(data, fence=hold.token)

    The block ends with :class:`~txpaxos.recipes.Fenced` if the hold was over before the block was. It releases the hold
    that it was entered with, and no other.

    :param units: how much of the permit a hold takes.
    :param capacity: what the permit has in all.
    :param value: what others see of this contender.
    :param timeout_seconds: how long to wait for a grant; ``None`` for as long as it takes.
    :raises TypeError: if one of these is of a wrong type, or out of its bounds.
    """

    def __init__(
        self,
        waits: Waits,
        permits: Remote[Permits],
        lease: Lease,
        name: str,
        *,
        units: int = 1,
        capacity: int = 1,
        value: str = "",
        timeout_seconds: float | None = None,
    ) -> None:
        self._waits = waits
        self._permits = permits
        self._lease = lease
        self.name: str = check_name(name)
        self._capacity = check_whole_number(capacity, "capacity", CAPACITY_MAX)
        self._units, self._value = units, check_text(value)
        self._timeout_seconds = check_timeout(timeout_seconds)
        self._is_asking = False
        self._hold: Hold | None = None
        self._block: Block[Hold] = Block()

    @property
    def is_acquired(self) -> bool:
        """Whether this program holds it, as :meth:`Hold.still_held` says."""
        return self._hold is not None and self._hold.still_held()

    def acquire(self, timeout_seconds: float | None = None) -> Deferred[Hold]:
        """Wait for it. Cancelled, or after its time, the request is withdrawn; a hold that comes then is given back.

        :param timeout_seconds: how long to wait; what the object was made with if not given.
        :returns: fires with the hold; fails with:

            * :class:`~txpaxos.recipes.WaitTimedOut`: it was not granted in time.
            * :class:`~txpaxos.recipes.SessionOver`: the session is over.
            * :class:`~txpaxos.recipes.CapacityMismatch`: it is in use with another capacity.
            * :class:`~txpaxos.recipes.LimitReached`: there are too many requests.
        :raises AlreadyContending: if this object holds it or waits for it.
        """
        seconds = check_timeout(timeout_seconds)
        return self._ask(self._timeout_seconds if seconds is None else seconds, waits=True).addCallback(_held)

    def try_acquire(self) -> Deferred[Hold | None]:
        """Take it if it is free and none waits for it, or else leave no trace.

        :returns: fires with the hold, or with ``None``; fails as :meth:`acquire` does.
        :raises AlreadyContending: if this object holds it or waits for it.
        """
        return self._ask(self._timeout_seconds, waits=False)

    def release(self) -> Deferred[None]:
        """Release the hold of this object. See :meth:`Hold.release`; fails with Fenced if it has none."""
        hold, self._hold = self._hold, None
        return fail(Fenced(f"this object does not hold {self.name}")) if hold is None else hold.release()

    def contenders(self) -> Deferred[tuple[Contender, ...]]:
        """Those who hold it, and then those who wait for it, in the order of the line; a thousand of them at most."""
        return self._permits.contenders(self.name)

    async def __aenter__(self) -> Hold:
        return await self._block.enter(self.acquire, f"this object is in a block with {self.name} already")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hold = self._block.leave()
        if self._hold is hold:
            self._hold = None
        if not hold._is_released:
            await end_of_block(hold.release(), kind)

    # inside

    def _ask(self, timeout_seconds: float | None, waits: bool) -> Deferred[Hold | None]:
        if self._is_asking or self.is_acquired:
            raise AlreadyContending(f"this object holds {self.name}, or waits for it, already: make another one")
        if self._lease.is_over:
            return fail(SessionOver(f"the session {self._lease.session_id} is over: open a new one"))
        holder = self._lease.session_id, secrets.token_hex(8)

        def begin() -> Deferred[int | None]:
            asked = self._permits.acquire(self.name, *holder, self._units, self._capacity, self._value, waits)
            return asked if waits else asked.addCallback(lambda token: token or 0)

        def rest() -> Deferred[int]:
            standing = self._waits.until_granted(_WAITING, lambda one: one.token > 0, self._permits.standing, *holder)
            return standing.addCallback(_token)

        def withdraw() -> Deferred[bool]:
            return self._permits.withdraw(*holder)

        def granted(token: int) -> Hold | None:
            if not token:
                return None
            if not self._lease.lease_left_seconds:
                self._waits.insist(withdraw)
                raise SessionOver(f"{self.name} was granted, but the session is over")
            self._hold = Hold(self._waits, self._permits, self._lease, self.name, token)
            return self._hold

        def asked(result: Any) -> Any:
            self._is_asking = False
            return result

        waiting = wait_for(self._waits, begin, rest, withdraw, timeout_seconds, f"the permit {self.name}")
        self._is_asking = True  # Not before: the object must be free after a call that has raised.
        error = SessionOver(f"the session {self._lease.session_id} was over before {self.name} was granted")
        return ended_with(self._lease, waiting, error).addCallback(granted).addBoth(asked)


class Lock(Permit):
    """A lock: one holds it. Also a read or a write lock: all readers hold it together, or one writer alone.

    A request never overtakes another. So a writer that waits holds back the readers that come after it.
    """


class Semaphore(Permit):
    """A semaphore: as many hold it as its capacity says, which is the same for all who contend at one time."""


class Election(Permit):
    """An election: who holds it leads, and the others wait. ``value`` is what all can see of the leader."""

    def leader(self) -> Deferred[Contender | None]:
        """Who leads now; ``None`` if there is no leader."""
        return self._permits.holder(self.name)

    def leaders(self) -> Watch[Contender | None]:
        """Who leads, now and whenever that changes, for ``async for``. There may have been others in between."""
        return watch(self._permits.holder, self.name)


def _held(hold: Hold | None) -> Hold:
    assert hold is not None, "a request that waits ends with a hold"
    return hold


def _token(standing: Standing) -> int:
    if not standing.token:
        raise SessionOver("the request was over before it was granted: its session is over")
    return standing.token
