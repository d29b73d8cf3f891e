"""What a value of the log holds, in words that name no content: who sent how many commands of which size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import attrs

from txpaxos.core.messages import MEMBERS_BYTE, NO_OP, Slot
from txpaxos.errors import CodecError
from txpaxos.explaining.facts import ValueMark
from txpaxos.wire.commands import Run, decode_batch, is_for_registers
from txpaxos.wire.members import decode_members
from txpaxos.wire.registers import DecideRegister, ForgetRegister, decode_command
from txpaxos.wire.stamps import stamp_of

COMMANDS_SHOWN_MAX = 16
"""How many commands of a value are listed."""


@attrs.frozen
class CommandTold:
    """A command in a value, without its content.

    :ivar session: the session that sent it, as hexadecimal digits.
    :ivar sequence: its number in that session.
    :ivar size_bytes: its length.
    :ivar register: the register that it decides or forgets; empty if it is for the application.
    """

    session: str
    sequence: int
    size_bytes: int
    register: str = ""


@attrs.frozen
class ValueTold:
    """What a value holds.

    :ivar mark: its length and checksum.
    :ivar commands_total: how many commands.
    :ivar commands: the first of them.
    :ivar members: the ids of the members, if the value says who they are.
    :ivar kept_alive: how many timers it keeps alive.
    :ivar utc_ms: the replicated time of day, in milliseconds since 1970; ``None`` if the value has none.
    """

    mark: ValueMark
    commands_total: int = 0
    commands: tuple[CommandTold, ...] = ()
    members: tuple[str, ...] = ()
    kept_alive: int = 0
    utc_ms: int | None = None

    def words(self) -> str:
        """What it holds, in a few words."""
        if self.members:
            return f"the members {', '.join(self.members)}"
        if not self.mark.size_bytes:
            return "a no-op"
        parts = []
        if self.commands_total:
            parts.append(f"{self.commands_total} command{'s' * (self.commands_total > 1)}")
        if self.kept_alive:
            parts.append(f"{self.kept_alive} timer{'s' * (self.kept_alive > 1)} kept alive")
        return f"{' and '.join(parts) or 'the time, so that timers fire'} ({self.mark.size_bytes} bytes)"


def tell_value(value: bytes) -> ValueTold:
    """What ``value`` holds. Of a value that cannot be decoded, only its mark is told."""
    mark = ValueMark.of(value)
    if value == NO_OP:
        return ValueTold(mark)
    try:
        if value[:1] == MEMBERS_BYTE:
            return ValueTold(mark, members=tuple(decode_members(value).members))
        stamp, runs = stamp_of(value), decode_batch(value)
    except CodecError:
        return ValueTold(mark)
    return ValueTold(
        mark,
        sum(len(run.payloads) for run in runs),
        tuple(islice(_commands(runs), COMMANDS_SHOWN_MAX)),
        kept_alive=0 if stamp is None else len(stamp.kept_alive),
        utc_ms=None if stamp is None else stamp.time.utc_ms,
    )


def _commands(runs: Iterable[Run]) -> Iterator[CommandTold]:
    for run in runs:
        session, for_registers = run.session.hex(), is_for_registers(run.session)
        for sequence, payload in zip(run.sequences, run.payloads, strict=True):
            command = _register_command(payload) if for_registers else None
            yield CommandTold(session, sequence, len(payload), "" if command is None else command.subject)


def _register_command(payload: bytes) -> DecideRegister | ForgetRegister | None:
    """The command of the registers in ``payload``, if it is about one register."""
    try:
        command = decode_command(payload)
    except ValueError:
        return None
    return command if isinstance(command, DecideRegister | ForgetRegister) else None


def slot_of_command(values: Iterable[tuple[Slot, bytes]], session: bytes, sequence: int) -> Slot:
    """The first slot of ``values`` that holds the command ``sequence`` of ``session``; 0 if none does."""
    for slot, value in values:
        if session in value and any(run.session == session and sequence in run.sequences for run in _decoded(value)):
            return slot
    return 0


def slot_of_register(values: Iterable[tuple[Slot, bytes]], subject: str) -> Slot:
    """The slot of ``values`` that decided the register ``subject``, or made it undecided, for the last time; 0 if none
    did. A command that finds the register decided changes nothing."""
    found, is_decided, name = 0, False, subject.encode()
    for slot, value in values:
        if name not in value:
            continue
        for payload in (one for run in _decoded(value) if is_for_registers(run.session) for one in run.payloads):
            command = _register_command(payload)
            if command is None or command.subject != subject:
                continue
            if isinstance(command, ForgetRegister):
                found, is_decided = slot, False
            elif not is_decided:
                found, is_decided = slot, True
    return found


def _decoded(value: bytes) -> tuple[Run, ...]:
    if value[:1] == MEMBERS_BYTE:
        return ()
    try:
        return decode_batch(value)
    except CodecError:
        return ()
