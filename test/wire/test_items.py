"""Very many items in few bytes: refused before they are decoded, which would take many times their bytes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from test.helpers.wire_samples import BALLOT, CLIENT_CODEC, CODEC, reseal
from txpaxos.core.config import VALUES_MAX, VOTES_MAX, Limits
from txpaxos.core.messages import ChosenValues, PromiseLog, Vote
from txpaxos.errors import CodecError
from txpaxos.node.command_limits import CommandLimits
from txpaxos.replicated_time import BEGINNING
from txpaxos.wire.client_messages import Answer, Submit
from txpaxos.wire.commands import (
    BATCH_COMMANDS_MAX,
    PAYLOADS_MAX,
    RUNS_MAX,
    Run,
    check_runs,
    decode_batch,
    encode_batch,
)
from txpaxos.wire.peer_messages import PART_BYTES_MAX, Forward, SnapshotPart, StateDigest
from txpaxos.wire.stamps import stamp_of, stamped

MANY = 2**22
TINY_RUN = msgspec.msgpack.encode(Run(b"session1", 1, 0, (b"",)))
TINY_VOTE = msgspec.msgpack.encode(Vote(1, BALLOT, b""))


def array(item: bytes, count: int) -> bytes:
    """The MessagePack array of ``count`` times the same item."""
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def with_field(sample: bytes, name: str, value: bytes) -> bytes:
    """A message in which a field has another value."""
    body_at = 26 + sample[25]
    fields = msgspec.msgpack.decode(sample[body_at:], type=dict[str, msgspec.Raw])
    fields[name] = msgspec.Raw(value)
    return reseal(sample[:body_at] + msgspec.msgpack.encode(fields))


def run_of(count: int, payload: bytes = b"") -> bytes:
    return b"\x94\xc4\x08session1\x01\x00" + array(msgspec.msgpack.encode(payload), count)


def peer(data: bytes) -> object:
    return CODEC.decode(data).message


PROMISE, VALUES = CODEC.encode(PromiseLog(BALLOT, 1)), CODEC.encode(ChosenValues(1))
FORWARD, SUBMIT = CODEC.encode(Forward(())), CLIENT_CODEC.encode(Submit(1, b"session1", 1, 0, (b"",)))
HOSTILE: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "votes": (peer, with_field(PROMISE, "votes", array(TINY_VOTE, MANY // 8))),
    "values of a promise": (peer, with_field(PROMISE, "values", array(b"\xc4\x00", MANY))),
    "values": (peer, with_field(VALUES, "values", array(b"\xc4\x00", MANY))),
    "runs": (peer, with_field(FORWARD, "runs", array(TINY_RUN, MANY // 8))),
    "commands of a run": (peer, with_field(FORWARD, "runs", array(run_of(MANY), 1))),
    "commands of runs": (peer, with_field(FORWARD, "runs", array(run_of(PAYLOADS_MAX), RUNS_MAX // 4))),
    "a client's commands": (CLIENT_CODEC.decode, with_field(SUBMIT, "commands", array(b"\xc4\x00", MANY))),
    "runs of a value": (decode_batch, b"\2" + array(TINY_RUN, MANY // 8)),
    "timers that a value keeps alive": (
        stamp_of,
        stamped(BEGINNING, b"", (), 1)[:-5] + (MANY * 4 + 5).to_bytes(4, "big") + array(b"\x92\xa1a\1", MANY),
    ),
    "commands of a value": (decode_batch, b"\2" + array(run_of(PAYLOADS_MAX), RUNS_MAX // 4)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_many_items_are_refused_and_take_no_memory(name: str) -> None:
    decode, data = HOSTILE[name]
    assert len(data) > 2**21
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data) + 2**20  # One copy of the bytes, at most.


def test_all_that_a_correct_peer_may_send_is_taken() -> None:
    votes = tuple(Vote(slot, BALLOT, b"") for slot in range(1, VOTES_MAX + 1))
    values = (b"",) * VALUES_MAX
    big = b"x" * 2000
    runs = (
        Run(b"session1", 1, 0, (big,) * PAYLOADS_MAX),
        *(Run(b"session2", 1, 0, (big,)) for _ in range(RUNS_MAX - 1)),
    )
    for message in (PromiseLog(BALLOT, 1, values, votes), ChosenValues(1, values, 5), Forward(runs)):
        assert CODEC.decode(CODEC.encode(message)).message == message
    submit = Submit(1, b"session1", 1, 0, (b"",) * PAYLOADS_MAX)
    assert CLIENT_CODEC.decode(CLIENT_CODEC.encode(submit)) == submit
    assert decode_batch(encode_batch(runs)) == runs


@pytest.mark.parametrize(
    "message",
    [
        SnapshotPart(1, 1, 0, bytes(PART_BYTES_MAX + 1)),
        StateDigest(1, bytes(65), b""),
        StateDigest(1, b"", bytes(65)),
    ],
)
def test_longer_parts_and_hashes_than_there_are(message: Any) -> None:
    with pytest.raises(CodecError):
        CODEC.decode(CODEC.encode(message))


def test_more_results_than_commands() -> None:
    with pytest.raises(CodecError):
        CLIENT_CODEC.decode(CLIENT_CODEC.encode(Answer(1, (b"",) * (PAYLOADS_MAX + 1))))


def test_nothing_is_encoded_that_no_node_takes() -> None:
    with pytest.raises(ValueError, match="at most 4096 go together"):
        check_runs([Run(b"session1", 1, 0, (b"",) * (PAYLOADS_MAX + 1))])
    whole = Run(b"session1", 1, 0, (b"",) * PAYLOADS_MAX)
    assert BATCH_COMMANDS_MAX == 2 * PAYLOADS_MAX
    for runs in ([whole] * 3, [Run(b"session1", 1, 0, (b"",))] * (RUNS_MAX + 1)):
        with pytest.raises(ValueError, match="are one value"):
            encode_batch(runs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(fetch_values=VALUES_MAX + 1),
        lambda: Limits(ahead_slots=VOTES_MAX + 1),
        lambda: CommandLimits(batch_commands=RUNS_MAX),
    ],
)
def test_limits_that_no_receiver_would_take(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be <="):
        make()


def test_what_is_no_array_of_runs() -> None:
    for junk in (array(b"\x01", MANY), b"\xc4\x00" * MANY, array(b"\x94\x01\x01\x01\x01", 2**19)):
        with pytest.raises(CodecError):
            decode_batch(b"\2" + junk)
