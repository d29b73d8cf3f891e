"""The folder of snapshots. It holds three files at most: the two newest complete snapshots, and one that is written.

A snapshot is written under a temporary name, synced as it grows, and renamed when it is complete. Then the folder is
synced. So a file with the final name is complete.

* A snapshot that this node takes has the ending ``.new``. After a crash it is removed.
* A snapshot that comes from a peer has the ending ``.part``. After a crash, and after the disk was full, it is resumed
  where its sound frames end.

Only one of the two is written at a time: the one that is begun later replaces the other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import TEMPORARY
from txpaxos.storage.disk import Disk, ensure_inner_directory, remove_if_there, write_all
from txpaxos.storage.executor import Executor, ThreadExecutor, Work
from txpaxos.storage.messages import damaged_part, no_room, os_errors, snapshot_refused
from txpaxos.storage.snapshot_file import SnapshotPacker, SnapshotReader

T = TypeVar("T")

SYNC_BYTES = 4 << 20
"""A sync follows after at most this number of bytes, so that no single sync takes long."""
SYNCS = 16
"""A snapshot from a peer is synced at least this number of times: even a short file may take long to arrive."""
SNAPSHOTS_KEPT = 2
PART = ".part"
"""The ending of the file of a peer's snapshot that is not complete."""
_SUFFIX = ".snapshot"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_log = Logger()


@attrs.frozen
class Snapshot:
    """A complete snapshot: the state after ``slot``, in a file of ``size_bytes`` at ``path``.

    The file is kept until there are two newer snapshots."""

    slot: int
    size_bytes: int
    path: str
    _disk: Disk = attrs.field(repr=False, eq=False)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the file from ``offset`` on, fewer at its end. A peer gives them to its ``write_raw``.

        :raises StoreError: if the file cannot be read, for instance since two newer snapshots have replaced it."""
        with os_errors("read", self.path):
            return self._disk.read_at(self.path, offset, size)

    def chunks(self) -> Iterator[bytes]:
        """The chunks that ``write`` was given. Each is read and checked when the iterator is asked for it.

        :raises StoreError: (the iterator) where the file is damaged; the error names file and offset."""
        return SnapshotReader(self.read, self.size_bytes, self.slot, self.path).chunks()

    def check_ends(self) -> None:
        """Check the beginning and the end of the file, which is quick.

        :raises StoreError: if one of them is damaged."""
        SnapshotReader(self.read, self.size_bytes, self.slot, self.path).check_ends()


class SnapshotWriter:
    """Writes the snapshot at ``slot``: call ``write`` for each chunk, or ``write_raw`` with a peer's bytes; then call
    ``finish``.

    The calls are carried out in their order, in the background. Wait for the Deferred of a call before the next call,
    or the data that waits piles up in memory. A failure fails all later calls and removes the file, and the store goes
    on without it. Only a peer's snapshot is kept if the disk is full, since the bytes so far are sound.

    :ivar size_bytes: the size of the file so far.
    :ivar received: whether the snapshot comes from a peer.
    :ivar finishing: whether ``finish`` was called and has not fired.
    :ivar kept: whether writing failed and the file was kept.
    """

    def __init__(self, folder: SnapshotFiles, slot: int, *, received: bool, size_bytes: int = 0) -> None:
        self.slot = slot
        self.size_bytes = 0
        self.received = received
        self.finishing = False
        self.kept = False
        self._folder = folder
        self._path = folder.path(slot) + (PART if received else TEMPORARY)
        self._packer = SnapshotPacker(slot)
        self._handle = -1
        self._synced_bytes = 0
        self._sync_bytes = min(SYNC_BYTES, size_bytes // SYNCS or SYNC_BYTES)
        self._checked = False
        self._is_adopting = False
        self._failed = ""
        self._closed = ""
        self._removed = False

    @property
    def open(self) -> bool:
        """Whether the writer takes more calls: it was neither finished nor given up, and has not failed."""
        return not (self._closed or self._failed)

    def write(self, chunk: bytes) -> Deferred[None]:
        """Append one chunk, which :meth:`Snapshot.chunks` will return. Fires when the chunk is written.

        :raises ValueError: if the chunk is empty, or longer than 64 MiB.
        :raises TypeError: if the snapshot comes from a peer."""
        if self.received:
            raise TypeError("a snapshot from a peer is written with write_raw")
        return self._do(partial(self._append, self._packer.frame(chunk)))

    def write_raw(self, data: bytes) -> Deferred[None]:
        """Append the next bytes of a peer's file, those from ``size_bytes`` on. Fires when they are written.

        :raises TypeError: if this node takes the snapshot itself."""
        if not self.received:
            raise TypeError("a snapshot of this node's own is written with write")
        return self._do(partial(self._append, data))

    def check(self, look: Callable[[bytes], None]) -> Deferred[None]:
        """Put the bytes from a peer on disk, read them again and check them. Call this before :meth:`finish`, while the
        file still has its temporary name, so that a damaged snapshot never counts as complete. Fires when all is sound.

        :param look: called with each chunk, in the background. An exception that it raises fails the check.
        :raises TypeError: if this node takes the snapshot itself."""
        if not self.received:
            raise TypeError("a snapshot of this node's own needs no check")
        return self._do(partial(self._check, look))

    def finish(self) -> Deferred[Snapshot]:
        """Complete the snapshot. A peer's snapshot is checked before, unless :meth:`check` has done so. Fires with the
        snapshot when it is on disk under its final name, it is ``store.snapshot``, and all but two are removed.

        Fails with :class:`~txpaxos.errors.StoreError` if the snapshot is damaged or given up, or cannot be written."""
        done = self._do(self._complete)
        self._closed, self.finishing = self._closed or "it was finished", True
        return done.addCallback(lambda _: self._folder.completed(self)).addBoth(self._finished)

    def abandon(self, why: str = "it was abandoned") -> Deferred[None]:
        """Give the snapshot up and remove its file. After ``finish`` or another ``abandon`` this does nothing.

        :param why: the reason that later calls fail with."""
        if self._closed:
            return succeed(None)
        self._closed = why
        return self._folder.execute(self._remove)

    def resume_at(self, size_bytes: int) -> None:
        """Begin behind the first ``size_bytes`` of the file, which exist and are sound. Call it before any write."""
        self.size_bytes = self._synced_bytes = size_bytes

    def refuse_more(self) -> None:
        """Refuse all later calls, since the store closes. The file stays for the next start."""
        self._closed = self._closed or "the store was closed"

    def _finished(self, result: T) -> T:
        self.finishing = False
        return result

    def release(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._folder.disk.close(handle)

    # ------------------------------------------------- carried out by the executor

    def _do(self, work: Work) -> Deferred[None]:
        if self._closed:
            return fail(StoreError(f"cannot write {self._path}: {self._closed}"))
        return self._folder.execute(partial(self._attempt, work))

    def _attempt(self, work: Work) -> None:
        if self._failed:
            raise StoreError(self._failed)
        try:
            try:
                if self._handle < 0:
                    self._open()
                work()
            except OSError as error:
                self.kept = self.received and not self._is_adopting and error.errno in _NO_ROOM
                raise snapshot_refused(self._path, error) from error
        except Exception as error:
            self._failed = str(error)
            if self.kept:
                with suppress(OSError):
                    self.release()
            else:
                self._remove()
            raise

    def _open(self) -> None:
        disk, folder = self._folder.disk, self._folder.directory
        ensure_inner_directory(disk, folder)
        if self.size_bytes:
            self._handle = disk.open(self._path)
            disk.truncate(self._handle, self.size_bytes)
            return
        self._handle = disk.create(self._path)
        if self.received:
            disk.sync_directory(folder)
        else:
            self._append(self._packer.header)

    def _append(self, data: bytes) -> None:
        for start in range(0, len(data), SYNC_BYTES):
            piece = memoryview(data)[start : start + SYNC_BYTES]
            write_all(self._folder.disk, self._handle, piece, self.size_bytes)
            self.size_bytes += len(piece)
            if self.size_bytes - self._synced_bytes >= self._sync_bytes:
                self._sync()

    def _sync(self) -> None:
        try:
            self._folder.disk.sync(self._handle)
        except OSError:
            self.size_bytes = self._synced_bytes  # The kernel may have dropped the bytes behind that.
            raise
        self._synced_bytes = self.size_bytes

    def _check(self, look: Callable[[bytes], None]) -> None:
        self._sync()
        for chunk in SnapshotReader(self._read, self.size_bytes, self.slot, self._path, damaged_part).chunks():
            look(chunk)
        self._checked = True

    def _complete(self) -> None:
        if not self.received:
            self._append(self._packer.end())
            self._sync()
        elif not self._checked:
            self._check(lambda chunk: None)
        self._is_adopting = True
        self.release()
        self._folder.adopt(self._path, self.slot)

    def _read(self, offset: int, size: int) -> bytes:
        return self._folder.disk.read_at(self._path, offset, size)

    def _remove(self) -> None:
        if self._removed:  # Another writer's file may have that name by now.
            return
        self._removed = True
        with suppress(OSError):
            self.release()
        try:
            remove_if_there(self._folder.disk, self._path)
        except OSError as error:
            _log.warn("{path} is left behind: {error}", path=self._path, error=error, event="file_left_behind")


class SnapshotFiles:
    """The snapshots in ``directory``. Call :meth:`load` first.

    :param start_execute: makes the executor that does the writing; called when it is first needed.
    :param forget_before: called when there is a new snapshot, with the slot of the older one that is kept, 0 if there
        is none. Records that a node with the older snapshot does not need may be removed. Its Deferred is waited for.
    :ivar kept: the complete snapshots, oldest first.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        start_execute: Callable[[], Executor],
        forget_before: Callable[[int], Deferred[None]],
    ) -> None:
        self.disk = disk
        self.directory = directory
        self.kept: list[Snapshot] = []
        self._start_execute = start_execute
        self._forget_before = forget_before
        self._execute: Executor | None = None
        self._slots: list[int] = []  # The slots of the complete snapshots; changed only by the executor's work.
        self._part: tuple[int, int] | None = None  # The slot and the sound bytes of an incomplete peer's snapshot.
        self._writer: SnapshotWriter | None = None

    @property
    def newest(self) -> Snapshot | None:
        """The newest complete snapshot, ``None`` if there is none."""
        return self.kept[-1] if self.kept else None

    @property
    def part(self) -> tuple[int, int] | None:
        """The slot of an incomplete peer's snapshot that is not being written, and the number of its sound bytes;
        ``None`` if there is none."""
        if self._writer is not None and self._writer.kept:
            return self._writer.slot, self._writer.size_bytes
        return self._part

    @property
    def size_bytes(self) -> int:
        """The size of all snapshots, with one that is not complete."""
        writer, part = self._writer, self.part
        complete = sum(one.size_bytes for one in self.kept)
        if writer is not None and (writer.open or writer.finishing) and self.at(writer.slot) is None:
            return complete + writer.size_bytes
        return complete + (0 if part is None else part[1])

    def at(self, slot: int) -> Snapshot | None:
        """The complete snapshot at ``slot``, ``None`` if it is not one of those that are kept."""
        return next((one for one in self.kept if one.slot == slot), None)

    def path(self, slot: int) -> str:
        """The path of the complete snapshot at ``slot``."""
        return f"{self.directory}/{slot:012d}{_SUFFIX}"

    def load(self) -> Snapshot | None:
        """Find the complete snapshots and an incomplete one from a peer. Remove files that are not needed.

        :returns: the newest complete snapshot, ``None`` if there is none.
        :raises StoreError: if that is damaged at its beginning or its end, or cannot be read."""
        with os_errors("read", self.directory):
            try:
                self.disk.sync_directory(self.directory)
            except FileNotFoundError:
                return None
            names = self.disk.list_directory(self.directory)
            self._slots = self._slots_in(names, "")
            for slot in self._slots[-SNAPSHOTS_KEPT:]:
                self.kept.append(Snapshot(slot, self.disk.file_size(self.path(slot)), self.path(slot), self.disk))
            if self.newest is not None:
                self.newest.check_ends()
            for slot in self._slots_in(names, TEMPORARY):
                remove_if_there(self.disk, self.path(slot) + TEMPORARY)
            for slot in self._slots_in(names, PART):
                self._load_part(slot)
        self._remove_old()  # A crash may have come before that was done.
        return self.newest

    def _load_part(self, slot: int) -> None:
        """Find out how much of the incomplete snapshot at ``slot`` is sound."""
        path = self.path(slot) + PART
        if self._slots and slot <= self._slots[-1]:
            remove_if_there(self.disk, path)
            return
        if self._part is not None:
            remove_if_there(self.disk, self.path(self._part[0]) + PART)
        reader = SnapshotReader(partial(self.disk.read_at, path), self.disk.file_size(path), slot, path)
        with suppress(StoreError):
            for _ in reader.chunks():
                pass
        self._part = slot, reader.sound_bytes

    def write(self, slot: int, *, received: bool, size_bytes: int = 0) -> SnapshotWriter:
        """A writer for the snapshot at ``slot``. If a snapshot of the other kind is being written, it is given up.

        :param received: whether the snapshot comes from a peer.
        :param size_bytes: the size that it will have, 0 if that is not known.
        :raises StoreError: if there is a complete snapshot as new, if another one of this kind is being written or any
            is being finished, or if the disk has too little room.
        """
        if self._slots and slot <= self._slots[-1]:
            raise StoreError(f"there is a snapshot at slot {self._slots[-1]} already, so none at {slot} is needed")
        other = self._writer
        if other is not None and (other.finishing or (other.open and other.received == received)):
            raise StoreError(f"the snapshot at slot {other.slot} is still being written: finish or abandon it first")
        self._part = self.part
        self._check_room(slot, size_bytes)
        if other is not None and not other.kept:
            other.abandon(f"the one at slot {slot} has taken its place")
        writer = self._writer = SnapshotWriter(self, slot, received=received, size_bytes=size_bytes)
        if self._part is not None:
            (part, sound_bytes), self._part = self._part, None
            if received and part == slot:
                writer.resume_at(sound_bytes)
            else:
                self.execute(partial(self._remove, [self.path(part) + PART]))
        return writer

    def _check_room(self, slot: int, size_bytes: int) -> None:
        """Check that the disk has room for ``size_bytes``. An incomplete file that will be replaced counts as room.

        :raises StoreError: if it has not."""
        there = 0 if self._part is None else self._part[1]
        if self._writer is not None and self._writer.open:
            there = self._writer.size_bytes
        needed = size_bytes - there
        if needed > 0:
            with os_errors("read", self.directory):
                free = self.disk.free_bytes(os.path.dirname(self.directory) or "/")
            if free < needed:
                raise no_room(self.path(slot) + PART, needed, free)

    def execute(self, work: Work) -> Deferred[None]:
        """Have the executor do ``work``."""
        if self._execute is None:
            self._execute = self._start_execute()
        return self._execute(work)

    def completed(self, writer: SnapshotWriter) -> Deferred[Snapshot]:
        """Note that ``writer`` has completed its snapshot. Fires with it when older records are removed."""
        before = self.newest
        path = self.path(writer.slot)
        snapshot = Snapshot(writer.slot, writer.size_bytes, path, self.disk)
        self.kept = [*self.kept, snapshot][-SNAPSHOTS_KEPT:]
        forgotten = self._forget_before(0 if before is None else before.slot)
        return forgotten.addCallback(lambda _: snapshot)

    def close(self, release_store: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Wait for the writes in flight and close their file. Then call ``release_store``, and wait for that, too."""
        if self._writer is not None:
            self._writer.refuse_more()
        if self._execute is None:
            return release_store()
        return self._execute(self._release).addBoth(self._stop).addCallback(lambda _: release_store())

    # ------------------------------------------------- carried out by the executor

    def adopt(self, path: str, slot: int) -> None:
        """Give the complete file at ``path`` its final name, and remove all but the two newest snapshots."""
        self.disk.replace(path, self.path(slot))
        try:
            self.disk.sync_directory(self.directory)
        except OSError:
            with suppress(OSError):
                self.disk.unlink(self.path(slot))
            raise
        self._slots.append(slot)
        self._remove_old()

    def _remove_old(self) -> None:
        self._remove([self.path(old) for old in self._slots[:-SNAPSHOTS_KEPT]])
        del self._slots[:-SNAPSHOTS_KEPT]

    def _remove(self, paths: list[str]) -> None:
        """Remove files that are not needed any more. A file that cannot be removed does no harm, so it is logged."""
        try:
            for path in paths:
                remove_if_there(self.disk, path)
        except OSError as error:
            _log.warn(
                "an old snapshot in {directory} is left behind: {error}",
                directory=self.directory,
                error=error,
                event="file_left_behind",
            )

    def _release(self) -> None:
        assert self._writer is not None  # Without a writer there is no executor.
        self._writer.release()

    def _stop(self, _: object) -> None:
        if isinstance(self._execute, ThreadExecutor):
            self._execute.stop()

    def _slots_in(self, names: list[str], ending: str) -> list[int]:
        """The slots of the snapshots among the file names ``names`` that have ``ending``, in order."""
        stems = [name.removesuffix(_SUFFIX + ending) for name in names if name.endswith(_SUFFIX + ending)]
        slots = sorted(int(stem) for stem in stems if stem.isdecimal())
        return [slot for slot in slots if f"{slot:012d}" in stems]
