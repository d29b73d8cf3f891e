"""Reads a recording: its events, in the order in which they were recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from txpaxos.errors import RecordingError
from txpaxos.recording.calls import BIG_BYTES, Call, with_values
from txpaxos.recording.entries import (
    Application,
    Clocks,
    End,
    Entry,
    Head,
    Input,
    Records,
    Releases,
    Start,
    State,
    Values,
    pack,
    unpack,
)
from txpaxos.recording.events import (
    ClocksRead,
    CoreCalled,
    CoreMade,
    CoreState,
    Event,
    ReadyReleased,
    RunEnded,
    SegmentBegun,
    SlotsApplied,
)
from txpaxos.recording.files import Segment, damaged, entries_of, nodes_in, segments_in
from txpaxos.recording.graph import Load
from txpaxos.recording.redaction import Value, restored
from txpaxos.storage.disk import Disk
from txpaxos.storage.records import decode as decode_records
from txpaxos.wire.codec import unpack_message


def recorded_nodes(directory: str, disk: Disk | None = None) -> list[str]:
    """The nodes that have a recording in the folder ``directory``.

    :raises RecordingError: if there is none, or the folder cannot be read.
    """
    return nodes_in(disk or Disk(), directory)


def located(directory: str, disk: Disk | None = None) -> tuple[str, str | None]:
    """The folder of a recording, and the node whose own folder in it ``directory`` is; ``None`` if it is that folder.

    :raises RecordingError: if the folder cannot be read.
    """
    directory = os.path.abspath(directory)
    try:
        if segments_in(disk or Disk(), directory):
            return os.path.split(directory)
    except OSError as error:
        raise RecordingError(f"cannot read {directory}: {error.strerror}", directory) from None
    return directory, None


def read_recording(directory: str, node: str, disk: Disk | None = None) -> Iterator[Event]:
    """The events of one node, run by run. Each segment begins with a SegmentBegun, and then with a CoreMade or a
    CoreState. A recording that grows is read up to where it was.

    :param directory: the folder of the recording, which may have other nodes in it.
    :raises RecordingError: where the recording cannot be read any further. What was yielded before is sound.
    """
    disk = disk or Disk()
    folder = os.path.join(directory, node)
    try:
        segments = segments_in(disk, folder)
    except OSError as error:
        raise RecordingError(f"cannot read {folder}: {error.strerror}", folder) from None
    if not segments:
        raise RecordingError(f"{directory} has no recording of node {node}", folder)
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        path = os.path.join(folder, segment.name)
        is_last = following is None or following.run != segment.run
        if following is not None and not is_last and following.number != segment.number + 1:
            missing = Segment(segment.run, segment.number + 1).name
            raise RecordingError(f"{os.path.join(folder, missing)} is missing", path)
        try:
            if disk.inspect(path, follow=True).kind != "file":  # To read a pipe could take for ever.
                raise RecordingError(f"{path} is no file of a recording", path)
            data = disk.read(path)
        except FileNotFoundError:
            continue  # The node has removed it meanwhile, as the oldest.
        except MemoryError:
            raise RecordingError(f"{path} is too long to be read", path) from None
        except OSError as error:
            raise RecordingError(f"cannot read {path}: {error.strerror}", path) from None
        yield from _SegmentReader(data, path, node, segment, is_last).events()


class _SegmentReader:
    """Reads one segment.

    :param node: the node in whose folder it is.
    :param is_last: whether it is the last one of its run.
    """

    def __init__(self, data: bytes, path: str, node: str, segment: Segment, is_last: bool) -> None:
        self._entries = entries_of(data, path, is_last)
        self._path, self._node = path, node
        self._segment = segment
        self._count = self._inputs = 0
        self._has_begun = False
        self._values: dict[int, list[bytes]] = {}
        self._records: list[Any] = []
        self._value: Value | None = None
        # The big values that this leader has proposed, by the number of the call.
        self._proposed: dict[int, bytes] = {}

    def events(self) -> Iterator[Event]:
        """The events of the segment.

        :raises RecordingError: if it is not as it was written.
        """
        for data in self._entries:
            self._count += 1
            try:
                entry = unpack(data)
                self._check_place(entry)
                events = self._events(entry)
            except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError) as error:
                raise damaged(self._path, 0, f"entry {self._count}: {error}") from None
            yield from events

    def _check_place(self, entry: Entry) -> None:
        """Check that the segment begins as it must, and that nothing else is such an entry."""
        begins = Start if self._segment.number == 1 else State
        if self._count == 1:
            if not isinstance(entry, Head):
                raise ValueError("a segment does not begin with it, but with a Head")
        elif not self._has_begun:
            if not isinstance(entry, Values | Records | begins):
                raise ValueError(f"a segment does not begin with it, but with a {begins.__name__}")
            self._has_begun = isinstance(entry, begins)
        elif isinstance(entry, Head | Start | State | Values | Records):
            raise ValueError("it belongs at the begin of a segment")

    def _events(self, entry: Entry) -> list[Event]:
        match entry:
            case Head():
                return [self._begun(entry)]
            case Values():
                self._values.setdefault(entry.number, []).extend(entry.values)
                return []
            case Records():
                self._records += (with_values(record, self._value) for record in decode_records(entry.data))
                return []
            case Start():
                return [self._made(entry)]
            case State():
                lists = [tuple(self._values[number]) for number in range(len(self._values))]
                return [CoreState(entry.core, tuple(lists))]
            case Input():
                return [*_releases(entry.released), self._called(entry)]
            case Releases():
                return [*_releases(entry.released)]
            case Application():
                return [SlotsApplied(entry.slot, entry.now)]
            case Clocks():
                return [ClocksRead(entry.now, entry.utc)]
            case End():  # pragma: no branch
                return [RunEnded()]

    def _made(self, entry: Start) -> CoreMade:
        arguments = self._load(entry.arguments)
        if not isinstance(arguments, dict):
            raise ValueError("no arguments")
        return CoreMade(entry.now, {**arguments, "saved": self._records}, self._given(entry.given), entry.state)

    def _called(self, entry: Input) -> CoreCalled:
        self._inputs += 1
        call = Call(entry.call)
        arguments = self._arguments(call, entry.arguments)
        if call is Call.PROPOSE and len(arguments[0]) >= BIG_BYTES:
            self._proposed[self._inputs] = arguments[0]
        return CoreCalled(self._inputs, call, entry.now, arguments, self._given(entry.given), entry.result)

    def _begun(self, head: Head) -> SegmentBegun:
        if (head.run, head.number) != (self._segment.run, self._segment.number):
            raise ValueError(f"it is of {Segment(head.run, head.number).name}")
        if head.node != self._node:
            raise ValueError(f"it is of node {head.node!a}, and lies in the folder of node {self._node!a}")
        self._inputs = head.inputs
        self._value = restored if head.is_redacted else None
        return SegmentBegun(head.node, head.run, head.number, head.release, head.is_redacted, head.inputs, self._path)

    def _load(self, plain: Any) -> Any:
        return Load(value=self._value).item(plain)

    def _given(self, given: list[Any]) -> tuple[Any, ...]:
        return tuple(map(self._load, given))

    def _arguments(self, call: Call, plain: list[Any]) -> tuple[Any, ...]:
        if call is not Call.RECEIVE:
            return tuple(map(self._load, plain))
        sender, kind, fields, *proposed_by = plain
        if not isinstance(sender, str) or not isinstance(kind, int):
            raise ValueError("no message")
        message = unpack_message(kind, pack(fields))
        if proposed_by:
            value = self._proposed.pop(proposed_by[0])
            return sender, with_values(message, lambda _: value)
        return sender, with_values(message, self._value)


def _releases(released: list[int | float]) -> Iterator[ReadyReleased]:
    for number, now in zip(released[::2], released[1::2], strict=True):
        yield ReadyReleased(int(number), float(now))
