"""What a store promises, and the one that keeps it on disk.

Nothing a node says may outrun its disk: :meth:`Store.save` first, then the messages that rest on it. The Deferred of a
save is the only word that counts; until it fires, a crash may keep the save, or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from txpaxos.core.ready import JournalRecord, Record, SubjectState, Voter
from txpaxos.errors import StoreError
from txpaxos.storage.access import refuse_foreign_access
from txpaxos.storage.acknowledged import UNKNOWN, Acknowledged, Mark
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk, ensure_directory
from txpaxos.storage.executor import AdaptiveExecutor, Executor, ThreadExecutor, execute_now, measure_sync
from txpaxos.storage.identity import (
    VERSION,
    Identity,
    check_identity,
    lock_folder,
    new_identity,
    read_identity,
    write_identity,
)
from txpaxos.storage.journal import SEGMENT_BYTES, Journal
from txpaxos.storage.last_application import LastApplication
from txpaxos.storage.messages import damaged, os_errors
from txpaxos.storage.quarantine import QuarantineMarker
from txpaxos.storage.records import Checkpoints, checkpoint_index, decode, divide, encode
from txpaxos.storage.register_files import RegisterFiles
from txpaxos.storage.segment import Frame
from txpaxos.storage.snapshots import Snapshot, SnapshotFiles, SnapshotWriter

T = TypeVar("T")

DISCARDED = "snapshots.discarded"
"""Rename the folder of the snapshots to this (and something after it), and the node does without: it takes the state
from the others, and keeps what it promised."""

REPLACED = "snapshots.replaced"
"""What the store renames that to once the state is there again: a folder of this name has no meaning any more."""


class Store(Protocol):
    """Where a node keeps what it must not forget."""

    @property
    def incarnation(self) -> int:
        """A random number, made once per store: a node that lost its store comes back with another one."""
        ...

    def load(self) -> list[Record]:
        """All that was saved, once, before the first save: the log's records in the order in which they were saved,
        then the last state of each subject, by the subject's name, then the last Voter, if there is one. Of the log's
        records only those from the last :class:`~txpaxos.core.ready.Checkpoint` on that is not after :attr:`snapshot`,
        if there is one: the snapshot stands for those before it.

        :raises StoreError: if anything that was acknowledged is missing or damaged, or if what was saved is
            :meth:`quarantined <quarantine>` and there are still snapshots."""
        ...

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        """Save ``records``. Fires when all of them are on disk, and everything saved before them.

        Saves are done in the order of the calls; nobody has to wait for one before the next. If one fails with
        :class:`~txpaxos.errors.StoreError`, so does every later one, and the node must stop. After a crash, a save
        that had not fired is there or not: its log records all or none, each of its subjects by itself.

        :raises TypeError: if one of them is a bare DecreeState. Nothing is saved then, and the store goes on."""
        ...

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest complete snapshot, once :meth:`load` was called. Two are kept, and the journal as far back as the
        older one needs it."""
        ...

    def snapshot_at(self, slot: int) -> Snapshot | None:
        """The complete snapshot at ``slot``, if it is one of the two that are kept."""
        ...

    @property
    def part(self) -> tuple[int, int] | None:
        """What there is of a peer's snapshot that is not being written: its slot, and how many sound bytes. It is gone
        on with if :meth:`receive_snapshot` is called with that slot."""
        ...

    def write_snapshot(self, slot: int) -> SnapshotWriter:
        """Begin a snapshot of this node's own state after ``slot``. It counts once it is finished; until then a crash
        leaves nothing of it. If it fails, the store goes on as if it had not been begun. The Checkpoint at ``slot`` may
        be saved before or after that; until it is, :meth:`load` returns more than is needed.

        One is written at a time: it takes the place of what there is of a peer's.

        :raises StoreError: if there is a snapshot as new, or another one of this node's own is being written, or a
            peer's is being finished."""
        ...

    def receive_snapshot(self, slot: int, size_bytes: int = 0) -> SnapshotWriter:
        """Like :meth:`write_snapshot`, but for the bytes of a peer's snapshot at ``slot``; it takes the place of one of
        this node's own that is being written. After a crash, and after a write that failed since the disk was full, it
        is gone on with, from the writer's ``size_bytes`` on, unless another is begun.

        :param size_bytes: how many bytes it will have, as far as that is known: is there room for them?"""
        ...

    def quarantine(self, finding: str) -> Deferred[None]:
        """The state that the snapshots hold is wrong, as ``finding`` tells. Fires when that is on disk: from then on
        what was saved is not loaded again before the snapshots were put aside (``snapshots.discarded``)."""
        ...

    def close(self) -> Deferred[None]:
        """Wait for the saves in flight, then let go of everything. Closing twice is harmless."""
        ...


class DiskStore:
    """:class:`Store` in a folder: a journal for the log, an atomic file for each subject, a file for each snapshot.

    Opening it creates what is absent, takes an exclusive lock and checks whose folder it is.

    :param directory: the folder, created (mode 0700) if absent.
    :param cluster: the cluster's name.
    :param node: the node's name in it.
    :param disk: the system calls.
    :param reactor: whose thread to tell in; needed only with a thread, and the global one unless given.
    :param sync_in_thread: whether to write and sync in a thread instead of the caller's. Unless given, that is
        measured, now and at each save: while they take longer than
        ``SLOW_SYNC_SECONDS`` (``executor.py``), they are done in a thread.
    :param random_bytes: for the incarnation, when the store is made.
    :param segment_bytes: the size of a file of the journal.
    :param execute: does the saves, instead of the two above: a simulator's own.
    :param execute_snapshots: writes the snapshots; ``execute`` unless given, and without either they have a thread of
        their own, made when it is needed.
    :param measure: how to measure the seconds of a sync.

    ``sync_seconds`` is what was measured at first (``None`` if nothing was), ``last_application`` which application the
    folder was last started with.

    :raises StoreError: if the folder belongs to another node, is in use, damaged, or cannot be written, or if other
        users may write in it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        cluster: str,
        node: str,
        *,
        disk: Disk | None = None,
        reactor: IReactorFromThreads | None = None,
        sync_in_thread: bool | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        segment_bytes: int = SEGMENT_BYTES,
        execute: Executor | None = None,
        execute_snapshots: Executor | None = None,
        measure: Callable[[Disk, str], float] = measure_sync,
    ) -> None:
        self._disk = disk = Disk() if disk is None else disk
        self._directory = os.path.abspath(directory)
        self._failed = ""
        self._stage = "opened"  # then "loaded", at the end "closed"; "unreadable" if loading failed
        with os_errors("create", self._directory):
            ensure_directory(disk, self._directory)
        refuse_foreign_access(disk, self._directory)
        self._lock = lock_folder(disk, self._directory)
        try:
            self._identity = self._open(cluster, node, random_bytes, segment_bytes)
            self.sync_seconds: float | None = None
            if execute is None and sync_in_thread is None:
                self.sync_seconds = measure(disk, self._directory)
        except BaseException:
            disk.close(self._lock)
            raise
        self.incarnation = self._identity.incarnation
        self._thread: ThreadExecutor | AdaptiveExecutor | None = None
        if self.sync_seconds is not None:
            self._thread = AdaptiveExecutor(lambda: ThreadExecutor(reactor or _global_reactor()), self.sync_seconds)
        elif execute is None and sync_in_thread:
            self._thread = ThreadExecutor(reactor or _global_reactor())
        self._execute: Executor = execute or self._thread or execute_now
        self._checkpoints = Checkpoints()
        self._quarantine_marker = QuarantineMarker(disk, self._directory)
        self.last_application = LastApplication(disk, self._directory)
        self._snapshots = SnapshotFiles(
            disk,
            f"{self._directory}/snapshots",
            lambda: execute_snapshots or execute or ThreadExecutor(reactor or _global_reactor()),
            lambda slot: self._execute(partial(self._forget_before, slot)),
        )

    @property
    def sync_in_thread(self) -> bool:
        """Whether the next save is done in a thread."""
        return self._thread is not None and self._thread.in_thread

    def load(self) -> list[Record]:
        """See :meth:`Store.load`."""
        if self._stage != "opened":
            raise StoreError(f"{self._directory} is loaded once, while it is open: close it and open it again")
        self._stage = "unreadable"
        snapshot = self._snapshots.load()
        self._quarantine_marker.enforce(has_snapshots=snapshot is not None)
        saves: list[list[Record]] = []  # newest first

        def is_start(frame: Frame) -> bool:
            records = _decode(frame)
            index = None if snapshot is None else checkpoint_index(records, snapshot.slot)
            saves.append(records[index:])
            return index is not None

        acknowledged = self._acknowledged.read() if self._is_marked else None
        self._discarded = self._find_discarded()
        frames = self._journal.read(
            is_start, whole=not self._discarded, acknowledged=UNKNOWN if acknowledged is None else acknowledged
        )
        for frame, records in zip(frames, reversed(saves), strict=True):
            self._checkpoints.note(records, frame.position)
        subjects = self._subjects.read(acknowledged)
        self._begin_mark()
        if not self._journal.first_position:
            self._rename_discarded()  # The journal tells all from the beginning.
        self._check_discarded()
        self._stage = "loaded"
        voters = [] if self._identity.voter is None else [self._identity.voter]
        return [*(record for records in reversed(saves) for record in records), *subjects, *voters]

    @property
    def snapshot(self) -> Snapshot | None:
        """See :attr:`Store.snapshot`."""
        return self._snapshots.newest

    def snapshot_at(self, slot: int) -> Snapshot | None:
        """See :meth:`Store.snapshot_at`."""
        return next((one for one in self._snapshots.kept if one.slot == slot), None)

    @property
    def part(self) -> tuple[int, int] | None:
        """See :attr:`Store.part`."""
        return self._snapshots.part

    def write_snapshot(self, slot: int) -> SnapshotWriter:
        """See :meth:`Store.write_snapshot`."""
        return self._new_snapshot(slot, received=False)

    def receive_snapshot(self, slot: int, size_bytes: int = 0) -> SnapshotWriter:
        """See :meth:`Store.receive_snapshot`."""
        return self._new_snapshot(slot, received=True, size_bytes=size_bytes)

    def _new_snapshot(self, slot: int, *, received: bool, size_bytes: int = 0) -> SnapshotWriter:
        if self._stage != "loaded":
            raise StoreError(f"{self._directory} takes snapshots between load() and close()")
        return self._snapshots.write(slot, received=received, size_bytes=size_bytes)

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        """See :meth:`Store.save`."""
        if self._stage != "loaded":
            return fail(StoreError(f"{self._directory} takes records between load() and close()"))
        log, subjects, voter = divide(records)
        return self._execute(partial(self._write, log, encode(log), subjects.values(), voter))

    def quarantine(self, finding: str) -> Deferred[None]:
        """See :meth:`Store.quarantine`."""
        if self._stage != "loaded":
            return fail(StoreError(f"{self._directory} takes a verdict between load() and close()"))
        return self._execute(partial(self._quarantine_marker.write, finding))

    def close(self) -> Deferred[None]:
        """See :meth:`Store.close`."""
        if self._stage == "closed":
            return succeed(None)
        loaded, self._stage = self._stage == "loaded", "closed"
        done = self._snapshots.close(lambda: self._execute(partial(self._release, loaded)))
        if self._thread is not None:
            done.addBoth(self._stop)
        return done

    def _open(self, cluster: str, node: str, random_bytes: Callable[[int], bytes], segment_bytes: int) -> Identity:
        """Find out whose folder this is, and make what a new one needs."""
        file = self._identity_file = AtomicFile(self._disk, f"{self._directory}/identity", VERSION)
        found = read_identity(file)
        identity = new_identity(cluster, node, random_bytes) if found is None else found
        check_identity(identity, cluster, node, self._directory)
        incarnation = identity.incarnation
        self._acknowledged = mark = Acknowledged(self._disk, f"{self._directory}/acknowledged", incarnation)
        journal = f"{self._directory}/journal"
        told = mark.segment_created, mark.segments_dropped
        self._journal = Journal(self._disk, journal, incarnation, segment_bytes, *told)
        self._subjects = RegisterFiles(self._disk, f"{self._directory}/subjects", mark.register_created)
        if found is None:
            self._refuse_leftover_data()
            write_identity(file, identity)
        if identity.complete:
            self._refuse_missing_folders()
        else:
            self._journal.create()
            if not self._acknowledged.exists():
                self._acknowledged.create()
            identity = attrs.evolve(identity, complete=True)
            write_identity(file, identity)
        # An identity that was put back from before there was a mark switches none off.
        self._is_marked = file.found_version in (0, VERSION) or self._acknowledged.exists()
        return identity

    def _begin_mark(self) -> None:
        """All that there is was read. From now on, less than that is refused at a start; in a folder of an earlier
        version, too, which is taken over with this."""
        journal = self._journal
        mark = Mark(journal.next_position, journal.newest_segment, journal.oldest_segment, *self._subjects.names)
        if self._is_marked:
            self._acknowledged.begin(mark)
        else:
            self._acknowledged.create(mark)
        if self._identity_file.found_version not in (0, VERSION):
            write_identity(self._identity_file, self._identity)

    def _find_discarded(self) -> list[str]:
        """What snapshots somebody has put aside, to have the state from other nodes, and the state is not there yet."""
        with os_errors("read", self._directory):
            return [name for name in self._disk.list_directory(self._directory) if name.startswith(DISCARDED)]

    def _check_discarded(self) -> None:
        """If the state is there again, in a complete snapshot, with the Checkpoint from which on the journal goes on,
        then what was put aside has done its work: it must not excuse what is lost later."""
        newest = self._snapshots.newest
        if self._discarded and newest is not None and self._checkpoints.reach_back_to(newest.slot):
            self._rename_discarded()

    def _rename_discarded(self) -> None:
        with os_errors("rename what was put aside in", self._directory):
            taken = set(self._disk.list_directory(self._directory)) if self._discarded else set()
            for name in self._discarded:
                target = REPLACED + name.removeprefix(DISCARDED)
                while target in taken:
                    target += "+"
                taken.add(target)
                self._disk.replace(f"{self._directory}/{name}", f"{self._directory}/{target}")
            if self._discarded:
                self._disk.sync_directory(self._directory)
        self._discarded = []

    def _refuse_leftover_data(self) -> None:
        """Refuse to start anew on top of what somebody saved: the identity was lost, and who knows what with it."""
        with os_errors("read", self._directory):
            for name in ("journal", "subjects"):
                ensure_directory(self._disk, f"{self._directory}/{name}")
            names = self._disk.list_directory(self._directory)
            has_snapshots = "snapshots" in names and self._disk.list_directory(f"{self._directory}/snapshots")
            others = [name for name in names if name.startswith(("snapshots.", "diverged", "acknowledged"))]
            if self._journal.exists() or self._subjects.exist() or has_snapshots or others:
                raise StoreError(
                    f"{self._directory} holds what a node saved, but no identity file: put that file back, or keep the"
                    f" folder aside and bring the machine back as a new node"
                )

    def _refuse_missing_folders(self) -> None:
        """Refuse to start without a folder that a complete store has."""
        with os_errors("read", self._directory):
            names = self._disk.list_directory(self._directory)
        for name in ("journal", "subjects"):
            if name not in names:
                raise damaged(f"{self._directory}/{name}", 0, "the folder is missing")

    def _write(
        self, log: Sequence[JournalRecord], body: bytes, subjects: Collection[SubjectState], voter: Voter | None
    ) -> None:
        """Put one save on disk. Happens wherever ``execute`` has it happen."""
        if self._failed:
            raise StoreError(self._failed)
        try:
            if body:
                self._checkpoints.note(log, self._journal.append(body))
                if self._discarded:
                    self._check_discarded()
            for state in subjects:
                self._subjects.write(state)
            if voter is not None:
                self._identity = attrs.evolve(self._identity, voter=voter)
                write_identity(self._identity_file, self._identity)
            if body:
                self._acknowledged.saved(self._journal.next_position)
        except BaseException as error:
            self._failed = f"{self._directory} takes no more after a failed save ({error}); start the node again"
            raise

    def _forget_before(self, slot: int) -> None:
        """There is a new snapshot. Drop what of the journal is not needed beside the one before it, at ``slot``; 0 if
        there was none. As final as a save, if it fails."""
        if self._failed:
            raise StoreError(self._failed)
        position = self._checkpoints.forget_before(slot)
        try:
            self._check_discarded()
            self._journal.drop_before(position)
        except BaseException as error:
            self._failed = f"{self._directory} takes no more after a failed drop ({error}); start the node again"
            raise

    def _release(self, secure: bool) -> None:
        with os_errors("close", self._directory):
            try:
                if secure and not self._failed:
                    self._acknowledged.secure()
            finally:
                try:
                    self._acknowledged.close()
                    self._journal.close()
                finally:
                    self._disk.close(self._lock)

    def _stop(self, result: T) -> T:
        """The thread has done the last work: end it."""
        assert self._thread is not None
        self._thread.stop()
        return result


def _global_reactor() -> IReactorFromThreads:
    from twisted.internet import reactor  # here, since importing it installs one

    return IReactorFromThreads(reactor)


def _decode(frame: Frame) -> list[Record]:
    """The records in ``frame``."""
    try:
        return [*decode(frame.body)]
    except ValueError as error:
        raise damaged(frame.path, frame.offset, f"frame {frame.position} holds no records ({error})") from None
