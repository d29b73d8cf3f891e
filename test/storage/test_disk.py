"""The seam to the operating system, and the disks that other tests of the store put into it."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from txpaxos.storage import disk as disk_module
from txpaxos.storage.disk import Disk, FileStatus, ensure_directory, remove_if_there, write_all

SECTOR = 512


class Crash(BaseException):
    """The process ends here. (No Exception: nothing may catch it.)"""


class FaultyDisk(Disk):
    """Passes every call on to ``inner``, and lets ``fault`` interfere with call number ``at``, counted from 0.

    A fault gets the name of the call, a function that does it, and its arguments. Once a fault raised Crash, nothing is
    passed on any more. ``calls`` are the names of the calls so far.
    """

    def __init__(self, inner: Disk, at: int = -1, fault: Callable[..., Any] | None = None) -> None:
        self.inner = inner
        self.at = at
        self.fault = fault
        self.calls: list[str] = []
        self.crashed = False
        self.open_handles: set[int] = set()

    @property
    def struck(self) -> bool:
        """Whether the call to interfere with has come."""
        return len(self.calls) > self.at >= 0

    def kill(self) -> None:
        """The process is gone, and with it its handles and locks."""
        self.crashed = True
        for handle in self.open_handles:
            self.inner.close(handle)
        self.open_handles.clear()

    def _pass(self, name: str, *arguments: Any) -> Any:
        if self.crashed:
            raise Crash
        self.calls.append(name)
        call = partial(self._do, name)
        if len(self.calls) - 1 != self.at or self.fault is None:
            return call(*arguments)
        try:
            return self.fault(name, call, *arguments)
        except Crash:
            self.crashed = True
            raise

    def _do(self, name: str, *arguments: Any) -> Any:
        result = getattr(self.inner, name)(*arguments)
        if name in ("create", "open", "lock"):
            self.open_handles.add(result)
        if name == "close":
            self.open_handles.discard(arguments[0])
        return result


def _passing(name: str) -> Callable[..., Any]:
    def method(self: FaultyDisk, *arguments: Any) -> Any:
        return self._pass(name, *arguments)

    return method


for _name in [name for name in vars(Disk) if not name.startswith("_")]:
    setattr(FaultyDisk, _name, _passing(_name))


class UnsyncedDisk(Disk):
    """The real disk, but fast: for tests in which nothing crashes."""

    def sync_directory(self, path: str) -> None:
        os.stat(path)

    def sync_data(self, handle: int) -> None:
        os.fstat(handle)

    def sync(self, handle: int) -> None:
        os.fstat(handle)


def crash_before(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """A fault: the process ends just before the call."""
    raise Crash


def crash_after(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """A fault: the process ends just after the call, whatever came of it."""
    with suppress(OSError):
        call(*arguments)
    raise Crash


def crash_within(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """A fault: the process ends when half of a write is done."""
    if name == "write_at":
        handle, data, offset = arguments
        call(handle, bytes(data)[: len(data) // 2], offset)
    raise Crash


def failing(number: int) -> Callable[..., Any]:
    """A fault: the operating system refuses the call with the error ``number``."""

    def fault(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fault


def short_write(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """A fault: a write stops after its first byte. Other calls work."""
    if name == "write_at":
        handle, data, offset = arguments
        return call(handle, bytes(data)[:1], offset)
    return call(*arguments)


@attrs.define(eq=False)
class File:
    """A file in memory: as programs see it, and as it is on disk."""

    seen: bytearray = attrs.field(factory=bytearray)
    on_disk: bytearray = attrs.field(factory=bytearray)
    dirty: set[int] = attrs.field(factory=set)
    """The sectors that the next sync will put on disk."""

    def put(self, sectors: set[int]) -> None:
        """Put some sectors on disk."""
        for sector in sectors:
            part = slice(sector * SECTOR, (sector + 1) * SECTOR)
            self.on_disk[part] = self.seen[part]
        self.dirty -= sectors


class VolatileDisk(Disk):
    """A disk in memory that forgets at :meth:`lose_power` what was not synced: names by folder, bytes by sector.

    What survives without a sync is up to ``rng``.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: dict[str, File | None] = {"/": None}  # None for a folder
        self.names_on_disk = dict(self.names)
        self.handles: dict[int, File] = {}
        self.locked: dict[int, str] = {}
        self.renamed: list[tuple[str, str]] = []  # folders, whose new names are not on disk yet
        self.next_handle = 100

    def lose_power(self) -> None:
        """Every process is gone, and so is what was in memory only."""
        self.handles.clear()
        self.locked.clear()
        while self.renamed:
            source, target = self.renamed.pop()
            if self.rng.random() < 0.5:
                move(self.names, target, source)
            else:
                move(self.names_on_disk, source, target)
        for path in sorted(self.names.keys() | self.names_on_disk.keys()):
            kept = self.names if self.rng.random() < 0.5 else self.names_on_disk
            if path in kept:
                self.names_on_disk[path] = kept[path]
            else:
                self.names_on_disk.pop(path, None)
        for path in sorted(self.names_on_disk):
            if os.path.dirname(path) not in self.names_on_disk:
                del self.names_on_disk[path]
        self.names = dict(self.names_on_disk)
        for file in {id(file): file for file in self.names.values() if file is not None}.values():
            if len(file.seen) > len(file.on_disk) and self.rng.random() < 0.5:
                file.on_disk.extend(bytes(len(file.seen) - len(file.on_disk)))
            whole = set(range(len(file.on_disk) // SECTOR))
            file.put({sector for sector in sorted(file.dirty & whole) if self.rng.random() < 0.5})
            file.seen, file.dirty = bytearray(file.on_disk), set()

    def drop_dirty(self, handle: int) -> None:
        """What a failed sync does: some sectors are not written, and count as clean all the same."""
        file = self.handles[handle]
        file.put({sector for sector in sorted(file.dirty) if self.rng.random() < 0.5})
        file.dirty.clear()

    def make_directory(self, path: str) -> None:
        if path in self.names:
            raise FileExistsError(errno.EEXIST, path)
        if os.path.dirname(path) not in self.names:
            raise FileNotFoundError(errno.ENOENT, path)
        self.names[path] = None

    def inspect(self, path: str, follow: bool = False) -> FileStatus:
        self._exists(path)
        return FileStatus("folder", 0o700, 0) if self.names[path] is None else FileStatus("file", 0o600, 0)

    def user(self) -> int:
        return 0

    def list_directory(self, path: str) -> list[str]:
        self._exists(path)
        names = [os.path.split(name) for name in self.names if name != "/"]
        return [name for folder, name in names if folder == path]

    def sync_directory(self, path: str) -> None:
        self._exists(path)
        for source, target in self.renamed:
            if os.path.dirname(source) == path:
                move(self.names_on_disk, source, target)
        self.renamed = [pair for pair in self.renamed if os.path.dirname(pair[0]) != path]
        for name in self.names.keys() | self.names_on_disk.keys():
            if os.path.dirname(name) == path and name in self.names:
                self.names_on_disk[name] = self.names[name]
            elif os.path.dirname(name) == path:
                del self.names_on_disk[name]

    def lock(self, path: str) -> int:
        if path in self.locked.values():
            raise BlockingIOError(errno.EWOULDBLOCK, path)
        handle = self.open(path) if path in self.names else self.create(path)
        self.locked[handle] = path
        return handle

    def read(self, path: str) -> bytes:
        return bytes(self._file(path).seen)

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        return bytes(self._file(path).seen[offset : offset + size])

    def file_size(self, path: str) -> int:
        return len(self._file(path).seen)

    def create(self, path: str) -> int:
        if path not in self.names:
            self._exists(os.path.dirname(path))
            self.names[path] = File()
        file = self._file(path)
        file.seen.clear()
        file.on_disk.clear()
        file.dirty.clear()
        return self.open(path)

    def open(self, path: str) -> int:
        self.next_handle += 1
        self.handles[self.next_handle] = self._file(path)
        return self.next_handle

    def allocate(self, handle: int, size: int) -> None:
        self.handles[handle].seen.extend(bytes(size))

    def truncate(self, handle: int, size: int) -> None:
        file = self.handles[handle]
        del file.seen[size:]
        file.dirty = {sector for sector in file.dirty if sector * SECTOR < size}

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        file = self.handles[handle]
        end = offset + len(data)
        file.seen.extend(bytes(max(0, end - len(file.seen))))
        file.seen[offset:end] = data
        file.dirty |= set(range(offset // SECTOR, (end + SECTOR - 1) // SECTOR))
        return len(data)

    def sync_data(self, handle: int) -> None:
        file = self.handles[handle]
        assert len(file.seen) == len(file.on_disk), "the size has changed"
        file.put(set(file.dirty))

    def sync(self, handle: int) -> None:
        file = self.handles[handle]
        file.on_disk.extend(bytes(max(0, len(file.seen) - len(file.on_disk))))
        del file.on_disk[len(file.seen) :]
        file.put(set(file.dirty))

    def close(self, handle: int) -> None:
        del self.handles[handle]
        self.locked.pop(handle, None)

    def replace(self, source: str, target: str) -> None:
        self._exists(source)
        if self.names[source] is None:
            move(self.names, source, target)
            self.renamed.append((source, target))
            return
        self.names[target] = self._file(source)
        del self.names[source]

    def unlink(self, path: str) -> None:
        self._exists(path)
        del self.names[path]

    def _exists(self, path: str) -> None:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, path)

    def _file(self, path: str) -> File:
        self._exists(path)
        file = self.names[path]
        assert file is not None, path
        return file


def move(names: dict[str, File | None], source: str, target: str) -> None:
    """Rename a folder among ``names``, and with it what is in it."""
    for path in [path for path in names if path == source or path.startswith(f"{source}/")]:
        names[target + path.removeprefix(source)] = names.pop(path)


# --------------------------------------------------------- both do the same


@pytest.fixture(params=["real", "volatile"])
def disk_and_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[FaultyDisk, str]]:
    """A disk and an empty folder on it."""
    real = request.param == "real"
    disk = FaultyDisk(Disk() if real else VolatileDisk(random.Random(0)))
    yield disk, str(tmp_path) if real else "/"
    disk.kill()


def test_names(disk_and_folder: tuple[FaultyDisk, str]) -> None:
    disk, folder = disk_and_folder
    path = os.path.join(folder, "inner")
    disk.make_directory(path)
    with pytest.raises(FileExistsError):
        disk.make_directory(path)
    with pytest.raises(FileNotFoundError):
        disk.make_directory(path + "/no/where")
    for name in ("/a", "/b"):
        disk.close(disk.create(path + name))
    disk.replace(path + "/a", path + "/c")
    disk.replace(path + "/b", path + "/c")
    disk.sync_directory(path)
    assert disk.list_directory(path) == ["c"]
    disk.unlink(path + "/c")
    assert disk.list_directory(path) == []
    for call in (disk.unlink, disk.read, disk.file_size, disk.open, disk.list_directory, disk.sync_directory):
        with pytest.raises(FileNotFoundError):
            call(path + "/c")
    with pytest.raises(FileNotFoundError):
        disk.create(path + "/no/where")
    with pytest.raises(FileNotFoundError):
        disk.replace(path + "/c", path + "/d")


def test_bytes(disk_and_folder: tuple[FaultyDisk, str]) -> None:
    disk, folder = disk_and_folder
    path = os.path.join(folder, "file")
    handle = disk.create(path)
    disk.allocate(handle, 2000)
    assert disk.read(path) == bytes(2000)
    disk.sync(handle)
    assert disk.write_at(handle, b"abc", 1500) == 3
    assert disk.write_at(handle, memoryview(b"xde")[1:], 1503) == 2
    disk.sync_data(handle)
    disk.close(handle)
    handle = disk.open(path)
    disk.write_at(handle, b"end", 2000)
    disk.sync(handle)
    disk.close(handle)
    assert disk.read(path) == bytes(1500) + b"abcde" + bytes(495) + b"end"
    assert disk.file_size(path) == 2003
    assert disk.read_at(path, 1499, 7) == b"\0abcde\0"
    assert disk.read_at(path, 2001, 7) == b"nd"
    handle = disk.open(path)
    disk.truncate(handle, 1503)
    disk.sync(handle)
    disk.close(handle)
    assert disk.read(path) == bytes(1500) + b"abc"
    disk.close(disk.create(path))
    assert disk.read(path) == b""


def test_short_reads_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, offset: pread(handle, min(size, 3), offset))
    assert Disk().read_at(f"{tmp_path}/file", 1, 8) == b"12345678"
    assert Disk().read_at(f"{tmp_path}/file", 1, 80) == b"123456789"


def test_free_bytes_are_those_that_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, free_for_root, size = 3, 5, 4096
    monkeypatch.setattr(
        os, "statvfs", lambda path: os.statvfs_result((size, size, 9, free_for_root, free, 0, 0, 0, 0, 255))
    )
    assert Disk().free_bytes(str(tmp_path)) == free * size


def test_a_lock_keeps_others_out_until_it_is_closed(disk_and_folder: tuple[FaultyDisk, str]) -> None:
    disk, folder = disk_and_folder
    path = os.path.join(folder, "lock")
    for _ in range(2):
        handle = disk.lock(path)
        with pytest.raises(BlockingIOError):
            disk.lock(path)
        disk.close(handle)


# -------------------------------------------------------------- the real one


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    disk = Disk()
    disk.make_directory(f"{tmp_path}/folder")
    disk.close(disk.create(f"{tmp_path}/file"))
    disk.close(disk.lock(f"{tmp_path}/lock"))
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("folder", "file", "lock")]
    assert modes == [0o700, 0o600, 0o600]


@pytest.mark.parametrize("error", [AttributeError(), OSError(errno.EOPNOTSUPP, "no"), OSError(errno.EINVAL, "no")])
def test_zeros_are_written_where_space_cannot_be_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unsupported(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    disk = FaultyDisk(Disk())
    handle = disk.create(f"{tmp_path}/file")
    disk.allocate(handle, (1 << 20) + 100)
    disk.kill()
    assert (tmp_path / "file").read_bytes() == bytes((1 << 20) + 100)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    disk = FaultyDisk(Disk())
    handle = disk.create(f"{tmp_path}/file")
    with pytest.raises(OSError, match="full"):
        disk.allocate(handle, 100)
    disk.kill()


def test_macos_is_asked_for_a_full_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(disk_module, "_FULL_SYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", lambda handle, command: calls.append((handle, command)))
    disk = Disk()
    handle = disk.create(f"{tmp_path}/file")
    disk.sync(handle)
    disk.sync_data(handle)
    disk.close(handle)
    assert calls == [(handle, 51)] * 2


# ----------------------------------------------------------- small helpers


def test_write_all_goes_on_after_short_writes(tmp_path: Path) -> None:
    class OneByteDisk(Disk):
        def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
            return super().write_at(handle, data[:1], offset)

    disk = OneByteDisk()
    handle = disk.create(f"{tmp_path}/file")
    write_all(disk, handle, b"", 0)
    write_all(disk, handle, b"hello", 3)
    disk.close(handle)
    assert (tmp_path / "file").read_bytes() == b"\0\0\0hello"


def test_write_all_gives_up_when_nothing_is_written(tmp_path: Path) -> None:
    class StuckDisk(Disk):
        def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
            return 0

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_all(StuckDisk(), 0, b"hello", 0)


def test_ensure_directory_makes_and_syncs_what_is_missing(tmp_path: Path) -> None:
    disk = FaultyDisk(Disk())
    ensure_directory(disk, f"{tmp_path}/a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
    assert disk.calls.count("sync_directory") == 3
    ensure_directory(disk, f"{tmp_path}/a/b/c")
    assert disk.calls.count("sync_directory") == 4


def test_ensure_directory_accepts_a_folder_in_one_that_is_closed_to_us(tmp_path: Path) -> None:
    class ClosedDisk(Disk):
        def sync_directory(self, path: str) -> None:
            raise PermissionError(errno.EACCES, path)

    ensure_directory(ClosedDisk(), f"{tmp_path}/a")
    assert (tmp_path / "a").is_dir()


def test_remove_if_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for _ in range(2):
        remove_if_there(Disk(), f"{tmp_path}/file")
        assert not (tmp_path / "file").exists()


def test_a_volatile_disk_forgets_what_was_not_synced() -> None:
    seen = set()
    for seed in range(50):
        disk = VolatileDisk(random.Random(seed))
        handle = disk.create("/file")
        disk.allocate(handle, 2 * SECTOR)
        disk.sync(handle)
        disk.write_at(handle, b"a" * SECTOR, 0)
        disk.sync_data(handle)
        disk.write_at(handle, b"b" * 2 * SECTOR, 0)
        disk.lose_power()
        seen.add(disk.read("/file") if "/file" in disk.names else None)
    parts = {name: name.encode() * SECTOR for name in "ab"} | {"0": bytes(SECTOR)}
    assert seen == {None, *(parts[x] + parts[y] for x in "ab" for y in "b0")}


def test_a_folder_that_is_renamed_takes_along_what_is_in_it(disk_and_folder: tuple[FaultyDisk, str]) -> None:
    disk, folder = disk_and_folder
    before, after = os.path.join(folder, "before"), os.path.join(folder, "after")
    disk.make_directory(before)
    disk.close(disk.create(f"{before}/file"))
    disk.replace(before, after)
    disk.sync_directory(folder)
    assert disk.list_directory(after) == ["file"]
    assert disk.list_directory(folder) == ["after"]
    with pytest.raises(FileNotFoundError):
        disk.list_directory(before)
