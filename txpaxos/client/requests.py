"""What a client has asked for and has no answer to yet, and which of it goes together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown, PaxosError
from txpaxos.wire.client_messages import Ask, Read, StatusRequest
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS


@attrs.define(eq=False)
class Request:
    """A request without an answer yet.

    :ivar message: what is sent; ``None`` for a command, which is sent in a run with others.
    :ivar sendings: how often it was sent: whether any node may have seen it, and whether more than one.
    """

    number: int
    message: Ask | Read | StatusRequest | None
    answer: Deferred[Any]
    size_bytes: int
    sendings: int = 0
    deadline: IDelayedCall | None = None

    @property
    def needs_leader(self) -> bool:
        """Whether a node that knows no leader cannot answer it."""
        return self.message is None or (isinstance(self.message, Read) and not self.message.local)

    @property
    def needs_quorum(self) -> bool:
        """Whether a node that is cut off from the others cannot answer it."""
        return self.needs_leader or isinstance(self.message, Ask)

    def unanswered(self, findings: str) -> PaxosError:
        """What to say when it is given up.

        :param findings: how each node was found to be.
        """
        if self.sendings and isinstance(self.message, Ask) and self.message.value is not None:
            return OutcomeUnknown(f"no answer came; the subject may be decided or not ({findings})")
        return NoQuorum(f"no answer came ({findings})")


@attrs.define(eq=False, kw_only=True)
class CommandRequest(Request):
    """A command. It has no session until it is sent for the first time."""

    sequence: int
    payload: bytes
    session: bytes = b""

    def unanswered(self, findings: str) -> PaxosError:
        """What to say when it is given up."""
        if self.sendings:
            return OutcomeUnknown(f"no answer came; the command may have been applied or not ({findings})")
        return NotChosen(f"the command was not sent: no node took it in time ({findings})")

    def follows(self, other: CommandRequest) -> bool:
        """Whether both may stand in one run, this one behind ``other``."""
        return (
            self.sequence == other.sequence + 1
            and self.number == other.number + 1
            and self.session == other.session
            and bool(self.sendings) == bool(other.sendings)
        )


def grouped(requests: Iterable[Request]) -> Iterator[Request | list[CommandRequest]]:
    """``requests`` in their order, each by itself but for commands, which stand in runs."""
    run: list[CommandRequest] = []
    room = RUN_BYTES
    for request in requests:
        if isinstance(request, CommandRequest):
            joins = run and request.follows(run[-1]) and request.size_bytes <= room and len(run) < RUN_COMMANDS
            if run and not joins:
                yield run
                run, room = [], RUN_BYTES
            run.append(request)
            room -= request.size_bytes
        else:
            if run:
                yield run
                run, room = [], RUN_BYTES
            yield request
    if run:
        yield run
