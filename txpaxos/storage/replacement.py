"""The contents of a data folder, replaced as a whole: after a crash the folder holds the old ones or the new ones.

A folder cannot be renamed over another one that is not empty, and a data folder may be the root of a volume. So the new
contents are prepared inside of it, and moved into place name by name. The steps:

1. The folder ``recovery`` in the data folder gets the new contents: a whole data folder. Then a file ``ready`` in it.
   Until now the old contents count.
2. The marker, the file ``recovering`` in the data folder, is written in one step. From now on the new contents count.
3. The old files are moved to ``before-recovery.NONCE``, the new ones into their place, and the marker is removed.

A process that opens the folder after a crash in step 3, a start of the node included, goes on with that step first
(:func:`finish_replacement`). Each move is made only where it was not made before, so a second crash does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Collection

import attrs
import msgspec

from txpaxos.errors import StoreError
from txpaxos.storage.access import STORE_NAMES
from txpaxos.storage.atomic_file import TEMPORARY, AtomicFile
from txpaxos.storage.discarded import DISCARDED, REPLACED
from txpaxos.storage.disk import Disk, ensure_inner_directory, remove_if_there, write_all
from txpaxos.storage.messages import damaged, os_errors

PREPARED = "recovery"
"""The folder of new contents, in the data folder."""
MARKER = "recovering"
"""The file that says that the new contents count."""
SET_ASIDE = "before-recovery"
"""The beginning of the name of the folder with the old contents. A dot and a nonce follow."""

_READY = "ready"
_STAYS = frozenset(("lock", "probe"))


@attrs.frozen
class _Marker:
    """What the marker holds.

    :ivar nonce: the end of the name of the folder for the old contents.
    :ivar names: the names of the new contents.
    """

    nonce: str
    names: tuple[str, ...]


def prepared_path(directory: str) -> str:
    """Where the new contents of the data folder ``directory`` are prepared."""
    return f"{directory}/{PREPARED}"


def note_ready(disk: Disk, directory: str, nonce: str) -> None:
    """Note that the new contents of ``directory`` are complete, and belong to ``nonce``.

    :raises StoreError: if that cannot be written."""
    AtomicFile(disk, f"{directory}/{PREPARED}/{_READY}").write(nonce.encode())


def ready_nonce(disk: Disk, directory: str) -> str:
    """The nonce of the complete new contents that are prepared in ``directory``; empty if there are none.

    :raises StoreError: if the folder cannot be read, or the file that says so is damaged."""
    with os_errors("read", directory):
        if PREPARED not in disk.list_directory(directory):
            return ""
    payload = AtomicFile(disk, f"{directory}/{PREPARED}/{_READY}").read()
    return "" if payload is None else payload.decode()


def replace_contents(disk: Disk, directory: str) -> None:
    """Have the prepared contents of ``directory`` take the place of the old ones. The caller holds the folder's lock.

    :raises StoreError: if they are not complete, or a system call fails. After a failure the next start goes on."""
    nonce = ready_nonce(disk, directory)
    if not nonce:
        raise StoreError(f"{directory}/{PREPARED} is not complete: nothing was changed")
    with os_errors("read", directory):
        names = tuple(sorted(set(disk.list_directory(f"{directory}/{PREPARED}")) & STORE_NAMES - _STAYS))
    AtomicFile(disk, f"{directory}/{MARKER}").write(msgspec.msgpack.encode(_Marker(nonce, names)))
    finish_replacement(disk, directory)


def finish_replacement(disk: Disk, directory: str) -> bool:
    """Go on with a replacement that was begun, if there is one. The caller holds the folder's lock.

    :returns: whether there was one. The contents of the folder are the new ones then.
    :raises StoreError: if the marker is damaged, or a system call fails."""
    file = AtomicFile(disk, f"{directory}/{MARKER}")
    with os_errors("read", directory):
        if MARKER not in disk.list_directory(directory):
            return False
    try:
        marker = msgspec.msgpack.decode(file.read() or b"", type=_Marker)
    except ValueError as error:
        raise damaged(file.path, 0, f"this is no marker of a recovery ({error})") from None
    with os_errors("replace the contents of", directory):
        _move_old(disk, directory, marker)
        _move_new(disk, directory, marker.names)
        if PREPARED in disk.list_directory(directory):
            disk.replace(f"{directory}/{PREPARED}", f"{directory}/{SET_ASIDE}.{marker.nonce}/{PREPARED}")
        disk.sync_directory(f"{directory}/{SET_ASIDE}.{marker.nonce}")
        disk.sync_directory(directory)
        remove_if_there(disk, file.path)
        disk.sync_directory(directory)
    return True


def _move_old(disk: Disk, directory: str, marker: _Marker) -> None:
    """Move the old files away: a file is old as long as its successor was not moved into its place."""
    aside = f"{directory}/{SET_ASIDE}.{marker.nonce}"
    ensure_inner_directory(disk, aside)
    waiting, moved = _prepared(disk, directory), disk.list_directory(aside)
    for name in filter(_is_of_store, sorted(disk.list_directory(directory))):
        source, target = f"{directory}/{name}", f"{aside}/{name}"
        if disk.inspect(source).kind == "folder":
            if name in waiting or name not in marker.names:
                disk.replace(source, target)
        elif name not in moved:
            _copy(disk, source, target)
    disk.sync_directory(aside)
    for name in filter(_is_of_store, disk.list_directory(directory)):
        if name not in marker.names:
            remove_if_there(disk, f"{directory}/{name}")
    disk.sync_directory(directory)


def _move_new(disk: Disk, directory: str, names: Collection[str]) -> None:
    """Move the new files into their place."""
    waiting = _prepared(disk, directory)
    for name in filter(waiting.__contains__, names):
        source, target = f"{directory}/{PREPARED}/{name}", f"{directory}/{name}"
        if disk.inspect(source).kind == "folder":
            disk.replace(source, target)
        else:
            _copy(disk, source, target)
    disk.sync_directory(directory)
    if waiting:
        disk.sync_directory(f"{directory}/{PREPARED}")


def _copy(disk: Disk, source: str, target: str) -> None:
    """Copy a small file. A rename to another folder is two changes for some file systems, and a crash between them
    could lose the file; that of a folder is one."""
    temporary = target + TEMPORARY
    handle = disk.create(temporary)
    try:
        write_all(disk, handle, disk.read(source), 0)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.replace(temporary, target)
    disk.sync_directory(os.path.dirname(target))


def _prepared(disk: Disk, directory: str) -> set[str]:
    """The new files that are not in their place yet."""
    if PREPARED not in disk.list_directory(directory):
        return set()  # A crash came between the last move and the removal of the marker.
    return set(disk.list_directory(f"{directory}/{PREPARED}"))


def _is_of_store(name: str) -> bool:
    return (name in STORE_NAMES and name not in _STAYS) or name.startswith((DISCARDED, REPLACED))
