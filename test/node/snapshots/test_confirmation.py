"""Whether a snapshot that came from one node is believed, and how long that takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from test.helpers.fakes import logged
from test.helpers.fixed_voters import FixedVoters
from txpaxos.core.messages import NodeId
from txpaxos.node.counts import Count, Counts
from txpaxos.node.snapshots.confirmation import CONFIRM_SECONDS, Confirmation
from txpaxos.node.snapshots.digests import StateDigests
from txpaxos.node.snapshots.transfer import SnapshotRefused
from txpaxos.wire.peer_messages import AskStateDigest, StateDigest

TAKEN = StateDigest(10, b"log", b"good")
SAME = StateDigest(10, b"log", b"good")
OTHER = StateDigest(10, b"log", b"bad")
NO_HASHES = StateDigest(10, b"", b"")


class Asker:
    """Node "a", which has got the snapshot of "b".

    :ivar told: what it said. ``outcomes``: what came of it: ``None``, or why it is refused.
    """

    def __init__(self, members: str = "abc") -> None:
        self.clock = Clock()
        self.told: list[tuple[tuple[NodeId, ...], Any]] = []
        self.counters: Counts = Counter()
        self.digests = StateDigests(
            "a",
            FixedVoters(tuple(members[1:]), len(members) // 2 + 1),
            lambda to, message: self.told.append((to, message)),
            lambda error: None,
        )
        self.confirmation = Confirmation(self.clock, self.digests, self.counters)
        self.digests.heard = lambda slot: self.confirmation.check()
        self.outcomes: list[Any] = []

    def ask(self) -> None:
        self.confirmation.confirm("b", TAKEN).addBoth(self.outcomes.append)

    def hear(self, **said: StateDigest) -> list[dict[str, Any]]:
        """What is logged as a warning meanwhile."""

        def receive() -> None:
            for node, digest in said.items():
                self.digests.receive(node, digest)

        return logged(receive, LogLevel.warn)

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        return logged(lambda: self.clock.pump([0.1] * round(seconds * 10)), LogLevel.warn)

    @property
    def refusal(self) -> str:
        (outcome,) = self.outcomes
        assert outcome.check(SnapshotRefused), outcome
        return str(outcome.value)


def test_what_a_majority_has_is_believed_at_once() -> None:
    one = Asker("abcde")
    one.ask()
    assert one.told == [(("b", "c", "d", "e"), AskStateDigest(10))]
    assert one.hear(b=SAME, c=SAME) == []
    assert one.outcomes == []
    assert one.hear(d=SAME) == []
    assert one.outcomes == [None]
    assert not one.clock.getDelayedCalls()


def test_what_they_said_before_counts() -> None:
    one = Asker()
    one.hear(b=SAME, c=SAME)
    one.ask()
    assert one.outcomes == [None]


def test_what_a_majority_contradicts_is_refused() -> None:
    one = Asker("abcde")
    one.ask()
    one.hear(b=SAME, c=OTHER, d=OTHER)
    assert one.outcomes == []
    one.hear(e=OTHER)
    assert "it is not what others have at slot 10: b has " in one.refusal
    assert one.counters[Count.CONTRADICTED_SNAPSHOT] == 1


def test_what_one_node_contradicts_is_refused_where_no_majority_has_it() -> None:
    """No node can tell which is right, so this node does not decide it by taking a side."""
    one = Asker()
    one.ask()
    one.hear(b=SAME, c=OTHER)
    assert "c has " in one.refusal


def test_another_log_is_a_contradiction_though_the_state_is_not_known() -> None:
    one = Asker()
    one.ask()
    one.hear(b=SAME, c=StateDigest(10, b"other", b""))
    assert one.refusal


def test_a_single_running_node_is_believed_after_a_while_and_the_log_says_so() -> None:
    one = Asker()
    one.ask()
    one.hear(b=SAME)
    assert one.wait(CONFIRM_SECONDS - 0.2) == []
    assert one.outcomes == []
    (event,) = one.wait(1.0)
    assert event["names"] == "b"
    assert "on the word of" in event["log_format"]
    assert one.outcomes == [None]
    asked = [message for _, message in one.told if message == AskStateDigest(10)]
    assert len(asked) >= 3, "what is lost is asked again"
    assert not one.clock.getDelayedCalls()


def test_a_single_running_node_that_none_can_contradict_though_it_says_nothing() -> None:
    """It was restarted, and has forgotten what its older snapshot comes to."""
    one = Asker()
    one.ask()
    (event,) = one.wait(CONFIRM_SECONDS + 1.0)
    assert event["names"] == "b"
    assert one.outcomes == [None]


def test_where_all_have_answered_it_takes_no_time() -> None:
    one = Asker()
    one.ask()
    (event,) = one.hear(b=SAME, c=NO_HASHES)
    assert event["names"] == "b"
    assert one.outcomes == [None]


def test_a_contradiction_within_the_time_counts_without_a_majority() -> None:
    one = Asker("abcde")
    one.ask()
    one.hear(b=SAME, c=OTHER)
    one.wait(CONFIRM_SECONDS + 1.0)
    assert one.refusal


@pytest.mark.parametrize("stop", [True, False])
def test_only_the_last_question_is_answered(stop: bool) -> None:
    one = Asker()
    one.ask()
    if stop:
        one.confirmation.stop()
    else:
        one.ask()
    one.hear(b=SAME, c=SAME)
    assert one.outcomes == ([] if stop else [None])
    one.wait(5.0)
    assert not one.clock.getDelayedCalls()
