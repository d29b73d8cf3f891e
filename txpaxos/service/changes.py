"""Each change of the answer to a query, as its caller has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred

from txpaxos.errors import Overloaded, QueryFailed, WatchBehind
from txpaxos.service.calls import FAILED_CODE, ResultReader, WrongResult
from txpaxos.service.kept_changes import DIGEST_OF_NOTHING, KEPT_SECONDS, Changes, encode_keep, encode_question
from txpaxos.service.watches import WAIT_SECONDS
from txpaxos.service.watching import LongPoll

T = TypeVar("T")
QUIET_WAITS_MAX = int(KEPT_SECONDS / WAIT_SECONDS / 4)
"""After this number of waits without a change the call is kept anew: idle nodes do not see time pass."""


@attrs.frozen
class Change(Generic[T]):
    """A change of the answer to a query.

    :ivar version: its number. Those of later changes are higher, not one higher.
    :ivar answer: the answer from then on.
    """

    version: int
    answer: T


class EachChange(Generic[T]):
    """Each change of the answer to a query, for ``async for``. :func:`~txpaxos.service.remote.each_change` makes it.

    :param poll: asks for them.
    :param submit: has a command applied.
    :param call: the call whose answer changes.
    :param read: reads its result.
    :ivar version: the version of the last change that was given, for a later :meth:`after`; ``None`` before.
    """

    def __init__(self, poll: LongPoll, submit: Callable[[bytes], Deferred[Any]], call: bytes, read: ResultReader):
        self.version: int | None = None
        self._poll = poll
        self._submit = submit
        self._call = call
        self._read = read
        self._asks_after: int | None = None
        self._is_due = False  # Whether the call must be kept anew.
        self._ready: deque[tuple[int, bytes]] = deque()

    def after(self, version: int) -> EachChange[T]:
        """Go on after a change that was seen earlier, perhaps by another process.

        :param version: that of the change.
        :returns: this very object.
        :raises TypeError: if ``version`` is no int.
        :raises ValueError: if it is below zero, or has more than 64 bits.
        """
        if isinstance(version, bool) or not isinstance(version, int):
            raise TypeError(f"a version must be an int, not {type(version).__name__}")
        if not 0 <= version < 2**64:
            raise ValueError(f"a version has 64 bits, and is not below zero: {version}")
        self.version = self._asks_after = version
        self._is_due = False
        self._ready.clear()
        return self

    def __aiter__(self) -> EachChange[T]:
        return self

    async def __anext__(self) -> Change[T]:
        while not self._ready:
            await self._fetch()
        self.version, data = self._ready.popleft()
        try:
            result = msgspec.msgpack.decode(data)
            if isinstance(result, msgspec.msgpack.Ext) and result.code == FAILED_CODE:
                raise QueryFailed(f"{bytes(result.data).decode()}: the query has raised it at the nodes")
            answer: T = self._read(result)
        except (WrongResult, msgspec.MsgspecError) as error:
            raise QueryFailed(f"{error}: does the node run another release of the service?") from None
        return Change(self.version, answer)

    async def _fetch(self) -> None:
        """Ask for the changes after those that were fetched."""
        after = self._asks_after
        if after is None or self._is_due:
            first = await self._keep()
            if after is None:
                after = self._asks_after = first
        question = encode_question(self._call, after)
        found = await self._poll.answer(DIGEST_OF_NOTHING, question, QUIET_WAITS_MAX)
        if found is None:
            self._is_due = True
            return
        try:
            word, number, some = msgspec.msgpack.decode(found[1], type=Changes)
        except msgspec.MsgspecError as error:
            raise QueryFailed(f"{error}: does the node run another release of txpaxos?") from None
        if word == "kept":
            self._is_due = bool(number)
            self._ready.extend(some)
            self._asks_after = some[-1][0] if some else after
        elif self.version is None:  # The caller has seen nothing yet, so it can begin with what there is now.
            self._asks_after = None
        else:
            raise WatchBehind(_behind(word, number, after))

    async def _keep(self) -> int:
        """Have the call kept from now on, or for longer. The version after which to ask first."""
        found = await self._submit(encode_keep(self._call))
        if isinstance(found, str):
            raise Overloaded(found)
        if not isinstance(found, int):
            raise QueryFailed(f"{found!r:.100} is no version: does the node run another release of txpaxos?")
        self._is_due = False
        self._poll.begin()  # A node that lags may not know of it yet.
        return found

    def next(self) -> Deferred[Change[T]]:
        """The next change, for a program without coroutines. Cancel it to end the wait: no change is lost by that."""
        return Deferred.fromCoroutine(self.__anext__())

    def close(self) -> None:
        """End the watch. One that is waited for ends as if there were no more changes."""
        self._poll.close()

    async def aclose(self) -> None:
        """End the watch, as that of an asynchronous generator."""
        self.close()


def _behind(word: str, number: int, after: int) -> str:
    what = {
        "never": f"no change of this cluster has had version {after}, and the last one had {number}: is it another one,"
        " or was it restored or recovered?",
        "behind": f"changes after version {after} are gone, up to version {number}",
        "dropped": f"changes after version {after} are gone, since for {KEPT_SECONDS:g} s no caller has asked for them",
    }.get(word, f"the node says {word!r:.40}")
    return f"{what}; begin anew, with an each_change() that is after no version"
