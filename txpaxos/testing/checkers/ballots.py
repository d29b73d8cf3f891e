"""Proposals and votes of one decree, ballot by ballot, as observed from outside."""

from __future__ import annotations

from collections.abc import Mapping

from txpaxos.core.messages import Ballot, NodeId


class ObservedBallots:
    """The ballots of one slot of the log.

    :param quorum: the size of a quorum.
    """

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
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
        return any(len(voters) >= self._quorum for (_, voted), voters in self._voters.items() if voted == value)

    def is_proposed(self, ballot: Ballot) -> bool:
        """Whether there was a proposal in ``ballot``."""
        return ballot in self._proposed

    def propose(self, ballot: Ballot, value: bytes, promised: Mapping[NodeId, Ballot]) -> str:
        """Record a proposal. Returns the rule that it breaks, or nothing.

        A proposal may differ from an earlier one only if the earlier one can no longer be chosen: enough nodes have not
        voted for it and have promised not to.

        :param promised: the highest promise that each node has had on disk.
        """
        if self._proposed.setdefault(ballot, value) != value:
            return "one proposal a ballot"
        for lower, other in self._proposed.items():
            if lower < ballot and other != value:
                voters = self._voters.get((lower, other), set())
                may_vote = sum(node in voters or word <= lower for node, word in promised.items())
                if may_vote >= self._quorum:
                    return "no proposal against what may be chosen"
        return ""
