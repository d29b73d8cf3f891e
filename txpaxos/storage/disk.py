"""The one seam between the stores and the operating system: every system call of a store is a method of :class:`Disk`.

The arguments are plain (paths, integer handles, bytes), a failure is an ``OSError``, and the class neither retries nor
remembers. So a disk for tests can do the same in memory, and can fail, tear a write or crash at any call.
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
"""What a path leads to."""


class FileStatus(NamedTuple):
    """The status of a file: its kind, its permission bits, and the number of the user that owns it."""

    kind: Kind
    mode: int
    owner: int


class Disk:
    """The real disk. Files are private to the user (mode 0600, folders 0700)."""

    def make_directory(self, path: str) -> None:
        """Create one folder. FileExistsError if the name is taken."""
        os.mkdir(path, 0o700)

    def inspect(self, path: str, follow: bool = False) -> FileStatus:
        """The status of the file or folder at ``path``. FileNotFoundError if the path is absent.

        :param follow: whether to follow a symbolic link at ``path``, and give the status of its target."""
        found = os.stat(path, follow_symlinks=follow)
        kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        return FileStatus(kinds.get(stat.S_IFMT(found.st_mode), "other"), stat.S_IMODE(found.st_mode), found.st_uid)

    def user(self) -> int:
        """The number of the user that owns the files which this process creates."""
        return os.geteuid()

    def list_directory(self, path: str) -> list[str]:
        """The names in a folder, in no particular order."""
        return os.listdir(path)

    def sync_directory(self, path: str) -> None:
        """Put the names in a folder on disk: every creation, rename and removal in the folder so far."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def lock(self, path: str) -> int:
        """Create a file if it is absent, and lock it for as long as the returned handle is open.

        BlockingIOError if the file is locked already, by this process or another."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def read(self, path: str) -> bytes:
        """The bytes of a whole file. FileNotFoundError if the file is absent."""
        with open(path, "rb", buffering=0) as file:
            return file.readall()

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset`` on; fewer at its end. FileNotFoundError if the file is absent."""
        handle = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(handle, size, offset)
            while len(data) < size and (more := os.pread(handle, size - len(data), offset + len(data))):
                data += more
            return data
        finally:
            os.close(handle)

    def file_size(self, path: str) -> int:
        """The size of a file in bytes. FileNotFoundError if the file is absent."""
        return os.stat(path).st_size

    def free_bytes(self, path: str) -> int:
        """The free bytes of the disk that holds the folder ``path``, as far as this user may write them."""
        system = os.statvfs(path)
        return system.f_bavail * system.f_frsize

    def create(self, path: str) -> int:
        """Create a file, or empty an existing one, and open it. Returns a handle."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def open(self, path: str) -> int:
        """Open an existing file for writing in place. Returns a handle."""
        return os.open(path, os.O_RDWR)

    def allocate(self, handle: int, size: int) -> None:
        """Make a new, empty file ``size`` bytes of zeros long, and reserve the space on disk."""
        try:
            os.posix_fallocate(handle, 0, size)
        except (AttributeError, OSError) as error:  # no such call on this system, or not on this file system
            if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            for offset in range(0, size, 1 << 20):
                write_all(self, handle, bytes(min(1 << 20, size - offset)), offset)

    def truncate(self, handle: int, size: int) -> None:
        """Truncate a file to ``size`` bytes. The file must have at least that size."""
        os.ftruncate(handle, size)

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """Write ``data`` at ``offset`` bytes. Returns how many bytes were written, which may be fewer than given."""
        return os.pwrite(handle, data, offset)

    def sync_data(self, handle: int) -> None:
        """Put a file's bytes on disk. The size of the file must not have changed since the last :meth:`sync`."""
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
        """Close a handle, and release its lock if it has one."""
        os.close(handle)

    def replace(self, source: str, target: str) -> None:
        """Rename ``source`` to ``target`` in one step. A file that had the name ``target`` is replaced."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file. FileNotFoundError if the file is absent."""
        os.unlink(path)


def write_all(disk: Disk, handle: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``, with several writes if the system writes less than it was given.

    :raises OSError: if a write fails, or writes nothing."""
    written = disk.write_at(handle, data, offset)
    while written < len(data):
        more = disk.write_at(handle, memoryview(data)[written:], offset + written)
        if more == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written += more


def ensure_directory(disk: Disk, path: str) -> None:
    """Create a folder if it is absent, with the folders above it, and put its name on disk.

    :raises OSError: if a folder cannot be created or synced."""
    try:
        ensure_inner_directory(disk, path)
    except FileNotFoundError:
        ensure_directory(disk, os.path.dirname(path))
        ensure_inner_directory(disk, path)


def ensure_inner_directory(disk: Disk, path: str) -> None:
    """Create a folder if it is absent, and put its name on disk. The folder above must exist.

    A store that runs uses this function: if its data folder was removed, it must fail, and not go on in a new one.

    :raises OSError: if the folder cannot be created or synced; FileNotFoundError if the folder above is absent."""
    # The name of an existing folder may be in memory only: the process that created it may have crashed right here.
    with suppress(FileExistsError):
        disk.make_directory(path)
    with suppress(PermissionError):  # The folder above may belong to another user, and then it cannot be synced.
        disk.sync_directory(os.path.dirname(path))


def remove_if_there(disk: Disk, path: str) -> None:
    """Remove a file that a crash may have left behind. An absent file is no error."""
    with suppress(FileNotFoundError):
        disk.unlink(path)
