"""The folder of snapshots: the two newest complete ones, and the one that is being written; three files at most.

A snapshot is written under a temporary name, synced as it grows, then renamed, and the folder synced: under its own
name there is only a complete one. One that this node takes (``.new``) is worth nothing after a crash. One that comes
from a peer (``.part``) is gone on with where its sound frames end, and where it was when the disk was full. Of the two,
the one that is begun later takes the place of the other.
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
"""So many bytes are synced at once, so that no sync takes long."""
SYNCS = 16
"""What comes from a peer is synced so often at least: a short file, too, may take long to come."""
SNAPSHOTS_KEPT = 2
PART = ".part"
_SUFFIX = ".snapshot"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_log = Logger()


@attrs.frozen
class Snapshot:
    """A complete snapshot: everything up to ``slot``, in a file of ``size_bytes``. It stays until two are newer."""

    slot: int
    size_bytes: int
    path: str
    _disk: Disk = attrs.field(repr=False, eq=False)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the file from ``offset`` on, fewer at its end: what a peer's ``write_raw`` takes.

        :raises StoreError: if they cannot be read, for instance since two newer snapshots are there."""
        with os_errors("read", self.path):
            return self._disk.read_at(self.path, offset, size)

    def chunks(self) -> Iterator[bytes]:
        """What ``write`` was given, chunk by chunk, each read and checked when it is asked for.

        :raises StoreError: with file and offset, where the file is damaged."""
        return SnapshotReader(self.read, self.size_bytes, self.slot, self.path).chunks()

    def check_ends(self) -> None:
        """Check the beginning and the end of the file, which is quick.

        :raises StoreError: if they are damaged."""
        SnapshotReader(self.read, self.size_bytes, self.slot, self.path).check_ends()


class SnapshotWriter:
    """A snapshot at ``slot`` in the making: ``write`` it chunk by chunk, or ``write_raw`` a peer's; then ``finish``.

    What is asked for is done in the order of the calls, in the background; wait for one Deferred before the next call,
    or what waits piles up in memory. One failure fails everything after it and removes the file, and that is all: the
    store goes on. Only what came from a peer stays where the disk is full: what has come is sound.

    ``size_bytes`` is how many bytes of the file stand, ``received`` whether it comes from a peer, ``finishing`` whether
    its end is under way, ``kept`` whether it failed and its file stays.
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
        """Whether it takes more."""
        return not (self._closed or self._failed)

    def write(self, chunk: bytes) -> Deferred[None]:
        """Append one chunk, which comes back from :meth:`Snapshot.chunks` as it is. Fires when it is written.

        :raises ValueError: if it is empty, or longer than 64 MiB.
        :raises TypeError: if the snapshot is one that a peer sends."""
        if self.received:
            raise TypeError("a snapshot from a peer is written with write_raw")
        return self._do(partial(self._append, self._packer.frame(chunk)))

    def write_raw(self, data: bytes) -> Deferred[None]:
        """Append the bytes of a peer's file that come after the ``size_bytes`` that stand. Fires when it is written.

        :raises TypeError: if the snapshot is one that this node takes."""
        if not self.received:
            raise TypeError("a snapshot of this node's own is written with write")
        return self._do(partial(self._append, data))

    def check(self, look: Callable[[bytes], None]) -> Deferred[None]:
        """Put what came from a peer on disk, read it again from there, and check it: before it is finished, which it
        may be if this has fired. Until then it has no name under which anything else would take it for good.

        :param look: called with each chunk, in the background. What it raises fails this.
        :raises TypeError: if the snapshot is one that this node takes."""
        if not self.received:
            raise TypeError("a snapshot of this node's own needs no check")
        return self._do(partial(self._check, look))

    def finish(self) -> Deferred[Snapshot]:
        """Complete it; what came from a peer is read again and checked, unless it was. Fires when it is on disk under
        its own name, is ``store.snapshot``, and what is older than the snapshot before it is gone.

        Fails with :class:`~txpaxos.errors.StoreError` if it is damaged, cannot be written, or was given up."""
        done = self._do(self._complete)
        self._closed, self.finishing = self._closed or "it was finished", True
        return done.addCallback(lambda _: self._folder.completed(self)).addBoth(self._finished)

    def abandon(self, why: str = "it was abandoned") -> Deferred[None]:
        """Give it up and remove what there is of it. Harmless after anything else."""
        if self._closed:
            return succeed(None)
        self._closed = why
        return self._folder.execute(self._remove)

    def resume_at(self, size_bytes: int) -> None:
        """Before the first write: so many bytes are there already."""
        self.size_bytes = self._synced_bytes = size_bytes

    def refuse_more(self) -> None:
        """Take nothing more, and leave the file to whoever opens the store next."""
        self._closed = self._closed or "the store was closed"

    def _finished(self, result: T) -> T:
        self.finishing = False
        return result

    def release(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._folder.disk.close(handle)

    # ---------------------------------------------- wherever ``execute`` does it

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
            self.size_bytes = self._synced_bytes  # The kernel may have dropped what came since.
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
        if self._removed:  # another writer's file may have that name by now
            return
        self._removed = True
        with suppress(OSError):
            self.release()
        try:
            remove_if_there(self._folder.disk, self._path)
        except OSError as error:
            _log.warn("{path} is left behind: {error}", path=self._path, error=error)


class SnapshotFiles:
    """The snapshots in ``directory``. Call :meth:`load` first.

    :param start_execute: makes what does the writing, when that is needed first.
    :param forget_before: told the slot of the older snapshot that is kept when there is a new one, 0 if there is none:
        what a node with that older one needs not need not be kept. What it returns is waited for.
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
        self._slots: list[int] = []  # of the complete ones; changed only where the writing is done
        self._part: tuple[int, int] | None = None  # slot and sound bytes of what was received of one
        self._writer: SnapshotWriter | None = None

    @property
    def newest(self) -> Snapshot | None:
        """The newest that is complete."""
        return self.kept[-1] if self.kept else None

    @property
    def part(self) -> tuple[int, int] | None:
        """The slot of what there is of a peer's snapshot that is not being written, and how many sound bytes."""
        if self._writer is not None and self._writer.kept:
            return self._writer.slot, self._writer.size_bytes
        return self._part

    def path(self, slot: int) -> str:
        """The file of the snapshot at ``slot``."""
        return f"{self.directory}/{slot:012d}{_SUFFIX}"

    def load(self) -> Snapshot | None:
        """Find the newest complete snapshot, and what was received of another one; remove what is worth nothing.

        :raises StoreError: if the newest one is damaged at its beginning or its end, or cannot be read."""
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
        self._remove_old()  # A crash came before they were gone.
        return self.newest

    def _load_part(self, slot: int) -> None:
        """Find out how much of a received snapshot is sound."""
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
        """A writer of the snapshot at ``slot``. One of the other kind that is being written is given up.

        :param size_bytes: how many bytes it will have, as far as that is known.
        :raises StoreError: if one as new is there, or another of this kind is being written, or any is being finished,
            or if there is no room for so many bytes.
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
        """What of another would be removed counts as room."""
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
        """Do ``work`` where the writing is done."""
        if self._execute is None:
            self._execute = self._start_execute()
        return self._execute(work)

    def completed(self, writer: SnapshotWriter) -> Deferred[Snapshot]:
        """``writer`` has done its work. Fires when what is not needed any more is gone."""
        before = self.newest
        path = self.path(writer.slot)
        snapshot = Snapshot(writer.slot, writer.size_bytes, path, self.disk)
        self.kept = [*self.kept, snapshot][-SNAPSHOTS_KEPT:]
        forgotten = self._forget_before(0 if before is None else before.slot)
        return forgotten.addCallback(lambda _: snapshot)

    def close(self, release_store: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Wait for what is being written and let go of it, then ``release_store``."""
        if self._writer is not None:
            self._writer.refuse_more()
        if self._execute is None:
            return release_store()
        return self._execute(self._release).addBoth(self._stop).addCallback(lambda _: release_store())

    # ---------------------------------------------- wherever ``execute`` does it

    def adopt(self, path: str, slot: int) -> None:
        """Give the complete file at ``path`` its own name, and remove those that are older than the one before it."""
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
        """Remove files that nobody needs any more; those that cannot be are in nobody's way."""
        try:
            for path in paths:
                remove_if_there(self.disk, path)
        except OSError as error:
            _log.warn("an old snapshot in {directory} is left behind: {error}", directory=self.directory, error=error)

    def _release(self) -> None:
        assert self._writer is not None  # or nothing would have been executed
        self._writer.release()

    def _stop(self, _: object) -> None:
        if isinstance(self._execute, ThreadExecutor):
            self._execute.stop()

    def _slots_in(self, names: list[str], ending: str) -> list[int]:
        """The slots of the files among ``names`` that end in ``ending``, in order."""
        stems = [name.removesuffix(_SUFFIX + ending) for name in names if name.endswith(_SUFFIX + ending)]
        slots = sorted(int(stem) for stem in stems if stem.isdecimal())
        return [slot for slot in slots if f"{slot:012d}" in stems]
