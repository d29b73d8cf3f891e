"""Records all that enters the core of one node.

A node that records makes its core by :meth:`Recorder.make_core`. That core is a :class:`RecordedReplica`: each call
that may change it is noted, with its arguments, the chance that it drew, what the node said about values, and a digest
of what it returned. A node that does not record has a plain core, and pays nothing.

Nothing that goes wrong here concerns the node: the recording ends with one line in the log.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar

from twisted.logger import Logger

from txpaxos.core.config import Limits, Timing
from txpaxos.core.membership import Change, Configuration
from txpaxos.core.messages import LOWEST, AcceptSlot, Message, NodeId, Slot
from txpaxos.core.ready import Chosen, Installed, LogRecord, Ready
from txpaxos.core.replica import Replica
from txpaxos.log_lines import for_log
from txpaxos.recording.calls import BIG_BYTES, METHODS, Arguments, Call, digest, ready_of, standing_for, with_values
from txpaxos.recording.entries import (
    APPLICATION,
    CLOCKS,
    END,
    HEAD,
    INPUT,
    RECORDS,
    RELEASES,
    START,
    STATE,
    VALUES,
    pack,
)
from txpaxos.recording.graph import Dump
from txpaxos.recording.options import RecordingOptions, this_release
from txpaxos.recording.redaction import Value, redactor
from txpaxos.recording.writer import DirectWriter, Files, ThreadWriter, Writer, folder_of
from txpaxos.storage.disk import Disk
from txpaxos.storage.records import encode as encode_records
from txpaxos.wire.codec import kind_of

# To look up the member of an enumeration takes as long as a part of what is recorded with each call.
_RECEIVE, _PROPOSE, _CHECKPOINT = Call.RECEIVE, Call.PROPOSE, Call.CHECKPOINT

T = TypeVar("T")

SEGMENTS = 16
"""A segment has about this part of all bytes."""

PART_BYTES = 2**18
"""Values and records are packed in parts of about that size."""

CLOCKS_SECONDS = 1.0
"""How often the time of day is noted, to merge recordings of several nodes."""


class NotedRandom(Random):
    """Gives what ``source`` gives, and notes it. All other methods of Random draw from these two."""

    def __new__(cls, *_: object) -> NotedRandom:
        """Make one. Its own state is never used."""
        return super().__new__(cls)

    def __init__(self, source: Random, given: list[Any]) -> None:
        self._source = source
        self._given = given

    def random(self) -> float:
        """A number from 0 to 1."""
        drawn = self._source.random()
        self._given.append(drawn)
        return drawn

    def getrandbits(self, k: int, /) -> int:
        """A number of ``k`` bits."""
        drawn = self._source.getrandbits(k)
        self._given.append(drawn)
        return drawn


class RecordedReplica(Replica):
    """A core whose calls are recorded. See :class:`~txpaxos.core.replica.Replica` for what they do."""

    _recorder: Recorder

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Take one message."""
        ready: Ready = self._recorder.call(self, _RECEIVE, now, (sender, message))
        return ready

    def receive_hint(self, source: NodeId, now: float) -> Ready:
        """Take a hint."""
        ready: Ready = self._recorder.call(self, Call.RECEIVE_HINT, now, (source,))
        return ready

    def tick(self, now: float) -> Ready:
        """Do what time asks for."""
        ready: Ready = self._recorder.call(self, Call.TICK, now, ())
        return ready

    def propose(self, value: bytes, now: float, urgent: bool = False) -> Ready:
        """Propose a value."""
        ready: Ready = self._recorder.call(self, _PROPOSE, now, (value, urgent))
        return ready

    def hand_over(self, target: NodeId | None, now: float) -> tuple[str, Ready]:
        """Begin to hand over the lead."""
        result: tuple[str, Ready] = self._recorder.call(self, Call.HAND_OVER, now, (target,))
        return result

    def leave(self, now: float) -> Ready:
        """This node is about to stop."""
        ready: Ready = self._recorder.call(self, Call.LEAVE, now, ())
        return ready

    def request_read_index(self, now: float) -> tuple[int, Ready]:
        """Begin a request for a read index."""
        result: tuple[int, Ready] = self._recorder.call(self, Call.REQUEST_READ_INDEX, now, ())
        return result

    def checkpoint(self, slot: Slot) -> tuple[LogRecord, ...]:
        """What to save beside a snapshot."""
        records: tuple[LogRecord, ...] = self._recorder.call(self, Call.CHECKPOINT, None, (slot,))
        return records

    def compact(self, through: Slot) -> None:
        """Forget the values of some slots."""
        self._recorder.call(self, Call.COMPACT, None, (through,))

    def install(self, slot: Slot, now: float, configurations: Sequence[Configuration] = ()) -> Ready:
        """Go on from a snapshot."""
        ready: Ready = self._recorder.call(self, Call.INSTALL, now, (slot, tuple(configurations)))
        return ready

    def start_voting(self, now: float) -> Ready:
        """Vote from now on."""
        ready: Ready = self._recorder.call(self, Call.START_VOTING, now, ())
        return ready

    def suspend(self, now: float) -> Ready:
        """The disk hangs."""
        ready: Ready = self._recorder.call(self, Call.SUSPEND, now, ())
        return ready

    def resume(self, now: float) -> Ready:
        """The disk works again."""
        ready: Ready = self._recorder.call(self, Call.RESUME, now, ())
        return ready

    def observe_end(self, node: NodeId, now: float) -> Ready:
        """A node does not run any more."""
        ready: Ready = self._recorder.call(self, Call.OBSERVE_END, now, (node,))
        return ready

    def admit_contacts(self, contacts: Sequence[NodeId], slot: Slot = 0) -> None:
        """Take messages of some nodes, too."""
        self._recorder.call(self, Call.ADMIT_CONTACTS, None, (tuple(contacts), slot))


class Recorder:
    """Records one run of one node.

    :param monotonic: the clock that the node passes to its core.
    :param utc_seconds: the time of day, in seconds since 1970.
    :param disk: the system calls of the files; by default those of the real disk.
    :param in_thread: whether a thread writes the files.
    """

    log = Logger()

    def __init__(
        self,
        options: RecordingOptions,
        node: NodeId,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        utc_seconds: Callable[[], float] = time.time,
        disk: Disk | None = None,
        in_thread: bool = True,
    ) -> None:
        self._node, self._options = node, options
        self._monotonic, self._utc_seconds = monotonic, utc_seconds
        self._value = redactor(os.urandom(32)) if options.redact else None
        self._standing = standing_for(self._value)
        self._given: list[Any] = []
        # What was released since the last entry: the number of the call, and when, in turn.
        self._released: list[int | float] = []
        # The big values that were proposed in this segment and not received by this node yet, by their ids, with the
        # number of the call.
        self._proposed: dict[int, tuple[bytes, int]] = {}
        self._writer: Writer | None = None
        self._names: dict[int, str] = {}
        self._run = self._segments = self._inputs = 0
        self._segment_bytes, self._segment_bytes_min = 0, options.bytes_max // SEGMENTS
        self._now = self._clocks_at = 0.0
        # The numbers of the calls whose Readys are not released yet, each with the Ready itself.
        self._numbers: dict[int, tuple[int, Ready]] = {}
        try:
            files = Files(disk or Disk(), folder_of(options.directory, node), options.bytes_max)
        except OSError as error:
            self._end(error)
            return
        self._run = files.run
        self._writer = ThreadWriter(files) if in_thread else DirectWriter(files)

    # what the node uses

    def make_core(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        rng: Random,
        now: float,
        saved: Iterable[LogRecord] = (),
        timing: Timing | None = None,
        limits: Limits | None = None,
        base: Slot = 0,
        votes: bool = True,
        admits: Callable[[bytes, bool], bool] | None = None,
        change_of: Callable[[bytes], Change | None] | None = None,
        configurations: Sequence[Configuration] = (),
    ) -> Replica:
        """Make the core of the node, as :class:`~txpaxos.core.replica.Replica` is made, and begin to record it."""
        records, configurations = tuple(saved), tuple(configurations)
        given = self._given
        noted = NotedRandom(rng, given)

        def admits_noted(value: bytes, chosen: bool) -> bool:
            answer = admits is None or admits(value, chosen)
            given.append(answer)
            return answer

        def change_noted(value: bytes) -> Change | None:
            change = None if change_of is None else change_of(value)
            given.append(None if change is None else Dump().plain(change))
            return change

        self._names = {id(noted): "rng", id(admits_noted): "admits", id(change_noted): "change_of"}
        core = RecordedReplica(
            *(node, tuple(members), noted, now, records, timing, limits, base, votes, admits_noted),
            change_of=change_noted,
            configurations=configurations,
        )
        core._recorder = self
        arguments = {
            "node": node,
            "members": tuple(members),
            "timing": timing or Timing(),
            "limits": limits or Limits(),
            "base": base,
            "votes": votes,
            "configurations": configurations,
        }
        self._guarded(lambda: self._begin_run(core, now, arguments, records))
        return core

    def around(self, release: Callable[[Ready], Ready | None]) -> Callable[[Ready], Ready | None]:
        """The function ``release`` of a node, which performs a Ready whose records are on disk; noted is when it is
        called, and when it has applied slots."""

        def released(ready: Ready) -> Ready | None:
            found = self._numbers.pop(id(ready.chosen or ready), None)
            if found is not None:
                self._released.append(found[0])
                self._released.append(self._monotonic())
            rest = release(ready)
            if ready.chosen and self._writer is not None:
                performed = ready.chosen[: len(ready.chosen) - len(() if rest is None else rest.chosen)]
                last = [one.slot for one in performed if isinstance(one, Chosen | Installed)]
                self._put_releases()
                self._put((APPLICATION, last[-1], self._monotonic()))
            return rest

        return released

    def close(self) -> None:
        """End the recording: the node has stopped."""
        if self._segments:
            self._put_releases()
            self._put((END,))
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self._report(writer.error)

    def abandon(self) -> None:
        """Write what was recorded, and nothing of an end: the process of the node was killed, in a simulation."""
        if self._segments:
            self._put_releases()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    # what a core uses

    def call(self, core: RecordedReplica, call: Call, now: float | None, arguments: Arguments) -> Any:
        """Make a call of the core, and record it."""
        if self._writer is None:
            return METHODS[call](core, self._now if now is None else now, arguments)
        if now is None:
            now = self._now
        self._now = now
        self._given.clear()
        try:
            result = METHODS[call](core, now, arguments)
        except Exception as error:
            name = type(error).__name__
            self._guarded(lambda: self._note(call, now, arguments, name))
            raise
        try:
            self._note(call, now, arguments, digest(result, self._standing))
            ready = result if type(result) is Ready else ready_of(result)
            # A node may add records to a Ready that hands something out, so what it hands out is what is known of it.
            if (ready.send or ready.save or not ready.is_empty) and call is not _CHECKPOINT:
                self._numbers[id(ready.chosen or ready)] = self._inputs, ready
            if self._segment_bytes >= self._segment_bytes_min and self._is_segment_full():
                self._begin_segment(core)
        except Exception:
            self._end()
        return result

    def _note(self, call: Call, now: float, arguments: Arguments, result: int | str) -> None:
        self._inputs += 1
        if call is _RECEIVE:
            plain = self._plain_message(*arguments)
        elif call is _PROPOSE:
            plain = self._plain_proposal(*arguments)
        else:
            plain = tuple(Dump(value=self._value).plain(one) for one in arguments)
        self._put((INPUT, call, now, plain, self._given, result, self._released))
        if self._released:
            self._released.clear()
        if now >= self._clocks_at:
            self._note_clocks()

    def _plain_message(self, sender: NodeId, message: Message) -> tuple[Any, ...]:
        if self._proposed and sender == self._node and type(message) is AcceptSlot:
            value, number = self._proposed.pop(id(message.value), (None, 0))
            if value is not None:
                return sender, _ACCEPT_SLOT, with_values(message, _no_value), number
        return sender, kind_of(message), with_values(message, self._value)

    def _plain_proposal(self, value: bytes, urgent: bool) -> tuple[Any, ...]:
        if len(value) >= BIG_BYTES:
            self._proposed[id(value)] = value, self._inputs
        return value if self._value is None else self._value(value), urgent

    def _put_releases(self) -> None:
        if self._released:
            self._put((RELEASES, self._released))
            self._released.clear()

    def _note_clocks(self) -> None:
        now = self._monotonic()
        self._clocks_at = now + CLOCKS_SECONDS
        self._put((CLOCKS, now, self._utc_seconds()))

    def _put(self, entry: tuple[Any, ...]) -> None:
        writer = self._writer
        if writer is None:
            return
        data = pack(entry)
        self._segment_bytes += len(data)
        error = writer.put(data)
        if error is not None:
            self._end(error)

    # segments

    def _is_segment_full(self) -> bool:
        """Whether there is as much of calls as of state, in a segment that is not small."""
        writer = self._writer
        return writer is not None and self._segment_bytes >= writer.first_bytes

    def _begin_run(
        self, core: RecordedReplica, now: float, arguments: dict[str, Any], records: Sequence[LogRecord]
    ) -> None:
        self._now = now
        state = zlib.crc32(pack(self._dump(core)[0]))
        self._begin((START, now, Dump().plain(arguments), [*self._given], state), (), records)

    def _begin_segment(self, core: RecordedReplica) -> None:
        plain, values = self._dump(core)
        self._begin((STATE, plain), values)

    def _dump(self, core: RecordedReplica) -> tuple[Any, list[list[bytes]]]:
        """The state of the core as plain data, and the lists of values in it."""
        dump = Dump(self._names, self._value, {RecordedReplica: "Replica"})
        return dump.plain(core), dump.values

    def _begin(
        self, first: tuple[Any, ...], values: Sequence[Sequence[bytes]], records: Sequence[LogRecord] = ()
    ) -> None:
        """Begin a segment, from whose ``first`` entry a replay can begin. What belongs to it is packed as it is
        written, in parts, so that no part holds up the reactor."""
        if self._writer is None:
            return
        self._put_releases()
        self._proposed.clear()
        self._segments += 1
        self._segment_bytes = 0
        head = (HEAD, self._node, self._run, self._segments, this_release(), self._options.redact, self._inputs)
        self._writer.begin(_packed(head, first, values, records, self._value))
        self._note_clocks()

    # its end

    def _guarded(self, function: Callable[[], None]) -> None:
        """Call ``function``. If it raises, the recording ends, and nothing else."""
        try:
            function()
        except Exception:
            self._end()

    def _end(self, error: OSError | None = None) -> None:
        """End the recording: it cannot go on."""
        self._numbers.clear()
        writer, self._writer = self._writer, None
        if error is None:
            self.log.failure("the recording of node {node} ends", for_log(), node=self._node, event="recording_ended")
        else:
            self._report(error)
        if writer is not None:
            writer.abandon()

    def _report(self, error: OSError | None) -> None:
        if error is not None:
            self.log.warn(
                "the recording of node {node} in {directory} ends, and the node goes on: {reason}",
                node=self._node,
                directory=self._options.directory,
                reason=error.strerror or str(error),
                event="recording_ended",
            )


def _packed(
    head: tuple[Any, ...],
    first: tuple[Any, ...],
    values: Sequence[Sequence[bytes]],
    records: Sequence[LogRecord],
    value: Value | None,
) -> Iterator[bytes]:
    """The entries that a segment begins with."""

    def packed_values(number: int, part: Sequence[bytes]) -> bytes:
        return pack((VALUES, number, part if value is None else [*map(value, part)]))

    def packed_records(part: Sequence[LogRecord]) -> bytes:
        return pack((RECORDS, encode_records(with_values(one, value) for one in part)))

    yield pack(head)
    for number, one in enumerate(values):
        yield from _in_parts(one, partial(packed_values, number))
    yield from _in_parts(records, packed_records)
    yield pack(first)


def _in_parts(items: Sequence[T], packed: Callable[[Sequence[T]], bytes]) -> Iterator[bytes]:
    """``items``, packed in parts of about ``PART_BYTES``. Their number follows the size of those before."""
    begin, count = 0, 16
    while begin < len(items):
        data = packed(items[begin : begin + count])
        yield data
        begin += count
        count = max(1, count // 2) if len(data) > PART_BYTES else 2 * count if len(data) < PART_BYTES // 2 else count


def _no_value(_: bytes) -> bytes:
    return b""


_ACCEPT_SLOT = kind_of(AcceptSlot(LOWEST, 1))
