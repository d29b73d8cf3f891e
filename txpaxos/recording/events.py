"""What a recording tells, as typed events. :func:`~txpaxos.recording.reading.read_recording` yields them."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from txpaxos.core.messages import NodeId, Slot
from txpaxos.recording.calls import Call


@attrs.frozen
class SegmentBegun:
    """A file begins.

    :ivar node: the node's id.
    :ivar run: which start of the node it is of, counted from 1.
    :ivar segment: its number in that run, counted from 1.
    :ivar release: the release that has recorded it.
    :ivar is_redacted: whether values are replaced by their length and a digest.
    :ivar inputs: how many calls there were in this run before.
    :ivar path: the file.
    """

    node: NodeId
    run: int
    segment: int
    release: str
    is_redacted: bool
    inputs: int
    path: str


@attrs.frozen
class CoreMade:
    """The node has started, and made its core.

    :ivar now: when, in monotonic seconds.
    :ivar arguments: what :class:`~txpaxos.core.replica.Replica` was made with: ``node``, ``members``, ``saved`` (the
        records that were loaded), ``timing``, ``limits``, ``base``, ``votes`` and ``configurations``.
    :ivar given: the chance that it drew, and what the node said about values.
    :ivar state: a checksum of its state.
    """

    now: float
    arguments: dict[str, Any]
    given: tuple[Any, ...]
    state: int


@attrs.frozen
class CoreState:
    """All that the core remembered at the begin of a segment.

    :ivar plain: plain data, as :mod:`txpaxos.recording.graph` has it.
    :ivar values: the lists of values that it names by their numbers.
    """

    plain: Any = attrs.field(repr=False)
    values: tuple[tuple[bytes, ...], ...] = attrs.field(default=(), repr=False)


@attrs.frozen
class CoreCalled:
    """A method of the core was called.

    :ivar number: how many calls there were in this run, this one included.
    :ivar now: the time that was passed in, in monotonic seconds; that of the call before, if none was.
    :ivar arguments: the other arguments.
    :ivar given: the chance that it drew, and what the node said about values.
    :ivar result: a digest of what it returned, or the name of the exception that it raised.
    """

    number: int
    call: Call
    now: float
    arguments: tuple[Any, ...]
    given: tuple[Any, ...]
    result: int | str


@attrs.frozen
class ReadyReleased:
    """What the call of that ``number`` wanted saved is on disk. The rest of what it returned is performed now.

    :ivar now: when, in monotonic seconds.
    """

    number: int
    now: float


@attrs.frozen
class SlotsApplied:
    """All slots up to ``slot`` are applied, or stand in a snapshot that the node goes on from.

    :ivar now: when, in monotonic seconds.
    """

    slot: Slot
    now: float


@attrs.frozen
class ClocksRead:
    """What two clocks said at one moment. Between two of them, times of several nodes compare by these.

    :ivar now: the monotonic clock, in seconds.
    :ivar utc_seconds: the time of day, in seconds since 1970.
    """

    now: float
    utc_seconds: float


@attrs.frozen
class RunEnded:
    """The node has stopped. Where its process was killed there is no such event."""


Event: TypeAlias = (
    SegmentBegun | CoreMade | CoreState | CoreCalled | ReadyReleased | SlotsApplied | ClocksRead | RunEnded
)
