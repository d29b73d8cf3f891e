"""Who may vote when members have changed: the log says which data folder each member has."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs
import pytest
from twisted.internet.defer import Deferred

from txpaxos.core.ready import PeerMet, Voter
from txpaxos.node.admission import Admission
from txpaxos.node.founding import Founding
from txpaxos.wire.peer_messages import Introduction

OWN = 9
KNOWS_ME = Introduction(votes=True, met=OWN, unchanged=True, together=False, founders=(), asks=False)


class Harness:
    """The founding and the admission of one node."""

    def __init__(self, node: str, members: Sequence[str] = "abc") -> None:
        self.sent: list[tuple[str, Introduction]] = []
        self.saved: list[tuple[Voter, bool]] = []
        self.caught_up: list[Deferred[None]] = []
        self.founding = Founding(node, members, OWN, None, Random(1), lambda peer, say: self.sent.append((peer, say)))
        self.admission = Admission(
            node, members, self.founding, lambda voter, is_new: self.saved.append((voter, is_new)), self._catch_up
        )

    def _catch_up(self) -> Deferred[None]:
        self.caught_up.append(Deferred())
        return self.caught_up[-1]

    def hear(self, *peers: str, message: Introduction = KNOWS_ME) -> None:
        for peer in peers:
            self.founding.receive(peer, message, 1.0)
        self.admission.step(1.0)


def test_a_node_that_joins_introduces_itself_to_no_other() -> None:
    harness = Harness("d")
    harness.admission.start(None, [], 0.0)
    harness.founding.tick(100.0)
    assert harness.sent == []
    assert harness.founding.waits_for() == ()


def test_a_node_that_joins_is_admitted_by_the_log_alone() -> None:
    harness = Harness("d")
    harness.admission.start(None, [], 0.0)
    harness.hear("a", "b", "c")
    assert (harness.saved, harness.caught_up) == ([], [])
    harness.admission.named_in_log()
    harness.admission.named_in_log()
    assert harness.saved == [(Voter(("a", "b", "c")), True)]


def test_one_that_votes_already_is_not_admitted_again() -> None:
    harness = Harness("b")
    harness.admission.start(Voter(("a", "b", "c")), [], 0.0)
    harness.admission.named_in_log()
    assert harness.saved == []


def test_after_a_change_a_voter_does_not_say_that_the_members_are_the_old_ones() -> None:
    harness = Harness("a")
    harness.admission.start(Voter(("a", "b", "c"), (PeerMet("b", 3),)), [PeerMet("b", 3)], 0.0)
    harness.hear("c", message=attrs.evolve(KNOWS_ME, votes=False, asks=True))
    harness.founding.follow_members("ab", {"a": 0, "b": 0, "d": 4})
    harness.hear("d", message=attrs.evolve(KNOWS_ME, votes=False, asks=True))
    assert [(peer, one.unchanged, one.met) for peer, one in harness.sent] == [("c", True, 0), ("d", False, 4)]


def test_a_newcomer_of_the_founding_catches_up_first_when_members_have_changed() -> None:
    harness = Harness("c")
    harness.founding.follow_members("abcde", {"a": 0, "b": 0, "c": 0, "d": 4, "e": 5})
    harness.admission.start(None, [], 0.0)
    harness.hear("a", "b")
    assert (harness.saved, harness.caught_up) == ([], [])  # A majority of five it is now.
    harness.hear("d")
    assert harness.saved == []
    harness.caught_up[0].callback(None)
    assert harness.saved == [(Voter(("a", "b", "c")), True)]


def test_what_a_removed_member_says_counts_no_longer() -> None:
    harness = Harness("c")
    harness.admission.start(None, [], 0.0)
    harness.hear("b")
    harness.founding.follow_members("acd", {"a": 0, "c": 0, "d": 4})
    harness.hear("a")
    assert (harness.saved, harness.caught_up) == ([], [])
    assert harness.founding.waits_for() == ("d",)


@pytest.mark.parametrize(("incarnation", "told"), [(4, True), (0, False)])
def test_one_that_comes_with_another_folder_is_told_by_what_the_log_says(incarnation: int, told: bool) -> None:
    harness = Harness("a")
    harness.admission.start(Voter(("a", "b", "c")), [], 0.0)
    harness.founding.follow_members("ad", {"a": 0, "d": incarnation})
    harness.founding.refuse("d", 5.0)
    assert [(peer, one.met) for peer, one in harness.sent] == [("d", 4)] * told
