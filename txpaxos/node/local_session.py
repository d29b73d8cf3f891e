"""The session of a node's own program: numbers its commands, makes runs of them, and hands their results back."""

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
    """Makes runs of the commands that the program of this node submits.

    All commands of one reactor iteration become one run, up to the limits of a run.

    :param submit_run: has a run applied.
    :param refusal: why no more commands can be taken; see :meth:`txpaxos.node.submissions.Submissions.refusal`.
    :param applied_through: the last slot that this node has applied.
    :param mark: the end of the session's name, which says what its commands are for; the application if empty.
    :ivar name: the session's name; ``None`` before the first command.
    """

    def __init__(
        self,
        rng: Random,
        submit_run: Callable[[Run], Deferred[Outcomes]],
        refusal: Callable[[int, int, int], PaxosError | None],
        applied_through: Callable[[], int],
        mark: bytes = b"",
    ) -> None:
        self._rng = rng
        self._submit_run = submit_run
        self._refusal = refusal
        self._applied_through = applied_through
        self._mark = mark
        self.name: bytes | None = None
        self._waiting_bytes = 0
        self._waiting: list[_Submitted] = []
        self._next_sequence = 1
        self._unanswered: dict[int, None] = {}

    def __len__(self) -> int:
        """How many commands wait for :meth:`flush`."""
        return len(self._waiting)

    def submit(self, payload: bytes) -> Deferred[Any]:
        """Have ``payload`` applied once :meth:`flush` is called.

        :returns: fires with the result, or fails with the error that is the command's outcome.
        """
        size = len(payload)
        refusal = self._refusal(len(self._waiting) + 1, self._waiting_bytes + size, size)
        if refusal is not None:
            return fail(refusal)
        answer: Deferred[Any] = Deferred()
        self._waiting.append(_Submitted(payload, answer))
        self._waiting_bytes += size
        return answer

    def flush(self) -> None:
        """Submit the commands that wait, in as few runs as possible."""
        if not self._waiting:
            return
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
        """The node stops: the commands that still wait for :meth:`flush` fail with ``error``."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.answer.errback(error)

    def _submit(self, part: list[_Submitted]) -> None:
        if self.name is None:
            random_bytes = self._rng.getrandbits(128).to_bytes(16, "big")
            self.name = new_session(random_bytes, self._applied_through()) + self._mark
        acknowledged = next(iter(self._unanswered), self._next_sequence) - 1
        run = Run(self.name, self._next_sequence, acknowledged, tuple(one.payload for one in part))
        self._next_sequence += len(part)
        self._unanswered.update(dict.fromkeys(run.sequences))
        self._submit_run(run).addBoth(self._answer, run, part)

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
