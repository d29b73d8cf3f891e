"""Whatever bytes come, decoding raises CodecError or gives a message that can be sent again. From a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from test.helpers.fuzz import INPUTS
from test.helpers.wire_samples import BATCH, CLIENT_CODEC, CLIENT_SAMPLES, CODEC, PEER_SAMPLES, reseal, spoil
from txpaxos.errors import CodecError
from txpaxos.replicated_time import ReplicatedTime
from txpaxos.wire.commands import decode_batch, encode_batch
from txpaxos.wire.stamps import KeptAlive, stamp_of, stamped

pytestmark = pytest.mark.fuzz


def peer_again(data: bytes) -> None:
    """Decode, and whatever comes of it, encode and decode once more."""
    message = CODEC.decode(data).message
    assert CODEC.decode(CODEC.encode(message)).message == message


def client_again(data: bytes) -> None:
    message = CLIENT_CODEC.decode(data)
    assert CLIENT_CODEC.decode(CLIENT_CODEC.encode(message)) == message


def batch_again(data: bytes) -> None:
    runs = decode_batch(data)
    assert decode_batch(encode_batch(runs)) == runs


def stamp_again(data: bytes) -> None:
    stamp = stamp_of(data)
    batch_again(data)
    if stamp is not None:
        assert stamp_of(stamped(stamp.time, b"", stamp.kept_alive, stamp.grace_ms)) == stamp


PEER_BYTES = [CODEC.encode(sample) for sample in PEER_SAMPLES]
CLIENT_BYTES = [CLIENT_CODEC.encode(sample) for sample in CLIENT_SAMPLES]
BATCH_BYTES = [encode_batch(BATCH[:count]) for count in (1, 2)]
STAMP_BYTES = [stamped(ReplicatedTime(5, 7), BATCH_BYTES[0], kept) for kept in ((), (KeptAlive("a", 3),))]
PORTS: list[Any] = [
    pytest.param(peer_again, PEER_BYTES, id="peer"),
    pytest.param(client_again, CLIENT_BYTES, id="client"),
    pytest.param(batch_again, BATCH_BYTES, id="batch"),
    pytest.param(stamp_again, STAMP_BYTES, id="stamp"),
]


def refused(again: Callable[[bytes], None], data: bytes) -> bool:
    try:
        again(data)
    except CodecError:
        return True
    return False


@pytest.mark.parametrize(("again", "samples"), PORTS)
def test_noise(again: Callable[[bytes], None], samples: list[bytes]) -> None:
    rng = Random(1)
    for _ in range(INPUTS):
        start = rng.choice(samples)[: rng.randint(0, 40)]
        refused(again, start + rng.randbytes(rng.randint(0, 200)))
        assert refused(again, b"\0" + rng.randbytes(rng.randint(0, 200)))


@pytest.mark.parametrize(("again", "samples"), PORTS)
def test_spoiled(again: Callable[[bytes], None], samples: list[bytes]) -> None:
    rng = Random(2)
    for _ in range(INPUTS):
        refused(again, spoil(rng, rng.choice(samples)))


@pytest.mark.parametrize(("again", "samples"), PORTS[:2])
def test_spoiled_with_a_right_checksum(again: Callable[[bytes], None], samples: list[bytes]) -> None:
    rng = Random(3)
    outcomes = [refused(again, reseal(spoil(rng, rng.choice(samples)))) for _ in range(INPUTS)]
    assert 0 < sum(outcomes) < INPUTS  # some get through: the decoders behind the checksum are tried


@pytest.mark.parametrize(("again", "samples"), PORTS[:2])
def test_spoiled_body_with_a_right_header(again: Callable[[bytes], None], samples: list[bytes]) -> None:
    rng = Random(4)
    for _ in range(INPUTS):
        data = rng.choice(samples)
        body_at = 26 + data[25]
        refused(again, reseal(data[:body_at] + spoil(rng, data[body_at:])))
