"""The story that facts of several nodes tell: one order, and the reason for the value."""

from __future__ import annotations

import attrs
import pytest

from txpaxos.core.messages import LOWEST, Ballot
from txpaxos.explaining import Fact, Story, ValueMark, What, story_of

A1, B2 = Ballot(1, "a"), Ballot(2, "b")
X, Y, NO_OP = ValueMark(1, 10), ValueMark(2, 20), ValueMark.of(b"")
SLOT = 7


def fact(node: str, what: What, when: float, ballot: Ballot = A1, peer: str = "", value: ValueMark | None = X) -> Fact:
    has_value = what in (What.PROPOSED, What.VOTED, What.TOLD)
    return Fact(node, what, when, SLOT, ballot, peer, value=value if has_value else None)


def promise(candidate: str, peer: str, ballot: Ballot, vote: Ballot | None = None, value: ValueMark = X) -> Fact:
    vote_of = {} if vote is None else {"vote": vote, "value": value}
    return Fact(candidate, What.HEARD_PROMISE, 1.0, SLOT, ballot, peer, **vote_of)  # type: ignore[arg-type]


def story(*facts: Fact, nodes: str = "abc") -> Story:
    return story_of(SLOT, facts, tuple(nodes), 2)


FREE = (
    promise("a", "a", A1),
    promise("a", "c", A1),
    fact("a", What.PROPOSED, 2.0),
    fact("a", What.VOTED, 3.0),
    fact("c", What.VOTED, 4.0),
    fact("a", What.HEARD_VOTE, 5.0, peer="c"),
    fact("a", What.CHOSEN, 5.0),
)


def test_a_leader_that_was_free() -> None:
    told = story(*FREE)
    assert (told.chosen_in, told.voters) == (A1, ("a", "c"))
    assert told.reasons == (
        "The value was chosen in ballot 1.a, by the votes of a and c.",
        "a proposed a value of 1 bytes (0000000a) in ballot 1.a. It was free to: none of a and c, which had promised"
        " that ballot, had voted at this slot.",
        "b remembers nothing of this slot.",
    )


def test_a_leader_that_had_to_propose_a_value_again() -> None:
    again = (
        promise("b", "b", B2),
        promise("b", "c", B2, vote=A1),
        fact("b", What.PROPOSED, 6.0, B2),
        fact("b", What.VOTED, 6.1, B2),
        fact("c", What.VOTED, 6.2, B2),
    )
    told = story(fact("a", What.PROPOSED, 2.0), fact("c", What.VOTED, 2.5), *again)
    assert told.chosen_in == B2
    assert told.reasons[1:] == (
        "a proposed a value of 1 bytes (0000000a) in ballot 1.a. The promises for that ballot are not remembered any"
        " more, so why is not known.",
        "In ballot 1.a only c is known to have voted for it; if more nodes did, the value was chosen there already.",
        "b proposed a value of 1 bytes (0000000a) in ballot 2.b, since it had to: c had voted for that value in ballot"
        " 1.a, the highest vote of b and c, and it may have been chosen there.",
    )


def test_a_lower_ballot_of_which_votes_are_forgotten() -> None:
    """Node a has voted in 1.a, too, and was started again since. So the value was chosen there."""
    again = (fact("b", What.PROPOSED, 6.0, B2), fact("b", What.VOTED, 6.1, B2), fact("c", What.VOTED, 6.2, B2))
    told = story(fact("a", What.PROPOSED, 2.0), fact("c", What.VOTED, 2.5), *again)
    assert not any("not chosen" in reason for reason in told.reasons)
    others = story(fact("a", What.PROPOSED, 2.0, value=Y), fact("a", What.HEARD_VOTE, 2.5, peer="c"), *again)
    assert "It was not chosen in ballot 1.a: only c is known to have voted for it." in others.reasons
    none = story(fact("a", What.PROPOSED, 2.0, value=Y), *again)
    assert "It was not chosen in ballot 1.a: no node is known to have voted for it." in none.reasons


def test_a_gap_that_was_filled() -> None:
    filled = fact("b", What.PROPOSED, 6.0, B2, value=NO_OP)
    told = story(promise("b", "b", B2), promise("b", "c", B2), filled, fact("b", What.CHOSEN, 7.0))
    assert told.reasons[1].startswith(
        "b proposed a no-op in ballot 2.b to fill the slot, or as its first entry: none of"
    )
    assert told.chosen_in is None
    assert "No quorum of votes is remembered" in told.reasons[0]


def test_a_slot_that_is_not_chosen_yet() -> None:
    told = story(*FREE[:4])
    assert told.reasons[0] == (
        "No node that was asked knows a value to be chosen at this slot, nor the votes of a quorum."
    )


def test_a_value_that_was_against_the_rules_is_called_so() -> None:
    told = story(promise("b", "c", B2, vote=A1, value=X), fact("b", What.PROPOSED, 6.0, B2, value=Y))
    assert "though c had voted for another value in 1.a: against the rules" in told.reasons[1]


def test_a_promise_that_was_counted_for_later_slots_is_no_reason() -> None:
    """A leader asks the voters of a new configuration when it has proposed at this slot already."""
    later = attrs.evolve(promise("b", "a", B2, vote=A1, value=X), utc_seconds=6.5)
    told = story(promise("b", "b", B2), promise("b", "c", B2), fact("b", What.PROPOSED, 6.0, B2, value=Y), later)
    assert "It was free to: none of b and c, which had promised that ballot," in told.reasons[1]


def test_a_node_that_was_told() -> None:
    told = story(*FREE, fact("b", What.TOLD, 9.0), fact("b", What.CHOSEN, 9.0))
    assert (
        "b was told the chosen value by another node: a vote of its own in that ballot did not show it." in told.reasons
    )


def test_the_members_of_that_slot_choose_and_not_those_of_now() -> None:
    """The cluster had five voters at that slot, and has three now: two votes were not enough. The other way round, it
    has five now, and had three: two were."""
    votes = (fact("a", What.VOTED, 3.0), fact("c", What.VOTED, 4.0))
    again = (fact("b", What.PROPOSED, 6.0, B2), *(fact(node, What.VOTED, 7.0, B2) for node in "bde"))
    five = attrs.evolve(fact("a", What.PROPOSED, 2.0), asked=tuple("abcde"))
    assert story_of(SLOT, (five, *votes), "abc", 2).chosen_in is None
    told = story_of(SLOT, (five, *votes, *again), "abc", 2)
    assert (told.chosen_in, told.voters) == (B2, ("b", "d", "e"))
    three = attrs.evolve(five, asked=tuple("abc"))
    assert story_of(SLOT, (three, *votes), "abcde", 3).chosen_in == A1
    strangers = (fact("a", What.VOTED, 3.0), fact("x", What.VOTED, 4.0))
    assert story_of(SLOT, (three, *strangers), "abcde", 2).chosen_in is None


def test_nothing_is_remembered() -> None:
    told = story()
    assert told.reasons == ("No node that was asked remembers slot 7: it is not used yet, or too long ago.",)
    assert told.diagram().steps == ()


def test_no_effect_comes_before_its_cause_whatever_the_clocks_say() -> None:
    """The clock of c is an hour behind, and that of a an hour ahead."""
    off = {"a": 3600.0, "b": 0.0, "c": -3600.0}
    facts = [Fact(one.node, one.what, one.utc_seconds + off[one.node], SLOT, one.ballot, one.peer) for one in FREE]
    told = story(*facts)
    order = [(one.node, one.what) for one in told.facts]
    assert order.index(("a", What.PROPOSED)) < order.index(("c", What.VOTED)) < order.index(("a", What.HEARD_VOTE))
    heard = order.index(("a", What.HEARD_VOTE))
    assert told.causes[heard] == order.index(("c", What.VOTED))
    assert told.diagram().steps[heard].cause == told.causes[heard]


def test_a_follower_knows_nothing_before_its_leader_does() -> None:
    """The clock of a is an hour ahead, and c learns from a that the value is chosen."""
    known = fact("a", What.CHOSEN, 5.0, LOWEST)
    ahead = [attrs.evolve(one, utc_seconds=one.utc_seconds + 3600.0 * (one.node == "a")) for one in (*FREE[:-1], known)]
    follower = fact("c", What.CHOSEN, 4.5, LOWEST)
    assert story(*ahead, follower).facts[-1] == follower
    assert story(*ahead, fact("c", What.TOLD, 4.4), follower).facts[-1].node == "a"


def test_facts_that_contradict_each_other_are_told_all_the_same() -> None:
    """A node remembers a vote of a peer before the proposal that this peer's vote rests on: in a circle."""
    facts = (
        fact("a", What.HEARD_VOTE, 1.0, peer="c"),
        fact("a", What.PROPOSED, 2.0),
        fact("c", What.VOTED, 0.5),
    )
    told = story(*facts)
    assert sorted(one.utc_seconds for one in told.facts) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("what", What)
def test_each_kind_of_fact_has_words(what: What) -> None:
    (step,) = story(fact("a", what, 1.0, peer="b")).diagram().steps
    assert step.text
    assert step.node == "a"


def test_the_story_of_a_ballot() -> None:
    facts = (
        Fact("a", What.PROMISED, 1.0, ballot=A1),
        Fact("a", What.PREPARED, 1.0, ballot=A1),
        Fact("b", What.PROMISED, 1.1, ballot=A1),
        Fact("a", What.HEARD_PROMISE, 1.2, ballot=A1, peer="b"),
    )
    told = story_of(0, facts, ("a", "b", "c"), 2)
    assert told.reasons == ("a and b promised ballot 1.a.", "a heard the promises of b.")
    assert story_of(0, (), ("a",), 1).reasons == ("No node that was asked remembers this ballot.",)
