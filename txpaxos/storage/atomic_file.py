"""A whole state in one file, replaced as a whole: after a crash the file holds the old state or the new one.

A write goes to a temporary file in the same folder. That file is synced, then renamed over the old file, and the folder
is synced. Only the rename touches the good copy, so the two states never mix.

=========  =====  ==========================================================
at byte    bytes  what
=========  =====  ==========================================================
0          8      ``txpaxosA``
8          4      format version, 1; more where the owner of a file says so
12         8      serial: 1 for the first state, and one more for each state after
20         4      length of the payload
24         4      crc32 of the 24 bytes before and of the payload
28                the payload, to the end of the file
=========  =====  ==========================================================

All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk, remove_if_there, write_all
from txpaxos.storage.messages import damaged, os_errors, other_version

VERSION = 1
TEMPORARY = ".new"
"""The ending of the name of an unfinished file. A start removes such a file: it was never acknowledged."""

_MAGIC = b"txpaxosA"
_HEADER = struct.Struct("<8sIQI")
_CHECKSUM = struct.Struct("<I")
_PAYLOAD_AT = _HEADER.size + _CHECKSUM.size


class AtomicFile:
    """One state, kept in the file at ``path``, whose folder exists.

    :param version: the format version that is written. Older versions are read, too.
    :ivar serial: how many states were written so far; -1 until the file was read.
    :ivar found_version: the format version of the file that was read, 0 if there was none.
    """

    __slots__ = ("_disk", "_failed", "_version", "found_version", "path", "serial")

    def __init__(self, disk: Disk, path: str, version: int = VERSION) -> None:
        self._disk = disk
        self._failed = False
        self._version = version
        self.path = path
        self.serial = -1
        self.found_version = 0

    def read(self, *, sync_folder: bool = True) -> bytes | None:
        """The state that was written last, or ``None`` if there is none. It is on disk when this returns.

        A crash may have come between a rename and the sync of the folder. So the folder is synced first.

        :param sync_folder: ``False`` if the caller has synced the folder.
        :raises StoreError: if the file is damaged, of another format version, or cannot be read.
        """
        with os_errors("read", self.path):
            if sync_folder:
                self._disk.sync_directory(os.path.dirname(self.path))
            remove_if_there(self._disk, self.path + TEMPORARY)
            try:
                data = self._disk.read(self.path)
            except FileNotFoundError:
                self.serial = 0
                return None
        self.found_version, self.serial, payload = _unpack(data, self.path, self._version)
        return payload

    def write(self, payload: bytes) -> None:
        """Replace the state by ``payload``, which is on disk when this returns.

        :raises StoreError: if the write fails. A failure is final: every later write is refused, since only a new start
            can find out what the disk holds.
        """
        if self._failed:
            raise StoreError(f"cannot write {self.path}: an earlier write failed; start the node again")
        if self.serial < 0:
            self.read()
        self._failed = True  # until the write has succeeded
        with os_errors("write", self.path):
            self._replace(_pack(self._version, self.serial + 1, payload))
        self._failed = False
        self.serial += 1

    def _replace(self, data: bytes) -> None:
        temporary = self.path + TEMPORARY
        handle = self._disk.create(temporary)
        try:
            write_all(self._disk, handle, data, 0)
            self._disk.sync(handle)
        finally:
            self._disk.close(handle)
        self._disk.replace(temporary, self.path)
        self._disk.sync_directory(os.path.dirname(self.path))


def _pack(version: int, serial: int, payload: bytes) -> bytes:
    header = _HEADER.pack(_MAGIC, version, serial, len(payload))
    return header + _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(header))) + payload


def _unpack(data: bytes, path: str, newest: int) -> tuple[int, int, bytes]:
    """The version, the serial and the payload in the bytes of a file.

    :raises StoreError: if the bytes are not exactly what was written."""
    if len(data) < _PAYLOAD_AT:
        raise damaged(path, len(data), f"the file ends within its first {_PAYLOAD_AT} bytes")
    magic, version, serial, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise damaged(path, 0, "this is no txpaxos state file")
    if not VERSION <= version <= newest:
        raise other_version(path, version, newest)
    payload = data[_PAYLOAD_AT:]
    if len(payload) != length:
        raise damaged(path, len(data), f"the file has {len(payload)} bytes of state instead of {length}")
    (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
    if checksum != zlib.crc32(payload, zlib.crc32(data[: _HEADER.size])):
        raise damaged(path, _HEADER.size, "the checksum does not match")
    return version, serial, payload
