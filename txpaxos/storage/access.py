"""Only the node's own user may change a data folder. A start refuses a folder that other users could have changed.

A user who can write in a data folder can make its node say anything. So can a user who owns a file in the folder, or
the target of a symbolic link in it. The path of the folder itself may contain a link, since the operator chose it.
"""

from __future__ import annotations

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk, FileStatus
from txpaxos.storage.messages import os_errors

STORE_NAMES = frozenset(
    (
        *("acknowledged", "application", "diverged", "identity", "journal", "lock", "membership"),
        *("probe", "removed", "restored", "snapshots", "subjects"),
    )
)
"""The names that a store uses. Other names in the folder, like ``lost+found``, are not checked."""

_OTHERS_WRITE = 0o022
"""The permission bits with which the group or all other users may write."""


def refuse_foreign_access(disk: Disk, directory: str) -> None:
    """Refuse ``directory`` if another user owns it or may write in it. Check each file and folder in it that the store
    uses in the same way, and refuse symbolic links among them.

    :raises StoreError: with the path that is wrong, and what to do."""
    with os_errors("read", directory):
        try:
            top = disk.inspect(directory, True)
        except FileNotFoundError:
            return  # The folder was removed a moment ago. The next step of the start fails, with a clear error.
        if top.kind != "folder":
            return  # The next step of the start fails, with a clear error.
        _check(disk, directory, directory, top)
        for name in sorted(disk.list_directory(directory)):
            if name.removesuffix(".new") in STORE_NAMES:
                _check_all(disk, f"{directory}/{name}", directory)


def _check_all(disk: Disk, path: str, directory: str) -> None:
    """Check the file or folder at ``path``, and all that is in the folder."""
    status = disk.inspect(path)
    _check(disk, path, directory, status)
    if status.kind == "folder":
        for name in sorted(disk.list_directory(path)):
            _check_all(disk, f"{path}/{name}", directory)


def _check(disk: Disk, path: str, directory: str, status: FileStatus) -> None:
    user = disk.user()
    if status.kind == "link":
        raise StoreError(
            f"{path} is a symbolic link, and a data folder may not contain one: replace the link by its target, or use"
            f" the data folder that the link points to"
        )
    if status.owner != user:
        raise StoreError(
            f"{path} belongs to user {status.owner}, and this process runs as user {user}: run it as the owner of the"
            f" data folder, or, if no other user has changed anything in there, 'chown -R {user} {directory}'"
        )
    if status.mode & _OTHERS_WRITE:
        raise StoreError(
            f"{path} may be written by other users (mode {status.mode:04o}): if no other user has changed anything in"
            f" there, 'chmod -R go-w {directory}', then start the node again"
        )
