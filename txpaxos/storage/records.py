"""Records and the bytes they are saved as: each one its length, its kind, then the fields as MessagePack."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from txpaxos.core.ready import DecreeState, JournalRecord, Learned, PeerMet, Promised, Record, SubjectState, Voted
from txpaxos.packing import Packing

_PACKING: Packing[JournalRecord | SubjectState] = Packing(
    {1: Promised, 2: Voted, 3: Learned, 4: SubjectState, 5: PeerMet}
)
_HEADER = struct.Struct("<IB")  # bytes of the fields, kind


def divide(records: Iterable[Record]) -> tuple[list[JournalRecord], dict[str, SubjectState]]:
    """The log's records in their order, and by subject the last state of each.

    :raises TypeError: if one is a bare DecreeState, which does not say whose it is.
    """
    log: list[JournalRecord] = []
    subjects: dict[str, SubjectState] = {}
    for record in records:
        if isinstance(record, SubjectState):
            subjects[record.subject] = record
        elif isinstance(record, DecreeState):
            raise TypeError(f"{record} can be saved only inside a SubjectState, which names its subject")
        else:
            log.append(record)
    return log, subjects


def encode(records: Iterable[JournalRecord | SubjectState]) -> bytes:
    """The bytes of ``records``, in their order.

    :raises KeyError: if one is no record.
    :raises OverflowError: if one holds an integer of 2**64 or more.
    """
    parts: list[bytes] = []
    for record in records:
        kind, fields = _PACKING.pack(record)
        parts += (_HEADER.pack(len(fields), kind), fields)
    return b"".join(parts)


def decode(data: bytes) -> list[JournalRecord | SubjectState]:
    """The records that :func:`encode` was given.

    :raises ValueError: if ``data`` is not exactly some records.
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
