"""Batches of commands: the values of the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.helpers.wire_samples import BATCH, CLIENT_CODEC, CODEC, RUNS, SESSIONS
from txpaxos.core.messages import NO_OP
from txpaxos.errors import CodecError
from txpaxos.wire.client_messages import Submit
from txpaxos.wire.commands import (
    SESSION_BYTES_MAX,
    Run,
    belongs_to,
    check_run,
    decode_batch,
    encode_batch,
    new_session,
    owned_by,
    owner_of,
    session_created_at_slot,
    session_owner,
)
from txpaxos.wire.peer_messages import Forward

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
        (b"\x02\x91\x94\xc4\x08session1\xcf" + b"\xff" * 8 + b"\x00\x92\xc4\x00\xc4\x00", "do not fit below 2"),
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


def test_a_run_that_can_be_decoded_passes_its_check() -> None:
    for run in (*BATCH, Run(b"session1", 2**64 - 1, 0, (b"",))):
        check_run(run)
        assert decode_batch(encode_batch([run])) == (run,)


@pytest.mark.parametrize(
    ("run", "error", "reason"),
    [
        (tuple(GOOD), TypeError, "a run must be a Run, not tuple"),
        (Run(*GOOD[:3], cast(Any, [b"put"])), TypeError, "the payloads of a run must be a tuple, not list"),
        (Run(*GOOD[:3], cast(Any, (b"put", "get"))), TypeError, "a command must be bytes, not str"),
        (GOOD._replace(sequence=True), TypeError, "must be bytes, int and int, not bytes, bool, int"),
        (GOOD._replace(session=b"short"), ValueError, "a run needs a session of 8 to 32 bytes"),
    ],
)
def test_the_check_of_a_run_names_what_is_wrong(run: object, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        check_run(run)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
def test_a_session_says_when_it_was_made(random_bytes: bytes, created_at_slot: int) -> None:
    session = new_session(random_bytes, created_at_slot)
    assert session_created_at_slot(session) == created_at_slot
    assert session.endswith(random_bytes)
    assert len(session) == 24 <= SESSION_BYTES_MAX


@given(SESSIONS)
def test_every_session_was_made_at_some_slot(session: bytes) -> None:
    assert 0 <= session_created_at_slot(session) < 2**64


@pytest.mark.parametrize("first", [2**64 - 2, 2**64 - 1])
def test_no_message_counts_beyond_the_last_sequence(first: int) -> None:
    """Such a run is neither made here nor taken from elsewhere."""
    run = Run(b"session1", first, 0, (b"x", b"y", b"z"))
    makes: list[tuple[Any, Callable[[], Any]]] = [
        (CODEC, lambda: Forward((GOOD, run))),
        (CLIENT_CODEC, lambda: Submit(1, *run)),
        (CLIENT_CODEC, lambda: Submit(first, b"session1", 1, 0, run.payloads)),
    ]
    for codec, make in makes:
        with pytest.raises(ValueError, match=r"3 numbers from .* do not fit below"):
            make()
        with attrs.validators.disabled():
            data = codec.encode(make())
        with pytest.raises(CodecError, match=r"3 numbers from .* do not fit below"):
            codec.decode(data)


def test_the_last_sequence_counts() -> None:
    run = Run(b"session1", 2**64 - 2, 0, (b"x", b"y"))
    assert decode_batch(encode_batch([run])) == (run,)
    assert CODEC.decode(CODEC.encode(Forward((run,)))).message == Forward((run,))
    submit = Submit(2**64 - 2, *run)
    assert CLIENT_CODEC.decode(CLIENT_CODEC.encode(submit)) == submit


def test_no_message_holds_a_run_of_none() -> None:
    none = Run(b"session1", 1, 0, ())
    with pytest.raises(CodecError, match="length >= 1"):
        CODEC.decode(CODEC.encode(Forward((GOOD, none))))
    with pytest.raises(CodecError, match="length >= 1"):
        CLIENT_CODEC.decode(CLIENT_CODEC.encode(Submit(1, *none)))


def test_a_session_belongs_to_one_principal() -> None:
    session = new_session(owned_by("shop", bytes(range(16))), 5)
    assert session == (5).to_bytes(8, "big") + bytes(range(8)) + session_owner("shop")
    assert session_created_at_slot(session) == 5
    assert belongs_to(session, session_owner("shop"))
    assert owner_of(session) == owner_of(session + b"register") == session_owner("shop")
    assert owner_of(b"8 bytes.") == b"8 bytes."  # Too short to have an owner: it is its own.
    assert not belongs_to(session, session_owner("shops"))
    assert not belongs_to(session, session_owner(""))
    assert not belongs_to(session[8:], session_owner("shop"))
    assert not belongs_to(bytes(8) + session, session_owner("shop"))
