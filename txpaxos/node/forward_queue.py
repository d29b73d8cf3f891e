"""The runs that a follower forwards to its leader, and when it forwards each of them again.

A forwarded run can be lost: with its message, or with a leader that is deposed. So a follower forwards a run until it
has all its outcomes, after a delay that doubles each time. A command may reach the log twice that way. The session
table sees to it that each command is applied once (:mod:`txpaxos.node.sessions`).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.pending_runs import PendingRun
from txpaxos.wire.commands import Run

_DOUBLINGS_MAX = 16


class _Due(NamedTuple):
    """When to forward a run. Of two runs that are due at the same time the one with the lower number goes first.

    :ivar attempts: how often the run has been forwarded to the current leader.
    """

    at: float
    number: int
    pending: PendingRun
    attempts: int


class ForwardQueue:
    """When each pending run of a follower is to be forwarded.

    :param learn: called with a run that is due; has outcomes noted that this node knows, though the run was not in the
        log: its commands were acknowledged, or its session has expired.
    """

    def __init__(self, limits: CommandLimits, learn: Callable[[PendingRun], None]) -> None:
        self._limits = limits
        self._learn = learn
        self._numbers = itertools.count()
        self._heap: list[_Due] = []  # A run that is complete stays in the heap until it is due.

    def add(self, pending: PendingRun) -> None:
        """Have ``pending`` forwarded at once. It must not be in the queue."""
        heapq.heappush(self._heap, _Due(0.0, next(self._numbers), pending, 0))

    def restart(self, all_pending: Iterable[PendingRun]) -> None:
        """Another node leads: have ``all_pending`` forwarded at once, and forget how often that was done before."""
        self._heap.clear()
        for pending in all_pending:
            self.add(pending)

    def clear(self) -> None:
        """Forward nothing: this node leads, or stops."""
        self._heap.clear()

    @property
    def wake_at(self) -> float | None:
        """When the next run is due; ``None`` if no run is to be forwarded."""
        while self._heap:
            due = self._heap[0]
            if due.pending.missing:
                return due.at
            heapq.heappop(self._heap)
        return None

    def due_for_forwarding(self, now: float) -> tuple[Run, ...]:
        """The runs to forward to the leader now: as many as one message should hold. Call again until it is empty."""
        runs: list[Run] = []
        room, count = self._limits.batch_bytes, self._limits.batch_commands
        while (wake_at := self.wake_at) is not None and wake_at <= now:
            due = heapq.heappop(self._heap)
            pending = due.pending
            self._learn(pending)
            if not pending.missing:
                continue
            if runs and (pending.size_bytes > room or len(pending.run.payloads) > count):
                heapq.heappush(self._heap, due)
                break
            runs.append(pending.run)
            room -= pending.size_bytes
            count -= len(pending.run.payloads)
            again_at = now + self._delay_seconds(due)
            heapq.heappush(self._heap, _Due(again_at, next(self._numbers), pending, due.attempts + 1))
        return tuple(runs)

    def _delay_seconds(self, due: _Due) -> float:
        """How long to wait for outcomes before the run is forwarded again."""
        limits = self._limits
        seconds = min(limits.forward_seconds * 2.0 ** min(due.attempts, _DOUBLINGS_MAX), limits.forward_seconds_max)
        return seconds + due.pending.size_bytes / limits.forward_bytes_per_second
