"""The runs that the leader has not proposed yet, and how it makes batches of them.

A batch becomes one value of the log. The leader takes the next batch when its window has room for another slot. While
the window is full, runs gather here, so batches grow with the load, and no clock is needed to wait for more commands.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from txpaxos.node.command_limits import CommandLimits
from txpaxos.wire.commands import Run


class QueuedRun(NamedTuple):
    """A run that is to be proposed.

    :ivar size_bytes: the bytes of the run's payloads.
    :ivar forwarded: a follower sent the run, and waits for its outcomes.
    """

    run: Run
    size_bytes: int
    forwarded: bool


class BatchQueue:
    """The runs that wait for a slot, oldest first.

    :ivar commands: how many commands wait.
    :ivar size_bytes: the bytes of those commands.
    """

    def __init__(self, limits: CommandLimits) -> None:
        self.commands = self.size_bytes = 0
        self._limits = limits
        # By session and first sequence, in the order in which the runs came.
        self._queue: dict[tuple[bytes, int], QueuedRun] = {}
        self._rest: QueuedRun | None = None  # Of a run that was too long for one batch.

    def has_room(self, commands: int, size_bytes: int) -> bool:
        """Whether this many more commands, of this many bytes, may wait."""
        return self._limits.allow_waiting(self.commands + commands, self.size_bytes + size_bytes)

    def add(self, new: QueuedRun) -> None:
        """Have a run proposed. Of two runs that begin with the same command only the longer one waits, since it holds
        the shorter one."""
        key = new.run.session, new.run.sequence
        old = self._queue.get(key)
        if old is not None:
            if len(old.run.payloads) >= len(new.run.payloads):
                return
            self._remove(old)
        self._queue[key] = new
        self._count(new, 1)

    def next_batch(self, commands_max: int) -> list[QueuedRun]:
        """Take the next batch out of the queue: the oldest run, and as many after it as the limits of a batch allow.
        Empty if no run waits.

        :param commands_max: how many commands it may have, also in its first run. The rest of that run goes first in
            the next batch.
        """
        room, count = self._limits.batch_bytes, min(self._limits.batch_commands, commands_max)
        batch: list[QueuedRun] = []
        rest = () if self._rest is None else (self._rest,)
        for queued in chain(rest, self._queue.values()):
            if batch and (queued.size_bytes > room or len(queued.run.payloads) > count):
                break
            batch.append(queued)
            room -= queued.size_bytes
            count -= len(queued.run.payloads)
        for queued in batch:
            self._remove(queued)
        if batch and len(batch[0].run.payloads) > commands_max:
            batch, self._rest = [_part(batch[0], slice(commands_max))], _part(batch[0], slice(commands_max, None))
            self._count(self._rest, 1)
        return batch

    def clear(self) -> None:
        """Forget every run: this node does not lead any more."""
        self._queue.clear()
        self._rest = None
        self.commands = self.size_bytes = 0

    def _remove(self, queued: QueuedRun) -> None:
        if queued is self._rest:
            self._rest = None
        else:
            del self._queue[queued.run.session, queued.run.sequence]
        self._count(queued, -1)

    def _count(self, queued: QueuedRun, sign: int) -> None:
        self.commands += sign * len(queued.run.payloads)
        self.size_bytes += sign * queued.size_bytes


def _part(queued: QueuedRun, which: slice) -> QueuedRun:
    """Some of the commands of a run, as a run. Each command keeps its number, and the caller is told of each by it."""
    run = queued.run
    part = Run(run.session, run.sequences[which].start, run.acknowledged, run.payloads[which])
    return QueuedRun(part, part.size_bytes, queued.forwarded)
