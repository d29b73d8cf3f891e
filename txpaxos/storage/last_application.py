"""The application that a data folder was last started with. Another application makes another state of the same log."""

from __future__ import annotations

from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk, remove_if_there
from txpaxos.storage.messages import os_errors


class LastApplication:
    """The file ``application`` in ``directory``, with the name of an application.

    Only a warning rests on it, so a damaged file counts as an absent one."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._path = f"{directory}/application"

    def read(self) -> str:
        """The name that was written last, empty if there is none."""
        try:
            name = AtomicFile(self._disk, self._path).read()
        except StoreError:
            return ""
        return "" if name is None else name.decode(errors="replace")

    def write(self, name: str) -> None:
        """Put ``name`` on disk.

        :raises StoreError: if the file cannot be written."""
        file = AtomicFile(self._disk, self._path)
        try:
            file.read()
        except StoreError:
            with os_errors("remove", self._path):
                remove_if_there(self._disk, self._path)
        file.write(name.encode(errors="replace"))
