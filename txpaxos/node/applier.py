"""Applies chosen values: each command once, in slot order, the same on every node."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TypeAlias, TypeVar

from twisted.logger import Logger

from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.messages import MEMBERS_BYTE, NO_OP, Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import ApplicationLost, CodecError, UnknownVersion
from txpaxos.log_lines import LineLimiter, for_log, text_of
from txpaxos.node.apply_pace import ApplyPace
from txpaxos.node.registers import Registers
from txpaxos.node.sessions import SESSIONS_MAX, Outcome, Sessions, encode_result, not_kept, raised
from txpaxos.node.timers import Timers
from txpaxos.wire.commands import REGISTERS_MARK, REGISTERS_MARK_AT, Run, decode_batch
from txpaxos.wire.members import decode_members
from txpaxos.wire.stamps import Stamp, stamp_of

T = TypeVar("T")

_Content: TypeAlias = tuple[Stamp | None, tuple[Run, ...]]
"""What is in a value."""

_NOTHING: _Content = None, ()
DECODED_MAX = 64
"""Upper bound on the decoded values that are kept. It is higher than the number of slots that are open at a time."""


class Applier:
    """Decodes values and applies the commands in them.

    An exception in ``apply`` is an outcome like any other: it is logged with slot and command and recorded in the
    session, and the next command is applied. An ``apply`` that depends on nothing but its arguments and the state
    raises on every node alike, so the nodes stay equal. What ``apply`` changed before it raised stays changed, on all
    of them. The same holds for SystemExit, and for RecursionError: ``apply`` is given the same depth of calls wherever
    it is called from.

    MemoryError and KeyboardInterrupt come from the state of this process, not from the command. They are no outcome,
    since ``apply`` may have changed anything by then. So this node stops, and applies the command again when it is
    started.

    A value that holds no commands is applied as nothing, on every node alike. A value of another release is not: a node
    of that release would apply it.

    The commands of the registers go to the table of the registers, and not to the application.

    A value may have a stamp. The replicated time goes on to it, the timers in it are kept alive, and those that are due
    fire, before the commands in the value are applied.
    A ``timer_fired`` that raises is logged, and changes no more than it did before that, on every node alike.

    :param apply: the application's ``apply(slot, command)``.
    :param sessions_max: how many sessions are remembered.
    :param timer_fired: the application's ``timer_fired(slot, name, payload)``.
    :param kept_alive_changed: called with the name of each kept-alive timer that was kept alive, or is there no more.
    :param reached: called before each command of the application. ``apply`` is not called from within it, so that a
        node which is observed gives commands the same depth of calls as the others.
    :param monotonic: the seconds of a clock, which says how long commands take.
    :ivar pace: how long they took of late.
    :ivar registers: the table of the registers. A snapshot replaces it.
    :ivar timers: the replicated time, and what is to happen later. A snapshot replaces them.
    :ivar applied_through: every slot up to this one is applied.
    """

    log = Logger()

    def __init__(
        self,
        apply: Callable[[Slot, bytes], object],
        sessions_max: int = SESSIONS_MAX,
        timer_fired: Callable[[Slot, str, bytes], object] = lambda slot, name, payload: None,
        kept_alive_changed: Callable[[str | int], object] = lambda name: None,
        reached: Callable[[Slot, bytes], object] | None = None,
        monotonic: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.pace = ApplyPace(monotonic)
        self._reached = reached
        self._sessions_max = sessions_max
        self._kept_alive_changed = kept_alive_changed
        self.sessions = self.new_sessions()
        self.registers = Registers()
        self.timers = self.new_timers()
        self.applied_through: Slot = 0
        self._apply = apply
        self._timer_fired = timer_fired
        self._depth = sys.getrecursionlimit()
        self._called_at = 0  # How many calls deep, the last time.
        self._lines = LineLimiter()
        # Decoded when the value was proposed, by the identity of the value: it is usually chosen soon after.
        self._decoded: dict[int, tuple[bytes, _Content]] = {}

    def new_sessions(self) -> Sessions:
        """An empty table of sessions."""
        return Sessions(self._sessions_max)

    def new_timers(self) -> Timers:
        """No timers, at the beginning of time."""
        return Timers(self._kept_alive_changed)

    def admits(self, value: bytes, chosen: bool) -> bool:
        """Whether this node could apply ``value``, which a peer proposes or says to be chosen.

        A value of another release cannot be applied. When such a value is chosen, this node applies nothing from there
        on, and logs why. It does not stop: otherwise a peer that lies could stop it.
        """
        if value == NO_OP:
            return True
        try:
            if value[:1] == MEMBERS_BYTE:
                decode_members(value)
                return True
            content = stamp_of(value), decode_batch(value)
        except UnknownVersion as error:
            if (more := self._lines.admits("version")) is not None:
                line = (
                    "a value is refused, and this node goes no further: {reason}{more}"
                    if chosen
                    else ("a value is refused: {reason}{more}")
                )
                self.log.error(line, reason=str(error), more=more, event="value_version_unknown")
            return False
        except CodecError:
            return False
        self._decoded[id(value)] = value, content
        if len(self._decoded) > DECODED_MAX:
            del self._decoded[next(iter(self._decoded))]
        return True

    def apply(self, chosen: Chosen) -> Iterator[tuple[Run, Sequence[Outcome]]]:
        """Apply the value of the next slot, run by run.

        :returns: each run, with an outcome for each of its commands. A command that was applied before has the outcome
            that it had then.
        :raises ApplicationLost: if this process could not apply one of them.
        """
        if chosen.slot != self.applied_through + 1:
            raise BrokenInvariant(chosen.slot, self.applied_through)
        if chosen.value != NO_OP:
            limit = _depth(self._called_at) + self._depth
            self._called_at = limit - self._depth
            stamp, runs = self._content(chosen)
            if stamp is not None:
                self._advance(chosen.slot, stamp, limit)
            began_at, commands = self.pace.begin(), 0
            for run in runs:
                commands += len(run.payloads)
                is_for_registers = run.session[REGISTERS_MARK_AT:] == REGISTERS_MARK
                apply = self.registers.apply if is_for_registers else self._outcome
                yield run, self._applying(limit, self.sessions.apply_once, chosen.slot, run, apply)
            if commands:
                self.pace.note(commands, began_at)
        self.applied_through = chosen.slot

    def _applying(self, limit: int, work: Callable[..., T], *arguments: object) -> T:
        """Call ``work``, in which the application may change its state, and has ``limit`` as its depth of calls."""
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(limit)
        self.timers.allow_changes(True)
        try:
            return work(*arguments)
        finally:
            self.timers.allow_changes(False)
            sys.setrecursionlimit(before)

    def _advance(self, slot: Slot, stamp: Stamp, limit: int) -> None:
        """Let the replicated time go on to the time of ``stamp``, and the timers fire that are due."""
        for name, payload in self.timers.advance(*stamp):
            self._applying(limit, self._fire, slot, name, payload)

    def _fire(self, slot: Slot, name: str, payload: bytes) -> None:
        try:
            self._timer_fired(slot, name, payload)
        except (MemoryError, KeyboardInterrupt) as error:
            raise self._lost(error, slot) from error
        except BaseException:
            more = self._lines.admits("timer_fired raised")
            if more is not None:
                line = "timer_fired raised at slot {slot} for {name!r}{more}"
                self.log.failure(line, for_log(), slot=slot, name=name[:80], more=more, event="timer_raised")

    def _content(self, chosen: Chosen) -> _Content:
        value, content = self._decoded.pop(id(chosen.value), (b"", _NOTHING))
        if value is chosen.value:
            return content
        if chosen.value[:1] == MEMBERS_BYTE:
            return _NOTHING  # The node goes by it.
        try:
            return stamp_of(chosen.value), decode_batch(chosen.value)
        except UnknownVersion:
            raise
        except CodecError as error:
            self.log.error(
                "slot {slot} is applied as nothing: {reason}",
                slot=chosen.slot,
                reason=str(error),
                event="slot_applied_as_nothing",
            )
            return _NOTHING

    def install(self, slot: Slot, sessions: Sessions, registers: Registers, timers: Timers) -> None:
        """Continue from a snapshot at ``slot`` that holds all of these."""
        self.applied_through = slot
        self.sessions = sessions
        self.timers = timers
        registers.replaces(self.registers)
        self.registers = registers

    def _outcome(self, slot: Slot, command: bytes) -> Outcome:
        if self._reached is not None:
            self._reached(slot, command)
        try:
            result = self._apply(slot, command)
            try:
                return encode_result(result)
            except ValueError as error:
                return not_kept(result, str(error))
        except (MemoryError, KeyboardInterrupt) as error:
            raise self._lost(error, slot) from error
        except BaseException as error:
            more = self._lines.admits("apply raised")
            if more is not None:
                line = "apply raised at slot {slot} for {command!r}{more}"
                self.log.failure(line, for_log(), slot=slot, command=command[:80], more=more, event="apply_raised")
            return raised(type(error).__name__, text_of(error))

    @staticmethod
    def _lost(error: BaseException, slot: Slot) -> ApplicationLost:
        return ApplicationLost(
            f"{type(error).__name__} while slot {slot} was applied: what this node's application holds is not to"
            f" be trusted any more; start the node again, and it applies that slot anew"
        )


def _depth(guess: int) -> int:
    """How many calls deep this function is called. To check ``guess`` is quicker than to count."""
    try:
        if sys._getframe(guess - 1).f_back is None:
            return guess
    except ValueError:
        pass  # Not so deep.
    frame: FrameType | None = sys._getframe()
    depth = 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
