"""The session of a node's own program: its commands, numbered, and what became of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from txpaxos.sessions import Outcome
from txpaxos.wire.commands import Command, new_session


class LocalSession:
    """Makes commands out of what the program of this node submits.

    :param take: has a command applied.
    :param applied_through: how far this node has applied the log.
    :ivar name: of the session; ``None`` before the first command.
    """

    def __init__(
        self, rng: Random, take: Callable[[Command], Deferred[Outcome]], applied_through: Callable[[], int]
    ) -> None:
        self._rng = rng
        self._take = take
        self._applied_through = applied_through
        self.name: bytes | None = None
        self._sequences = itertools.count(1)
        self._unanswered: dict[int, None] = {}

    def submit(self, payload: bytes) -> Deferred[Any]:
        """Have ``payload`` applied. Fires with the result, fails with the error that stands for the outcome."""
        if self.name is None:
            self.name = new_session(self._rng.getrandbits(128).to_bytes(16, "big"), self._applied_through())
        sequence = next(self._sequences)
        self._unanswered[sequence] = None
        acknowledged = next(iter(self._unanswered)) - 1

        def answer(outcome: Any) -> Any:
            del self._unanswered[sequence]
            if not isinstance(outcome, Outcome):
                return outcome
            if outcome.expired:  # Later commands have a session of their own.
                self.name = None
            return outcome.value()

        return self._take(Command(self.name, sequence, acknowledged, payload)).addBoth(answer)
