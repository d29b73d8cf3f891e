"""The journal: an endless row of frames, one per save, in a folder of segments.

Its laws:

1. A segment is created complete. It gets a temporary name and its full size, is synced and renamed, the folder is
   synced, and the owner is told the number of the segment before a frame is written to it. The owner is also told
   before segments are removed.
2. A frame is appended by one write in place and one sync, and only when the frame before it is synced.
3. A failed write or sync is final. After a failed sync, what the disk holds is unknown, and a second sync does not tell
   (the kernel may report success for bytes that it has dropped). So every later append is refused until a new start has
   read the journal.
4. What :meth:`Journal.read` returns is on disk when it returns, even if the process before died between a write and its
   sync.
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
    """The journal in ``directory``, which exists. Call :meth:`read` first. Of a new store, call :meth:`create` before.

    :param identity: the store's incarnation, 1 to 2**64 - 1. It stands in every segment and frame, so that a segment of
        another store is noticed.
    :param segment_bytes: the size of a segment. A segment is bigger where it must hold a bigger frame.
    :param on_segment_created: called with the number of each new segment, before it holds a frame.
    :param on_segments_dropped: called with the number of the oldest segment that is still needed, before older ones
        are removed.
    :ivar next_position: the position of the next frame, which is the number of frames that were ever appended.
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
        self._segments: list[SegmentHeader] = []  # Oldest first. Frames are appended to the last.
        self._handle = -1
        self._path = ""
        self._offset = 0
        self._failed = False
        self.next_position = 0

    @property
    def first_position(self) -> int:
        """The position of the oldest frame that the journal still has."""
        return self._segments[0].first_position

    @property
    def newest_segment(self) -> int:
        """The number of the segment to which frames are appended."""
        return self._segments[-1].number

    @property
    def oldest_segment(self) -> int:
        """The number of the oldest segment that the journal still has."""
        return self._segments[0].number

    @property
    def size_bytes(self) -> int:
        """The size of all segments that the journal still has. Each is on disk with its full size from the start."""
        return sum(header.size for header in tuple(self._segments))  # The thread that saves may change the list.

    def exists(self) -> bool:
        """Whether the folder has any segment."""
        return bool(self._numbers())

    def create(self) -> None:
        """Create the first segment, unless the folder has segments.

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
        """Read the frames that are needed, oldest first. A torn tail is removed, and logged.

        :param is_start: whether a frame is the first that is needed. It is called from the newest frame backwards, and
            segments older than that of the start are not read. Where no frame is the start, all frames are returned.
        :param whole: whether "all frames" must begin with the first that was ever written.
        :param acknowledged: what must be there at least.
        :raises StoreError: if a frame or segment is missing or damaged, or if a segment belongs to another store."""
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
        """Put one frame with ``body`` on disk. Returns its position.

        :raises StoreError: if that fails, or if an earlier append failed."""
        self._refuse_unless_sound()
        position = self.next_position
        self._failed = True  # until it has succeeded: after an interrupt, too, no frame may be written over this one
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
        """Remove the segments that hold only frames before ``position``. The newest segment always stays.

        :raises StoreError: if that fails, which is as final as a failed append."""
        self._refuse_unless_sound()
        needless = [header for header in self._segments[1:] if header.first_position <= position]
        if needless:
            self._failed = True  # until it has succeeded
            self._on_segments_dropped(needless[-1].number)
            self._failed = False
        for _ in needless:
            path = self._segment_path(self._segments[0].number)
            self._failed = True  # until it has succeeded
            with os_errors("remove", path):
                self._disk.unlink(path)
                self._disk.sync_directory(self._directory)  # after each, or a crash could leave a gap between segments
            self._failed = False
            del self._segments[0]

    def close(self) -> None:
        """Close the open segment. Every later append is refused."""
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
        """Remove unfinished segments from the folder. Returns the numbers of the others, in order."""
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
        """Create a segment file. Returns an open handle of it."""
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
        """Create a new segment with room for a frame of ``frame_size`` bytes, and append to it from now on."""
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
        """Read the header of a segment into the list of segments.

        :raises StoreError: if it is not the next segment of this store."""
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
            what = f"it begins with frame {self.first_position}, and no snapshot replaces the frames before it"
            raise damaged(self._segment_path(self._segments[0].number), 0, what)
        parts.append(frames[max(0, start) :])
        self._repair_tail(data, last[-1:])
        return [frame for part in reversed(parts) for frame in part]

    def _read_full(self, header: SegmentHeader, after: SegmentHeader) -> Frames:
        """The frames of a segment that is followed by the segment ``after``, so that no frame may be missing.

        :raises StoreError: if one is."""
        path = self._segment_path(header.number)
        frames = Frames(self._disk.read(path), header, path)
        position = header.first_position + len(frames)
        if position != after.first_position:
            what = f"frame {position} cannot be read, though frame {after.first_position} was written after it"
            raise damaged(path, frames.end, what)
        return frames

    def _repair_tail(self, data: bytes, frames: list[Frame]) -> None:
        """Open the newest segment, put its frames on disk, and leave only zeros behind them.

        The last frame is written again before the sync. The sync in the process before may have failed; then the bytes
        may be in the kernel's memory only, marked as written, and a sync alone would not put them on disk.

        :param data: the bytes of the segment.
        :param frames: the last frame, if there is one."""
        torn = torn_bytes(data, self._segments[-1], self._offset, self.next_position, self._path)
        self._handle = self._disk.open(self._path)
        for frame in frames[-1:]:
            write_all(self._disk, self._handle, data[frame.offset : frame.end], frame.offset)
        if torn:
            self._truncate_torn_tail(torn)
        self._disk.sync_data(self._handle)

    def _truncate_torn_tail(self, torn: int) -> None:
        """Zero the ``torn`` bytes that an interrupted write left behind the last frame.

        The header of the torn frame is zeroed last, so that after a crash in this method the tail still looks torn."""
        header = min(torn, ALIGNMENT_BYTES)
        write_all(self._disk, self._handle, bytes(torn - header), self._offset + header)
        self._disk.sync_data(self._handle)
        write_all(self._disk, self._handle, bytes(header), self._offset)
        _log.warn(
            "{path}: removed a torn save at offset {offset} ({bytes} bytes); it was never acknowledged",
            path=self._path,
            offset=self._offset,
            bytes=torn,
            event="torn_save_removed",
        )


def _newest(frames: Frames, is_start: Callable[[Frame], bool]) -> int:
    """The index of the newest frame for which ``is_start`` is true, -1 if there is none."""
    return next((index for index in range(len(frames) - 1, -1, -1) if is_start(frames[index])), -1)
