"""The calls that a program and clients make to a node: submit, read, ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txpaxos.arguments import check_consistency, check_deadline, checked_bytes, checked_subject, checked_value
from txpaxos.clock import MonotonicClock
from txpaxos.core.messages import NodeId
from txpaxos.errors import NodeStopped, NoQuorum, OutcomeUnknown, PaxosError, ValueTooLarge
from txpaxos.node.asks import Asks
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.keep_alives import KeepAlives, Kept
from txpaxos.node.local_session import LocalSession
from txpaxos.node.reads import Reads
from txpaxos.node.sealing import Sealing
from txpaxos.node.sessions import Outcomes
from txpaxos.node.submissions import Submissions
from txpaxos.reading import Consistency, Reading
from txpaxos.wire.commands import Run, check_run
from txpaxos.wire.registers import SUBJECT_BYTES_MAX

T = TypeVar("T")

WRONG_SUBJECT = f"a subject has 1 to {SUBJECT_BYTES_MAX} bytes"


class Calls:
    """Checks the arguments of each call, and passes the call on to the part that answers it.

    :param name: this node's id.
    :param limits: the bounds on commands, queries and values.
    :param wanted: called when a command was submitted, so that the node proposes or forwards it soon.
    """

    def __init__(
        self,
        name: NodeId,
        clock: MonotonicClock,
        limits: CommandLimits,
        session: LocalSession,
        submissions: Submissions,
        asks: Asks,
        reads: Reads,
        sealing: Sealing,
        keep_alives: KeepAlives,
        wanted: Callable[[], None],
    ) -> None:
        self._name = name
        self._clock = clock
        self._bytes_max = limits.command_bytes_max
        self._session = session
        self._submissions = submissions
        self._asks = asks
        self._reads = reads
        self._sealing = sealing
        self._keep_alives = keep_alives
        self._wanted = wanted
        self._is_closed = False

    def __len__(self) -> int:
        """The number of commands without an outcome."""
        return len(self._submissions) + len(self._session)

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have ``command`` applied. See :meth:`PaxosProtocol.submit <txpaxos.protocol.PaxosProtocol.submit>`."""
        command, deadline_seconds = checked_bytes(command, "a command"), check_deadline(deadline_seconds)
        if self._is_closed:
            return fail(self._stopped("submit to another"))
        self._wanted()
        error = OutcomeUnknown("no outcome came in time; the command may have been applied or not")
        return self._within(deadline_seconds, self._session.submit(command), error)

    def submit_run(self, run: Run) -> Deferred[Outcomes]:
        """Have the commands of another session applied.

        :returns: fires with their outcomes; fails as :meth:`submit` does, for all of them.
        :raises TypeError: if ``run`` is none, or what is in it is of a wrong type.
        :raises ValueError: if it has no command, or its session or numbers are none.
        """
        check_run(run)
        if self._is_closed:
            return fail(self._stopped("submit to another"))
        self._wanted()
        return self._submissions.submit_run(run)

    def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> Deferred[bytes | None]:
        """Have ``subject`` decided. See :meth:`PaxosProtocol.ask <txpaxos.protocol.PaxosProtocol.ask>`."""
        subject, value = checked_subject(subject), checked_value(value)
        deadline_seconds = check_deadline(deadline_seconds)
        if self._is_closed:
            return fail(self._stopped("ask another"))
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(WRONG_SUBJECT))
        size = len(value or b"")
        if size > self._bytes_max:
            return fail(ValueTooLarge(f"the value has {size} bytes and may have {self._bytes_max}"))
        error: PaxosError = NoQuorum("no quorum answered in time")
        if value is not None:
            error = OutcomeUnknown("no quorum answered in time; the subject may be decided or not")
        return self._within(deadline_seconds, self._asks.ask(subject, value), error)

    def forget(
        self,
        subject: str,
        deadline_seconds: float | None = None,
        session: bytes | None = None,
        sequence: int = 1,
    ) -> Deferred[bytes | None]:
        """Make ``subject`` undecided. See :meth:`PaxosProtocol.forget <txpaxos.protocol.PaxosProtocol.forget>`.

        :param session: the session of a client, so that a call that is sent again forgets once.
        :param sequence: the number of the call in that session.
        """
        subject, deadline_seconds = checked_subject(subject), check_deadline(deadline_seconds)
        if self._is_closed:
            return fail(self._stopped("ask another"))
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(WRONG_SUBJECT))
        error = OutcomeUnknown("no quorum answered in time; the subject may be forgotten or not")
        return self._within(deadline_seconds, self._asks.forget(subject, session, sequence), error)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Have ``query`` answered. See :meth:`PaxosProtocol.read <txpaxos.protocol.PaxosProtocol.read>`."""
        query, consistency = checked_bytes(query, "a query"), check_consistency(consistency)
        deadline_seconds = check_deadline(deadline_seconds)
        if self._is_closed:
            return fail(self._stopped("ask another"))
        size = len(query)
        if size > self._bytes_max:
            return fail(ValueTooLarge(f"the query has {size} bytes and may have {self._bytes_max}"))
        answer = self._reads.read(query, consistency)
        return self._within(deadline_seconds, answer, NoQuorum("no quorum answered in time"))

    def keep_alive(self, number: int, names: Sequence[str | int], owner: str = "", together: int = 0) -> Deferred[Kept]:
        """Keep timers alive. See :meth:`KeepAlives.keep_alive <txpaxos.node.keep_alives.KeepAlives.keep_alive>`."""
        if self._is_closed:
            return fail(self._stopped("ask another"))
        return self._keep_alives.keep_alive(number, names, owner, together)

    def closers(self) -> tuple[Callable[[], None], ...]:
        """What answers the callers that still wait, since this node stops: one function for each part that has some.
        From this call on no other caller is accepted."""
        self._is_closed = True
        error = NodeStopped(f"node {self._name} stopped before it had the outcome")
        parts = (self._session, self._submissions, self._asks, self._reads, self._sealing, self._keep_alives)
        return tuple(partial(part.close, error) for part in parts)

    def close(self) -> None:
        """Answer all callers that still wait, since this node stops."""
        for close in self.closers():
            close()

    def _stopped(self, hint: str) -> NodeStopped:
        return NodeStopped(f"node {self._name} is stopping; {hint}")

    def _within(self, seconds: float | None, answer: Deferred[T], error: PaxosError) -> Deferred[T]:
        """``answer``, which fails with ``error`` if it takes longer than ``seconds``."""
        if seconds is None:
            return answer
        return answer.addTimeout(seconds, self._clock, lambda _, __: Failure(error))
