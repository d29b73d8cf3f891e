"""The file of a backup: what a cluster's state was after one slot.

It has the layout of a snapshot (:mod:`~txpaxos.storage.snapshot_file`), so each piece has a checksum, and pieces that
are lost, repeated or moved are noticed. The first byte of each piece is its kind:

=====  ==================================================================
byte   the rest of the piece
=====  ==================================================================
``H``  MessagePack of :class:`~txpaxos.wire.client_messages.BackupHead`; always the first piece
``V``  MessagePack: an array of the values of the next slots behind the snapshot
``S``  the next bytes of the snapshot's file
``D``  the BLAKE2b of all pieces before, 16 bytes long; always the last piece
=====  ==================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

import attrs
import msgspec

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk, write_all
from txpaxos.storage.messages import os_errors
from txpaxos.storage.snapshot_file import SnapshotPacker, SnapshotReader
from txpaxos.wire.client_messages import BackupHead

T = TypeVar("T")

HEAD, VALUES, SNAPSHOT, DIGEST = b"H", b"V", b"S", b"D"
DIGEST_BYTES = 16

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class Backup:
    """A backup that was checked to its last byte.

    :ivar digest: the checksum of all of it, in hexadecimal.
    :ivar size_bytes: the size of the file.
    """

    path: str
    head: BackupHead
    digest: str
    size_bytes: int


class BackupWriter:
    """Writes a backup to a temporary file beside ``path``; the file has its name when it is complete and on disk.

    :raises StoreError: (each method) if a system call fails.
    """

    def __init__(self, path: str, head: BackupHead, disk: Disk | None = None) -> None:
        self._disk = disk or Disk()
        self._path = os.path.abspath(path)
        self._temporary = f"{self._path}.new"
        self._packer = SnapshotPacker(head.through)
        self._hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._offset = 0
        with os_errors("create", self._temporary):
            self._handle = self._disk.create(self._temporary)
        self._write(self._packer.header)
        self._piece(HEAD + _encode(head))

    def values(self, values: list[bytes]) -> None:
        """Write the values of the next slots."""
        self._piece(VALUES + _encode(values))

    def snapshot(self, data: bytes) -> None:
        """Write the next bytes of the snapshot's file."""
        self._piece(SNAPSHOT + data)

    def finish(self) -> Backup:
        """Complete the file, and check it."""
        self._write(self._packer.frame(DIGEST + self._hasher.digest()))
        self._write(self._packer.end())
        with os_errors("write", self._temporary):
            self._disk.sync(self._handle)
            self._close()
        backup = read_backup(self._temporary)
        with os_errors("rename", self._temporary):
            self._disk.replace(self._temporary, self._path)
            self._disk.sync_directory(os.path.dirname(self._path))
        return attrs.evolve(backup, path=self._path)

    def abandon(self) -> None:
        """Remove the temporary file."""
        self._close()
        with suppress(OSError):
            self._disk.unlink(self._temporary)

    def _piece(self, piece: bytes) -> None:
        self._hasher.update(piece)
        self._write(self._packer.frame(piece))

    def _write(self, data: bytes) -> None:
        with os_errors("write", self._temporary):
            write_all(self._disk, self._handle, data, self._offset)
        self._offset += len(data)

    def _close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._disk.close(handle)


def read_backup(path: str, progress: Callable[[int], None] = lambda size_bytes: None) -> Backup:
    """Read the backup at ``path`` and check all of it, the snapshot in it included.

    :raises StoreError: if it cannot be read, is no backup, or is damaged."""
    pieces = _Pieces(path)
    head = pieces.head()
    slots = sum(len(values) for values in pieces.values(progress))
    if head.snapshot_slot + slots != head.through:
        raise _damaged(
            path, 0, f"it holds {slots} values behind slot {head.snapshot_slot}, and not through {head.through}"
        )
    if head.snapshot_slot:
        for chunk in pieces.snapshot():
            progress(len(chunk))
    return Backup(path, head, pieces.end(), pieces.size_bytes)


def values_of(backup: Backup) -> Iterator[list[bytes]]:
    """The values behind the snapshot, in the order of their slots, some at a time.

    :raises StoreError: (the iterator) if the file is damaged."""
    pieces = _Pieces(backup.path)
    pieces.head()
    return pieces.values()


def snapshot_of(backup: Backup) -> Iterator[bytes]:
    """The chunks of the snapshot.

    :raises StoreError: (the iterator) if the file is damaged."""
    pieces = _Pieces(backup.path)
    pieces.head()
    for _ in pieces.values():
        pass
    return pieces.snapshot()


def _damaged(path: str, offset: int, what: str) -> StoreError:
    return StoreError(f"{path} is damaged at offset {offset}, or no backup: {what}; take another copy", path, offset)


class _Pieces:
    """The pieces of the backup at ``path``, each read when it is asked for."""

    def __init__(self, path: str) -> None:
        self._path = path
        disk = Disk()
        with os_errors("read", path):
            self.size_bytes = disk.file_size(path)
            slot = int.from_bytes(disk.read_at(path, 12, 8), "little")
        self._reader = SnapshotReader(partial(_read_at, disk, path), self.size_bytes, slot, path, _damaged)
        self._chunks = self._reader.chunks()
        self._hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._next = b""
        self._head: BackupHead | None = None
        self._rest: Iterator[bytes] = iter(())  # Of the snapshot.

    def head(self) -> BackupHead:
        """The first piece."""
        self._advance()
        self._head = self._decode(BackupHead) if self._next.startswith(HEAD) else None
        if self._head is None:
            raise _damaged(self._path, 0, "it has no head")
        self._advance()
        return self._head

    def values(self, progress: Callable[[int], None] = lambda size_bytes: None) -> Iterator[list[bytes]]:
        """The pieces with values."""
        while self._next.startswith(VALUES):
            progress(len(self._next))
            yield self._decode(list[bytes])
            self._advance()

    def snapshot(self) -> Iterator[bytes]:
        """The chunks of the snapshot whose bytes are in the next pieces."""
        assert self._head is not None
        self._rest = self._snapshot_bytes()
        read = _Row(self._rest).read
        size, slot = self._head.snapshot_bytes, self._head.snapshot_slot
        return SnapshotReader(read, size, slot, f"the snapshot in {self._path}", _damaged).chunks()

    def end(self) -> str:
        """The digest of all pieces, which must be the last piece."""
        if next(self._rest, None) is not None:
            raise _damaged(self._path, self._reader.sound_bytes, "the snapshot in it is longer than it says")
        digest = self._hasher.copy().hexdigest()
        if self._next != DIGEST + bytes.fromhex(digest):
            raise _damaged(self._path, self._reader.sound_bytes, "its checksum is not that of its contents")
        if next(self._chunks, None) is not None:
            raise _damaged(self._path, self._reader.sound_bytes, "something follows its end")
        return digest

    def _snapshot_bytes(self) -> Iterator[bytes]:
        while self._next.startswith(SNAPSHOT):
            yield self._next[1:]
            self._advance()

    def _advance(self) -> None:
        if self._next:
            self._hasher.update(self._next)
        self._next = next(self._chunks, b"")

    def _decode(self, kind: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(memoryview(self._next)[1:], type=kind)
        except ValueError as error:
            raise _damaged(self._path, self._reader.sound_bytes, str(error)) from None


def _read_at(disk: Disk, path: str, offset: int, size: int) -> bytes:
    with os_errors("read", path):
        return disk.read_at(path, offset, size)


class _Row:
    """Reads a row of pieces as one file, from its beginning to its end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()
        self._buffer_at = 0

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer at the end. ``offset`` never goes down."""
        del self._buffer[: offset - self._buffer_at]
        self._buffer_at = offset
        while len(self._buffer) < size and (piece := next(self._pieces, b"")):
            self._buffer += piece
        return bytes(self._buffer[:size])
