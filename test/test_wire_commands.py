"""Batches of commands: the values of the log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.wire_samples import BATCH, RUNS, SESSIONS
from txpaxos.core.messages import NO_OP
from txpaxos.errors import CodecError
from txpaxos.wire.commands import SESSION_BYTES_MAX, Run, decode_batch, encode_batch, new_session, session_born

GOOD = BATCH[0]


@given(st.lists(RUNS, max_size=20))
def test_round_trip(runs: list[Run]) -> None:
    value = encode_batch(runs)
    assert decode_batch(value) == tuple(runs)
    assert (value == NO_OP) == (not runs)


def test_decoded_runs_are_runs() -> None:
    (run,) = decode_batch(encode_batch([GOOD]))
    assert isinstance(run, Run)
    assert (run.session, run.sequence, run.acknowledged, run.payloads) == (b"session1", 1, 0, (b"put", b"get"))
    assert list(run.sequences) == [1, 2]
    assert run.size_bytes == 6


def test_first_byte_is_the_version() -> None:
    value = encode_batch(BATCH)
    assert value[0] == 2
    assert msgspec.msgpack.decode(value[1:]) == [[*run[:3], list(run.payloads)] for run in BATCH]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x00", "batch of version 0"),
        (b"\x01\x90", "batch of version 1"),
        (b"\x02", "no batch of commands"),
        (b"\x02\xc0", "Expected `array`"),
        (b"\x02\x90\x90", "no batch of commands"),
        (b"\x02\x91\x93\xc4\x08session1\x01\x00", "length 4"),
        (b"\x02\x91\x95\xc4\x08session1\x01\x00\x91\xc4\x00\x00", "length 4"),
        (b"\x02\x91\x94\xc4\x07session\x01\x00\x91\xc4\x00", "length >= 8"),
        (b"\x02\x91\x94\xc4\x21" + b"s" * 33 + b"\x01\x00\x91\xc4\x00", "length <= 32"),
        (b"\x02\x91\x94\xc4\x08session1\xff\x00\x91\xc4\x00", "`int` >= 0"),
        (b"\x02\x91\x94\xc4\x08session1\x01\x00\x91\xa0", "Expected `bytes`, got `str`"),
        (b"\x02\x91\x94\xc4\x08session1\x01\x00\xc4\x00", "Expected `array`, got `bytes`"),
        (b"\x02\x91\x94\xc4\x08session1\x01\x00\x90", "length >= 1"),
        (b"\x02\x91\x94\xc4\x08session1\xcf" + b"\xff" * 8 + b"\x00\x92\xc4\x00\xc4\x00", "no number is left"),
        (b"\x02\xdd\xff\xff\xff\xff" + b"\x94" * 50, "no batch of commands"),
        (b"\x02" + b"\x91" * 100_000, "no batch of commands"),
    ],
)
def test_no_batch(value: bytes, reason: str) -> None:
    with pytest.raises(CodecError, match=reason) as raised:
        decode_batch(value)
    assert "\n" not in str(raised.value)


def test_batch_cut_anywhere() -> None:
    value = encode_batch(BATCH)
    for end in range(1, len(value)):
        with pytest.raises(CodecError):
            decode_batch(value[:end])


@pytest.mark.parametrize(
    "changed",
    [
        {"session": b"1234567"},
        {"session": b"1" * 33},
        {"session": "session1"},
        {"sequence": -1},
        {"sequence": 2**64},
        {"sequence": True},
        {"sequence": 1.0},
        {"acknowledged": -1},
        {"acknowledged": 2**64},
        {"acknowledged": None},
        {"payloads": ()},
        {"payloads": ("put",)},
        {"payloads": (b"put", None)},
        {"payloads": b"put"},
        {"sequence": 2**64 - 1},
    ],
)
def test_what_could_not_be_decoded_is_not_encoded(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a run needs a session of 8 to 32 bytes") as raised:
        encode_batch([GOOD, GOOD._replace(**changed)])
    assert "\n" not in str(raised.value)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
def test_a_session_says_when_it_was_made(random_bytes: bytes, born: int) -> None:
    session = new_session(random_bytes, born)
    assert session_born(session) == born
    assert session.endswith(random_bytes)
    assert len(session) == 24 <= SESSION_BYTES_MAX


@given(SESSIONS)
def test_every_session_was_made_at_some_slot(session: bytes) -> None:
    assert 0 <= session_born(session) < 2**64
