"""A disk that reads and does not write: what a start would find in a folder, found without changing the folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk

_LOCKS = "/proc/locks"


class ReadOnlyDisk(Disk):
    """The real disk, of which each change is dropped, so that a store on it reads a folder as a start would.

    Locks are not taken either: a node that runs, or starts meanwhile, is not disturbed.

    :param owner: the user that owns the folder. An operator may look at the folder of another user.
    :param hidden: files and folders that are treated as absent.
    :param added: names that each folder in ``added_in`` appears to have as well.
    :param added_in: the folder of ``added``.
    """

    def __init__(
        self, owner: int, hidden: Iterable[str] = (), added: Iterable[str] = (), added_in: str | None = None
    ) -> None:
        self._owner = owner
        self._hidden = frozenset(hidden)
        self._added = list(added)
        self._added_in = added_in

    def user(self) -> int:
        """The owner of the folder, who would start the node."""
        return self._owner

    def make_directory(self, path: str) -> None:
        """Do nothing."""

    def list_directory(self, path: str) -> list[str]:
        """The names in a folder, without those that are hidden."""
        self._refuse_hidden(path)
        names = [name for name in super().list_directory(path) if f"{path}/{name}" not in self._hidden]
        return [*names, *self._added] if path == self._added_in else names

    def sync_directory(self, path: str) -> None:
        """Do nothing, but fail as a sync does where there is no such folder."""
        self._refuse_hidden(path)
        super().list_directory(path)

    def lock(self, path: str) -> int:
        """Lock nothing. Returns a handle that means nothing, as all others of this disk."""
        return -1

    def create(self, path: str) -> int:
        """Create nothing."""
        return -1

    def open(self, path: str) -> int:
        """Open nothing."""
        return -1

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """Write nothing, and say that all was written."""
        return len(data)

    def allocate(self, handle: int, size: int) -> None:
        """Do nothing."""

    def truncate(self, handle: int, size: int) -> None:
        """Do nothing."""

    def sync_data(self, handle: int) -> None:
        """Do nothing."""

    def sync(self, handle: int) -> None:
        """Do nothing."""

    def close(self, handle: int) -> None:
        """Do nothing."""

    def replace(self, source: str, target: str) -> None:
        """Rename nothing."""

    def unlink(self, path: str) -> None:
        """Remove nothing."""

    def _refuse_hidden(self, path: str) -> None:
        if path in self._hidden:
            raise FileNotFoundError(2, os.strerror(2), path)


def process_using(directory: str) -> int | None:
    """The id of the process that uses the data folder ``directory``, 0 if that is not known; ``None`` if no process
    does.

    The system's list of locks is read, where it has one: a lock of our own, be it ever so short, could keep a node from
    starting. Elsewhere a shared lock is taken for an instant.

    :raises StoreError: if the file of the lock cannot be read.
    """
    path = f"{directory}/lock"
    try:
        if os.path.exists(_LOCKS):
            return _locked_by(path)
        return 0 if _is_locked(path) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; run this as the user of the node") from None


def _locked_by(path: str) -> int | None:
    lock = os.stat(path)
    for pid, inode in _locks():
        if _has_open(pid, lock) or (inode == lock.st_ino and not os.access(f"/proc/{pid}/fd", os.R_OK)):
            return pid
    return None


def _locks() -> Iterator[tuple[int, int]]:
    """The process and the inode of each lock of a whole file that the system knows."""
    with open(_LOCKS) as file:
        for line in file:
            fields = line.replace("->", "").split()
            if len(fields) > 5 and fields[1] == "FLOCK":
                yield int(fields[4]), int(fields[5].rpartition(":")[2])


def _has_open(pid: int, file: os.stat_result) -> bool:
    """Whether the process ``pid`` has ``file`` open, as far as this user may know."""
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), file):
                    return True
    return False


def _is_locked(path: str) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
