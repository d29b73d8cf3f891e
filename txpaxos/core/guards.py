"""What must never be, and what a node does not believe a peer.

A broken invariant is this program's own fault: the node that finds one can do no more. It is raised, and not asserted,
so that ``python -O`` is as safe. What a peer says is another matter: bytes that came in are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Collection

from txpaxos.core.messages import Ballot, NodeId

ROUND_MAX = 2**62
"""No ballot has a higher round. What is saved and sent holds 64 bits, and something must be left above."""
ROUNDS_AHEAD_MAX = 2**32
"""A ballot is so many rounds at most above all that a node knows: with ten elections a second, what it misses in ten
years. Else one message could use up all rounds there are."""


class BrokenInvariant(AssertionError):
    """What the algorithm rests on does not hold: nothing that this node says may be relied on any more."""


class TwoValues(BrokenInvariant):
    """A ballot has two values. Where a peer said so, and nothing has come of it yet, that is the peer's fault."""


def is_within_reason(ballot: Ballot, highest: Ballot) -> bool:
    """Whether ``ballot`` may be believed to be in use, where ``highest`` is the highest known."""
    return 0 <= ballot.round <= min(ROUND_MAX, highest.round + ROUNDS_AHEAD_MAX)


def refusal_ballot(promised: Ballot, node: NodeId, members: Collection[NodeId]) -> Ballot:
    """The ballot that a Nack of ``node`` names, which has promised ``promised``: a member's, since peers drop a Nack
    with any other. If ``promised`` is of a node that was replaced since, it is a higher one, of ``node`` itself."""
    return promised if promised.node in members else Ballot(promised.round + 1, node)
