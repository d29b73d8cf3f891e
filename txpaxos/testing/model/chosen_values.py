"""The chosen values in the model, as the disks prove them, whatever a node believes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from txpaxos.core.messages import Ballot, Slot, Vote
from txpaxos.testing.model.disk import Belief


class AgreementChecker:
    """Checks agreement, and that values which nodes take for chosen are chosen.

    A value is chosen when a quorum of voters has voted for it in one ballot, at any time. That is the paper's
    definition. The size of a quorum is computed here, independently of the core.

    :ivar voters: the places of the nodes that vote. ``offered``: the values that may be chosen.
    """

    def __init__(self, voters: Iterable[int], offered: Iterable[bytes]) -> None:
        self.voters = tuple(voters)
        self._offered = frozenset(offered)
        self._quorum = len(self.voters) // 2 + 1
        self._beliefs: dict[Belief, int] = {}
        self._vote_bits: dict[Vote, int] = {}
        self._cast: dict[tuple[int, int], int] = {}
        self._chosen: dict[int, tuple[int, str]] = {}
        self._proposed: dict[int, str] = {}

    def believed(self, beliefs: Iterable[Belief]) -> int:
        """``beliefs`` as bits."""
        bits = 0
        for belief in beliefs:
            bits |= self._beliefs.setdefault(belief, 1 << len(self._beliefs))
        return bits

    def cast(self, index: int, local: int, votes: Iterable[Vote]) -> int:
        """The ``votes`` of node ``index`` in its local state number ``local``, as bits."""
        known = self._cast.get((index, local))
        if known is None:
            known = 0
            for vote in votes:
                known |= self._vote_bits.setdefault(vote, 1 << len(self._vote_bits))
            self._cast[index, local] = known
        return known

    def of(self, votes: Sequence[int], believes: int) -> str:
        """What is wrong with these ``votes``, one set for each voter, and with the beliefs that depend on them; or
        nothing."""
        cast = agreed = 0
        for some in combinations(votes, self._quorum):
            common = -1
            for one in some:
                common &= one
            agreed |= common
        for one in votes:
            cast |= one
        if cast not in self._proposed:
            self._proposed[cast] = self._judge_proposals(cast)
        if agreed not in self._chosen:
            self._chosen[agreed] = self._judge_choice(agreed)
        chosen, wrong = self._chosen[agreed]
        if not wrong and believes & ~chosen:
            wrong = f"taken for chosen: {self._show(believes & ~chosen)}; chosen is: {self._show(chosen) or 'nothing'}"
        return wrong or self._proposed[cast]

    def _judge_proposals(self, cast: int) -> str:
        """In one ballot there is one value at each slot, and it was offered."""
        values: dict[tuple[Slot, Ballot], bytes] = {}
        for vote, bit in self._vote_bits.items():
            if cast & bit and vote.value not in self._offered:
                return f"a vote for {vote.value!r} at slot {vote.slot}, which was never offered"
            if cast & bit and values.setdefault((vote.slot, vote.ballot), vote.value) != vote.value:
                return f"votes for two values at slot {vote.slot} in {vote.ballot}"
        return ""

    def _judge_choice(self, agreed: int) -> tuple[int, str]:
        """At each slot at most one value is chosen."""
        values: dict[Slot, bytes] = {}
        for vote, bit in self._vote_bits.items():
            if agreed & bit and values.setdefault(vote.slot, vote.value) != vote.value:
                return 0, f"two values chosen at slot {vote.slot}: {values[vote.slot]!r} and {vote.value!r}"
        beliefs = {belief for slot, value in values.items() for belief in ((slot, value), (slot, None))}
        return self.believed(beliefs), ""

    def _show(self, bits: int) -> str:
        beliefs = [belief for belief, bit in self._beliefs.items() if bits & bit]
        named = {slot for slot, value in beliefs if value is not None}
        return ", ".join(
            f"slot {slot}" if value is None else f"{value!r} at slot {slot}"
            for slot, value in sorted(beliefs, key=str)
            if value is not None or slot not in named
        )


class ChangingAgreementChecker(AgreementChecker):
    """The same where the voters change: a value is chosen by a quorum of the configuration that governs its slot.

    :param nodes: the places of all nodes. ``founders``: the places of the voters in the beginning.
    :param entries: for each value that changes the members, the places of its voters. The first that is chosen counts.
    :param alpha: how many slots later it governs.
    """

    def __init__(
        self,
        nodes: Iterable[int],
        offered: Iterable[bytes],
        founders: frozenset[int],
        entries: Mapping[bytes, frozenset[int]],
        alpha: int,
    ) -> None:
        super().__init__(nodes, offered)
        self._founders = founders
        self._entries = entries
        self._alpha = alpha
        self._of: dict[tuple[int, ...], tuple[int, str]] = {}

    def of(self, votes: Sequence[int], believes: int) -> str:
        key = tuple(votes)
        if key not in self._of:
            self._of[key] = self._judge_votes(key)
        chosen, wrong = self._of[key]
        if not wrong and believes & ~chosen:
            wrong = f"taken for chosen: {self._show(believes & ~chosen)}; chosen is: {self._show(chosen) or 'nothing'}"
        return wrong

    def _judge_votes(self, votes: tuple[int, ...]) -> tuple[int, str]:
        cast = 0
        for one in votes:
            cast |= one
        chosen: dict[Slot, bytes] = {}
        for vote, bit in sorted(self._vote_bits.items()):
            if not cast & bit:
                continue
            if any(below not in chosen for below in range(1, vote.slot - self._alpha + 1)):
                return 0, f"a vote at slot {vote.slot}, before it is chosen who governs that slot"
            governing = self._governing(chosen, vote.slot)
            voters = sum(bool(votes[self.voters.index(place)] & bit) for place in governing)
            if 2 * voters > len(governing) and chosen.setdefault(vote.slot, vote.value) != vote.value:
                return 0, f"two values chosen at slot {vote.slot}: {chosen[vote.slot]!r} and {vote.value!r}"
        beliefs = {belief for slot, value in chosen.items() for belief in ((slot, value), (slot, None))}
        return self.believed(beliefs), self._judge_proposals(cast)

    def _governing(self, chosen: Mapping[Slot, bytes], slot: Slot) -> frozenset[int]:
        for below in range(1, slot - self._alpha + 1):
            if chosen[below] in self._entries:
                return self._entries[chosen[below]]
        return self._founders
