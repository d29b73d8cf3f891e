"""Which data folder a peer has: what it showed itself, and what the log says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Count, Counts
from txpaxos.node.known_peers import KnownPeers


class Harness:
    def __init__(self) -> None:
        self.saved: list[PeerMet] = []
        self.counters: Counts = Counter()
        self.known = KnownPeers(self.saved.append, self.counters)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_what_the_log_says_counts_at_once_and_is_not_saved(
    harness: Harness, logged_errors: list[dict[str, Any]]
) -> None:
    harness.known.expect("d", 5)
    assert "d" in harness.known
    assert harness.known.has_met("d", 5)
    assert harness.known.admits("d", 5)
    assert not harness.known.admits("d", 6)
    assert harness.counters == {Count.PEER_WITH_ANOTHER_FOLDER: 1}
    harness.known.remember("d", 5)
    assert harness.saved == []
    assert harness.known.records() == []
    logged_errors.clear()


def test_a_founder_has_to_show_itself(harness: Harness) -> None:
    harness.known.expect("b", 0)
    assert "b" not in harness.known
    harness.known.remember("b", 3)
    assert harness.saved == [PeerMet("b", 3)]
    assert "b" not in harness.known
    harness.known.peer_saved(PeerMet("b", 3))
    harness.known.expect("b", 0)
    assert "b" in harness.known
    assert harness.known.records() == [PeerMet("b", 3)]


def test_the_log_is_right_about_a_peer_that_is_being_met(harness: Harness) -> None:
    harness.known.remember("d", 3)
    harness.known.expect("d", 5)
    assert "d" in harness.known
    assert harness.known.has_met("d", 5)
    assert harness.known.records() == []


def test_a_peer_that_was_removed_is_forgotten(harness: Harness) -> None:
    harness.known.recover("b", 3)
    harness.known.expect("d", 5)
    for peer in ("b", "d", "e"):
        harness.known.forget(peer)
    assert harness.known.records() == []
    assert "b" not in harness.known
    assert not harness.known.has_met("d", 5)


def test_the_incarnation_of_a_peer_is_told_when_it_is_on_disk(harness: Harness) -> None:
    harness.known.recover("b", 3)
    harness.known.expect("d", 5)
    harness.known.remember("e", 6)
    assert [harness.known.incarnation(peer) for peer in "bdef"] == [3, 5, 0, 0]
