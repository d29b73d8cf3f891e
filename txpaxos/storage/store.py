"""The promises of a store, and the store on disk that keeps them.

A node saves first, and then sends the messages that rest on the save. The Deferred of :meth:`Store.save` fires when the
save is on disk. Until then, a crash may keep the save or lose it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from txpaxos.core.ready import JournalRecord, Record, Voter
from txpaxos.errors import StoreError
from txpaxos.storage.access import refuse_foreign_access
from txpaxos.storage.acknowledged import UNKNOWN, Acknowledged, Mark
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.discarded import DiscardedSnapshots
from txpaxos.storage.disk import Disk, ensure_directory
from txpaxos.storage.executor import AdaptiveExecutor, Executor, ThreadExecutor, execute_now, measure_sync
from txpaxos.storage.identity import (
    FIRST_MARKED_VERSION,
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
from txpaxos.storage.quarantine import markers
from txpaxos.storage.records import Checkpoints, checkpoint_index, decode, divide, encode
from txpaxos.storage.register_files import RegisterFiles
from txpaxos.storage.replacement import PREPARED, finish_replacement
from txpaxos.storage.restored_from import RestoredFrom
from txpaxos.storage.segment import Frame
from txpaxos.storage.snapshots import Snapshot, SnapshotFiles, SnapshotWriter

T = TypeVar("T")


class Store(Protocol):
    """Where a node keeps the records and snapshots that it must not forget."""

    @property
    def incarnation(self) -> int:
        """A random number, made once per store. By it, peers notice a node that lost its store and has a new one."""
        ...

    def load(self) -> list[Record]:
        """Load the saved records. Call it once, before the first save.

        :returns: the log's records in the order in which they were saved; then the state of each register of an earlier
            release, in the order of their names, until :meth:`forget_registers`; then the last Voter, if there is one.
            Where there is a :attr:`snapshot`, the log's
            records begin with the last :class:`~txpaxos.core.ready.Checkpoint` at its slot or before it, since the
            snapshot replaces the records before that.
        :raises StoreError: if an acknowledged record is missing or damaged, or if the store is :meth:`quarantined
            <quarantine>` and still has snapshots.
        :raises RemovedFromCluster: if the store was marked so by :meth:`mark_removed`."""
        ...

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        """Save ``records``. Fires when they are on disk, with all records that were saved before.

        Saves are done in the order of the calls. A caller need not wait for one save before the next. If one fails with
        :class:`~txpaxos.errors.StoreError`, so does every later one, and the node must stop. After a crash, a save that
        had not fired may be on disk or not: its log records all or none.

        :raises TypeError: if a record is a DecreeState or a SubjectState, which only earlier releases have saved.
            Nothing is saved then, and the store remains usable."""
        ...

    def forget_registers(self) -> Deferred[None]:
        """Forget the states of registers that an earlier release has saved: they are in the log. Fires when that is
        done. Where there are none, this does nothing."""
        ...

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest complete snapshot, ``None`` if there is none or :meth:`load` was not called.

        Two snapshots are kept, with the records that a node needs beside the older one."""
        ...

    def snapshot_at(self, slot: int) -> Snapshot | None:
        """The complete snapshot at ``slot``, ``None`` if it is not one of the two that are kept."""
        ...

    @property
    def part(self) -> tuple[int, int] | None:
        """The slot of an incomplete snapshot from a peer that is not being written, and the number of its sound bytes;
        ``None`` if there is none. :meth:`receive_snapshot` with that slot resumes it."""
        ...

    @property
    def journal_bytes(self) -> int:
        """The size of what holds the saved records, 0 if that is not on disk. No system call is made for it."""
        ...

    @property
    def snapshots_bytes(self) -> int:
        """The size of all snapshots, with one that is not complete. No system call is made for it."""
        ...

    def write_snapshot(self, slot: int) -> SnapshotWriter:
        """Begin a snapshot of this node's own state after ``slot``.

        The snapshot counts when it is finished. After a crash before that, or a failure, the store is as if the
        snapshot had not been begun. The Checkpoint at ``slot`` may be saved before or after that; until it is saved,
        :meth:`load` returns more records than needed. Only one snapshot is written at a time, so this one replaces an
        incomplete one from a peer.

        :raises StoreError: if there is a snapshot as new, if another one of this node's own is being written, or if a
            peer's is being finished."""
        ...

    def receive_snapshot(self, slot: int, size_bytes: int = 0) -> SnapshotWriter:
        """Begin to write, or resume, a snapshot at ``slot`` that comes from a peer.

        It replaces a snapshot of this node's own that is being written. After a crash, and after the disk was full, the
        same call resumes it at the writer's ``size_bytes``, unless another snapshot was begun meanwhile.

        :param size_bytes: the size that the snapshot will have, 0 if it is not known. The disk must have room for it.
        :raises StoreError: as of :meth:`write_snapshot`, or if the disk has too little room."""
        ...

    def quarantine(self, finding: str) -> Deferred[None]:
        """Quarantine the store, since the state in its snapshots is wrong. Fires when that is on disk.

        From then on :meth:`load` is refused until an operator has moved the snapshots away (``snapshots.discarded``).

        :param finding: one line that says at which slot the states differ, and which nodes have which."""
        ...

    def mark_removed(self, finding: str) -> Deferred[None]:
        """Mark the store as that of a node which was removed from the cluster. Fires when that is on disk. From then on
        :meth:`load` is refused.

        :param finding: one line that says which node was removed, and at which slot."""
        ...

    def close(self) -> Deferred[None]:
        """Wait for the saves in flight, then close everything. Fires when that is done. A second call does nothing."""
        ...


class DiskStore:
    """:class:`Store` in a folder: a journal for the log, and a file for each snapshot.

    Opening it creates the files that are absent, takes an exclusive lock and checks that the folder is this node's.

    :param directory: the data folder. It is created (mode 0700) if it is absent.
    :param cluster: the cluster's name.
    :param node: the node's id in the cluster.
    :param disk: the system calls; by default those of the real disk.
    :param reactor: the reactor in whose thread Deferreds fire; needed only with a thread. By default the installed one.
    :param sync_in_thread: whether saves are done in a thread of their own. By default that is measured, now and at each
        save: while saves take longer than ``SLOW_SYNC_SECONDS`` (``executor.py``), they are done in a thread.
    :param random_bytes: returns that number of random bytes, for the incarnation of a new store.
    :param segment_bytes: the size of a segment of the journal.
    :param execute: the executor for saves, in place of ``sync_in_thread``. A simulator passes its own.
    :param execute_snapshots: the executor that writes snapshots. By default ``execute``; without either, a thread that
        is started when it is first needed.
    :param measure: measures the seconds of a sync.
    :ivar incarnation: see :attr:`Store.incarnation`.
    :ivar sync_seconds: the seconds that a sync took at the start, ``None`` if that was not measured.
    :ivar last_application: the application that the folder was last started with.
    :ivar restored_from: the backup that the folder was restored from.
    :raises StoreError: if the folder belongs to another node, is in use or damaged, or cannot be written, or if other
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
        self._quarantine_marker, self._removed_marker = markers(disk, self._directory)
        self.last_application = LastApplication(disk, self._directory)
        self.restored_from = RestoredFrom(disk, self._directory)
        self._discarded = DiscardedSnapshots(disk, self._directory)
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
        self._removed_marker.enforce()
        self._quarantine_marker.enforce(has_snapshots=snapshot is not None)
        saves: list[list[Record]] = []  # The needed records of each save, the newest save first.

        def is_start(frame: Frame) -> bool:
            records = _decode(frame)
            index = None if snapshot is None else checkpoint_index(records, snapshot.slot)
            saves.append(records[index:])
            return index is not None

        acknowledged = self._acknowledged.read() if self._is_marked else None
        self._discarded.find()
        frames = self._journal.read(
            is_start, whole=not self._discarded.exist, acknowledged=UNKNOWN if acknowledged is None else acknowledged
        )
        for frame, records in zip(frames, reversed(saves), strict=True):
            self._checkpoints.note(records, frame.position)
        registers = self._read_registers(acknowledged)
        self._begin_mark()
        if not self._journal.first_position:
            self._discarded.rename()  # The journal has every record, so no snapshot is needed.
        self._check_discarded()
        self._stage = "loaded"
        voters = [] if self._identity.voter is None else [self._identity.voter]
        return [*(record for records in reversed(saves) for record in records), *registers, *voters]

    def _read_registers(self, acknowledged: Mark | None) -> Sequence[Record]:
        """The states of the registers of earlier releases. Files that a crash has left are removed."""
        if self._identity.has_registers:
            return self._registers.read(acknowledged)
        self._registers.remove()
        return ()

    @property
    def snapshot(self) -> Snapshot | None:
        """See :attr:`Store.snapshot`."""
        return self._snapshots.newest

    def snapshot_at(self, slot: int) -> Snapshot | None:
        """See :meth:`Store.snapshot_at`."""
        return self._snapshots.at(slot)

    @property
    def part(self) -> tuple[int, int] | None:
        """See :attr:`Store.part`."""
        return self._snapshots.part

    @property
    def journal_bytes(self) -> int:
        """See :attr:`Store.journal_bytes`."""
        return self._journal.size_bytes

    @property
    def snapshots_bytes(self) -> int:
        """See :attr:`Store.snapshots_bytes`."""
        return self._snapshots.size_bytes

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
        log, voter = divide(records)
        return self._execute(partial(self._write, log, encode(log), voter))

    def forget_registers(self) -> Deferred[None]:
        """See :meth:`Store.forget_registers`."""
        if self._stage != "loaded":
            return fail(StoreError(f"{self._directory} forgets registers between load() and close()"))
        if not self._identity.has_registers:
            return succeed(None)
        return self._execute(self._forget_registers)

    def quarantine(self, finding: str) -> Deferred[None]:
        """See :meth:`Store.quarantine`."""
        if self._stage != "loaded":
            return fail(StoreError(f"{self._directory} can be quarantined only between load() and close()"))
        return self._execute(partial(self._quarantine_marker.write, finding))

    def mark_removed(self, finding: str) -> Deferred[None]:
        """See :meth:`Store.mark_removed`."""
        if self._stage != "loaded":
            return fail(StoreError(f"{self._directory} can be marked only between load() and close()"))
        return self._execute(partial(self._removed_marker.write, finding))

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
        """Check that the folder belongs to ``node`` of ``cluster``. Create the files that a new folder needs."""
        if finish_replacement(self._disk, self._directory):
            refuse_foreign_access(self._disk, self._directory)
        file = self._identity_file = AtomicFile(self._disk, f"{self._directory}/identity", VERSION)
        found = read_identity(file)
        identity = new_identity(cluster, node, random_bytes) if found is None else found
        check_identity(identity, cluster, node, self._directory)
        incarnation = identity.incarnation
        self._acknowledged = mark = Acknowledged(self._disk, f"{self._directory}/acknowledged", incarnation)
        journal = f"{self._directory}/journal"
        told = mark.segment_created, mark.segments_dropped
        self._journal = Journal(self._disk, journal, incarnation, segment_bytes, *told)
        self._registers = RegisterFiles(self._disk, f"{self._directory}/subjects")
        if found is None:
            self._refuse_unfinished_restore()
            with os_errors("create", journal):
                ensure_directory(self._disk, journal)
            self._refuse_leftover_data()
            write_identity(file, identity)
        if identity.complete:
            self._refuse_missing_folders(("journal", "subjects") if identity.has_registers else ("journal",))
        else:
            self._journal.create()
            if not self._acknowledged.exists():
                self._acknowledged.create()
            identity = attrs.evolve(identity, complete=True)
            write_identity(file, identity)
        # An old identity file that was put back, of a version without the mark, must not disable an existing mark.
        found_version = file.found_version
        self._is_marked = not 0 < found_version < FIRST_MARKED_VERSION or self._acknowledged.exists()
        return identity

    def _begin_mark(self) -> None:
        """Begin to keep the mark, since everything was read. From now on a start refuses a folder that has less.

        A folder of an older version, which has no mark, gets one here, and the current version number."""
        journal = self._journal
        mark = Mark(journal.next_position, journal.newest_segment, journal.oldest_segment, *self._registers.names)
        if self._is_marked:
            self._acknowledged.begin(mark)
        else:
            self._acknowledged.create(mark)
        if self._identity_file.found_version not in (0, VERSION):
            write_identity(self._identity_file, self._identity)

    def _check_discarded(self) -> None:
        """Rename the discarded snapshots if the node has its state again: a complete snapshot, and the Checkpoint from
        which the journal continues. Snapshots that were discarded before must not excuse a later loss of data."""
        newest = self._snapshots.newest
        if self._discarded.exist and newest is not None and self._checkpoints.reach_back_to(newest.slot):
            self._discarded.rename()

    def _refuse_unfinished_restore(self) -> None:
        """Refuse to make a new store where a restore was interrupted: the operator wants a node with a state.

        :raises StoreError: if that is so."""
        with os_errors("read", self._directory):
            if PREPARED in self._disk.list_directory(self._directory):
                raise StoreError(
                    f"{self._directory} holds an unfinished restore: give 'txpaxos restore' again, or empty the folder"
                )

    def _refuse_leftover_data(self) -> None:
        """Refuse to make a new store in a folder with leftover data: its identity file was lost, and more may be.

        :raises StoreError: if there is such data."""
        with os_errors("read", self._directory):
            names = self._disk.list_directory(self._directory)
            has_snapshots = "snapshots" in names and self._disk.list_directory(f"{self._directory}/snapshots")
            others = [name for name in names if name.startswith(("snapshots.", "diverged", "acknowledged"))]
            if self._journal.exists() or self._registers.exist() or has_snapshots or others:
                raise StoreError(
                    f"{self._directory} holds what a node saved, but no identity file: put that file back, or move the"
                    f" folder away and bring the machine back as a new node"
                )

    def _refuse_missing_folders(self, folders: Sequence[str]) -> None:
        """Refuse a store that was complete and has lost one of its ``folders``.

        :raises StoreError: if one is missing."""
        with os_errors("read", self._directory):
            names = self._disk.list_directory(self._directory)
        for name in folders:
            if name not in names:
                raise damaged(f"{self._directory}/{name}", 0, "the folder is missing")

    def _write(self, log: Sequence[JournalRecord], body: bytes, voter: Voter | None) -> None:
        """Put one save on disk. The executor runs this."""
        if self._failed:
            raise StoreError(self._failed)
        try:
            if body:
                self._checkpoints.note(log, self._journal.append(body))
                self._check_discarded()
            if voter is not None:
                self._identity = attrs.evolve(self._identity, voter=voter)
                write_identity(self._identity_file, self._identity)
            if body:
                self._acknowledged.saved(self._journal.next_position)
        except BaseException as error:
            self._failed = f"{self._directory} takes no more saves after a failed save ({error}); start the node again"
            raise

    def _forget_registers(self) -> None:
        """Remove the files of registers. A crash in the middle leaves files that the next start removes. A failure is
        as final as that of a save."""
        if self._failed:
            raise StoreError(self._failed)
        try:
            if self._identity.has_registers:
                identity = attrs.evolve(self._identity, has_registers=False)
                write_identity(self._identity_file, identity)
                self._identity = identity
                self._acknowledged.registers_removed()
                self._registers.remove()
        except BaseException as error:
            self._failed = f"{self._directory} takes no more saves after a failed save ({error}); start the node again"
            raise

    def _forget_before(self, slot: int) -> None:
        """Drop the frames of the journal that are not needed beside the snapshot at ``slot``, since there is a newer
        one. A failure is as final as that of a save.

        :param slot: the slot of the older of two snapshots, 0 if there is only one."""
        if self._failed:
            raise StoreError(self._failed)
        position = self._checkpoints.forget_before(slot)
        try:
            self._check_discarded()
            self._journal.drop_before(position)
        except BaseException as error:
            self._failed = f"{self._directory} takes no more saves after a failed drop ({error}); start the node again"
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
        """End the thread, since it has done its last work."""
        assert self._thread is not None
        self._thread.stop()
        return result


def _global_reactor() -> IReactorFromThreads:
    from twisted.internet import reactor  # The import is here since it installs a reactor.

    return IReactorFromThreads(reactor)


def _decode(frame: Frame) -> list[Record]:
    """The records in ``frame``.

    :raises StoreError: if it holds no records."""
    try:
        return [*decode(frame.body)]
    except ValueError as error:
        raise damaged(frame.path, frame.offset, f"frame {frame.position} holds no records ({error})") from None
