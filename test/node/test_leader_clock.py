"""What the leader says the time is."""

from __future__ import annotations

import pytest

from txpaxos.node.leader_clock import LeaderClock
from txpaxos.replicated_time import ELAPSED_MS_MAX, ReplicatedTime


class Clocks:
    """The clocks of one node, and what it has applied."""

    def __init__(self, elapsed_ms: int = 0, utc_ms: int = 0) -> None:
        self.applied = ReplicatedTime(elapsed_ms, utc_ms)
        self.monotonic = 1000.0
        self.utc = 50.0
        self.leader = LeaderClock(lambda: self.applied, lambda: self.monotonic, lambda _: int(self.utc * 1000))


def test_time_stands_still_until_all_of_earlier_leaders_is_applied() -> None:
    clocks = Clocks(elapsed_ms=7000)
    clocks.monotonic += 100
    assert clocks.leader.stamp().elapsed_ms == 7000
    clocks.applied = ReplicatedTime(8000)
    clocks.leader.start()
    clocks.monotonic += 1.5
    assert clocks.leader.stamp().elapsed_ms == 9500


def test_time_goes_on_while_nothing_is_proposed() -> None:
    clocks = Clocks()
    clocks.leader.start()
    clocks.monotonic += 3600.0
    assert clocks.leader.stamp().elapsed_ms == 3_600_000


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_step_of_the_wall_clock_does_not_change_the_elapsed_time(step: float) -> None:
    clocks = Clocks(utc_ms=50_000)
    clocks.leader.start()
    clocks.utc += step
    clocks.monotonic += 1.0
    assert clocks.leader.stamp() == ReplicatedTime(1000, max(50_000, 50_000 + int(step * 1000)))


def test_a_second_lead_goes_on_from_what_is_applied_then() -> None:
    clocks = Clocks()
    clocks.leader.start()
    clocks.monotonic += 10.0
    clocks.leader.stop()
    assert not clocks.leader.is_running
    clocks.applied = ReplicatedTime(4000)
    clocks.leader.start()
    clocks.monotonic += 1.0
    assert clocks.leader.stamp().elapsed_ms == 5000


def test_a_time_near_its_end_stands_still_at_it() -> None:
    """A value with a later time would be refused by all nodes, and so would each one after it."""
    clocks = Clocks(elapsed_ms=ELAPSED_MS_MAX - 5)
    clocks.leader.start()
    clocks.monotonic += 1.0
    assert clocks.leader.stamp().elapsed_ms == ELAPSED_MS_MAX


def test_a_value_is_due_when_the_next_timer_is_and_not_twice() -> None:
    clocks = Clocks()
    assert clocks.leader.pulse_at(500) is None, "it does not lead"
    clocks.leader.start()
    assert clocks.leader.pulse_at(500) == 1000.5005
    clocks.monotonic = 1000.5005
    clocks.leader.stamp()
    assert clocks.leader.pulse_at(500) is None, "that value is on its way"
    assert clocks.leader.pulse_at(700) == pytest.approx(1000.7005)
    clocks.applied = ReplicatedTime(500)
    assert clocks.leader.pulse_at(500) == 1000.5005, "more were due than fire in one slot"


def test_a_new_leader_gives_a_grace_until_time_goes_on_and_once_then() -> None:
    clocks = Clocks(elapsed_ms=7000)
    clocks.leader = LeaderClock(lambda: clocks.applied, lambda: clocks.monotonic, lambda _: 50_000, 2000)
    for _ in range(2):
        assert clocks.leader.take_grace_ms(clocks.leader.stamp()) == 2000
    clocks.leader.start()
    clocks.monotonic += 0.5
    assert [clocks.leader.take_grace_ms(clocks.leader.stamp()) for _ in range(2)] == [1500, 0]
    clocks.leader.stop()
    clocks.leader.start()
    clocks.monotonic += 3.0
    assert clocks.leader.take_grace_ms(clocks.leader.stamp()) == 0, "it has led for longer than that"
