"""One who watches, in tests."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

ENDS = CancelledError, StopAsyncIteration
"""With these a watch ends; after other errors it goes on."""


class Watcher:
    """Takes what a watch gives, one answer after the other.

    :ivar got: the answers, and the errors between them.
    """

    def __init__(self, watched: Any) -> None:
        self.watched = watched
        self.got: list[Any] = []
        self._go_on()

    @property
    def answers(self) -> list[Any]:
        """The answers alone."""
        return [one for one in self.got if not isinstance(one, BaseException)]

    @property
    def errors(self) -> list[Any]:
        """The errors alone, but for the end."""
        return [one for one in self.got if isinstance(one, BaseException) and not isinstance(one, ENDS)]

    def _go_on(self) -> None:
        self.waiting: Deferred[Any] = self.watched.next()
        self.waiting.addCallbacks(self._take, self._fail)

    def _take(self, answer: Any) -> None:
        self.got.append(answer)
        self._go_on()

    def _fail(self, failure: Any) -> None:
        self.got.append(failure.value)
        if not isinstance(failure.value, ENDS):
            self._go_on()
