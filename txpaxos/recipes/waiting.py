"""Waits at a client for what the state grants: each can be cancelled, may time out, and leaves nothing in the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txpaxos.errors import NotChosen, OutcomeUnknown, Overloaded, PaxosError
from txpaxos.service.declaration import RemoteMethod
from txpaxos.service.remote import watch
from txpaxos.service.watching import Watch, begin_after

P = ParamSpec("P")
R = TypeVar("R")

INSIST_AGAIN_SECONDS = 1.0


MAY_COME_YET = (Overloaded, NotChosen, OutcomeUnknown)
"""With these a request fails that the nodes have not refused, as after a deadline."""


class WaitTimedOut(PaxosError, TimeoutError):
    """What was waited for did not come in time. The wait was withdrawn: if it is granted in this very moment, it is
    given back."""


def wait_for(
    waits: Waits,
    begin: Callable[[], Deferred[R | None]],
    rest: Callable[[], Deferred[R]],
    withdraw: Callable[[], Deferred[Any]],
    timeout_seconds: float | None,
    what: str,
) -> Deferred[R]:
    """Wait for what a request is granted, at once or later.

    The request is withdrawn if the wait ends without a grant: it is cancelled, times out, or fails. That is done behind
    the request, which is never cancelled itself. Otherwise it could be applied after its own withdrawal.

    :param begin: sends the request; fires with what is granted at once, or with ``None``.
    :param rest: waits for what is granted later. It is cancelled if the wait ends before.
    :param withdraw: has the state forget the request, and what it was granted. It is called as :meth:`Waits.insist`
        calls it.
    :param timeout_seconds: how long to wait; ``None`` for as long as it takes.
    :param what: what is waited for, for the text of the error.
    :returns: fires with the grant; fails with :class:`WaitTimedOut`, or with what ``begin`` or ``rest`` fail with.
    """
    return _Wait(waits, begin(), rest, withdraw, timeout_seconds, what).result


class Waits:
    """How the recipes of one program wait.

    :param is_closed: whether the program's client can do nothing more.
    """

    def __init__(self, clock: IReactorTime, is_closed: Callable[[], bool]) -> None:
        self.clock = clock
        self._is_closed = is_closed

    def insist(self, request: Callable[[], Deferred[Any]]) -> None:
        """Make a request without which something would stay in the state that its program has given up.

        It is made again until the nodes have done or refused it. With a closed client nothing can be done any more, and
        the session ends by itself.
        """
        request().addErrback(self._insist_again, request)

    def give_back(self, request: Callable[[], Deferred[R]]) -> Deferred[R]:
        """Make a request that others wait for. Its caller may give up, or be told that no node has taken it in time; it
        goes on behind all the same."""

        def again(failure: Failure) -> Failure:
            if failure.check(*MAY_COME_YET, CancelledError):
                self.insist(request)
            return failure

        return request().addErrback(again)

    def _insist_again(self, failure: Failure, request: Callable[[], Deferred[Any]]) -> None:
        if failure.check(*MAY_COME_YET) and not self._is_closed():
            self.clock.callLater(INSIST_AGAIN_SECONDS, self.insist, request)

    def until(
        self, is_done: Callable[[R], bool], method: RemoteMethod[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]:
        """Watch a query until its answer is what is waited for, and fire with that. Cancel it to end the wait."""
        return Deferred.fromCoroutine(_until(is_done, watch(method, *args, **kwargs)))

    def until_granted(
        self,
        waiting: R,
        is_granted: Callable[[R], bool],
        method: RemoteMethod[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[R]:
        """Watch how a request stands that was not granted at once, and fire with how it stands when it waits no more.

        The nodes are not asked first how it stands. So one that lags may say that there is no such request. Then they
        are asked once more, in a way that none which lags can answer.

        :param waiting: how it stands while it waits, which the answer to the request has said.
        :param is_granted: whether it was granted: that is so, and was not before, whichever node says it.
        """

        def begin() -> Watch[R]:
            return watch(method, *args, **kwargs)

        return Deferred.fromCoroutine(_until_granted(waiting, is_granted, begin))

    def within(self, waiting: Deferred[R], timeout_seconds: float | None, what: str) -> Deferred[R]:
        """End a wait that leaves nothing in the state after some time.

        :param timeout_seconds: how long to wait; ``None`` for as long as it takes.
        :param what: what is waited for, for the text of the error.
        :returns: ``waiting``; it fails with :class:`WaitTimedOut` after its time.
        """
        if timeout_seconds is None:
            return waiting

        def timed_out(result: object, seconds: float) -> R:
            raise _timed_out(what, seconds)

        return waiting.addTimeout(timeout_seconds, self.clock, timed_out)


async def _until(is_done: Callable[[R], bool], watched: Watch[R]) -> R:
    async for answer in watched:
        if is_done(answer):
            return answer
    raise AssertionError("a watch that is not closed has no end")


async def _until_granted(waiting: R, is_granted: Callable[[R], bool], begin: Callable[[], Watch[R]]) -> R:
    standing = await _until(lambda one: one != waiting, begin_after(begin(), waiting))
    return standing if is_granted(standing) else await _until(lambda one: one != waiting, begin())


def _timed_out(what: str, seconds: float) -> WaitTimedOut:
    return WaitTimedOut(f"{what} did not come within {seconds:g} s")


class _Wait(Generic[R]):
    """One wait."""

    def __init__(
        self,
        waits: Waits,
        begun: Deferred[R | None],
        rest: Callable[[], Deferred[R]],
        withdraw: Callable[[], Deferred[Any]],
        timeout_seconds: float | None,
        what: str,
    ) -> None:
        self._waits = waits
        self._rest = rest
        self._withdraw = withdraw
        self._resting: Deferred[Any] | None = None
        self._has_begun = self._is_over = False
        self._alarm: IDelayedCall | None = None
        self.result: Deferred[R] = Deferred(lambda _: self._give_up(CancelledError()))
        if timeout_seconds is not None:
            self._alarm = waits.clock.callLater(timeout_seconds, self._give_up, _timed_out(what, timeout_seconds))
        begun.addCallbacks(self._begun, self._not_begun)

    def _begun(self, grant: R | None) -> None:
        self._has_begun = True
        if self._is_over:
            self._forget()
        elif grant is not None:
            self._end(grant)
        else:
            self._resting = self._rest()
            self._resting.addCallbacks(self._end, self._failed)

    def _not_begun(self, failure: Failure) -> None:
        self._has_begun = True
        if failure.check(OutcomeUnknown):
            self._forget()
        if not self._is_over:
            self._end(failure)

    def _failed(self, failure: Failure) -> None:
        if not self._is_over:  # Otherwise it was cancelled here.
            self._forget()
            self._end(failure)

    def _give_up(self, error: Exception) -> None:
        self._is_over = True
        if self._resting is not None:
            self._resting.cancel()
        if self._has_begun:
            self._forget()
        self._end(Failure(error))

    def _end(self, result: R | Failure) -> None:
        self._is_over = True
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        if isinstance(result, Failure):
            self.result.errback(result)
        else:
            self.result.callback(result)

    def _forget(self) -> None:
        self._waits.insist(self._withdraw)


async def end_of_block(ended: Deferred[Any], kind: type[BaseException] | None) -> None:
    """The end of an ``async with``.

    :param ended: fires when what the block had is given back.
    :param kind: of the error in the block, if there was one. That error is the one to tell then, and not one of
        ``ended``: what the block had ends by itself, too.
    """
    if kind is None:
        await ended
    elif kind is GeneratorExit:  # A coroutine that is closed cannot wait.
        ended.addErrback(passed_over)
    else:
        await ended.addErrback(passed_over)


def passed_over(failure: Failure) -> None:
    """For an error that need not be told: what was to be ended ends by itself."""
