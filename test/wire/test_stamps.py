"""What the leader puts before a batch: the time, and the timers that are kept alive."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from test.helpers.wire_samples import BATCH
from txpaxos.errors import CodecError, UnknownVersion
from txpaxos.replicated_time import UTC_MS_MAX, ReplicatedTime
from txpaxos.wire.commands import decode_batch, encode_batch
from txpaxos.wire.stamps import (
    KEPT_ALIVE_BYTES_MAX,
    KEPT_ALIVE_MAX,
    NUMBER_MAX,
    KeptAlive,
    Stamp,
    stamp_of,
    stamped,
)

TIME = ReplicatedTime(elapsed_ms=5, utc_ms=1_800_000_000_123)
KEPT = (KeptAlive("größe", 1), KeptAlive("b", NUMBER_MAX))
TOGETHER = (KeptAlive(NUMBER_MAX - 1, NUMBER_MAX),)


def test_a_value_has_a_time() -> None:
    plain = encode_batch(BATCH)
    value = stamped(TIME, plain)
    assert value == b"T" + bytes(7) + b"\x05" + (1_800_000_000_123).to_bytes(8, "big") + plain
    assert (stamp_of(value), decode_batch(value)) == (Stamp(TIME), decode_batch(plain))
    assert (stamp_of(plain), stamp_of(b"")) == (None, None)
    assert (stamp_of(stamped(TIME, b"")), decode_batch(stamped(TIME, b""))) == (Stamp(TIME), ())


@pytest.mark.parametrize("batch", [b"", encode_batch(BATCH)])
@pytest.mark.parametrize(
    "stamp", [Stamp(TIME, KEPT), Stamp(TIME, TOGETHER + KEPT), Stamp(TIME, KEPT[:1], 2**32 - 1), Stamp(TIME, (), 2000)]
)
def test_a_value_keeps_timers_alive(stamp: Stamp, batch: bytes) -> None:
    value = stamped(stamp.time, batch, stamp.kept_alive, stamp.grace_ms)
    assert value[:1] == b"K"
    assert (stamp_of(value), decode_batch(value)) == (stamp, decode_batch(batch))


def test_the_size_of_one_is_its_most() -> None:
    head = len(stamped(TIME, b"", (), 1))
    for kept in (*KEPT, *TOGETHER, KeptAlive("x" * 512, NUMBER_MAX)):
        assert len(stamped(TIME, b"", (kept,))) - head <= kept.size_bytes


@pytest.mark.parametrize(
    "value",
    [
        b"T",
        b"T" + bytes(15),
        b"T" + b"\xff" * 16,
        b"T" + (2**53).to_bytes(8, "big") + bytes(8),
        b"T" + bytes(8) + (UTC_MS_MAX + 1).to_bytes(8, "big"),
        b"K",
        b"K" + bytes(23),
        b"K" + bytes(24),
        b"K" + bytes(23) + b"\x01",
        b"K" + b"\xff" * 16 + bytes(7) + b"\x01\x90",
        b"K" + bytes(20) + (KEPT_ALIVE_BYTES_MAX + 1).to_bytes(4, "big") + bytes(KEPT_ALIVE_BYTES_MAX + 1),
        b"K" + bytes(23) + b"\x04\x91\x91\xa1a",
        b"K" + bytes(23) + b"\x05\x91\x92\xa1a\x00",
        b"K" + bytes(23) + b"\x05\x91\x92\xa1\xff\x01",
        b"K" + bytes(23) + b"\x06\x91\x92\xa1a\x01\x90",
        b"K" + bytes(22) + b"\x02\x0c" + b"\x91\x92\xda\x02\x01" + b"a" * 513 + b"\x01" + bytes(5),
    ],
)
def test_what_is_no_stamp_is_refused(value: bytes) -> None:
    with pytest.raises(CodecError, match="no stamp"):
        stamp_of(value)


def test_a_stamp_that_ends_early_has_no_batch() -> None:
    value = stamped(TIME, b"", KEPT)
    for end in range(1, len(value)):
        assert decode_batch(value[:end]) == ()
        with pytest.raises(CodecError):
            stamp_of(value[:end])


def test_more_than_can_be_decoded_is_not_encoded() -> None:
    for kept in ([KEPT[1]] * (KEPT_ALIVE_MAX + 1), [KeptAlive("x" * 512, 1)] * 300):
        with pytest.raises(ValueError, match="too many to keep alive in one value"):
            stamped(TIME, b"", kept)
    assert len(stamp_of(stamped(TIME, b"", [KEPT[1]] * KEPT_ALIVE_MAX)).kept_alive) == KEPT_ALIVE_MAX  # type: ignore[union-attr]


def test_an_earlier_release_refuses_what_keeps_timers_alive() -> None:
    """It takes the first byte for a version that it does not know, as this one does with the next letter."""
    with pytest.raises(UnknownVersion):
        decode_batch(b"L" + stamped(TIME, b"", KEPT)[1:])


@pytest.mark.parametrize("kept", [(), KEPT])
def test_a_batch_of_another_version_is_so_with_a_stamp_too(kept: tuple[KeptAlive, ...]) -> None:
    with pytest.raises(UnknownVersion):
        decode_batch(stamped(TIME, b"\x07", kept))


def test_a_stamp_within_a_stamp_is_no_batch() -> None:
    for kept in ((), KEPT):
        with pytest.raises(CodecError):
            decode_batch(stamped(TIME, stamped(TIME, encode_batch(BATCH), kept)))


def test_a_time_is_a_date() -> None:
    assert TIME.utc == datetime(2027, 1, 15, 8, 0, 0, 123_000, UTC)
    assert ReplicatedTime(elapsed_ms=1500).elapsed_seconds == 1.5
    assert ReplicatedTime(0, UTC_MS_MAX).utc.year == 9999
