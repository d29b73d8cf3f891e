"""The timer fires at the earliest time that it was given, and a node keeps its time when the wall clock steps."""

from __future__ import annotations

from functools import partial

import pytest

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import NodeHarness, NodesInOneReactor, Reactor, outcome_of
from txpaxos.clock import WATCH_SECONDS, monotonic_clock
from txpaxos.core.config import Timing
from txpaxos.node.timer import Timer
from txpaxos.wire.peer_messages import CollectRegisters

HOUR = 3600.0
approx = partial(pytest.approx, abs=1e-4)


class Fired:
    """A timer and when it fired, in monotonic seconds."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.times: list[float] = []
        self.timer = Timer(monotonic_clock(self.reactor), lambda: self.times.append(self.reactor.monotonic()))


@pytest.fixture
def fired() -> Fired:
    return Fired()


def test_fires_once_when_it_is_time(fired: Fired) -> None:
    fired.timer.schedule_no_later_than(2.0)
    fired.reactor.spend(1.9)
    assert fired.times == []
    fired.reactor.spend(100.0)
    assert fired.times == approx([2.0])


def test_the_earliest_time_counts(fired: Fired) -> None:
    for fire_at in (5.0, 2.0, 3.0, 3.0):
        fired.timer.schedule_no_later_than(fire_at)
    fired.reactor.spend(100.0)
    assert fired.times == approx([2.0])


def test_set_again_after_it_fired(fired: Fired) -> None:
    fired.timer.schedule_no_later_than(1.0)
    fired.reactor.spend(1.0)
    fired.timer.schedule_no_later_than(4.0)
    fired.reactor.spend(100.0)
    assert fired.times == approx([1.0, 4.0])


def test_a_time_that_has_passed_fires_in_the_next_turn(fired: Fired) -> None:
    fired.reactor.spend(10.0)
    fired.timer.schedule_no_later_than(3.0)
    assert fired.times == []
    fired.reactor.turn()
    assert fired.times == approx([10.0])


def test_a_cancelled_timer_does_not_fire(fired: Fired) -> None:
    fired.timer.cancel()
    fired.timer.schedule_no_later_than(1.0)
    fired.timer.cancel()
    fired.timer.cancel()
    fired.reactor.spend(100.0)
    assert fired.times == []


# ---------------------------------------------------------------- a whole node


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_node_goes_on_after_a_step(step: float) -> None:
    """Though nothing is under way and nothing arrives, it looks for a leader in its time."""
    harness = NodeHarness("b")
    harness.reactor.spend(0.1)
    harness.reactor.step(step)
    harness.forget()
    harness.reactor.spend(0.15)
    assert harness.story() == []
    harness.reactor.spend(0.4 + WATCH_SECONDS)
    assert "PreVote>a" in harness.story()
    harness.node.stop()


def test_a_node_that_seals_after_a_step_goes_on() -> None:
    cluster = ConnectedNodes(timing=Timing(retry_seconds=1.0))
    cluster.lead()
    for peer in "ac":
        cluster.nodes[peer]._sealing.is_voter = False  # So that neither answers.
    answer = outcome_of(cluster.nodes["b"]._sealing.seal())
    cluster.reactor.spend(0.6)
    cluster.reactor.step(-HOUR)
    cluster.sent.clear()
    cluster.reactor.spend(0.7)
    asked = [to for sender, to, message in cluster.sent if sender == "b" and isinstance(message, CollectRegisters)]
    assert sorted(asked) == ["a", "c"]  # asked again, both
    assert answer == []
    for node in cluster.nodes.values():
        node.stop()


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_the_clocks_of_a_whole_idle_cluster_step(step: float) -> None:
    """Nothing is under way but heartbeats, so only the nodes' own timers can keep the leader's place."""
    cluster = NodesInOneReactor()
    leader = cluster.lead()
    cluster.reactor.step(step)
    cluster.reactor.spend(WATCH_SECONDS + 0.02)
    sent = len(cluster.sent)
    cluster.reactor.spend(1.0)
    assert cluster.lead() is leader
    assert len(cluster.sent) - sent > 10
    for node in cluster.nodes.values():
        node.stop()
