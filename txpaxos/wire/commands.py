"""Commands, and the values of the log: batches of commands.

A batch is one byte of format version (1) and a MessagePack array of ``[session, sequence, acknowledged, payload]``. It
is encoded once, by the leader that proposes it, and from there carried as bytes. The empty batch is ``b""``, which is
also the no-op of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from txpaxos.errors import CodecError

BATCH_VERSION = 1
SESSION_BYTES_MIN = 8
SESSION_BYTES_MAX = 32
COMMAND_BYTES_MAX = 16 * 2**20
"""The longest command, query, or value of a subject."""

_BORN_BYTES = 8
_RANDOM_BYTES = 16
_COUNT_MAX = 2**64 - 1

Session: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SESSION_BYTES_MIN, max_length=SESSION_BYTES_MAX)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Command(NamedTuple):
    """What a caller wants applied, once.

    :ivar session: the caller's own, 8 to 32 bytes, made with :func:`new_session`.
    :ivar sequence: counts the commands of a session, 0 to 2**64 - 1. Sent again, a command keeps it.
    :ivar acknowledged: the caller has every answer up to this sequence, so they need not be remembered.
    :ivar payload: opaque bytes for ``apply``.
    """

    session: Session
    sequence: Count
    acknowledged: Count
    payload: bytes


def new_session(random_bytes: bytes, born: int) -> bytes:
    """A session's name.

    It says when the session was made, so that a session which is not known can be told from one that was forgotten:
    what was made after the last one forgotten is new for sure.

    :param random_bytes: 16 bytes that nobody else has.
    :param born: a slot that some node has applied, with all before it, when the session is made.
    """
    assert len(random_bytes) == _RANDOM_BYTES
    return born.to_bytes(_BORN_BYTES, "big") + random_bytes


def session_born(session: bytes) -> int:
    """The slot that was applied when the session was made."""
    return int.from_bytes(session[:_BORN_BYTES], "big")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Command, ...]).decode
_VERSION_BYTE = bytes([BATCH_VERSION])


def encode_batch(commands: Sequence[Command]) -> bytes:
    """The value that holds ``commands``; ``b""`` if there are none.

    :raises ValueError: if a command is not one: no node could read it again once it is chosen.
    """
    check_commands(commands)
    return _VERSION_BYTE + _encode(commands) if commands else b""


def decode_batch(value: bytes) -> tuple[Command, ...]:
    """The commands that ``value`` holds.

    :raises CodecError: if it is not the value of a batch. Nothing else is raised.
    """
    if not value:
        return ()
    if value[0] != BATCH_VERSION:
        raise CodecError(f"batch of version {value[0]}, this node reads {BATCH_VERSION}: run one release everywhere")
    try:
        return _decode(memoryview(value)[1:])
    except msgspec.MsgspecError as error:
        raise CodecError(f"no batch of commands: {error}") from None


def check_commands(commands: Iterable[Command]) -> None:
    """Look for what would encode but not decode.

    :raises ValueError: naming the first command that is not one.
    """
    for command in commands:
        session, sequence, acknowledged, payload = command
        if not (
            type(session) is bytes
            and SESSION_BYTES_MIN <= len(session) <= SESSION_BYTES_MAX
            and type(sequence) is int  # which a bool is not
            and 0 <= sequence <= _COUNT_MAX
            and type(acknowledged) is int
            and 0 <= acknowledged <= _COUNT_MAX
            and type(payload) is bytes
        ):
            raise ValueError(
                f"session {session!r}, sequence {sequence!r}, acknowledged {acknowledged!r}, payload of type"
                f" {type(payload).__name__}: a command needs a session of {SESSION_BYTES_MIN} to {SESSION_BYTES_MAX}"
                " bytes, counts of 0 to 2**64 - 1, and bytes"
            )
