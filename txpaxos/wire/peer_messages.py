"""What nodes say to each other beside the algorithm's own messages (:mod:`txpaxos.core.messages`)."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import attrs
import msgspec
from attrs.validators import ge

from txpaxos.core.messages import Message, NodeId, Slot
from txpaxos.wire.commands import Runs, check_count

PART_BYTES_MAX = 2**20
"""The longest part of a snapshot that is taken."""
HEARD_MAX = 255
"""The most that one node tells of what others have said."""

Founders: TypeAlias = Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=256)]
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
class Introduction:
    """A node that is no voter yet to every other: this is who I am, do you know me? And the answer to that. Whom the
    sender has met, and that it votes, is on its disk first.

    :ivar votes: whether the sender is a voter.
    :ivar met: the incarnation of the receiver that is on the sender's disk; 0 if they have not met.
    :ivar together: whether the sender founded the cluster with that very receiver.
    :ivar unchanged: whether the sender is a founder, and the members are those that the cluster was founded for.
    :ivar founders: those who are to found the cluster, in the sender's cluster file.
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
    """A follower to the leader: please propose these, somebody gave them to me. Nothing is on disk for it."""

    runs: Runs = attrs.field()

    @runs.validator
    def _check(self, _: Any, runs: Runs) -> None:
        for run in runs:
            check_count(run.sequence, len(run.payloads))


@attrs.frozen
class FetchSnapshot:
    """A node that is too far behind to one that has a snapshot: send me that at ``slot``, from byte ``offset`` on, if
    you still have it; else, or if that is 0, your newest from its beginning. The one at ``damaged`` (0: none) came, and
    its checksums are wrong: look whether yours is."""

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
class StateDigest:
    """A node to everyone, where snapshots are taken, and when it has taken one: with the chosen values up to ``slot``,
    whose chain of hashes ends in ``log_hash``, my application has come to a state with this ``state_hash`` (empty: that
    I do not know)."""

    slot: Slot = attrs.field(validator=ge(1))
    log_hash: Hash
    state_hash: Hash


@attrs.frozen
class StateDigestsHeard:
    """A node to everyone else, where nodes differ: at ``slot``, these others (not I) have told me two hashes each, as
    (node, log hash, state hash). Not all of them may be there to tell you."""

    slot: Slot = attrs.field(validator=ge(1))
    audits: Annotated[tuple[tuple[NodeId, Hash, Hash], ...], msgspec.Meta(max_length=HEARD_MAX)] = ()


@attrs.frozen
class AskStateDigest:
    """A node to everyone else, when it has got a snapshot at ``slot``: what is your digest there? Or to one whose
    digest came in a way that may have been forged. It is answered with empty hashes if there is none."""

    slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class Fetching:
    """A node that is too far behind to everyone else, now and then while it takes the snapshot at ``slot`` from one of
    them, and until it is level with them: keep that, and the log after it. 0: I need nothing any more."""

    slot: Slot = attrs.field(validator=ge(0))


SnapshotMessage: TypeAlias = FetchSnapshot | SnapshotPart | StateDigest | StateDigestsHeard | AskStateDigest | Fetching
PeerMessage: TypeAlias = Message | Hello | Challenge | Proof | Refusal | Introduction | Forward | SnapshotMessage
