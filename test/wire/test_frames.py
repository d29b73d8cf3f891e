"""Messages on a stream, however the stream cuts them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txpaxos.errors import CodecError, ValueTooLarge
from txpaxos.wire import frames
from txpaxos.wire.frames import FRAME_BYTES_MAX, FRAME_BYTES_MAX_DEFAULT, HANDSHAKE_BYTES_MAX, FrameSplitter, frame

PLENTY_SECONDS = 20.0
"""Far above what linear work takes here (under 1 s), far below what quadratic would (minutes)."""


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def test_layout() -> None:
    assert frame(b"value") == b"\x00\x00\x00\x05value"


@given(st.lists(st.binary(max_size=HANDSHAKE_BYTES_MAX), max_size=10))
def test_all_at_once(messages: list[bytes]) -> None:
    assert list(FrameSplitter().feed(b"".join(map(frame, messages)))) == messages


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_byte_by_byte(messages: list[bytes]) -> None:
    splitter = FrameSplitter()
    got = [message for byte in pieces(b"".join(map(frame, messages)), 1) for message in splitter.feed(byte)]
    assert got == messages


@given(st.lists(st.binary(max_size=300), max_size=10), st.randoms(use_true_random=False))
def test_in_random_chunks(messages: list[bytes], rng: Random) -> None:
    splitter, stream = FrameSplitter(), b"".join(map(frame, messages))
    got: list[bytes] = []
    while stream:
        size = rng.randint(0, 400)
        got += splitter.feed(stream[:size])
        stream = stream[size:]
    assert got == messages


def test_a_message_comes_as_soon_as_it_is_whole() -> None:
    splitter, data = FrameSplitter(), frame(b"value")
    assert list(splitter.feed(data[:-1])) == []
    assert list(splitter.feed(data[-1:] + b"\x00")) == [b"value"]
    assert list(splitter.feed(b"\x00\x00\x00")) == [b""]


def test_what_waits_is_what_came_and_is_not_returned() -> None:
    splitter, data = FrameSplitter(), frame(b"value")
    assert splitter.waiting_bytes == 0
    assert list(splitter.feed(data + data[:-1])) == [b"value"]
    assert splitter.waiting_bytes == len(data) - 1
    assert list(splitter.feed(data[-1:])) == [b"value"]
    assert splitter.waiting_bytes == 0


def test_too_long_for_a_stranger() -> None:
    splitter = FrameSplitter()
    assert list(splitter.feed(frame(b"x" * 1024))) == [b"x" * 1024]
    with pytest.raises(CodecError, match="1025 bytes on a stream: at most 1024"):
        list(splitter.feed(frame(b"x" * 1025)))


def test_too_long_is_refused_at_its_length_and_what_came_before_is_not_lost() -> None:
    messages = FrameSplitter().feed(frame(b"first") + b"\xff\xff\xff\xff")
    assert next(messages) == b"first"
    with pytest.raises(CodecError):
        next(messages)


def test_limit_raised_by_the_handshake_holds_for_what_came_with_it() -> None:
    splitter, got = FrameSplitter(), []
    for message in splitter.feed(frame(b"hello") + frame(b"x" * 5000)):
        got.append(message)
        splitter.frame_bytes_max = FRAME_BYTES_MAX
    assert got == [b"hello", b"x" * 5000]


def test_longest_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", 100)
    assert list(FrameSplitter(100).feed(frame(b"x" * 100))) == [b"x" * 100]
    with pytest.raises(ValueTooLarge, match="101 bytes: a stream carries at most 100"):
        frame(b"x" * 101)


def of_kind(kind: int, size: int) -> bytes:
    """A message of a kind, as bytes of a stream."""
    return frame(bytes([0, 0, 0, kind]) + bytes(size - 4))


def test_a_big_message_is_taken_only_of_a_kind_that_may_be_so_big() -> None:
    big = FRAME_BYTES_MAX_DEFAULT + 1
    for kinds in (None, {9: big}):
        assert [len(one) for one in FrameSplitter(FRAME_BYTES_MAX, kinds).feed(of_kind(9, big))] == [big]
    for kinds, kind, most in (({9: big}, 9, big), ({9: big}, 8, FRAME_BYTES_MAX_DEFAULT), ({}, 9, big - 1)):
        splitter = FrameSplitter(FRAME_BYTES_MAX, kinds)
        with pytest.raises(CodecError, match=f"{most + 1} bytes on a stream: of its kind at most {most} are taken"):
            list(splitter.feed(of_kind(kind, most + 1)))
        assert splitter.waiting_bytes == 0


def test_a_message_too_big_for_its_kind_is_refused_when_its_kind_has_come() -> None:
    splitter, data = FrameSplitter(FRAME_BYTES_MAX, {}), of_kind(9, FRAME_BYTES_MAX_DEFAULT + 1)
    assert list(splitter.feed(data[:7])) == []
    with pytest.raises(CodecError, match="of its kind at most"):
        list(splitter.feed(data[7:8]))


def test_memory_is_what_came_and_not_what_is_announced() -> None:
    splitter = FrameSplitter(FRAME_BYTES_MAX)
    tracemalloc.start()
    assert list(splitter.feed(FRAME_BYTES_MAX.to_bytes(4, "big") + bytes(1000))) == []
    announced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert announced < 10_000


def test_big_message_in_pieces_takes_little_more_memory_than_itself_and_gives_it_back() -> None:
    size = 8 * 2**20
    data = frame(bytes(size))
    splitter = FrameSplitter(FRAME_BYTES_MAX)
    tracemalloc.start()
    got = [len(message) for piece in pieces(data, 65536) for message in splitter.feed(piece)]
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got == [size]
    assert peak < 2.5 * size
    assert now < size / 10


def test_refused_message_leaves_no_memory_behind() -> None:
    splitter = FrameSplitter()
    tracemalloc.start()
    for _ in range(100):
        with pytest.raises(CodecError):
            list(splitter.feed(b"\xff" * 65536))
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 2 * 65536


@pytest.mark.no_cover  # Under coverage it would take three times as long.
@pytest.mark.parametrize(
    ("messages", "size"),
    [
        pytest.param([bytes(2**20)], 1, id="one-big-in-bytes"),
        pytest.param([bytes(32 * 2**20)], 65536, id="one-huge-in-pieces"),
        pytest.param([b"x"] * 400_000, 2**31, id="many-in-one-piece"),
        pytest.param([b"x"] * 400_000, 7, id="many-in-many-pieces"),
    ],
)
def test_work_is_linear(messages: list[bytes], size: int) -> None:
    splitter, stream, count = FrameSplitter(FRAME_BYTES_MAX), b"".join(map(frame, messages)), 0
    start = process_time()
    for piece in pieces(stream, size):
        for _ in splitter.feed(piece):
            count += 1
    assert process_time() - start < PLENTY_SECONDS
    assert count == len(messages)
