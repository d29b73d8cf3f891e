"""The messages between nodes that are not part of the algorithm (which are in :mod:`txpaxos.core.messages`)."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeAlias

import attrs
import msgspec
from attrs.validators import ge, le

from txpaxos.core.messages import Ballot, Message, NodeId, Slot
from txpaxos.replicated_time import UTC_MS_MAX
from txpaxos.wire.commands import Runs, check_count
from txpaxos.wire.registers import check_subject
from txpaxos.wire.stamps import KEPT_ALIVE_MAX, KeptAlive

PART_BYTES_MAX = 2**20
"""The longest part of a snapshot that is taken, in bytes."""
REGISTER_VOTES_MAX = 4096
"""The most registers in one :class:`RegisterVotes`."""
REGISTER_VOTES_BYTES = 2**19
"""Bytes of registers in one :class:`RegisterVotes`, not counting the first register."""
HEARD_MAX = 255
"""The most state digests of other nodes in one :class:`StateDigestsHeard`."""

Founders: TypeAlias = Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=256)]
"""The ids of the nodes that found a cluster."""
Hash: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=64)]
"""A hash of the log or of a state."""


@attrs.frozen
class Hello:
    """The first message on a stream, in both directions. Its header names the sender. The node that opened the stream
    sends it first; the other node sends it after it has received a :class:`Proof`."""


@attrs.frozen
class Challenge:
    """A datagram to the member that has opened a stream, by its Hello: send ``token`` back on that stream, to prove
    that you receive datagrams at your address."""

    token: int = attrs.field(validator=ge(0))


@attrs.frozen
class Proof:
    """The answer to :class:`Challenge`, on the stream: ``token`` came to my address."""

    token: int = attrs.field(validator=ge(0))


@attrs.frozen
class Refusal:
    """From a node to a peer whose messages it refuses. The peer only logs it, since it may be forged.

    :ivar reason: why, in a few words for the log."""

    reason: str


@attrs.frozen
class Removed:
    """From a member to a former member: you are a member no more, as the entry says that was chosen at ``slot``. What
    was chosen up to where that entry governs is on the disks of a majority of the members, who do without you."""

    slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class Introduction:
    """From a node that does not vote yet to every other node: this is my data folder, do you know it? It is also the
    answer to that. The peers that the sender has met, and that it votes, are on its disk first.

    :ivar votes: whether the sender is a voter.
    :ivar met: the incarnation of the receiver's data folder that is on the sender's disk; 0 if they have not met.
    :ivar together: whether the sender founded the cluster together with that data folder of the receiver.
    :ivar unchanged: whether the sender is a founder, and the members are still those that the cluster was founded with.
    :ivar founders: the founders of the cluster by the sender's cluster file.
    :ivar asks: whether the sender wants an answer.
    """

    votes: bool
    met: int = attrs.field(validator=ge(0))
    together: bool = False
    unchanged: bool = False
    founders: Founders = ()
    asks: bool = False


@attrs.frozen
class Forward:
    """From a follower to the leader: propose these commands, which were submitted here. The follower has saved nothing
    for it."""

    runs: Runs = attrs.field()

    @runs.validator
    def _check(self, _: Any, runs: Runs) -> None:
        for run in runs:
            check_count(run.sequence, len(run.payloads))


@attrs.frozen
class ForwardKeepAlives:
    """From a follower to the leader: clients have sent these keep-alives here. The follower has saved nothing for
    it."""

    kept_alive: Annotated[tuple[KeptAlive, ...], msgspec.Meta(max_length=KEPT_ALIVE_MAX)]


@attrs.frozen
class CollectRegisters:
    """From a node that seals the registers to every other: which values have you voted for, under an earlier release?

    :ivar number: never used again, and not to be guessed. The answer repeats it.
    :ivar after: only registers whose names come after this one; all of them if it is empty.
    """

    number: int = attrs.field(validator=ge(0))
    after: str = ""


class RegisterVote(NamedTuple):
    """What a voter knows of one register that an earlier release has decided, or was about to.

    :ivar subject: the name of the register.
    :ivar ballot: the highest ballot in which the voter has voted.
    :ivar value: the value that it voted for, or that it knows to be chosen.
    :ivar is_chosen: whether it knows that the value is chosen.
    """

    subject: str
    ballot: Ballot
    value: bytes
    is_chosen: bool


@attrs.frozen
class RegisterVotes:
    """The answer of a voter to :class:`CollectRegisters`. The votes are on its disk first. They are final: a node of
    this release votes for no register, and no earlier release opens its data folder any more.

    :ivar number: the number of the question.
    :ivar after: repeats the question.
    :ivar votes: the registers after that, in the order of their names, as many as fit.
    :ivar is_last: whether there is none after those.
    """

    number: int = attrs.field(validator=ge(0))
    after: str
    votes: Annotated[tuple[RegisterVote, ...], msgspec.Meta(max_length=REGISTER_VOTES_MAX)] = attrs.field()
    is_last: bool = False

    @votes.validator
    def _check(self, _: Any, votes: tuple[RegisterVote, ...]) -> None:
        for vote in votes:
            check_subject(vote.subject)


@attrs.frozen
class FetchSnapshot:
    """From a node that is too far behind to a node with a snapshot: send me a part of it.

    :ivar slot: the slot of the wanted snapshot. If it is 0, or the receiver has no such snapshot, the receiver sends
        its newest snapshot from the beginning.
    :ivar offset: the first byte that is wanted.
    :ivar damaged: the slot of a snapshot that came with wrong checksums, so that the receiver checks its own; 0 if
        there is none.
    """

    slot: Slot = attrs.field(validator=ge(0))
    offset: int = attrs.field(validator=ge(0))
    damaged: Slot = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class SnapshotPart:
    """The answer to :class:`FetchSnapshot`: the snapshot at ``slot`` has ``size_bytes`` in all, and ``data`` at
    ``offset``."""

    slot: Slot = attrs.field(validator=ge(1))
    size_bytes: int = attrs.field(validator=ge(0))
    offset: int = attrs.field(validator=ge(0))
    data: Annotated[bytes, msgspec.Meta(max_length=PART_BYTES_MAX)]


@attrs.frozen
class StateDigest:
    """From a node to every other, when it has taken a snapshot, and at slots where snapshots are taken.

    :ivar slot: the slot.
    :ivar log_hash: the end of the chain of hashes over the chosen values up to the slot; empty if it is unknown.
    :ivar state_hash: the hash of the application's state after the slot; empty if it is unknown.
    """

    slot: Slot = attrs.field(validator=ge(1))
    log_hash: Hash
    state_hash: Hash


@attrs.frozen
class StateDigestsHeard:
    """From a node to every other, at a slot where nodes differ: the digests that other nodes have sent. Some of those
    nodes may not be running any more.

    :ivar slot: the slot.
    :ivar audits: the digests, each as (node, log hash, state hash).
    """

    slot: Slot = attrs.field(validator=ge(1))
    audits: Annotated[tuple[tuple[NodeId, Hash, Hash], ...], msgspec.Meta(max_length=HEARD_MAX)] = ()


@attrs.frozen
class AskStateDigest:
    """From a node to every other, when it has received a snapshot at ``slot``: what is your digest there? Also to a
    node whose digest came in a datagram, which may have been forged. The answer is a :class:`StateDigest`, with empty
    hashes if there is none."""

    slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class Fetching:
    """From a node that is too far behind to every other, repeatedly while it fetches a snapshot from one of them, and
    until it has caught up: keep that snapshot, and the log after it.

    :ivar slot: the slot of the snapshot; 0 if nothing is needed any more.
    """

    slot: Slot = attrs.field(validator=ge(0))


@attrs.frozen
class AskClock:
    """From the leader to every other voter, now and then: what time of day is it by your clock?

    :ivar number: goes up with each question. The answer repeats it.
    """

    number: int = attrs.field(validator=ge(0))


@attrs.frozen
class ClockReading:
    """From the voter that was asked to the node that asked, as the answer to :class:`AskClock`.

    :ivar number: the number of the question.
    :ivar utc_ms: the sender's clock, in milliseconds since 1970.
    """

    number: int = attrs.field(validator=ge(0))
    utc_ms: int = attrs.field(validator=(ge(0), le(UTC_MS_MAX)))


SnapshotMessage: TypeAlias = FetchSnapshot | SnapshotPart | StateDigest | StateDigestsHeard | AskStateDigest | Fetching
RegisterMessage: TypeAlias = CollectRegisters | RegisterVotes
ClockMessage: TypeAlias = AskClock | ClockReading
HandshakeMessage: TypeAlias = Hello | Challenge | Proof | Refusal
PeerMessage: TypeAlias = (
    Message
    | HandshakeMessage
    | Removed
    | Introduction
    | Forward
    | ForwardKeepAlives
    | SnapshotMessage
    | RegisterMessage
    | ClockMessage
)
