"""The three roles of the paper. ``test_practical`` inherits these tests: it takes nothing away."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txpaxos.core import essential
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, Accept, Accepted, Ballot, NodeId, Prepare, Promise, Proposal

BALLOTS = st.builds(Ballot, st.integers(1, 4), st.sampled_from("abc"))


@pytest.mark.parametrize("members", range(1, 10))
def test_any_two_quorums_share_a_node(members: int) -> None:
    quorum = quorum_size(members)
    assert 2 * quorum > members
    assert 2 * (quorum - 1) <= members, "a smaller set would do no more"


class TestBallot:
    @given(BALLOTS, BALLOTS, BALLOTS)
    def test_total_order(self, one: Ballot, two: Ballot, three: Ballot) -> None:
        """Trap 6: one order with the same fields in the same places, so that of two ballots one is higher."""
        assert (one < two) + (one == two) + (one > two) == 1
        assert not (one <= two <= three) or one <= three
        assert (one < two) == ((one.round, one.node) < (two.round, two.node))
        assert one > LOWEST

    def test_round_before_node(self) -> None:
        assert Ballot(2, "a") > Ballot(1, "b") > Ballot(1, "a")
        assert Ballot(10, "a") > Ballot(9, "a"), "a number, and not its digits"

    def test_reads_well(self) -> None:
        assert str(Ballot(3, "a")) == "3.a"
        assert str(LOWEST) == "none"


class TestProposer:
    """Phase 1a and 2a. ``self.proposer`` is "a" of three acceptors."""

    proposer: essential.Proposer

    @pytest.fixture(autouse=True)
    def _proposer(self) -> None:
        self.proposer = self.make()

    def make(self, node: NodeId = "a") -> essential.Proposer:
        return essential.Proposer(node, 2)

    def promise(self, sender: NodeId, accepted: Proposal | None = None) -> Accept | None:
        return self.proposer.receive_promise(sender, Promise(self.proposer.ballot, accepted))

    def test_every_prepare_is_higher(self) -> None:
        ballots = [self.proposer.prepare().ballot for _ in range(3)]
        assert ballots == sorted(set(ballots))
        assert {ballot.node for ballot in ballots} == {"a"}

    def test_no_two_proposers_share_a_ballot(self) -> None:
        other = self.make("b")
        assert {self.proposer.prepare().ballot for _ in range(3)}.isdisjoint({other.prepare().ballot for _ in range(3)})

    def test_own_value_when_a_quorum_has_accepted_nothing(self) -> None:
        self.proposer.propose(b"mine")
        ballot = self.proposer.prepare().ballot
        assert self.promise("a") is None
        assert self.promise("b") == Accept(ballot, b"mine")

    @pytest.mark.parametrize("value", [b"", b"0", b"theirs"])
    def test_accepted_value_wins_over_own(self, value: bytes) -> None:
        """Trap 7: an empty value is a value."""
        self.proposer.propose(b"mine")
        ballot = self.proposer.prepare().ballot
        self.promise("a")
        assert self.promise("b", Proposal(Ballot(0, "b"), value)) == Accept(ballot, value)

    @pytest.mark.parametrize("order", list(itertools.permutations("abc")))
    def test_highest_accepted_ballot_wins_whatever_the_order(self, order: tuple[NodeId, ...]) -> None:
        """Trap 7: over all promises of the quorum, and not the last one."""
        self.proposer.quorum = 3
        self.proposer.propose(b"mine")
        ballot = self.proposer.prepare().ballot
        accepted = {"a": None, "b": Proposal(Ballot(1, "b"), b"higher"), "c": Proposal(Ballot(1, "a"), b"lower")}
        answers = [self.promise(sender, accepted[sender]) for sender in order]
        assert answers == [None, None, Accept(ballot, b"higher")]

    def test_doubled_promise_counts_once(self) -> None:
        """Trap 8."""
        self.proposer.propose(b"mine")
        self.proposer.prepare()
        assert [self.promise("b") for _ in range(3)] == [None, None, None]
        assert not self.proposer.has_quorum

    def test_promise_of_another_ballot_does_not_count(self) -> None:
        """Trap 8: neither an older one of our own nor another node's."""
        self.proposer.propose(b"mine")
        old = self.proposer.prepare().ballot
        self.promise("a")
        self.proposer.prepare()
        assert self.promise("a") is None
        for ballot in (old, Ballot(9, "b")):
            assert self.proposer.receive_promise("b", Promise(ballot, None)) is None
        assert not self.proposer.has_quorum

    def test_new_ballot_forgets_what_the_old_one_heard(self) -> None:
        self.proposer.propose(b"mine")
        self.proposer.prepare()
        self.promise("b", Proposal(Ballot(0, "b"), b"theirs"))
        ballot = self.proposer.prepare().ballot
        self.promise("a")
        assert self.promise("c") == Accept(ballot, b"mine")

    def test_promise_beyond_the_quorum_changes_nothing(self) -> None:
        """One ballot, one value: the Accept may have left already."""
        self.proposer.propose(b"mine")
        ballot = self.proposer.prepare().ballot
        self.promise("a")
        self.promise("b")
        assert self.promise("c", Proposal(Ballot(0, "c"), b"late")) is None
        assert self.proposer.accept() == Accept(ballot, b"mine")

    def test_first_offered_value_stays(self) -> None:
        self.proposer.propose(b"first")
        self.proposer.propose(b"second")
        ballot = self.proposer.prepare().ballot
        self.promise("a")
        assert self.promise("b") == Accept(ballot, b"first")

    def test_without_a_value_there_is_nothing_to_ask_for_until_there_is(self) -> None:
        ballot = self.proposer.prepare().ballot
        self.promise("a")
        assert self.promise("b") is None
        assert self.proposer.has_quorum
        assert self.proposer.accept() is None
        self.proposer.propose(b"late")
        assert self.proposer.accept() == Accept(ballot, b"late")

    def test_no_accept_before_the_quorum(self) -> None:
        self.proposer.propose(b"mine")
        assert self.proposer.accept() is None
        self.proposer.prepare()
        self.promise("a")
        assert self.proposer.accept() is None


class TestAcceptor:
    """Phase 1b and 2b."""

    acceptor: essential.Acceptor

    @pytest.fixture(autouse=True)
    def _acceptor(self) -> None:
        self.acceptor = self.make()

    def make(self) -> essential.Acceptor:
        return essential.Acceptor()

    def test_promises_rise(self) -> None:
        for round in (1, 2, 5):
            assert self.acceptor.receive_prepare(Prepare(Ballot(round, "a"))) == Promise(Ballot(round, "a"), None)
            assert self.acceptor.promised == Ballot(round, "a")

    def test_lower_prepare_is_refused(self) -> None:
        self.acceptor.receive_prepare(Prepare(Ballot(2, "b")))
        assert self.acceptor.receive_prepare(Prepare(Ballot(2, "a"))) is None
        assert self.acceptor.promised == Ballot(2, "b")

    def test_same_prepare_gets_the_same_promise(self) -> None:
        prepare = Prepare(Ballot(1, "a"))
        assert self.acceptor.receive_prepare(prepare) == self.acceptor.receive_prepare(prepare)

    def test_promise_tells_the_accepted_proposal(self) -> None:
        self.acceptor.receive_accept(Accept(Ballot(1, "a"), b""))
        promise = self.acceptor.receive_prepare(Prepare(Ballot(2, "b")))
        assert promise == Promise(Ballot(2, "b"), Proposal(Ballot(1, "a"), b""))

    def test_accepts_what_it_promised_and_what_is_higher(self) -> None:
        self.acceptor.receive_prepare(Prepare(Ballot(1, "a")))
        for ballot in (Ballot(1, "a"), Ballot(1, "b"), Ballot(3, "a")):
            assert self.acceptor.receive_accept(Accept(ballot, b"v")) == Accepted(ballot, b"v")
            assert self.acceptor.accepted == Proposal(ballot, b"v")

    def test_accepts_without_a_promise(self) -> None:
        assert self.acceptor.receive_accept(Accept(Ballot(1, "a"), b"v")) == Accepted(Ballot(1, "a"), b"v")

    def test_lower_accept_is_refused(self) -> None:
        self.acceptor.receive_prepare(Prepare(Ballot(2, "a")))
        assert self.acceptor.receive_accept(Accept(Ballot(1, "b"), b"v")) is None
        assert self.acceptor.accepted is None

    def test_accepting_promises(self) -> None:
        """Trap 3: a lower ballot must not overwrite this vote later, nor be promised."""
        self.acceptor.receive_prepare(Prepare(Ballot(3, "a")))
        self.acceptor.receive_accept(Accept(Ballot(5, "b"), b"w"))
        assert self.acceptor.promised == Ballot(5, "b")
        assert self.acceptor.receive_accept(Accept(Ballot(3, "a"), b"v")) is None
        assert self.acceptor.receive_prepare(Prepare(Ballot(4, "a"))) is None
        assert self.acceptor.accepted == Proposal(Ballot(5, "b"), b"w")


class TestLearner:
    """``self.learner`` needs two votes."""

    learner: essential.Learner

    @pytest.fixture(autouse=True)
    def _learner(self) -> None:
        self.learner = self.make()

    def make(self) -> essential.Learner:
        return essential.Learner(2)

    def vote(self, sender: NodeId, round: int = 1, value: bytes = b"v") -> bytes | None:
        return self.learner.receive_accepted(sender, Accepted(Ballot(round, "a"), value))

    @pytest.mark.parametrize("value", [b"", b"v"])
    def test_quorum_in_one_ballot_chooses(self, value: bytes) -> None:
        assert self.vote("a", value=value) is None
        assert self.vote("b", value=value) == value
        assert self.vote("c", value=value) == value
        assert self.learner.chosen == value

    def test_doubled_vote_counts_once(self) -> None:
        """Trap 8."""
        assert [self.vote("a") for _ in range(3)] == [None, None, None]

    def test_votes_of_different_ballots_do_not_add_up(self) -> None:
        """Trap 9: not even for the same value. Neither ballot has a quorum, so a third value may still be chosen."""
        assert self.vote("a", 1) is None
        assert self.vote("b", 2) is None
        assert self.vote("c", 2, b"v") == b"v"

    def test_late_votes_of_a_lower_ballot_change_nothing(self) -> None:
        self.vote("a", 2)
        self.vote("b", 2)
        assert self.vote("c", 1, b"w") == b"v"

    def test_a_chosen_value_stays_whatever_comes(self) -> None:
        """A second one cannot be, unless a node lies. Nothing is learned from lies."""
        self.vote("a")
        self.vote("b")
        self.vote("a", 2, b"w")
        assert self.vote("b", 2, b"w") == b"v"

    def test_two_values_of_one_ballot_are_never_counted_together(self) -> None:
        self.vote("a")
        assert self.vote("b", 1, b"w") is None
        assert self.vote("c") == b"v"


# ------------------------------------------------- every run of a small system


class World:
    """Three acceptors, two proposers with a ballot and a value each, and every message that was ever sent."""

    def __init__(self) -> None:
        self.proposers = [essential.Proposer("a", 2), essential.Proposer("b", 2)]
        self.acceptors = [essential.Acceptor() for _ in range(3)]
        self.votes: frozenset[tuple[int, Accepted]] = frozenset()
        self.sent: list[Prepare | Accept] = []
        self.promises: frozenset[tuple[int, Promise]] = frozenset()
        for proposer in self.proposers:
            proposer.propose(proposer.node.encode())
            self.sent.append(proposer.prepare())

    def key(self) -> object:
        """Two worlds with the same key go on alike. Which acceptor is which makes no difference."""
        return (
            tuple((p.accept(), p.highest_accepted) for p in self.proposers),
            tuple(sorted(self.of_acceptor(number) for number in range(3))),
        )

    def of_acceptor(self, number: int) -> tuple[Any, ...]:
        """All there is about one acceptor, in a form that can be sorted."""
        acceptor, name = self.acceptors[number], str(number)
        return (
            acceptor.promised,
            acceptor.accepted or (),
            name in self.proposers[0].promises,
            name in self.proposers[1].promises,
            tuple(sorted(vote.ballot for sender, vote in self.votes if sender == number)),
            tuple(sorted((told.ballot, told.accepted or ()) for sender, told in self.promises if sender == number)),
        )

    def copy(self) -> World:
        world = copy.copy(self)
        world.proposers = [copy.copy(p) for p in self.proposers]
        for proposer in world.proposers:
            proposer.promises = set(proposer.promises)
        world.acceptors = [copy.copy(a) for a in self.acceptors]
        world.sent = list(self.sent)
        return world

    def steps(self) -> Iterator[World]:
        """Every world one delivered message away. Loss is a message that is never delivered, here or further on."""
        for message, number in itertools.product(self.sent, range(3)):
            world = self.copy()
            if isinstance(message, Prepare):
                promise = world.acceptors[number].receive_prepare(message)
                world.promises |= {(number, promise)} if promise else set()
            else:
                vote = world.acceptors[number].receive_accept(message)
                world.votes |= {(number, vote)} if vote else set()
            yield world
        for number, promise in self.promises:
            for place in range(2):
                world = self.copy()
                accept = world.proposers[place].receive_promise(str(number), promise)
                world.sent += [accept] if accept else []
                yield world

    def chosen(self) -> set[bytes]:
        by_ballot: dict[Ballot, set[int]] = {}
        values = {vote.ballot: vote.value for _, vote in self.votes}
        for number, vote in self.votes:
            by_ballot.setdefault(vote.ballot, set()).add(number)
        return {values[ballot] for ballot, voters in by_ballot.items() if len(voters) >= 2}


@pytest.mark.no_cover  # Under coverage it would take three times as long.
def test_no_order_of_messages_chooses_two_values() -> None:
    """Two proposers, three acceptors: every state that delivery, loss, doubling and reordering can lead to."""
    first = World()
    seen, edge, outcomes = {first.key()}, [first], set()
    while edge:
        for world in edge.pop().steps():
            if (key := world.key()) not in seen:
                seen.add(key)
                edge.append(world)
                chosen = world.chosen()
                assert len(chosen) <= 1, key
                outcomes |= chosen
    assert outcomes == {b"a", b"b"}, "either may win"
    assert len(seen) > 1000
