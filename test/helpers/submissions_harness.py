"""Submissions, with a log whose leader is the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from test.helpers.fakes import outcome_of, unpack
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Chosen
from txpaxos.node.applier import Applier
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.sessions import Failed, Outcome, Outcomes, Sessions, encode_result
from txpaxos.node.submissions import Submissions
from txpaxos.wire.commands import Run, decode_batch, encode_batch, new_session

SESSION, OTHER = new_session(b"1" * 16, 0), new_session(b"2" * 16, 0)


def command(sequence: int, payload: bytes = b"x", session: bytes = SESSION, acknowledged: int = 0) -> Run:
    """A run of one."""
    return Run(session, sequence, acknowledged, (payload,))


def run(sequence: int, *payloads: bytes, session: bytes = SESSION, acknowledged: int = 0) -> Run:
    return Run(session, sequence, acknowledged, payloads)


class SubmissionsHarness:
    """Submissions, with a log whose leader is the test.

    :ivar apply_seconds: how long each command takes to apply.
    """

    def __init__(self, leading: bool, **limits: Any) -> None:
        self.seconds = self.apply_seconds = 0.0
        self.applier = Applier(self._apply, monotonic=lambda: self.seconds)
        self.applied: list[bytes] = []
        self.submissions = Submissions(
            self.applier, CommandLimits(**{"forward_bytes_per_second": float("inf"), **limits})
        )
        if leading:
            self.submissions.become_leader()

    def take(self, *runs: Run) -> list[Deferred[Outcomes]]:
        return [self.submissions.submit_run(one) for one in runs]

    def _apply(self, slot: Slot, payload: bytes) -> str:
        self.applied.append(payload)
        self.seconds += self.apply_seconds
        return payload.decode()

    def next_batch(self) -> tuple[Run, ...]:
        value = self.submissions.next_value()
        return () if value is None else decode_batch(value[0])

    def apply(self, *runs: Run) -> None:
        """A slot with ``runs`` is chosen."""
        chosen = Chosen(self.applier.applied_through + 1, encode_batch(runs))
        for one, outcomes in self.applier.apply(chosen):
            self.submissions.complete(one, outcomes)


def sequences(runs: Sequence[Run]) -> list[int]:
    return [sequence for one in runs for sequence in one.sequences]


def results(*values: object) -> list[Outcome]:
    return [encode_result(value) for value in values]


def error_in(waiting: Deferred[Outcomes]) -> type[Exception]:
    """The error of the only command of a run."""
    (outcome,) = unpack(outcome_of(waiting))
    assert isinstance(outcome, Failed)
    return outcome.error


def expire(harness: SubmissionsHarness) -> None:
    """The table holds one session, and the first is forgotten for another."""
    harness.applier.sessions = Sessions(sessions_max=1)
    harness.apply(command(1))
    harness.apply(command(1, session=OTHER))
