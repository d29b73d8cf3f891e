"""The lease of a session: it is kept alive, and its loss is told before another can have what the session held."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.recipes.lease_keeper import LeaseKeeper
from txpaxos.recipes.replicated.sessions import Sessions, timer_of
from txpaxos.recipes.waiting import end_of_block
from txpaxos.service.declaration import Remote

_log = Logger()

SessionState: TypeAlias = Literal["held", "suspended", "lost", "closed"]
"""``suspended``: no node has confirmed it for two thirds of its time; begin nothing new. ``lost``: others may have, or
soon will have, what it held. ``closed``: its own program has ended it."""

SUSPENDED = 2 / 3
LOST = 0.99
"""Parts of the time that a session may be silent, counted from when the last keep-alive that was confirmed was sent:
when the session is suspended, and when it is lost."""


class Lease:
    """What a program knows of a session of its own: how long it may rely on it.

    :ivar session_id: what the nodes call it. Another process can go on with it, see ``Recipes.resume``.
    :ivar ttl_seconds: it ends when the nodes have not heard of it for so long.
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        clock: IReactorTime,
        sessions: Remote[Sessions],
        session_id: str,
        ttl_seconds: float,
        seconds: Callable[[], float],
        confirmed_at: float,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._sessions = sessions
        self.session_id = session_id
        self.ttl_seconds = ttl_seconds
        self._told: SessionState = "held"
        self._confirmed_at = confirmed_at
        self._watchers: list[Callable[[SessionState], object]] = []
        self._alarm: IDelayedCall | None = None
        self._set_alarm()
        self._stop_keeping = keeper.keep(timer_of(session_id), ttl_seconds, confirmed_at, self._answered)

    @property
    def state(self) -> SessionState:
        """How it is, as far as this program knows: it is never ``held`` of one that may have ended.

        It goes by the clock. After this process was stopped or busy, watchers may be told a moment later.
        """
        if self._told in ("lost", "closed"):
            return self._told
        if not self._left(LOST):
            return "lost"
        return "held" if self._left(SUSPENDED) else "suspended"

    @property
    def lease_left_seconds(self) -> float:
        """How long it is at least until another may have what the session holds; 0 if it is over."""
        return 0.0 if self.is_over else self._left(LOST)

    @property
    def is_over(self) -> bool:
        """Whether it is lost or closed."""
        return self.state in ("lost", "closed")

    def watch(self, watcher: Callable[[SessionState], object]) -> Callable[[], None]:
        """Call ``watcher`` with the new state whenever it changes, until what this returns is called."""
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    def over(self) -> Deferred[SessionState]:
        """Fires when the session is lost or closed, with which of them it is; at once if it is over."""
        over: Deferred[SessionState] = Deferred(lambda _: stop())
        if self.is_over:
            over.callback(self.state)
            return over

        def changed(state: SessionState) -> None:
            if self.is_over:
                stop()
                over.callback(state)

        stop = self.watch(changed)
        return over

    def close(self) -> Deferred[bool]:
        """End the session, and with it what belongs to it.

        :returns: fires with whether it was still open.
        """
        if self._told not in ("lost", "closed"):
            self._end("closed")
        return self._sessions.close(self.session_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # It ends by itself if no node can be told.
        closed = self.close().addTimeout(self.ttl_seconds, self._clock, lambda _, __: False)
        await end_of_block(closed, kind)

    # inside

    def _left(self, part: float) -> float:
        return max(0.0, self._confirmed_at + part * self.ttl_seconds - self._seconds())

    def _answered(self, is_kept: bool, sent_at: float) -> None:
        if self.is_over or not is_kept:  # By the clock, which may say so before the alarm does: that is final.
            self._end("lost")
            return
        self._confirmed_at = sent_at
        self._set_alarm()
        self._set_state("held")

    def _set_alarm(self) -> None:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = self._clock.callLater(self._left(SUSPENDED), self._suspend)

    def _suspend(self) -> None:
        self._alarm = self._clock.callLater(self._left(LOST), self._end, "lost")
        self._set_state("suspended")

    def _end(self, state: SessionState) -> None:
        self._stop_keeping()
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._set_state(state)

    def _set_state(self, state: SessionState) -> None:
        if state == self._told:
            return
        self._told = state
        for watcher in list(self._watchers):
            try:
                watcher(state)
            except Exception:  # The others must hear of it, and it must go on.
                _log.failure(
                    "what watches the session {session_id} has failed",
                    session_id=self.session_id,
                    event="session_watcher_raised",
                )


def ended_with(lease: Lease, waiting: Deferred[Any], error: Exception) -> Deferred[Any]:
    """``waiting``, which is cancelled and fails with ``error`` if the session is over before."""
    is_over = False

    def changed(state: SessionState) -> None:
        nonlocal is_over
        if lease.is_over:
            is_over = True
            waiting.cancel()

    def ended(result: Any) -> Any:
        stop()
        if is_over and isinstance(result, Failure) and result.check(CancelledError):
            raise error
        return result

    stop = lease.watch(changed)
    return waiting.addBoth(ended)
