"""What is in a data folder, found by reading alone: for an operator, and for what is done with folders of nodes that
do not run.

:func:`inspect_folder` opens nothing for writing and takes no lock. It checks more than a start does: also the older
snapshot, all chunks of both, and the segments of the journal that a start does not need. And it does what a start does,
on a disk that drops each write (:class:`~txpaxos.storage.read_only_disk.ReadOnlyDisk`), so that it can say what a start
would.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, TypeAlias

import attrs

from txpaxos.core.log import Log
from txpaxos.core.ready import LogRecord, PeerMet, Record, SubjectState
from txpaxos.errors import StoreError
from txpaxos.storage.acknowledged import Acknowledged, Mark
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.discarded import DISCARDED, REPLACED
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import VERSION, Identity, read_identity
from txpaxos.storage.last_application import LastApplication
from txpaxos.storage.messages import damaged, os_errors
from txpaxos.storage.read_only_disk import ReadOnlyDisk, process_using
from txpaxos.storage.records import decode
from txpaxos.storage.replacement import MARKER, PREPARED
from txpaxos.storage.segment import SECTOR_BYTES, Frames, SegmentHeader, torn_bytes
from txpaxos.storage.snapshot_file import SnapshotReader
from txpaxos.storage.snapshots import PART
from txpaxos.storage.store import DiskStore

Progress: TypeAlias = Callable[[str, int], None]
"""Called with what is read and with the number of its bytes that were read since the last call."""

Kind: TypeAlias = Literal["store", "empty", "absent", "file", "other"]
"""What a path leads to: a data folder, an empty folder, nothing, no folder, or a folder of something else."""

ATTEMPTS = 3
"""How often the folder of a node that runs is read again if something in it seems wrong: the node changes it."""
OTHER_NAMES_MAX = 5
"""The number of names that are reported of a folder which is no data folder."""

_OWN_NAMES = ("identity", "acknowledged", "journal", "snapshots", "subjects", "diverged", "removed", PREPARED, MARKER)
_HARMLESS_NAMES = frozenset(("lock", "probe", "lost+found", "application", "membership"))
_SEGMENT, _SNAPSHOT = ".segment", ".snapshot"


@attrs.frozen
class Fault:
    """Something that is wrong: one line, and the file and the offset in bytes where a file is damaged."""

    line: str
    path: str = ""
    offset: int = 0

    @classmethod
    def of(cls, error: StoreError) -> Fault:
        """The fault that ``error`` tells of."""
        return cls(str(error), error.path, error.offset)


@attrs.frozen
class SegmentReport:
    """One segment of the journal.

    :ivar first_position: how many frames the journal had before this segment.
    :ivar frames: how many frames can be read; each is one save.
    :ivar records: how many records these hold.
    :ivar used_bytes: where the readable frames end.
    :ivar torn_bytes: the bytes of a save that a crash interrupted, which a start removes.
    :ivar fault: what is wrong, if anything is.
    """

    path: str
    first_position: int = 0
    frames: int = 0
    records: int = 0
    used_bytes: int = 0
    torn_bytes: int = 0
    fault: Fault | None = None


@attrs.frozen
class SnapshotReport:
    """One snapshot, or the part of a snapshot that another node was sending.

    :ivar size_bytes: the size of the file.
    :ivar sound_bytes: how many bytes from its beginning are sound.
    :ivar is_complete: whether the file has its final name.
    :ivar first_chunk: the first chunk, which says what the snapshot is of; empty if it is not sound.
    :ivar fault: what is wrong, if anything is. The end that a part lacks is no fault.
    """

    path: str
    slot: int
    size_bytes: int
    sound_bytes: int
    is_complete: bool
    first_chunk: bytes = attrs.field(default=b"", repr=False)
    fault: Fault | None = None


@attrs.frozen
class LogReport:
    """What the node would know of the log after a start.

    :ivar promised: the highest ballot that it promised.
    :ivar chosen_through: every slot up to this one is chosen, as far as this folder knows.
    :ivar votes: the slots above, and the ballot in which the node voted there.
    :ivar lost_through: the last slot whose state is lost with a snapshot, 0 if none is.
    """

    promised: str
    chosen_through: int
    votes: dict[int, str]
    lost_through: int


@attrs.define
class FolderReport:
    """What is in a data folder.

    :ivar others: some of the names in a folder that is none of a node.
    :ivar used_by: the process that uses the folder; 0 if only that there is one is known; ``None`` if there is none.
    :ivar registers: how many registers have a file, and for how many of them the node knows the chosen value.
    :ivar met: the incarnations of the peers that the node has met.
    :ivar marker: what the file ``diverged`` or ``removed`` says, by its name.
    :ivar discarded: the folders of snapshots that an operator moved away, and whose state the node does not have again.
    :ivar faults: all that is wrong, that of the segments and snapshots included.
    :ivar refusal: why a start would be refused, if it would be.
    :ivar start_without: the names that an operator may move away so that a start is not refused; empty if that would
        not do, or is not needed.
    """

    directory: str
    kind: Kind
    others: list[str] = attrs.field(factory=list)
    used_by: int | None = None
    identity: Identity | None = None
    application: str = ""
    mark: Mark | None = None
    segments: list[SegmentReport] = attrs.field(factory=list)
    snapshots: list[SnapshotReport] = attrs.field(factory=list)
    registers: tuple[int, int] | None = None
    log: LogReport | None = None
    met: dict[str, int] = attrs.field(factory=dict)
    marker: dict[str, str] = attrs.field(factory=dict)
    discarded: list[str] = attrs.field(factory=list)
    replaced: list[str] = attrs.field(factory=list)
    faults: list[Fault] = attrs.field(factory=list)
    refusal: Fault | None = None
    start_without: list[str] = attrs.field(factory=list)

    @property
    def complete_snapshots(self) -> list[SnapshotReport]:
        """The complete snapshots, oldest first."""
        return [one for one in self.snapshots if one.is_complete]


def inspect_folder(directory: str, progress: Progress = lambda what, size_bytes: None) -> FolderReport:
    """Read the data folder ``directory`` and check all that is in it. Nothing is changed.

    :raises StoreError: if the folder, or a file in it, cannot be read at all.
    """
    directory = os.path.abspath(directory)
    report = _inspect_once(directory, progress)
    for _ in range(ATTEMPTS - 1):
        if report.used_by is None or not (report.faults or report.refusal):
            break
        report = _inspect_once(directory, progress)
    return report


def _inspect_once(directory: str, progress: Progress) -> FolderReport:
    with os_errors("read", directory):
        try:
            owner = os.stat(directory).st_uid
            names = os.listdir(directory)
        except FileNotFoundError:
            return FolderReport(directory, "absent")
        except NotADirectoryError:
            return FolderReport(directory, "file")
    own = [name for name in names if name.split(".")[0] in _OWN_NAMES]
    if not own:
        others = sorted(set(names) - _HARMLESS_NAMES)
        return FolderReport(directory, "other" if others else "empty", others[:OTHER_NAMES_MAX])
    report = FolderReport(directory, "store")
    _Inspection(report, ReadOnlyDisk(owner), owner, progress).run(names)
    return report


class _Inspection:
    """One look at a folder, which fills ``report``."""

    def __init__(self, report: FolderReport, disk: ReadOnlyDisk, owner: int, progress: Progress) -> None:
        self._report = report
        self._directory = report.directory
        self._disk = disk
        self._owner = owner
        self._progress = progress

    def run(self, names: list[str]) -> None:
        """Look at everything. The mark is read before the rest, as in a start: a node that runs writes it last."""
        report = self._report
        report.used_by = process_using(self._directory)
        report.discarded = sorted(name for name in names if name.startswith(DISCARDED))
        report.replaced = sorted(name for name in names if name.startswith(REPLACED))
        with os_errors("read", self._directory):
            self._read_small_files(names)
            for path in self._paths("journal", _SEGMENT):
                self._note_segment(self._segment(path))
            self._check_row_of_segments()
            self._find_snapshots()
        if MARKER in names:
            report.marker[MARKER] = "a recovery of this folder was interrupted"
        else:
            self._start()

    def _read_small_files(self, names: Iterable[str]) -> None:
        report, directory = self._report, self._directory
        try:
            report.identity = read_identity(AtomicFile(self._disk, f"{directory}/identity", VERSION))
            if report.identity is not None and report.identity.complete:
                mark = Acknowledged(self._disk, f"{directory}/acknowledged", report.identity.incarnation)
                report.mark = mark.read()
        except StoreError as error:
            report.faults.append(Fault.of(error))
        report.application = LastApplication(self._disk, directory).read()
        for name in ("diverged", "removed"):
            if name in names:
                try:
                    payload = AtomicFile(self._disk, f"{directory}/{name}").read() or b""
                except StoreError as error:
                    report.faults.append(Fault.of(error))
                else:
                    report.marker[name] = payload.decode(errors="replace")

    def _paths(self, folder: str, ending: str) -> list[str]:
        """The files in a folder of the data folder whose names are a number and ``ending``, in order."""
        path = f"{self._directory}/{folder}"
        try:
            names = self._disk.list_directory(path)
        except FileNotFoundError:
            return []
        found = [name for name in names if name.endswith(ending) and name.removesuffix(ending).isdecimal()]
        return [f"{path}/{name}" for name in sorted(found)]

    # the journal

    def _segment(self, path: str) -> SegmentReport:
        """The segment in the file at ``path``."""
        newest = path == self._paths("journal", _SEGMENT)[-1]
        try:
            data = self._disk.read(path)
        except FileNotFoundError:  # A node that runs has just dropped it.
            return SegmentReport(path)
        self._progress(path, len(data))
        report = SegmentReport(path)
        try:
            header = SegmentHeader.unpack(data[:SECTOR_BYTES], path, len(data))
            frames = Frames(data, header, path)
            report = SegmentReport(path, header.first_position, len(frames), 0, frames.end)
            records = 0
            for frame in frames:
                records += len(_records(frame.body, path, frame.offset))
            report = attrs.evolve(report, records=records)
            torn = torn_bytes(data, header, frames.end, header.first_position + len(frames), path)
            if torn and not newest:
                what = f"frame {header.first_position + len(frames)} cannot be read, though a later segment follows"
                raise damaged(path, frames.end, what)
            return attrs.evolve(report, torn_bytes=torn)
        except StoreError as error:
            return attrs.evolve(report, fault=Fault.of(error))

    def _note_segment(self, segment: SegmentReport) -> None:
        self._report.segments.append(segment)
        if segment.fault is not None:
            self._report.faults.append(segment.fault)

    def _check_row_of_segments(self) -> None:
        """Check that each segment begins where the one before it ends. A start checks this for those that it needs."""
        sound = [one for one in self._report.segments if one.fault is None and one.used_bytes]
        for before, after in itertools.pairwise(sound):
            position = before.first_position + before.frames
            if position != after.first_position:
                what = f"frame {position} cannot be read, though frame {after.first_position} was written after it"
                self._report.faults.append(Fault.of(damaged(before.path, before.used_bytes, what)))

    # the snapshots

    def _find_snapshots(self) -> None:
        for ending in ("", PART):
            for path in self._paths("snapshots", _SNAPSHOT + ending):
                try:
                    snapshot = self._snapshot(path, is_complete=not ending)
                except FileNotFoundError:  # A node that runs has just replaced it.
                    continue
                self._report.snapshots.append(snapshot)
                if snapshot.fault is not None:
                    self._report.faults.append(snapshot.fault)

    def _snapshot(self, path: str, is_complete: bool) -> SnapshotReport:
        """The snapshot in the file at ``path``, of which every byte is read."""
        slot, size = int(os.path.basename(path).split(".")[0]), self._disk.file_size(path)
        reader = SnapshotReader(partial(self._disk.read_at, path), size, slot, path)
        fault, first = None, b""
        try:
            done = 0
            for chunk in reader.chunks():
                first = first or chunk
                self._progress(path, reader.sound_bytes - done)
                done = reader.sound_bytes
        except StoreError as error:
            fault = Fault.of(error) if is_complete else None
        return SnapshotReport(path, slot, size, reader.sound_bytes, is_complete, first, fault)

    # what a start would find

    def _start(self) -> None:
        """Do what a start does, and note what the node would know then; or why it is refused, and what would help."""
        report, identity = self._report, self._report.identity
        try:
            records, base = self._load(self._disk)
        except StoreError as error:
            report.refusal = Fault.of(error)
            if report.refusal not in report.faults:
                report.faults.append(report.refusal)
        else:
            if identity is not None:  # pragma: no branch
                self._note_records(records, base)
        newest = report.complete_snapshots[-1:]
        if newest and report.refusal is None:
            report.refusal = newest[0].fault  # It is read as a whole when the application is restored from it.
        if newest and (newest[0].fault is not None or "diverged" in report.marker):
            report.start_without = self._what_to_move(newest[0].path)

    def _load(self, disk: ReadOnlyDisk) -> tuple[list[Record], int]:
        """The records that a start would load from ``disk``, and the slot of the snapshot below them.

        :raises StoreError: if the start would be refused."""
        identity = self._report.identity
        cluster, node = ("", "") if identity is None else (identity.cluster, identity.node)
        store = DiskStore(self._directory, cluster, node, disk=disk, execute=execute_now)
        if identity is None or not identity.complete:
            return [], 0  # The folder is new, or a crash came while it was made. The start makes what is missing.
        try:
            records = store.load()
            return records, 0 if store.snapshot is None else store.snapshot.slot
        finally:
            store.close().addErrback(lambda _: None)

    def _note_records(self, records: list[Record], base: int) -> None:
        report = self._report
        log = Log.recover([record for record in records if isinstance(record, LogRecord)], base)
        votes = {vote.slot: str(vote.ballot) for vote in log.votes_from(log.chosen_through + 1)}
        report.log = LogReport(str(log.promised), log.chosen_through, votes, log.lost_through)
        registers = [record.state for record in records if isinstance(record, SubjectState)]
        report.registers = len(registers), sum(state.chosen is not None for state in registers)
        report.met = {record.peer: record.incarnation for record in records if isinstance(record, PeerMet)}

    def _what_to_move(self, newest: str) -> list[str]:
        """What an operator may move away, so that a start is not refused: the newest snapshot, or all snapshots.

        With the newest alone, the node has the older one and the journal behind it, and misses nothing. With all of
        them, the other nodes must have the state."""
        report, folder = self._report, f"{self._directory}/snapshots"
        older = report.complete_snapshots[-2:-1]
        is_sound = "diverged" not in report.marker and not any(one.fault for one in older)
        if is_sound and self._loads(ReadOnlyDisk(self._owner, hidden=(newest,))):
            return [newest]
        renamed = ReadOnlyDisk(self._owner, (folder,), (DISCARDED,), self._directory)
        return [folder] if self._loads(renamed) else []

    def _loads(self, disk: ReadOnlyDisk) -> bool:
        try:
            self._load(disk)
        except StoreError:
            return False
        return True


def _records(body: bytes, path: str, offset: int) -> list[object]:
    try:
        return [*decode(body)]
    except ValueError as error:
        raise damaged(path, offset, f"the frame holds no records ({error})") from None
