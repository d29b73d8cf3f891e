"""Who at this node waits for the answer to which question about a subject."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from twisted.internet.defer import Deferred

from txpaxos.core.ready import AskAnswered
from txpaxos.errors import PaxosError


class Questions:
    """The questions that have no answer yet.

    :param forget: called with the number of a question that is cancelled.
    """

    def __init__(self, forget: Callable[[int], None]) -> None:
        self._forget = forget
        self._waiting: dict[int, Deferred[bytes | None]] = {}
        self._numbers = itertools.count(1)

    def add(self) -> tuple[int, Deferred[bytes | None]]:
        """A question: its number, and what fires with its answer."""
        number = next(self._numbers)

        def cancel(_: Deferred[bytes | None]) -> None:
            del self._waiting[number]
            self._forget(number)

        answer = self._waiting[number] = Deferred(cancel)
        return number, answer

    def answer(self, answered: AskAnswered) -> None:
        """There is the answer."""
        waiter = self._waiting.pop(answered.question, None)
        if waiter is not None:
            waiter.callback(answered.value)

    def close(self, error: PaxosError) -> None:
        """Nobody gets an answer from here any more."""
        while self._waiting:  # One by one: whoever hears of it may cancel another.
            self._waiting.pop(next(iter(self._waiting))).errback(error)
