"""A queue as a program has it: values go in, and one taker at a time has each until it is acknowledged."""

from __future__ import annotations

import math
import secrets
from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail

from txpaxos.arguments import check_seconds, check_timeout
from txpaxos.recipes.arguments import check_name
from txpaxos.recipes.block import Block
from txpaxos.recipes.lease import ended_with
from txpaxos.recipes.replicated.bounds import SessionOver
from txpaxos.recipes.replicated.queues import PRIORITY_DEFAULT, Delivery, Depth, Queues, Standing, TakeOver
from txpaxos.recipes.session import Session, check_session
from txpaxos.recipes.values import Values
from txpaxos.recipes.waiting import Waits, end_of_block, passed_over, wait_for
from txpaxos.service.declaration import Remote

T = TypeVar("T")

_WAITING = Standing(True, None)


class Queue(Generic[T]):
    """A queue: first in, first out, those with a lower priority before others.

    Each method gives a Deferred, and raises TypeError or ValueError at the call if an argument is wrong.
    """

    def __init__(self, waits: Waits, queues: Remote[Queues], name: str, kind: type[T]) -> None:
        self._waits = waits
        self._queues = queues
        self.name: str = check_name(name)
        self._values = Values(kind, f"the queue {name}")

    def put(self, value: T, priority: int = PRIORITY_DEFAULT) -> Deferred[int]:
        """Put a value behind those of the same priority.

        :param priority: 0 to 999; what is lower is taken first.
        :returns: fires with a number that is higher for each later item; fails with
            :class:`~txpaxos.recipes.LimitReached` if there are too many items.
        """
        return self._queues.put(self.name, self._values.encoded(value), priority)

    def take(
        self, session: Session, visible_after_seconds: float = 60.0, timeout_seconds: float | None = None
    ) -> Take[T]:
        """Take the first item, or wait for one.

        .. code-block:: python

            async with jobs.take(session) as job:    # acknowledged at the end, or given back on an error
                await work(job.value)

            job = await jobs.take(session)           # acknowledged by hand
            await job.acknowledge()

        :param session: if it ends, the item is in the queue again.
        :param visible_after_seconds: so long after it was taken, the item is in the queue again unless it was
            acknowledged. It may be a little longer.
        :param timeout_seconds: how long to wait for an item; ``None`` for as long as it takes.
        """
        visible_ms = math.ceil(check_seconds(visible_after_seconds, "visible_after_seconds") * 1000)
        seconds = check_timeout(timeout_seconds)
        return Take(self._waits, self._queues, self._values, self.name, check_session(session), visible_ms, seconds)

    def depth(self) -> Deferred[Depth]:
        """How many items are ready and how many are taken, and how many requests wait for one."""
        return self._queues.depth(self.name)

    def limit_deliveries(self, deliveries_max: int, dead_letters: str) -> Deferred[None]:
        """Have an item that comes back after its ``deliveries_max``-th delivery go to another queue.

        :param deliveries_max: 0 for no limit, as at first.
        :param dead_letters: the name of that queue. There an item is new: its deliveries count from 1. So two queues
            that send each other what comes back keep it for ever.
        :raises ValueError: if that is this very queue.
        """
        if dead_letters == self.name and deliveries_max:
            raise ValueError(f"the queue {self.name} cannot have its own dead letters: they would never leave it")
        return self._queues.limit_deliveries(self.name, deliveries_max, dead_letters)


class Taken(Generic[T]):
    """An item in the hands of this program.

    :ivar value: what was put.
    :ivar token: rises with every delivery of any item, and names this one. What is done with the item can carry it, so
        that who is late can be refused.
    :ivar deliveries: how many times the item was delivered, this one included.
    """

    def __init__(self, queues: Remote[Queues], session_id: str, value: T, delivery: Delivery) -> None:
        self._queues = queues
        self._session_id = session_id
        self.value = value
        self.token = delivery.token
        self.priority = delivery.priority
        self.deliveries = delivery.deliveries
        self.is_done = False

    def acknowledge(self) -> Deferred[None]:
        """Say that the item is done with. It is in no queue any more.

        :returns: fails with :class:`~txpaxos.recipes.TakeOver` if the take is over: another may have the item.
        """
        self.is_done = True
        return self._queues.acknowledge(self.token, self._session_id)

    def give_back(self) -> Deferred[None]:
        """Have the item in its old place in the queue again.

        :returns: fails with :class:`~txpaxos.recipes.TakeOver` if the take is over.
        """
        self.is_done = True
        return self._queues.give_back(self.token, self._session_id)

    def extend(self, visible_after_seconds: float) -> Deferred[None]:
        """Keep the item for so long from now on.

        :returns: fails with :class:`~txpaxos.recipes.TakeOver` if the take is over.
        """
        seconds = check_seconds(visible_after_seconds, "visible_after_seconds")
        return self._queues.extend(self.token, self._session_id, math.ceil(seconds * 1000))


class Take(Generic[T]):
    """A request to take an item. It is made when it is awaited, or entered with ``async with``: each time anew.

    It is in one block at a time.
    """

    def __init__(
        self,
        waits: Waits,
        queues: Remote[Queues],
        values: Values[T],
        name: str,
        session: Session,
        visible_ms: int,
        timeout_seconds: float | None,
    ) -> None:
        self._waits = waits
        self._queues = queues
        self._values = values
        self._name = name
        self._session = session
        self._visible_ms = visible_ms
        self._timeout_seconds = timeout_seconds
        self._block: Block[Taken[T]] = Block()

    def start(self) -> Deferred[Taken[T]]:
        """Make the request.

        :returns: fires with the item. Cancelled, or after its time, the request is withdrawn. It fails with:

            * :class:`~txpaxos.recipes.WaitTimedOut`: no item came in time.
            * :class:`~txpaxos.recipes.SessionOver`, :class:`~txpaxos.recipes.TakeOver`: the session is over.
            * :class:`~txpaxos.recipes.LimitReached`: there are too many requests.
            * :class:`~txpaxos.recipes.WrongValue`: the item is of another type. It is given back.
        """
        session_id = self._session.session_id
        if self._session.is_over:
            return fail(SessionOver(f"the session {session_id} is over: open a new one"))
        holder = session_id, secrets.token_hex(8)

        def begin() -> Deferred[Delivery | None]:
            return self._queues.take(self._name, *holder, self._visible_ms)

        def rest() -> Deferred[Delivery]:
            standing = self._waits.until_granted(
                _WAITING, lambda one: one.delivery is not None, self._queues.standing, *holder
            )
            return standing.addCallback(_delivered)

        what = f"an item of the queue {self._name}"
        granted = wait_for(
            self._waits, begin, rest, lambda: self._queues.withdraw(*holder), self._timeout_seconds, what
        )
        error = SessionOver(f"the session {session_id} was over before there was {what}")
        return ended_with(self._session, granted, error).addCallback(self._decoded)

    def __await__(self) -> Generator[Deferred[Taken[T]], Any, Taken[T]]:
        return self.start().__await__()

    async def __aenter__(self) -> Taken[T]:
        return await self._block.enter(self.start, f"this take of the queue {self._name} is in a block already")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        taken = self._block.leave()
        if not taken.is_done:
            await end_of_block(taken.acknowledge() if kind is None else taken.give_back(), kind)

    def _decoded(self, delivery: Delivery) -> Taken[T]:
        session_id = self._session.session_id
        try:
            return Taken(self._queues, session_id, self._values.decoded(delivery.data), delivery)
        except Exception:
            self._queues.give_back(delivery.token, session_id).addErrback(passed_over)
            raise


def _delivered(standing: Standing) -> Delivery:
    if standing.delivery is None:
        raise TakeOver("the take was over before this program was told of an item: its session or its time is over")
    return standing.delivery
