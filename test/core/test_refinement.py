"""The replica does nothing, at any slot, that the paper's acceptor, proposer and learner could not do.

Random schedules run on replicas. Beside each node stands an :class:`essential.Acceptor` per slot, beside each ballot an
:class:`essential.Proposer` per slot, and one :class:`essential.Learner` per slot. What goes to a node's disk and what
it sends is translated (a ``PrepareLog`` is a ``Prepare`` at every slot) and compared.
A message that the replica ignored or refused is one that the small ones never got: that is always allowed.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from test.helpers.core_cluster import CoreCluster, Faults
from txpaxos.core import essential
from txpaxos.core.config import Limits
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    LogMessage,
    NodeId,
    Prepare,
    Promise,
    PromiseLog,
    Proposal,
    Slot,
)
from txpaxos.core.ready import Chosen, LogRecord, Promised, Ready, Voted


class ShadowedCluster(CoreCluster):
    """Replicas, and beside them the single decrees. Their acceptors are what is on disk: a crash leaves them as they
    are, and whatever the replica remembers less, or more, than they do will show."""

    def __init__(self, seed: int, nodes: int, faults: Faults, limits: Limits | None) -> None:
        self.acceptors: dict[NodeId, dict[Slot, essential.Acceptor]] = defaultdict(dict)
        self.prepared: dict[NodeId, Ballot] = defaultdict(lambda: LOWEST)
        self.learners: dict[Slot, essential.Learner] = defaultdict(lambda: essential.Learner(self.quorum))
        # What each candidate heard until its quorum was there, and how far all was chosen, for all it knew then.
        self.heard: dict[Ballot, dict[NodeId, PromiseLog]] = defaultdict(dict)
        self.known: dict[Ballot, Slot] = {}
        self.looked_at: Counter[str] = Counter()
        super().__init__(seed, nodes, faults, limits)
        self.watch = self.hear

    def acceptor(self, node: NodeId, slot: Slot) -> essential.Acceptor:
        """The acceptor of ``node`` at ``slot``. One not looked at before has had every Prepare that was answered."""
        if slot not in self.acceptors[node]:
            self.acceptors[node][slot] = essential.Acceptor()
            self.acceptors[node][slot].receive_prepare(Prepare(self.prepared[node]))
        return self.acceptors[node][slot]

    def saved(self, node: NodeId, record: LogRecord) -> None:
        """What is saved is what the acceptors would have saved."""
        super().saved(node, record)
        match record:
            case Promised(ballot):
                self.prepared[node] = ballot
                for acceptor in self.acceptors[node].values():
                    assert acceptor.receive_prepare(Prepare(ballot)) is not None, (node, ballot)
            case Voted(ballot, slot, value):
                accepted = self.acceptor(node, slot).receive_accept(Accept(ballot, value))
                assert accepted == Accepted(ballot, value), (node, record)
                self.learners[slot].receive_accepted(node, accepted)

    def sending(self, node: NodeId, message: LogMessage) -> None:
        """What is sent is what the acceptor of each slot, or a proposer there, would have sent."""
        super().sending(node, message)
        self.looked_at[type(message).__name__] += 1
        match message:
            case PromiseLog():
                self.check_promise(node, message)
            case AcceptSlot():
                self.check_proposal(message)
            case AcceptedSlot(ballot, slot):
                value = self.ledger.proposed[slot, ballot]
                if self.learners[slot].chosen != value:
                    accepted = self.acceptor(node, slot).receive_accept(Accept(ballot, value))
                    assert accepted == Accepted(ballot, value), (node, message)

    def check_promise(self, node: NodeId, promise: PromiseLog) -> None:
        """Every acceptor could give it, and it tells what each of them would tell, unless that slot is chosen."""
        reported = {slot: Proposal(ballot, value) for slot, ballot, value in promise.votes}
        first_open = promise.first_slot + len(promise.values)
        for slot in range(1, max([first_open, *reported, *self.acceptors[node]]) + 1):
            answer = self.acceptor(node, slot).receive_prepare(Prepare(promise.ballot))
            assert answer is not None, (node, slot, promise)
            if slot >= first_open:
                assert answer.accepted == reported.get(slot), (node, slot, promise)
        for slot, value in enumerate(promise.values, promise.first_slot):
            assert self.learners[slot].chosen == value

    def hear(self, node: NodeId, sender: NodeId, message: LogMessage, ready: Ready) -> None:
        """A promise reached a candidate; beyond the quorum none counts."""
        replica = self.nodes[node]
        if isinstance(message, PromiseLog) and message.ballot == replica.election.own_ballot:
            if message.ballot not in self.known:
                self.heard[message.ballot][sender] = message
            if replica.is_leader:
                self.known.setdefault(message.ballot, replica.log.chosen_through)

    def check_proposal(self, message: AcceptSlot) -> None:
        """A proposer at that slot, with the same quorum of promises, would have proposed this value or was free to."""
        assert message.slot > self.known[message.ballot], "what is chosen needs no proposal"
        proposer = essential.Proposer(message.ballot.node, self.quorum)
        proposer.ballot = message.ballot
        for sender, promise in self.heard[message.ballot].items():
            accepted = [vote for vote in promise.votes if vote.slot == message.slot]
            told = Proposal(accepted[0].ballot, accepted[0].value) if accepted else None
            proposer.receive_promise(sender, Promise(message.ballot, told))
        proposer.propose(message.value)
        assert proposer.accept() == Accept(message.ballot, message.value)

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        """Whatever a node hands out, the learner of that slot has learned."""
        super().hand_out(node, ready)
        for item in ready.chosen:
            assert isinstance(item, Chosen)
            assert self.learners[item.slot].chosen == item.value, (node, item)


@pytest.mark.no_cover  # Under coverage it would take three times as long.
@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("limits", [None, Limits(fetch_values=2, ahead_slots=4)], ids=["usual", "small"])
def test_replica_refines_the_paper(nodes: int, limits: Limits | None) -> None:
    """100 seeds each: loss, doubling, reordering, slow saves, crashes between save and send, partitions."""
    looked_at: Counter[str] = Counter()
    for seed in range(100):
        faults = Faults(0.2, 0.1, (0.001, 0.15), crash=0.01, save_seconds=(0.0, 0.01))
        cluster = ShadowedCluster(seed, nodes, faults, limits)
        for turn in range(20):
            cluster.run(0.1)
            for node in cluster.members:
                cluster.propose(f"{node}{turn}".encode(), node)
            if cluster.rng.random() < 0.1:
                cluster.cut_off(cluster.rng.choice(cluster.members))
            elif cluster.rng.random() < 0.3:
                cluster.cut.clear()
        cluster.heal()
        assert cluster.run(20.0, lambda: cluster.leader() and cluster.settled()), seed  # noqa: B023
        learned = {slot: learner.chosen for slot, learner in cluster.learners.items() if learner.chosen is not None}
        assert learned == cluster.ledger.chosen
        looked_at += cluster.looked_at + Counter(crashes=cluster.crashes)
    assert looked_at["crashes"] > 20
    assert looked_at["PromiseLog"] > 500
    assert looked_at["AcceptSlot"] > 1000
    assert looked_at["AcceptedSlot"] > 1000
