"""A watched query, as its caller has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from txpaxos.errors import QueryFailed
from txpaxos.reading import Consistency, Reading
from txpaxos.service.calls import ResultReader, WrongResult
from txpaxos.service.watches import WAIT_SECONDS, answer_of, digest_of_answer, encode_watch

T = TypeVar("T")
Ask = Callable[[bytes, Consistency, float | None], Deferred[Reading]]


class LongPoll:
    """Asks for an answer of a call until it is another one than the caller has.

    :param ask: makes a query.
    :param deadline_seconds: how long an answer may take that need not be waited for; no limit if not given.
    """

    def __init__(self, ask: Ask, deadline_seconds: float | None) -> None:
        self._ask = ask
        self._seconds = deadline_seconds
        self._wait_from: int | None = None
        self._asked: Deferred[Reading] | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Do not wait at a node that may not have what another request has done."""
        self._wait_from = None

    def wait_anywhere(self) -> None:
        """Wait at whatever node is asked, be it one that lags."""
        self._wait_from = 0

    async def answer(self, known: bytes, call: bytes, waits_max: int | None = None) -> tuple[bytes, bytes] | None:
        """The digest of the next answer, and its MessagePack.

        :param known: the digest of the answer that the caller has.
        :param waits_max: after how many waits in vain to give up; never if not given.
        :returns: ``None`` if it was given up.
        :raises StopAsyncIteration: if this is closed.
        """
        in_vain = 0
        while not self._is_closed:
            if in_vain == waits_max:
                return None
            waits, self._wait_from = self._wait_from, None  # If this fails, the next one does not wait.
            query = encode_watch(known, call, waits)
            if waits is None:
                asked = self._ask(query, "linearizable", self._seconds)
            else:
                asked = self._ask(query, "local", self._seconds and self._seconds + WAIT_SECONDS)
            reading = await self._result(asked)
            if reading is None:
                break
            try:
                digest, data, slot = answer_of(reading.result)
            except TypeError as error:
                raise QueryFailed(f"{error}: does the node run another release of txpaxos?") from None
            if data is not None:
                self._wait_from = slot
                return digest, data
            if waits is None:
                self._wait_from = slot
            else:
                in_vain += 1
        raise StopAsyncIteration

    async def _result(self, asked: Deferred[Reading]) -> Reading | None:
        """``None`` if this was closed meanwhile."""
        self._asked = asked
        try:
            return await asked
        except CancelledError:
            if self._is_closed:
                return None
            raise
        finally:
            self._asked = None

    def close(self) -> None:
        """Wait no more."""
        self._is_closed = True
        if self._asked is not None:
            self._asked.cancel()


class Watch(Generic[T]):
    """The answers of a query, for ``async for``. :func:`~txpaxos.service.remote.watch` makes it.

    :param poll: asks for them.
    :param call: the call that is watched.
    :param read: reads its result.
    """

    def __init__(self, poll: LongPoll, call: bytes, read: ResultReader) -> None:
        self._poll = poll
        self._call = call
        self._read = read
        self._known = b""

    def __aiter__(self) -> Watch[T]:
        return self

    async def __anext__(self) -> T:
        found = await self._poll.answer(self._known, self._call)
        assert found is not None
        self._known, data = found
        try:
            result: T = self._read(msgspec.msgpack.decode(data))
        except (WrongResult, msgspec.MsgspecError) as error:
            raise QueryFailed(f"{error}: does the node run another release of the service?") from None
        return result

    def next(self) -> Deferred[T]:
        """The next answer, for a program without coroutines. Cancel it to end the wait."""
        return Deferred.fromCoroutine(self.__anext__())

    def close(self) -> None:
        """End the watch. One that is waited for ends as if there were no more answers."""
        self._poll.close()

    async def aclose(self) -> None:
        """End the watch, as that of an asynchronous generator."""
        self.close()


def begin_after(watch: Watch[T], answer: T) -> Watch[T]:
    """Have a watch begin with another answer than this one, which the caller knows otherwise.

    So no node is asked first what there is: that would take it a round trip to a quorum. The node that is asked may
    lag, and the answer that it gives may be older than this one.

    :returns: that very watch.
    """
    watch._known = digest_of_answer(answer)
    watch._poll.wait_anywhere()
    return watch
