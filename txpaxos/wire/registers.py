"""The commands of the registers, which are in the log beside the commands of the application.

A register is a value under a name, its *subject*, that is decided once. All registers are one table, which is part of
the replicated state (:mod:`txpaxos.node.registers`). The table changes only by these commands. A command is one kind
byte and MessagePack: a map from field names to values. It is a payload of a run whose session is one of the registers
(:func:`txpaxos.wire.commands.is_for_registers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.packing import Packing

SUBJECT_BYTES_MAX = 512
"""The longest name of a register, in bytes of UTF-8. A name has at least one byte."""

HEAD_BYTES_MAX = SUBJECT_BYTES_MAX + 64
"""The most bytes that a command about one register has beside the register's value."""

IMPORT_BYTES = 2**19
"""Bytes of registers in one :class:`ImportRegisters`, not counting the first register."""

IMPORTED_MAX = 4096
"""The most registers in one :class:`ImportRegisters`."""

ImportedRegisters: TypeAlias = Annotated[tuple[tuple[str, bytes], ...], msgspec.Meta(max_length=IMPORTED_MAX)]


@attrs.frozen
class DecideRegister:
    """Decide the register ``subject`` on ``value``, unless it is decided. The result is the value it is decided on."""

    subject: str
    value: bytes


@attrs.frozen
class ForgetRegister:
    """Make the register ``subject`` undecided. The result is the value that it was decided on, ``None`` if none."""

    subject: str


@attrs.frozen
class ImportRegisters:
    """Decide registers on what a majority of the nodes knew of them under an earlier release.

    It changes no register that is decided, and nothing at all after :class:`SealRegisters`."""

    registers: ImportedRegisters


@attrs.frozen
class SealRegisters:
    """All that earlier releases have decided was imported before. From here on registers are decided by the log."""


RegisterCommand: TypeAlias = DecideRegister | ForgetRegister | ImportRegisters | SealRegisters

# Kind numbers are never used again for something else.
_packing: Packing[RegisterCommand] = Packing(
    {1: DecideRegister, 2: ForgetRegister, 3: ImportRegisters, 4: SealRegisters}
)


def encode_command(command: RegisterCommand) -> bytes:
    """The payload that holds ``command``."""
    kind, fields = _packing.pack(command)
    return bytes([kind]) + fields


def decode_command(payload: bytes) -> RegisterCommand:
    """The command that :func:`encode_command` was given.

    :raises ValueError: if ``payload`` is none, or the name of a register in it is empty or too long.
    """
    if not payload:
        raise ValueError("an empty command")
    command = _packing.unpack(payload[0], memoryview(payload)[1:])
    match command:
        case DecideRegister() | ForgetRegister():
            check_subject(command.subject)
        case ImportRegisters():
            for subject, _ in command.registers:
                check_subject(subject)
    return command


def import_commands(registers: Mapping[str, bytes]) -> Iterator[ImportRegisters]:
    """The commands that import ``registers``, in the order of their names."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for subject in sorted(registers):
        value = registers[subject]
        size += len(subject) + len(value)
        if part and (size > IMPORT_BYTES or len(part) == IMPORTED_MAX):
            yield ImportRegisters(tuple(part))
            part, size = [], len(subject) + len(value)
        part.append((subject, value))
    if part:
        yield ImportRegisters(tuple(part))


def check_subject(subject: str) -> None:
    """Check the length of a register's name.

    :raises ValueError: if it is empty or too long; UnicodeEncodeError, which is one, if it has no UTF-8.
    """
    size = len(subject.encode())
    if not 0 < size <= SUBJECT_BYTES_MAX:
        raise ValueError(f"the name of a register has {size} bytes, and may have 1 to {SUBJECT_BYTES_MAX}")
