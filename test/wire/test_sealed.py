"""Sealed datagrams: only the right ones are opened, each once, whatever the bytes are and however they overtake."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txpaxos.errors import CodecError
from txpaxos.keys.ciphers import WRONG_TAG, new_cipher
from txpaxos.wire import sealed
from txpaxos.wire.codec import PEER_MAGIC
from txpaxos.wire.sealed import (
    HEAD_BYTES,
    OVERHEAD_BYTES,
    SEALED_MAGIC,
    SECRET_BYTES,
    WINDOW,
    DatagramOpener,
    DatagramSealer,
    NotSealed,
    Replayed,
    UnknownSession,
    WrongTag,
)

SECRET, OTHER, THIRD = (bytes([one]) * SECRET_BYTES for one in (1, 2, 3))


def sealer(secret: bytes = SECRET, worn: Callable[[], object] = lambda: None) -> DatagramSealer:
    return DatagramSealer(secret, new_cipher, worn)


def opener(**secrets: bytes) -> DatagramOpener:
    made = DatagramOpener(new_cipher, WRONG_TAG)
    for peer, secret in (secrets or {"b": SECRET}).items():
        made.add(peer, secret)
    return made


def is_opened(at: DatagramOpener, data: bytes) -> bool:
    try:
        at.open(data)
    except CodecError:
        return False
    return True


def test_the_bytes_of_a_sealed_datagram() -> None:
    """Another release has to open them."""
    by = sealer(bytes(range(SECRET_BYTES)))
    assert by.seal(b"message").hex() == (
        "5073012021222324252627000000000000000063d9c6add44be64acc6c5f0230668c8add259b967e545a"
    )
    assert by.seal(b"")[:HEAD_BYTES].hex() == "50730120212223242526270000000000000001"
    assert not PEER_MAGIC.startswith(SEALED_MAGIC[:1])


@given(st.lists(st.binary(max_size=1500), max_size=20))
def test_what_is_sealed_is_opened(messages: list[bytes]) -> None:
    by, at = sealer(), opener()
    for message in messages:
        data = by.seal(message)
        assert len(data) == len(message) + OVERHEAD_BYTES
        assert len(message) < 8 or message not in data
        assert at.open(data) == ("b", message)


def test_every_wrong_bit_is_refused() -> None:
    by, at = sealer(), opener()
    data = by.seal(b"a message")
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            at.open(bytes(wrong))
    assert at.open(data) == ("b", b"a message"), "nothing that was refused has counted"


def test_every_truncated_or_longer_datagram_is_refused() -> None:
    by, at = sealer(), opener()
    data = by.seal(b"a message")
    for length in range(len(data)):
        with pytest.raises(NotSealed if length < OVERHEAD_BYTES else WrongTag):
            at.open(data[:length])
    with pytest.raises(WrongTag):
        at.open(data + b"\0")
    assert at.open(data) == ("b", b"a message")


def test_each_part_of_the_head_is_looked_at() -> None:
    by, at = sealer(), opener()
    data = by.seal(b"a message")
    with pytest.raises(NotSealed, match="not sealed: keys are on here"):
        at.open(PEER_MAGIC + data[2:])
    with pytest.raises(NotSealed, match="version 2, and this node knows version 1"):
        at.open(data[:2] + b"\2" + data[3:])
    with pytest.raises(UnknownSession):
        at.open(data[:3] + bytes(8) + data[11:])
    with pytest.raises(WrongTag):
        at.open(data[:11] + bytes(7) + b"\1" + data[19:])


def test_the_tag_is_looked_at() -> None:
    by, at = sealer(), opener()
    data = by.seal(b"a message")
    with pytest.raises(WrongTag):
        at.open(data[:-16] + bytes(16))


def test_no_counter_is_used_twice() -> None:
    by, count = sealer(), 70_000
    data = [by.seal(b"the same") for _ in range(count)]
    assert [int.from_bytes(one[HEAD_BYTES - 8 : HEAD_BYTES]) for one in data] == list(range(count))
    assert len({one[HEAD_BYTES:] for one in data}) == count


def test_a_datagram_is_opened_once() -> None:
    by, at = sealer(), opener()
    data = by.seal(b"a message")
    at.open(data)
    for _ in range(3):
        with pytest.raises(Replayed):
            at.open(data)


def test_datagrams_overtake_each_other_up_to_the_window() -> None:
    by, at = sealer(), opener()
    data = [by.seal(b"%d" % one) for one in range(WINDOW + 1)]
    at.open(data[-1])
    with pytest.raises(Replayed, match="too old"):
        at.open(data[0])
    late = list(range(1, WINDOW))
    Random(5).shuffle(late)
    assert [at.open(data[one])[1] for one in late] == [b"%d" % one for one in late]
    assert not any(is_opened(at, one) for one in data)


@pytest.mark.parametrize("ahead", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 10 * WINDOW, sealed.RENEW_AT - 1])
def test_a_leap_of_the_counter_leaves_nothing_to_be_opened_again(ahead: int) -> None:
    by, at = sealer(), opener()
    first = by.seal(b"first")
    by._counter = ahead
    leap = by.seal(b"leap")
    at.open(first)
    at.open(leap)
    for data in (first, leap):
        with pytest.raises(Replayed):
            at.open(data)


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=200))
def test_in_any_order_each_is_opened_at_most_once(order: list[int]) -> None:
    """What the window does is what a set of all counters would do, but for those that are too old."""
    by, at = sealer(), opener()
    seen: set[int] = set()
    for counter in order:
        by._counter = counter
        may = counter not in seen and counter > max(seen, default=0) - WINDOW
        assert is_opened(at, by.seal(b"x")) == may
        if may:
            seen.add(counter)


def test_a_forged_counter_does_not_move_the_window() -> None:
    by, at = sealer(), opener()
    data = [by.seal(b"x") for _ in range(3)]
    forged = data[2][:11] + (2**40).to_bytes(8, "big") + data[2][19:]
    with pytest.raises(WrongTag):
        at.open(forged)
    assert all(is_opened(at, one) for one in data)


def test_each_session_belongs_to_its_peer() -> None:
    at = opener(b=SECRET, c=OTHER)
    assert at.open(sealer(OTHER).seal(b"x")) == ("c", b"x")
    assert at.open(sealer(SECRET).seal(b"x")) == ("b", b"x")
    of_b = opener(b=SECRET, c=OTHER), sealer(SECRET).seal(b"x")
    with pytest.raises(WrongTag):
        of_b[0].open(of_b[1][:3] + OTHER[32:] + of_b[1][11:])
    with pytest.raises(CodecError, match="same session"):
        at.add("d", THIRD[:32] + SECRET[32:])
    assert at.peers == ("b", "c")


def test_the_session_before_is_kept_and_no_older_one() -> None:
    """Datagrams under the one before may be on their way. What was opened under it stays opened."""
    at, by = opener(), [sealer(secret) for secret in (SECRET, OTHER, THIRD)]
    replayed = by[0].seal(b"replayed")
    at.open(replayed)
    at.add("b", OTHER)
    assert is_opened(at, by[0].seal(b"late"))
    with pytest.raises(Replayed):
        at.open(replayed)
    at.add("b", THIRD)
    with pytest.raises(UnknownSession):
        at.open(by[0].seal(b"too late"))
    assert is_opened(at, by[1].seal(b"late"))
    assert is_opened(at, by[2].seal(b"newest"))
    at.forget("b")
    at.forget("b")
    assert at.peers == ()
    assert not any(is_opened(at, one.seal(b"x")) for one in by)


def test_nothing_that_was_recorded_is_opened_after_a_restart_of_the_receiver() -> None:
    by, before = sealer(), opener()
    recorded = [by.seal(b"x") for _ in range(10)]
    assert all(is_opened(before, one) for one in recorded)
    after = opener(b=OTHER)
    for one in recorded:
        with pytest.raises(UnknownSession):
            after.open(one)


def test_a_secret_is_replaced_before_it_is_worn_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "RENEW_AT", 3)
    monkeypatch.setattr(sealed, "SEALED_MAX", 5)
    asked: list[int] = []
    by = sealer(worn=lambda: asked.append(by._counter))
    assert [bool(by.seal(b"x")) for _ in range(8)] == [True] * 5 + [False] * 3
    assert asked == [3]


@pytest.mark.fuzz
def test_any_bytes_are_refused_with_one_kind_of_error() -> None:
    rng, at = Random(os.environ.get("TXPAXOS_FUZZ_SEED", "1")), opener()
    for _ in range(2000):
        begins = rng.choice([b"", SEALED_MAGIC, SEALED_MAGIC + b"\1", SEALED_MAGIC + b"\1" + SECRET[32:]])
        with pytest.raises(CodecError):
            at.open(begins + rng.randbytes(rng.choice([0, 1, 16, 24, 40, 1400])))
