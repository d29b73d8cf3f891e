"""The mark: a file of its own says how far a store has come, so that a start notices when other files lost something.

The other files cannot tell by themselves. A journal whose last frames were zeroed looks like a shorter journal. A
journal whose newest segment was removed looks as if that segment had never been created. A register of an earlier
release whose file is gone looks like a register that was never used. So the file ``acknowledged`` holds a
:class:`Mark`: the position of the next frame, the numbers of the newest and of the oldest segment, and how many
registers have a file, and which. A start that finds less is refused.

The mark never claims more than is on disk: it is written after the sync that it tells of. It must not cost a second
sync per save, either. So there are four slots, each in a block of its own:

* Two are *noted*: one write without a sync, in turn, after the sync of each save and before the save is acknowledged.
  The kernel has the write, so these slots survive any end of the process, and they are exact. A loss of power usually
  destroys them.
* Two are *secured*: one write and one sync, in turn. That happens when a segment is created, before its first frame;
  before segments are removed; when the files of the registers are removed; when the store was loaded; when it is
  closed; and once in :data:`SECURED_SAVES` saves.

A torn write damages one slot and leaves the other of its pair. The slot with the highest serial counts.

=============  =====  ====================================================================
slot at        bytes  what
=============  =====  ====================================================================
0              8      ``txpaxosM``
8              4      format version
12             8      identity of the store
20             8      serial: one more with each write of any slot
28             8      position: how many frames the journal has
36             8      number of the newest segment
44             8      number of the oldest segment that is needed
52             8      how many registers have a file
60             32     the SHA-256 of their names, all of them combined by exclusive or
92             4      crc32 of the 92 bytes before; zeros follow up to byte 4096
=============  =====  ====================================================================

All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib

import attrs

from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import TEMPORARY
from txpaxos.storage.disk import Disk, remove_if_there, write_all
from txpaxos.storage.messages import damaged, os_errors, other_version, refused

VERSION = 1
SLOT_BYTES = 4096
SECURED_SAVES = 256
"""After at most this number of saves, a slot is synced."""

_MAGIC = b"txpaxosM"
_SLOT = struct.Struct("<8sIQQQQQQ32s")
_CHECKSUM = struct.Struct("<I")
_NAMES_BYTES = 32
_SECURED_AT = 0  # The offset of a pair of slots. The bit `SLOT_BYTES` of an offset tells which slot of a pair it is.
_NOTED_AT = 2 * SLOT_BYTES
_FILE_BYTES = 4 * SLOT_BYTES


@attrs.frozen
class Mark:
    """What is on disk at least.

    :ivar position: how many frames the journal has.
    :ivar segment: the number of the journal's newest segment.
    :ivar oldest: the number of the oldest segment that is needed. Older ones may still exist.
    :ivar subjects: how many registers have a file.
    :ivar names: the exclusive or of the SHA-256 of the registers' names, as a number.
    """

    position: int = 0
    segment: int = 0
    oldest: int = 0
    subjects: int = 0
    names: int = 0


NOTHING = Mark()
"""The mark of a new store, which has its first segment and nothing else."""

UNKNOWN = Mark(oldest=2**64 - 1)
"""The mark of a store without the file, of an older version: a start takes what it finds."""


class Acknowledged:
    """The mark of one store, in the file at ``path``.

    :param identity: the store's incarnation. The file of another store is refused.
    """

    def __init__(self, disk: Disk, path: str, identity: int) -> None:
        self._disk = disk
        self._path = path
        self._identity = identity
        self._set(NOTHING)  # The mark that the next write puts on disk.
        self._serial = 0
        self._secure_at = _SECURED_AT
        self._note_at = _NOTED_AT
        self._unsecured = 0
        self._handle = -1

    def exists(self) -> bool:
        """Whether the file exists, sound or not.

        :raises StoreError: if the folder cannot be read."""
        with os_errors("read", self._path):
            try:
                self._disk.file_size(self._path)
            except FileNotFoundError:
                return False
            return True

    def create(self, mark: Mark = NOTHING) -> None:
        """Create the file with ``mark`` in every slot. An existing file is replaced.

        :raises StoreError: if that fails."""
        self._set(mark)
        with os_errors("create", self._path):
            handle = self._disk.create(self._path + TEMPORARY)
            try:
                self._disk.allocate(handle, _FILE_BYTES)
                for at in range(0, _FILE_BYTES, SLOT_BYTES):
                    write_all(self._disk, handle, self._next_slot(), at)
                self._disk.sync(handle)
            finally:
                self._disk.close(handle)
            self._disk.replace(self._path + TEMPORARY, self._path)
            self._disk.sync_directory(os.path.dirname(self._path))

    def read(self) -> Mark:
        """Read the mark: what the store acknowledged at least. The mark is on disk when this returns.

        :raises StoreError: if the file is missing or damaged, or belongs to another store."""
        with os_errors("read", self._path):
            remove_if_there(self._disk, self._path + TEMPORARY)
            try:
                data = self._disk.read(self._path)
            except FileNotFoundError:
                raise damaged(self._path, 0, "the file is missing, which says how far this store has come") from None
        if len(data) != _FILE_BYTES:
            raise damaged(self._path, min(len(data), _FILE_BYTES), f"it has {len(data)} bytes instead of {_FILE_BYTES}")
        secured, self._secure_at = self._newest(data, _SECURED_AT)
        noted, self._note_at = self._newest(data, _NOTED_AT)
        if secured is None:
            raise damaged(self._path, 0, "neither of the two slots that were synced in turn can be read")
        self._serial, mark = secured if noted is None else max(secured, noted, key=lambda slot: slot[0])
        self._set(mark)
        if mark != secured[1]:
            self.secure()  # Without this, a loss of data that is seen now could go unseen after a loss of power.
        return mark

    def begin(self, mark: Mark) -> None:
        """Begin to keep the mark of a store that was loaded and holds ``mark``.

        :raises StoreError: if a write fails."""
        self._set(mark)
        self.saved(mark.position)
        self.secure()

    def saved(self, position: int) -> None:
        """Note that a save is on disk, and that the journal has ``position`` frames. Call this before the save is
        acknowledged. Once in :data:`SECURED_SAVES` calls the mark is synced, else only written.

        :raises StoreError: if that fails, which is as final as a failed save."""
        self._position = position
        self._unsecured += 1
        if self._unsecured >= SECURED_SAVES:
            self.secure()
        else:
            self._write(self._note_at)
            self._note_at ^= SLOT_BYTES

    def segment_created(self, number: int) -> None:
        """Note that the journal has a new segment. Call this before the segment has a frame.

        :raises StoreError: as of :meth:`secure`."""
        self._segment = number
        self.secure()

    def segments_dropped(self, oldest: int) -> None:
        """Note that the journal needs no segment before the number ``oldest``. Call this before one is removed.

        :raises StoreError: as of :meth:`secure`."""
        self._oldest = oldest
        self.secure()

    def registers_removed(self) -> None:
        """Note that no register needs a file any more.

        :raises StoreError: as of :meth:`secure`."""
        self._subjects = self._names = 0
        self.secure()

    def secure(self) -> None:
        """Write the mark, and wait until it is on disk.

        :raises StoreError: if that fails, or if the file was removed: then the folder was removed, too, and all that is
            saved in it is lost with this process. This is as final as a failed save."""
        self._write(self._secure_at)
        try:
            self._disk.sync_data(self._handle)
            self._disk.file_size(self._path)  # FileNotFoundError if the file was removed.
        except OSError as error:
            raise refused("write", self._path, error) from error
        self._secure_at ^= SLOT_BYTES
        self._unsecured = 0

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._disk.close(handle)

    def _write(self, at: int) -> None:
        try:
            if self._handle < 0:
                self._handle = self._disk.open(self._path)
            write_all(self._disk, self._handle, self._next_slot(), at)
        except OSError as error:
            raise refused("write", self._path, error) from error

    def _set(self, mark: Mark) -> None:
        self._position, self._segment, self._oldest, self._subjects, self._names = attrs.astuple(mark)

    def _next_slot(self) -> bytes:
        self._serial += 1
        names = self._names.to_bytes(_NAMES_BYTES, "little")
        counts = self._position, self._segment, self._oldest, self._subjects
        fields = _SLOT.pack(_MAGIC, VERSION, self._identity, self._serial, *counts, names)
        return fields + _CHECKSUM.pack(zlib.crc32(fields))

    def _newest(self, data: bytes, pair_at: int) -> tuple[tuple[int, Mark] | None, int]:
        """The serial and the mark in the newer readable slot of a pair, and the offset for the next write."""
        slots = [(self._unpack(data, at), at) for at in (pair_at, pair_at + SLOT_BYTES)]
        found = [(slot, at) for slot, at in slots if slot is not None]
        if not found:
            return None, pair_at
        newest, at = max(found, key=lambda entry: entry[0][0])
        return newest, at ^ SLOT_BYTES

    def _unpack(self, data: bytes, at: int) -> tuple[int, Mark] | None:
        """The serial and the mark in the slot at ``at``, ``None`` if the slot cannot be read."""
        end = at + _SLOT.size
        if _CHECKSUM.unpack_from(data, end) != (zlib.crc32(data[at:end]),):
            return None
        magic, version, identity, serial, position, segment, oldest, subjects, names = _SLOT.unpack_from(data, at)
        if magic != _MAGIC:
            return None
        if version != VERSION:
            raise other_version(self._path, version, VERSION)
        if identity != self._identity:
            raise StoreError(
                f"{self._path} belongs to another store ({identity:x}, this is {self._identity:x}):"
                f" put back the file that was there"
            )
        return serial, Mark(position, segment, oldest, subjects, int.from_bytes(names, "little"))
