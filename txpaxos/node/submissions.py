"""Commands on their way into the log: who at this node waits for which, and what the leader is still to propose.

A follower passes its callers' commands on to the leader, and again when the leader changes or no outcome comes. A
command may so reach the log twice; the session table sees to it that it is applied once. The leader proposes what waits
whenever its window has room, many commands to a value: batches form by waiting for a slot, never for a clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import attrs
from attrs.validators import ge, le
from twisted.internet.defer import Deferred, fail, succeed

from txpaxos.errors import Overloaded, PaxosError, ValueTooLarge
from txpaxos.node.applier import Applier
from txpaxos.node.sessions import Outcome, expired
from txpaxos.wire.commands import COMMAND_BYTES_MAX, RUNS_MAX, Run, encode_batch

Outcomes: TypeAlias = Sequence[Outcome]
"""One for each command of a run, in their order."""


@attrs.frozen
class CommandLimits:
    """How much of everything.

    :ivar command_bytes_max: bytes of one command.
    :ivar batch_bytes: bytes of commands in one value, beyond the first run.
    :ivar batch_commands: commands in one value, beyond the first run.
    :ivar waiting_commands_max: commands that wait at one node, before it says Overloaded.
    :ivar waiting_bytes_max: bytes of commands that wait at one node.
    :ivar forward_seconds: until a forwarded command without an outcome is forwarded again; doubles up to the longest.
    :ivar forward_bytes_a_second: a big command is given the time on top that it takes at this speed.
    """

    command_bytes_max: int = COMMAND_BYTES_MAX
    batch_bytes: int = 2**19
    batch_commands: int = attrs.field(default=1024, validator=[ge(1), le(RUNS_MAX - 1)])
    waiting_commands_max: int = 2**16
    waiting_bytes_max: int = 2**27
    forward_seconds: float = 0.25
    forward_seconds_max: float = 2.0
    forward_bytes_a_second: float = 20e6


@attrs.define(eq=False)
class _Caller:
    """Somebody at this node who waits for a run.

    :ivar size_bytes: of the run.
    :ivar outcomes: those that are known, and ``None`` for each of the :attr:`missing`.
    :ivar due: its entry among those to be forwarded, ``None`` if this node leads.
    """

    run: Run
    size_bytes: int
    outcomes: list[Outcome | None]
    missing: int
    answer: Deferred[Outcomes] = attrs.field(factory=Deferred)
    due: _Due | None = None
    attempts: int = 0


class _Due(NamedTuple):
    """When to forward what a caller waits for. Of those at the same time, the one taken first comes first."""

    at: float
    number: int
    caller: _Caller


class _Waiting(NamedTuple):
    """A run that is to be proposed. If ``forwarded``, a follower waits for it."""

    run: Run
    size_bytes: int
    forwarded: bool


class Submissions:
    """The commands in work at one node.

    :ivar leading: whether this node leads; set it with :meth:`lead` and :meth:`follow`.
    """

    def __init__(self, applier: Applier, limits: CommandLimits) -> None:
        self.leading = False
        self._applier = applier
        self._limits = limits
        self._callers: dict[_Caller, None] = {}  # In the order in which they came.
        self._callers_commands = self._callers_bytes = 0
        # By session and sequence: those who wait for that command.
        self._awaited: dict[bytes, dict[int, tuple[_Caller, ...]]] = {}
        # By session and first sequence: the runs to propose, in the order in which they came.
        self._waiting: dict[tuple[bytes, int], _Waiting] = {}
        self._waiting_commands = self._waiting_bytes = 0
        self._due: list[_Due] = []  # A heap. An entry that is not its caller's any more is passed over.
        self._numbers = itertools.count()

    # from callers at this node

    def take(self, run: Run) -> Deferred[Outcomes]:
        """Get the commands of ``run`` applied.

        :returns: fires with their outcomes when all are there; fails with :class:`~txpaxos.errors.ValueTooLarge` or
            :class:`~txpaxos.errors.Overloaded`, and then none of them was taken.
        """
        size = run.size_bytes
        refusal = self.refusal(len(run.payloads), size, max(map(len, run.payloads)))
        if isinstance(refusal, ValueTooLarge):
            return fail(refusal)
        sessions = self._applier.sessions
        if sessions.is_expired(run.session):
            return succeed(expired(run))
        known = sessions.outcomes(run)
        caller = _Caller(run, size, known, known.count(None))
        if not caller.missing:
            return succeed(_complete(known))
        if refusal is not None:
            return fail(refusal)
        self._add(caller)
        if self.leading:
            self._wait(_Waiting(run, size, forwarded=False))
        else:
            self._forward(caller, 0.0)
        return caller.answer

    def refusal(self, count: int, size_bytes: int, longest_bytes: int) -> ValueTooLarge | Overloaded | None:
        """Why so many more commands of callers at this node, of so many bytes, cannot be taken, if they cannot."""
        if longest_bytes > self._limits.command_bytes_max:
            most = self._limits.command_bytes_max
            return ValueTooLarge(f"the command has {longest_bytes} bytes and may have {most}")
        if self._is_full(self._callers_commands + count, self._callers_bytes + size_bytes):
            return Overloaded(f"{self._callers_commands + count} commands would wait, which is too much; try later")
        return None

    # from followers

    def take_forwarded(self, runs: Iterable[Run]) -> None:
        """Propose ``runs`` in their turn. What is too much is left out: its node sends it again. So is what has been
        applied, or never can be: its node will see that in the log."""
        sessions = self._applier.sessions
        for run in runs:
            size = run.size_bytes
            if self._is_full(self._waiting_commands + len(run.payloads), self._waiting_bytes + size):
                return
            if not sessions.is_expired(run.session) and None in sessions.outcomes(run):
                self._wait(_Waiting(run, size, forwarded=True))

    # from the node

    def lead(self) -> None:
        """This node leads from now on: all that its callers wait for is its own to propose."""
        self.leading = True
        self._due.clear()
        for caller in self._callers:
            caller.due = None
            self._wait(_Waiting(caller.run, caller.size_bytes, forwarded=False))

    def follow(self) -> None:
        """This node does not lead (any more), or follows somebody else: whoever does must be told anew."""
        self.leading = False
        self._clear_waiting()
        self._due.clear()
        for caller in self._callers:
            caller.attempts = 0
            self._forward(caller, 0.0)

    @property
    def wake_at(self) -> float | None:
        """When the next run is due to be forwarded; ``None`` if there is none."""
        while self._due:
            due = self._due[0]
            if due.caller.due is due and due.caller.missing:
                return due.at
            heapq.heappop(self._due)
        return None

    def next_value(self) -> tuple[bytes, bool] | None:
        """The leader's next value: as many waiting runs as fit, oldest first; and whether a follower waits for one of
        them. ``None`` if none wait."""
        if not self._waiting:
            return None
        room, count = self._limits.batch_bytes, self._limits.batch_commands
        batch: list[_Waiting] = []
        for waiting in self._waiting.values():
            if batch and (waiting.size_bytes > room or len(waiting.run.payloads) > count):
                break
            batch.append(waiting)
            room -= waiting.size_bytes
            count -= len(waiting.run.payloads)
        for waiting in batch:
            self._unwait(waiting)
        return encode_batch([waiting.run for waiting in batch]), any(waiting.forwarded for waiting in batch)

    def due(self, now: float) -> tuple[Run, ...]:
        """What a follower must pass on to its leader now, as much as one message should hold. Ask until it is empty."""
        due: list[Run] = []
        room, count = self._limits.batch_bytes, self._limits.batch_commands
        while (wake_at := self.wake_at) is not None and wake_at <= now:
            caller = self._due[0].caller
            # Acknowledged before it got into the log, by a caller that gave up, or too late for its session.
            self._settle_known(caller)
            if not caller.missing:
                continue
            if due and (caller.size_bytes > room or len(caller.run.payloads) > count):
                break
            due.append(caller.run)
            room -= caller.size_bytes
            count -= len(caller.run.payloads)
            self._forward(caller, now + self._forward_seconds(caller))
            caller.attempts += 1
        return tuple(due)

    def finish(self, run: Run, outcomes: Outcomes) -> None:
        """``run`` was in the log, with these outcomes: tell whoever waits for one of its commands."""
        self._tell(run, outcomes)

    def close(self, error: PaxosError) -> None:
        """Nobody gets an outcome from here any more."""
        callers, self._callers = self._callers, {}
        self._callers_commands = self._callers_bytes = 0
        self._awaited.clear()
        self._clear_waiting()
        self._due.clear()
        for caller in callers:
            caller.answer.errback(error)

    def __len__(self) -> int:
        return max(self._callers_commands, self._waiting_commands)

    # callers

    def _add(self, caller: _Caller) -> None:
        run = caller.run
        self._callers[caller] = None
        self._callers_commands += len(run.payloads)
        self._callers_bytes += caller.size_bytes
        awaited = self._awaited.setdefault(run.session, {})
        only = (caller,)
        if caller.missing == len(caller.outcomes) and awaited.keys().isdisjoint(run.sequences):
            awaited.update(dict.fromkeys(run.sequences, only))
            return
        for sequence, outcome in zip(run.sequences, caller.outcomes, strict=True):
            if outcome is None:
                awaited[sequence] = awaited[sequence] + only if sequence in awaited else only

    def _tell(self, run: Run, outcomes: Sequence[Outcome | None]) -> None:
        """These outcomes are known, but for each ``None``: tell whoever waits for one of them."""
        awaited = self._awaited.get(run.session)
        if awaited is None:
            return
        each = zip(run.sequences, outcomes, strict=True)
        waiting = [() if outcome is None else awaited.pop(sequence, ()) for sequence, outcome in each]
        if not awaited:
            del self._awaited[run.session]
        callers, count = waiting[0], len(waiting)
        if len(callers) == 1 and waiting.count(callers) == count == callers[0].missing == len(callers[0].outcomes):
            self._answer(callers[0], _complete(outcomes))  # As a rule one waits, and for just this run.
            return
        for sequence, outcome, callers in zip(run.sequences, outcomes, waiting, strict=True):
            for caller in callers:
                caller.outcomes[sequence - caller.run.sequence] = outcome
                caller.missing -= 1
                if not caller.missing:
                    self._answer(caller, _complete(caller.outcomes))

    def _answer(self, caller: _Caller, outcomes: Outcomes) -> None:
        """All that ``caller`` waits for is known."""
        if self._callers.pop(caller, 0) is None:
            self._callers_commands -= len(caller.run.payloads)
            self._callers_bytes -= caller.size_bytes
            caller.missing = 0
            caller.answer.callback(outcomes)

    def _settle_known(self, caller: _Caller) -> None:
        """Tell ``caller`` what has become known otherwise than by its command being in the log."""
        run, sessions = caller.run, self._applier.sessions
        self._tell(run, expired(run) if sessions.is_expired(run.session) else sessions.outcomes(run))

    def _forward(self, caller: _Caller, at: float) -> None:
        """Have a run forwarded then, and not when it was to be before."""
        caller.due = _Due(at, next(self._numbers), caller)
        heapq.heappush(self._due, caller.due)

    def _forward_seconds(self, caller: _Caller) -> float:
        """Until it is forwarded again."""
        limits = self._limits
        seconds = min(limits.forward_seconds * 2.0 ** min(caller.attempts, 16), limits.forward_seconds_max)
        return seconds + caller.size_bytes / limits.forward_bytes_a_second

    # what the leader is to propose

    def _wait(self, new: _Waiting) -> None:
        """Have a run proposed, unless it waits for that already."""
        key = new.run.session, new.run.sequence
        old = self._waiting.get(key)
        if old is not None:
            if len(old.run.payloads) >= len(new.run.payloads):
                return
            self._unwait(old)
        self._waiting[key] = new
        self._waiting_commands += len(new.run.payloads)
        self._waiting_bytes += new.size_bytes

    def _unwait(self, waiting: _Waiting) -> None:
        del self._waiting[waiting.run.session, waiting.run.sequence]
        self._waiting_commands -= len(waiting.run.payloads)
        self._waiting_bytes -= waiting.size_bytes

    def _clear_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_commands = self._waiting_bytes = 0

    def _is_full(self, count: int, size_bytes: int) -> bool:
        return count > self._limits.waiting_commands_max or size_bytes > self._limits.waiting_bytes_max


def _complete(outcomes: Iterable[Outcome | None]) -> Outcomes:
    """``outcomes``, of which none is missing."""
    return [outcome for outcome in outcomes if outcome is not None]
