"""What a node may remember of a slot: one fact for each step that the algorithm took there."""

from __future__ import annotations

import enum
import zlib
from typing import NamedTuple

import attrs

from txpaxos.core.messages import LOWEST, Ballot, NodeId, Slot


@enum.unique
class What(enum.StrEnum):
    """What a fact is. The value is how it is written."""

    PREPARED = "prepared"
    """The node asked the others to promise its ballot (phase 1a)."""
    PROMISED = "promised"
    """The node's promise is on its disk (phase 1b)."""
    HEARD_PROMISE = "heard promise"
    """The candidate got the promise of ``peer``, which had voted at this slot as ``vote`` says, and has counted it:
    those before it were no quorum yet."""
    PROPOSED = "proposed"
    """The leader asked for votes for a value (phase 2a)."""
    VOTED = "voted"
    """The node's vote is on its disk (phase 2b)."""
    HEARD_VOTE = "heard vote"
    """The leader got the vote of ``peer``."""
    TOLD = "told"
    """Another node told this one the chosen value. It is on disk."""
    CHOSEN = "chosen"
    """The node knows the value to be chosen, and that of all earlier slots."""
    APPLIED = "applied"
    """The node has applied the value."""


class ValueMark(NamedTuple):
    """What is remembered of a value: enough to tell it from another one.

    :ivar size_bytes: its length.
    :ivar checksum: its CRC-32.
    """

    size_bytes: int
    checksum: int

    @classmethod
    def of(cls, value: bytes) -> ValueMark:
        """The mark of ``value``."""
        return cls(len(value), zlib.crc32(value))


@attrs.frozen
class Fact:
    """Something that one node did, or heard, at a slot or with a ballot.

    :ivar node: the node that did it.
    :ivar what: what it did.
    :ivar utc_seconds: when, by that node's wall clock, in seconds since 1970.
    :ivar slot: where; 0 for what is about all slots.
    :ivar ballot: in which ballot; ``LOWEST`` if it is about none.
    :ivar peer: whom the node heard.
    :ivar vote: of a promise: the highest ballot in which ``peer`` had voted at the slot; ``LOWEST`` if it had not.
    :ivar value: the value that was proposed, voted for or told; ``None`` if the fact has none.
    :ivar is_known: of a promise: ``peer`` knew the slot's value to be chosen, and told it.
    :ivar asked: of a proposal: the nodes that were asked for votes, which are the voters that govern the slot.
    """

    node: NodeId
    what: What
    utc_seconds: float
    slot: Slot = 0
    ballot: Ballot = LOWEST
    peer: NodeId = ""
    vote: Ballot = LOWEST
    value: ValueMark | None = None
    is_known: bool = False
    asked: tuple[NodeId, ...] = ()
