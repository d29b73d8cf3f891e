"""What a leader knows of how far its followers are."""

from __future__ import annotations

import pytest

from txpaxos.core.progress import ACKS_LEVEL, Progress

WINDOW_SECONDS = 0.5


@pytest.fixture
def progress() -> Progress:
    """Ten slots are chosen between two heartbeats, of which the last window has five."""
    progress = Progress(WINDOW_SECONDS)
    for number in range(20):
        progress.heartbeat_sent(10 * number, 0.1 * number)
    return progress


def test_a_follower_is_level_that_knows_what_was_chosen_a_window_ago(progress: Progress) -> None:
    for _ in range(ACKS_LEVEL):
        progress.acknowledged("b", 129, 200)
        progress.acknowledged("c", 151, 200)
    assert not progress.is_level("b")
    assert progress.is_level("c")
    assert progress.chosen_through == {"b": 129, "c": 151}


def test_once_is_not_enough(progress: Progress) -> None:
    assert not progress.is_level("b")
    progress.acknowledged("b", 190, 200)
    assert not progress.is_level("b")
    progress.acknowledged("b", 190, 200)
    assert progress.is_level("b")


def test_a_follower_that_falls_behind_is_level_no_more(progress: Progress) -> None:
    progress.acknowledged("b", 190, 200)
    progress.acknowledged("b", 190, 200)
    for number in range(20, 40):
        progress.heartbeat_sent(10 * number, 0.1 * number)
    progress.acknowledged("b", 190, 200)
    assert not progress.is_level("b")
    progress.acknowledged("b", 390, 200)
    assert not progress.is_level("b"), "it has to be so twice in a row again"


def test_before_the_first_heartbeat_none_is_level() -> None:
    progress = Progress(WINDOW_SECONDS)
    progress.acknowledged("b", 0, 200)
    progress.acknowledged("b", 0, 200)
    assert not progress.is_level("b")
