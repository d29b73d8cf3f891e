"""The states of the registers: one atomic file per register, named after the SHA-256 of its name.

The files are spread over 256 folders, so that no folder grows too long:
``subjects/<first two hex digits>/<the other 62>``. The mark (:mod:`~txpaxos.storage.acknowledged`) holds their number
and names, so that a start notices when a file is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from txpaxos.core.ready import SubjectState
from txpaxos.storage.acknowledged import Mark
from txpaxos.storage.atomic_file import TEMPORARY, AtomicFile
from txpaxos.storage.disk import Disk, ensure_inner_directory
from txpaxos.storage.messages import damaged, os_errors
from txpaxos.storage.records import decode, encode


class RegisterFiles:
    """The files of all registers under ``directory``, which exists. Call :meth:`read` first.

    :param on_created: called when the first state of a register is on disk, with the SHA-256 of its name, as a number.
    """

    def __init__(self, disk: Disk, directory: str, on_created: Callable[[int], None] = lambda name: None) -> None:
        self._disk = disk
        self._on_created = on_created
        self._directory = directory
        self._folders: set[str] = set()
        self._files: dict[str, AtomicFile] = {}

    def exist(self) -> bool:
        """Whether any register has a file."""
        return any(
            not name.endswith(TEMPORARY) for folder in self._list() for name in self._disk.list_directory(folder)
        )

    @property
    def names(self) -> tuple[int, int]:
        """How many registers have a file, and the exclusive or of the SHA-256 of their names."""
        names = 0
        for file in self._files.values():
            names ^= _name(file.path)
        return len(self._files), names

    def read(self, acknowledged: Mark | None = None) -> list[SubjectState]:
        """Read the state of each register, in the order of their names. The states are on disk when this returns.

        :param acknowledged: the mark that says which files must be there; ``None`` in a folder without one.
        :raises StoreError: if a file is missing or damaged, or cannot be read."""
        states: dict[str, SubjectState] = {}
        with os_errors("read", self._directory):
            self._disk.sync_directory(self._directory)
            for folder in self._list():
                self._disk.sync_directory(folder)
                self._folders.add(folder)
                names = {name.removesuffix(TEMPORARY) for name in self._disk.list_directory(folder)}
                for name in names:
                    file = AtomicFile(self._disk, f"{folder}/{name}")
                    payload = file.read(sync_folder=False)
                    if payload is not None:
                        state = self._decode(payload, file.path)
                        states[state.subject] = state
                        self._files[state.subject] = file
        if acknowledged is not None:
            self._refuse_missing(acknowledged)
        return [states[subject] for subject in sorted(states)]

    def write(self, state: SubjectState) -> None:
        """Replace the state of one register. The new state is on disk when this returns.

        :raises StoreError: if that fails."""
        file = self._files.get(state.subject)
        if file is None:
            file = self._files[state.subject] = AtomicFile(self._disk, self._path(state.subject))
            file.serial = 0  # The file does not exist, or read() would have found it.
            folder = file.path.rpartition("/")[0]
            if folder not in self._folders:
                with os_errors("create", folder):
                    ensure_inner_directory(self._disk, folder)
                self._folders.add(folder)
        is_new = not file.serial
        file.write(encode((state,)))
        if is_new:
            self._on_created(_name(file.path))

    def _refuse_missing(self, acknowledged: Mark) -> None:
        """Refuse files that differ from those acknowledged. One more is allowed: the process before may have ended
        between creating it and the acknowledgement.

        :raises StoreError: if a file is missing."""
        count, names = self.names
        if count == acknowledged.subjects + 1:
            newest = names ^ acknowledged.names
            if any(_name(file.path) == newest for file in self._files.values()):
                return
        if (count, names) != (acknowledged.subjects, acknowledged.names):
            what = f"of {acknowledged.subjects} subjects' files at least one is missing ({count} are here)"
            raise damaged(self._directory, 0, what)

    def _list(self) -> list[str]:
        """The folders that hold the registers' files."""
        names = self._disk.list_directory(self._directory)
        return [f"{self._directory}/{name}" for name in sorted(names) if len(name) == 2]

    def _path(self, subject: str) -> str:
        digest = hashlib.sha256(subject.encode()).hexdigest()
        return f"{self._directory}/{digest[:2]}/{digest[2:]}"

    def _decode(self, payload: bytes, path: str) -> SubjectState:
        try:
            (state,) = decode(payload)
        except ValueError as error:
            raise damaged(path, 0, f"this is no state of a subject ({error})") from None
        if not isinstance(state, SubjectState) or self._path(state.subject) != path:
            raise damaged(path, 0, "this is not the state of the subject that the file is named after")
        return state


def _name(path: str) -> int:
    """The SHA-256 of the name of the register whose file is at ``path``, as a number."""
    _, folder, rest = path.rsplit("/", 2)
    return int(folder + rest, 16)
