"""Parties, barriers and double barriers, as a program has them."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txpaxos.arguments import check_timeout
from txpaxos.recipes.arguments import check_name, check_text, check_whole_number
from txpaxos.recipes.block import AlreadyContending, Block
from txpaxos.recipes.lease import Lease, ended_with
from txpaxos.recipes.replicated.bounds import SessionOver
from txpaxos.recipes.replicated.gatherings import ROUND_MAX, Gatherings, Member
from txpaxos.recipes.waiting import Waits, end_of_block, wait_for
from txpaxos.service.declaration import Remote
from txpaxos.service.remote import watch
from txpaxos.service.watching import Watch

_NONE = "none"
"""No request has this name."""


class Party:
    """Who is there: each session that has joined, until it leaves or is over. ``async with`` joins and leaves.

    A session is a member once, whatever number of objects it has. So it is in one block of a party at a time.

    :param value: what others see of this member, such as its address.
    :param entered: the parties in whose blocks the session is.
    """

    def __init__(
        self,
        waits: Waits,
        gatherings: Remote[Gatherings],
        lease: Lease,
        name: str,
        value: str,
        entered: set[str],
    ) -> None:
        self._waits = waits
        self._gatherings = gatherings
        self._lease = lease
        self.name: str = check_name(name)
        self._value = check_text(value)
        self._entered = entered

    def join(self) -> Deferred[None]:
        """Be a member.

        :returns: fails with :class:`~txpaxos.recipes.SessionOver` if the session is over.
        """
        return self._gatherings.join(self.name, self._lease.session_id, self._value)

    def leave(self) -> Deferred[bool]:
        """Be no member any more; fires with whether this was one."""
        return self._waits.give_back(lambda: self._gatherings.leave_party(self.name, self._lease.session_id))

    def members(self) -> Deferred[tuple[Member, ...]]:
        """Those who are there, a thousand of them at most."""
        return self._gatherings.members_of(self.name)

    def changes(self) -> Watch[tuple[Member, ...]]:
        """Those who are there, now and whenever that changes, for ``async for``."""
        return watch(self._gatherings.members_of, self.name)

    async def __aenter__(self) -> Party:
        if self.name in self._entered:
            raise AlreadyContending(f"this session is in a block of the party {self.name} already")
        self._entered.add(self.name)
        try:
            await self.join()
        except BaseException:
            self._entered.discard(self.name)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.discard(self.name)
        await _left(self._lease, self.leave(), kind)


class Barrier:
    """A gate: while it is closed, all who come to it wait."""

    def __init__(self, waits: Waits, gatherings: Remote[Gatherings], lease: Lease, name: str) -> None:
        self._waits = waits
        self._gatherings = gatherings
        self._lease = lease
        self.name: str = check_name(name)

    def create(self, *, outlives_session: bool = False) -> Deferred[bool]:
        """Close it.

        :param outlives_session: whether it stays closed when the session of this program is over.
        :returns: fires with whether it was open before.
        """
        return self._gatherings.create(self.name, "" if outlives_session else self._lease.session_id)

    def remove(self) -> Deferred[bool]:
        """Open it, also if another has closed it; fires with whether it was closed."""
        return self._waits.give_back(lambda: self._gatherings.remove(self.name))

    def wait(self, timeout_seconds: float | None = None) -> Deferred[None]:
        """Wait until it is open.

        :returns: fails with :class:`~txpaxos.recipes.WaitTimedOut` after that time.
        """
        seconds = check_timeout(timeout_seconds)
        opened = self._waits.until(lambda is_closed: not is_closed, self._gatherings.is_closed, self.name)
        return self._waits.within(opened, seconds, f"the opening of {self.name}").addCallback(lambda _: None)


class DoubleBarrier:
    """For a number of programs that begin together, and end together. ``async with`` enters and leaves it.

    One whose session is over does not count, and is not waited for. One that comes while the others are within has the
    next round. An object takes part once at a time, and is in one block at a time.
    """

    def __init__(
        self,
        waits: Waits,
        gatherings: Remote[Gatherings],
        lease: Lease,
        name: str,
        count: int,
        timeout_seconds: float | None,
    ) -> None:
        self._waits = waits
        self._gatherings = gatherings
        self._lease = lease
        self.name: str = check_name(name)
        self._count = check_whole_number(count, "count", ROUND_MAX)
        self._request: str | None = None
        self._block: Block[tuple[int, str | None]] = Block()
        self._timeout_seconds = check_timeout(timeout_seconds)

    def enter(self) -> Deferred[int]:
        """Wait until as many are there as must be.

        Cancelled, or after its time, this one counts no more.

        :returns: fires with the number of the round, which is higher than that of every earlier one; fails with:

            * :class:`~txpaxos.recipes.WaitTimedOut`: they did not come in time.
            * :class:`~txpaxos.recipes.SessionOver`: the session is over.
            * :class:`~txpaxos.recipes.CapacityMismatch`: others use it for another number.
        :raises AlreadyContending: if this object takes part already.
        """
        if self._request is not None:
            raise AlreadyContending(f"this object takes part in {self.name} already: make another one")
        if self._lease.is_over:
            return fail(SessionOver(f"the session {self._lease.session_id} is over: open a new one"))

        request = secrets.token_hex(8)
        holder = self._lease.session_id, request

        def begin() -> Deferred[int | None]:
            return self._gatherings.enter(self.name, *holder, self._count)

        def rest() -> Deferred[int]:
            begun = self._waits.until_granted(0, lambda number: bool(number), self._gatherings.standing, *holder)
            return begun.addCallback(_begun)

        def failed(failure: Failure) -> Failure:
            self._request = None
            return failure

        what = f"the round of {self.name}"
        withdraw = lambda: self._gatherings.leave(*holder)  # noqa: E731
        waiting = wait_for(self._waits, begin, rest, withdraw, self._timeout_seconds, what)
        self._request = request  # Not before: the object must be free after a call that has raised.
        error = SessionOver(f"the session {self._lease.session_id} was over before {what} began")
        return ended_with(self._lease, waiting, error).addErrback(failed)

    def leave(self) -> Deferred[None]:
        """Leave, and wait until all others have, too.

        :returns: fails with :class:`~txpaxos.recipes.WaitTimedOut` if they do not in time, and with
            :class:`~txpaxos.recipes.SessionOver` if the session is over before.
        """
        left: list[int] = []
        holder, self._request = (self._lease.session_id, self._request or _NONE), None

        def withdraw() -> Deferred[int | None]:
            return self._gatherings.leave(*holder)

        def begin() -> Deferred[bool | None]:
            return withdraw().addCallback(noted)

        def noted(number: int | None) -> bool | None:
            left.extend([] if number is None else [number])
            return None if left else True

        def rest() -> Deferred[bool]:
            ended = self._waits.until(lambda number: number != left[0], self._gatherings.open_round, self.name)
            return ended.addCallback(lambda _: True)

        what = f"the end of the round of {self.name}"
        waiting = wait_for(self._waits, begin, rest, withdraw, self._timeout_seconds, what)
        error = SessionOver(f"the session {self._lease.session_id} was over before {what}")
        return ended_with(self._lease, waiting, error).addCallback(lambda _: None)

    async def __aenter__(self) -> int:
        def begin() -> Deferred[tuple[int, str | None]]:
            return self.enter().addCallback(lambda number: (number, self._request))

        number, _ = await self._block.enter(begin, f"this object is in a block of {self.name} already")
        return number

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave. After an error this does not wait for the others."""
        _, request = self._block.leave()
        if request is not None and request == self._request:
            left: Deferred[Any] = self.leave() if kind is None else self._left_at_once(request)
            await _left(self._lease, left, kind)

    def _left_at_once(self, request: str) -> Deferred[int | None]:
        self._request = None
        session_id = self._lease.session_id
        return self._waits.give_back(lambda: self._gatherings.leave(session_id, request))


async def _left(lease: Lease, left: Deferred[Any], kind: type[BaseException] | None) -> None:
    """The end of a block. After an error in it, this waits for nodes only as long as the session lives."""
    if kind is not None:
        left = ended_with(lease, left, SessionOver("the session is over"))
    await end_of_block(left, kind)


def _begun(number: int | None) -> int:
    if number is None:
        raise SessionOver("the round did not begin before the session was over")
    return number
