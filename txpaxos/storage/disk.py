"""The one seam between the stores and the operating system: every system call they make is a method of :class:`Disk`.

Plain arguments (paths, integer handles, bytes), ``OSError`` where something fails, nothing retried and nothing
remembered, so that a disk for tests can do the same in memory, and fail, tear or crash at any call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, where fsync stops at the drive's own cache


Kind: TypeAlias = Literal["file", "folder", "link", "other"]


class FileStatus(NamedTuple):
    """What a name stands for: its kind, its permission bits, and the number of the user it belongs to."""

    kind: Kind
    mode: int
    owner: int


class Disk:
    """The real disk. Files are private to the user (mode 0600, folders 0700)."""

    def make_directory(self, path: str) -> None:
        """Create one folder. FileExistsError if something has that name."""
        os.mkdir(path, 0o700)

    def inspect(self, path: str, follow: bool = False) -> FileStatus:
        """What something is, and whose. FileNotFoundError if it is absent.

        :param follow: if it is a symbolic link, tell of what it points to."""
        found = os.stat(path, follow_symlinks=follow)
        kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        return FileStatus(kinds.get(stat.S_IFMT(found.st_mode), "other"), stat.S_IMODE(found.st_mode), found.st_uid)

    def user(self) -> int:
        """The number of the user whom what this process makes belongs to."""
        return os.geteuid()

    def list_directory(self, path: str) -> list[str]:
        """The names in a folder, in no particular order."""
        return os.listdir(path)

    def sync_directory(self, path: str) -> None:
        """Put the names in a folder on disk: what was created, renamed and removed in it."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def lock(self, path: str) -> int:
        """Create a file if it is absent and lock it for as long as the returned handle is open.

        BlockingIOError if it is locked already, by this process or another."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def read(self, path: str) -> bytes:
        """A whole file. FileNotFoundError if it is absent."""
        with open(path, "rb", buffering=0) as file:
            return file.readall()

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset`` on, or those up to its end. FileNotFoundError if it is absent."""
        handle = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(handle, size, offset)
            while len(data) < size and (more := os.pread(handle, size - len(data), offset + len(data))):
                data += more
            return data
        finally:
            os.close(handle)

    def file_size(self, path: str) -> int:
        """How many bytes a file has. FileNotFoundError if it is absent."""
        return os.stat(path).st_size

    def free_bytes(self, path: str) -> int:
        """How many bytes may still be written on the disk that holds the folder ``path``."""
        system = os.statvfs(path)
        return system.f_bavail * system.f_frsize

    def create(self, path: str) -> int:
        """Create a file, or empty the one that is there, and open it. Returns a handle."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def open(self, path: str) -> int:
        """Open a file that is there for writing in place. Returns a handle."""
        return os.open(path, os.O_RDWR)

    def allocate(self, handle: int, size: int) -> None:
        """Make a new, empty file ``size`` bytes of zeros long, with the space for them set aside."""
        try:
            os.posix_fallocate(handle, 0, size)
        except (AttributeError, OSError) as error:  # no such call on this system, or not on this file system
            if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            for offset in range(0, size, 1 << 20):
                write_all(self, handle, bytes(min(1 << 20, size - offset)), offset)

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file off after ``size`` bytes, of which it has as many."""
        os.ftruncate(handle, size)

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """Write at ``offset`` bytes. Returns how many bytes were written, which may be fewer than given."""
        return os.pwrite(handle, data, offset)

    def sync_data(self, handle: int) -> None:
        """Put a file's bytes on disk. Its size must not have changed."""
        if _FULL_SYNC is None:
            os.fdatasync(handle)
        else:
            self.sync(handle)

    def sync(self, handle: int) -> None:
        """Put a file's bytes and its size on disk."""
        if _FULL_SYNC is None:
            os.fsync(handle)
        else:
            fcntl.fcntl(handle, _FULL_SYNC)

    def close(self, handle: int) -> None:
        """Close a handle (and drop the lock it holds)."""
        os.close(handle)

    def replace(self, source: str, target: str) -> None:
        """Rename ``source`` to ``target``, in one step, over whatever had that name."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file. FileNotFoundError if it is absent."""
        os.unlink(path)


def write_all(disk: Disk, handle: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``, however short each single write is."""
    written = disk.write_at(handle, data, offset)
    while written < len(data):
        more = disk.write_at(handle, memoryview(data)[written:], offset + written)
        if more == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written += more


def ensure_directory(disk: Disk, path: str) -> None:
    """Create a folder if it is absent, with those above it, and put its name on disk."""
    try:
        ensure_inner_directory(disk, path)
    except FileNotFoundError:
        ensure_directory(disk, os.path.dirname(path))
        ensure_inner_directory(disk, path)


def ensure_inner_directory(disk: Disk, path: str) -> None:
    """The same, of a folder in one that must be there: FileNotFoundError if it is not. What a store goes on in must be
    what it has opened, and not a new one in its place."""
    with suppress(FileExistsError):  # its name may still be in memory only: whoever made it may have crashed here
        disk.make_directory(path)
    with suppress(PermissionError):  # the folder above may be somebody else's, closed to us; then so is its sync
        disk.sync_directory(os.path.dirname(path))


def remove_if_there(disk: Disk, path: str) -> None:
    """Remove a file that a crash may have left behind."""
    with suppress(FileNotFoundError):
        disk.unlink(path)
