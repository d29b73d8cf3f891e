"""The backup that a data folder was restored from."""

from __future__ import annotations

from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk


class RestoredFrom:
    """The file ``restored`` in ``directory``, with the checksum of a backup.

    Nodes with other states do not found a cluster together. So a damaged file stops the start."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._file = AtomicFile(disk, f"{directory}/restored")

    def read(self) -> str:
        """The checksum of the backup, empty if the folder was not restored.

        :raises StoreError: if the file is damaged or cannot be read."""
        digest = self._file.read()
        return "" if digest is None else digest.decode(errors="replace")

    def write(self, digest: str) -> None:
        """Put the checksum on disk.

        :raises StoreError: if the file cannot be written."""
        self._file.write(digest.encode())
