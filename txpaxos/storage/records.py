"""Records to bytes and back. The bytes of a record are its length, its kind, then its fields as MessagePack."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from txpaxos.core.ready import (
    Checkpoint,
    DecreeState,
    JournalRecord,
    Learned,
    LearnedThrough,
    PeerMet,
    Promised,
    Record,
    SubjectState,
    Voted,
    Voter,
)
from txpaxos.packing import Packing

_PACKING: Packing[JournalRecord | SubjectState] = Packing(
    {1: Promised, 2: Voted, 3: Learned, 4: SubjectState, 5: PeerMet, 6: Checkpoint, 7: LearnedThrough}
)
_HEADER = struct.Struct("<IB")  # bytes of the fields, kind


def divide(records: Iterable[Record]) -> tuple[list[JournalRecord], Voter | None]:
    """Sort records by where a store keeps them.

    :returns: the log's records in their order; and the last Voter, if there is one.
    :raises TypeError: if a record is the state of a single decree, which no release saves any more.
    """
    log: list[JournalRecord] = []
    voter: Voter | None = None
    for record in records:
        if isinstance(record, Voter):
            voter = record
        elif isinstance(record, SubjectState | DecreeState):
            raise TypeError(f"{record} is not saved any more: registers are in the log")
        else:
            log.append(record)
    return log, voter


def checkpoint_index(records: Sequence[Record], slot: int) -> int | None:
    """The index in ``records`` of the last Checkpoint at ``slot`` or before it, ``None`` if there is none.

    Beside a snapshot at ``slot``, a node must remember only that Checkpoint and the records after it."""
    for index in range(len(records) - 1, -1, -1):
        record = records[index]
        if isinstance(record, Checkpoint) and record.slot <= slot:
            return index
    return None


def encode(records: Iterable[JournalRecord | SubjectState]) -> bytes:
    """The bytes of ``records``, in their order.

    :raises KeyError: if an item is no record.
    :raises OverflowError: if a record holds an integer of 2**64 or more.
    """
    parts: list[bytes] = []
    for record in records:
        kind, fields = _PACKING.pack(record)
        parts += (_HEADER.pack(len(fields), kind), fields)
    return b"".join(parts)


def decode(data: bytes) -> list[JournalRecord | SubjectState]:
    """The records that :func:`encode` was given.

    :raises ValueError: if ``data`` is not a row of whole records.
    """
    records: list[JournalRecord | SubjectState] = []
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            raise ValueError("a record ends too soon")
        length, kind = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if offset + length > len(data):
            raise ValueError("a record ends too soon")
        records.append(_PACKING.unpack(kind, data[offset : offset + length]))
        offset += length
    return records


class Checkpoints:
    """The Checkpoints in the journal, oldest first: the slot of each, and the position of its frame."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int]] = []  # slot, position

    def note(self, records: Iterable[Record], position: int) -> None:
        """Note the Checkpoints among ``records``, which the frame at ``position`` holds. Call this in the order of the
        frames."""
        self._found += [(record.slot, position) for record in records if isinstance(record, Checkpoint)]

    def reach_back_to(self, slot: int) -> bool:
        """Whether a Checkpoint is at ``slot`` or before it: then a snapshot at ``slot`` and the journal have it all."""
        return any(found <= slot for found, _ in self._found)

    def forget_before(self, slot: int) -> int:
        """Forget the Checkpoints that are not needed beside a snapshot at ``slot``.

        :returns: the position of the first frame that is still needed: that of the last Checkpoint at ``slot`` or
            before it; 0 if there is none."""
        position = max((position for found, position in self._found if found <= slot), default=0)
        self._found = [entry for entry in self._found if entry[1] >= position]
        return position
