"""The time of day in the log: the leader's own clock, as far as the others agree with it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from test.helpers.fakes import alone, submit
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.log_lines import LineLimiter
from txpaxos.node.member_clocks import ASK_SECONDS, MemberClocks
from txpaxos.node.members import Members
from txpaxos.replicated_time import UTC_MS_MAX
from txpaxos.wire.peer_messages import AskClock, ClockReading

HOUR = 3600.0
NOW = 1_795_834_800.0
"""The right time of day, when a test begins."""


class Clocks:
    """The clock of each node, by how much it is ahead; ``a`` leads.

    :param silent: the nodes that do not answer.
    """

    def __init__(self, ahead: dict[str, float], silent: str = "") -> None:
        members = {node: Member(Address("127.0.0.1", 1), Address("127.0.0.1", 2)) for node in ahead}
        self.ahead, self.silent = ahead, silent
        self.monotonic = 500.0
        self.round_trip_seconds = 0.0
        self.wakes: list[float] = []
        self.numbers: list[int] = []
        self.last_ms = 0
        members_of = Members("a", Cluster("own", members))
        lines = LineLimiter(lambda: self.monotonic)
        read = lambda: self.right + ahead["a"]  # noqa: E731
        self.leader = MemberClocks(members_of, lambda: self.monotonic, read, self._send, self.wakes.append, lines)

    @property
    def right(self) -> float:
        return NOW + self.monotonic - 500.0

    def lead(self) -> None:
        self.leader.lead()

    def pass_by(self, seconds: float) -> None:
        """Let time pass, and have the others asked again."""
        self.monotonic += seconds
        self.leader.tick(self.monotonic)

    def _send(self, to: tuple[str, ...], message: AskClock | ClockReading) -> None:
        assert isinstance(message, AskClock)
        self.asked = to
        self.numbers.append(message.number)
        sent_at = self.monotonic
        for node in to:
            if node not in self.silent:
                self.monotonic = sent_at + self.round_trip_seconds / 2
                reading = ClockReading(message.number, int((self.right + self.ahead[node]) * 1000))
                self.monotonic = sent_at + self.round_trip_seconds
                self.leader.receive(node, reading)

    def say(self) -> float:
        """Have the leader say what time of day it is, and apply it. How much that is ahead of the right one."""
        self.last_ms = max(self.last_ms, self.leader.utc_ms(self.last_ms))
        self.leader.applied(self.last_ms)
        return round(self.last_ms / 1000 - self.right, 3)


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        ({"a": 0.9}, 0.9),
        ({"a": 0.9, "b": 0.0, "c": 0.0}, 0.9),
        ({"a": HOUR / 2, "b": 0.2, "c": 0.1}, 0.2),
        ({"a": -HOUR, "b": 0.2, "c": 0.1}, 0.1),
        ({"a": 0.0, "b": HOUR, "c": 0.1}, 0.0),
        ({"a": 0.0, "b": HOUR, "c": -HOUR}, 0.0),
        ({"a": 50.0, "b": 0.1, "c": 60.0}, 50.0),
        ({"a": 50.0, "b": 0.1, "c": 0.2, "d": 0.3}, 0.3),
        ({"a": -50.0, "b": 0.1, "c": 0.2, "d": 0.3}, 0.1),
        ({"a": 50.0, "b": 0.1, "c": 0.2, "d": 0.3, "e": 60.0}, 0.3),
    ],
)
def test_the_leader_says_the_median_if_its_own_clock_is_far_from_it(ahead: dict[str, float], said: float) -> None:
    clocks = Clocks(ahead)
    clocks.lead()
    assert clocks.say() == said


def test_a_clock_that_steps_after_the_others_were_asked() -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.1})
    clocks.lead()
    clocks.pass_by(10.0)
    for step in (HOUR / 2, -HOUR / 2, 20 * HOUR):
        clocks.ahead["a"] = step
        assert clocks.say() in (0.0, 0.1)


def test_the_time_of_an_answer_counts_half() -> None:
    clocks = Clocks({"a": HOUR, "b": 0.0, "c": 0.0})
    clocks.round_trip_seconds = 0.5
    clocks.lead()
    assert clocks.say() == 0.0
    assert clocks.leader.report().offsets_seconds == {"b": -HOUR, "c": -HOUR}


def test_an_answer_that_took_long_says_nothing() -> None:
    clocks = Clocks({"a": HOUR, "b": 0.0, "c": 0.0})
    clocks.round_trip_seconds = 1.01
    clocks.lead()
    assert clocks.say() == HOUR


def test_a_minority_of_the_clocks_decides_nothing() -> None:
    clocks = Clocks({"a": 50.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 0.0}, silent="cde")
    clocks.lead()
    assert clocks.say() == 50.0
    clocks.silent = "d"
    clocks.pass_by(ASK_SECONDS)
    clocks.pass_by(ASK_SECONDS)
    assert clocks.say() == 0.0


def test_answers_that_were_not_asked_for_count_for_nothing() -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.0}, silent="bc")
    wrong = int((NOW + HOUR / 2) * 1000)
    for node in "bc":
        clocks.leader.receive(node, ClockReading(0, wrong))  # It does not lead.
    clocks.lead()
    (number,) = clocks.numbers
    for node, told in (("b", number - 1), ("c", number + 1), ("x", number), ("a", number)):
        clocks.leader.receive(node, ClockReading(told, wrong))
    assert clocks.say() == 0.0
    assert clocks.leader.report().offsets_seconds == {}


def test_others_are_asked_now_and_then_while_this_node_leads() -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.0})
    clocks.leader.tick(clocks.monotonic)
    assert clocks.wakes == []
    clocks.lead()
    assert (clocks.asked, clocks.numbers) == (("b", "c"), [1])
    clocks.pass_by(ASK_SECONDS - 1)
    assert clocks.numbers == [1]
    clocks.pass_by(1)
    assert clocks.numbers == [1, 2]
    clocks.leader.lead_lost()
    clocks.pass_by(ASK_SECONDS)
    assert clocks.numbers == [1, 2]
    assert clocks.wakes == [500.0 + ASK_SECONDS, 500.0 + 2 * ASK_SECONDS]
    assert clocks.leader.report().offsets_seconds == {}


def test_one_node_alone_asks_no_other() -> None:
    clocks = Clocks({"a": 0.0})
    clocks.lead()
    assert (clocks.numbers, clocks.wakes) == ([], [])


@pytest.mark.parametrize("nodes", ["a", "abc"])
def test_the_first_time_of_a_cluster_is_what_the_clocks_say(nodes: str) -> None:
    """Values without a time may have been applied before, such as the first one of a leader."""
    clocks = Clocks(dict.fromkeys(nodes, 0.0))
    clocks.leader.applied(0)
    clocks.lead()
    clocks.leader.applied(0)
    clocks.pass_by(5.0)
    assert clocks.leader.report().refused_seconds == 0.0
    assert clocks.say() == 0.0


def test_the_first_time_on_a_node() -> None:
    harness = alone()
    submit(harness, b"command")
    assert abs(harness.node.timers.now.utc_ms / 1000 - time.time()) < 60.0
    assert harness.node.status().clock_jump_refused_seconds == 0.0


@pytest.mark.parametrize("nodes", ["a", "abc"])
def test_a_time_that_jumps_by_more_than_an_hour_waits_until_it_is_accepted(nodes: str) -> None:
    clocks = Clocks(dict.fromkeys(nodes, 0.0))
    clocks.lead()
    assert clocks.say() == 0.0
    clocks.ahead.update(dict.fromkeys(nodes, 64 * 365 * 24 * HOUR))
    for _ in range(5):
        clocks.pass_by(ASK_SECONDS)
        assert clocks.say() == 0.0
    assert clocks.leader.report().refused_seconds == 64 * 365 * 24 * HOUR
    clocks.leader.accept()
    assert clocks.say() == 64 * 365 * 24 * HOUR
    assert clocks.leader.report().refused_seconds == 0.0


def test_what_was_accepted_is_accepted_once() -> None:
    clocks = Clocks({"a": 0.0})
    clocks.lead()
    clocks.say()
    clocks.leader.accept()
    assert clocks.say() == 0.0
    clocks.ahead["a"] = 2 * HOUR
    assert clocks.say() == 0.0


def test_what_was_accepted_of_one_lead_is_not_of_the_next() -> None:
    clocks = Clocks({"a": 0.0})
    clocks.lead()
    clocks.say()
    clocks.leader.accept()
    clocks.leader.lead_lost()
    clocks.lead()
    clocks.ahead["a"] = 2 * HOUR
    assert clocks.say() == 0.0


def test_a_clock_that_is_put_right_needs_nothing_more() -> None:
    clocks = Clocks({"a": 0.0})
    clocks.lead()
    clocks.say()
    clocks.ahead["a"] = 2 * HOUR
    assert clocks.say() == 0.0
    clocks.ahead["a"] = 0.5
    assert clocks.say() == 0.5
    assert clocks.leader.report().refused_seconds == 0.0


def test_a_cluster_in_which_nothing_happens_for_days() -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.0})
    clocks.lead()
    clocks.say()
    clocks.pass_by(72 * HOUR)
    assert clocks.say() == 0.0


def test_a_follower_that_takes_over_knows_how_long_ago_the_last_time_was() -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.0}, silent="bc")
    clocks.last_ms = int(NOW * 1000)
    clocks.leader.applied(clocks.last_ms)
    clocks.pass_by(5 * HOUR)
    clocks.lead()
    assert clocks.say() == 0.0
    clocks.ahead["a"] = 2 * HOUR
    assert clocks.say() == 0.0


def test_nodes_that_were_off_for_days_go_by_the_majority() -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.0}, silent="bc")
    clocks.last_ms = int((NOW - 72 * HOUR) * 1000)
    clocks.lead()
    assert clocks.say() == -72 * HOUR, "it cannot know whether its own clock is right"
    clocks = Clocks({"a": 0.0, "b": 0.0, "c": 0.0})
    clocks.last_ms = int((NOW - 72 * HOUR) * 1000)
    clocks.lead()
    assert clocks.say() == 0.0


@pytest.mark.parametrize("nodes", ["a", "abc"])
def test_a_cluster_that_was_off_for_days_applies_what_it_had_saved_and_goes_by_the_majority(nodes: str) -> None:
    """What a node had saved, or a new leader proposes again, has the times that it had then."""
    clocks = Clocks(dict.fromkeys(nodes, 0.0))
    clocks.last_ms = int((NOW - 72 * HOUR) * 1000)
    clocks.leader.applied(clocks.last_ms - 5)
    clocks.monotonic += 3.0
    clocks.leader.applied(clocks.last_ms)
    clocks.lead()
    assert clocks.say() == 0.0
    assert clocks.leader.report().refused_seconds == 0.0


def test_an_old_time_that_is_applied_late_changes_nothing() -> None:
    clocks = Clocks({"a": 0.0})
    clocks.lead()
    clocks.say()
    clocks.pass_by(5 * HOUR)
    clocks.leader.applied(int((NOW - 72 * HOUR) * 1000))
    assert clocks.say() == 0.0
    assert clocks.leader.report().refused_seconds == 0.0


def test_a_time_that_another_leader_has_had_accepted_is_gone_by() -> None:
    clocks = Clocks({"a": 0.0, "b": 10 * HOUR, "c": 10 * HOUR})
    clocks.leader.applied(int(NOW * 1000))
    clocks.last_ms = int((NOW + 10 * HOUR) * 1000)
    clocks.pass_by(1.0)
    clocks.lead()
    assert clocks.say() == 10 * HOUR, "a snapshot had it"


@pytest.mark.parametrize(("utc", "utc_ms"), [(-5.0, 0), (1e18, UTC_MS_MAX)])
def test_a_senseless_wall_clock_is_kept_within_bounds(utc: float, utc_ms: int) -> None:
    clocks = Clocks({"a": utc - NOW})
    clocks.lead()
    assert clocks.leader.utc_ms(0) == utc_ms


def test_a_question_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks({"a": 0.0, "b": 0.0})
    sent: list[Any] = []
    monkeypatch.setattr(clocks.leader, "_send", lambda to, message: sent.append((to, message)))
    clocks.leader.receive("b", AskClock(7))
    assert sent == [(("b",), ClockReading(7, int(NOW * 1000)))]
