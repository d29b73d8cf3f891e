"""Who else may change a data folder: nobody. A start refuses one in which others could have changed something.

Whoever can write in a data folder can make its node say anything. So can whoever owns a file in it, or the place where
a symbolic link in it points. The folder itself may be reached by a link: its place is the operator's choice.
"""

from __future__ import annotations

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk, FileStatus
from txpaxos.storage.messages import os_errors

_STORE_NAMES = (
    *("acknowledged", "application", "diverged", "identity", "journal", "lock", "probe", "snapshots", "subjects"),
)
"""The names that a store uses. Others in its folder, like ``lost+found``, are somebody else's, and not looked at."""

_OTHERS_WRITE = 0o022


def refuse_foreign_access(disk: Disk, directory: str) -> None:
    """Refuse ``directory`` if another user may write in it, owns it, or if there is a symbolic link in it; the same
    for each file and folder in it that the store uses.

    :raises StoreError: with the one that is wrong, and what to do."""
    with os_errors("read", directory):
        try:
            top = disk.inspect(directory, True)
        except FileNotFoundError:
            return  # It was made just now, and is gone: what comes next says so.
        if top.kind != "folder":
            return  # What comes next says so.
        _check(disk, directory, directory, top)
        for name in sorted(disk.list_directory(directory)):
            if name.removesuffix(".new") in _STORE_NAMES:
                _check_all(disk, f"{directory}/{name}", directory)


def _check_all(disk: Disk, path: str, directory: str) -> None:
    """Check what is at ``path``, and in it."""
    status = disk.inspect(path)
    _check(disk, path, directory, status)
    if status.kind == "folder":
        for name in sorted(disk.list_directory(path)):
            _check_all(disk, f"{path}/{name}", directory)


def _check(disk: Disk, path: str, directory: str, status: FileStatus) -> None:
    user = disk.user()
    if status.kind == "link":
        raise StoreError(
            f"{path} is a symbolic link, and a data folder has none in it: put in its place what it points to, or start"
            f" with a data folder that is there"
        )
    if status.owner != user:
        raise StoreError(
            f"{path} belongs to user {status.owner}, and this process runs as user {user}: run it as the owner of the"
            f" data folder, or, if nobody else has changed anything in there, 'chown -R {user} {directory}'"
        )
    if status.mode & _OTHERS_WRITE:
        raise StoreError(
            f"{path} may be written by other users (mode {status.mode:04o}): if nobody else has changed anything in"
            f" there, 'chmod -R go-w {directory}', then start the node again"
        )
