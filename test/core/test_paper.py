"""*Paxos Made Simple* (Leslie Lamport, 2001), sentence by sentence: what it claims or demands, shown on our code.

The words are ours; section and name of each rule are the paper's. One decree is shown on
:mod:`txpaxos.core.essential`, section 3 on replicas.
"""

from __future__ import annotations

import itertools

import pytest

from test.helpers.core_cluster import CoreCluster, Faults, ManualNetwork
from txpaxos.core import practical
from txpaxos.core.config import Limits
from txpaxos.core.essential import Acceptor, Learner, Proposer
from txpaxos.core.messages import (
    LOWEST,
    NO_OP,
    Accept,
    Accepted,
    AcceptSlot,
    Ballot,
    Decided,
    Heartbeat,
    NodeId,
    Prepare,
    PrepareLog,
    Promise,
    PromiseLog,
    Proposal,
    Vote,
)
from txpaxos.core.ready import DecreeState

ABC = ("a", "b", "c")


class Decree:
    """Three acceptors and a learner; a proposer's ballot goes wherever a test wants it to."""

    def __init__(self) -> None:
        self.acceptors = {name: Acceptor() for name in ABC}
        self.learner = Learner(2)

    def phase_one(self, proposer: Proposer, *names: NodeId) -> Accept | None:
        prepare, accept = proposer.prepare(), None
        for name in names:
            promise = self.acceptors[name].receive_prepare(prepare)
            if promise:
                accept = proposer.receive_promise(name, promise) or accept
        return accept

    def phase_two(self, accept: Accept | None, *names: NodeId) -> bytes | None:
        assert accept is not None
        for name in names:
            vote = self.acceptors[name].receive_accept(accept)
            if vote:
                self.learner.receive_accepted(name, vote)
        return self.learner.chosen


def proposer(node: NodeId, value: bytes | None = None, round: int = 0) -> Proposer:
    made = Proposer(node, 2)
    made.ballot = Ballot(round, node)
    if value is not None:
        made.propose(value)
    return made


class TestSection21TheProblem:
    def test_only_a_proposed_value_may_be_chosen(self) -> None:
        """2.1, safety, first: without a value there is nothing to vote for, quorum or not."""
        decree = Decree()
        assert decree.phase_one(proposer("a"), *ABC) is None

    def test_only_one_value_is_chosen(self) -> None:
        """2.1, safety, second: a later proposer ends with the value that was chosen, and not with its own."""
        decree = Decree()
        assert decree.phase_two(decree.phase_one(proposer("a", b"v"), "a", "b"), "a", "b") == b"v"
        assert decree.phase_two(decree.phase_one(proposer("b", b"w"), "b", "c"), "b", "c") == b"v"

    def test_no_node_learns_what_is_not_chosen(self) -> None:
        """2.1, safety, third: one vote of three is no decision."""
        decree = Decree()
        assert decree.phase_two(decree.phase_one(proposer("a", b"v"), "a", "b"), "a") is None

    def test_stopped_agents_that_restart_must_remember(self) -> None:
        """2.1, the model: agents fail by stopping and may restart, so something must be remembered. A restarted
        acceptor goes on from its saved state and refuses what it refused before."""
        node = practical.Node("a", ABC, DecreeState(promised=Ballot(2, "b")))
        ready = node.receive("c", Accept(Ballot(1, "c"), b"v"))
        assert not [envelope for envelope in ready.send if isinstance(envelope.message, Accepted)]

    def test_messages_may_be_doubled_delayed_and_lost(self) -> None:
        """2.1, the model: they arrive late, twice or never, in any order, and nothing goes wrong."""
        decree = Decree()
        accept = decree.phase_one(proposer("a", b"v"), "a", "b", "b", "a")
        assert decree.phase_two(accept, "b", "b") is None
        assert decree.phase_two(accept, "c", "b") == b"v"


class TestSection22Choosing:
    def test_majorities_share_an_acceptor(self) -> None:
        """2.2: a value is chosen by a large enough set; any two majorities have a member in common."""
        majorities = [set(names) for names in itertools.combinations(ABC, 2)]
        assert all(one & two for one, two in itertools.product(majorities, repeat=2))

    def test_p1_first_proposal_is_accepted(self) -> None:
        """2.2, P1: an acceptor accepts the first proposal it gets."""
        assert Acceptor().receive_accept(Accept(Ballot(1, "a"), b"v")) == Accepted(Ballot(1, "a"), b"v")

    def test_an_acceptor_may_accept_more_than_one(self) -> None:
        """2.2, after P1: else three proposers with a vote each would block the matter for good."""
        decree = Decree()
        for name in ABC:
            assert decree.phase_two(Accept(Ballot(1, name), name.encode()), name) is None
        assert decree.phase_two(decree.phase_one(proposer("a", b"v", 1), *ABC), "a", "b") is not None

    def test_proposals_have_different_numbers(self) -> None:
        """2.2: different proposals have different numbers, so the number tells the value."""
        numbers = [proposer(name, round=round).prepare().ballot for name in ABC for round in range(3)]
        assert len(set(numbers)) == len(numbers)

    @pytest.mark.parametrize("quorum", list(itertools.combinations(ABC, 2)))
    def test_p2_higher_chosen_proposals_have_the_chosen_value(self, quorum: tuple[NodeId, NodeId]) -> None:
        """2.2, P2, P2a and P2b: once v is chosen, every higher proposal that is chosen, accepted by any acceptor, or
        issued by any proposer, has the value v."""
        decree = Decree()
        decree.phase_two(decree.phase_one(proposer("a", b"v"), "a", "b"), "a", "b")
        for round in range(1, 4):
            accept = decree.phase_one(proposer("c", b"w", round), *quorum)
            assert accept == Accept(Ballot(round + 1, "c"), b"v"), "issued (P2b)"
            decree.phase_two(accept, quorum[0])
            assert decree.acceptors[quorum[0]].accepted == (accept.ballot, b"v"), "accepted (P2a)"
        assert decree.learner.chosen == b"v", "chosen (P2)"

    def test_p2a_holds_for_an_acceptor_that_never_heard_anything(self) -> None:
        """2.2, after P2a: "c" was down while v was chosen; a proposer that wakes up with another value asks a majority
        first, and so "c" is never asked to accept anything but v."""
        decree = Decree()
        decree.phase_two(decree.phase_one(proposer("a", b"v"), "a", "b"), "a", "b")
        accept = decree.phase_one(proposer("c", b"w"), "c", "b")
        decree.phase_two(accept, "c")
        assert decree.acceptors["c"].accepted == (Ballot(1, "c"), b"v")

    def test_p2c_free_choice_when_no_majority_member_has_accepted(self) -> None:
        """2.2, P2c (a): then, and only then, the value is the proposer's own."""
        assert Decree().phase_one(proposer("a", b"mine"), "a", "b") == Accept(Ballot(1, "a"), b"mine")

    def test_p2c_else_the_highest_numbered_proposal_of_the_majority(self) -> None:
        """2.2, P2c (b): not the last heard, not the most frequent, but the highest."""
        decree = Decree()
        decree.phase_two(Accept(Ballot(1, "a"), b"low"), "a")
        decree.phase_two(Accept(Ballot(2, "b"), b"high"), "b")
        for names in (("a", "b"), ("b", "a")):
            accept = decree.phase_one(proposer("c", b"mine", 5), *names)
            assert accept is not None
            assert accept.value == b"high"

    def test_future_acceptances_are_excluded_by_a_promise(self) -> None:
        """2.2: a proposer cannot foretell what will be accepted below n; so it has it promised that nothing will."""
        acceptor = Acceptor()
        acceptor.receive_prepare(Prepare(Ballot(5, "a")))
        assert acceptor.receive_accept(Accept(Ballot(4, "b"), b"late")) is None

    def test_p1a_accepts_unless_it_promised_a_higher_number(self) -> None:
        """2.2, P1a: accept n if and only if there was no prepare above n."""
        for promised, number in itertools.product(range(1, 4), repeat=2):
            acceptor = Acceptor()
            acceptor.receive_prepare(Prepare(Ballot(promised, "a")))
            answer = acceptor.receive_accept(Accept(Ballot(number, "a"), b"v"))
            assert (answer is not None) == (number >= promised)

    def test_an_older_prepare_may_be_ignored(self) -> None:
        """2.2, the small optimisation: it would only ask for what can no longer be accepted."""
        acceptor = Acceptor()
        acceptor.receive_prepare(Prepare(Ballot(2, "b")))
        assert acceptor.receive_prepare(Prepare(Ballot(1, "a"))) is None

    def test_what_an_acceptor_must_remember(self) -> None:
        """2.2: the highest proposal it has accepted and the highest prepare it has answered: that is all it holds."""
        acceptor = Acceptor()
        acceptor.receive_accept(Accept(Ballot(1, "a"), b"v"))
        acceptor.receive_prepare(Prepare(Ballot(2, "b")))
        assert vars(acceptor) == {"promised": Ballot(2, "b"), "accepted": Proposal(Ballot(1, "a"), b"v")}

    def test_a_proposer_may_abandon_a_proposal_and_forget_it(self) -> None:
        """2.2: as long as it never issues another one with the same number."""
        one = proposer("a", b"v")
        Decree().phase_one(one, "a", "b")
        assert one.prepare().ballot > Ballot(1, "a")


class TestSection22Phases:
    def test_phase_1a(self) -> None:
        """2.2, phase 1 (a): choose a number n and send a prepare request with it to a majority (we send it to all)."""
        assert proposer("a").prepare() == Prepare(Ballot(1, "a"))

    def test_phase_1b(self) -> None:
        """2.2, phase 1 (b): above every prepare answered so far, answer with a promise and with the highest proposal
        accepted, if any."""
        acceptor = Acceptor()
        assert acceptor.receive_prepare(Prepare(Ballot(1, "a"))) == Promise(Ballot(1, "a"), None)
        acceptor.receive_accept(Accept(Ballot(1, "a"), b"v"))
        promise = Promise(Ballot(2, "a"), Proposal(Ballot(1, "a"), b"v"))
        assert acceptor.receive_prepare(Prepare(Ballot(2, "a"))) == promise

    def test_phase_2a(self) -> None:
        """2.2, phase 2 (a): with answers from a majority, and not before, send an accept request."""
        one = proposer("a", b"v")
        ballot = one.prepare().ballot
        assert one.receive_promise("a", Promise(ballot, None)) is None
        assert one.receive_promise("b", Promise(ballot, None)) == Accept(ballot, b"v")

    def test_phase_2a_need_not_ask_those_who_promised(self) -> None:
        """2.2: the acceptors that vote need not be the ones that answered."""
        decree = Decree()
        accept = decree.phase_one(proposer("a", b"v"), "a", "b")
        assert decree.phase_two(accept, "b", "c") == b"v"

    def test_phase_2b(self) -> None:
        """2.2, phase 2 (b): accept, unless a prepare with a higher number was answered."""
        acceptor = Acceptor()
        acceptor.receive_prepare(Prepare(Ballot(1, "a")))
        assert acceptor.receive_accept(Accept(Ballot(1, "a"), b"v")) == Accepted(Ballot(1, "a"), b"v")
        acceptor.receive_prepare(Prepare(Ballot(3, "b")))
        assert acceptor.receive_accept(Accept(Ballot(2, "a"), b"v")) is None


class TestSection23Learning:
    def test_learners_hear_every_acceptor(self) -> None:
        """2.3: the plain way: each acceptor, whenever it accepts, tells every learner."""
        node = practical.Node("a", ABC)
        ready = node.receive("b", Accept(Ballot(1, "b"), b"v"))
        assert [(e.to, e.message) for e in ready.send] == [(ABC, Accepted(Ballot(1, "b"), b"v"))]

    def test_a_distinguished_learner_may_tell_the_others(self) -> None:
        """2.3: fewer messages: the acceptors of the log answer the leader, who tells all."""
        network = ManualNetwork()
        network.lead("a", *ABC)
        network.choose("a", "a", "b")
        assert (network.chosen["a"], network.chosen["b"]) == ([NO_OP], [])
        network.deliver(Heartbeat, "a", "b")
        assert network.chosen["b"] == [NO_OP]

    def test_a_value_may_be_chosen_and_no_node_know(self) -> None:
        """2.3: when the votes are lost. A new proposal brings it out again, and it cannot come out otherwise."""
        decree = Decree()
        for name in ("a", "b"):
            decree.acceptors[name].receive_accept(Accept(Ballot(1, "a"), b"v"))
        assert decree.learner.chosen is None
        assert decree.phase_two(decree.phase_one(proposer("c", b"w", 1), "b", "c"), "b", "c") == b"v"

    def test_asking_acceptors_is_not_always_enough(self) -> None:
        """2.3: with one of three down and the others of different minds, no count of votes tells whether a value was
        chosen; having a proposal issued does."""
        decree = Decree()
        decree.phase_two(Accept(Ballot(1, "a"), b"v"), "a")
        decree.phase_two(Accept(Ballot(2, "b"), b"w"), "b")
        assert decree.learner.chosen is None
        assert decree.phase_two(decree.phase_one(proposer("a", round=2), "a", "b"), "a", "b") == b"w"


class TestSection24Progress:
    def test_two_proposers_can_keep_each_other_from_finishing(self) -> None:
        """2.4: each prepare makes the other's accept too old, for as long as they take turns."""
        decree, one, two = Decree(), proposer("a", b"v"), proposer("b", b"w")
        for _ in range(10):
            of_one = decree.phase_one(one, *ABC)
            two.ballot = one.ballot
            of_two = decree.phase_one(two, *ABC)
            assert decree.phase_two(of_one, *ABC) is None
            one.ballot = two.ballot
        assert decree.phase_two(of_two, *ABC) == b"w", "until one of them holds still"

    def test_a_distinguished_proposer_succeeds(self) -> None:
        """2.4: one proposer that reaches a majority and learns of higher numbers gets through."""
        cluster = CoreCluster(1)
        assert cluster.run(2.0, cluster.leader)
        cluster.run(1.0)
        for number in range(10):
            value = b"%d" % number
            assert cluster.propose(value)
            assert cluster.run(1.0, lambda: all(value in cluster.values(node) for node in ABC))  # noqa: B023

    def test_election_need_not_be_right_for_safety(self) -> None:
        """2.4: with two nodes that both believe to lead, at most one value is chosen at a slot."""
        network = ManualNetwork()
        network.lead("a", "a", "b")
        network.lead("c", "b", "c")
        assert network.nodes["a"].is_leader
        assert network.nodes["c"].is_leader
        network.propose("a", b"v")
        network.propose("c", b"w")
        for node in ("a", "c"):
            network.deliver(AcceptSlot, node)
        assert network.ledger.chosen == {1: NO_OP, 2: b"w"}


class TestSection25Implementation:
    def test_acceptor_saves_before_it_answers(self) -> None:
        """2.5: the answer to be sent is recorded in stable storage first: it is in the same Ready, and ``save`` is done
        before ``send``."""
        ready = practical.Node("a", ABC).receive("b", Prepare(Ballot(1, "b")))
        assert ready.save == (DecreeState(promised=Ballot(1, "b")),)
        assert ready.send

    def test_no_two_proposers_use_one_number(self) -> None:
        """2.5: each takes its numbers from a set of its own: a ballot ends with the node's id."""
        assert {proposer(name, round=7).prepare().ballot.node for name in ABC} == set(ABC)

    def test_proposer_remembers_its_highest_number(self) -> None:
        """2.5: on stable storage, and begins with a higher one after a restart."""
        node = practical.Node("a", ABC)
        (saved,) = node.prepare().save
        assert isinstance(saved, DecreeState)
        (envelope,) = practical.Node("a", ABC, saved).prepare().send
        assert envelope.message == Prepare(Ballot(2, "a"))

    def test_proposer_may_be_told_that_it_is_too_late(self) -> None:
        """2.5 (and the end of 2.2): an acceptor that refuses should say so; that changes nothing but speed."""
        acceptor = practical.Acceptor(promised=Ballot(3, "c"))
        assert acceptor.answer_prepare(Prepare(Ballot(1, "a"))).promised == Ballot(3, "c")  # type: ignore[union-attr]
        assert acceptor.promised == Ballot(3, "c")

    def test_who_knows_may_answer_with_the_outcome(self) -> None:
        """2.5 leaves learning to the implementation: ours answers any question about a decided matter with it."""
        node = practical.Node("a", ABC, DecreeState(chosen=b"v"))
        (envelope,) = node.receive("b", Prepare(Ballot(9, "b"))).send
        assert envelope.message == Decided(b"v")


class TestSection3StateMachine:
    def test_every_server_applies_the_same_sequence(self) -> None:
        """3: the value of instance i is the i-th command, on every server."""
        cluster = CoreCluster(3, 5, Faults(0.2, 0.1, (0.001, 0.05)))
        for number in range(50):
            cluster.run(0.1)
            cluster.propose(b"%d" % number)
        cluster.heal()
        assert cluster.run(10.0, lambda: cluster.leader() and cluster.settled())
        assert len({tuple(cluster.values(node)) for node in cluster.members}) == 1
        assert len(cluster.values("a")) > 30

    def test_phase_one_for_infinitely_many_instances(self) -> None:
        """3: one short message, with one number, covers every instance from the first unknown one on."""
        network = ManualNetwork()
        network.campaign("a")
        assert {message for _, _, message in network.post} == {PrepareLog(Ballot(1, "a"), 1)}
        network.deliver(PrepareLog, "a", "b")
        network.take("b", network.nodes["b"].receive("a", AcceptSlot(LOWEST, 30, b"late"), 0.0))
        assert 30 not in network.ledger.votes.get("b", {}), "promised for every one of them"

    def test_acceptor_answers_with_one_short_message(self) -> None:
        """3: it has more to say than yes only for instances where it got an accept already."""
        network = ManualNetwork()
        network.lead("a", "a", "b")
        network.deliver(AcceptSlot, "a", "b")
        network.campaign("c")
        network.deliver(PrepareLog, "c", "b")
        (promise,) = (message for _, _, message in network.post if isinstance(message, PromiseLog))
        assert promise.votes == (Vote(1, Ballot(1, "a"), NO_OP),)

    def test_new_leader_proposes_what_it_must_and_fills_the_gaps_with_no_ops(self) -> None:
        """3, the example of 1-134, 138 and 139 known and 135 and 140 constrained, made smaller: slot 1 is known; of 2
        to 5, 2 and 5 were voted for; so 3 and 4 get no-ops, and then comes what is new."""
        network = ManualNetwork()
        network.lead("a", *ABC)
        network.choose("a", *ABC)
        for value in (b"two", b"three", b"four", b"five"):
            network.propose("a", value)
        lost = [one for one in network.post if isinstance(one[2], AcceptSlot) and one[2].slot in (3, 4)]
        network.post = [one for one in network.post if one not in lost]
        network.deliver(AcceptSlot, "a", "b")
        network.lead("b", "b", "c")
        network.choose("b", "b", "c")
        assert network.chosen["b"] == [NO_OP, b"two", NO_OP, NO_OP, b"five", NO_OP]
        network.propose("b", b"new")
        network.choose("b", "b", "c")
        assert network.chosen["b"][6:] == [b"new"]

    def test_later_commands_need_not_wait_for_earlier_ones(self) -> None:
        """3: command i + 1 may be proposed, and chosen, while i is not; only applying waits."""
        network = ManualNetwork()
        network.lead("a", *ABC)
        network.choose("a", *ABC)
        network.propose("a", b"two")
        network.post = [one for one in network.post if not isinstance(one[2], AcceptSlot)]
        network.propose("a", b"three")
        network.choose("a", *ABC)
        assert network.ledger.chosen == {1: NO_OP, 3: b"three"}
        assert network.chosen["a"] == [NO_OP]

    def test_how_far_ahead_has_a_limit(self) -> None:
        """3: a leader can get alpha commands ahead of the first one not chosen, and no further: our window."""
        network = ManualNetwork(limits=Limits(window_slots=3))
        network.lead("a", *ABC)
        for value in (b"two", b"three"):
            network.propose("a", value)
        assert not network.nodes["a"].has_room

    def test_a_steady_leader_spends_one_round_trip_a_command(self) -> None:
        """3: phase 1 was done for all; the cost of a command is that of phase 2."""
        network = ManualNetwork()
        network.lead("a", *ABC)
        network.choose("a", *ABC)
        for number in range(5):
            assert network.propose("a", b"%d" % number).save == ()
            network.choose("a", *ABC)
        assert network.chosen["a"] == [NO_OP, b"0", b"1", b"2", b"3", b"4"]
        assert set(network.ledger.promised.values()) == {Ballot(1, "a")}

    def test_number_of_a_new_leader_is_saved_first(self) -> None:
        """3 with 2.5: the prepare for all instances rests on one record."""
        network = ManualNetwork()
        network.campaign("a")
        assert {message for _, _, message in network.post} == {PrepareLog(Ballot(1, "a"), 1)}
        assert network.ledger.promised == {"a": Ballot(1, "a")}
