"""The bytes of a segment: what comes back, what is torn, and what is damaged."""

from __future__ import annotations

import contextlib
import struct
import zlib
from random import Random
from typing import Any

import pytest

from txpaxos.errors import RecordingError
from txpaxos.recording.entries import pack
from txpaxos.recording.files import HEADER_BYTES, entries_of, pack_frame, pack_header

ENTRIES = [pack(()), pack((1, "one")), pack((2, b"x" * 1000))]
LAST = pack(("last",))
DATA = b"".join((pack_header(), *pack_frame(ENTRIES), *pack_frame([LAST])))
LAST_FRAME = len(DATA) - len(b"".join(pack_frame([LAST])))


def read(data: bytes, may_be_torn: bool = True) -> list[bytes]:
    return list(entries_of(data, "file", may_be_torn))


@pytest.mark.parametrize("may_be_torn", [False, True])
def test_what_was_written_comes_back(may_be_torn: bool) -> None:
    assert read(DATA, may_be_torn) == [*ENTRIES, LAST]


def test_a_torn_tail_is_cut_off() -> None:
    for size in range(len(DATA)):
        assert read(DATA[:size]) == ([] if size < LAST_FRAME else ENTRIES)


class CountedBytes(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        CountedBytes.copied += len(found)
        return found


@pytest.mark.parametrize("may_be_torn", [False, True])
def test_a_segment_of_many_frames_is_read_once(monkeypatch: pytest.MonkeyPatch, may_be_torn: bool) -> None:
    """A node writes a frame each tenth of a second. To copy the rest of the file with each of them took minutes for an
    hour of a recording."""
    monkeypatch.setattr(CountedBytes, "copied", 0)
    data = CountedBytes(pack_header() + 1000 * b"".join(pack_frame([LAST])))
    assert len(read(data, may_be_torn)) == 1000
    assert CountedBytes.copied < 2 * len(data)


def test_zeros_at_the_end_are_cut_off() -> None:
    for size in range(LAST_FRAME, len(DATA)):
        assert read(DATA[:size] + bytes(len(DATA) - size)) == ENTRIES


def test_another_segment_than_the_last_may_not_be_torn() -> None:
    for size in {*range(HEADER_BYTES + 1, len(DATA))} - {LAST_FRAME}:
        with pytest.raises(RecordingError, match="the file ends within a frame") as caught:
            read(DATA[:size], may_be_torn=False)
        assert (caught.value.path, caught.value.offset) == ("file", LAST_FRAME if size > LAST_FRAME else HEADER_BYTES)


@pytest.mark.parametrize("may_be_torn", [False, True])
def test_each_flipped_bit_is_noticed(may_be_torn: bool) -> None:
    for bit in range(8 * len(DATA)):
        data = bytearray(DATA)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordingError, match="file"):
            read(bytes(data), may_be_torn)


def test_other_files_are_refused() -> None:
    for data in (b"", b"text", b"txpaxosJ" + DATA[8:], bytes(100)):
        with pytest.raises(RecordingError, match="file is no file of a recording"):
            read(data, may_be_torn=False)


def test_another_version_is_named() -> None:
    fields = struct.pack("<8sI", b"txpaxosR", 2)
    with pytest.raises(RecordingError, match="file has format version 2, this program knows version 1"):
        read(fields + struct.pack("<I", zlib.crc32(fields)) + DATA[HEADER_BYTES:])


def test_a_frame_that_holds_no_entries() -> None:
    for body in (b"", b"\xdd\0\0\0\x02\x90", b"\xdd\0\0\0\x01\x90\x90", b"\x01", b"\xc1"):
        fields = struct.pack("<II", len(body), zlib.crc32(body))
        frame = fields + struct.pack("<I", zlib.crc32(fields)) + body
        with pytest.raises(RecordingError, match="a frame does not hold entries"):
            read(pack_header() + frame)


def test_hostile_bytes_raise_one_error() -> None:
    rng = Random(0)
    for _ in range(1000):
        with contextlib.suppress(RecordingError):
            read(pack_header() + rng.randbytes(rng.randrange(100)), rng.random() < 0.5)
