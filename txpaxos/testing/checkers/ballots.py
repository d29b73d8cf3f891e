"""Proposals and votes of one decree, ballot by ballot, as observed from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from txpaxos.core.membership import Configuration
from txpaxos.core.messages import Ballot, NodeId


class ObservedBallots:
    """The ballots of one slot of the log.

    :param governing: returns the configuration whose majorities are quorums. The decree may exist before that is
        decided, and a proposal may not.
    """

    def __init__(self, governing: Callable[[], Configuration]) -> None:
        self._governing = governing
        self._proposed: dict[Ballot, bytes] = {}
        # The nodes that have a vote on disk for each ballot and value.
        self._voters: dict[tuple[Ballot, bytes], set[NodeId]] = {}

    def __str__(self) -> str:
        return str(self._proposed)

    def vote(self, node: NodeId, ballot: Ballot, value: bytes) -> None:
        """A vote is on disk."""
        self._voters.setdefault((ballot, value), set()).add(node)

    def is_chosen(self, value: bytes) -> bool:
        """Whether a quorum has voted for ``value`` in one ballot."""
        governing = self._governing()
        return any(governing.is_majority(voters) for (_, voted), voters in self._voters.items() if voted == value)

    def propose(self, ballot: Ballot, value: bytes, promised: Mapping[NodeId, Ballot]) -> str:
        """Record a proposal. Returns the rule that it breaks, or nothing.

        A proposal may differ from an earlier one only if the earlier one can no longer be chosen: enough nodes have not
        voted for it and have promised not to.

        :param promised: the highest promise that each node has had on disk.
        """
        if self._proposed.setdefault(ballot, value) != value:
            return "one proposal a ballot"
        governing = self._governing()
        for lower, other in self._proposed.items():
            if lower < ballot and other != value:
                voters = self._voters.get((lower, other), set())
                if governing.is_majority([node for node, word in promised.items() if node in voters or word <= lower]):
                    return "no proposal against what may be chosen"
        return ""

    def has_promises(self, ballot: Ballot, promised: Mapping[NodeId, Ballot]) -> bool:
        """Whether a quorum has promised ``ballot``, or a higher one."""
        return self._governing().is_majority([node for node, word in promised.items() if word >= ballot])
