"""The states of single decrees: one atomic file per subject, named after the subject's SHA-256.

256 folders share them, so that no folder grows too long: ``subjects/<first two hex digits>/<the other 62>``.
"""

from __future__ import annotations

import hashlib

from txpaxos.core.ready import SubjectState
from txpaxos.storage.atomic_file import TEMPORARY, AtomicFile
from txpaxos.storage.disk import Disk, ensure_directory
from txpaxos.storage.faults import damaged, os_errors
from txpaxos.storage.records import decode, encode


class Subjects:
    """The subjects' states under ``directory``, which exists. Call :meth:`read` first."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._folders: set[str] = set()
        self._files: dict[str, AtomicFile] = {}

    def exist(self) -> bool:
        """Whether there is a state of any subject."""
        return any(
            not name.endswith(TEMPORARY) for folder in self._list() for name in self._disk.list_directory(folder)
        )

    def read(self) -> list[SubjectState]:
        """The state of each subject, by the subject's name. It is on disk when this returns.

        :raises StoreError: if a file is damaged or cannot be read."""
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
        return [states[subject] for subject in sorted(states)]

    def write(self, state: SubjectState) -> None:
        """Replace the state of one subject. When this returns, it is on disk.

        :raises StoreError: if that fails."""
        file = self._files.get(state.subject)
        if file is None:
            file = self._files[state.subject] = AtomicFile(self._disk, self._path(state.subject))
            file.serial = 0  # there is none yet, or read() had found it
            folder = file.path.rpartition("/")[0]
            if folder not in self._folders:
                with os_errors("create", folder):
                    ensure_directory(self._disk, folder)
                self._folders.add(folder)
        file.write(encode((state,)))

    def _list(self) -> list[str]:
        """The folders that hold the files."""
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
