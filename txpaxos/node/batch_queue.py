"""The runs that the leader has not proposed yet, and how it makes batches of them.

A batch becomes one value of the log. The leader takes the next batch when its window has room for another slot. While
the window is full, runs gather here, so batches grow with the load, and no clock is needed to wait for more commands.
"""

from __future__ import annotations

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
        self.commands += len(new.run.payloads)
        self.size_bytes += new.size_bytes

    def next_batch(self) -> list[QueuedRun]:
        """Take the next batch out of the queue: the oldest run, and as many after it as the limits of a batch allow.
        Empty if no run waits."""
        room, count = self._limits.batch_bytes, self._limits.batch_commands
        batch: list[QueuedRun] = []
        for queued in self._queue.values():
            if batch and (queued.size_bytes > room or len(queued.run.payloads) > count):
                break
            batch.append(queued)
            room -= queued.size_bytes
            count -= len(queued.run.payloads)
        for queued in batch:
            self._remove(queued)
        return batch

    def clear(self) -> None:
        """Forget every run: this node does not lead any more."""
        self._queue.clear()
        self.commands = self.size_bytes = 0

    def _remove(self, queued: QueuedRun) -> None:
        del self._queue[queued.run.session, queued.run.sequence]
        self.commands -= len(queued.run.payloads)
        self.size_bytes -= queued.size_bytes
