"""Commands on their way into the log: who at this node waits for which, and what the leader is still to propose.

A follower passes its callers' commands on to the leader, and again when the leader changes or no outcome comes. A
command may so reach the log twice; the session table sees to it that it is applied once. The leader proposes what waits
whenever its window has room, many commands to a value: batches form by waiting for a slot, never for a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from txpaxos.applier import Applier
from txpaxos.errors import OutcomeUnknown, Overloaded, PaxosError, ValueTooLarge
from txpaxos.sessions import Outcome
from txpaxos.wire.commands import Command, encode_batch

Key: TypeAlias = tuple[bytes, int]


@attrs.frozen
class CommandLimits:
    """How much of everything.

    :ivar command_bytes_max: bytes of one command.
    :ivar batch_bytes: bytes of commands in one value, beyond the first command.
    :ivar batch_commands: commands in one value.
    :ivar waiting_commands_max: commands that wait at one node, before it says Overloaded.
    :ivar waiting_bytes_max: bytes of commands that wait at one node.
    :ivar forward_seconds: until a forwarded command without an outcome is forwarded again; doubles up to the longest.
    """

    command_bytes_max: int = 2**20
    batch_bytes: int = 2**17
    batch_commands: int = 1024
    waiting_commands_max: int = 2**16
    waiting_bytes_max: int = 2**26
    forward_seconds: float = 0.25
    forward_seconds_max: float = 2.0


@attrs.define
class _Caller:
    """A command that somebody at this node waits for."""

    command: Command
    waiters: list[Deferred[Outcome]]
    forward_at: float = 0.0
    attempts: int = 0


class Submissions:
    """The commands in work at one node.

    :ivar leading: whether this node leads; set it with :meth:`lead` and :meth:`follow`.
    """

    def __init__(self, applier: Applier, limits: CommandLimits) -> None:
        self.leading = False
        self._applier = applier
        self._limits = limits
        self._callers: dict[Key, _Caller] = {}
        self._callers_bytes = 0
        self._waiting: deque[Command] = deque()
        self._waiting_bytes = 0
        # When the next command is due to be forwarded; None if there is none.
        self.wake_at: float | None = None

    # from callers at this node

    def take(self, command: Command) -> Deferred[Outcome]:
        """Get ``command`` applied.

        :returns: fires with its outcome; fails with :class:`~txpaxos.errors.ValueTooLarge`,
            :class:`~txpaxos.errors.Overloaded` or :class:`~txpaxos.errors.OutcomeUnknown`.
        """
        if len(command.payload) > self._limits.command_bytes_max:
            size, most = len(command.payload), self._limits.command_bytes_max
            return fail(ValueTooLarge(f"the command has {size} bytes and may have {most}"))
        if self._applier.sessions.is_applied(command):
            outcome = self._applier.sessions.outcome(command)
            return fail(self._forgotten(command)) if outcome is None else succeed(outcome)
        key = command.session, command.sequence
        waiter: Deferred[Outcome] = Deferred()
        caller = self._callers.get(key)
        if caller is not None:
            caller.waiters.append(waiter)
            return waiter
        if self._is_full(len(self._callers), self._callers_bytes, command):
            return fail(Overloaded(f"{len(self._callers)} commands wait already; try again later"))
        self._callers[key] = _Caller(command, [waiter])
        self._callers_bytes += len(command.payload)
        if self.leading:
            self._wait(command)
        else:
            self.wake_at = 0.0
        return waiter

    # from followers

    def take_forwarded(self, commands: Iterable[Command]) -> None:
        """Propose ``commands`` in their turn. What is too much is left out: its node sends it again."""
        for command in commands:
            if self._is_full(len(self._waiting), self._waiting_bytes, command):
                return
            if not self._applier.sessions.is_applied(command):
                self._wait(command)

    # from the node

    def lead(self) -> None:
        """This node leads from now on: all that its callers wait for is its own to propose."""
        self.leading = True
        self.wake_at = None
        for caller in self._callers.values():
            self._wait(caller.command)

    def follow(self) -> None:
        """This node does not lead (any more), or follows somebody else: whoever does must be told anew."""
        self.leading = False
        self._waiting.clear()
        self._waiting_bytes = 0
        for caller in self._callers.values():
            caller.forward_at = 0.0
            caller.attempts = 0
        self.wake_at = 0.0 if self._callers else None

    def next_value(self) -> bytes | None:
        """The leader's next value: as many waiting commands as fit, oldest first. ``None`` if none wait."""
        batch = list(self._next_batch())
        return encode_batch(batch) if batch else None

    def due(self, now: float) -> tuple[Command, ...]:
        """What a follower must pass on to its leader now, as much as one message should hold. Ask until it is empty."""
        due: list[Command] = []
        never: list[Command] = []
        room = self._limits.batch_bytes
        wake_at: float | None = None
        if self.wake_at is not None and self.wake_at <= now:
            for caller in self._callers.values():
                if caller.forward_at <= now and self._applier.sessions.is_applied(caller.command):
                    never.append(caller.command)
                    continue
                if caller.forward_at <= now and (not due or len(caller.command.payload) <= room):
                    due.append(caller.command)
                    room -= len(caller.command.payload)
                    caller.forward_at = now + self._forward_seconds(caller.attempts)
                    caller.attempts += 1
                wake_at = caller.forward_at if wake_at is None else min(wake_at, caller.forward_at)
            self.wake_at = wake_at
        for command in never:  # Acknowledged before it got into the log, by a caller that gave up: it never will.
            self.finish(command, None)
        return tuple(due)

    def finish(self, command: Command, outcome: Outcome | None) -> None:
        """``command`` is applied: tell whoever waits for it."""
        caller = self._callers.pop((command.session, command.sequence), None)
        if caller is None:
            return
        self._callers_bytes -= len(command.payload)
        for waiter in caller.waiters:
            if outcome is None:
                waiter.errback(self._forgotten(command))
            else:
                waiter.callback(outcome)

    def close(self, error: PaxosError) -> None:
        """Nobody gets an outcome from here any more."""
        callers, self._callers = self._callers, {}
        self._waiting.clear()
        for caller in callers.values():
            for waiter in caller.waiters:
                waiter.errback(error)

    def __len__(self) -> int:
        return max(len(self._callers), len(self._waiting))

    def _forward_seconds(self, attempts: int) -> float:
        return min(self._limits.forward_seconds * 2.0 ** min(attempts, 16), self._limits.forward_seconds_max)

    def _wait(self, command: Command) -> None:
        self._waiting.append(command)
        self._waiting_bytes += len(command.payload)

    def _next_batch(self) -> Iterator[Command]:
        room = self._limits.batch_bytes
        for count in range(self._limits.batch_commands):
            if not self._waiting or (count and len(self._waiting[0].payload) > room):
                return
            command = self._waiting.popleft()
            self._waiting_bytes -= len(command.payload)
            room -= len(command.payload)
            yield command

    def _is_full(self, count: int, size: int, command: Command) -> bool:
        return (
            count >= self._limits.waiting_commands_max or size + len(command.payload) > self._limits.waiting_bytes_max
        )

    @staticmethod
    def _forgotten(command: Command) -> OutcomeUnknown:
        return OutcomeUnknown(f"command {command.sequence} was applied before; its result is no longer kept")
