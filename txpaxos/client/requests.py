"""One request of a client, from the call that makes it to its answer, and which requests go to a node together.

:class:`~txpaxos.client.client.Client` makes them; the dispatcher sends and finishes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown, PaxosError
from txpaxos.wire.client_messages import (
    AcceptClock,
    Ask,
    BackupRequest,
    ChangeMembers,
    Forget,
    HandOver,
    KeepTimers,
    KeepTogether,
    MembersRequest,
    Read,
    Recall,
    ReloadKeys,
    StatusRequest,
)
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS

Message: TypeAlias = (
    Ask
    | Forget
    | Read
    | KeepTimers
    | KeepTogether
    | StatusRequest
    | ReloadKeys
    | AcceptClock
    | Recall
    | HandOver
    | MembersRequest
    | ChangeMembers
    | BackupRequest
)
"""What a request that is no command sends."""


@attrs.define(eq=False)
class Request:
    """A query, a question for a subject, for a node's status or for the members, a call to forget a subject or to keep
    timers alive, a change of the members, or the wish that a node lead, or read its keys again.

    :ivar number: the number under which the request is sent and answered. No other request of this client has it.
    :ivar message: what is sent; ``None`` for a command, which is sent in a run with others.
    :ivar answer: the Deferred that the caller has.
    :ivar size_bytes: bytes of the command, query or value.
    :ivar sendings: how often the request was sent: whether any node may have seen it, and whether more than one.
    :ivar deadline: the timer after which the request is given up, if it has one.
    :ivar is_pending: whether the request has no answer yet, and was not given up.
    :ivar progress: called with each new line that says how far the request has come, if the caller wants that.
    :ivar line: the last of these lines.
    :ivar waits: whether the node answers when something happens, so that silence is no fault of its.
    :ivar patience_seconds: how long the node may let the answer wait for others to come, so that silence is no fault
        either.
    """

    number: int
    message: Message | None
    answer: Deferred[Any]
    size_bytes: int
    sendings: int = 0
    deadline: IDelayedCall | None = None
    is_pending: bool = True
    progress: Callable[[str], None] | None = None
    line: str = ""
    waits: bool = False
    patience_seconds: float = 0.0

    @property
    def needs_leader(self) -> bool:
        """Whether a node that knows no leader cannot answer the request."""
        if isinstance(self.message, Read):
            return not self.message.local
        return not isinstance(self.message, StatusRequest | MembersRequest | Recall | ReloadKeys)

    @property
    def changes_state(self) -> bool:
        """Whether the request may have had its effect once it was sent, though no answer came."""
        message = self.message
        return (
            message is None or isinstance(message, Forget) or (isinstance(message, Ask) and message.value is not None)
        )

    def error_without_answer(self, findings: str) -> PaxosError:
        """The error with which the request fails when it is given up.

        :param findings: what each node was last found to be like.
        """
        if self.sendings and isinstance(self.message, HandOver):
            return OutcomeUnknown(f"no answer came; the lead may have been handed over or not ({findings})")
        if self.sendings and isinstance(self.message, ChangeMembers):
            return OutcomeUnknown(f"no answer came; the members may have changed or may yet ({findings})")
        if self.sendings and self.changes_state:
            done = "forgotten" if isinstance(self.message, Forget) else "decided"
            return OutcomeUnknown(f"no answer came; the subject may be {done} or not ({findings})")
        return NoQuorum(f"no answer came ({findings})")


@attrs.define(eq=False, kw_only=True)
class CommandRequest(Request):
    """A command.

    :ivar sequence: the command's place among all commands of this client, from 1 on.
    :ivar payload: the command itself.
    :ivar session: the session in which it is sent; empty until it is sent for the first time.
    :ivar span: names the client's span for it; empty if it has none, or one that is not sampled.
    """

    sequence: int
    payload: bytes
    session: bytes = b""
    span: bytes = b""

    def error_without_answer(self, findings: str) -> PaxosError:
        """The error with which the command fails when it is given up.

        :param findings: what each node was last found to be like.
        """
        if self.sendings:
            return OutcomeUnknown(f"no answer came; the command may have been applied or not ({findings})")
        return NotChosen(f"the command was not sent: no node took it in time ({findings})")

    def follows(self, other: CommandRequest) -> bool:
        """Whether this command may be the next one after ``other`` in a run."""
        return (
            self.sequence == other.sequence + 1
            and self.number == other.number + 1
            and self.session == other.session
            and bool(self.sendings) == bool(other.sendings)
        )


def grouped(requests: Iterable[Request]) -> Iterator[Request | list[CommandRequest]]:
    """``requests`` in their order: commands in runs, everything else by itself."""
    run: list[CommandRequest] = []
    room_bytes = RUN_BYTES
    for request in requests:
        if isinstance(request, CommandRequest):
            joins = run and request.follows(run[-1]) and request.size_bytes <= room_bytes and len(run) < RUN_COMMANDS
            if run and not joins:
                yield run
                run, room_bytes = [], RUN_BYTES
            run.append(request)
            room_bytes -= request.size_bytes
        else:
            if run:
                yield run
                run, room_bytes = [], RUN_BYTES
            yield request
    if run:
        yield run
