"""Requests as the budget counts them. :mod:`~txpaxos.server.connection` makes a task of each request that comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from txpaxos.node.backups import PART_BYTES
from txpaxos.wire.client_messages import (
    AcceptClock,
    Ask,
    BackupRequest,
    ChangeMembers,
    Forget,
    HandOver,
    Join,
    KeepTimers,
    KeepTogether,
    MembersRequest,
    Read,
    Recall,
    ReloadKeys,
    Request,
    StatusRequest,
    Submit,
)

TIMER_BYTES = 300
"""The memory that a timer takes which a client waits for, beside its name."""


class Task(NamedTuple):
    """A message of a client that asks for something.

    :ivar message: what the client sent.
    :ivar requests: how many requests that is: a run of commands is as many as it has commands.
    :ivar size_bytes: the memory that it takes, roughly.
    """

    message: Request
    requests: int
    size_bytes: int

    @classmethod
    def of(cls, request: Request) -> Task:
        """``request`` with what it counts as."""
        match request:
            case Submit():
                return cls(request, len(request.commands), sum(map(len, request.commands)))
            case Ask():
                return cls(request, 1, len(request.value or b"") + len(request.subject))
            case Forget():
                return cls(request, 1, len(request.subject))
            case Read():
                return cls(request, 1, len(request.query))
            case KeepTimers():
                return cls(request, 1, sum(map(len, request.names)) + TIMER_BYTES * len(request.names))
            case KeepTogether():
                return cls(request, 1, TIMER_BYTES)
            case (
                StatusRequest() | Recall() | ReloadKeys() | AcceptClock() | Join() | MembersRequest() | ChangeMembers()
            ):
                return cls(request, 1, 0)
            case HandOver():
                return cls(request, 1, len(request.to))
            case BackupRequest():
                return cls(request, 1, PART_BYTES)


def needs_others(request: Request) -> bool:
    """Whether a request has to wait for this node's disk, or for other nodes."""
    is_about_this_node = isinstance(request, StatusRequest | MembersRequest | Recall | ReloadKeys)
    return not (is_about_this_node or (isinstance(request, Read) and request.local))


def single_commands(request: Request) -> Iterator[Submit]:
    """The commands of a run, each as a request of its own."""
    assert isinstance(request, Submit)
    for index, command in enumerate(request.commands):
        number, sequence = request.request + index, request.sequence + index
        yield Submit(number, request.session, sequence, request.acknowledged, (command,))
