"""Commands on their way into the log: from their callers at this node to the leader's next value, and back.

A command waits in up to two places. The run that it came in is pending until all its commands have an outcome
(:class:`~txpaxos.node.pending_runs.PendingRuns`). While this node leads, the run also waits to be proposed
(:class:`~txpaxos.node.batch_queue.BatchQueue`), and so do the runs that followers forward. While another node leads, it
waits to be forwarded to that node (:class:`~txpaxos.node.forward_queue.ForwardQueue`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail, succeed

from txpaxos.errors import Overloaded, PaxosError, ValueTooLarge
from txpaxos.node.applier import Applier
from txpaxos.node.batch_queue import BatchQueue, QueuedRun
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.forward_queue import ForwardQueue
from txpaxos.node.pending_runs import PendingRun, PendingRuns, without_missing
from txpaxos.node.sessions import Outcomes, expired
from txpaxos.wire.commands import Run, encode_batch, is_for_registers
from txpaxos.wire.registers import HEAD_BYTES_MAX


class NextValue(NamedTuple):
    """What the leader proposes next.

    :ivar value: the encoded batch.
    :ivar urgent: a follower waits for a command in the value, so followers are to be told at once that it is chosen.
    """

    value: bytes
    urgent: bool


class Submissions:
    """The commands in work at one node.

    :ivar is_leader: whether this node leads; set with :meth:`become_leader` and :meth:`become_follower`.
    """

    def __init__(self, applier: Applier, limits: CommandLimits) -> None:
        self.is_leader = False
        self._applier = applier
        self._limits = limits
        self._pending = PendingRuns()
        self._to_propose = BatchQueue(limits)
        self._to_forward = ForwardQueue(limits, self._learn)

    def __len__(self) -> int:
        """How many commands wait, of callers or to be proposed: the greater number, since most wait for both."""
        return max(self._pending.commands, self._to_propose.commands)

    # from callers at this node

    def submit_run(self, run: Run) -> Deferred[Outcomes]:
        """Get the commands of ``run`` applied.

        :returns: fires with the outcomes when each command has one; fails with :class:`~txpaxos.errors.ValueTooLarge`
            or :class:`~txpaxos.errors.Overloaded`, and then no command of the run was submitted.
        """
        size = run.size_bytes
        refusal = self.refusal(len(run.payloads), size, max(map(len, run.payloads)))
        if isinstance(refusal, ValueTooLarge) and is_for_registers(run.session):
            refusal = self.refusal_for_registers(len(run.payloads), size, max(map(len, run.payloads)))
        if isinstance(refusal, ValueTooLarge):
            return fail(refusal)
        sessions = self._applier.sessions
        if sessions.is_expired(run.session):
            return succeed(expired(run))
        known = sessions.outcomes(run)
        pending = PendingRun(run, size, known, known.count(None))
        if not pending.missing:
            return succeed(without_missing(known))
        if refusal is not None:
            return fail(refusal)
        self._pending.add(pending)
        if self.is_leader:
            self._to_propose.add(QueuedRun(run, size, forwarded=False))
        else:
            self._to_forward.add(pending)
        return pending.answer

    def refusal(self, count: int, size_bytes: int, longest_bytes: int) -> ValueTooLarge | Overloaded | None:
        """Why this node cannot take ``count`` more commands of its callers; ``None`` if it can.

        :param size_bytes: the bytes of those commands.
        :param longest_bytes: the bytes of the longest of them.
        """
        if longest_bytes > self._limits.command_bytes_max:
            most = self._limits.command_bytes_max
            return ValueTooLarge(f"the command has {longest_bytes} bytes and may have {most}")
        count += self._pending.commands
        if not self._limits.allow_waiting(count, self._pending.size_bytes + size_bytes):
            return Overloaded(f"{count} commands would wait, which is too much; try later")
        return None

    def refusal_for_registers(
        self, count: int, size_bytes: int, longest_bytes: int
    ) -> ValueTooLarge | Overloaded | None:
        """The same for commands of the registers, which have a few bytes beside the value of a register."""
        return self.refusal(count, size_bytes, longest_bytes - HEAD_BYTES_MAX)

    # from followers

    def submit_forwarded(self, runs: Iterable[Run]) -> None:
        """Propose the ``runs`` that a follower has forwarded.

        Runs beyond the limits are left out: the follower forwards them again. Runs whose commands were all applied, or
        whose session has expired, are left out as well: the follower sees that in the log.
        """
        sessions = self._applier.sessions
        for run in runs:
            size = run.size_bytes
            if not self._to_propose.has_room(len(run.payloads), size):
                return
            if not sessions.is_expired(run.session) and None in sessions.outcomes(run):
                self._to_propose.add(QueuedRun(run, size, forwarded=True))

    # from the node

    def become_leader(self) -> None:
        """This node leads from now on: it proposes all pending runs itself."""
        self.is_leader = True
        self._to_forward.clear()
        for pending in self._pending:
            self._to_propose.add(QueuedRun(pending.run, pending.size_bytes, forwarded=False))

    def become_follower(self) -> None:
        """This node does not lead, or follows another leader than before: it forwards all pending runs anew."""
        self.is_leader = False
        self._to_propose.clear()
        self._to_forward.restart(self._pending)

    @property
    def wake_at(self) -> float | None:
        """When the next run is due to be forwarded; ``None`` if none is."""
        return self._to_forward.wake_at

    def next_value(self) -> NextValue | None:
        """The leader's next value, which is then no longer queued; ``None`` if nothing is to be proposed."""
        batch = self._to_propose.next_batch(self._applier.pace.commands_max)
        if not batch:
            return None
        return NextValue(encode_batch([queued.run for queued in batch]), any(queued.forwarded for queued in batch))

    def due_for_forwarding(self, now: float) -> tuple[Run, ...]:
        """The runs to forward to the leader now: as many as one message should hold. Call again until it is empty."""
        return self._to_forward.due_for_forwarding(now)

    def complete(self, run: Run, outcomes: Outcomes) -> None:
        """``run`` was in the log, with these outcomes: answer the callers that wait for its commands."""
        self._pending.complete(run, outcomes)

    def close(self, error: PaxosError) -> None:
        """The node stops: every caller that still waits fails with ``error``."""
        self._to_propose.clear()
        self._to_forward.clear()
        self._pending.close(error)

    def _learn(self, pending: PendingRun) -> None:
        """Complete ``pending`` with what this node knows otherwise than by the run being in the log.

        Its caller may have given up and acknowledged the commands before they were in the log. Or the session has
        expired meanwhile.
        """
        run, sessions = pending.run, self._applier.sessions
        self._pending.complete(run, expired(run) if sessions.is_expired(run.session) else sessions.outcomes(run))
