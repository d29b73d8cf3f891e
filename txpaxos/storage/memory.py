"""A store in memory: for tests, simulations, and clusters that may lose their state with their processes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from functools import partial

from twisted.internet.defer import Deferred, fail, succeed

from txpaxos.core.ready import JournalRecord, Record, SubjectState, Voter
from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import Executor, execute_now
from txpaxos.storage.quarantine import markers
from txpaxos.storage.records import checkpoint_index, divide
from txpaxos.storage.snapshots import Snapshot, SnapshotFiles, SnapshotWriter


class MemoryStore:
    """:class:`~txpaxos.storage.store.Store` in memory.

    :param saved: the records that were saved before.
    :param incarnation: a random number, not 0, made once per store.
    :param execute: the executor that does the saves and writes the snapshots. A simulator passes one that takes time.
    :param files: the ``files`` of another store: its snapshots and quarantine marker. They are copied.
    :ivar failing: set it to have every save from then on refused, as on a broken disk. ``files.failing`` does the same
        for writes of snapshots and of the quarantine marker.
    """

    def __init__(
        self,
        saved: Iterable[Record] = (),
        incarnation: int = 1,
        execute: Executor = execute_now,
        files: MemoryFiles | None = None,
    ) -> None:
        self.incarnation = incarnation
        self.failing = False
        self.files = MemoryFiles({} if files is None else files.contents)
        self._execute = execute
        saved = list(saved)
        self._registers = [record for record in saved if isinstance(record, SubjectState)]
        self._log, self._voter = divide(record for record in saved if not isinstance(record, SubjectState))
        self._loaded = False
        self._closed = False
        self._quarantine_marker, self._removed_marker = markers(self.files, "")
        self._snapshots = SnapshotFiles(
            self.files,
            "",
            lambda: execute,
            lambda slot: self._execute(partial(self._forget_before, slot)),
        )

    @property
    def saved(self) -> list[Record]:
        """The records that a store opened now on the same data would load."""
        registers = sorted(self._registers, key=lambda state: state.subject)
        snapshot = self._snapshots.newest
        start = None if snapshot is None else checkpoint_index(self._log, snapshot.slot)
        return [*self._log[start:], *registers, *self._voters()]

    @property
    def snapshot(self) -> Snapshot | None:
        """See :attr:`txpaxos.storage.store.Store.snapshot`."""
        return self._snapshots.newest

    def load(self) -> list[Record]:
        """See :meth:`txpaxos.storage.store.Store.load`."""
        if self._loaded or self._closed:
            raise StoreError("a store is loaded once, while it is open: call reopen() for another one with its records")
        self._loaded = True
        self._removed_marker.enforce()
        self._quarantine_marker.enforce(has_snapshots=self._snapshots.load() is not None)
        return self.saved

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.save`."""
        if self._closed or not self._loaded:
            return fail(StoreError("a store takes records between load() and close()"))
        log, voter = divide(records)
        return self._execute(lambda: self._write(log, voter))

    def forget_registers(self) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.forget_registers`."""
        if self._closed or not self._loaded:
            return fail(StoreError("a store forgets registers between load() and close()"))
        return self._execute(self._forget_registers) if self._registers else succeed(None)

    def snapshot_at(self, slot: int) -> Snapshot | None:
        """See :meth:`txpaxos.storage.store.Store.snapshot_at`."""
        return self._snapshots.at(slot)

    @property
    def part(self) -> tuple[int, int] | None:
        """See :attr:`txpaxos.storage.store.Store.part`."""
        return self._snapshots.part

    @property
    def journal_bytes(self) -> int:
        """See :attr:`txpaxos.storage.store.Store.journal_bytes`."""
        return 0

    @property
    def snapshots_bytes(self) -> int:
        """See :attr:`txpaxos.storage.store.Store.snapshots_bytes`."""
        return self._snapshots.size_bytes

    def write_snapshot(self, slot: int) -> SnapshotWriter:
        """See :meth:`txpaxos.storage.store.Store.write_snapshot`."""
        return self._new_snapshot(slot, received=False)

    def receive_snapshot(self, slot: int, size_bytes: int = 0) -> SnapshotWriter:
        """See :meth:`txpaxos.storage.store.Store.receive_snapshot`."""
        return self._new_snapshot(slot, received=True, size_bytes=size_bytes)

    def quarantine(self, finding: str) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.quarantine`."""
        if self._closed or not self._loaded:
            return fail(StoreError("a store can be quarantined only between load() and close()"))
        return self._execute(partial(self._quarantine_marker.write, finding))

    def mark_removed(self, finding: str) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.mark_removed`."""
        if self._closed or not self._loaded:
            return fail(StoreError("a store can be marked only between load() and close()"))
        return self._execute(partial(self._removed_marker.write, finding))

    def close(self) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.close`."""
        if self._closed:
            return succeed(None)
        self._closed = True
        return self._snapshots.close(lambda: self._execute(lambda: None))

    def reopen(self) -> MemoryStore:
        """A new store with all that this store has saved, as after a restart of the node. This store is closed."""
        self._closed = True
        saved = [*self._log, *self._registers, *self._voters()]
        return MemoryStore(saved, self.incarnation, self._execute, self.files)

    def _new_snapshot(self, slot: int, *, received: bool, size_bytes: int = 0) -> SnapshotWriter:
        if self._closed or not self._loaded:
            raise StoreError("a store takes snapshots between load() and close()")
        return self._snapshots.write(slot, received=received, size_bytes=size_bytes)

    def _voters(self) -> list[Voter]:
        return [] if self._voter is None else [self._voter]

    def _write(self, log: list[JournalRecord], voter: Voter | None) -> None:
        self._refuse_if_failing()
        self._log += log
        self._voter = voter or self._voter

    def _forget_registers(self) -> None:
        self._refuse_if_failing()
        self._registers = []

    def _forget_before(self, slot: int) -> None:
        self._refuse_if_failing()
        del self._log[: checkpoint_index(self._log, slot) or 0]

    def _refuse_if_failing(self) -> None:
        if self.failing:
            raise StoreError("this store was told to fail; start the node again")


class MemoryFiles(Disk):
    """The system calls that snapshots and the quarantine marker need, in memory, with all files in one folder.

    :param contents: the files' bytes by path. They are copied.
    :ivar failing: whether every write fails.
    :ivar room_bytes: how many bytes may still be written before the disk is full.
    """

    def __init__(self, contents: dict[str, bytearray]) -> None:
        self.contents = {path: bytearray(content) for path, content in contents.items()}
        self.failing = False
        self.room_bytes = 2**62
        self._handles: dict[int, str] = {}
        self._next_handle = 0

    def make_directory(self, path: str) -> None:
        """See Disk."""

    def sync_directory(self, path: str) -> None:
        """See Disk."""

    def list_directory(self, path: str) -> list[str]:
        """See Disk."""
        return [os.path.basename(name) for name in self.contents]

    def read(self, path: str) -> bytes:
        """See Disk."""
        return bytes(self._content(path))

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """See Disk."""
        return bytes(self._content(path)[offset : offset + size])

    def file_size(self, path: str) -> int:
        """See Disk."""
        return len(self._content(path))

    def free_bytes(self, path: str) -> int:
        """See Disk."""
        return self.room_bytes

    def create(self, path: str) -> int:
        """See Disk."""
        self.contents[path] = bytearray()
        return self.open(path)

    def open(self, path: str) -> int:
        """See Disk."""
        self._content(path)
        self._next_handle += 1
        self._handles[self._next_handle] = path
        return self._next_handle

    def truncate(self, handle: int, size: int) -> None:
        """See Disk."""
        del self._content(self._handles[handle])[size:]

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """See Disk."""
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        content = self._content(self._handles[handle])
        more = max(0, offset + len(data) - len(content))
        if more > self.room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room_bytes -= more
        content[offset : offset + len(data)] = data
        return len(data)

    def sync(self, handle: int) -> None:
        """See Disk."""

    def close(self, handle: int) -> None:
        """See Disk."""
        del self._handles[handle]

    def replace(self, source: str, target: str) -> None:
        """See Disk."""
        self.contents[target] = self.contents.pop(source)

    def unlink(self, path: str) -> None:
        """See Disk."""
        self._content(path)
        del self.contents[path]

    def _content(self, path: str) -> bytearray:
        try:
            return self.contents[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
