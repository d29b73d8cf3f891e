"""Writes keys: complete or not at all, for the own user only, and never over a private key that is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from txpaxos.errors import ConfigError

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files. It has all of them when it appears.

    :raises ConfigError: if there is something else than an empty folder at ``target``.
    """
    refuse_what_is_there(target)
    with _unfinished(target, files) as made:
        os.rename(made, target)
        _sync_folder(target.absolute().parent)


def replace_folder(target: Path, files: Mapping[str, bytes]) -> Path:
    """Put a new folder in the place of ``target``, which is moved away. It belongs to the same user.

    :returns: where the earlier folder is now.
    :raises ConfigError: if there is something in that place.
    """
    before = refuse_leftovers(target)
    with _unfinished(target, files, target) as made:
        os.rename(target, before)
        os.rename(made, target)
        _sync_folder(target.absolute().parent)
    return before


def refuse_leftovers(target: Path) -> Path:
    """Refuse to replace a folder of which an earlier one is still there.

    :returns: where the folder that is replaced goes.
    :raises ConfigError: if there is something."""
    before = target.with_name(f"{target.name}.before")
    if os.path.lexists(before):
        raise ConfigError(f"{before} is there already: remove it when no node or client needs it any more")
    return before


def write_file(path: Path, data: bytes, replace: bool = True) -> None:
    """Write a file, which has all of ``data`` when it appears. It belongs to the owner of its folder.

    :param replace: whether it may be there already.
    :raises ConfigError: if it is there, and may not be.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # It has mode 0600.
    try:
        with os.fdopen(handle, "wb") as file:
            _write_all(file.fileno(), path, data)
        _give_to_owner_of(path.parent, temporary)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
        _sync_folder(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} is there already, and is never overwritten") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def refuse_what_is_there(target: Path) -> None:
    """Refuse to write where there is something.

    :raises ConfigError: if ``target`` is there, and is not an empty folder, or if the folder above it is not there.
    """
    if target.is_dir() and not target.is_symlink():
        if any(target.iterdir()):
            raise ConfigError(f"{target} is there already, and keys are never overwritten: name another folder")
    elif os.path.lexists(target):
        raise ConfigError(f"{target} is there already, and is not an empty folder: name another one")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"the folder {target.absolute().parent} is missing: make it first")


@contextmanager
def _unfinished(target: Path, files: Mapping[str, bytes], earlier: Path | None = None) -> Iterator[str]:
    """A folder beside ``target``, with these files. What is not moved away is removed.

    :param earlier: a folder to whose owner it is given."""
    made = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent)  # It has mode 0700.
    try:
        for name, data in files.items():
            handle = os.open(os.path.join(made, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            try:
                _write_all(handle, target / name, data)
            finally:
                os.close(handle)
        if earlier is not None:
            _give_to_owner_of(earlier, made, *(os.path.join(made, name) for name in files))
        _sync_folder(Path(made))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _give_to_owner_of(folder: Path, *paths: str) -> None:
    """Give what root has written to the owner of ``folder``: a node that runs as another user has to read it."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)


def _write_all(handle: int, path: Path, data: bytes) -> None:
    """Write all of ``data``. An error names ``path``, which is what it becomes: a full disk names nothing."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
