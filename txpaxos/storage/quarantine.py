"""That the state of a node is wrong: a file which keeps it from being started again as it is."""

from __future__ import annotations

from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk, remove_if_there
from txpaxos.storage.messages import diverged, os_errors


class QuarantineMarker:
    """The file ``diverged`` in ``directory``. It stands as long as there are snapshots: the wrong state is in them."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._file = AtomicFile(disk, f"{directory}/diverged")

    def write(self, finding: str) -> None:
        """Say from now on what is wrong: ``finding`` tells at which slot, and who has what.

        :raises StoreError: if that cannot be written."""
        self._file.write(finding.encode())

    def enforce(self, *, has_snapshots: bool) -> None:
        """Refuse a folder that is quarantined. Without snapshots the node has its state from elsewhere, and may go on.

        :raises StoreError: with what is wrong, and what to do."""
        finding = self._file.read()
        if finding is None:
            return
        if has_snapshots:
            raise diverged(self._directory, finding.decode(errors="replace"))
        with os_errors("remove", self._file.path):
            remove_if_there(self._disk, self._file.path)
            self._disk.sync_directory(self._directory)
