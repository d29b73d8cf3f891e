"""Commands on their way into the log: who at this node waits for which, and what the leader is still to propose.

A follower passes its callers' commands on to the leader, and again when the leader changes or no outcome comes. A
command may so reach the log twice; the session table sees to it that it is applied once. The leader proposes what waits
whenever its window has room, many commands to a value: batches form by waiting for a slot, never for a clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from txpaxos.applier import Applier
from txpaxos.errors import OutcomeUnknown, Overloaded, PaxosError, ValueTooLarge
from txpaxos.sessions import Outcome, expired
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Command, encode_batch

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
    :ivar forward_bytes_a_second: a big command is given the time on top that it takes at this speed.
    """

    command_bytes_max: int = COMMAND_BYTES_MAX
    batch_bytes: int = 2**17
    batch_commands: int = 1024
    waiting_commands_max: int = 2**16
    waiting_bytes_max: int = 2**27
    forward_seconds: float = 0.25
    forward_seconds_max: float = 2.0
    forward_bytes_a_second: float = 20e6


@attrs.define
class _Caller:
    """A command that somebody at this node waits for.

    :ivar due: its entry among those to be forwarded, ``None`` if this node leads.
    """

    command: Command
    waiters: list[Deferred[Outcome]]
    due: _Due | None = None
    attempts: int = 0


class _Due(NamedTuple):
    """When to forward a command. Of those at the same time, the one taken first comes first."""

    at: float
    number: int
    key: Key


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
        self._waiting_keys: set[Key] = set()
        self._waiting_bytes = 0
        self._due: list[_Due] = []  # A heap. An entry that is not its caller's any more is passed over.
        self._numbers = itertools.count()

    # from callers at this node

    def take(self, command: Command) -> Deferred[Outcome]:
        """Get ``command`` applied.

        :returns: fires with its outcome, which may be that its session is forgotten; fails with
            :class:`~txpaxos.errors.ValueTooLarge`, :class:`~txpaxos.errors.Overloaded` or
            :class:`~txpaxos.errors.OutcomeUnknown`.
        """
        if len(command.payload) > self._limits.command_bytes_max:
            size, most = len(command.payload), self._limits.command_bytes_max
            return fail(ValueTooLarge(f"the command has {size} bytes and may have {most}"))
        if self._applier.sessions.is_applied(command):
            outcome = self._applier.sessions.outcome(command)
            return fail(self._forgotten(command)) if outcome is None else succeed(outcome)
        if self._applier.sessions.is_expired(command):
            return succeed(expired(command))
        key = command.session, command.sequence
        waiter: Deferred[Outcome] = Deferred()
        caller = self._callers.get(key)
        if caller is not None:
            caller.waiters.append(waiter)
            return waiter
        if self._is_full(len(self._callers), self._callers_bytes, command):
            return fail(Overloaded(f"{len(self._callers)} commands wait already; try again later"))
        caller = self._callers[key] = _Caller(command, [waiter])
        self._callers_bytes += len(command.payload)
        if self.leading:
            self._wait(command)
        else:
            self._forward(caller, 0.0)
        return waiter

    # from followers

    def take_forwarded(self, commands: Iterable[Command]) -> None:
        """Propose ``commands`` in their turn. What is too much is left out: its node sends it again. So is what has
        been applied, or never can be: its node will see that in the log."""
        sessions = self._applier.sessions
        for command in commands:
            if self._is_full(len(self._waiting), self._waiting_bytes, command):
                return
            if not sessions.is_applied(command) and not sessions.is_expired(command):
                self._wait(command)

    # from the node

    def lead(self) -> None:
        """This node leads from now on: all that its callers wait for is its own to propose."""
        self.leading = True
        self._due.clear()
        for caller in self._callers.values():
            caller.due = None
            self._wait(caller.command)

    def follow(self) -> None:
        """This node does not lead (any more), or follows somebody else: whoever does must be told anew."""
        self.leading = False
        self._waiting.clear()
        self._waiting_keys.clear()
        self._waiting_bytes = 0
        self._due.clear()
        for caller in self._callers.values():
            caller.attempts = 0
            self._forward(caller, 0.0)

    @property
    def wake_at(self) -> float | None:
        """When the next command is due to be forwarded; ``None`` if there is none."""
        while self._due:
            due = self._due[0]
            caller = self._callers.get(due.key)
            if caller is not None and caller.due is due:
                return due.at
            heapq.heappop(self._due)
        return None

    def next_value(self) -> bytes | None:
        """The leader's next value: as many waiting commands as fit, oldest first. ``None`` if none wait."""
        batch = list(self._next_batch())
        return encode_batch(batch) if batch else None

    def due(self, now: float) -> tuple[Command, ...]:
        """What a follower must pass on to its leader now, as much as one message should hold. Ask until it is empty."""
        due: list[Command] = []
        room = self._limits.batch_bytes
        sessions = self._applier.sessions
        while (wake_at := self.wake_at) is not None and wake_at <= now:
            caller = self._callers[self._due[0].key]
            command = caller.command
            # Acknowledged before it got into the log, by a caller that gave up, or too late for its session.
            if sessions.is_applied(command):
                self.finish(command, sessions.outcome(command))
            elif sessions.is_expired(command):
                self.finish(command, expired(command))
            elif due and len(command.payload) > room:
                break
            else:
                due.append(command)
                room -= len(command.payload)
                self._forward(caller, now + self._forward_seconds(caller))
                caller.attempts += 1
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
        self._callers_bytes = self._waiting_bytes = 0
        self._waiting.clear()
        self._waiting_keys.clear()
        self._due.clear()
        for caller in callers.values():
            for waiter in caller.waiters:
                waiter.errback(error)

    def __len__(self) -> int:
        return max(len(self._callers), len(self._waiting))

    def _forward(self, caller: _Caller, at: float) -> None:
        """Have a command forwarded then, and not when it was to be before."""
        caller.due = _Due(at, next(self._numbers), (caller.command.session, caller.command.sequence))
        heapq.heappush(self._due, caller.due)

    def _forward_seconds(self, caller: _Caller) -> float:
        """Until it is forwarded again."""
        limits = self._limits
        seconds = min(limits.forward_seconds * 2.0 ** min(caller.attempts, 16), limits.forward_seconds_max)
        return seconds + len(caller.command.payload) / limits.forward_bytes_a_second

    def _wait(self, command: Command) -> None:
        """Have a command proposed, unless it waits for that already."""
        key = command.session, command.sequence
        if key not in self._waiting_keys:
            self._waiting_keys.add(key)
            self._waiting.append(command)
            self._waiting_bytes += len(command.payload)

    def _next_batch(self) -> Iterator[Command]:
        room = self._limits.batch_bytes
        for count in range(self._limits.batch_commands):
            if not self._waiting or (count and len(self._waiting[0].payload) > room):
                return
            command = self._waiting.popleft()
            self._waiting_keys.discard((command.session, command.sequence))
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
