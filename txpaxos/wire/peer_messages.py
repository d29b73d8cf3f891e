"""What nodes say to each other beside the algorithm's own messages (:mod:`txpaxos.core.messages`)."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import attrs
import msgspec
from attrs.validators import ge

from txpaxos.core.messages import Message, Slot
from txpaxos.wire.commands import Runs, check_count

PART_BYTES_MAX = 2**20
"""The longest part of a snapshot that is taken."""

Hash: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=64)]


@attrs.frozen
class Hello:
    """The first message on a stream, in both directions: who speaks stands in its header. Whoever has opened the stream
    says it first; the other once it has got its :class:`Proof`."""


@attrs.frozen
class Challenge:
    """A datagram to the address of the member that a stream, it says, comes from: say ``token`` back on that stream, to
    show that you receive what is sent to you."""

    token: int = attrs.field(validator=ge(0))


@attrs.frozen
class Proof:
    """The answer, on the stream: ``token`` was sent to my address."""

    token: int = attrs.field(validator=ge(0))


@attrs.frozen
class Refusal:
    """A node to a peer that it refuses: what you say is not taken here, for this reason, a few words for your log.
    Nothing else may follow from it, since it is as easily forged as any other message."""

    reason: str


@attrs.frozen
class Forward:
    """A follower to the leader: please propose these, somebody gave them to me. Nothing is on disk for it."""

    runs: Runs = attrs.field()

    @runs.validator
    def _check(self, _: Any, runs: Runs) -> None:
        for run in runs:
            check_count(run.sequence, len(run.payloads))


@attrs.frozen
class FetchSnapshot:
    """A node that is too far behind to one that has a snapshot: send me yours, from byte ``offset`` on, if its slot is
    ``slot``; else, or if that is 0, from the beginning. The one at ``damaged`` (0: none) came, and its checksums are
    wrong: look whether yours is."""

    slot: Slot = attrs.field(validator=ge(0))
    offset: int = attrs.field(validator=ge(0))
    damaged: Slot = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class SnapshotPart:
    """The answer: ``data`` stands at ``offset`` of the snapshot at ``slot``, which has ``size_bytes`` in all."""

    slot: Slot = attrs.field(validator=ge(1))
    size_bytes: int = attrs.field(validator=ge(0))
    offset: int = attrs.field(validator=ge(0))
    data: Annotated[bytes, msgspec.Meta(max_length=PART_BYTES_MAX)]


@attrs.frozen
class Audit:
    """A node to everyone, when it has taken a snapshot: with the chosen values up to ``slot``, whose chain of hashes
    ends in ``log_hash``, my application has come to a state with this ``state_hash``."""

    slot: Slot = attrs.field(validator=ge(1))
    log_hash: Hash
    state_hash: Hash


@attrs.frozen
class AskAudit:
    """A node to one whose Audit at ``slot`` came in a way that may have been forged: say it again."""

    slot: Slot = attrs.field(validator=ge(1))


PeerMessage: TypeAlias = (
    Message | Hello | Challenge | Proof | Refusal | Forward | FetchSnapshot | SnapshotPart | Audit | AskAudit
)
