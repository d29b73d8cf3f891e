"""What :mod:`txpaxos.core.practical` adds, after everything that must still hold of what it adds to."""

from __future__ import annotations

from typing import Any

import pytest

from test.core import test_essential
from test.helpers.core_node import sent
from txpaxos.core import practical
from txpaxos.core.messages import LOWEST, Accept, Accepted, Ballot, Decided, Nack, NodeId, Prepare, Promise, Proposal
from txpaxos.core.practical import BALLOTS_COUNTED_MAX
from txpaxos.core.ready import Chosen, DecreeState, Envelope, Ready

ABC = ("a", "b", "c")


class TestProposer(test_essential.TestProposer):
    proposer: practical.Proposer

    def make(self, node: NodeId = "a") -> practical.Proposer:
        return practical.Proposer(node, 3)

    def nack(self, sender: NodeId, ballot: Ballot | None = None) -> bool:
        return self.proposer.receive_nack(sender, Nack(ballot or self.proposer.ballot, Ballot(7, "c")))

    def lead(self) -> Ballot:
        ballot = self.proposer.prepare().ballot
        self.promise("a")
        self.promise("b")
        assert self.proposer.has_quorum
        return ballot

    def test_starts_above_what_is_on_disk(self) -> None:
        """Trap 5: a ballot is not used twice, with a restart in between either."""
        assert practical.Proposer("a", 3, Ballot(4, "b")).prepare().ballot == Ballot(5, "a")

    def test_starts_above_what_it_saw(self) -> None:
        self.proposer.observe(Ballot(3, "c"))
        self.proposer.observe(Ballot(2, "b"))
        assert self.proposer.prepare().ballot == Ballot(4, "a")

    def test_quorum_counts_for_one_ballot(self) -> None:
        self.proposer.prepare()
        self.promise("a")
        assert not self.proposer.has_quorum
        self.promise("b")
        assert self.proposer.has_quorum
        self.proposer.prepare()
        assert not self.proposer.has_quorum

    def test_one_refusal_of_three_is_not_the_end(self) -> None:
        self.lead()
        assert [self.nack("c"), self.nack("c")] == [False, False], "a doubled one counts once"
        assert not self.proposer.given_up

    def test_ballot_is_lost_when_too_few_are_left(self) -> None:
        self.proposer.propose(b"v")
        self.lead()
        self.nack("b")
        assert self.nack("c")
        assert self.proposer.given_up
        assert self.proposer.resend() is None

    def test_refusal_tells_what_to_beat(self) -> None:
        self.proposer.prepare()
        self.nack("c")
        ballot = self.proposer.prepare().ballot
        assert ballot == Ballot(8, "a")
        assert self.proposer.refusals == set()

    def test_refusal_of_another_ballot_only_teaches(self) -> None:
        old = self.proposer.prepare().ballot
        self.lead()
        assert not self.nack("b", old)
        assert not self.nack("c", old)
        assert not self.proposer.given_up
        assert self.proposer.highest_seen == Ballot(7, "c")

    def test_given_up_ballot_hears_no_late_promise(self) -> None:
        self.proposer.propose(b"v")
        self.proposer.prepare()
        self.promise("a")
        self.proposer.give_up()
        assert self.promise("b") is None
        assert not self.proposer.has_quorum

    def test_resends_what_it_waits_to_have_answered(self) -> None:
        self.proposer.propose(b"")
        assert self.proposer.resend() is None, "nothing was sent yet"
        prepare = self.proposer.prepare()
        self.promise("a")
        assert self.proposer.resend() == prepare
        self.promise("b")
        assert self.proposer.resend() == Accept(prepare.ballot, b""), "an empty value is a value"


class TestAcceptor(test_essential.TestAcceptor):
    acceptor: practical.Acceptor

    def make(self) -> practical.Acceptor:
        return practical.Acceptor()

    def test_says_no(self) -> None:
        low, high = Ballot(1, "a"), Ballot(2, "b")
        assert self.acceptor.answer_prepare(Prepare(high)) == Promise(high, None)
        assert self.acceptor.answer_prepare(Prepare(low)) == Nack(low, high)
        assert self.acceptor.answer_accept(Accept(low, b"v")) == Nack(low, high)
        assert self.acceptor.answer_accept(Accept(high, b"v")) == Accepted(high, b"v")

    def test_goes_on_from_saved_state(self) -> None:
        acceptor = practical.Acceptor(Ballot(3, "b"), Proposal(Ballot(2, "a"), b"v"))
        assert acceptor.answer_prepare(Prepare(Ballot(2, "c"))) == Nack(Ballot(2, "c"), Ballot(3, "b"))
        promise = acceptor.answer_prepare(Prepare(Ballot(4, "a")))
        assert promise == Promise(Ballot(4, "a"), Proposal(Ballot(2, "a"), b"v"))


class TestLearner(test_essential.TestLearner):
    learner: practical.Learner

    def make(self) -> practical.Learner:
        return practical.Learner(2)

    def test_goes_on_from_saved_state(self) -> None:
        learner = practical.Learner(2, b"")
        assert learner.chosen == b""
        assert learner.receive_accepted("a", Accepted(Ballot(9, "a"), b"")) == b""

    def test_counts_a_limited_number_of_ballots(self) -> None:
        """The lowest go: what is forgotten delays learning and no more."""
        for round in range(1, BALLOTS_COUNTED_MAX + 10):
            assert self.vote("a", round) is None
        assert len(self.learner.voters) == BALLOTS_COUNTED_MAX
        assert self.vote("b", 1) is None
        assert self.vote("b", BALLOTS_COUNTED_MAX + 9) == b"v"


class TestNode:
    """The three roles in one place. ``test_functional`` runs these tests again, on the node with a leader."""

    def make(self, node: NodeId = "a", saved: DecreeState | None = None) -> Any:
        return practical.Node(node, ABC, saved)

    def decree(self, node: Any) -> practical.Node:
        assert isinstance(node, practical.Node)
        return node

    def prepare(self, node: Any) -> Ready:
        ready: Ready = node.prepare()
        return ready

    def receive(self, node: Any, sender: NodeId, message: Any) -> Ready:
        ready: Ready = node.receive(sender, message)
        return ready

    def lead(self, node: Any, accepted: Proposal | None = None) -> tuple[Ballot, Ready]:
        """Let node "a" win a ballot with its own promise and one of "b"."""
        self.prepare(node)
        ballot = self.decree(node).proposer.ballot
        self.receive(node, "a", Promise(ballot, None))
        return ballot, self.receive(node, "b", Promise(ballot, accepted))

    def test_prepare_saves_its_round_before_it_is_used(self) -> None:
        """Trap 5."""
        ready = self.prepare(self.make())
        assert ready.save == (DecreeState(promised=Ballot(1, "a")),)
        assert ready.send == (Envelope(ABC, Prepare(Ballot(1, "a"))),)

    def test_restarted_node_never_uses_its_ballot_again(self) -> None:
        """Trap 5: and what comes late for the old one is nothing to it."""
        node = self.make()
        node.propose(b"v")
        (saved,) = self.prepare(node).save
        assert isinstance(saved, DecreeState)
        node = self.make(saved=saved)
        node.propose(b"w")
        for sender in ABC:
            assert not sent(self.receive(node, sender, Promise(Ballot(1, "a"), None)), Accept)
        assert sent(self.prepare(node), Prepare) == [Prepare(Ballot(2, "a"))]

    def test_promise_is_saved_with_what_it_rests_on(self) -> None:
        ready = self.receive(self.make(), "b", Prepare(Ballot(1, "b")))
        assert ready.save == (DecreeState(promised=Ballot(1, "b")),)
        assert ready.send == (Envelope(("b",), Promise(Ballot(1, "b"), None)),)

    def test_vote_is_saved_with_the_promise_it_makes_and_goes_to_all(self) -> None:
        """Trap 3: what is saved is the raised promise, and not the old one."""
        node, ballot = self.make(), Ballot(5, "b")
        self.receive(node, "c", Prepare(Ballot(3, "c")))
        ready = self.receive(node, "b", Accept(ballot, b"v"))
        saved = DecreeState(promised=ballot, accepted=Proposal(ballot, b"v"))
        assert ready.save == (saved,)
        assert ready.send == (Envelope(ABC, Accepted(ballot, b"v")),)
        again = self.make(saved=saved)
        assert sent(self.receive(again, "c", Accept(Ballot(3, "c"), b"w")), Nack) == [Nack(Ballot(3, "c"), ballot)]

    @pytest.mark.parametrize("message", [Prepare(Ballot(1, "b")), Accept(Ballot(1, "b"), b"v")])
    def test_repeated_question_saves_nothing_new_and_comes_after(self, message: Prepare | Accept) -> None:
        """Traps 1 and 2: the second answer is in a Ready of its own, which must wait for the save of the first; and
        what the first Ready sends rests on what the first one saves, whatever comes later."""
        node = self.make()
        first, second = self.receive(node, "b", message), self.receive(node, "b", message)
        assert first.save
        assert not second.save
        assert first.send == second.send
        third = self.receive(node, "c", Prepare(Ballot(4, "c")))
        assert third.save != first.save
        assert isinstance(first.save[0], DecreeState)
        assert first.save[0].promised == Ballot(1, "b"), "a Ready does not change once it was returned"

    def test_lower_ballots_are_refused(self) -> None:
        node = self.make()
        self.receive(node, "c", Prepare(Ballot(2, "c")))
        nack = Nack(Ballot(1, "b"), Ballot(2, "c"))
        for message in (Prepare(Ballot(1, "b")), Accept(Ballot(1, "b"), b"v")):
            ready = self.receive(node, "b", message)
            assert ready.save == ()
            assert ready.send == (Envelope(("b",), nack),)

    def test_asks_for_votes_once_with_a_quorum(self) -> None:
        node = self.make()
        node.propose(b"v")
        ballot, ready = self.lead(node)
        assert sent(ready, Accept) == [Accept(ballot, b"v")]
        assert not sent(self.receive(node, "c", Promise(ballot, None)), Accept)

    def test_value_that_comes_after_the_quorum_is_asked_for_at_once(self) -> None:
        node = self.make()
        ballot, ready = self.lead(node)
        assert not sent(ready, Accept)
        assert node.propose(b"late").send == (Envelope(ABC, Accept(ballot, b"late")),)
        assert node.propose(b"later").send == (), "one ballot, one value"

    def test_value_of_an_earlier_ballot_goes_first(self) -> None:
        node = self.make()
        node.propose(b"mine")
        ballot, ready = self.lead(node, Proposal(Ballot(0, "b"), b""))
        assert sent(ready, Accept) == [Accept(ballot, b"")]

    def test_chosen_value_is_saved_and_handed_out_once(self) -> None:
        node, vote = self.make(), Accepted(Ballot(1, "b"), b"v")
        assert self.receive(node, "b", vote).chosen == ()
        ready = self.receive(node, "c", vote)
        assert ready.chosen == (Chosen(0, b"v"),)
        assert ready.save == (DecreeState(chosen=b"v"),)
        assert self.receive(node, "a", vote).chosen == ()
        assert self.make(saved=ready.save[0]).propose(b"w").chosen == (), "nor again after a restart"

    def test_who_knows_the_outcome_tells_it(self) -> None:
        node = self.make()
        ready = self.receive(node, "b", Decided(b""))
        assert ready.chosen == (Chosen(0, b""),)
        for message in (Prepare(Ballot(9, "c")), Accept(Ballot(9, "c"), b"w")):
            answer = self.receive(node, "c", message)
            assert answer.save == ()
            assert answer.send == (Envelope(("c",), Decided(b"")),)
        assert self.prepare(node).send == ()

    def test_an_outcome_stays_whatever_comes(self) -> None:
        node = self.make()
        self.receive(node, "b", Decided(b"v"))
        assert self.receive(node, "b", Decided(b"w")).save == ()
        assert self.decree(node).learner.chosen == b"v"

    def test_strangers_are_not_heard(self) -> None:
        """Trap 8: a quorum is one of members."""
        node = self.make()
        node.propose(b"v")
        self.prepare(node)
        ballot = self.decree(node).proposer.ballot
        for stranger in ("x", "y"):
            assert not sent(self.receive(node, stranger, Promise(ballot, None)), Accept)
            assert self.receive(node, stranger, Accepted(Ballot(1, "b"), b"w")).chosen == ()
        for message in (Prepare(Ballot(9, "x")), Accept(Ballot(9, "x"), b"w"), Decided(b"w")):
            ready = self.receive(node, "x", message)
            assert (ready.save, ready.send, ready.chosen) == ((), (), ())

    def test_lost_ballot_is_left_alone(self) -> None:
        node = self.make()
        ballot, _ = self.lead(node)
        for sender in ("b", "c"):
            self.receive(node, sender, Nack(ballot, Ballot(6, "c")))
        assert self.decree(node).proposer.given_up
        assert node.propose(b"v").send == ()


class TestNodeResend:
    """What only the node without a clock has."""

    def test_resends_until_chosen(self) -> None:
        node = practical.Node("a", ABC)
        assert node.resend() == Ready()
        prepare = node.prepare()
        assert node.resend().send == prepare.send
        node.receive("c", Decided(b"v"))
        assert node.resend() == Ready()

    def test_three_nodes_decide(self) -> None:
        nodes = {name: practical.Node(name, ABC) for name in ABC}
        post = [("a", envelope) for envelope in nodes["a"].propose(b"v").send + nodes["a"].prepare().send]
        for sender, envelope in post:
            for to in envelope.to:
                post += [(to, more) for more in nodes[to].receive(sender, envelope.message).send]  # type: ignore[arg-type]
        assert {node.learner.chosen for node in nodes.values()} == {b"v"}
        assert nodes["b"].acceptor.promised > LOWEST
