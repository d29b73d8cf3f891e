"""The time of a cluster, and timers, on several nodes: through crashes, elections, snapshots and stepped clocks.

``TXPAXOS_TIME_SEEDS`` says how many seeds the simulator tries; every fifth of them changes the members.
"""

from __future__ import annotations

import os
from itertools import pairwise
from random import Random

import pytest

from test.helpers.fakes import alone, submit
from txpaxos.core.messages import Slot
from txpaxos.errors import NotHandedOver
from txpaxos.node.snapshots.taking import Policy
from txpaxos.node.timers import FIRED_MAX
from txpaxos.protocol import PaxosProtocol
from txpaxos.replicated_time import ReplicatedTime
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.schedule import Fault, plan
from txpaxos.testing.simulator.simulation import simulate

pytestmark = [
    pytest.mark.usefixtures("expected_errors"),
    pytest.mark.no_cover,  # Under coverage it would take three times as long.
]

SEEDS = int(os.environ.get("TXPAXOS_TIME_SEEDS", "5"))
RATE_MAX = 1.25
"""How fast the fastest simulated clock goes."""


class Leases(PaxosProtocol):
    """Names that are held for a while. A command is a name and for how many milliseconds.

    :ivar held: until when each name is held, by the elapsed milliseconds.
    :ivar ended: each name whose time has ended, and when that was, in order.
    :ivar slots: the elapsed milliseconds at each slot with a command.
    """

    state_fields = ("held", "ended", "slots")

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.ended: list[tuple[str, int]] = []
        self.slots: dict[str, int] = {}

    def apply(self, slot: Slot, command: bytes) -> int:
        """Hold a name, or hold it longer. Returns when that is, by the elapsed milliseconds."""
        name, _, after_ms = command.decode().partition(" ")
        now = self.now.elapsed_ms
        self.held[name] = now + int(after_ms)
        self.slots[str(slot)] = now
        self.timers.set(name, int(after_ms) / 1000, command)
        return now

    def timer_fired(self, slot: Slot, name: str, payload: bytes) -> None:
        """A name is held no more."""
        assert self.now.elapsed_ms >= self.held.pop(name)
        self.ended.append((name, self.now.elapsed_ms))
        if not payload.endswith(b"0"):
            self.timers.set(name, 0, b"then 0")
            self.held[name] = 0

    def query(self, query: bytes) -> int:
        """The elapsed milliseconds."""
        return self.now.elapsed_ms


def some_command(rng: Random) -> bytes:
    return b"%d %d" % (rng.randrange(20), rng.randrange(2000))


@pytest.mark.parametrize("part", range(4))
def test_nodes_stay_equal_whatever_happens(part: int) -> None:
    """The simulator compares states, and outcomes, of all nodes: they have times in them."""
    for seed in range(part, SEEDS, 4):
        result = simulate(seed, 3.0, (3, 5, 3, 4)[seed % 4], Leases, some_command, changes=seed % 5 == 4)
        assert result.violation is None, result.told()


def cluster_of(seed: int, **options: object) -> SimulatedCluster:
    cluster = SimulatedCluster(seed, 3, Leases, some_command, callers=0, askers=0, **options)  # type: ignore[arg-type]
    cluster.run(1.0)
    cluster.wait_until_converged()
    return cluster


def application_of(cluster: SimulatedCluster, node: str) -> Leases:
    found = cluster.hosts[node].node
    assert found is not None
    assert isinstance(found.application, Leases)
    return found.application


def now_at(cluster: SimulatedCluster, node: str) -> ReplicatedTime:
    return application_of(cluster, node).now


def test_elapsed_time_is_that_of_the_leader_s_clock() -> None:
    cluster = cluster_of(1)
    cluster._answer_within(1.0, "a command")
    began, at = now_at(cluster, "a").elapsed_ms, cluster.time.now
    cluster.run(20.0)
    cluster._answer_within(1.0, "a command")
    passed, real = now_at(cluster, "a").elapsed_ms - began, (cluster.time.now - at) * 1000
    assert real - 20 < passed <= real + 20
    assert {now_at(cluster, node) for node in cluster.names} == {now_at(cluster, "a")}


@pytest.mark.parametrize("step", [3600.0, -3600.0])
@pytest.mark.parametrize("whose", ["leader", "all"])
def test_a_stepped_clock_ends_no_lease_early_or_late(step: float, whose: str) -> None:
    cluster = cluster_of(2)
    client = cluster.new_client("tester")
    done: list[int] = []
    client.submit(b"lease 5000").addCallback(done.append)
    cluster.run(0.5)
    began = done[0]
    for host in cluster.hosts.values():
        if whose == "all" or host.name == cluster.leader:
            assert host.reactor is not None
            host.reactor.step_wall_clock(step)
    cluster.run(4.0)
    assert "lease" in application_of(cluster, "a").held
    cluster.run(1.0)
    (ended,) = [when for name, when in application_of(cluster, "b").ended if name == "lease"]
    assert began + 5000 <= ended <= began + 5100


def step_clocks(cluster: SimulatedCluster, names: str, seconds: float) -> None:
    for node in names:
        reactor = cluster.hosts[node].reactor
        assert reactor is not None
        reactor.step_wall_clock(seconds)


def test_the_time_of_day_goes_by_the_clocks_of_most_nodes() -> None:
    cluster = cluster_of(11)
    for step in (1800.0, -4000.0):
        leader = cluster.leader
        assert leader is not None
        step_clocks(cluster, leader, step)
        before, at = now_at(cluster, leader).utc_ms, cluster.time.now
        cluster.run(2.0)
        cluster._answer_within(1.0, "a command")
        assert abs(now_at(cluster, leader).utc_ms - before - (cluster.time.now - at) * 1000) < 2000


def test_a_time_of_day_that_jumps_everywhere_waits_for_an_operator() -> None:
    cluster = cluster_of(12)
    cluster._answer_within(1.0, "a command")
    before, at = now_at(cluster, "a").utc_ms, cluster.time.now
    step_clocks(cluster, "abc", 36_000.0)
    cluster.run(35.0)
    cluster._answer_within(1.0, "a command")
    assert abs(now_at(cluster, "a").utc_ms - before - (cluster.time.now - at) * 1000) < 2000
    assert cluster.leader is not None
    for name, host in cluster.hosts.items():
        assert host.node is not None
        if name != cluster.leader:
            with pytest.raises(NotHandedOver, match=f"{name} does not lead, {cluster.leader} does"):
                host.node.accept_clock()
    leader = cluster.hosts[cluster.leader].node
    assert leader is not None
    assert leader.status().clock_jump_refused_seconds == pytest.approx(36_000, abs=5)
    assert leader.accept_clock()["refused_seconds"] == pytest.approx(36_000, abs=5)
    cluster.run(1.0)
    assert now_at(cluster, "b").utc_ms - before > 36_000_000
    assert leader.status().clock_jump_refused_seconds == 0
    assert leader.status().clock_offsets_seconds == pytest.approx(
        dict.fromkeys([name for name in cluster.names if name != cluster.leader], 0.0), abs=2.0
    )


def test_the_time_without_a_leader_does_not_count_and_what_was_left_stays_left() -> None:
    cluster = cluster_of(3)
    client = cluster.new_client("tester")
    client.submit(b"lease 5000")
    cluster.run(0.5)
    cluster._answer_within(1.0, "the time of now")
    before, at = now_at(cluster, "a").elapsed_ms, cluster.time.now
    for host in cluster.hosts.values():
        host.crash()
    cluster.run(60.0)
    cluster.heal()
    cluster.wait_until_converged()
    assert now_at(cluster, "a").elapsed_ms - before <= (cluster.time.now - at - 60.0) * 1000 + 1
    assert "lease" in application_of(cluster, "a").held
    cluster.run(6.0)
    assert "lease" not in application_of(cluster, "a").held


def test_twenty_leaders_within_one_lease_do_not_make_it_last() -> None:
    cluster = cluster_of(4)
    client = cluster.new_client("tester")
    client.submit(b"lease 10000")
    cluster.run(0.2)
    began = cluster.time.now
    for _ in range(20):
        while cluster.leader is None:
            cluster.run(0.01)
        leader = cluster.leader
        cluster.hosts[leader].crash()
        cluster.run(0.35)
        cluster.hosts[leader].start()
        cluster.run(0.1)
    cluster.heal()
    while "lease" in application_of(cluster, "a").held:
        cluster.run(0.1)
    assert 10.0 / RATE_MAX <= cluster.time.now - began < 10.0 + 20 * 0.5 + 1.0


def test_a_paused_leader_ends_nothing_when_it_wakes() -> None:
    """Its value is not chosen: another node leads, and holds the lease longer meanwhile."""
    cluster = cluster_of(5)
    client = cluster.new_client("tester")
    client.submit(b"lease 1000")
    cluster.run(0.1)
    leader = cluster.leader
    assert leader is not None
    reactor = cluster.hosts[leader].reactor
    assert reactor is not None
    reactor.pause(3.0)
    for _ in range(12):
        client.submit(b"lease 1000")
        cluster.run(0.3)
    assert "lease" in application_of(cluster, "a").held
    assert [name for name, _ in application_of(cluster, "b").ended if name == "lease"] == []


def test_without_timers_nothing_is_proposed() -> None:
    cluster = SimulatedCluster(6, 3, Leases, some_command, clients=0, askers=0, callers=0, readers=0)
    cluster.run(2.0)
    slots = len(cluster.checker.chosen)
    cluster.run(600.0)
    assert len(cluster.checker.chosen) == slots


def test_timers_fire_on_time_in_an_idle_cluster_and_cost_a_slot_each() -> None:
    cluster = SimulatedCluster(7, 3, Leases, some_command, clients=0, askers=0, callers=0, readers=0)
    client = cluster.new_client("tester")
    done: list[int] = []
    for number in range(5):
        client.submit(b"lease%d %d" % (number, 10_000 * (number + 1))).addCallback(done.append)
    cluster.run(2.0)
    slots = len(cluster.checker.chosen)
    cluster.run(60.0)
    assert len(cluster.checker.chosen) == slots + 5
    for number, (name, when) in enumerate(application_of(cluster, "c").ended):
        assert name == f"lease{number}"
        assert 0 <= when - done[number] - 10_000 * (number + 1) < 5


def test_timers_are_in_snapshots() -> None:
    cluster = cluster_of(8, snapshot_policy=Policy(2000))
    client = cluster.new_client("tester")
    client.submit(b"lease 30000")
    for _ in range(40):
        cluster._answer_within(1.0, "a command")
    node = cluster.hosts["a"].node
    assert node is not None
    assert node.status().compaction.snapshot_slot > 0
    for host in cluster.hosts.values():
        host.crash()
    cluster.heal()
    cluster.wait_until_converged()
    assert "lease" in application_of(cluster, "a").timers
    cluster.run(40.0)
    assert [name for name, _ in application_of(cluster, "a").ended if name == "lease"] == ["lease"]


def test_hand_overs_turn_no_time_back() -> None:
    """Each node's time only rises, as long as it runs, and never faster than the fastest clock."""
    cluster = cluster_of(9)
    plan(cluster, [Fault(0.3 * number, "hand-overs", "a", 0.2, number) for number in range(10)])
    last: dict[object, ReplicatedTime] = {}
    for _ in range(40):
        cluster.run(0.1)
        for node in [host.node for host in cluster.hosts.values() if host.node is not None]:
            now = node.timers.now
            assert last.get(node, ReplicatedTime()).elapsed_ms <= now.elapsed_ms <= cluster.time.now * 1000 * RATE_MAX
            last[node] = now
    assert cluster.checker.ballots_won > 5


class Alarms(PaxosProtocol):
    """Sets as many timers as the command says, all due in a second.

    :ivar fired: how many timers have fired.
    """

    state_fields = ("fired",)

    def __init__(self) -> None:
        self.fired = 0

    def apply(self, slot: Slot, command: bytes) -> None:
        """Set the timers."""
        for number in range(int(command)):
            self.timers.set(f"{number}", 1)

    def timer_fired(self, slot: Slot, name: str, payload: bytes) -> None:
        """Count it."""
        self.fired += 1


def test_timers_that_are_due_at_once_leave_the_reactor_its_turns() -> None:
    """Also where a slot takes no time: on a node by itself, whose disk is quick."""
    harness = alone(application=Alarms)
    submit(harness, b"2000")
    application = harness.node.application
    assert isinstance(application, Alarms)
    fired = [0]
    harness.reactor.rightNow += 2.0
    while fired[-1] < 2000:
        fired.append(application.fired)
        harness.reactor.turn()
    assert max(later - before for before, later in pairwise(fired)) <= FIRED_MAX
