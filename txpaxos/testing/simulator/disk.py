"""A disk in memory that keeps exactly what was synced: the worst that a real disk may do at a power cut.

Bytes and names exist twice: as the running system sees them, and as they are on the platter. A sync copies the first to
the second. At a power cut each write that was not synced is kept, lost or torn. Names are as they were at the folder's
last sync, or at some later change. If only the process dies, the system still has everything, and may lose it at a
later power cut.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from random import Random

import attrs

from txpaxos.storage.disk import Disk, FileStatus

SECTOR_BYTES = 512
USER = 1000
"""The user id that a simulated node runs as."""


class Crash(BaseException):
    """The power is cut. Code under test must not handle this exception: the simulator discards the whole process."""


@attrs.define
class _File:
    seen: bytearray = attrs.field(factory=bytearray)
    durable: bytearray = attrs.field(factory=bytearray)
    unsynced: list[tuple[int, bytes]] = attrs.field(factory=list)
    size_synced: bool = True


@attrs.define
class _Folder:
    seen: dict[str, _File | None] = attrs.field(factory=dict)  # None stands for a folder.
    durable: dict[str, _File | None] = attrs.field(factory=dict)


class SimulatedDisk(Disk):
    """The system calls of :class:`~txpaxos.storage.disk.Disk`, in memory.

    :param before_call: called with the name and path of each system call before it happens. It raises ``OSError`` to
        make the call fail, or :class:`Crash`.
    :ivar standings: by path, owners and permissions that differ from those a store sets.
    :ivar bytes_max: writing more than this in all gives ENOSPC; ``None`` for no limit.
    """

    def __init__(self, rng: Random, before_call: Callable[[str, str], None] | None = None) -> None:
        self.statuses: dict[str, FileStatus] = {}
        self.bytes_max: int | None = None
        self.before_call = before_call
        self._rng = rng
        self._folders: dict[str, _Folder] = {"/": _Folder()}
        self._handles: dict[int, tuple[str, _File]] = {}
        self._locks: dict[int, str] = {}
        self._renamed: list[tuple[str, str]] = []  # Renames of folders that are not durable yet.
        self._next_handle = 3

    # system calls

    def make_directory(self, path: str) -> None:
        folder, name = self._parent(path)
        self._call("mkdir", path)
        if name in folder.seen:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        folder.seen[name] = None
        self._folders[path] = _Folder()

    def inspect(self, path: str, follow: bool = False) -> FileStatus:
        self._call("stat", path)
        if path == "/":
            return FileStatus("folder", 0o755, USER)
        folder, name = self._parent(path)
        if name not in folder.seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        made = FileStatus("folder", 0o700, USER) if folder.seen[name] is None else FileStatus("file", 0o600, USER)
        return self.statuses.get(path, made)

    def user(self) -> int:
        return USER

    def list_directory(self, path: str) -> list[str]:
        self._call("list", path)
        return sorted(self._folder(path).seen)

    def sync_directory(self, path: str) -> None:
        folder = self._folder(path)
        self._call("sync_directory", path)
        folder.durable = dict(folder.seen)
        self._renamed = [pair for pair in self._renamed if os.path.dirname(pair[0]) != path]

    def lock(self, path: str) -> int:
        self._call("lock", path)
        if path in self._locks.values():
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)
        folder, name = self._parent(path)
        file = folder.seen.setdefault(name, _File())
        assert file is not None
        handle = self._handle(path, file)
        self._locks[handle] = path
        return handle

    def read(self, path: str) -> bytes:
        self._call("read", path)
        return bytes(self._find(path).seen)

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        self._call("read", path)
        return bytes(self._find(path).seen[offset : offset + size])

    def file_size(self, path: str) -> int:
        self._call("stat", path)
        return len(self._find(path).seen)

    def free_bytes(self, path: str) -> int:
        self._call("statvfs", path)
        return 2**62 if self.bytes_max is None else max(0, self.bytes_max - self._bytes_used())

    def create(self, path: str) -> int:
        folder, name = self._parent(path)
        self._call("create", path)
        file = folder.seen[name] = _File()
        return self._handle(path, file)

    def open(self, path: str) -> int:
        self._call("open", path)
        return self._handle(path, self._find(path))

    def allocate(self, handle: int, size: int) -> None:
        path, file = self._handles[handle]
        self._call("allocate", path)
        if self.bytes_max is not None and self._bytes_used() + size > self.bytes_max:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        file.seen = bytearray(size)
        file.size_synced = False

    def truncate(self, handle: int, size: int) -> None:
        path, file = self._handles[handle]
        self._call("truncate", path)
        del file.seen[size:]
        file.unsynced = [(offset, data[: max(0, size - offset)]) for offset, data in file.unsynced if offset < size]
        file.size_synced = False

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        path, file = self._handles[handle]
        self._call("write", path)
        end = offset + len(data)
        if end > len(file.seen):
            if self.bytes_max is not None and self._bytes_used() + end - len(file.seen) > self.bytes_max:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            file.seen.extend(bytes(end - len(file.seen)))
            file.size_synced = False
        file.seen[offset:end] = data
        file.unsynced.append((offset, bytes(data)))
        return len(data)

    def sync_data(self, handle: int) -> None:
        path, file = self._handles[handle]
        try:
            self._call("sync", path)
        except OSError:
            self._tear(file)  # The kernel marks pages that it could not write as clean, and does not write them again.
            raise
        _put_on_platter(file)

    def sync(self, handle: int) -> None:
        self.sync_data(handle)

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)
        self._locks.pop(handle, None)

    def replace(self, source: str, target: str) -> None:
        old, old_name = self._parent(source)
        new, new_name = self._parent(target)
        self._call("rename", target)
        if old_name not in old.seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        if old.seen[old_name] is None:
            assert old is new, (source, target)
            self._move_folder(source, target)
            self._renamed.append((source, target))
        new.seen[new_name] = old.seen.pop(old_name)

    def unlink(self, path: str) -> None:
        folder, name = self._parent(path)
        self._call("unlink", path)
        self._find(path)
        del folder.seen[name]

    # faults, and a look from outside

    def leave(self) -> None:
        """The process is gone and the machine stays up: the next process sees everything that was written. Data that
        was not synced may still be lost at a power cut."""
        self._handles.clear()
        self._locks.clear()

    def crash(self) -> None:
        """The power is cut: the process is gone, and data that was not synced is lost, wholly or in part."""
        self.leave()
        for folder in self._folders.values():
            if self._rng.random() < 0.5:
                folder.durable = dict(folder.seen)  # Names may reach the platter without a sync.
            folder.seen = dict(folder.durable)
        while self._renamed:
            source, target = self._renamed.pop()
            if os.path.basename(target) not in self._folder(os.path.dirname(target)).seen:
                self._move_folder(target, source)
        files = {id(file): file for folder in self._folders.values() for file in folder.seen.values() if file}
        for file in files.values():
            if file.unsynced or not file.size_synced:
                self._tear(file)
            file.seen = bytearray(file.durable)

    def flip_bit(self, path: str, bit: int) -> None:
        """Flip one bit of a file, on the platter and in every cache: bit rot."""
        file = self._find(path)
        for copy in (file.seen, file.durable):
            if bit // 8 < len(copy):
                copy[bit // 8] ^= 1 << bit % 8

    def zero(self, path: str, offset: int) -> None:
        """Overwrite a file with zeros from ``offset`` on, on the platter and in every cache."""
        file = self._find(path)
        _put_on_platter(file)
        for copy in (file.seen, file.durable):
            copy[offset:] = bytes(len(copy) - offset)

    def remove(self, path: str) -> None:
        """Remove a file for good, as an operator may."""
        folder, name = self._parent(path)
        del folder.seen[name]
        folder.durable.pop(name, None)

    def move_directory(self, source: str, target: str) -> None:
        """Rename a folder of files for good, as an operator may."""
        parent, name = self._parent(source)
        new_parent, new_name = self._parent(target)
        folder = self._folders.pop(source)
        for old, new in ((parent.seen, new_parent.seen), (parent.durable, new_parent.durable)):
            old.pop(name)
            new[new_name] = None
        self._folders[target] = folder

    def size(self, path: str) -> int:
        """The size of a file in bytes."""
        return len(self._find(path).seen)

    def content(self, path: str) -> bytes:
        """The bytes of a file."""
        return bytes(self._find(path).seen)

    def files(self) -> list[str]:
        """The paths of all files."""
        return [
            f"{path.rstrip('/')}/{name}"
            for path, folder in sorted(self._folders.items())
            for name, file in sorted(folder.seen.items())
            if file is not None
        ]

    def _tear(self, file: _File) -> None:
        """Keep each write that was not synced as a whole, in part, or not at all."""
        if not file.size_synced:
            if self._rng.random() < 0.5:
                file.durable.extend(bytes(max(0, len(file.seen) - len(file.durable))))
                del file.durable[len(file.seen) :]
            file.size_synced = True
        for offset, data in file.unsynced:
            fate = self._rng.random()
            if fate < 0.25:
                continue
            kept = bytearray(data)
            if fate < 0.5:  # Only its beginning.
                kept = kept[: self._rng.randrange(len(data) + 1)]
                _write(file.durable, offset, kept)
            elif fate < 0.75:  # Some of its sectors.
                for start, end in _sectors(offset, len(data)):
                    if self._rng.random() < 0.5:
                        _write(file.durable, start, data[start - offset : end - offset])
            else:
                _write(file.durable, offset, data)
        file.unsynced.clear()

    def _call(self, name: str, path: str) -> None:
        if self.before_call is not None:
            self.before_call(name, path)

    def _handle(self, path: str, file: _File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = path, file
        return self._next_handle

    def _folder(self, path: str) -> _Folder:
        folder = self._folders.get(path)
        parent, name = os.path.split(path)
        if folder is None or (path != "/" and name not in self._folders[parent].seen):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return folder

    def _move_folder(self, source: str, target: str) -> None:
        for path in [path for path in self._folders if path == source or path.startswith(f"{source}/")]:
            self._folders[target + path.removeprefix(source)] = self._folders.pop(path)

    def _parent(self, path: str) -> tuple[_Folder, str]:
        parent, name = os.path.split(path)
        return self._folder(parent), name

    def _find(self, path: str) -> _File:
        folder, name = self._parent(path)
        file = folder.seen.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file

    def _bytes_used(self) -> int:
        return sum(len(self._find(path).seen) for path in self.files())


def _put_on_platter(file: _File) -> None:
    if not file.size_synced:
        grown = len(file.seen) - len(file.durable)
        if grown > 0:
            file.durable.extend(bytes(grown))
        del file.durable[len(file.seen) :]
        file.size_synced = True
    for offset, data in file.unsynced:
        _write(file.durable, offset, data)
    file.unsynced.clear()


def _write(target: bytearray, offset: int, data: bytes | bytearray) -> None:
    if offset > len(target):
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


def _sectors(offset: int, length: int) -> list[tuple[int, int]]:
    """Split ``[offset, offset + length)`` at the boundaries of sectors."""
    parts = []
    start, end = offset, offset + length
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        parts.append((start, stop))
        start = stop
    return parts
