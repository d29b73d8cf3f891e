"""Whether a node's disk holds files that are no longer needed, judged by the contents of its files."""

from __future__ import annotations

from txpaxos.core.ready import Checkpoint
from txpaxos.storage.records import decode
from txpaxos.storage.segment import Frames, SegmentHeader
from txpaxos.testing.simulator.disk import SimulatedDisk

SNAPSHOTS_MAX = 3
"""Two complete snapshots, and one that is being taken or received."""


def snapshots(disk: SimulatedDisk, folder: str) -> list[str]:
    """The files of snapshots, oldest first, complete or not."""
    return [path for path in disk.files() if path.startswith(f"{folder}/snapshots/")]


def segments(disk: SimulatedDisk, folder: str) -> list[str]:
    """The files of the journal, oldest first."""
    return [path for path in disk.files() if path.startswith(f"{folder}/journal/")]


def needless_segments(disk: SimulatedDisk, folder: str) -> list[str]:
    """The segments of the journal that neither the newest complete snapshot nor the one before it needs.

    A snapshot needs the journal from the last Checkpoint at or before its slot on.
    """
    complete = [path for path in snapshots(disk, folder) if path.endswith(".snapshot")]
    if len(complete) < 2:
        return []
    slot = int(complete[-2].rpartition("/")[2].partition(".")[0])
    paths = segments(disk, folder)
    for index in range(len(paths) - 1, -1, -1):
        data = disk.content(paths[index])
        frames = Frames(data, SegmentHeader.unpack(data, paths[index]), paths[index])
        records = (record for frame in frames for record in decode(frame.body))
        if any(isinstance(record, Checkpoint) and record.slot <= slot for record in records):
            return paths[:index]
    return []
