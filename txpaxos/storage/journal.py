"""The journal: an endless row of frames, one per save, in a folder of segments.

Its laws:

1. A segment is created complete: made under a temporary name, given its full size, synced, renamed, the folder synced,
   and its number told before a frame is written to it. That it is not needed any more is told before it is removed.
2. A frame is appended by one write in place and one sync, and only when the frame before it is synced.
3. A failed write or sync is final. After a failed sync nobody knows what the disk holds, not even by asking again (the
   kernel may report success for bytes it has dropped), so every later append is refused until a new start has read.
4. What :meth:`Journal.read` returns is on disk when it returns, also when the process before died between the write and
   the sync.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.errors import StoreError
from txpaxos.storage.acknowledged import UNKNOWN, Mark
from txpaxos.storage.atomic_file import TEMPORARY
from txpaxos.storage.disk import Disk, remove_if_there, write_all
from txpaxos.storage.messages import damaged, os_errors, refused
from txpaxos.storage.segment import (
    ALIGNMENT_BYTES,
    SECTOR_BYTES,
    Frame,
    Frames,
    SegmentHeader,
    frame_bytes,
    pack_frame,
    torn_bytes,
)

SEGMENT_BYTES = 64 << 20
_SUFFIX = ".segment"
_PAGE_BYTES = 4096
_log = Logger()


class Journal:
    """The journal in ``directory``, which exists. Call :meth:`read` first (and :meth:`create` before it, once ever).

    :param identity: of the store, 1 to 2**64 - 1. Stamped into every segment and frame, so that none of another store
        passes for one of this.
    :param segment_bytes: the size of a segment, but for one that must hold a frame bigger than that.
    :param on_segment_created: called with the number of each new segment, before it holds a frame.
    :param on_segments_dropped: called with the number of the oldest segment that is still needed, before older ones
        are removed.

    ``next_position`` is the position of the next frame: how many were ever appended.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        identity: int,
        segment_bytes: int = SEGMENT_BYTES,
        on_segment_created: Callable[[int], None] = lambda number: None,
        on_segments_dropped: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._disk = disk
        self._on_segment_created = on_segment_created
        self._on_segments_dropped = on_segments_dropped
        self._directory = directory
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._segments: list[SegmentHeader] = []  # oldest first; the last is the one appended to
        self._handle = -1
        self._path = ""
        self._offset = 0
        self._failed = False
        self.next_position = 0

    @property
    def first_position(self) -> int:
        """The position of the oldest frame that is still here."""
        return self._segments[0].first_position

    @property
    def newest_segment(self) -> int:
        """The number of the segment that is appended to."""
        return self._segments[-1].number

    @property
    def oldest_segment(self) -> int:
        """The number of the oldest segment that is still here."""
        return self._segments[0].number

    def exists(self) -> bool:
        """Whether there is any segment."""
        return bool(self._numbers())

    def create(self) -> None:
        """Make the first segment, unless there is one.

        :raises StoreError: if that fails."""
        with os_errors("create the journal in", self._directory):
            if not self.exists():
                header = SegmentHeader(self._identity, 0, 0, self._size_for(0))
                self._disk.close(self._create_segment(header))

    def read(
        self,
        is_start: Callable[[Frame], bool] = lambda frame: False,
        *,
        whole: bool = True,
        acknowledged: Mark = UNKNOWN,
    ) -> list[Frame]:
        """Every frame from the newest one on for which ``is_start`` is true, oldest first; or all, if none
        has. ``is_start`` is asked from the newest frame backwards, and what is older than that is not read, but for the
        rest of its segment. A torn tail is cut off, and logged.

        :param whole: whether "all" must begin with the first frame ever written.
        :param acknowledged: what must be there at least.
        :raises StoreError: if anything that is read is missing or damaged, or if a segment belongs to another store."""
        with os_errors("read the journal in", self._directory):
            self._disk.sync_directory(self._directory)
            numbers = self._numbers()
            if not numbers:
                raise damaged(self._directory, 0, "there is no journal segment left in this folder")
            for number in numbers:
                self._read_header(number)
            if self.newest_segment < acknowledged.segment:
                missing = self._segment_path(self.newest_segment + 1)
                raise damaged(missing, 0, "the file is missing, though it was begun")
            if self.oldest_segment > acknowledged.oldest:
                missing = self._segment_path(acknowledged.oldest)
                raise damaged(missing, 0, "the file is missing, though it is needed")
            return self._read_back(is_start, whole, acknowledged)

    def append(self, body: bytes) -> int:
        """Put one frame on disk. Returns its position.

        :raises StoreError: if that fails, or if an earlier append did."""
        self._refuse_unless_sound()
        position = self.next_position
        self._failed = True  # until it has worked: also when interrupted, another frame must not go on top of this one
        try:
            if self._offset + frame_bytes(len(body)) > self._segments[-1].size:
                self._next_segment(frame_bytes(len(body)))
            frame = pack_frame(body, self._identity, position, self._offset)
            write_all(self._disk, self._handle, frame, self._offset)
            self._disk.sync_data(self._handle)
        except OSError as error:
            raise refused("write", self._path, error) from error
        self._failed = False
        self._offset += len(frame)
        self.next_position = position + 1
        return position

    def drop_before(self, position: int) -> None:
        """Remove the segments that hold only frames before ``position``. The newest segment stays in any case.

        :raises StoreError: if that fails. This is as final as a failed append."""
        self._refuse_unless_sound()
        needless = [header for header in self._segments[1:] if header.first_position <= position]
        if needless:
            self._failed = True  # until it has worked
            self._on_segments_dropped(needless[-1].number)
            self._failed = False
        for _ in needless:
            path = self._segment_path(self._segments[0].number)
            self._failed = True  # until it has worked
            with os_errors("remove", path):
                self._disk.unlink(path)
                self._disk.sync_directory(self._directory)  # each by itself, or a crash might keep only an older one
            self._failed = False
            del self._segments[0]

    def close(self) -> None:
        """Close the open segment. Nothing can be appended afterwards."""
        self._failed = True
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._disk.close(handle)

    def _refuse_unless_sound(self) -> None:
        if self._failed or not self._segments:
            raise StoreError(f"cannot write {self._path or self._directory}: it must be opened and read again first")

    # ------------------------------------------------------------- segments

    def _segment_path(self, number: int) -> str:
        return f"{self._directory}/{number:08d}{_SUFFIX}"

    def _numbers(self) -> list[int]:
        """The numbers of the segments in the folder, after unfinished ones were removed."""
        names = self._disk.list_directory(self._directory)
        for name in names:
            if name.endswith(_SUFFIX + TEMPORARY):
                remove_if_there(self._disk, f"{self._directory}/{name}")
        stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _size_for(self, frame_size: int) -> int:
        needed = SECTOR_BYTES + frame_size
        return self._segment_bytes if needed <= self._segment_bytes else needed + -needed % _PAGE_BYTES

    def _create_segment(self, header: SegmentHeader) -> int:
        """Make a segment. Returns a handle on it."""
        path = self._segment_path(header.number)
        handle = self._disk.create(path + TEMPORARY)
        try:
            self._disk.allocate(handle, header.size)
            write_all(self._disk, handle, header.pack(), 0)
            self._disk.sync(handle)
            self._disk.replace(path + TEMPORARY, path)
            self._disk.sync_directory(self._directory)
        except BaseException:
            self._disk.close(handle)
            raise
        return handle

    def _next_segment(self, frame_size: int) -> None:
        """Go on in a new segment that has room for ``frame_size`` bytes."""
        number = self._segments[-1].number + 1
        header = SegmentHeader(self._identity, number, self.next_position, self._size_for(frame_size))
        full, self._path = self._handle, self._segment_path(number)
        self._handle = self._create_segment(header)
        self._segments.append(header)
        self._offset = SECTOR_BYTES
        self._disk.close(full)
        self._on_segment_created(number)

    # -------------------------------------------------------------- reading

    def _read_header(self, number: int) -> None:
        """Take note of a segment. Refuse it if it is not this store's next one."""
        path = self._segment_path(number)
        start = self._disk.read_at(path, 0, SECTOR_BYTES)
        header = SegmentHeader.unpack(start, path, self._disk.file_size(path))
        if header.identity != self._identity:
            raise StoreError(
                f"{path} belongs to another store ({header.identity:x}, this is {self._identity:x}):"
                f" move it out of this folder, and put back what was there"
            )
        if header.number != number:
            raise damaged(path, 0, f"this is segment {header.number} under another one's name")
        if self._segments and number != self._segments[-1].number + 1:
            missing = self._segment_path(self._segments[-1].number + 1)
            raise damaged(missing, 0, "the file is missing, though there are segments before and after it")
        self._segments.append(header)

    def _read_back(self, is_start: Callable[[Frame], bool], whole: bool, acknowledged: Mark) -> list[Frame]:
        newest = self._segments[-1]
        self._path = self._segment_path(newest.number)
        data = self._disk.read(self._path)
        frames = last = Frames(data, newest, self._path)
        self._offset, self.next_position = frames.end, newest.first_position + len(frames)
        if self.next_position < acknowledged.position:
            what = f"frame {self.next_position} cannot be read, though {acknowledged.position} frames were acknowledged"
            raise damaged(self._path, self._offset, what)
        parts: list[list[Frame]] = []
        start = _newest(frames, is_start)
        for header, after in zip(self._segments[-2::-1], self._segments[:0:-1], strict=True):
            if start >= 0:
                break
            parts.append(frames[:])
            frames = self._read_full(header, after)
            start = _newest(frames, is_start)
        if whole and start < 0 < self.first_position:
            what = f"it begins with frame {self.first_position}, and no snapshot stands for those before it"
            raise damaged(self._segment_path(self._segments[0].number), 0, what)
        parts.append(frames[max(0, start) :])
        self._repair_tail(data, last[-1:])
        return [frame for part in reversed(parts) for frame in part]

    def _read_full(self, header: SegmentHeader, after: SegmentHeader) -> Frames:
        """The frames of a segment that ends where ``after`` begins."""
        path = self._segment_path(header.number)
        frames = Frames(self._disk.read(path), header, path)
        position = header.first_position + len(frames)
        if position != after.first_position:
            what = f"frame {position} cannot be read, though frame {after.first_position} was written after it"
            raise damaged(path, frames.end, what)
        return frames

    def _repair_tail(self, data: bytes, frames: list[Frame]) -> None:
        """Make the newest segment fit to go on with: what was read of it on disk, and zeros behind.

        The last frame is written once more before the sync: if the sync it had from the process before had failed, its
        bytes may be in memory only and count as clean there, so a sync alone would not put them on disk."""
        torn = torn_bytes(data, self._segments[-1], self._offset, self.next_position, self._path)
        self._handle = self._disk.open(self._path)
        for frame in frames[-1:]:
            write_all(self._disk, self._handle, data[frame.offset : frame.end], frame.offset)
        if torn:
            self._truncate_torn_tail(torn)
        self._disk.sync_data(self._handle)

    def _truncate_torn_tail(self, torn: int) -> None:
        """Zero the ``torn`` bytes of a frame's write that was cut short. The frame's header goes last, so that a crash
        in here leaves what still looks torn."""
        header = min(torn, ALIGNMENT_BYTES)
        write_all(self._disk, self._handle, bytes(torn - header), self._offset + header)
        self._disk.sync_data(self._handle)
        write_all(self._disk, self._handle, bytes(header), self._offset)
        _log.warn(
            "{path}: cut off a torn save at offset {offset} ({bytes} bytes); it was never acknowledged",
            path=self._path,
            offset=self._offset,
            bytes=torn,
        )


def _newest(frames: Frames, is_start: Callable[[Frame], bool]) -> int:
    """The index of the newest frame that is a start; -1 if none has."""
    return next((index for index in range(len(frames) - 1, -1, -1) if is_start(frames[index])), -1)
