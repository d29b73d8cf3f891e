"""One snapshot as bytes, as they are in its file and go from node to node. This module touches no file.

A snapshot is a header, then a frame for each chunk, then an end frame. It carries no store's identity, since the same
bytes go into the stores of several nodes.

=============  =====  ====================================================================
header at      bytes  what
=============  =====  ====================================================================
0              8      ``txpaxosS``
8              4      format version
12             8      slot: the snapshot holds the state after it
20             4      crc32 of the 20 bytes before
=============  =====  ====================================================================

=============  =====  ====================================================================
frame at       bytes  what
=============  =====  ====================================================================
0              4      length of the chunk, 1 to 64 MiB
4              4      crc32 of the length and the chunk
8                     the chunk
=============  =====  ====================================================================

=============  =====  ====================================================================
end frame at   bytes  what
=============  =====  ====================================================================
0              4      0
4              4      crc32 of the end frame without these four bytes
8              8      how many frames there are before
16             4      chain: crc32 of the header's checksum and those of the frames, in order
=============  =====  ====================================================================

The chain detects a frame that was lost, repeated or moved, and a file made of parts of two others.

All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from txpaxos.errors import StoreError
from txpaxos.storage.messages import damaged_snapshot, other_version

VERSION = 1
CHUNK_BYTES_MAX = 64 << 20

_MAGIC = b"txpaxosS"
_HEADER = struct.Struct("<8sIQ")
_CHECKSUM = struct.Struct("<I")
_FRAME = struct.Struct("<II")
_END = struct.Struct("<IIQI")
_TOTALS = struct.Struct("<IQI")  # the end frame without its checksum
_PIECE_BYTES = 1 << 20
HEADER_BYTES = _HEADER.size + _CHECKSUM.size
END_BYTES = _END.size

ReadAt = Callable[[int, int], bytes]
"""A function of an offset and a size that returns those bytes; fewer only at the end of the file."""


class SnapshotPacker:
    """Makes the bytes of a snapshot at ``slot``, in this order: :attr:`header`, a :meth:`frame` per chunk, :meth:`end`.

    :ivar header: the bytes of the header."""

    __slots__ = ("_chain", "_count", "header")

    def __init__(self, slot: int) -> None:
        fields = _HEADER.pack(_MAGIC, VERSION, slot)
        checksum = _CHECKSUM.pack(zlib.crc32(fields))
        self.header = fields + checksum
        self._chain = zlib.crc32(checksum)
        self._count = 0

    def frame(self, chunk: bytes) -> bytes:
        """The bytes of the next frame.

        :raises ValueError: if ``chunk`` is empty or has more than :data:`CHUNK_BYTES_MAX` bytes."""
        if not 0 < len(chunk) <= CHUNK_BYTES_MAX:
            raise ValueError(f"a chunk of a snapshot has 1 to {CHUNK_BYTES_MAX} bytes, not {len(chunk)}")
        checksum = _checksum(len(chunk), chunk)
        self.add(checksum)
        return _FRAME.pack(len(chunk), checksum) + chunk

    def add(self, checksum: int) -> None:
        """Count a frame that was read, by its checksum, instead of making one."""
        self._chain = zlib.crc32(_CHECKSUM.pack(checksum), self._chain)
        self._count += 1

    def end(self) -> bytes:
        """The bytes of the end frame."""
        checksum = zlib.crc32(_TOTALS.pack(0, self._count, self._chain))
        return _END.pack(0, checksum, self._count, self._chain)


class SnapshotReader:
    """Reads and checks a snapshot at ``slot``, in pieces, from its first byte on.

    :param read: reads from the snapshot's file.
    :param size: the size of the file in bytes.
    :param path: the file, for errors.
    :param damaged: makes the error from the path, the offset and what is wrong there.
    :ivar sound_bytes: how many bytes from the beginning were read and are sound.
    """

    def __init__(
        self,
        read: ReadAt,
        size: int,
        slot: int,
        path: str,
        damaged: Callable[[str, int, str], StoreError] = damaged_snapshot,
    ) -> None:
        self.sound_bytes = 0
        self._read = read
        self._size = size
        self._slot = slot
        self._path = path
        self._error = damaged
        self._buffer = b""
        self._buffer_at = 0

    def check_ends(self) -> None:
        """Check the header and the end frame, and nothing between them.

        :raises StoreError: if one of them is damaged."""
        self._header()
        end = self._take(max(HEADER_BYTES, self._size - END_BYTES), END_BYTES)
        length, checksum, count, chain = _END.unpack(end)
        if length or checksum != zlib.crc32(_TOTALS.pack(0, count, chain)):
            raise self._damaged(self._size - END_BYTES, "this is not the end of a snapshot")

    def chunks(self) -> Iterator[bytes]:
        """Every chunk in order. Each is checked before it is yielded, and the number of chunks is checked at the end.

        :raises StoreError: (the iterator) where the file is damaged."""
        totals = self._header()
        while True:
            offset = self.sound_bytes
            length, checksum = _FRAME.unpack(self._take(offset, _FRAME.size))
            if not length:
                break
            if length > CHUNK_BYTES_MAX:
                raise self._damaged(offset, "the length of a chunk is wrong")
            chunk = self._take(offset + _FRAME.size, length)
            if checksum != _checksum(length, chunk):
                raise self._damaged(offset, "the checksum of a chunk does not match")
            totals.add(checksum)
            self.sound_bytes = offset + _FRAME.size + length
            yield chunk
        if self._take(offset, END_BYTES) != totals.end():
            raise self._damaged(offset, "the end does not match what comes before it")
        self.sound_bytes = offset + END_BYTES
        if self._size != self.sound_bytes:
            raise self._damaged(self.sound_bytes, f"{self._size - self.sound_bytes} bytes follow the end")

    def _header(self) -> SnapshotPacker:
        """Check the header. Returns a packer, which computes the end frame that should follow."""
        header = self._take(0, HEADER_BYTES)
        magic, version, slot = _HEADER.unpack_from(header)
        if magic != _MAGIC:
            raise self._damaged(0, "this is no txpaxos snapshot")
        if version != VERSION:
            raise other_version(self._path, version, VERSION)
        totals = SnapshotPacker(slot)
        if header != totals.header:
            raise self._damaged(_HEADER.size, "the checksum of the header does not match")
        if slot != self._slot:
            raise self._damaged(0, f"this is the snapshot at slot {slot}, not {self._slot}")
        self.sound_bytes = HEADER_BYTES
        return totals

    def _take(self, offset: int, size: int) -> bytes:
        start = offset - self._buffer_at
        if start < 0 or start + size > len(self._buffer):
            self._buffer = self._read(offset, max(size, _PIECE_BYTES))
            self._buffer_at, start = offset, 0
            if len(self._buffer) < size:
                raise self._damaged(offset + len(self._buffer), "the file ends too soon")
        return self._buffer[start : start + size]

    def _damaged(self, offset: int, what: str) -> StoreError:
        return self._error(self._path, offset, what)


def _checksum(length: int, chunk: bytes) -> int:
    return zlib.crc32(chunk, zlib.crc32(_CHECKSUM.pack(length)))
