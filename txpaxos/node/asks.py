"""Who at this node waits for the answer to which question about a subject."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from twisted.internet.defer import Deferred

from txpaxos.core.ready import AskAnswered
from txpaxos.errors import PaxosError


class Questions:
    """The questions that have no answer yet. Those that are asked before the node starts wait for it.

    :param ask: called with the number, the subject and the value of each question.
    :param forget: called with the number of a question that was asked and is cancelled.
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
        """This node has its state: ask what was asked before that."""
        self._started = True
        while self._early:
            number = next(iter(self._early))
            self._ask(number, *self._early.pop(number))

    def answer(self, answered: AskAnswered) -> None:
        """There is the answer."""
        waiter = self._waiting.pop(answered.question, None)
        if waiter is not None:
            waiter.callback(answered.value)

    def close(self, error: PaxosError) -> None:
        """Nobody gets an answer from here any more."""
        self._early.clear()
        while self._waiting:  # One by one: whoever hears of it may cancel another.
            self._waiting.pop(next(iter(self._waiting))).errback(error)
