"""The journal: what comes back, what a torn tail looks like, and what is refused as rot."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, VolatileDisk, crash_before, failing
from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.journal import Journal
from txpaxos.storage.segment import SECTOR_BYTES, Frame, Frames, SegmentHeader, frame_bytes

IDENTITY = 0x1122334455667788
SEGMENT_BYTES = 8192


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[Journals]:
    """A folder for a journal."""
    journals = Journals(tmp_path)
    yield journals
    journals.close()


class Journals:
    """A folder for a journal, and the journals opened on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[Journal] = []

    def new(self, bodies: Iterable[bytes] = (), segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """A new journal of some frames."""
        journal = Journal(UnsyncedDisk(), str(self.path), IDENTITY, segment_bytes)
        journal.create()
        journal.read()
        self.opened.append(journal)
        for body in bodies:
            journal.append(body)
        return journal

    def read(self, since: int = 0, identity: int = IDENTITY) -> list[bytes]:
        """What a journal opened now reads that looks for the frame at position ``since``."""
        journal = Journal(UnsyncedDisk(), str(self.path), identity, SEGMENT_BYTES)
        try:
            return [frame.body for frame in journal.read(lambda frame: frame.position == since)]
        finally:
            journal.close()

    def segment(self, number: int = 0) -> Path:
        return self.path / f"{number:08d}.segment"

    def frames(self, number: int = 0) -> list[Frame]:
        """The frames in a segment."""
        data = self.segment(number).read_bytes()
        return [*Frames(data, SegmentHeader.unpack(data, ""), "")]

    def write(self, data: bytes | bytearray, offset: int = 0, number: int = 0) -> None:
        """Put other bytes into a segment."""
        whole = bytearray(self.segment(number).read_bytes())
        whole[offset : offset + len(data)] = data
        self.segment(number).write_bytes(whole)

    def close(self) -> None:
        for journal in self.opened:
            journal.close()


def fill(disk: Disk, bodies: Iterable[bytes]) -> None:
    """Make a journal of some frames in the folder ``/j`` of a disk in memory."""
    disk.make_directory("/j")
    disk.sync_directory("/")
    journal = Journal(disk, "/j", IDENTITY, SEGMENT_BYTES)
    journal.create()
    journal.read()
    for body in bodies:
        journal.append(body)
    journal.close()


# ------------------------------------------------------------ what comes back


def test_frames_come_back_with_their_positions(journals: Journals) -> None:
    bodies = [b"", b"one", bytes(600), b"x" * 31, b"y" * 28]
    journal = journals.new()
    assert [journal.append(body) for body in bodies] == [0, 1, 2, 3, 4]
    assert (journal.first_position, journal.next_position) == (0, 5)
    assert journals.read() == bodies
    assert journals.read(since=3) == bodies[3:]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9000), max_size=12), st.randoms(use_true_random=False))
def test_bodies_of_any_size_come_back(tmp_path: Path, sizes: list[int], rng: random.Random) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    journals = Journals(folder)
    bodies = [rng.randbytes(size) if rng.random() < 0.7 else bytes(size) for size in sizes]
    journals.new(bodies)
    assert journals.read() == bodies
    journals.close()


def test_a_save_is_one_write_and_one_sync(journals: Journals) -> None:
    journals.new()
    disk = FaultyDisk(UnsyncedDisk())
    journal = Journal(disk, str(journals.path), IDENTITY, SEGMENT_BYTES)
    journal.read()
    disk.calls.clear()
    journal.append(b"x" * 1000)
    assert disk.calls == ["write_at", "sync_data"]
    journal.close()


def test_a_full_segment_is_followed_by_another(journals: Journals) -> None:
    bodies = [b"%d" % number * 700 for number in range(60)]
    journal = journals.new(bodies)
    assert len(list(journals.path.iterdir())) > 5
    assert {path.stat().st_size for path in journals.path.iterdir()} == {SEGMENT_BYTES}
    assert journals.read() == bodies
    assert journals.read(since=30) == bodies[30:]
    assert journal.next_position == 60


def test_a_frame_may_fill_a_segment_to_the_last_byte(journals: Journals) -> None:
    fitting = SEGMENT_BYTES - SECTOR_BYTES - frame_bytes(0)
    assert frame_bytes(fitting) == SEGMENT_BYTES - SECTOR_BYTES
    for _ in range(2):
        journals.new([b"x" * fitting])
    assert len(list(journals.path.iterdir())) == 2
    assert journals.read() == [b"x" * fitting] * 2


def test_a_big_frame_gets_a_segment_that_holds_it(journals: Journals) -> None:
    bodies = [b"small", b"x" * 100_000, b"small", b"y" * 50_000]
    journals.new(bodies)
    assert [journals.segment(number).stat().st_size for number in range(3)] == [8192, 102400, 53248]
    assert journals.read() == bodies


def test_an_unfinished_segment_is_removed(journals: Journals) -> None:
    journals.new([b"a"])
    (journals.path / "00000001.segment.new").write_bytes(b"txp")
    (journals.path / "notes.txt").write_bytes(b"not ours")
    (journals.path / "my.segment").write_bytes(b"not ours")
    assert journals.read() == [b"a"]
    assert sorted(path.name for path in journals.path.iterdir()) == ["00000000.segment", "my.segment", "notes.txt"]


def test_creating_again_changes_nothing(journals: Journals) -> None:
    journal = journals.new([b"a"])
    assert journal.exists()
    journal.create()
    assert journals.read() == [b"a"]


def test_old_segments_can_be_dropped(journals: Journals) -> None:
    bodies = [b"%d" % number * 700 for number in range(60)]
    journal = journals.new(bodies)
    first_positions = [segment.first_position for segment in journal._segments]
    journal.drop_before(first_positions[3] - 1)
    assert journal.first_position == first_positions[2]
    journal.drop_before(first_positions[3])
    assert journal.first_position == first_positions[3]
    assert not journals.segment(2).exists()
    assert journals.segment(3).exists()
    assert journals.read(since=first_positions[3]) == bodies[first_positions[3] :]
    journal.append(b"more")
    journal.drop_before(1000)
    assert len(list(journals.path.iterdir())) == 1
    assert journals.read(since=60) == [b"more"]
    with pytest.raises(StoreError, match=r"segment is damaged at offset 0: it begins with frame \d+, and no snapshot"):
        journals.read()


def test_a_crash_while_segments_are_dropped_leaves_no_gap() -> None:
    for at, seed in itertools.product(range(8), range(10)):
        disk = VolatileDisk(random.Random(f"{at} {seed}"))
        fill(disk, [b"%d" % number * 5000 for number in range(5)])
        faulty = FaultyDisk(disk, fault=crash_before)
        journal = Journal(faulty, "/j", IDENTITY, SEGMENT_BYTES)
        with contextlib.suppress(Crash):
            journal.read()
            faulty.at = len(faulty.calls) + at
            journal.drop_before(4)
        disk.lose_power()
        frames = Journal(disk, "/j", IDENTITY, SEGMENT_BYTES).read(lambda frame: frame.position == 4)
        assert [frame.position for frame in frames] == [4]


def test_a_failed_drop_is_final(journals: Journals) -> None:
    journals.new([b"x" * 5000] * 3)
    disk = FaultyDisk(UnsyncedDisk())
    journal = Journal(disk, str(journals.path), IDENTITY, SEGMENT_BYTES)
    journal.read()
    disk.at, disk.fault = len(disk.calls), failing(errno.EIO)
    with pytest.raises(StoreError, match=r"cannot remove .*00000000.segment"):
        journal.drop_before(3)
    for refused in (journal.append, journal.drop_before):
        with pytest.raises(StoreError, match="must be opened and read again"):
            refused(3)  # type: ignore[arg-type]
    journal.close()
    assert journals.read() == [b"x" * 5000] * 3


def test_nothing_is_appended_before_reading_or_after_closing(journals: Journals) -> None:
    journal = Journal(UnsyncedDisk(), str(journals.path), IDENTITY)
    with pytest.raises(StoreError, match="must be opened and read"):
        journal.append(b"x")
    journal.close()
    closed = journals.new()
    closed.close()
    with pytest.raises(StoreError, match="must be opened and read"):
        closed.append(b"x")


def test_a_failed_append_is_final(journals: Journals) -> None:
    journals.new([b"a"])
    for at, number in itertools.product(range(2), (errno.EIO, errno.ENOSPC)):
        disk = FaultyDisk(UnsyncedDisk())
        journal = Journal(disk, str(journals.path), IDENTITY, SEGMENT_BYTES)
        journal.read()
        disk.at, disk.fault = len(disk.calls) + at, failing(number)
        with pytest.raises(StoreError, match=r"cannot write .*00000000.segment: .*; (check|free)"):
            journal.append(b"b")
        calls = len(disk.calls)
        with pytest.raises(StoreError, match="must be opened and read again"):
            journal.append(b"c")
        assert len(disk.calls) == calls
        journal.close()
    assert journals.read() in ([b"a"], [b"a", b"b"], [b"a", b"b", b"b"])


def test_an_interrupted_append_is_final(journals: Journals) -> None:
    def interrupted(name: str, *_: object) -> None:
        raise KeyboardInterrupt

    disk = FaultyDisk(UnsyncedDisk())
    journals.new()
    journal = Journal(disk, str(journals.path), IDENTITY, SEGMENT_BYTES)
    journal.read()
    disk.at, disk.fault = len(disk.calls) + 1, interrupted
    with pytest.raises(KeyboardInterrupt):
        journal.append(b"b" * 500)
    with pytest.raises(StoreError):
        journal.append(b"c")
    journal.close()
    assert journals.read() == [b"b" * 500]
