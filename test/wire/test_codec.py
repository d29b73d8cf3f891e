"""Messages between nodes, and between clients and nodes: to bytes and back, and every refusal by its words."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.helpers.wire_samples import (
    BALLOT,
    CLIENT,
    CLIENT_CODEC,
    CLIENT_SAMPLES,
    CODEC,
    COUNTS,
    NAMES,
    PEER,
    PEER_SAMPLES,
    reseal,
)
from txpaxos.core.messages import AcceptSlot, Ballot, Decided, Fetch, Heartbeat, PromiseLog
from txpaxos.errors import CodecError, ConfigError, OtherMembers
from txpaxos.wire.client_messages import ClientCodec, FromClient, FromNode, Ping, StatusRequest
from txpaxos.wire.codec import Codec, Received, kind_of, unpack_message
from txpaxos.wire.commands import REGISTERS_MARK
from txpaxos.wire.peer_messages import Hello, PeerMessage

KIND, KEY_ID, NAME_LENGTH, BODY = 3, 24, 25, 32
"""Offsets in a message of node-a."""

Decode = Callable[[bytes], Any]
EVERY_SAMPLE = [(CODEC.decode, CODEC.encode(sample)) for sample in PEER_SAMPLES] + [
    (CLIENT_CODEC.decode, CLIENT_CODEC.encode(sample)) for sample in CLIENT_SAMPLES
]
EVERY_NAME = [type(sample).__name__ for sample in PEER_SAMPLES + CLIENT_SAMPLES]
every_sample = pytest.mark.parametrize(("decode", "data"), EVERY_SAMPLE, ids=EVERY_NAME)


def with_body(kind: int, body: bytes) -> bytes:
    """A message of node-a with a header that is right."""
    data = bytearray(CODEC.encode(Hello())[:BODY])
    data[KIND] = kind
    return reseal(bytes(data) + body)


def test_every_class_is_tried() -> None:
    one_decree_and_log = set(get_args(PeerMessage))
    assert set(PEER) == one_decree_and_log == {type(sample) for sample in PEER_SAMPLES}
    assert set(CLIENT) == set(get_args(FromClient | FromNode)) == {type(sample) for sample in CLIENT_SAMPLES}


@given(st.one_of(*PEER.values()), NAMES, NAMES, COUNTS)
def test_peer_round_trip(message: PeerMessage, cluster: str, sender: str, incarnation: int) -> None:
    data = Codec(cluster, sender, incarnation).encode(message)
    received = Codec(cluster, "another").decode(data)
    assert received == Received(sender, incarnation, message)
    assert type(received.message) is type(message)


@given(st.one_of(*CLIENT.values()), NAMES)
def test_client_round_trip(message: FromClient | FromNode, cluster: str) -> None:
    decoded = ClientCodec(cluster).decode(ClientCodec(cluster).encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@pytest.mark.parametrize("sample", PEER_SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_kind_and_a_body_are_a_message_without_its_header(sample: PeerMessage) -> None:
    data = CODEC.encode(sample)
    assert data[KIND] == kind_of(sample)
    assert unpack_message(kind_of(sample), data[BODY:]) == sample
    with pytest.raises(ValueError, match="Input data was truncated"):
        unpack_message(kind_of(sample), b"")


@every_sample
def test_cut_at_every_byte(decode: Decode, data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:end])


@every_sample
def test_cut_at_every_byte_with_a_right_checksum(decode: Decode, data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode(reseal(data[:end]))


@every_sample
def test_every_bit_flipped(decode: Decode, data: bytes) -> None:
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            decode(bytes(flipped))


@every_sample
def test_bytes_left_over(decode: Decode, data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(reseal(data + b"\xc0"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes are no message"),
        (b"GET / HTTP/1.1\r\nHost: node-a\r\n\r\n", "no message for this port"),
        (CLIENT_CODEC.encode(StatusRequest(1)), "no message for this port"),
        (CODEC.encode(Hello())[:2] + b"\x01" + CODEC.encode(Hello())[3:], "version 1, this node speaks 2"),
        (CODEC.encode(Hello())[:-1] + b"\x81", "checksum wrong"),
        (Codec("order", "node-a").encode(Hello()), "another cluster"),
        (Codec("orders", "node-a", 1, ["node-a"]).encode(Hello()), "node-a. there has other nodes in its cluster file"),
        (reseal(CODEC.encode(Hello())[:KEY_ID] + b"\x05" + CODEC.encode(Hello())[25:]), "key 5"),
        (reseal(CODEC.encode(Hello())[:NAME_LENGTH] + b"\x08" + CODEC.encode(Hello())[26:]), "name is cut off"),
        (reseal(CODEC.encode(Hello())[:31] + b"\xff\x80"), "name is not UTF-8"),
        (reseal(CODEC.encode(Hello())[:NAME_LENGTH] + b"\x00\x80"), "without a sender"),
        (with_body(0, b"\x80"), "unknown kind 0"),
        (with_body(255, b"\x80"), "unknown kind 255"),
        (with_body(14, b"\x81\xaafirst_slot\xa142"), "Expected `int`, got `str`"),
        (with_body(14, b"\x80"), "missing required field `first_slot`"),
        (with_body(14, b"\x81\xaafirst_slot\xff"), "first_slot.* must be >= 1"),
        (with_body(14, b"\x91\x2a"), "Expected `object`, got `array`"),
        (with_body(1, b"\x81\xa6ballot\x93\x07\xa1a\x00"), "Expected `array` of length 2"),
        (with_body(9, b"\x00\x01a\x06\x81\xa5value\xc4\x00"), "unknown kind 9"),
    ],
)
def test_refusal_says_why_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(CodecError, match=reason) as raised:
        CODEC.decode(data)
    assert "\n" not in str(raised.value)


def test_ports_and_clusters_do_not_mix() -> None:
    with pytest.raises(CodecError, match="no message for this port"):
        CLIENT_CODEC.decode(CODEC.encode(Hello()))
    with pytest.raises(CodecError, match="another cluster"):
        ClientCodec("order").decode(CLIENT_CODEC.encode(StatusRequest(1)))


def test_field_of_a_newer_node_is_passed_over() -> None:
    body = msgspec.msgpack.encode({"first_slot": 42, "hint": [1, {"a": None}]})
    assert CODEC.decode(with_body(14, body)).message == Fetch(42)


def test_field_of_a_newer_node_may_be_missing_if_it_has_a_default() -> None:
    assert CODEC.decode(with_body(7, msgspec.msgpack.encode({"ballot": BALLOT}))).message == Heartbeat(BALLOT)


def test_nesting_without_end() -> None:
    body = b"\x82\xaafirst_slot\x2a\xa4hint" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(CodecError):
        CODEC.decode(with_body(14, body))


def test_announced_length_takes_no_memory() -> None:
    start = msgspec.msgpack.encode(PromiseLog(BALLOT, 41))
    assert start.endswith(b"\xa5votes\x90")
    data = with_body(11, start[:-1] + b"\xdd\xff\xff\xff\xff" + b"\x00" * 100)
    tracemalloc.start()
    with pytest.raises(CodecError):
        CODEC.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def cluster_id(name: bytes, members: bytes) -> bytes:
    key = blake2b(name, digest_size=8).digest()
    return key[:4] + blake2b(members, digest_size=4, key=key).digest()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("ab", "abc"), ("abc", "ab"), ("abc", "abd"), ("abc", "abcde"), ("a", ""), (["ab", "c"], ["a", "bc"])],
)
def test_nodes_with_other_members_refuse_each_other(ours: Iterable[str], theirs: Iterable[str]) -> None:
    with pytest.raises(OtherMembers) as refusal:
        Codec("orders", "a", 1, ours).decode(Codec("orders", "größe", 2, theirs).encode(Hello()))
    assert refusal.value.sender == "größe"


def test_the_order_of_the_members_does_not_matter() -> None:
    data = Codec("orders", "b", 2, "cab").encode(Hello())
    assert Codec("orders", "a", 1, "abc").decode(data) == Received("b", 2, Hello())


def test_header_is_as_documented() -> None:
    data = CODEC.encode(Decided(b"value"))
    magic, version, kind, _checksum, cluster, incarnation, key, length = struct.unpack_from(">2sBBI8sQBB", data)
    assert (magic, version, kind, incarnation, key, length) == (b"\x97P", 2, 6, 0x0123456789ABCDEF, 0, 6)
    assert cluster == cluster_id(b"orders", b"")
    data = Codec("orders", "node-a", 0, ["node-b", "node-a"]).encode(Decided(b"value"))
    assert data[8:16] == cluster_id(b"orders", b"\x06node-a\x06node-b")
    assert CLIENT_CODEC.encode(StatusRequest(1))[8:16] == blake2b(b"orders", digest_size=8).digest()
    assert data[26:32] == b"node-a"
    assert msgspec.msgpack.decode(data[32:]) == {"value": b"value"}
    assert reseal(data) == data


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127])
def test_longest_name(name: str) -> None:
    assert CODEC.decode(Codec("orders", name).encode(Hello())).sender == name


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Codec("orders", ""), "no name"),
        (lambda: Codec("orders", "x" * 256), "256 bytes"),
        (lambda: Codec("orders", "ä" * 128), "256 bytes"),
        (lambda: Codec("orders", "\ud800"), "UTF-8"),
        (lambda: Codec("\ud800", "node-a"), "UTF-8"),
        (lambda: Codec("orders", "node-a", 1, ["x" * 256]), "256 bytes"),
        (lambda: ClientCodec("\ud800"), "UTF-8"),
    ],
)
def test_name_that_cannot_be_sent(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make()


@pytest.mark.parametrize("subject", ["", "x" * 513, "ö" * 257])
def test_votes_for_a_register_whose_name_is_too_short_or_too_long(subject: str) -> None:
    votes = [["x", BALLOT, b"", False], [subject, BALLOT, b"", False]]
    body = msgspec.msgpack.encode({"number": 1, "after": "", "votes": votes, "is_last": True})
    with pytest.raises(CodecError, match="the name of a register has"):
        CODEC.decode(with_body(41, body))


def test_a_client_submits_no_command_of_the_registers() -> None:
    session = bytes(24) + REGISTERS_MARK
    fields = {"request": 1, "session": session, "sequence": 1, "acknowledged": 0, "commands": [b"x"]}
    data = bytearray(CLIENT_CODEC.encode(Ping())[:-1])
    data[KIND] = 1
    with pytest.raises(CodecError, match="commands of the registers are made by nodes"):
        CLIENT_CODEC.decode(reseal(bytes(data) + msgspec.msgpack.encode(fields)))


def test_integer_that_does_not_fit() -> None:
    with pytest.raises(OverflowError):
        CODEC.encode(AcceptSlot(Ballot(2**64, "node-a"), 1))


def test_a_client_that_does_not_know_the_cluster_takes_that_of_the_first_message() -> None:
    """Bytes that are no message decide nothing."""
    codec, first = ClientCodec(None), StatusRequest(1)
    for data in (b"", bytes(10), bytes(40), ClientCodec("test").encode(first)[:-1]):
        with pytest.raises(CodecError):
            codec.decode(data)
    assert codec.decode(ClientCodec("test").encode(first)) == first
    assert codec.encode(first) == ClientCodec("test").encode(first)
    with pytest.raises(CodecError, match="another cluster"):
        codec.decode(ClientCodec("other").encode(first))
