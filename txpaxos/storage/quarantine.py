"""Markers: files that keep a node from starting again whose state is wrong, or that is a member no more."""

from __future__ import annotations

from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk, remove_if_there
from txpaxos.storage.messages import diverged, os_errors, removed


class QuarantineMarker:
    """The file ``diverged`` in ``directory``, which is a data folder.

    The marker counts as long as the folder has snapshots, since the wrong state is in them."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._file = AtomicFile(disk, f"{directory}/diverged")

    def write(self, finding: str) -> None:
        """Put the marker on disk.

        :param finding: one line for the operator: at which slot the states differ, and which nodes have which.
        :raises StoreError: if the marker cannot be written."""
        self._file.write(finding.encode())

    def enforce(self, *, has_snapshots: bool) -> None:
        """Refuse a folder that is quarantined and still has the wrong state. Remove the marker of one that has not.

        :param has_snapshots: whether there are snapshots in the folder. Without them the node gets its state from other
            nodes, so it may start.
        :raises StoreError: if the folder is refused; the error says what is wrong, and what to do."""
        finding = self._file.read()
        if finding is None:
            return
        if has_snapshots:
            raise diverged(self._directory, finding.decode(errors="replace"))
        with os_errors("remove", self._file.path):
            remove_if_there(self._disk, self._file.path)
            self._disk.sync_directory(self._directory)


class RemovedMarker:
    """The file ``removed`` in ``directory``, which is a data folder of a node that is a member no more."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._directory = directory
        self._file = AtomicFile(disk, f"{directory}/removed")

    def write(self, finding: str) -> None:
        """Put the marker on disk.

        :param finding: one line for the operator: which node was removed, and at which slot.
        :raises StoreError: if the marker cannot be written."""
        self._file.write(finding.encode())

    def enforce(self) -> None:
        """Refuse a folder with the marker.

        :raises RemovedFromCluster: if there is one; the error says what to do.
        :raises StoreError: if that cannot be read."""
        finding = self._file.read()
        if finding is not None:
            raise removed(self._directory, finding.decode(errors="replace"))


def markers(disk: Disk, directory: str) -> tuple[QuarantineMarker, RemovedMarker]:
    """Both markers of the data folder ``directory``."""
    return QuarantineMarker(disk, directory), RemovedMarker(disk, directory)
