"""The session of a node's own program: its commands, numbered, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txpaxos.errors import PaxosError, SessionExpired
from txpaxos.node.sessions import Failed, Outcomes, value_of
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS, Run, new_session


class _Submitted(NamedTuple):
    """A command without an outcome yet."""

    payload: bytes
    answer: Deferred[Any]


class LocalSession:
    """Makes runs out of what the program of this node submits.

    :param take: has a run applied.
    :param refusal: why more cannot be taken, as :meth:`txpaxos.node.submissions.Submissions.refusal`.
    :param applied_through: how far this node has applied the log.
    :ivar name: of the session; ``None`` before the first command.
    """

    def __init__(
        self,
        rng: Random,
        take: Callable[[Run], Deferred[Outcomes]],
        refusal: Callable[[int, int, int], PaxosError | None],
        applied_through: Callable[[], int],
    ) -> None:
        self._rng = rng
        self._take = take
        self._refusal = refusal
        self._applied_through = applied_through
        self.name: bytes | None = None
        self._waiting_bytes = 0
        self._waiting: list[_Submitted] = []
        self._next_sequence = 1
        self._unanswered: dict[int, None] = {}

    def __len__(self) -> int:
        """The commands that :meth:`flush` has not yet made a run of."""
        return len(self._waiting)

    def submit(self, payload: bytes) -> Deferred[Any]:
        """Have ``payload`` applied, once :meth:`flush` is called. Fires with the result, fails with the error that
        stands for the outcome."""
        size = len(payload)
        refusal = self._refusal(len(self._waiting) + 1, self._waiting_bytes + size, size)
        if refusal is not None:
            return fail(refusal)
        answer: Deferred[Any] = Deferred()
        self._waiting.append(_Submitted(payload, answer))
        self._waiting_bytes += size
        return answer

    def flush(self) -> None:
        """Have what was submitted applied, in runs."""
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        part: list[_Submitted] = []
        room = RUN_BYTES
        for one in waiting:
            if part and (len(one.payload) > room or len(part) == RUN_COMMANDS):
                self._submit(part)
                part, room = [], RUN_BYTES
            part.append(one)
            room -= len(one.payload)
        if part:
            self._submit(part)

    def close(self, error: Exception) -> None:
        """Nobody makes a run any more of what waits for that."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.answer.errback(error)

    def _submit(self, part: list[_Submitted]) -> None:
        if self.name is None:
            self.name = new_session(self._rng.getrandbits(128).to_bytes(16, "big"), self._applied_through())
        acknowledged = next(iter(self._unanswered), self._next_sequence) - 1
        run = Run(self.name, self._next_sequence, acknowledged, tuple(one.payload for one in part))
        self._next_sequence += len(part)
        self._unanswered.update(dict.fromkeys(run.sequences))
        self._take(run).addBoth(self._answer, run, part)

    def _answer(self, outcomes: Outcomes | Failure, run: Run, part: list[_Submitted]) -> None:
        for sequence in run.sequences:
            del self._unanswered[sequence]
        if isinstance(outcomes, Failure):
            for one in part:
                one.answer.errback(outcomes)
            return
        for one, outcome in zip(part, outcomes, strict=True):
            if isinstance(outcome, Failed) and outcome.error is SessionExpired:
                self.name = None  # Later commands have a session of their own.
            try:
                value = value_of(outcome)
            except PaxosError as error:
                one.answer.errback(error)
            else:
                one.answer.callback(value)
