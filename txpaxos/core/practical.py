"""Paxos for one decree, with what a real network and a real disk ask for. Read after :mod:`~txpaxos.core.essential`.

What it adds to each role:

* **Nacks.** An acceptor says no instead of nothing, so a proposer need not wait in vain, and learns what to beat.
* **Giving up.** A proposer leaves a ballot when so many acceptors have refused it that no quorum is left.
* **Retransmission.** A proposer can tell again what it waits to have answered.
* **Recovery.** Roles start from saved state; :class:`Node` says in every Ready what to save before what is sent.

There is still no clock: the owner of a node decides when to prepare and when to send again.
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
"""The number of ballots that a learner counts votes for at a time. With more, it forgets the lowest: that only delays
learning."""


class Proposer(essential.Proposer):
    """Adds refusals, giving up and sending again. One ballot goes through these states:

    ==============  ================================================================================================
    state           what the proposer does
    ==============  ================================================================================================
    asking          from ``prepare`` on: it counts promises and refusals
    ``has_quorum``  a quorum has promised: further promises change nothing; it still counts refusals
    ``given_up``    so many have refused that no quorum is left, or the owner gave up: it takes and sends nothing of
                    the ballot any more; the next ``prepare`` starts a new one
    ==============  ================================================================================================

    :param members: how many acceptors there are.
    :param highest: the highest ballot on this node's disk; every new ballot is above it.
    """

    def __init__(self, node: NodeId, members: int, highest: Ballot = LOWEST) -> None:
        super().__init__(node, quorum_size(members))
        self.members = members
        self.highest_seen = highest
        self.refusals: set[NodeId] = set()
        self.given_up = False

    def observe(self, ballot: Ballot) -> None:
        """Note that ``ballot`` is in use: the next one of this proposer's own is to be above it."""
        self.highest_seen = max(self.highest_seen, ballot)

    def prepare(self) -> Prepare:
        """Start a ballot above all that were seen so far."""
        self.observe(self.ballot)
        self.ballot = self.highest_seen
        self.refusals = set()
        self.given_up = False
        return super().prepare()

    def give_up(self) -> None:
        """Leave the current ballot: late promises of it no longer count, and nothing of it is sent again."""
        self.given_up = True

    def receive_promise(self, sender: NodeId, promise: Promise) -> Accept | None:
        """As the paper, unless the ballot was given up."""
        return None if self.given_up else super().receive_promise(sender, promise)

    def receive_nack(self, sender: NodeId, nack: Nack) -> bool:
        """Count one refusal of the current ballot.

        :returns: whether the ballot is lost: the acceptors that have not refused it are too few for a quorum.
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

    def resend(self) -> Prepare | Accept | None:
        """The message of the current ballot that waits for answers: its Prepare, or its Accept once it has a quorum."""
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
        """Take ``value``, of which another node says that it is chosen, if no chosen value is known yet."""
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
        """Offer a value. If the current ballot has its quorum and has not asked for votes yet, ask for them at once."""
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
        """Take one message of a member. A node that knows the outcome answers every question with it."""
        work = Work()
        if sender not in self.members:
            return self._ready(work)
        match message:
            case Prepare() | Accept() if self.learner.chosen is not None:
                work.send_to(sender, Decided(self.learner.chosen))
            case Prepare():
                self.proposer.observe(message.ballot)
                work.send_to(sender, self._as_sent(self.acceptor.answer_prepare(message)))
            case Accept():
                self.proposer.observe(message.ballot)
                answer = self._as_sent(self.acceptor.answer_accept(message))
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

    def _as_sent(self, answer: Promise | Accepted | Nack) -> Promise | Accepted | Nack:
        """The answer as it is sent: a Nack names a member's ballot."""
        if isinstance(answer, Nack):
            return Nack(answer.ballot, refusal_ballot(answer.promised, self.node, self.members))
        return answer

    def _ask_for_votes(self, work: Work, accept: Accept | None) -> None:
        if accept is not None:
            work.send_to(self.members, accept)

    def _ready(self, work: Work) -> Ready:
        """Close every call: what differs from what is saved must be saved, and a chosen value is handed out once."""
        state = DecreeState(self.acceptor.promised, self.acceptor.accepted, self.learner.chosen)
        if state != self._saved:
            work.save.append(state)
            if state.chosen is not None and self._saved.chosen is None:
                work.chosen.append(Chosen(0, state.chosen))
            self._saved = state
        return work.ready()
