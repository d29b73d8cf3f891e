"""A watched query, as its caller has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from txpaxos.errors import QueryFailed
from txpaxos.reading import Reading
from txpaxos.service.calls import ResultReader, WrongResult
from txpaxos.service.declaration import R
from txpaxos.service.watches import answer_of, encode_watch


class Watch(Generic[R]):
    """The answers of a query, for ``async for``. :func:`~txpaxos.service.remote.watch` makes it.

    :param ask: makes a query.
    :param call: the call that is watched.
    :param read: reads its result.
    """

    def __init__(self, ask: Callable[[bytes], Deferred[Reading]], call: bytes, read: ResultReader) -> None:
        self._ask = ask
        self._call = call
        self._read = read
        self._known = b""
        self._asked: Deferred[Reading] | None = None
        self._is_closed = False

    def __aiter__(self) -> Watch[R]:
        return self

    async def __anext__(self) -> R:
        while not self._is_closed:
            asked = self._asked = self._ask(encode_watch(self._known, self._call))
            try:
                reading = await asked
            except CancelledError:
                if self._is_closed:
                    break
                raise
            finally:
                self._asked = None
            try:
                digest, data = answer_of(reading.result)
                if data is None or digest == self._known:
                    continue
                self._known = digest
                result: R = self._read(msgspec.msgpack.decode(data))
            except (WrongResult, TypeError, msgspec.MsgspecError) as error:
                raise QueryFailed(f"{error}: does the node run another release of the service?") from None
            return result
        raise StopAsyncIteration

    def next(self) -> Deferred[R]:
        """The next answer, for a program without coroutines. Cancel it to end the wait."""
        return Deferred.fromCoroutine(self.__anext__())

    def close(self) -> None:
        """End the watch. One that is waited for ends as if there were no more answers."""
        self._is_closed = True
        if self._asked is not None:
            self._asked.cancel()

    async def aclose(self) -> None:
        """End the watch, as that of an asynchronous generator."""
        self.close()
