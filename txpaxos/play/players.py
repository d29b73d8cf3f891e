"""The nodes of the stage: each wraps what one node runs of the core, so that the stage can treat all kinds alike.

A player decides nothing. It passes calls on to its objects of :mod:`txpaxos.core`, and shows what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random
from typing import Any, cast

from txpaxos.core import essential, functional, practical
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Accepted,
    Ballot,
    Message,
    NodeId,
    OneDecreeMessage,
    Prepare,
    Promise,
)
from txpaxos.core.ready import Chosen, DecreeState, LogRecord, Ready, Record, Work
from txpaxos.core.replica import Replica
from txpaxos.play.actions import NotPossible
from txpaxos.play.words import entries_in_words, proposal_in_words, value_in_words

Facts = dict[str, str]
"""What one node holds, by its name."""

PROPOSERS, ACCEPTORS, LEARNERS = ("p", "q"), ("a", "b", "c"), ("l",)
"""Who has which role in the essential kind."""


def ballots_in_words(voters: dict[Ballot, set[NodeId]]) -> str:
    """Votes by their ballots: ``1.p from a and b``."""
    told = (f"{ballot} from {', '.join(sorted(nodes))}" for ballot, nodes in sorted(voters.items()) if nodes)
    return "; ".join(told) or "none"


class Player:
    """One node of the stage.

    :ivar name: its id.
    :ivar roles: what it is, for the head of its column.
    :cvar may: what its user may have it do by hand.
    :cvar promises: whether it is an acceptor, so that a ballot on its disk is a promise.
    """

    may: frozenset[str] = frozenset()
    promises = True

    def __init__(self, name: NodeId, roles: str) -> None:
        self.name = name
        self.roles = roles

    @property
    def wake_at(self) -> float:
        """When its next timer is over, by its own clock; infinite if it has none."""
        return inf

    def facts(self) -> Facts:
        """What it holds now."""
        raise NotImplementedError

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """A message has arrived."""
        raise NotImplementedError

    def tick(self, now: float) -> Ready:
        """Its timer is over."""
        raise NotImplementedError

    def propose(self, value: bytes, now: float) -> Ready:
        """Its user offers a value."""
        raise NotImplementedError

    def prepare(self) -> Ready:
        """Its owner has it start a ballot."""
        raise NotImplementedError

    def resend(self) -> Ready:
        """Its owner has it send again what is unanswered."""
        raise NotImplementedError


class EssentialProposer(Player):
    """A proposer of the paper. On its disk is the ballot that it used last."""

    may = frozenset({"propose", "prepare"})
    promises = False

    def __init__(self, name: NodeId, saved: DecreeState) -> None:
        super().__init__(name, "proposer")
        self.proposer = essential.Proposer(name, quorum_size(len(ACCEPTORS)), saved.promised)

    def facts(self) -> Facts:
        """Its ballot, its value, and what it was promised."""
        return proposer_facts(self.proposer)

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """A promise may complete its quorum."""
        work = Work()
        if isinstance(message, Promise):
            self._ask_for_votes(work, self.proposer.receive_promise(sender, message))
        return work.ready()

    def propose(self, value: bytes, now: float) -> Ready:
        """Offer a value. If it has a quorum that told it of none, it asks for votes at once."""
        work = Work()
        has_asked = self.proposer.accept() is not None
        self.proposer.propose(value)
        if not has_asked:
            self._ask_for_votes(work, self.proposer.accept())
        return work.ready()

    def prepare(self) -> Ready:
        """Start a ballot."""
        work = Work()
        prepare = self.proposer.prepare()
        work.save_record(DecreeState(prepare.ballot))
        work.send_to(ACCEPTORS, prepare)
        return work.ready()

    def _ask_for_votes(self, work: Work, accept: Accept | None) -> None:
        if accept is not None:
            work.send_to(ACCEPTORS, accept)


class EssentialAcceptor(Player):
    """An acceptor of the paper. On its disk is all that it holds."""

    def __init__(self, name: NodeId, saved: DecreeState) -> None:
        super().__init__(name, "acceptor")
        self.acceptor = essential.Acceptor()
        self.acceptor.promised, self.acceptor.accepted = saved.promised, saved.accepted

    def facts(self) -> Facts:
        """Its promise and its vote."""
        return acceptor_facts(self.acceptor)

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Promise, or vote, or say nothing."""
        work, acceptor = Work(), self.acceptor
        before = DecreeState(acceptor.promised, acceptor.accepted)
        if isinstance(message, Prepare) and (promise := acceptor.receive_prepare(message)) is not None:
            work.send_to(sender, promise)
        if isinstance(message, Accept) and (accepted := acceptor.receive_accept(message)) is not None:
            work.send_to(LEARNERS, accepted)
        after = DecreeState(acceptor.promised, acceptor.accepted)
        work.save_record(after if after != before else None)
        return work.ready()


class EssentialLearner(Player):
    """A learner of the paper. It has no disk."""

    def __init__(self, name: NodeId) -> None:
        super().__init__(name, "learner")
        self.learner = essential.Learner(quorum_size(len(ACCEPTORS)))

    def facts(self) -> Facts:
        """The votes that it has heard, and what it knows to be chosen."""
        return learner_facts(self.learner)

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Count a vote."""
        work = Work()
        known = self.learner.chosen
        if isinstance(message, Accepted):
            chosen = self.learner.receive_accepted(sender, message)
            if chosen is not None and known is None:
                work.chosen.append(Chosen(0, chosen))
        return work.ready()


class PracticalPlayer(Player):
    """All three roles of one decree, without a clock."""

    may = frozenset({"propose", "prepare", "resend"})

    def __init__(self, name: NodeId, members: Sequence[NodeId], saved: DecreeState) -> None:
        super().__init__(name, "proposer, acceptor, learner")
        self.node = practical.Node(name, members, saved)

    def facts(self) -> Facts:
        """What its three roles hold."""
        return decree_facts(self.node)

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Pass the message on."""
        return self.node.receive(sender, cast(OneDecreeMessage, message))

    def propose(self, value: bytes, now: float) -> Ready:
        """Offer a value."""
        return self.node.propose(value)

    def prepare(self) -> Ready:
        """Start a ballot."""
        return self.node.prepare()

    def resend(self) -> Ready:
        """Send again what is unanswered."""
        return self.node.resend()


class FunctionalPlayer(Player):
    """The same with an election of who gets it done."""

    may = frozenset({"propose"})

    def __init__(self, name: NodeId, members: Sequence[NodeId], saved: DecreeState, rng: Random, now: float) -> None:
        super().__init__(name, "elects a leader")
        self.node = functional.Node(name, members, rng, now, saved)

    @property
    def wake_at(self) -> float:
        """When its election is next due."""
        return self.node.election.wake_at

    def facts(self) -> Facts:
        """Its place in the election, and what its three roles hold."""
        election = self.node.election
        return {
            "role": election.role.value,
            "follows": election.leader_node or "none",
            **decree_facts(self.node.decree),
        }

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Pass the message on."""
        return self.node.receive(sender, cast(Any, message), now)

    def tick(self, now: float) -> Ready:
        """Its timer is over."""
        return self.node.tick(now)

    def propose(self, value: bytes, now: float) -> Ready:
        """Offer a value."""
        return self.node.propose(value)


class ReplicaPlayer(Player):
    """One node of the log."""

    may = frozenset({"propose"})

    def __init__(
        self, name: NodeId, members: Sequence[NodeId], saved: Sequence[LogRecord], rng: Random, now: float
    ) -> None:
        super().__init__(name, "node of the log")
        self.replica = Replica(name, members, rng, now, saved)

    @property
    def wake_at(self) -> float:
        """When the replica is next due."""
        return self.replica.wake_at

    def facts(self) -> Facts:
        """Its place in the election, its promise, its votes and its log."""
        replica, status = self.replica, self.replica.status()
        votes = replica.log.votes_from(1)
        return {
            "role": status.role,
            "follows": status.leader or "none",
            "promised": str(status.promised),
            "accepted": ", ".join(f"{slot} = {value_in_words(value)} in {ballot}" for slot, ballot, value in votes)
            or "nothing open",
            "log": entries_in_words(replica.log.first_slot, replica.log.values_from(replica.log.first_slot)) or "empty",
        }

    def receive(self, sender: NodeId, message: Message, now: float) -> Ready:
        """Pass the message on."""
        return self.replica.receive(sender, message, now)

    def tick(self, now: float) -> Ready:
        """Its timer is over."""
        return self.replica.tick(now)

    def propose(self, value: bytes, now: float) -> Ready:
        """Propose a value at the next slot.

        :raises NotPossible: if this node does not lead, or its window is full.
        """
        if not self.replica.is_leader:
            raise NotPossible(f"{self.name} does not lead: only a leader proposes")
        if not self.replica.has_room:
            raise NotPossible(f"{self.name} has no slot free yet: what it proposed first has to be chosen")
        return self.replica.propose(value, now)


def proposer_facts(proposer: essential.Proposer) -> Facts:
    """What a proposer holds."""
    facts = {
        "ballot": str(proposer.ballot),
        "value": "none" if proposer.value is None else value_in_words(proposer.value),
        "promises": ", ".join(sorted(proposer.promises)) or "none",
        "told of": proposal_in_words(proposer.highest_accepted),
    }
    if isinstance(proposer, practical.Proposer):
        facts["refusals"] = ", ".join(sorted(proposer.refusals)) or "none"
        if proposer.given_up:
            facts["ballot"] += " (given up)" if proposer.ballot != LOWEST else ""
    return facts


def acceptor_facts(acceptor: essential.Acceptor) -> Facts:
    """What an acceptor holds."""
    return {"promised": str(acceptor.promised), "accepted": proposal_in_words(acceptor.accepted)}


def learner_facts(learner: essential.Learner) -> Facts:
    """What a learner holds."""
    chosen = "unknown" if learner.chosen is None else value_in_words(learner.chosen)
    return {"votes heard": ballots_in_words(learner.voters), "learned": chosen}


def decree_facts(node: practical.Node) -> Facts:
    """What the three roles of a node hold, the memory of the system first."""
    return {**acceptor_facts(node.acceptor), **proposer_facts(node.proposer), **learner_facts(node.learner)}


# -------------------------------------------------------------------- the kinds

KINDS = {
    "essential": "One decree: the paper",
    "practical": "One decree, with refusals and restarts",
    "functional": "One decree, with elections",
    "replica": "A log",
}
"""What can be played, and what the page calls it."""


def members_of(kind: str, count: int) -> tuple[NodeId, ...]:
    """The names of the nodes of one kind, in the order of their columns."""
    if kind == "essential":
        return (PROPOSERS[0], *ACCEPTORS, *PROPOSERS[1:], *LEARNERS)
    return tuple("abcde"[:count])


def voters_of(kind: str, members: Sequence[NodeId]) -> tuple[NodeId, ...]:
    """Those of the nodes whose votes count."""
    return ACCEPTORS if kind == "essential" else tuple(members)


def new_player(
    kind: str, name: NodeId, members: Sequence[NodeId], disk: Sequence[Record], start: int, now: float
) -> Player:
    """A node as it starts from its disk.

    :param start: how often it has started before. It draws its chance from that and its name.
    """
    state = disk[-1] if disk and isinstance(disk[-1], DecreeState) else DecreeState()
    rng = Random(f"{name}{start}")
    match kind:
        case "essential":
            if name in PROPOSERS:
                return EssentialProposer(name, state)
            return EssentialAcceptor(name, state) if name in ACCEPTORS else EssentialLearner(name)
        case "practical":
            return PracticalPlayer(name, members, state)
        case "functional":
            return FunctionalPlayer(name, members, state, rng, now)
    return ReplicaPlayer(name, members, cast(Sequence[LogRecord], disk), rng, now)
