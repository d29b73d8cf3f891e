"""The parts of the core for a single decree, as the model runs them: ``essential`` up to ``functional``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import attrs

from txpaxos.core import essential, functional, practical
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Accepted,
    Decided,
    Message,
    Nack,
    NodeId,
    OneDecreeMessage,
    Prepare,
    Promise,
    Slot,
    Vote,
)
from txpaxos.core.ready import Chosen, DecreeState, Ready, Work
from txpaxos.testing.model.disk import ModelDisk
from txpaxos.testing.model.parts import (
    NOW,
    STILL,
    Move,
    Part,
    Running,
    forget_ballot,
    forget_own_promises,
    forget_promises,
    leadership_moves,
    settle_leadership,
)


def decree_state(disk: ModelDisk) -> DecreeState:
    """The last saved state of a node of one decree."""
    state = disk.records[0] if disk.records else DecreeState()
    assert isinstance(state, DecreeState)
    return state


# ----------------------------------------------------------- the essential roles


@attrs.define
class Asking:
    """A proposer, and whether it has asked for promises since it started.

    Before that it must ignore promises: they are for a ballot in which it no longer knows what it proposed.
    """

    proposer: essential.Proposer
    asked: bool = False


class EssentialProposer(Part[Asking]):
    """Proposes ``value``. Its disk holds the ballot that it used last, in place of a promise."""

    def __init__(self, node: NodeId, voters: Sequence[NodeId], value: bytes) -> None:
        super().__init__(node, voters)
        self.value = value

    def start(self, disk: ModelDisk) -> Asking:
        proposer = essential.Proposer(self.node, essential.quorum_size(len(self.voters)))
        proposer.propose(self.value)
        proposer.ballot = disk.promised
        return Asking(proposer)

    def moves(self, running: Asking) -> Iterable[Move[Asking]]:
        yield Move("starts a ballot", self._prepare, begins=True)

    def _prepare(self, running: Asking) -> Ready:
        work = Work()
        running.asked = True
        prepare = running.proposer.prepare()
        work.save_record(DecreeState(prepare.ballot))
        work.send_to(self.voters, prepare)
        return work.ready()

    def receive(self, running: Asking, sender: NodeId, message: Message) -> Ready:
        work = Work()
        if running.asked and (accept := running.proposer.receive_promise(sender, cast(Promise, message))):
            work.send_to(self.voters, accept)
        return work.ready()

    def forget_counts(self, running: Asking) -> None:
        forget_promises(running.proposer, self.voters)

    def counts(self, message: Message) -> bool:
        return True

    def dead(self, running: Asking, disk: ModelDisk, message: Message) -> bool:
        ballot = cast(Promise, message).ballot
        return not running.asked or running.proposer.has_quorum or running.proposer.ballot != ballot


class EssentialAcceptor(Part[essential.Acceptor]):
    """Answers the proposer, and tells the ``learners`` of its votes."""

    starts_ballots = False

    def __init__(self, node: NodeId, voters: Sequence[NodeId], learners: Sequence[NodeId]) -> None:
        super().__init__(node, voters)
        self.learners = tuple(learners)

    def start(self, disk: ModelDisk) -> essential.Acceptor:
        acceptor, state = essential.Acceptor(), decree_state(disk)
        acceptor.promised, acceptor.accepted = state.promised, state.accepted
        return acceptor

    def receive(self, running: essential.Acceptor, sender: NodeId, message: Message) -> Ready:
        work = Work()
        before = self.remembered(running, 0)
        if isinstance(message, Prepare):
            to: Sequence[NodeId] = (sender,)
            answer: OneDecreeMessage | None = running.receive_prepare(message)
        else:
            to = self.learners
            answer = running.receive_accept(cast(Accept, message))
        if self.remembered(running, 0) != before:
            work.save_record(DecreeState(running.promised, running.accepted))
        if answer is not None:
            work.send_to(to, answer)
        return work.ready()

    def remembered(self, running: essential.Acceptor, first_slot: Slot) -> object:
        return running.promised, running.accepted

    def dead(self, running: essential.Acceptor, disk: ModelDisk, message: Message) -> bool:
        assert isinstance(message, Prepare | Accept)
        if isinstance(message, Accept) and message.ballot == disk.promised:
            return Vote(0, message.ballot, message.value) in disk.votes
        return message.ballot < disk.promised


class EssentialLearner(Part[essential.Learner]):
    """A learner, which remembers nothing across a restart."""

    starts_ballots = False

    def start(self, disk: ModelDisk) -> essential.Learner:
        return essential.Learner(essential.quorum_size(len(self.voters)))

    def receive(self, running: essential.Learner, sender: NodeId, message: Message) -> Ready:
        before = running.chosen
        chosen = running.receive_accepted(sender, cast(Accepted, message))
        return Ready() if chosen is None or before is not None else Ready(chosen=(Chosen(0, chosen),))

    def known(self, running: essential.Learner) -> tuple[bytes, ...]:
        return () if running.chosen is None else (running.chosen,)

    def forget_counts(self, running: essential.Learner) -> None:
        running.voters, running.values = {}, {}

    def counts(self, message: Message) -> bool:
        return True


# ------------------------------------------------- one decree with all that it needs


class DecreePart(Part[Running]):
    """A node that has all three roles. One without a ``value`` starts no ballot."""

    def __init__(self, node: NodeId, voters: Sequence[NodeId], value: bytes | None) -> None:
        super().__init__(node, voters)
        self.value = value
        self.starts_ballots = value is not None

    def decree(self, running: Running) -> practical.Node:
        """The three roles of a node."""
        raise NotImplementedError

    def known(self, running: Running) -> tuple[bytes, ...]:
        chosen = self.decree(running).learner.chosen
        return () if chosen is None else (chosen,)

    def remembered(self, running: Running, first_slot: Slot) -> object:
        decree = self.decree(running)
        return decree.acceptor.promised, decree.acceptor.accepted, decree.learner.chosen

    def settle(self, running: Running) -> None:
        decree = self.decree(running)
        if decree.proposer.given_up or decree.proposer.ballot == LOWEST:
            forget_ballot(decree.proposer)

    def forget_counts(self, running: Running) -> None:
        decree = self.decree(running)
        forget_promises(decree.proposer, self.voters)
        decree.learner.voters, decree.learner.values = {}, {}

    def counts(self, message: Message) -> bool:
        return isinstance(message, Promise | Accepted)

    def dead(self, running: Running, disk: ModelDisk, message: Message) -> bool:
        proposer = self.decree(running).proposer
        match message:
            case Promise(ballot):
                return proposer.ballot != ballot or proposer.given_up or proposer.has_quorum
            case Nack(ballot, promised):
                return promised <= disk.promised and (proposer.ballot != ballot or proposer.given_up)
            case Accepted() | Decided():
                return decree_state(disk).chosen is not None
        return False


class PracticalPart(DecreePart[practical.Node]):
    """A node of ``practical``."""

    def start(self, disk: ModelDisk) -> practical.Node:
        node = practical.Node(self.node, self.voters, decree_state(disk))
        if self.value is not None:
            node.propose(self.value)
        return node

    def decree(self, running: practical.Node) -> practical.Node:
        return running

    def moves(self, running: practical.Node) -> Iterable[Move[practical.Node]]:
        if self.value is not None:
            yield Move("starts a ballot", practical.Node.prepare, begins=True)
            yield Move("sends again", practical.Node.resend)

    def receive(self, running: practical.Node, sender: NodeId, message: Message) -> Ready:
        return running.receive(sender, cast(OneDecreeMessage, message))


class FunctionalPart(DecreePart[functional.Node]):
    """A node of ``functional``. Without a ``value`` its election timer never fires."""

    def start(self, disk: ModelDisk) -> functional.Node:
        node = functional.Node(self.node, self.voters, STILL, NOW, decree_state(disk))
        if self.value is not None:
            node.propose(self.value)
        return node

    def decree(self, running: functional.Node) -> practical.Node:
        return running.decree

    def moves(self, running: functional.Node) -> Iterable[Move[functional.Node]]:
        return leadership_moves(running.election) if self.value is not None else ()

    def receive(self, running: functional.Node, sender: NodeId, message: Message) -> Ready:
        return running.receive(sender, cast(Any, message), NOW)

    def dead(self, running: functional.Node, disk: ModelDisk, message: Message) -> bool:
        if isinstance(message, Promise):
            # Promises count after a quorum, too: a node that campaigns when the outcome is known starts no ballot, and
            # leads in the old one at the next promise.
            return running.decree.proposer.ballot != message.ballot or running.decree.proposer.given_up
        return super().dead(running, disk, message)

    def settle(self, running: functional.Node) -> None:
        super().settle(running)
        settle_leadership(running.election)
        # Before it prepares a ballot, the decree is told what the election has seen.
        running.decree.proposer.observe(running.election.highest_seen)
        running.election.observe_ballot(running.decree.proposer.highest_seen)

    def forget_counts(self, running: functional.Node) -> None:
        super().forget_counts(running)
        forget_own_promises(running.election)
