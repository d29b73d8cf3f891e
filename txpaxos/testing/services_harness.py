"""Typed services in unit tests: on no node, with time that the test lets pass."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.task import Clock

from txpaxos.errors import CallRefused, CommandFailed, QueryFailed
from txpaxos.node.timers import Timers
from txpaxos.reading import Consistency, Reading
from txpaxos.replicated_time import ReplicatedTime
from txpaxos.service.application import ServiceApplication, application_of
from txpaxos.service.calls import plain
from txpaxos.service.declaration import Remote, S, Service
from txpaxos.service.remote import remote_service
from txpaxos.wire.stamps import KeptAlive


class ServicesHarness:
    """Some typed services, as on one node: calls are encoded and decoded, and timers fire as time passes.

    .. code-block:: python

        harness = ServicesHarness(Sessions, Locks)
        locks = harness.service(Locks)
        assert harness.result(locks.acquire("reports", "me")) == 1
        harness.advance(30.0)

    :param kinds: services that are called by the names of their classes.
    :param named: services that are called otherwise.
    :ivar application: what a node would run.
    :ivar slot: the slot of the last command.
    """

    def __init__(self, *kinds: type[Service], **named: type[Service]) -> None:
        self._kind = application_of(*kinds, **named)
        self._clock = Clock()
        self._slots = itertools.count(1)
        self.slot = 0
        self.application = self._made()
        self.timers.now = ReplicatedTime(0, 0)

    def _made(self) -> ServiceApplication:
        application: Any = self._kind()
        application.clock = self._clock
        made: ServiceApplication = application
        return made

    @property
    def timers(self) -> Timers:
        """The timers of all services."""
        return self.application.timers

    @property
    def now(self) -> ReplicatedTime:
        """The replicated time."""
        return self.timers.now

    def service(self, kind: type[S], name: str | None = None) -> Remote[S]:
        """The calls of a service, as a client has them. Each gives a Deferred, which has fired unless it waits."""
        return remote_service(self, kind, name)

    def state_of(self, kind: type[S], name: str | None = None) -> S:
        """The object that has the state of a service."""
        return self.application.state_of(kind, name)

    @staticmethod
    def result(deferred: Deferred[Any]) -> Any:
        """What a call has returned.

        :raises AssertionError: if it has no answer yet.
        :raises Exception: what it has raised.
        """
        answers: list[Any] = []
        deferred.addCallbacks(answers.append, answers.append)
        assert answers, "there is no answer yet"
        (answer,) = answers
        if hasattr(answer, "raiseException"):
            answer.raiseException()
        return answer

    def advance(self, seconds: float) -> None:
        """Let time pass, and have what is due fire when it is due, each in a slot of its own time."""
        end = self.now.elapsed_ms + round(seconds * 1000)
        while (due_ms := self.timers.next_due_ms) is not None and due_ms <= end:
            self._advance_to(max(due_ms, self.now.elapsed_ms))
        self._advance_to(end)

    def keep_alive(self, *names: str) -> None:
        """Keep timers alive, as clients do. The names are those on the node, as ``"Sessions/me"``."""
        kept = [
            KeptAlive(name, timer.number + 1) for name in names if (timer := self.timers.kept_alive(name)) is not None
        ]
        self._fire(self.timers.advance(self.now, kept))

    def snapshot_and_restore(self) -> None:
        """Go on with another node, which starts from a snapshot of this one."""
        chunks, timers = list(self.application.snapshot()), list(self.timers.dump())
        self.application = self._made()
        for chunk in timers:
            self.timers.add(chunk)
        self.application.restore(iter(chunks))
        assert list(self.application.snapshot()) == chunks, "the state has not come back as it was"

    # as a client

    def submit(self, command: bytes, deadline_seconds: float | None = None, /) -> Deferred[Any]:
        """Have a command applied."""
        self.slot = next(self._slots)
        return execute(self._apply, command).addBoth(self._turned)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None, /
    ) -> Deferred[Reading]:
        """Have a query answered."""
        answer = maybeDeferred(self._query, query)
        return answer.addCallback(lambda result: Reading(plain(result), self.slot))

    # inside

    def _apply(self, command: bytes) -> Any:
        try:
            return plain(self.application.apply(self.slot, command))
        except CallRefused:
            raise
        except Exception as error:
            raise CommandFailed(f"{type(error).__name__}: {error}") from error

    def _query(self, query: bytes) -> Any:
        try:
            return self.application.query(query)
        except CallRefused:
            raise
        except Exception as error:
            raise QueryFailed(f"{type(error).__name__}: {error}") from error

    def _turned(self, result: Any) -> Any:
        """The reactor's next turn."""
        self._clock.advance(0)
        return result

    def _advance_to(self, elapsed_ms: int) -> None:
        seconds = (elapsed_ms - self.now.elapsed_ms) / 1000
        self._fire(self.timers.advance(ReplicatedTime(elapsed_ms, elapsed_ms)))
        self._clock.advance(seconds)

    def _fire(self, fired: Any) -> None:
        self.slot = next(self._slots)
        for name, payload in fired:
            self.application.timer_fired(self.slot, name, payload)
        self._clock.advance(0)
