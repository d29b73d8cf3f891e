"""Paxos for one decree, with what a real network and a real disk ask for. Read after :mod:`~txpaxos.core.essential`.

What it adds to each role:

* **NACKs.** An acceptor says no instead of nothing, so a proposer need not wait in vain and learns what to beat.
* **Leadership belief.** A proposer whose ballot has a quorum believes it leads, until so many refuse that it cannot.
* **Retransmission.** What was sent last can be had again.
* **Recovery.** Roles start from saved state; :class:`Node` says in every Ready what to save before what is sent.

There is still no clock: whoever owns a node decides when to prepare and when to re-send.
"""

from __future__ import annotations

from collections.abc import Sequence

from txpaxos.core import essential
from txpaxos.core.essential import quorum_size
from txpaxos.core.guards import refusal_ballot
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Accepted,
    Ballot,
    Decided,
    Nack,
    NodeId,
    OneDecreeMessage,
    Prepare,
    Promise,
    Proposal,
)
from txpaxos.core.ready import Chosen, DecreeState, Ready, Work

BALLOTS_COUNTED_MAX = 16
"""A learner counts votes for so many ballots at once; of more, the lowest are forgotten. That only delays learning."""


class Proposer(essential.Proposer):
    """Adds refusals, the belief to lead, passivity and re-sending.

    What of a ballot's promises it takes depends on where it stands:

    =====================  ====================================================================================
    it is                  when
    =====================  ====================================================================================
    asking                 from ``prepare`` on: promises and refusals are counted
    ``leading``            a quorum has promised: further promises change nothing, refusals are counted
    ``given_up``           so many refused that no quorum is left, or the node let go: nothing of the ballot is
                           taken or sent any more; the next ``prepare`` begins anew
    =====================  ====================================================================================

    :param members: how many acceptors there are.
    :param highest: the highest ballot on this node's disk; every new ballot is above it.
    """

    def __init__(self, node: NodeId, members: int, highest: Ballot = LOWEST) -> None:
        super().__init__(node, quorum_size(members))
        self.members = members
        self.highest_seen = highest
        self.refusals: set[NodeId] = set()
        self.leading = False
        self.given_up = False

    def observe(self, ballot: Ballot) -> None:
        """Remember a ballot that somebody uses, so that the next one of our own is above it."""
        self.highest_seen = max(self.highest_seen, ballot)

    def prepare(self) -> Prepare:
        """Start a ballot above all seen so far."""
        self.observe(self.ballot)
        self.ballot = self.highest_seen
        self.refusals = set()
        self.leading = self.given_up = False
        return super().prepare()

    def give_up(self) -> None:
        """Leave the present ballot: late promises no longer count, nothing of it is sent again."""
        self.leading = False
        self.given_up = True

    def receive_promise(self, sender: NodeId, promise: Promise) -> Accept | None:
        """As the paper; with the quorum comes the belief to lead."""
        if self.given_up:
            return None
        before = self.has_quorum
        accept = super().receive_promise(sender, promise)
        if self.has_quorum and not before:
            self.leading = True
        return accept

    def receive_nack(self, sender: NodeId, nack: Nack) -> bool:
        """Count one refusal of the present ballot.

        :returns: whether the ballot is lost: those who have not refused are too few for a quorum.
        """
        self.observe(nack.promised)
        if nack.ballot != self.ballot:
            return False
        self.refusals.add(sender)
        if self.members - len(self.refusals) >= self.quorum:
            return False
        self.give_up()
        return True

    def accept(self) -> Accept | None:
        """As the paper, unless the ballot was given up."""
        return None if self.given_up else super().accept()

    def withdraw(self) -> None:
        """Offer nothing any more. What may have been chosen comes back with the promises of the next ballot."""
        self.value = None

    def resend(self) -> Prepare | Accept | None:
        """What the present ballot waits to have answered: its Prepare, or its Accept once it has a quorum."""
        if self.given_up or self.ballot == LOWEST:
            return None
        return self.accept() if self.has_quorum else Prepare(self.ballot)


class Acceptor(essential.Acceptor):
    """Adds refusals and recovery."""

    def __init__(self, promised: Ballot = LOWEST, accepted: Proposal | None = None) -> None:
        super().__init__()
        self.promised = promised
        self.accepted = accepted

    def answer_prepare(self, prepare: Prepare) -> Promise | Nack:
        """The promise, or the refusal."""
        return self.receive_prepare(prepare) or Nack(prepare.ballot, self.promised)

    def answer_accept(self, accept: Accept) -> Accepted | Nack:
        """The vote, or the refusal."""
        return self.receive_accept(accept) or Nack(accept.ballot, self.promised)


class Learner(essential.Learner):
    """Adds recovery, and a limit."""

    def __init__(self, quorum: int, chosen: bytes | None = None) -> None:
        super().__init__(quorum)
        self.chosen = chosen

    def learn(self, value: bytes) -> None:
        """Take the word of somebody who knows the outcome, if it is not known yet."""
        if self.chosen is None:
            self.chosen = value

    def receive_accepted(self, sender: NodeId, accepted: Accepted) -> bytes | None:
        """Count one vote, of the highest ballots only."""
        chosen = super().receive_accepted(sender, accepted)
        while len(self.voters) > BALLOTS_COUNTED_MAX:
            lowest = min(self.voters)
            del self.voters[lowest], self.values[lowest]
        return chosen


class Node:
    """The three roles of one decree in one place: messages in, a Ready out.

    :param node: this node's id.
    :param members: the ids of all nodes, this one included.
    :param saved: what the last Ready with a ``save`` said to save; the default for a node that never ran.
    """

    def __init__(self, node: NodeId, members: Sequence[NodeId], saved: DecreeState | None = None) -> None:
        self.node = node
        self.members = tuple(members)
        self._saved = saved or DecreeState()
        self.proposer = Proposer(node, len(members), self._saved.promised)
        self.acceptor = Acceptor(self._saved.promised, self._saved.accepted)
        self.learner = Learner(self.proposer.quorum, self._saved.chosen)

    @property
    def is_blank(self) -> bool:
        """Whether nothing at all is known of this decree, so that a new one would do as well."""
        return self._saved == DecreeState() and self.proposer.highest_seen == LOWEST and not self.learner.voters

    # from the owner

    def prepare(self) -> Ready:
        """Start a new ballot. The node promises it to itself at once: that is what puts the round on its disk."""
        work = Work()
        if self.learner.chosen is None:
            prepare = self.proposer.prepare()
            self.acceptor.receive_prepare(prepare)
            work.send_to(self.members, prepare)
        return self._ready(work)

    def propose(self, value: bytes) -> Ready:
        """Offer a value; ask for votes at once where the present ballot has its quorum and nothing was asked yet."""
        work = Work()
        asked = self.proposer.accept() is not None
        self.proposer.propose(value)
        if not asked:
            self._ask_for_votes(work, self.proposer.accept())
        return self._ready(work)

    def resend(self) -> Ready:
        """Send again what is still unanswered, as long as nothing is chosen."""
        work = Work()
        if self.learner.chosen is None and (message := self.proposer.resend()) is not None:
            work.send_to(self.members, message)
        return self._ready(work)

    # from the network

    def receive(self, sender: NodeId, message: OneDecreeMessage) -> Ready:
        """Take one message; strangers are not heard. Who knows the outcome answers every question with it."""
        work = Work()
        if sender not in self.members:
            return self._ready(work)
        match message:
            case Prepare() | Accept() if self.learner.chosen is not None:
                work.send_to(sender, Decided(self.learner.chosen))
            case Prepare():
                self.proposer.observe(message.ballot)
                work.send_to(sender, self._told(self.acceptor.answer_prepare(message)))
            case Accept():
                self.proposer.observe(message.ballot)
                answer = self._told(self.acceptor.answer_accept(message))
                work.send_to(self.members if isinstance(answer, Accepted) else sender, answer)
            case Promise():
                self._ask_for_votes(work, self.proposer.receive_promise(sender, message))
            case Nack():
                self.proposer.receive_nack(sender, message)
            case Accepted():
                self.learner.receive_accepted(sender, message)
            case Decided():  # pragma: no branch
                self.learner.learn(message.value)
        return self._ready(work)

    def _told(self, answer: Promise | Accepted | Nack) -> Promise | Accepted | Nack:
        """An answer as it is told: a Nack names a member's ballot."""
        if isinstance(answer, Nack):
            return Nack(answer.ballot, refusal_ballot(answer.promised, self.node, self.members))
        return answer

    def _ask_for_votes(self, work: Work, accept: Accept | None) -> None:
        if accept is not None:
            work.send_to(self.members, accept)

    def _ready(self, work: Work) -> Ready:
        """Close the Ready: whatever differs from what is saved must be saved, and a value is handed out once."""
        state = DecreeState(self.acceptor.promised, self.acceptor.accepted, self.learner.chosen)
        if state != self._saved:
            work.save.append(state)
            if state.chosen is not None and self._saved.chosen is None:
                work.chosen.append(Chosen(0, state.chosen))
            self._saved = state
        return work.ready()
