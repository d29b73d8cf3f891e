"""The states of the registers of earlier releases: one atomic file per register, named after the SHA-256 of its name.

This release reads the files and writes none. They are removed when what they hold is in the log.

The files are spread over 256 folders, so that no folder grows too long:
``subjects/<first two hex digits>/<the other 62>``. The mark (:mod:`~txpaxos.storage.acknowledged`) holds their number
and names, so that a start notices when a file is gone.
"""

from __future__ import annotations

import hashlib

from txpaxos.core.ready import SubjectState
from txpaxos.storage.acknowledged import Mark
from txpaxos.storage.atomic_file import TEMPORARY, AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.messages import damaged, os_errors
from txpaxos.storage.records import decode


class RegisterFiles:
    """The files of all registers under ``directory``, which exists. Call :meth:`read` first."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
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
            names ^= name_of(file.path)
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

    def remove(self) -> None:
        """Remove the files of all registers, which are not needed any more.

        :raises StoreError: if a file cannot be removed."""
        with os_errors("remove", self._directory):
            for folder in self._list():
                for name in self._disk.list_directory(folder):
                    self._disk.unlink(f"{folder}/{name}")
        self._files.clear()

    def _refuse_missing(self, acknowledged: Mark) -> None:
        """Refuse files that differ from those acknowledged. One more is allowed: the process before may have ended
        between creating it and the acknowledgement.

        :raises StoreError: if a file is missing."""
        count, names = self.names
        if count == acknowledged.subjects + 1:
            newest = names ^ acknowledged.names
            if any(name_of(file.path) == newest for file in self._files.values()):
                return
        if (count, names) != (acknowledged.subjects, acknowledged.names):
            what = f"of {acknowledged.subjects} subjects' files at least one is missing ({count} are here)"
            raise damaged(self._directory, 0, what)

    def _list(self) -> list[str]:
        """The folders that hold the registers' files; none in a folder that never had registers."""
        try:
            names = self._disk.list_directory(self._directory)
        except FileNotFoundError:
            return []
        return [f"{self._directory}/{name}" for name in sorted(names) if len(name) == 2]

    def _decode(self, payload: bytes, path: str) -> SubjectState:
        try:
            (state,) = decode(payload)
        except ValueError as error:
            raise damaged(path, 0, f"this is no state of a subject ({error})") from None
        if not isinstance(state, SubjectState) or path_of(self._directory, state.subject) != path:
            raise damaged(path, 0, "this is not the state of the subject that the file is named after")
        return state


def path_of(directory: str, subject: str) -> str:
    """The path of the file of the register ``subject`` under ``directory``."""
    digest = hashlib.sha256(subject.encode()).hexdigest()
    return f"{directory}/{digest[:2]}/{digest[2:]}"


def name_of(path: str) -> int:
    """The SHA-256 of the name of the register whose file is at ``path``, as a number."""
    _, folder, rest = path.rsplit("/", 2)
    return int(folder + rest, 16)
