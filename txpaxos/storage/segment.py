"""One file of the journal: its bytes, and how to tell a torn tail from bit rot. This module touches no file.

A segment is a header of one sector, then frames. It is created with its full size, and all bytes after the last frame
are zeros.

=============  =====  ====================================================================
header at      bytes  what
=============  =====  ====================================================================
0              8      ``txpaxosJ``
8              4      format version
12             8      identity of the store
20             8      number of the segment, as in its name
28             8      position of its first frame
36             8      size of the file in bytes
44             4      crc32 of the 44 bytes before; zeros follow up to byte 512
=============  =====  ====================================================================

One frame holds one save. Frames are aligned to 32 bytes, so that the header of a frame lies within one sector.

=============  =====  ====================================================================
frame at       bytes  what
=============  =====  ====================================================================
0              4      length of the body
4              4      how many whole sectors of the frame are all zeros, as written
8              8      identity of the store
16             8      position: how many frames the journal had before this one
24             4      crc32 of everything from byte 32 on
28             4      crc32 of the 28 bytes before
32                    the body, zeros up to the next alignment less four, and the end mark
=============  =====  ====================================================================

**A torn tail, or bit rot?** A frame is written only when the frame before it is synced. So a frame that cannot be
read, with a later frame behind it, was acknowledged and is damaged by bit rot. The last frame may instead be *torn*: a
crash interrupted its write, the save was never acknowledged, and the frame may be removed. A disk writes whole sectors,
or a sector from its beginning. So a torn write leaves zeros where its bytes never arrived: at the end of the frame (the
end mark is missing) or in more whole sectors than the header says. A frame that has its end mark and every sector, but
a wrong checksum, was complete once: that is bit rot, too.

All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple, overload

import attrs

from txpaxos.storage.messages import damaged, other_version

VERSION = 1
SECTOR_BYTES = 512
ALIGNMENT_BYTES = 32

_MAGIC = b"txpaxosJ"
_SEGMENT = struct.Struct("<8sIQQQQ")
_FRAME = struct.Struct("<IIQQI")
_CHECKSUM = struct.Struct("<I")
_FRAME_HEADER_BYTES = _FRAME.size + _CHECKSUM.size
_END_MARK = b"\xa5\x5a\xc3\x3c"
_TAILS = tuple(bytes(-(length + len(_END_MARK)) % ALIGNMENT_BYTES) + _END_MARK for length in range(ALIGNMENT_BYTES))
"""The bytes that follow a body, by the length of the body modulo the alignment."""
_LENGTH = struct.Struct("<I")
_CRC_OF_CHECKED = 0x2144DF1C
"""The crc32 of any bytes that end in the crc32 of the bytes before it."""
_ZERO_SECTOR = bytes(SECTOR_BYTES)
_ZERO_BLOCK = bytes(1 << 16)


@attrs.frozen
class SegmentHeader:
    """The header of a segment.

    :ivar identity: the incarnation of the store.
    :ivar number: the number of the segment, as in its name.
    :ivar first_position: the position of the first frame in it.
    :ivar size: the size of the file in bytes."""

    identity: int
    number: int
    first_position: int
    size: int

    def pack(self) -> bytes:
        """The first sector of the file."""
        fields = _SEGMENT.pack(_MAGIC, VERSION, self.identity, self.number, self.first_position, self.size)
        return (fields + _CHECKSUM.pack(zlib.crc32(fields))).ljust(SECTOR_BYTES, b"\0")

    @classmethod
    def unpack(cls, data: bytes, path: str, file_bytes: int | None = None) -> SegmentHeader:
        """The header of the segment that begins with ``data``.

        :param path: the segment's file, for the error.
        :param file_bytes: the size of the file. Without it, ``data`` is the whole file.
        :raises StoreError: if the header is damaged, or of another format version."""
        if len(data) < SECTOR_BYTES:
            raise damaged(path, len(data), f"the file ends within its first {SECTOR_BYTES} bytes")
        magic, version, identity, number, first_position, size = _SEGMENT.unpack_from(data)
        if magic != _MAGIC:
            raise damaged(path, 0, "this is no txpaxos journal segment")
        if version != VERSION:
            raise other_version(path, version, VERSION)
        header = cls(identity, number, first_position, size)
        if data[:SECTOR_BYTES] != header.pack():
            raise damaged(path, _SEGMENT.size, "the checksum of the segment's header does not match")
        file_bytes = len(data) if file_bytes is None else file_bytes
        if file_bytes != size:
            raise damaged(path, min(file_bytes, size), f"the file has {file_bytes} bytes instead of {size}")
        return header


class Frame(NamedTuple):
    """One save that was read back.

    :ivar position: how many frames the journal had before this one.
    :ivar body: the bytes of the save.
    :ivar path: the file that holds the frame.
    :ivar offset: the offset of the frame in the file.
    :ivar end: the offset behind the frame."""

    position: int
    body: bytes
    path: str
    offset: int
    end: int


def frame_bytes(body_bytes: int) -> int:
    """The size in bytes of a frame whose body has ``body_bytes`` bytes."""
    filling = body_bytes + len(_END_MARK)
    return _FRAME_HEADER_BYTES + filling + -filling % ALIGNMENT_BYTES


def pack_frame(body: bytes, identity: int, position: int, offset: int) -> bytes:
    """The bytes of a frame.

    :param body: the bytes of the save.
    :param identity: the incarnation of the store.
    :param position: how many frames the journal has before this one.
    :param offset: the offset in the segment at which the frame will be written."""
    filling = body + _TAILS[len(body) % ALIGNMENT_BYTES]
    zeros = _zero_sectors(filling, offset + _FRAME_HEADER_BYTES)
    header = _FRAME.pack(len(body), zeros, identity, position, zlib.crc32(filling))
    return header + _CHECKSUM.pack(zlib.crc32(header)) + filling


class Frames(Sequence[Frame]):
    """The readable frames of a segment, as a sequence.

    The frames are checked when the object is made. A body is copied only when its frame is asked for."""

    __slots__ = ("_data", "_header", "_path", "_starts")

    def __init__(self, data: bytes, header: SegmentHeader, path: str) -> None:
        self._data = data
        self._header = header
        self._path = path
        self._starts = _walk(data, header)

    @property
    def end(self) -> int:
        """The offset at which the last readable frame ends."""
        return self._starts[-1]

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start, end = self._starts[number], self._starts[number + 1]
        (length,) = _LENGTH.unpack_from(self._data, start)
        body_at = start + _FRAME_HEADER_BYTES
        body = self._data[body_at : body_at + length]
        return Frame(self._header.first_position + number, body, self._path, start, end)


def _walk(data: bytes, header: SegmentHeader) -> list[int]:
    """The offset of each readable frame, then the offset at which the last one ends. A restart waits for this loop."""
    view, identity, position = memoryview(data), header.identity, header.first_position
    unpack, crc32, limit = _FRAME.unpack_from, zlib.crc32, len(data) - _FRAME_HEADER_BYTES
    offset = SECTOR_BYTES
    starts = [offset]
    while offset <= limit and crc32(view[offset : offset + _FRAME_HEADER_BYTES]) == _CRC_OF_CHECKED:
        length, _, frame_identity, frame_position, checksum = unpack(data, offset)
        end = offset + frame_bytes(length)
        if frame_identity != identity or frame_position != position or end > len(data):
            break
        if crc32(view[offset + _FRAME_HEADER_BYTES : end]) != checksum:
            break
        position += 1
        offset = end
        starts.append(offset)
    return starts


def torn_bytes(data: bytes, header: SegmentHeader, offset: int, position: int, path: str) -> int:
    """How many bytes a torn write left behind the readable frames of the newest segment; 0 if there are only zeros.

    :param data: the bytes of the segment.
    :param offset: where the readable frames end.
    :param position: the position of the next frame.
    :param path: the segment's file, for the error.
    :raises StoreError: if the bytes there were a complete frame once, which may have been acknowledged."""
    used = _used_bytes(data)
    if used <= offset:
        return 0
    later = _later_frame(data, header, offset, position)
    if later is not None:
        raise damaged(path, offset, f"frame {position} cannot be read, though frame {later} was written after it")
    if not _looks_torn(data[:used], header, offset, position):
        raise damaged(path, offset, f"frame {position} cannot be read, though no part of it is missing")
    return used - offset


class _FrameStart(NamedTuple):
    """The header of a frame, field by field."""

    length: int
    zeros: int
    identity: int
    position: int
    checksum: int


def _frame_start(data: bytes, offset: int) -> _FrameStart | None:
    """The frame header at ``offset``, ``None`` if there is no sound header."""
    fields = data[offset : offset + _FRAME.size]
    if len(data) < offset + _FRAME_HEADER_BYTES:
        return None
    if _CHECKSUM.unpack_from(data, offset + _FRAME.size) != (zlib.crc32(fields),):
        return None
    return _FrameStart._make(_FRAME.unpack(fields))


def _later_frame(data: bytes, header: SegmentHeader, offset: int, position: int) -> int | None:
    """The position of a later frame than ``position`` whose header is behind ``offset``, ``None`` if there is none."""
    mark = struct.pack("<Q", header.identity)  # in every frame's header, and hardly anywhere else
    found = data.find(mark, offset)
    while found >= 0:
        start = _frame_start(data, found - 8)
        if found % ALIGNMENT_BYTES == 8 and start is not None and start.position > position:
            return start.position
        found = data.find(mark, found + 1)
    return None


def _looks_torn(written: bytes, header: SegmentHeader, offset: int, position: int) -> bool:
    """Whether the unreadable frame at ``offset``, which is the last, has a part that never reached the disk.

    :param written: the segment up to its last byte that is not zero."""
    start = _frame_start(written, offset)
    if start is None:
        sector_end = offset + SECTOR_BYTES - offset % SECTOR_BYTES
        never_began = written[offset:sector_end].strip(b"\0") == b""
        return never_began or len(written) <= offset + _FRAME_HEADER_BYTES
    filling_at, end = offset + _FRAME_HEADER_BYTES, offset + frame_bytes(start.length)
    if (start.identity, start.position) != (header.identity, position) or end > header.size:
        return False  # This store never began to write such a frame here.
    if len(written) != end:  # The end mark is missing, or there are more bytes than one frame can leave.
        return len(written) < end
    return _zero_sectors(written[filling_at:], filling_at) > start.zeros


def _zero_sectors(data: bytes, offset: int) -> int:
    """How many whole sectors of ``data`` are all zeros. ``data`` begins at ``offset`` of the segment."""
    if _ZERO_SECTOR not in data:
        return 0
    first = -offset % SECTOR_BYTES
    sectors = range(first, len(data) - SECTOR_BYTES + 1, SECTOR_BYTES)
    return sum(data[sector : sector + SECTOR_BYTES] == _ZERO_SECTOR for sector in sectors)


def _used_bytes(data: bytes) -> int:
    """The length of ``data`` without the zeros at its end."""
    end = len(data)
    while end >= len(_ZERO_BLOCK) and data.endswith(_ZERO_BLOCK, 0, end):
        end -= len(_ZERO_BLOCK)
    return len(data[max(0, end - len(_ZERO_BLOCK)) : end].rstrip(b"\0")) + max(0, end - len(_ZERO_BLOCK))
