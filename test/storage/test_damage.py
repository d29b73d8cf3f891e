"""Damage to the journal: what a torn tail looks like and is cut off, and what is refused as rot."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import provider

from test.storage.test_disk import Crash, FaultyDisk, VolatileDisk
from test.storage.test_journal import IDENTITY, SEGMENT_BYTES, Journals, fill
from txpaxos.errors import StoreError
from txpaxos.storage.journal import Journal
from txpaxos.storage.segment import SECTOR_BYTES, SegmentHeader, frame_bytes, pack_frame


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[Journals]:
    """A folder for a journal."""
    journals = Journals(tmp_path)
    yield journals
    journals.close()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What the journal logs."""
    lines: list[str] = []

    @provider(ILogObserver)
    def observer(event: LogEvent) -> None:
        if event.get("log_namespace") == "txpaxos.storage.journal":
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def flipped(data: bytes, bit: int) -> bytes:
    """``data`` with one bit turned over."""
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


# --------------------------------------------------------------- a torn tail


def assert_cut_off(journals: Journals, kept: list[bytes], warnings: list[str]) -> None:
    """That the torn frame is gone, for good, with one line that says so, and that the journal goes on."""
    assert journals.read() == kept
    (line,) = warnings
    assert line.startswith(f"{journals.segment()}: removed a torn save at offset ")
    warnings.clear()
    end = journals.frames()[-1].end
    assert journals.segment().read_bytes()[end:].count(0) == SEGMENT_BYTES - end
    journals.new([b"next"])
    assert journals.read() == [*kept, b"next"]
    assert warnings == []


@pytest.mark.parametrize("body", [b"", b"x", b"value" * 30, bytes(700), b"y" * 600])
@pytest.mark.parametrize("before", [b"first", b"p" * 380, b"p" * 411])
def test_the_last_frame_torn_at_any_byte_is_cut_off(
    journals: Journals, warnings: list[str], before: bytes, body: bytes
) -> None:
    journals.new([before, body])
    data = journals.segment().read_bytes()
    frame = journals.frames()[1]
    for length in range(frame.end - frame.offset):
        journals.write(data)
        journals.write(bytes(frame.end - frame.offset - length), frame.offset + length)
        if journals.segment().read_bytes() == data:
            continue  # nothing but zeros was cut
        if length and data[frame.offset : frame.offset + length].strip(b"\0"):
            assert_cut_off(journals, [before], warnings)
        else:
            assert journals.read() == [before]


@pytest.mark.parametrize("body", [b"y" * 2000, bytes(2000), b"y" * 600 + bytes(1400), bytes(1000) + b"y" * 1000])
@pytest.mark.parametrize("before", [b"first", b"p" * 380, b"p" * 411])
def test_the_last_frame_without_any_of_its_sectors_is_cut_off(
    journals: Journals, warnings: list[str], before: bytes, body: bytes
) -> None:
    journals.new([before, body])
    data = journals.segment().read_bytes()
    frame = journals.frames()[1]
    cuts = [frame.offset, *range(frame.offset + -frame.offset % 512, frame.end, 512), frame.end]
    pieces = [(start, end) for start, end in itertools.pairwise(cuts) if start < end]
    assert len(pieces) >= 4
    for missing in itertools.product([False, True], repeat=len(pieces)):
        torn = bytearray(data)
        for (start, end), gone in zip(pieces, missing, strict=True):
            if gone:
                torn[start:end] = bytes(end - start)
        journals.write(torn)
        if torn == data:
            assert journals.read() == [before, body]
        elif torn[frame.offset :].strip(b"\0"):
            assert_cut_off(journals, [before], warnings)
        else:
            assert journals.read() == [before]


def torn_after(length: int) -> Callable[..., Any]:
    """A fault: the process ends when this number of bytes of a write are done."""

    def fault(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        if name == "write_at":
            handle, data, offset = arguments
            call(handle, bytes(data)[:length], offset)
        raise Crash

    return fault


@pytest.mark.parametrize("missing", [(0, 448), (448, 960), (960, 1472), (1530, 1568), (40, 1568)])
def test_a_crash_while_a_torn_tail_is_cut_off_leaves_a_torn_tail(missing: tuple[int, int]) -> None:
    for at, length, seed in itertools.product(range(12), (0, 3, 31, 40, 300, 490, 1000, 1535), range(3)):
        disk = VolatileDisk(random.Random(f"{at} {length} {seed}"))
        fill(disk, [b"first", b"y" * 1530])
        handle = disk.open("/j/00000000.segment")
        disk.write_at(handle, bytes(missing[1] - missing[0]), 576 + missing[0])
        disk.sync_data(handle)
        faulty = FaultyDisk(disk, at, torn_after(length))
        for _ in range(2):
            crashed = Journal(faulty, "/j", IDENTITY, SEGMENT_BYTES)
            try:
                assert [frame.body for frame in crashed.read()] == [b"first"]
            except Crash:
                disk.lose_power()
                faulty = FaultyDisk(disk)
        assert [frame.body for frame in Journal(disk, "/j", IDENTITY, SEGMENT_BYTES).read()] == [b"first"]


def test_the_first_frame_of_all_may_be_torn(journals: Journals) -> None:
    journals.new([b"only"])
    journals.write(bytes(10), journals.frames()[0].end - 10)
    assert journals.read() == []


# -------------------------------------------------------------------- rot


@pytest.mark.parametrize("later", [[b"last"], [b"x" * 6900], [b"x" * 6900, b"last"]])
@pytest.mark.parametrize("body", [b"value" * 20, bytes(600)])
def test_a_flipped_bit_in_an_acknowledged_frame_is_refused(journals: Journals, body: bytes, later: list[bytes]) -> None:
    """The frame after it is in the same segment, or in the next."""
    journals.new([b"first", body, *later])
    data = journals.segment().read_bytes()
    frame = journals.frames()[1]
    for byte in range(frame.offset, frame.end):
        journals.write(flipped(data, byte * 8 + byte % 8))
        with pytest.raises(StoreError, match=rf"{journals.segment()} is damaged at offset {frame.offset}: frame 1"):
            journals.read()
    journals.write(data)
    assert journals.read() == [b"first", body, *later]


@pytest.mark.parametrize(
    ("body", "step"), [(b"", 1), (b"value" * 20, 1), (bytes(600), 5), (b"y" * 1100, 7), (b"y" * 600 + bytes(1200), 13)]
)
def test_a_flipped_bit_in_the_last_frame_is_refused(journals: Journals, body: bytes, step: int) -> None:
    """It is whole, so it may have been acknowledged. (Some of these have sectors that were zeros from the start.)"""
    journals.new([b"first", body])
    data = journals.segment().read_bytes()
    frame = journals.frames()[1]
    for bit in range(frame.offset * 8, frame.end * 8, step):
        journals.write(flipped(data, bit))
        with pytest.raises(StoreError, match=rf"at offset {frame.offset}: frame 1 .* no part of it is missing"):
            journals.read()


@pytest.mark.parametrize("number", [0, 1])
def test_a_flipped_bit_in_the_header_of_a_segment_is_refused(journals: Journals, number: int) -> None:
    journals.new([b"x" * 5000] * 2)
    data = journals.segment(number).read_bytes()
    for byte in range(SECTOR_BYTES):
        journals.write(flipped(data, byte * 8 + byte % 8), number=number)
        with pytest.raises(StoreError, match=str(journals.segment(number))):
            journals.read()


def test_zeros_in_place_of_an_acknowledged_frame_are_refused(journals: Journals) -> None:
    journals.new([b"a" * 100, b"b" * 100, b"c" * 100])
    data = journals.segment().read_bytes()
    for frame in journals.frames()[:2]:
        journals.write(data)
        journals.write(bytes(frame.end - frame.offset), frame.offset)
        with pytest.raises(StoreError, match=rf"at offset {frame.offset}: frame {frame.position} cannot be read"):
            journals.read()


def test_zeros_at_the_end_of_a_full_segment_are_refused(journals: Journals) -> None:
    journals.new([b"a" * 3000, b"b" * 3000, b"c" * 3000])
    frame = journals.frames()[1]
    journals.write(bytes(frame.end - frame.offset), frame.offset)
    with pytest.raises(
        StoreError, match=rf"{journals.segment()} .* {frame.offset}: .* though frame 2 was written after"
    ):
        journals.read()


def test_a_missing_frame_is_refused(journals: Journals) -> None:
    journals.new([b"a" * 100, b"b" * 100, b"c" * 100])
    data, frames = journals.segment().read_bytes(), journals.frames()
    size = frames[2].end - frames[2].offset
    journals.write(data[frames[2].offset : frames[2].end] + bytes(size), frames[1].offset)
    with pytest.raises(StoreError, match=r"frame 1 cannot be read, though frame 2 was written after it"):
        journals.read()


def test_a_repeated_frame_is_refused(journals: Journals) -> None:
    journals.new([b"a" * 100, b"b" * 100])
    data, frames = journals.segment().read_bytes(), journals.frames()
    journals.write(data[frames[0].offset : frames[0].end], frames[1].end)
    with pytest.raises(StoreError, match=r"frame 2 cannot be read, though no part of it is missing"):
        journals.read()


def test_a_frame_of_another_store_is_refused(journals: Journals) -> None:
    journals.new([b"a"])
    journals.write(pack_frame(b"b", IDENTITY + 1, 1, 0), journals.frames()[0].end)
    with pytest.raises(StoreError, match=r"frame 1 cannot be read, though no part of it is missing"):
        journals.read()


def test_bytes_behind_a_torn_frame_are_refused(journals: Journals) -> None:
    journals.new([b"a", b"b" * 100])
    frame = journals.frames()[1]
    journals.write(bytes(32), frame.end - 32)
    journals.write(b"?", frame.end + 5)
    with pytest.raises(StoreError, match="frame 1"):
        journals.read()


def test_a_header_that_alone_is_gone_is_refused(journals: Journals) -> None:
    journals.new([b"a", b"b" * 100])
    journals.write(bytes(32), journals.frames()[1].offset)
    with pytest.raises(StoreError, match="frame 1"):
        journals.read()


def test_a_frame_longer_than_its_segment_is_refused(journals: Journals) -> None:
    journals.new([b"a"])
    offset = journals.frames()[0].end
    fields = struct.pack("<IIQQI", SEGMENT_BYTES, 0, IDENTITY, 1, 0)
    journals.write(fields + struct.pack("<I", zlib.crc32(fields)), offset)
    with pytest.raises(StoreError, match="frame 1"):
        journals.read()


def test_a_value_that_looks_like_frames_is_a_value(journals: Journals) -> None:
    journals.new([b"a", b"b"])
    copied = journals.segment().read_bytes()[SECTOR_BYTES : journals.frames()[1].end]
    frame_at = journals.frames()[1].end
    journals.new([copied + bytes([7] * 100)])
    assert journals.read()[2].startswith(copied)
    journals.write(bytes(32), frame_at + frame_bytes(len(copied) + 100) - 32)
    assert journals.read() == [b"a", b"b"]  # torn, though copies of earlier frames stand in it


def test_a_missing_segment_is_refused(journals: Journals) -> None:
    journals.new([b"x" * 5000] * 4)
    journals.segment(2).unlink()
    with pytest.raises(StoreError, match=rf"{journals.segment(2)} is damaged at offset 0: the file is missing"):
        journals.read()
    journals.segment(0).unlink()
    journals.segment(1).unlink()
    with pytest.raises(StoreError, match="it begins with frame 3, and no snapshot replaces"):
        journals.read()
    journals.segment(3).unlink()
    with pytest.raises(StoreError, match="there is no journal segment left"):
        journals.read()


def test_a_segment_under_another_name_is_refused(journals: Journals) -> None:
    journals.new([b"x" * 5000] * 2)
    journals.segment(1).rename(journals.segment(2))
    with pytest.raises(StoreError, match="this is segment 1 under another one's name"):
        journals.read()


def test_a_segment_of_another_length_is_refused(journals: Journals) -> None:
    journals.new([b"a"])
    data = journals.segment().read_bytes()
    for length in (0, 100, 512, 4096, SEGMENT_BYTES - 1, SEGMENT_BYTES + 1):
        journals.segment().write_bytes(data[:length].ljust(length, b"\0"))
        with pytest.raises(
            StoreError, match=rf"{journals.segment()} is damaged at offset {min(length, SEGMENT_BYTES)}"
        ):
            journals.read()


def test_another_version_is_refused(journals: Journals) -> None:
    journals.new([b"a"])
    journals.write(b"\7", 8)
    with pytest.raises(StoreError, match="has format version 7, this program knows version 1"):
        journals.read()


def test_another_store_s_segment_is_refused(journals: Journals) -> None:
    journals.new([b"a"])
    with pytest.raises(StoreError, match=r"00000000.segment belongs to another store \(1122334455667788, this is 7b\)"):
        journals.read(identity=123)


def test_a_segment_that_does_not_go_on_from_the_one_before_is_refused(journals: Journals) -> None:
    journals.new([b"x" * 5000] * 2)
    header = SegmentHeader(IDENTITY, 1, 7, SEGMENT_BYTES)
    journals.write(header.pack(), number=1)
    with pytest.raises(StoreError, match="frame 1 cannot be read, though frame 7 was written after it"):
        journals.read()


def test_the_log_line_names_file_offset_and_bytes(journals: Journals, warnings: list[str]) -> None:
    journals.new([b"a", b"b" * 100])
    frame = journals.frames()[1]
    journals.write(bytes(frame.end - frame.offset - 40), frame.offset + 40)
    journals.read()
    assert warnings == [
        f"{journals.segment()}: removed a torn save at offset {frame.offset} (40 bytes); it was never acknowledged"
    ]
