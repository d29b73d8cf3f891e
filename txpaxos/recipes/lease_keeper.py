"""Keeps the leases of a program alive: those of about the same time in one message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txpaxos.client.client import Client

KEEP_ALIVE, RETRY = 0.4, 0.05
"""Parts of the time of a lease: after which it is kept alive again, and how soon after a failure that is tried anew."""

TOGETHER_MAX = 1024
"""How many leases go in one message at most. A client takes no more."""

Answered: TypeAlias = Callable[[bool, float], object]
"""Is told whether a lease is kept, and when the keep-alive was sent. What is confirmed holds from then on, and not from
when the answer came."""


class LeaseKeeper:
    """Keeps leases alive.

    Leases of about the same time are a group, in which none takes twice the time of another. When one of them is due,
    all go in the same message. So they are due together from then on, and cost the nodes no more than one. Each has an
    answer of its own: those of which it is late are left out of the next message.

    :param client: asks the nodes.
    :param clock: for what is to be done later.
    :param seconds: the time that leases go by.
    """

    def __init__(self, client: Client, clock: IReactorTime, seconds: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._seconds = seconds
        self._groups: dict[int, _Group] = {}

    def keep(self, timer: str, ttl_seconds: float, kept_at: float, answered: Answered) -> Callable[[], None]:
        """Keep a lease alive, until what this returns is called.

        :param timer: the timer that ends it at the nodes.
        :param ttl_seconds: it ends when the nodes have not heard of it for so long.
        :param kept_at: when what confirmed it last was sent.
        :param answered: called with each answer. When none comes, the nodes are asked anew.
        """
        size = int(1000 * ttl_seconds).bit_length()
        group = self._groups.get(size)
        if group is None:
            group = self._groups[size] = _Group(self._client, self._clock, self._seconds)
        lease = _Lease(timer, ttl_seconds, answered)
        group.add(lease, kept_at)
        return lambda: group.remove(lease)


@attrs.define(eq=False)
class _Lease:
    """One lease.

    :ivar message: the keep-alive whose answer it awaits; ``None`` if it awaits none.
    """

    timer: str
    ttl_seconds: float
    answered: Answered
    message: _Message | None = None


@attrs.define(eq=False)
class _Message:
    """A keep-alive on its way.

    :ivar awaiting: the leases that await its answer.
    """

    awaiting: dict[_Lease, None]
    answer: Deferred[Any] | None = None


class _Group:
    """Leases that go in one message. The parameters are those of :class:`LeaseKeeper`."""

    def __init__(self, client: Client, clock: IReactorTime, seconds: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._seconds = seconds
        self._leases: dict[_Lease, None] = {}
        self._next: IDelayedCall | None = None
        self._next_at = 0.0

    def add(self, lease: _Lease, kept_at: float) -> None:
        """Keep one more lease alive."""
        self._leases[lease] = None
        self._keep_by(kept_at + KEEP_ALIVE * lease.ttl_seconds)

    def remove(self, lease: _Lease) -> None:
        """Do not keep ``lease`` alive any more."""
        self._leases.pop(lease, None)
        if not self._leases and self._next is not None:
            self._next.cancel()
            self._next = None
        message, lease.message = lease.message, None
        if message is not None:
            del message.awaiting[lease]
            if not message.awaiting and message.answer is not None:
                message.answer.cancel()

    def _keep_by(self, due_at: float) -> None:
        """Send the next message at ``due_at`` at the latest."""
        if self._next is not None:
            if due_at >= self._next_at:
                return
            self._next.cancel()
        self._next_at = due_at
        self._next = self._clock.callLater(max(0.0, due_at - self._seconds()), self._keep_alive)

    def _keep_alive(self) -> None:
        self._next = None
        leases = [lease for lease in self._leases if lease.message is None]
        for start in range(0, len(leases), TOGETHER_MAX):
            self._send(leases[start : start + TOGETHER_MAX])

    def _send(self, leases: list[_Lease]) -> None:
        message, sent_at = _Message(dict.fromkeys(leases)), self._seconds()
        by_timer: dict[str, list[_Lease]] = {}
        for lease in leases:
            lease.message = message
            by_timer.setdefault(lease.timer, []).append(lease)

        def told(timer: str, is_kept: bool) -> None:
            for lease in by_timer[timer]:
                if lease.message is message:
                    self._answered(lease, is_kept, sent_at)
                    del message.awaiting[lease]  # Not before: a message is not cancelled while it tells its answer.

        deadline_seconds = KEEP_ALIVE * min(lease.ttl_seconds for lease in leases)
        message.answer = self._client.keep_alive([*by_timer], deadline_seconds, told)
        message.answer.addBoth(lambda _: self._ended(message))

    def _answered(self, lease: _Lease, is_kept: bool, sent_at: float) -> None:
        lease.message = None
        lease.answered(is_kept, sent_at)
        if lease in self._leases:  # What it has told its watchers may have ended it.
            self._keep_by(sent_at + KEEP_ALIVE * lease.ttl_seconds)

    def _ended(self, message: _Message) -> None:
        """Ask again soon about those of which no answer has come."""
        for lease in message.awaiting:
            lease.message = None
            self._keep_by(self._seconds() + RETRY * lease.ttl_seconds)
