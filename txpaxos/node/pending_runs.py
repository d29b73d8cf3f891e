"""The runs that callers at this node submitted and that have no outcome yet.

A caller submits a run and gets the outcomes of all its commands together. The log may hold the same commands in other
runs: a client that lost its connection sends the commands that have no outcome yet in new runs, perhaps through another
node. So outcomes are kept track of by the command, and a pending run is complete when each of its commands has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs
from twisted.internet.defer import Deferred

from txpaxos.errors import PaxosError
from txpaxos.node.sessions import Outcome, Outcomes
from txpaxos.wire.commands import Run


@attrs.define(eq=False)
class PendingRun:
    """A run that a caller at this node waits for.

    :ivar size_bytes: the bytes of the run's payloads.
    :ivar outcomes: the outcomes so far, in the order of the commands; ``None`` for a command that has none yet.
    :ivar missing: how many of the outcomes are ``None``. Zero once the caller has been told anything, good or bad.
    :ivar answer: fires with all outcomes when none is missing.
    """

    run: Run
    size_bytes: int
    outcomes: list[Outcome | None]
    missing: int
    answer: Deferred[Outcomes] = attrs.field(factory=Deferred)


class PendingRuns:
    """All pending runs of one node, found by the commands in them.

    :ivar commands: how many commands the pending runs have in all, repetitions included.
    :ivar size_bytes: the bytes of those commands.
    """

    def __init__(self) -> None:
        self.commands = self.size_bytes = 0
        self._runs: dict[PendingRun, None] = {}  # In the order in which the runs were submitted.
        # By session and sequence: the runs in which that command waits for its outcome.
        self._awaited: dict[bytes, dict[int, tuple[PendingRun, ...]]] = {}

    def __iter__(self) -> Iterator[PendingRun]:
        """The pending runs, oldest first."""
        return iter(self._runs)

    def add(self, pending: PendingRun) -> None:
        """Have ``pending`` told of the outcomes that it misses."""
        run = pending.run
        self._runs[pending] = None
        self.commands += len(run.payloads)
        self.size_bytes += pending.size_bytes
        awaited = self._awaited.setdefault(run.session, {})
        only = (pending,)
        if pending.missing == len(pending.outcomes) and awaited.keys().isdisjoint(run.sequences):
            awaited.update(dict.fromkeys(run.sequences, only))
            return
        for sequence, outcome in zip(run.sequences, pending.outcomes, strict=True):
            if outcome is None:
                awaited[sequence] = awaited[sequence] + only if sequence in awaited else only

    def complete(self, run: Run, outcomes: Sequence[Outcome | None]) -> None:
        """The commands of ``run`` have these outcomes, ``None`` where there is none yet: tell every pending run that
        waits for one of them."""
        awaited = self._awaited.get(run.session)
        if awaited is None:
            return
        each = zip(run.sequences, outcomes, strict=True)
        waiting = [() if outcome is None else awaited.pop(sequence, ()) for sequence, outcome in each]
        if not awaited:
            del self._awaited[run.session]
        told, count = waiting[0], len(waiting)
        if len(told) == 1 and waiting.count(told) == count == told[0].missing == len(told[0].outcomes):
            self._answer(told[0], without_missing(outcomes))  # Usually one run waits, and for exactly these commands.
            return
        for sequence, outcome, told in zip(run.sequences, outcomes, waiting, strict=True):
            for pending in told:
                pending.outcomes[sequence - pending.run.sequence] = outcome
                pending.missing -= 1
                if not pending.missing:
                    self._answer(pending, without_missing(pending.outcomes))

    def close(self, error: PaxosError) -> None:
        """The node stops: every pending run fails with ``error``."""
        runs, self._runs = self._runs, {}
        self.commands = self.size_bytes = 0
        self._awaited.clear()
        for pending in runs:
            pending.missing = 0
            pending.answer.errback(error)

    def _answer(self, pending: PendingRun, outcomes: Outcomes) -> None:
        """Give the caller of ``pending`` all its outcomes, unless it has been told already."""
        if self._runs.pop(pending, 0) is None:
            self.commands -= len(pending.run.payloads)
            self.size_bytes -= pending.size_bytes
            pending.missing = 0
            pending.answer.callback(outcomes)


def without_missing(outcomes: Iterable[Outcome | None]) -> Outcomes:
    """The same ``outcomes``, of which none is ``None``, as a type that says so."""
    return [outcome for outcome in outcomes if outcome is not None]
