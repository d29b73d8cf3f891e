"""Keys to compare states of a stored node: all that can influence anything, without names and numbers that cannot.

A frame's position in the whole journal and a segment's number matter only relative to the others. They are counted from
the oldest segment that exists, and the key says whether that is the first of all.
"""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import Any

from txpaxos.storage.acknowledged import SLOT_BYTES, Acknowledged
from txpaxos.storage.atomic_file import TEMPORARY
from txpaxos.storage.segment import Frames, SegmentHeader
from txpaxos.testing.model.platter import Platter, PlatterDisk
from txpaxos.testing.model.stored import StoredNode

IDENTITY = 1
SEGMENT = ".segment"


@cache
def platter_key(platter: Platter) -> object:
    """Equal for two platters exactly if a start finds the same on them."""
    first = min((_segment(data)[0] for path, data in platter if path.endswith(SEGMENT) and data), default=None)
    parts: list[object] = []
    for path, data in platter:
        if path.endswith(SEGMENT) and data and first:
            header, bodies = _segment(data)
            parts.append((first == (0, 0), header[0] - first[0], header[1] - first[1], bodies))
        elif path.endswith("/acknowledged") and data and first:
            parts.append((len(data), _mark(data, *first)))
        elif not path.endswith(TEMPORARY):
            parts.append((path, data))
    return tuple(parts)


@cache
def _segment(data: bytes) -> tuple[tuple[int, int], tuple[bytes, ...]]:
    """The segment's number and the position of its first frame; and the bodies of its frames."""
    header = SegmentHeader.unpack(data, "")
    return (header.number, header.first_position), tuple(frame.body for frame in Frames(data, header, ""))


@cache
def _mark(data: bytes, number: int, position: int) -> object:
    """The mark that a start reads, relative to that segment and position. The next write goes to the slot that does not
    count, and even if it is torn, the slot that counts is kept."""
    marks = Acknowledged(PlatterDisk(), "", IDENTITY)
    slots = [marks._unpack(data, at) for at in range(0, len(data), SLOT_BYTES)]
    _, mark = max((slot for slot in slots if slot), key=itemgetter(0), default=(0, None))
    return mark and (mark.position - position, mark.segment - number, mark.oldest - number)


def disk_key(disk: PlatterDisk) -> object:
    """The content of the disk, and what a power cut may leave of it."""
    return frozenset(map(platter_key, disk.platters())), platter_key(disk.seen())


def running_key(node: StoredNode) -> object:
    """Equal for two running nodes exactly if they hold the same and will do the same."""
    store: Any = node.store
    first_position = store._journal.first_position
    checkpoints = tuple((slot, position - first_position) for slot, position in store._checkpoints._found)
    snapshots = store._snapshots
    writer = snapshots._writer
    writing = None
    if writer is not None and (writer.finishing or not writer._closed):
        writing = (writer.slot, writer.received, writer.size_bytes, writer._closed, writer._failed, writer._removed)
    newest = snapshots.newest and snapshots.newest.slot
    given = tuple(len(thread.given) for thread in (node.saves, node.writes))
    return (
        disk_key(node.disk),
        checkpoints,
        (newest, tuple(snapshots._slots), snapshots._part, writing),
        given,
        store._discarded.exist,
        node.replicas.number(node.replica),
        tuple(node.owed),
        node.applied_through,
        node.compact_through,
    )
