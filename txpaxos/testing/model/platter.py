"""A disk in memory that knows, after each system call, everything that a power cut may leave of it.

The simulator's disk (:mod:`txpaxos.testing.simulator.disk`) draws one of these outcomes at random. Here they are all of
them, with two exceptions. Of several writes that were not synced only the last may be torn, in its middle, and those
before it are complete. A file with a temporary name is never kept, since a start removes it unread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, product
from typing import TypeAlias

import attrs

from txpaxos.storage.atomic_file import TEMPORARY
from txpaxos.storage.disk import Disk, FileStatus

_OF_CONTENT = ("allocate", "truncate", "write", "sync of")
USER = 1
"""The id of the user who owns everything."""

Platter: TypeAlias = tuple[tuple[str, bytes | None], ...]
"""The content of a disk at a start: the path of every folder (with ``None``) and file (with its bytes), in order."""


@attrs.frozen
class File:
    """A file: as processes see it, as it was last synced, and with the last write since then in part."""

    seen: bytes = b""
    durable: bytes = b""
    torn: bytes | None = None

    def outcomes(self, name: str, sure: str = "") -> tuple[bytes, ...]:
        """The contents that a power cut may leave. Writes to the file called ``sure`` are kept."""
        if name == sure:
            return (self.seen,)
        if name.endswith(TEMPORARY):
            return (b"",)
        if self.seen == self.durable:
            return (self.durable,)
        known = (self.durable, self.seen) if self.torn is None else (self.durable, self.torn, self.seen)
        return tuple(dict.fromkeys(known))


Names: TypeAlias = Mapping[str, File | None]


class Folder:
    """A folder: its names as processes see them, and as they were at each change since its last sync. ``None`` is a
    folder in it. A Folder is never changed, only replaced."""

    __slots__ = ("_outcomes", "past", "path", "seen")
    NEVER_CHANGES = True

    def __init__(self, path: str, seen: Names, past: tuple[Names, ...] = ()) -> None:
        self.path = path
        self.seen = seen
        self.past = past
        self._outcomes: list[tuple[Names, Platter]] = []

    def outcomes(self, sure: str) -> list[tuple[Names, Platter]]:
        """The contents of the folder and its files that a power cut may leave."""
        if not self._outcomes:
            known = [self.seen]
            known += [names for names in self.past if names not in known]
            self._outcomes = [(names, platter) for names in known for platter in self._contents(names, sure)]
        return self._outcomes

    def forget(self) -> None:
        """Do not keep :meth:`outcomes`."""
        self._outcomes = []

    def platter(self, names: Names, contents: Iterable[bytes]) -> Platter:
        """The folder and its files, with these contents."""
        above = self.path.rstrip("/")
        paths = [f"{above}/{name}" for name in sorted(names) if names[name]]
        return ((self.path, None), *zip(paths, contents, strict=True))

    def _contents(self, names: Names, sure: str) -> Iterator[Platter]:
        files = [(name, file) for name, file in sorted(names.items()) if file]
        for contents in product(*[file.outcomes(name, sure) for name, file in files]):
            yield self.platter(names, contents)


class PlatterDisk(Disk):
    """The system calls of :class:`~txpaxos.storage.disk.Disk`, in memory.

    Only the entries of its dictionaries change, so that a copy of those is a copy of the disk.

    :param platter: the content when the process starts.
    :param sure: the name of a file that counts as synced after each write.
    :ivar calls: while this is a dictionary, every platter that a power cut may leave is added to it, with the first
        system call after which it may.
    """

    def __init__(self, platter: Platter = (("/", None),), sure: str = "") -> None:
        self._sure = sure
        self.calls: dict[Platter, str] | None = None
        self._folders: dict[str, Folder] = {}
        self._handles: dict[int, str] = {}
        self._locks: dict[int, str] = {}
        self._next_handle = 3
        for path, data in platter:
            above, name = _split(path)
            if data is None:
                self._folders[path] = Folder(path, {})
            if name:
                entry = None if data is None else File(data, data)
                self._folders[above] = Folder(above, {**self._folders[above].seen, name: entry})

    def platters(self) -> list[Platter]:
        """Every platter that a power cut may leave now."""
        folders = [self._folders[path] for path in sorted(self._folders)]
        found = []
        changed = any(folder.past for folder in folders)
        for outcomes in product(*[folder.outcomes(self._sure) for folder in folders]):
            if not changed:
                found.append(tuple(chain.from_iterable([platter for _, platter in outcomes])))
                continue
            names = {folder.path: names for folder, (names, _) in zip(folders, outcomes, strict=True)}
            standing = [platter for path, (_, platter) in zip(names, outcomes, strict=True) if _stands(path, names)]
            found.append(tuple(chain.from_iterable(standing)))
        return found

    def rest(self) -> None:
        """Forget what can be computed again: the disk will not be used for a while."""
        for folder in self._folders.values():
            folder.forget()

    def seen(self) -> Platter:
        """The content that processes see now."""
        folders = [self._folders[path] for path in sorted(self._folders)]
        files = [[file.seen for _, file in sorted(folder.seen.items()) if file] for folder in folders]
        parts = [folder.platter(folder.seen, contents) for folder, contents in zip(folders, files, strict=True)]
        return tuple(chain.from_iterable(parts))

    # system calls

    def make_directory(self, path: str) -> None:
        above, name = _split(path)
        if name in self._folder(above).seen:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._folders[path] = Folder(path, {})
        self._change(above, {**self._folders[above].seen, name: None})
        self._called("mkdir", path)

    def inspect(self, path: str, follow: bool = False) -> FileStatus:
        above, name = _split(path)
        if self._folder(above).seen[name] is None:
            return FileStatus("folder", 0o700, USER)
        return FileStatus("file", 0o600, USER)

    def user(self) -> int:
        return USER

    def list_directory(self, path: str) -> list[str]:
        return sorted(self._folder(path).seen)

    def sync_directory(self, path: str) -> None:
        seen = self._folder(path).seen
        for gone in {name for names in self._folders[path].past for name in names} - set(seen):
            self._folders.pop(f"{path.rstrip('/')}/{gone}", None)
        self._folders[path] = Folder(path, seen)
        self._called("sync of", path)

    def lock(self, path: str) -> int:
        if path in self._locks.values():
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)
        above, name = _split(path)
        folder = self._folder(above)
        if name not in folder.seen:
            # An empty file that is never looked up: it may as well have been there from the beginning.
            past = tuple({**names, name: File()} for names in folder.past)
            self._folders[above] = Folder(above, {**folder.seen, name: File()}, past)
        handle = self._handle(path)
        self._locks[handle] = path
        return handle

    def read(self, path: str) -> bytes:
        return self._file(path).seen

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        return self._file(path).seen[offset : offset + size]

    def file_size(self, path: str) -> int:
        return len(self._file(path).seen)

    def create(self, path: str) -> int:
        above, name = _split(path)
        self._change(above, {**self._folder(above).seen, name: File()})
        self._called("create", path)
        return self._handle(path)

    def open(self, path: str) -> int:
        self._file(path)
        return self._handle(path)

    def allocate(self, handle: int, size: int) -> None:
        self._put(handle, File(bytes(size), self._file(self._handles[handle]).durable))
        self._called("allocate", self._handles[handle])

    def truncate(self, handle: int, size: int) -> None:
        file = self._file(self._handles[handle])
        self._put(handle, File(file.seen[:size], file.durable))
        self._called("truncate", self._handles[handle])

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        file = self._file(self._handles[handle])
        data = bytes(data)
        torn, seen = _write(file.seen, offset, data[: len(data) // 2]), _write(file.seen, offset, data)
        self._put(handle, File(seen, file.durable, torn))
        self._called("write", self._handles[handle])
        return len(data)

    def sync_data(self, handle: int) -> None:
        seen = self._file(self._handles[handle]).seen
        self._put(handle, File(seen, seen))
        self._called("sync of", self._handles[handle])

    def sync(self, handle: int) -> None:
        self.sync_data(handle)

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)
        self._locks.pop(handle, None)

    def replace(self, source: str, target: str) -> None:
        (above, old), (target_above, new) = _split(source), _split(target)
        assert above == target_above, (source, target)
        seen = dict(self._folder(above).seen)
        if old not in seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        seen[new] = seen.pop(old)
        if source in self._folders:
            folder = self._folders[source]  # The old name is kept, in case the new name is lost.
            self._folders[target] = Folder(target, folder.seen, folder.past)
        self._handles = {handle: target if path == source else path for handle, path in self._handles.items()}
        self._change(above, seen)
        self._called("rename", target)

    def unlink(self, path: str) -> None:
        self._file(path)
        above, name = _split(path)
        self._change(above, {other: file for other, file in self._folders[above].seen.items() if other != name})
        self._called("unlink", path)

    # inside

    def _called(self, call: str, path: str) -> None:
        if self.calls is not None and not (path.endswith(TEMPORARY) and call in _OF_CONTENT):
            for platter in self.platters():
                self.calls.setdefault(platter, f"{call} {path}")

    def _handle(self, path: str) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = path
        return self._next_handle

    def _folder(self, path: str) -> Folder:
        folder = self._folders.get(path)
        above, name = _split(path)
        if folder is None or (name and name not in self._folders[above].seen):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return folder

    def _file(self, path: str) -> File:
        above, name = _split(path)
        file = self._folder(above).seen.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file

    def _put(self, handle: int, file: File) -> None:
        """Change a file's bytes, under every name that a power cut may give it."""
        file = File(_same(file.seen), _same(file.durable), file.torn and _same(file.torn))
        above, name = _split(self._handles[handle])
        folder = self._folders[above]
        old = folder.seen[name]

        def changed(names: Names) -> Names:
            return {other: file if one is old else one for other, one in names.items()}

        self._folders[above] = Folder(above, changed(folder.seen), tuple(changed(names) for names in folder.past))

    def _change(self, path: str, seen: Names) -> None:
        folder = self._folders[path]
        self._folders[path] = Folder(path, seen, (*folder.past, folder.seen))


def _stands(path: str, folders: Mapping[str, Names]) -> bool:
    """Whether a folder and those above it have their names."""
    above, name = _split(path)
    return not name or (name in folders.get(above, {}) and _stands(above, folders))


def _split(path: str) -> tuple[str, str]:
    """The folder above, and the name in it."""
    above, _, name = path.rpartition("/")
    return above or "/", name


_KNOWN: dict[bytes, bytes] = {}


def _same(data: bytes) -> bytes:
    """One object for all equal bytes: there are far more disks than different contents of files."""
    return _KNOWN.setdefault(data, data)


def _write(old: bytes, offset: int, data: bytes) -> bytes:
    return old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
