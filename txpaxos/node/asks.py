"""The asks of callers at this node that have no answer yet."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from twisted.internet.defer import Deferred

from txpaxos.core.ready import AskAnswered
from txpaxos.errors import PaxosError


class PendingAsks:
    """The asks that have no answer yet. Those that come before the node has started wait until it has.

    :param ask: called with the number, the subject and the value of each ask.
    :param forget: called with the number of an ask that is under way and is cancelled.
    """

    def __init__(self, ask: Callable[[int, str, bytes | None], None], forget: Callable[[int], None]) -> None:
        self._ask = ask
        self._forget = forget
        self._started = False
        self._early: dict[int, tuple[str, bytes | None]] = {}
        self._waiting: dict[int, Deferred[bytes | None]] = {}
        self._numbers = itertools.count(1)

    def ask(self, subject: str, value: bytes | None) -> Deferred[bytes | None]:
        """Ask about ``subject``. Fires with the answer."""
        number = next(self._numbers)

        def cancel(_: Deferred[bytes | None]) -> None:
            del self._waiting[number]
            if self._early.pop(number, None) is None:
                self._forget(number)

        answer = self._waiting[number] = Deferred(cancel)
        if self._started:
            self._ask(number, subject, value)
        else:
            self._early[number] = subject, value
        return answer

    def start(self) -> None:
        """The node has loaded its state: ask what was asked before."""
        self._started = True
        while self._early:
            number = next(iter(self._early))
            self._ask(number, *self._early.pop(number))

    def answer(self, answered: AskAnswered) -> None:
        """The core has an answer: give it to the caller that waits for it, if the caller has not cancelled."""
        waiter = self._waiting.pop(answered.question, None)
        if waiter is not None:
            waiter.callback(answered.value)

    def close(self, error: PaxosError) -> None:
        """The node stops: every ask without an answer fails with ``error``."""
        self._early.clear()
        while self._waiting:  # One by one: a caller that is told may cancel another ask.
            self._waiting.pop(next(iter(self._waiting))).errback(error)
