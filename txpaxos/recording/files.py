"""The files of a recording: their names, their bytes, and how they are read.

A recording is a folder with one folder for each node in it. A *run* is what a node does from one start to its end. The
files of a run are its *segments*: ``RUN-SEGMENT.recording``, both as 8 digits. A segment is a header, then frames.

=============  =====  ==================================================
header at      bytes  what
=============  =====  ==================================================
0              8      ``txpaxosR``
8              4      format version
12             4      crc32 of the 12 bytes before
=============  =====  ==================================================

=============  =====  ==================================================
frame at       bytes  what
=============  =====  ==================================================
0              4      length of the body
4              4      crc32 of the body
8              4      crc32 of the 8 bytes before
12                    the body: the entries, as one MessagePack array
=============  =====  ==================================================

All numbers are little-endian. :mod:`txpaxos.recording.entries` has the entries.

**A torn tail.** A process that is killed leaves the beginning of a frame at the end of the last segment of its run, a
machine that loses its power perhaps zeros. Both are cut off by readers. Any other byte that is not as it was written is
an error, which names the file and the offset. A segment may grow while it is read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from txpaxos.errors import RecordingError
from txpaxos.storage.disk import Disk

VERSION = 1
SUFFIX = ".recording"
LOCK = "lock"

_MAGIC = b"txpaxosR"
_HEADER = struct.Struct("<8sI")
_FRAME = struct.Struct("<II")
_CHECKSUM = struct.Struct("<I")
_ARRAY = struct.Struct(">BI")
_ARRAY_OF_32_BITS = 0xDD
_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
HEADER_BYTES = _HEADER.size + _CHECKSUM.size
FRAME_HEADER_BYTES = _FRAME.size + _CHECKSUM.size
_NAME = re.compile(r"(\d{8})-(\d{8})\.recording")


@attrs.frozen(order=True)
class Segment:
    """One file of a recording, by its name.

    :ivar run: which start of the node it is of, counted from 1.
    :ivar number: its number in that run, counted from 1."""

    run: int
    number: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.run:08}-{self.number:08}{SUFFIX}"


def segments_in(disk: Disk, folder: str) -> list[Segment]:
    """The segments in the folder of a node, in their order. Other files are passed over.

    :raises OSError: if the folder cannot be read.
    """
    found = map(_NAME.fullmatch, disk.list_directory(folder))
    return sorted(Segment(int(match[1]), int(match[2])) for match in found if match)


def nodes_in(disk: Disk, folder: str) -> list[str]:
    """The nodes that have a recording in ``folder``.

    :raises RecordingError: if the folder cannot be read, or no node has one in it.
    """
    try:
        names = sorted(disk.list_directory(folder))
        folders = [name for name in names if disk.inspect(f"{folder}/{name}", follow=True).kind == "folder"]
        nodes = [name for name in folders if segments_in(disk, f"{folder}/{name}")]
    except OSError as error:
        raise RecordingError(f"cannot read {folder}: {error.strerror}", folder) from None
    if not nodes:
        raise RecordingError(f"{folder} has no recording: name the folder that was given with --record", folder)
    return nodes


def pack_header() -> bytes:
    """The first bytes of a segment."""
    fields = _HEADER.pack(_MAGIC, VERSION)
    return fields + _CHECKSUM.pack(zlib.crc32(fields))


def pack_frame(entries: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The header and the body of a frame that holds ``entries``, each of which is one MessagePack array."""
    body = b"".join((_ARRAY.pack(_ARRAY_OF_32_BITS, len(entries)), *entries))
    fields = _FRAME.pack(len(body), zlib.crc32(body))
    return fields + _CHECKSUM.pack(zlib.crc32(fields)), body


def damaged(path: str, offset: int, what: str) -> RecordingError:
    """The error for a segment at ``path`` in which ``what`` is wrong at ``offset``."""
    return RecordingError(f"{path} is damaged at offset {offset}: {what}", path, offset)


def entries_of(data: bytes, path: str, may_be_torn: bool) -> Iterator[bytes]:
    """The entries in the bytes of a segment, in their order.

    :param path: the file, for errors.
    :param may_be_torn: whether it is the last of its run, so that a torn tail is no error.
    :raises RecordingError: if the bytes are no sound segment.
    """
    if len(data) < HEADER_BYTES and may_be_torn:
        return
    _check_header(data, path)
    offset = HEADER_BYTES
    while offset < len(data):
        body = _frame_at(data, offset, path, may_be_torn)
        if body is None:
            return
        yield from _divided(body, path, offset)
        offset += FRAME_HEADER_BYTES + len(body)


def _check_header(data: bytes, path: str) -> None:
    if len(data) < HEADER_BYTES or not data.startswith(_MAGIC):
        raise RecordingError(f"{path} is no file of a recording", path)
    _, version = _HEADER.unpack_from(data)
    if _CHECKSUM.unpack_from(data, _HEADER.size) != (zlib.crc32(data[: _HEADER.size]),):
        raise damaged(path, 0, "the checksum of the header does not match")
    if version != VERSION:
        raise RecordingError(
            f"{path} has format version {version}, this program knows version {VERSION}: use the release that wrote it",
            path,
        )


def _frame_at(data: bytes, offset: int, path: str, may_be_torn: bool) -> bytes | None:
    """The body of the frame at ``offset``; ``None`` if it is torn, and may be."""
    head = data[offset : offset + FRAME_HEADER_BYTES]
    length, checksum, body = 0, 0, b""
    if len(head) < FRAME_HEADER_BYTES:
        what = "the file ends within a frame"
    elif _CHECKSUM.unpack_from(head, _FRAME.size) != (zlib.crc32(head[: _FRAME.size]),):
        what = "the checksum of a frame's header does not match"
    else:
        length, checksum = _FRAME.unpack_from(head)
        body = data[offset + FRAME_HEADER_BYTES : offset + FRAME_HEADER_BYTES + length]
        if len(body) == length and zlib.crc32(body) == checksum:
            return body
        what = "the file ends within a frame" if len(body) < length else "the checksum of a frame does not match"
    # The rest of the file is looked at only here, once: a file may have very many frames.
    if may_be_torn and _is_torn(head, body, length, data[offset + len(head) :]):
        return None
    raise damaged(path, offset, what)


def _is_torn(head: bytes, body: bytes, length: int, rest: bytes) -> bool:
    """Whether a frame that is not sound may be one that was not written to its end.

    :param body: the body, as far as it is there; empty if the header is not sound.
    :param rest: all that follows the header.
    """
    if len(head) < FRAME_HEADER_BYTES or len(body) < length:
        return True
    if head.endswith(b"\0") and not rest.strip(b"\0"):
        return True  # A part of the header is there.
    # The size of the file was on disk, its last bytes were not.
    return bool(body) and len(rest) == length and body.endswith(b"\0")


def _divided(body: bytes, path: str, offset: int) -> list[bytes]:
    """The entries in the body of the frame at ``offset``."""
    try:
        return [bytes(entry) for entry in _decode_raw(body)]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise damaged(path, offset, f"a frame does not hold entries: {error}") from None
