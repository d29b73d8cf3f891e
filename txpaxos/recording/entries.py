"""What a segment holds: one entry for each step, as a MessagePack array that begins with the number of its kind.

The first entry of each segment is a :class:`Head`. Then comes what a replay begins with: a :class:`Start`, with all
that the node has made its core from, or a :class:`State`, with all that the core remembered at that point. So a
recording whose oldest segments are gone can be replayed all the same. Before it there are the records or the values
that belong to it, in parts, since they may be very many.

A writer packs plain tuples, which have the same bytes: they cost less.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec


class Head(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """The first entry of a segment.

    :ivar node: the node's id.
    :ivar release: the release that has recorded this.
    :ivar is_redacted: whether values are replaced by their length and a digest.
    :ivar inputs: how many calls of the core are in the segments of this run before this one.
    """

    node: str
    run: int
    number: int
    release: str
    is_redacted: bool
    inputs: int


class Start(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """The node has made its core.

    :ivar now: when, in monotonic seconds.
    :ivar arguments: what the core was made from, as plain data of a dict: ``node``, ``members``, ``timing``,
        ``limits``, ``base``, ``votes`` and ``configurations``. The records are those of :class:`Records`.
    :ivar given: the chance that it has drawn, and what the node said about values.
    :ivar state: a checksum of the core's state as plain data, without lists of values.
    """

    now: float
    arguments: list[Any]
    given: list[Any]
    state: int


class State(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """All that the core remembers at this point, as plain data."""

    core: list[Any]


class Input(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """A call of the core.

    :ivar call: the number of the method (:class:`~txpaxos.recording.calls.Call`).
    :ivar now: the time that was passed in, in monotonic seconds; that of the call before, if none was.
    :ivar arguments: the other arguments as plain data. A message is its kind number and its fields by name, as on the
        wire. A leader's own message with a big value has an empty one, and the number of the call that proposed it.
    :ivar given: the chance that it has drawn, and what the node said about values.
    :ivar result: a digest of what it returned, or the name of the exception that it raised.
    :ivar released: the Readys that were released since the last entry: the number of the call, counted from 1 in its
        run, and when, in turn.
    """

    call: int
    now: float
    arguments: list[Any]
    given: list[Any]
    result: int | str
    released: list[int | float]


class Releases(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """Readys were released: what they save is on disk.

    :ivar released: as in :class:`Input`.
    """

    released: list[int | float]


class Application(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """All slots up to ``slot`` are applied.

    :ivar now: when, in monotonic seconds.
    """

    slot: int
    now: float


class Clocks(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """What two clocks said at one moment.

    :ivar now: the monotonic one, in seconds.
    :ivar utc: the time of day, in seconds since 1970.
    """

    now: float
    utc: float


class Values(msgspec.Struct, array_like=True, tag=8, frozen=True):
    """A part of a list of values.

    :ivar number: the number of the list, in the state that follows.
    """

    number: int
    values: list[bytes]


class Records(msgspec.Struct, array_like=True, tag=9, frozen=True):
    """Some of the records that were loaded, as in a journal."""

    data: bytes


class End(msgspec.Struct, array_like=True, tag=7, frozen=True):
    """The recording ends here, because the node has stopped. Where a process was killed there is none."""


Entry: TypeAlias = Head | Start | State | Input | Releases | Application | Clocks | End | Values | Records

HEAD: Final = 0
START: Final = 1
STATE: Final = 2
INPUT: Final = 3
RELEASES: Final = 4
APPLICATION: Final = 5
CLOCKS: Final = 6
END: Final = 7
VALUES: Final = 8
RECORDS: Final = 9

pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def unpack(data: bytes) -> Entry:
    """The entry that ``data`` is.

    :raises ValueError: if it is none.
    """
    try:
        entry: Entry = _decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no entry: {error}") from None
    return entry
