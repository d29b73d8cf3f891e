"""Paxos for one decree, as the paper has it, and nothing more. Start reading here.

*Paxos Made Simple* (Lamport, 2001), section 2: some nodes propose values, and of these a single one is chosen, for
ever, whatever messages are lost, delayed, doubled or reordered and whichever nodes restart. Three roles, which one
node may play at once:

=========  =====================================================  ==========================
role       does                                                   remembers across a restart
=========  =====================================================  ==========================
Proposer   asks for promises, then for votes                      the round it used last
Acceptor   promises and votes; the memory of the system           everything it holds
Learner    notices that a quorum has voted for one proposal       nothing
=========  =====================================================  ==========================

Why it is safe, in three sentences. A value is chosen when a quorum (any majority) of acceptors accepted it in one
ballot. Any two quorums share an acceptor; so a proposer that collects promises from a quorum hears of every value
that may have been chosen below its ballot. It then proposes the one of the highest ballot instead of its own, so every
ballot above a chosen one carries the same value.

Methods return the message to send, or ``None`` when there is nothing to say. Before a message leaves, what its sender
remembers must be on disk. Nothing here re-sends, gives up or recovers: that is :mod:`txpaxos.core.practical`.

That Paxos is told in three steps, essential, practical and functional, each a subclass of the one before and none of
them with a network in it, is the idea of Tom Cocagne's *Plain Paxos*.
"""

from __future__ import annotations

from txpaxos.core.messages import LOWEST, Accept, Accepted, Ballot, NodeId, Prepare, Promise, Proposal


def quorum_size(members: int) -> int:
    """The size of a majority of ``members`` nodes: any two sets of that size share a node."""
    return members // 2 + 1


class Proposer:
    """Tries to get a value chosen.

    :param node: the proposer's own id; makes its ballots unlike anyone else's.
    :param quorum: how many acceptors make a quorum.
    :param last: the ballot that this proposer used last, before a restart: the next one must be above it.
    """

    def __init__(self, node: NodeId, quorum: int, last: Ballot = LOWEST) -> None:
        self.node = node
        self.quorum = quorum
        self.ballot = last
        self.value: bytes | None = None
        self.promises: set[NodeId] = set()
        self.highest_accepted: Proposal | None = None

    def propose(self, value: bytes) -> None:
        """Offer a value, if none is offered yet. It is proposed only where no other may have been chosen."""
        if self.value is None:
            self.value = value

    def prepare(self) -> Prepare:
        """Phase 1a (section 2.2): start a new, higher ballot and ask every acceptor for its promise.

        What promises told of the ballot before is forgotten: this one must hear a quorum of its own. A value that was
        taken over from them stays our own, for it may be proposed where no other may have been chosen, as any may."""
        self.ballot = Ballot(self.ballot.round + 1, self.node)
        self.promises = set()
        self.highest_accepted = None
        return Prepare(self.ballot)

    def receive_promise(self, sender: NodeId, promise: Promise) -> Accept | None:
        """Phase 2a: when this promise completes a quorum, ask every acceptor to vote.

        The value is that of the highest-ballot proposal any of the quorum has accepted. Only if there is none may it be
        our own; with none of our own either, there is nothing to ask for. Promises beyond the quorum change nothing:
        the value of a ballot must not change once it may have been sent.
        """
        if promise.ballot != self.ballot or self.has_quorum:
            return None
        self.promises.add(sender)
        accepted = promise.accepted
        if accepted and (self.highest_accepted is None or accepted.ballot > self.highest_accepted.ballot):
            self.highest_accepted = accepted
        return self.accept()

    @property
    def has_quorum(self) -> bool:
        """Whether phase 1 of the current ballot is complete."""
        return len(self.promises) >= self.quorum

    def accept(self) -> Accept | None:
        """The Accept of the current ballot, if it has a quorum and a value; else ``None``.

        From here on the value that a promise told of takes the place of the one that was offered, which is lost: our
        own has no better claim, and one proposer has one value."""
        if not self.has_quorum:
            return None
        if self.highest_accepted is not None:
            self.value = self.highest_accepted.value
        return None if self.value is None else Accept(self.ballot, self.value)


class Acceptor:
    """Votes, and never against its word. ``promised`` and ``accepted`` are on disk before any answer leaves."""

    def __init__(self) -> None:
        self.promised = LOWEST
        self.accepted: Proposal | None = None

    def receive_prepare(self, prepare: Prepare) -> Promise | None:
        """Phase 1b: promise to accept nothing below this ballot, and tell what was accepted so far.

        The same Prepare again (a doubled datagram) gets the same promise again."""
        if prepare.ballot < self.promised:
            return None
        self.promised = prepare.ballot
        return Promise(prepare.ballot, self.accepted)

    def receive_accept(self, accept: Accept) -> Accepted | None:
        """Phase 2b: accept, unless a higher ballot was promised. Accepting is a promise too: a lower ballot must not
        overwrite this vote later."""
        if accept.ballot < self.promised:
            return None
        self.promised = accept.ballot
        self.accepted = Proposal(accept.ballot, accept.value)
        return Accepted(accept.ballot, accept.value)


class Learner:
    """Finds out that a value is chosen: a quorum of distinct acceptors accepted it in the same ballot."""

    def __init__(self, quorum: int) -> None:
        self.quorum = quorum
        self.voters: dict[Ballot, set[NodeId]] = {}
        self.values: dict[Ballot, bytes] = {}
        self.chosen: bytes | None = None

    def receive_accepted(self, sender: NodeId, accepted: Accepted) -> bytes | None:
        """Count one vote. Votes are counted by ballot, never by value and never by message: a doubled one counts once.

        A ballot has one value, and one value is chosen. Votes that say otherwise cannot be; they count for nothing.

        :returns: the chosen value, at the vote that makes it so and at every one after; ``None`` before.
        """
        voters = self.voters.setdefault(accepted.ballot, set())
        if self.values.setdefault(accepted.ballot, accepted.value) == accepted.value:
            voters.add(sender)
        if len(voters) >= self.quorum and self.chosen is None:
            self.chosen = accepted.value
        return self.chosen
