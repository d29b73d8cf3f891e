"""Messages between nodes, to bytes and back.

A message is a header (:mod:`txpaxos.wire.header`) and a body. The body is MessagePack: a map from field names to
values. Ballots, proposals, votes and commands are arrays.

Decoding is strict about types, missing fields, bytes left over, and the length of arrays. An unknown kind is refused.
An unknown field of a map is ignored, so that a newer release may add a field that has a default. (msgspec offers no
other choice for attrs classes.)
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

import attrs
import msgspec

from txpaxos.core.config import VALUES_MAX, VOTES_MAX
from txpaxos.core.messages import (
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    ChosenValues,
    Decided,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Nack,
    OneDecreeMessage,
    Prepare,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    Promise,
    PromiseLog,
    ReadIndexReply,
    ReadIndexRequest,
    TakeOver,
    Truncated,
)
from txpaxos.errors import CodecError, ConfigError
from txpaxos.packing import Packing, limited
from txpaxos.wire.commands import COMMAND_BYTES_MAX, check_command_count
from txpaxos.wire.frames import FRAME_BYTES_MAX
from txpaxos.wire.header import Header
from txpaxos.wire.peer_messages import (
    PART_BYTES_MAX,
    AskClock,
    AskStateDigest,
    Challenge,
    ClockReading,
    CollectRegisters,
    Fetching,
    FetchSnapshot,
    Forward,
    ForwardKeepAlives,
    Hello,
    Introduction,
    PeerMessage,
    Proof,
    Refusal,
    RegisterVotes,
    Removed,
    SnapshotPart,
    StateDigest,
    StateDigestsHeard,
)

PEER_MAGIC = b"\x97P"
FORWARD_BYTES_UNCOUNTED = 2**20

# Kind numbers are never used again for something else. Earlier releases used 9, 36 and 37 for registers.
_ONE_DECREE: dict[int, type[OneDecreeMessage]] = {
    1: Prepare,
    2: Promise,
    3: Accept,
    4: Accepted,
    5: Nack,
    6: Decided,
}
REFUSAL_KIND = 32
_KINDS: dict[int, type[PeerMessage]] = {
    **_ONE_DECREE,
    7: Heartbeat,
    8: HeartbeatAck,
    10: PrepareLog,
    11: PromiseLog,
    12: AcceptSlot,
    13: AcceptedSlot,
    14: Fetch,
    15: ChosenValues,
    16: Hello,
    17: Forward,
    18: PreVote,
    19: PreVoteGranted,
    20: Truncated,
    21: ReadIndexRequest,
    22: ReadIndexReply,
    23: FetchSnapshot,
    24: SnapshotPart,
    25: StateDigest,
    26: Challenge,
    27: Proof,
    28: AskStateDigest,
    29: Introduction,
    REFUSAL_KIND: Refusal,
    34: StateDigestsHeard,
    35: Fetching,
    38: TakeOver,
    39: Removed,
    40: CollectRegisters,
    41: RegisterVotes,
    42: ForwardKeepAlives,
    43: AskClock,
    44: ClockReading,
}


@attrs.frozen
class _UndecodedForward:
    """A Forward whose runs are not decoded."""

    runs: msgspec.Raw


_decode_no_runs = msgspec.msgpack.Decoder(_UndecodedForward).decode
_decode_all_of_forward = msgspec.msgpack.Decoder(Forward).decode


def _decode_forward(body: bytes | memoryview) -> Forward:
    """Decode a Forward. In a big one the commands are counted first, since few bytes may hold very many commands.

    :raises ValueError: if there are too many."""
    if len(body) > FORWARD_BYTES_UNCOUNTED:
        check_command_count(memoryview(_decode_no_runs(body).runs))
    return _decode_all_of_forward(body)


_packing = Packing[PeerMessage](
    _KINDS,
    {
        PromiseLog: limited(PromiseLog, values=VALUES_MAX, votes=VOTES_MAX),
        ChosenValues: limited(ChosenValues, values=VALUES_MAX),
        Forward: _decode_forward,
    },
)


def kind_of(message: PeerMessage) -> int:
    """The kind number of a message."""
    return _packing.kind_of(message)


def unpack_message(kind: int, body: bytes) -> PeerMessage:
    """The message of a kind, from its body without a header.

    :raises ValueError: if ``body`` is no such message.
    """
    return _packing.unpack(kind, body)


FRAME_BYTES_MAX_OF_KIND: dict[int, int] = {
    11: FRAME_BYTES_MAX,
    12: 2 * COMMAND_BYTES_MAX,
    15: 2 * COMMAND_BYTES_MAX,
    17: 2 * COMMAND_BYTES_MAX,
    24: PART_BYTES_MAX + 2**10,
    41: COMMAND_BYTES_MAX + 2**21,
}
"""The biggest frame by kind number. A frame of another kind has at most ``FRAME_BYTES_MAX_DEFAULT`` bytes."""


class Way(enum.Enum):
    """How a message came. This decides how far its sender's name may be believed."""

    DATAGRAM = enum.auto()
    """In a datagram, whose source address may be forged."""
    THEIR_STREAM = enum.auto()
    """On a stream that the peer opened. The peer has proved that it receives datagrams at its address."""
    OWN_STREAM = enum.auto()
    """On a stream that this node opened, to the address that the cluster file has for the peer."""


class Received(NamedTuple):
    """A message that was received.

    :ivar sender: the node that the header names.
    :ivar incarnation: the incarnation of the sender's data folder, from the header.
    :ivar message: the message.
    :ivar way: how the message came.
    """

    sender: str
    incarnation: int
    message: PeerMessage
    way: Way = Way.DATAGRAM


class Codec:
    """Encodes and decodes the messages at the peer port of one node.

    :param cluster: the cluster's name. Messages of another cluster are refused.
    :param sender: this node's name, 1 to 255 bytes of UTF-8.
    :param incarnation: the incarnation of this node's data folder, 0 to 2**64 - 1.
    :param members: the ids of the members that founded the cluster, in any order. Messages of a node with others are
        refused.
    :raises ConfigError: if a name is empty, too long or not UTF-8.
    """

    def __init__(self, cluster: str, sender: str, incarnation: int = 0, members: Iterable[str] = ()) -> None:
        if not sender:
            raise ConfigError("the node has no name: give it one")
        self._header = Header(PEER_MAGIC, cluster, sender, incarnation, members)

    def encode(self, message: PeerMessage) -> bytes:
        """The bytes of a message from this node.

        :raises OverflowError: if the message holds an integer of 2**64 or more.
        """
        return self._header.wrap(*_packing.pack(message))

    def decode(self, data: bytes, way: Way = Way.DATAGRAM) -> Received:
        """The message that :meth:`encode` was given on a node of the cluster.

        :param way: how the message came.
        :raises CodecError: if ``data`` is no such message. No other error is raised, whatever the bytes are.
        """
        kind, sender, incarnation, body = self._header.unwrap(data)
        if not sender:
            raise CodecError("message without a sender")
        try:
            return Received(sender, incarnation, _packing.unpack(kind, body), way)
        except ValueError as error:
            raise CodecError(str(error)) from None
