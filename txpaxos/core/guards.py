"""What must never happen, and what a node does not believe a peer.

A broken invariant is a fault of this program: the node that finds one must stop. It is raised, and not asserted, so
that ``python -O`` is as safe. A message of a peer that cannot be true is no such fault: it is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Collection

from txpaxos.core.messages import Ballot, NodeId

ROUND_MAX = 2**62
"""The highest round of any ballot. Records and messages hold 64 bits, and some rounds must be left above it."""
ROUNDS_AHEAD_MAX = 2**32
"""How far the round of a ballot may be above all that a node knows: as far as ten elections a second get in ten years.
Without this limit one message could use up all rounds."""


class BrokenInvariant(AssertionError):
    """What the algorithm rests on does not hold. Nothing that this node says may be relied on any more, so it stops."""


class TwoValues(BrokenInvariant):
    """A ballot has two values. If a message of a peer says so and nothing has been saved, that is the peer's fault."""


def is_within_reason(ballot: Ballot, highest: Ballot) -> bool:
    """Whether ``ballot`` may be believed to be in use, if ``highest`` is the highest ballot that is known."""
    return 0 <= ballot.round <= min(ROUND_MAX, highest.round + ROUNDS_AHEAD_MAX)


def refusal_ballot(promised: Ballot, node: NodeId, members: Collection[NodeId]) -> Ballot:
    """The ballot that ``node``, which has promised ``promised``, names in a Nack.

    Peers drop a Nack with a ballot of no member. So if ``promised`` is of a node that was replaced since, the Nack
    names a higher ballot, of ``node`` itself."""
    return promised if promised.node in members else Ballot(promised.round + 1, node)
