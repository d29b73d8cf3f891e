"""Discarded snapshots: an operator moves the snapshots of a node away, to have its state from the other nodes."""

from __future__ import annotations

from txpaxos.storage.disk import Disk
from txpaxos.storage.messages import os_errors

DISCARDED = "snapshots.discarded"
"""An operator renames the folder of the snapshots to this name, with any ending, to have the node start without them.
The node then gets the state from other nodes, and keeps its promises and votes."""

REPLACED = "snapshots.replaced"
"""The store gives this name to a discarded folder when the node has its state again. The folder has no meaning then."""


class DiscardedSnapshots:
    """The folders of discarded snapshots in ``directory``, which is a data folder. Call :meth:`find` first.

    While there are any, a journal that begins after its first frame is no loss: the records before it were in these
    snapshots. They must not excuse a later loss, so they are renamed when the node has its state again."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._names: list[str] = []

    @property
    def exist(self) -> bool:
        """Whether there are discarded snapshots whose state the node does not have again."""
        return bool(self._names)

    def find(self) -> None:
        """Look for the folders.

        :raises StoreError: if the data folder cannot be read."""
        with os_errors("read", self._directory):
            self._names = [name for name in self._disk.list_directory(self._directory) if name.startswith(DISCARDED)]

    def rename(self) -> None:
        """Rename the folders, since the node has its state again.

        :raises StoreError: if that fails."""
        if not self._names:
            return
        with os_errors("rename the discarded snapshots in", self._directory):
            taken = set(self._disk.list_directory(self._directory))
            for name in self._names:
                target = REPLACED + name.removeprefix(DISCARDED)
                while target in taken:
                    target += "+"
                taken.add(target)
                self._disk.replace(f"{self._directory}/{name}", f"{self._directory}/{target}")
            self._disk.sync_directory(self._directory)
        self._names = []
