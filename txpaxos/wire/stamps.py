"""What the leader puts before a batch: the replicated time, and the timers that were kept alive.

A stamp is a byte (``T``), and the two clocks of :class:`~txpaxos.replicated_time.ReplicatedTime` with 8 bytes each,
big-endian.

A stamp that keeps timers alive has another first byte (``K``), so that a node of an earlier release refuses the value.
After the clocks it has the grace in milliseconds and the size of what follows in bytes, with 4 bytes each, and then a
MessagePack array of ``[name, number]``, or of ``[number before, number]`` for all timers that have that number.

The batch follows the stamp. It may be empty.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from txpaxos.errors import CodecError
from txpaxos.replicated_time import ReplicatedTime, checked_time

STAMP_BYTE = b"T"
KEEPING_STAMP_BYTE = b"K"
"""The first byte of a stamp that keeps timers alive."""

TIMER_NAME_BYTES_MAX = 512
"""The longest name of a timer."""
NUMBER_MAX = 2**63 - 1
"""The highest number of a keep-alive."""
KEPT_ALIVE_MAX = 4096
"""The most timers that one value keeps alive."""
KEPT_ALIVE_BYTES_MAX = 2**17
"""The most bytes that they take in it."""

_OTHER_BYTES = 13
"""At most what a timer that is kept alive takes beside its name: the heads of the array and of the name, the number."""
_TOGETHER_BYTES = 19
"""At most what timers take that are kept alive together: the head of the array, and two numbers."""

TimerName: TypeAlias = Annotated[str, msgspec.Meta(max_length=TIMER_NAME_BYTES_MAX)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]


class KeptAlive(NamedTuple):
    """A timer that is kept alive, or several that were kept alive together before.

    :ivar name: the timer, or the number of the last keep-alive that counted for the timers.
    :ivar number: of the keep-alive that was heard. It counts if it is higher than all that counted before.
    """

    name: TimerName | Number
    number: Number

    @property
    def size_bytes(self) -> int:
        """At most how many bytes it takes in a value."""
        name = self.name
        if isinstance(name, int):
            return _TOGETHER_BYTES
        return _OTHER_BYTES + (len(name) if name.isascii() else len(name.encode()))


class Stamp(NamedTuple):
    """What is before a batch.

    :ivar time: the replicated time of the value.
    :ivar kept_alive: the timers that are kept alive, each from that time on.
    :ivar grace_ms: how long no kept-alive timer fires from that time on: the leader is new and may not have heard yet
        what was sent to an earlier one.
    """

    time: ReplicatedTime
    kept_alive: tuple[KeptAlive, ...] = ()
    grace_ms: int = 0


_STAMP = struct.Struct(">cQQ")
_KEEPING_STAMP = struct.Struct(">cQQII")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Annotated[tuple[KeptAlive, ...], msgspec.Meta(max_length=KEPT_ALIVE_MAX)]).decode


def stamped(time: ReplicatedTime, batch: bytes, kept_alive: Sequence[KeptAlive] = (), grace_ms: int = 0) -> bytes:
    """The value with that batch, which may be empty, and a :class:`Stamp`.

    :raises ValueError: if it would keep too many timers alive. A value that no node can decode must not be chosen.
    """
    if not kept_alive and not grace_ms:
        return _STAMP.pack(STAMP_BYTE, time.elapsed_ms, time.utc_ms) + batch
    keeping = _encode(kept_alive)
    if len(kept_alive) > KEPT_ALIVE_MAX or len(keeping) > KEPT_ALIVE_BYTES_MAX:
        raise ValueError(f"{len(kept_alive)} timers with {len(keeping)} bytes: too many to keep alive in one value")
    head = _KEEPING_STAMP.pack(KEEPING_STAMP_BYTE, time.elapsed_ms, time.utc_ms, grace_ms, len(keeping))
    return head + keeping + batch


def stamp_of(value: bytes) -> Stamp | None:
    """The stamp of ``value``; ``None`` if it has none.

    :raises CodecError: if it has one that is wrong."""
    try:
        if value[:1] == STAMP_BYTE:
            _, elapsed_ms, utc_ms = _STAMP.unpack_from(value)
            return Stamp(checked_time(elapsed_ms, utc_ms))
        if value[:1] == KEEPING_STAMP_BYTE:
            _, elapsed_ms, utc_ms, grace_ms, size = _KEEPING_STAMP.unpack_from(value)
            if size > KEPT_ALIVE_BYTES_MAX:
                raise ValueError(f"{size} bytes of timers that are kept alive")
            keeping = memoryview(value)[_KEEPING_STAMP.size : _KEEPING_STAMP.size + size]
            return Stamp(checked_time(elapsed_ms, utc_ms), _decode(keeping), grace_ms)
    except (struct.error, msgspec.MsgspecError, ValueError) as error:
        raise CodecError(f"no stamp of a batch: {error}") from None
    return None


def batch_of(value: bytes) -> memoryview:
    """The batch in ``value``, which may have a stamp or not."""
    if value[:1] == STAMP_BYTE:
        return memoryview(value)[_STAMP.size :]
    if value[:1] == KEEPING_STAMP_BYTE:
        size = int.from_bytes(value[_KEEPING_STAMP.size - 4 : _KEEPING_STAMP.size], "big")
        return memoryview(value)[_KEEPING_STAMP.size + size :]
    return memoryview(value)
