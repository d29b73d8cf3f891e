"""Writes the segments of one run, within a bound, and never in the way of the reactor.

The entries of a tenth of a second go to disk in one write, by a thread of their own. Nothing is synced: what a killed
process had written is kept, and a machine that loses its power may lose the last seconds of the recording, which are of
no use to the node.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from threading import Event, Thread
from typing import Protocol, cast

from txpaxos.log_lines import described
from txpaxos.recording.files import LOCK, Segment, pack_frame, pack_header, segments_in
from txpaxos.storage.disk import Disk, ensure_directory, write_all

FRAME_BYTES = 2**20
"""A frame of what a segment begins with is closed when its entries have that size."""

FRAME_ENTRIES = 4096
"""The most entries in another frame."""

WRITE_SECONDS = 0.1
"""How long an entry waits for others, at the most, before it is written."""

STATE_PART = 4
"""A state of the core may have this part of all bytes, so that there is room for a later one beside it."""

WAITING_BYTES_MAX = 2**26
"""What may wait for a slow disk. Beyond it the recording ends."""

STOP_SECONDS = 2.0
"""How long a node that stops waits for the last entries to be written."""


class Files:
    """The segments of one run.

    :param folder: the folder of the node. It is made if it is absent.
    :param bytes_max: the most bytes of all segments in it. Those of earlier runs count, too, and go first.
    :raises OSError: (all methods) if the disk refuses.
    :ivar run: the number of this run.
    :ivar first_bytes: the size of what the segment begins with.
    """

    def __init__(self, disk: Disk, folder: str, bytes_max: int) -> None:
        self._disk, self._folder, self._bytes_max = disk, folder, bytes_max
        ensure_directory(disk, folder)
        try:
            self._lock = disk.lock(f"{folder}/{LOCK}")
        except BlockingIOError:
            raise OSError(f"another process records to {folder}") from None
        try:
            self._sizes = {one: disk.file_size(self._path(one)) for one in segments_in(disk, folder)}
        except OSError:
            disk.close(self._lock)
            raise
        self.run = max((one.run for one in self._sizes), default=0) + 1
        self.first_bytes = 0
        self._current: Segment | None = None
        self._handle = -1

    def begin(self, number: int, entries: Iterable[bytes]) -> None:
        """Close the segment, and begin another one with ``entries``."""
        self._close_segment()
        segment = Segment(self.run, number)
        self._handle = self._disk.create(self._path(segment))
        self._current, self._sizes[segment] = segment, 0
        self._append(pack_header())
        some: list[bytes] = []
        some_bytes = 0
        for entry in entries:
            some.append(entry)
            some_bytes += len(entry)
            if some_bytes >= FRAME_BYTES:
                self.write(some)
                some, some_bytes = [], 0
                self._check_first_bytes(segment)
        self.write(some)
        self.first_bytes = self._check_first_bytes(segment)

    def _check_first_bytes(self, segment: Segment) -> int:
        size = self._sizes[segment]
        if size > self._bytes_max // STATE_PART:
            raise OSError(f"the state of the core has more than {size} bytes: allow more than {self._bytes_max} in all")
        return size

    def write(self, entries: Sequence[bytes]) -> None:
        """Add ``entries`` to the segment."""
        self._append(*pack_frame(entries))

    def close(self) -> None:
        """Close everything."""
        self._close_segment()
        self._disk.close(self._lock)

    def _append(self, *parts: bytes) -> None:
        assert self._current is not None
        self._make_room(sum(map(len, parts)))
        for part in parts:
            write_all(self._disk, self._handle, part, self._sizes[self._current])
            self._sizes[self._current] += len(part)

    def _make_room(self, size: int) -> None:
        """Remove the oldest segments, until ``size`` bytes more are within the bound."""
        oldest = iter(sorted(self._sizes))
        while sum(self._sizes.values()) + size > self._bytes_max:
            segment = next(oldest)
            if segment == self._current:
                raise OSError(f"one segment would have more than {self._bytes_max} bytes")
            self._disk.unlink(self._path(segment))
            del self._sizes[segment]

    def _close_segment(self) -> None:
        if self._current is not None:
            self._current = None
            self._disk.close(self._handle)

    def _path(self, segment: Segment) -> str:
        return f"{self._folder}/{segment.name}"


class Writer(Protocol):
    """Writes entries in the order in which they are given."""

    @property
    def error(self) -> OSError | None:
        """Why nothing is written any more; ``None`` if all is well."""

    @property
    def first_bytes(self) -> int:
        """The size of what the last segment that was written begins with."""

    def put(self, entry: bytes) -> OSError | None:
        """Write ``entry`` soon. Returns why nothing is written any more; ``None`` if all is well."""

    def begin(self, entries: Iterable[bytes]) -> None:
        """Begin the next segment with ``entries``, which are made one by one as they are written."""

    def close(self) -> None:
        """Write all that waits, and close the files. It may take ``STOP_SECONDS``."""

    def abandon(self) -> None:
        """Write nothing more, and close the files. It waits for nothing."""


class DirectWriter:
    """Writes in the caller's thread, when there is enough for a write. For simulations, which have no other thread."""

    def __init__(self, files: Files, write_bytes: int = 2**16) -> None:
        self._error: OSError | None = None
        self._files = files
        self._write_bytes = write_bytes
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._segments = 0

    @property
    def error(self) -> OSError | None:
        """See :class:`Writer`."""
        return self._error

    @property
    def first_bytes(self) -> int:
        """See :class:`Writer`."""
        return self._files.first_bytes

    def put(self, entry: bytes) -> OSError | None:
        """See :class:`Writer`."""
        self._waiting.append(entry)
        self._waiting_bytes += len(entry)
        if self._waiting_bytes >= self._write_bytes:
            self._write()
        return self._error

    def begin(self, entries: Iterable[bytes]) -> None:
        """See :class:`Writer`."""
        self._write()
        self._segments += 1
        if self._error is None:
            try:
                self._files.begin(self._segments, entries)
            except Exception as error:
                self._error = _as_os_error(error)

    def close(self) -> None:
        """See :class:`Writer`."""
        self._write()
        self.abandon()

    def abandon(self) -> None:
        """See :class:`Writer`."""
        try:
            self._files.close()
        except OSError as error:
            self._error = self._error or error

    def _write(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting and self._error is None:
            try:
                self._files.write(waiting)
            except OSError as error:
                self._error = error


class ThreadWriter:
    """Writes in a thread of its own. What it is given waits in memory meanwhile.

    The thread looks every ``WRITE_SECONDS`` for what there is. To wake it with each entry would cost more than to write
    it."""

    def __init__(self, files: Files) -> None:
        self._error: OSError | None = None
        self._files = files
        # Entries, and what begins a segment. To append and to pop is one step each.
        self._waiting: deque[bytes | Iterable[bytes]] = deque()
        self._put_bytes = self._written_bytes = self._begins = 0
        self._wake = Event()
        self._stops = False
        self._thread = Thread(target=self._run, name="txpaxos-recording", daemon=True)
        self._thread.start()

    @property
    def error(self) -> OSError | None:
        """See :class:`Writer`."""
        return self._error

    @property
    def first_bytes(self) -> int:
        """See :class:`Writer`."""
        return self._files.first_bytes

    def put(self, entry: bytes) -> OSError | None:
        """See :class:`Writer`."""
        self._waiting.append(entry)
        self._put_bytes += len(entry)
        if self._put_bytes - self._written_bytes > WAITING_BYTES_MAX and self._error is None:
            self._error = OSError(f"more than {WAITING_BYTES_MAX} bytes wait for it")
        return self._error

    def begin(self, entries: Iterable[bytes]) -> None:
        """See :class:`Writer`."""
        self._begins += 1  # Before it is there to be taken.
        self._waiting.append(entries)
        self._wake.set()

    def close(self) -> None:
        """See :class:`Writer`."""
        self._stops = True
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    def abandon(self) -> None:
        """See :class:`Writer`."""
        self._error = self._error or OSError("abandoned")
        self._stops = True
        self._wake.set()

    def _run(self) -> None:
        segments = 0
        try:
            while not (self._stops and not self._waiting):
                self._wake.wait(WRITE_SECONDS)
                self._wake.clear()
                while self._waiting and self._error is None:
                    segments = self._write_some(segments)
                if self._error is not None:
                    break
        except Exception as error:  # No entry is written after it, so the node has to hear of it.
            self._error = _as_os_error(error)
        finally:
            self._waiting.clear()
            self._close_files()

    def _write_some(self, segments: int) -> int:
        """Write a frame, or as much as there is before a segment begins. Returns how many segments there are."""
        take = self._waiting.popleft
        taken = [take() for _ in range(min(len(self._waiting), FRAME_ENTRIES))]
        entries: list[bytes] = []
        if self._begins == segments:  # None of them begins a segment.
            entries = cast("list[bytes]", taken)
        else:
            for one in taken:
                if isinstance(one, bytes):
                    entries.append(one)
                    continue
                self._write_entries(entries)
                entries = []
                segments += 1
                self._files.begin(segments, one)
        self._write_entries(entries)
        return segments

    def _write_entries(self, entries: Sequence[bytes]) -> None:
        if entries:
            self._files.write(entries)
            self._written_bytes += sum(map(len, entries))

    def _close_files(self) -> None:
        try:
            self._files.close()
        except OSError as error:
            self._error = self._error or error


def folder_of(directory: str, node: str) -> str:
    """The folder of ``node`` in the recording at ``directory``."""
    return os.path.join(directory, node)


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(described(error))
