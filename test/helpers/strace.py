"""Reads an ``strace`` of one node, and finds every message that left before the records that it depends on were on
disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import attrs

from txpaxos.core.messages import (
    LOWEST,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    Heartbeat,
    Nack,
    PrepareLog,
    PromiseLog,
    Slot,
)
from txpaxos.core.ready import Learned, LogRecord, Promised, Voted
from txpaxos.storage.records import decode
from txpaxos.storage.segment import Frames, SegmentHeader
from txpaxos.wire.codec import PEER_MAGIC, Codec
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame
from txpaxos.wire.peer_messages import PeerMessage

STRING_BYTES_MAX = 2**24
CALLS = "sendto,sendmsg,sendmmsg,recvfrom,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,/^rename"
NEVER = 1 << 60
"""The line at which a call ends that a kill cut short."""


def strace(trace: Path | str, *command: str) -> list[str]:
    """``command``, run so that ``strace`` writes its calls to ``trace``. It keeps its place as our own child (-D)."""
    options = ["-D", "-f", "-q", "--seccomp-bpf", "-yy", "-xx", "-s", str(STRING_BYTES_MAX), "-e", f"trace={CALLS}"]
    return ["strace", *options, "-o", str(trace), *command]


def why_not() -> str | None:
    """Why ``strace`` cannot be used here, or ``None``."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with tempfile.NamedTemporaryFile() as trace:
        done = subprocess.run(strace(trace.name, "true"), capture_output=True, text=True, timeout=30)
    if done.returncode or done.stderr:
        return f"strace cannot trace here: {' '.join(done.stderr.split())}"
    return None


# ------------------------------------------------------------------ the calls


@attrs.frozen
class Call:
    """One system call.

    :ivar file: the path of what it is about, or the socket's two ends, as in ``UDP:[127.0.0.1:4001]``.
    :ivar data: the first string among its arguments.
    :ivar arguments: all of them, as ``strace`` wrote them.
    :ivar result: what it returned; if a kill cut it short, whatever it might have.
    :ivar begun: the line in which it began.
    :ivar ended: the line in which it returned.
    """

    name: str
    file: str
    data: bytes
    arguments: str
    result: int
    begun: int
    ended: int

    @property
    def is_socket(self) -> bool:
        """Whether it is about a socket."""
        return self.file.startswith(("UDP", "TCP"))


_RETURNED = r"(?: <unfinished \.\.\.>)?\) += (-?\d+|\?).*"  # A kill leaves both: it did not return.
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*?)(?:" + _RETURNED + r"| <unfinished \.\.\.>)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \S+ resumed>(.*?)" + _RETURNED)
_NO_CALL = re.compile(r"\d+ +(\+\+\+|---|\?\?\?\(\))")
"""An end, a signal, or a kill before the call had begun."""

_FILE = re.compile(r"\d+<(.*?)>(?:,|$)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def read_calls(lines: Iterable[str]) -> list[Call]:
    """The calls in a trace, in the order in which they began."""
    calls: list[Call] = []
    unfinished: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(lines):
        if resumed := _RESUMED.fullmatch(line):
            begun, name, arguments = unfinished.pop(resumed[1])
            calls.append(_call(name, arguments + resumed[2], resumed[3], begun, number))
        elif found := _BEGUN.fullmatch(line):
            thread, name, arguments, result = found.groups()
            if result is None:
                unfinished[thread] = number, name, arguments
            else:
                calls.append(_call(name, arguments, result, number, number))
        elif not _NO_CALL.match(line):
            raise ValueError(f"line {number} of the trace cannot be read: {line[:200]}")
    calls += [_call(name, arguments, "?", begun, NEVER) for begun, name, arguments in unfinished.values()]
    return sorted(calls, key=lambda call: call.begun)


def _call(name: str, arguments: str, result: str, begun: int, ended: int) -> Call:
    file = _FILE.match(arguments)
    path = "" if file is None else file[1]
    if path.startswith("\\x"):
        path = _unhex(path).decode()
    string = _STRING.search(arguments)
    if string is not None and string[2]:
        raise ValueError(f"line {begun} of the trace is cut: {name} had more than {STRING_BYTES_MAX} bytes")
    data = b"" if string is None else _unhex(string[1])
    if result == "?":
        return Call(name, path, data, arguments, len(data), begun, NEVER)
    return Call(name, path, data, arguments, int(result), begun, ended)


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


# --------------------------------------------------------------- what is on disk


class OnDisk:
    """What a node had on disk, and from which line of its trace on.

    A write is on disk when a sync that began after it has ended. A renamed file is on disk when a sync of its folder
    has.
    """

    def __init__(self, calls: Sequence[Call], folder: Path) -> None:
        self.promises: list[tuple[int, Ballot]] = []
        self.votes: dict[tuple[Slot, Ballot], tuple[int, bytes]] = {}
        self.learned: dict[Slot, int] = {}
        self.chosen_through: list[tuple[int, Slot]] = []
        self._folder = str(folder.resolve())
        self._journal = frames_of(folder.resolve())
        self._synced_frames: set[tuple[str, int]] = set()
        self._written: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._synced: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._renamed: dict[str, list[tuple[int, bytes]]] = {}
        self._named: set[str] = set()
        self._in_flight: dict[Call, tuple[list[tuple[int, bytes]], list[str]]] = {}
        begins = [(call.begun, 0, call, self._begin) for call in calls]
        ends = [(call.ended, 1, call, self._end) for call in calls]
        for _, _, call, happen in sorted(begins + ends, key=lambda event: event[:2]):
            if call.result >= 0 and call.ended != NEVER and not call.is_socket:
                happen(call)

    def missed(self) -> int:
        """How many frames of the journal the trace does not show being written and synced."""
        return len(self._journal.keys() - self._synced_frames)

    def promised(self, line: int) -> Ballot:
        """The highest ballot whose promise was on disk before ``line``."""
        return max((ballot for at, ballot in self.promises if at < line), default=LOWEST)

    def _begin(self, call: Call) -> None:
        if call.name in ("fsync", "fdatasync"):
            inside = [path for path in self._renamed if path.rpartition("/")[0] == call.file]
            self._in_flight[call] = self._written.pop(call.file, []), inside

    def _end(self, call: Call) -> None:
        inside = call.file.startswith(self._folder + "/")
        if call.name == "pwrite64":
            offset = int(call.arguments.rpartition(", ")[2])
            self._written[call.file].append((offset, call.data[: call.result]))
        elif call.name in ("fsync", "fdatasync"):
            pieces, names = self._in_flight.pop(call)
            self._synced[call.file] += pieces
            if call.file in self._named:
                self._take(call.file, pieces, call.ended)
            for path in names:
                self._named.add(path)
                self._synced[path] = self._renamed.pop(path)
                self._take(path, self._synced[path], call.ended)
        elif call.name.startswith("rename"):
            source, target = (_unhex(text).decode() for text, _ in _STRING.findall(call.arguments))
            self._written.pop(source, None)
            self._renamed[target] = self._synced.pop(source, [])
        elif inside:
            raise ValueError(f"line {call.begun} of the trace: {call.name} on {call.file} is not followed here")

    def _take(self, path: str, pieces: Sequence[tuple[int, bytes]], line: int) -> None:
        """``pieces`` of the file at ``path`` are on disk from ``line`` on."""
        for offset, data in pieces:
            written, records = self._journal.get((path, offset), (None, ()))
            if written == data:
                self._synced_frames.add((path, offset))
                for record in records:
                    self._take_record(record, line)

    def _take_record(self, record: LogRecord, line: int) -> None:
        match record:
            case Promised(ballot):
                self.promises.append((line, ballot))
            case Voted(ballot, slot, value, chosen_through):
                self.promises.append((line, ballot))
                self.chosen_through.append((line, chosen_through))
                self.votes.setdefault((slot, ballot), (line, value))
            case Learned(first_slot, values):
                for slot in range(first_slot, first_slot + len(values)):
                    self.learned.setdefault(slot, line)


def frames_of(folder: Path) -> dict[tuple[str, int], tuple[bytes, list[LogRecord]]]:
    """The frames of a journal: (file, offset) to the frame's bytes and the records in it."""
    frames: dict[tuple[str, int], tuple[bytes, list[LogRecord]]] = {}
    for path in sorted(folder.glob("journal/*.segment")):
        data = path.read_bytes()
        for one in Frames(data, SegmentHeader.unpack(data, str(path)), str(path)):
            records = [record for record in decode(one.body) if isinstance(record, LogRecord)]
            frames[one.path, one.offset] = data[one.offset : one.end], records
    return frames


# ----------------------------------------------------------------- what was said


@attrs.frozen
class Said:
    """A message between nodes, the line of the trace in which its first byte left or came, and how."""

    line: int
    message: PeerMessage
    way: str


def messages(calls: Iterable[Call], name: str, codec: Codec) -> Iterator[Said]:
    """All messages that a node sent to its peers (``name`` is ``sendto``) or received from them (``recvfrom``)."""
    streams: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.is_socket and call.name not in ("sendto", "recvfrom"):
            raise ValueError(f"line {call.begun} of the trace: {call.name} on a socket is not followed here")
        if call.name != name or call.result < 0:
            continue
        if call.file.startswith("TCP"):
            streams[call.file].append(call)
        elif call.data.startswith(PEER_MAGIC):
            yield Said(call.begun, codec.decode(call.data).message, "datagram")
    for pieces in streams.values():
        yield from _on_stream(pieces, codec)


def _on_stream(pieces: Sequence[Call], codec: Codec) -> Iterator[Said]:
    data = [call.data[: call.result] for call in pieces]
    ends = list(accumulate(map(len, data)))
    position = 0
    for message in FrameSplitter(FRAME_BYTES_MAX).feed(b"".join(data)):
        if not message.startswith(PEER_MAGIC):
            return  # a client's
        yield Said(pieces[bisect_right(ends, position)].begun, codec.decode(message).message, "stream")
        position += len(frame(message))


# --------------------------------------------------------------------- the proof


@attrs.define
class Findings:
    """What a trace shows.

    :ivar checked: (kind of message, datagram or stream) to how many of them rest on something saved.
    :ivar early: one line for each that left before that was on disk.
    :ivar frames_missed: how many frames of the journal the trace does not account for: then the reader is at fault.
    """

    checked: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    early: list[str] = attrs.field(factory=list)
    frames_missed: int = 0


def examine(lines: Iterable[str], folder: Path, codec: Codec) -> Findings:
    """Compare all messages that a node sent with what it had saved before.

    :param lines: the traces of all its processes, one after the other, the first with an empty folder.
    :param folder: the node's data folder, after it has ended.
    """
    calls = read_calls(lines)
    on_disk = OnDisk(calls, folder)
    sent = list(messages(calls, "sendto", codec))
    known = on_disk.chosen_through + [
        (said.line, said.message.chosen_through)
        for said in (*sent, *messages(calls, "recvfrom", codec))
        if isinstance(said.message, AcceptSlot | Heartbeat)
    ]
    findings = Findings(frames_missed=on_disk.missed())
    for said in sent:
        missing = _missing(said, on_disk, known)
        if missing is not None:
            findings.checked[type(said.message).__name__, said.way] += 1
        if missing:
            findings.early.append(f"line {said.line}: {said.message} left, and {missing} was not on disk")
    return findings


def _missing(said: Said, on_disk: OnDisk, known: Sequence[tuple[int, Slot]]) -> str | None:
    """The records that ``said`` depends on and that were not on disk. Empty if none is missing, ``None`` if it depends
    on none."""
    line, promised = said.line, on_disk.promised(said.line)
    match said.message:
        case PrepareLog(ballot) if promised < ballot:
            return "its ballot"
        case Nack(_, higher) if promised < higher:
            return "the promise that it tells of"
        case PromiseLog(ballot, _, _, votes):
            if promised < ballot:
                return "the promise"
            kept = (on_disk.votes.get((slot, voted), (NEVER, b""))[0] < line for slot, voted, _ in votes)
            return "" if all(kept) else "a vote that it tells of"
        case AcceptedSlot(ballot, slot):
            if promised < ballot:
                return "the promise in it"
            return "" if _has_voted(on_disk, known, slot, ballot, line) else "the vote"
        case PrepareLog() | Nack():
            return ""
    return None


def _has_voted(on_disk: OnDisk, known: Sequence[tuple[int, Slot]], slot: Slot, ballot: Ballot, line: int) -> bool:
    """Whether the vote was on disk before ``line``, or what makes it needless: the slot's chosen value was.

    That is a value the node was sent, or the one of an older vote, if it knew how far all slots are chosen (``known``).
    """
    if on_disk.votes.get((slot, ballot), (NEVER, b""))[0] < line or on_disk.learned.get(slot, NEVER) < line:
        return True
    older = any(one == slot and voted < ballot and at < line for (one, voted), (at, _) in on_disk.votes.items())
    return older and any(at < line and through >= slot for at, through in known)
