"""The registers: values that are decided once, each under a name, as a part of the replicated state.

The table changes only with the log, the same on every node, and goes into every snapshot. So a register that is decided
stays decided whatever becomes of the members: a node that has the log, or a snapshot, has the register.

Earlier releases decided each register by a ballot of its own, without the log. What they decided comes into the table
once in the life of a cluster (:mod:`txpaxos.node.sealing`). Until then the table is not *sealed*, and no register is
decided by the log: a majority of the nodes might know a value that is not in the table yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from txpaxos.core.messages import Slot
from txpaxos.errors import CodecError, CommandFailed
from txpaxos.node.sessions import Failed, Outcome, encode_result
from txpaxos.wire.commands import Count
from txpaxos.wire.registers import DecideRegister, ForgetRegister, ImportRegisters, SealRegisters, decode_command

CHUNK_BYTES = 2**16
DUMP_VERSION = 1
_BYTES_BESIDE = 16
"""Roughly what a register takes in a dump beside its name and its value."""

NO_COMMAND = Failed(CommandFailed, "this is no command for registers")
NOT_SEALED = Failed(CommandFailed, "registers of an earlier release are not in the log yet")


class RegisterDecided(NamedTuple):
    """The register ``subject`` is decided on ``value``."""

    subject: str
    value: bytes


class _Chunk(NamedTuple):
    """A part of a dump that can be decoded without the others."""

    version: int
    sealed_at: Count
    registers: tuple[tuple[str, bytes], ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Chunk).decode


class Registers:
    """The table of all decided registers.

    :ivar sealed_at: the slot from which on the log decides registers; 0 before that.
    :ivar news: the decisions that the owner has not taken yet with :meth:`take_news`.
    """

    def __init__(self) -> None:
        self.sealed_at: Slot = 0
        self.news: list[RegisterDecided] = []
        self._values: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, subject: str) -> bool:
        """Whether ``subject`` is decided."""
        return subject in self._values

    def get(self, subject: str) -> bytes | None:
        """The value that ``subject`` is decided on; ``None`` if it is undecided."""
        return self._values.get(subject)

    def take_news(self) -> list[RegisterDecided]:
        """The decisions since the last call, in their order."""
        news, self.news = self.news, []
        return news

    # changes, by the log alone

    def apply(self, slot: Slot, payload: bytes) -> Outcome:
        """Apply one command. What is no command, or comes too early, fails on every node alike."""
        try:
            command = decode_command(payload)
        except ValueError:
            return NO_COMMAND
        match command:
            case ImportRegisters(registers):
                if not self.sealed_at:
                    for subject, value in registers:
                        self._decide(subject, value)
                return encode_result(None)
            case SealRegisters():
                self.sealed_at = self.sealed_at or slot
                return encode_result(None)
            case _ if not self.sealed_at:
                return NOT_SEALED
            case DecideRegister(subject, value):
                return encode_result(self._decide(subject, value))
            case ForgetRegister(subject):  # pragma: no branch
                return encode_result(self._values.pop(subject, None))

    def _decide(self, subject: str, value: bytes) -> bytes:
        """Decide ``subject`` on ``value`` unless it is decided. Returns what it is decided on."""
        known = self._values.get(subject)
        if known is not None:
            return known
        self._values[subject] = value
        self.news.append(RegisterDecided(subject, value))
        return value

    # into a snapshot, and out of it

    def dump(self) -> Iterator[bytes]:
        """The whole table as it is now, in chunks of about 64 KiB; no chunk if it is empty and not sealed. A single
        longer value has a longer chunk. The table may change while the chunks are taken."""
        return _chunks(self.sealed_at, list(self._values.items()))

    def add(self, chunk: bytes) -> None:
        """Add the next chunk of a dump. The table must have been empty before the first chunk.

        :raises CodecError: if ``chunk`` is none. The table must not be used after that.
        """
        try:
            version, self.sealed_at, registers = _decode(chunk)
        except msgspec.MsgspecError as error:
            raise CodecError(f"no table of registers: {error}") from None
        if version != DUMP_VERSION:
            raise CodecError(f"table of registers of version {version}, this node reads {DUMP_VERSION}")
        self._values.update(registers)

    def replaces(self, before: Registers) -> None:
        """This table has come in a snapshot, and takes the place of ``before``. What it has decided otherwise is news,
        after the news that ``before`` still had."""
        known = before._values
        different = [RegisterDecided(*one) for one in self._values.items() if known.get(one[0]) != one[1]]
        self.news = [*before.take_news(), *different]


def _chunks(sealed_at: Slot, registers: list[tuple[str, bytes]]) -> Iterator[bytes]:
    """The chunks of a dump."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for one in registers:
        part.append(one)
        size += len(one[0]) + len(one[1]) + _BYTES_BESIDE
        if size > CHUNK_BYTES:
            yield _encode(_Chunk(DUMP_VERSION, sealed_at, tuple(part)))
            part, size = [], 0
    if part or (sealed_at and not registers):
        yield _encode(_Chunk(DUMP_VERSION, sealed_at, tuple(part)))
