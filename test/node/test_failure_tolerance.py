"""How many more voters may fail: the leader tells the truth within a liveness window, whatever happens to a voter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from test.node.test_disk_hangs import Caller, hang, led, one
from test.node.test_member_changes import ChangingNodes
from txpaxos.core.config import Timing
from txpaxos.node.snapshots.taking import Policy
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.host import Host
from txpaxos.wire.members import PromoteMember

WINDOW_SECONDS = Timing().liveness_window_seconds[1]
LEVEL_SECONDS = 4 * Timing().heartbeat_seconds
"""So long a voter that is back takes to be found level, twice in a row."""


def new_cluster(nodes: int, seed: int = 3) -> SimulatedCluster:
    cluster = SimulatedCluster(
        seed, nodes, workload=one, clients=0, askers=0, callers=0, readers=0, snapshot_policy=Policy(2**40)
    )
    cluster.run(2.0)
    return cluster


def told(cluster: SimulatedCluster) -> set[int | None]:
    """What the nodes say that do not say that they do not know; what a program may read of each is the same."""
    statuses = [host.node.status() for host in cluster.hosts.values() if host.node is not None]
    for status in statuses:
        assert (status.failure_tolerance is None) == (status.replica.role != "leader")
    return {status.failure_tolerance for status in statuses} - {None}


def followers(cluster: SimulatedCluster) -> list[Host]:
    return [host for host in cluster.hosts.values() if host.alive and host is not led(cluster)]


@pytest.mark.parametrize(("nodes", "tolerated"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (7, 3)])
def test_all_is_well(nodes: int, tolerated: int) -> None:
    assert told(new_cluster(nodes)) == {tolerated}


def cut_off(cluster: SimulatedCluster, host: Host) -> None:
    cluster.network.cut |= {(host.machine, machine) for machine in cluster.machines}


def cut_off_one_way(cluster: SimulatedCluster, host: Host) -> None:
    cluster.network.cut |= {(machine, host.machine) for machine in cluster.machines}


def wipe(cluster: SimulatedCluster, host: Host) -> None:
    host.lose_folder()
    host.start()


def hang_disk(cluster: SimulatedCluster, host: Host) -> None:
    hang(host)
    Caller(cluster, f"writer-{host.name}").call("submit", b"1", deadline_seconds=60.0)
    cluster.run(0.01)  # Until it has arrived.


FAULTS: list[Callable[[SimulatedCluster, Host], object]] = [
    lambda cluster, host: host.crash(),
    cut_off,
    cut_off_one_way,
    wipe,
    hang_disk,
]


@pytest.mark.parametrize("fault", FAULTS, ids=["killed", "not-heard", "does-not-hear", "wiped", "disk-hangs"])
@pytest.mark.parametrize("seed", range(3))
def test_one_after_the_other_fails(seed: int, fault: Callable[[SimulatedCluster, Host], object]) -> None:
    cluster = new_cluster(5, seed)
    victims, leader = followers(cluster), led(cluster)
    for left in (1, 0):
        fault(cluster, victims[left])
        cluster.run(WINDOW_SECONDS)
        assert told(cluster) == {left}
    fault(cluster, victims[2])
    seen: set[int | None] = set()
    for _ in range(20):
        cluster.run(WINDOW_SECONDS / 20)
        seen |= told(cluster)
    assert seen <= {0, -1}
    cluster.run(0.1)
    assert told(cluster) == set(), "it has stepped down"
    assert leader.node is not None
    assert leader.node.status().failure_tolerance is None


def test_a_voter_that_is_back_counts_again() -> None:
    cluster = new_cluster(3)
    follower = followers(cluster)[0]
    follower.crash()
    cluster.run(WINDOW_SECONDS)
    assert told(cluster) == {0}
    follower.start()
    cluster.run(2.0)
    assert told(cluster) == {1}


def test_learners_do_not_count_and_new_voters_do() -> None:
    nodes = ChangingNodes()
    nodes.lead()

    def tolerates(number: int) -> bool:
        return nodes.reactor.spend(WINDOW_SECONDS + LEVEL_SECONDS, lambda: leader.status().failure_tolerance == number)

    leader = nodes.leader_now()
    assert tolerates(1)
    for learner in "de":
        nodes.wait(nodes.add(learner, role="learner"))
        assert not nodes.reactor.spend(1.0, lambda: leader.status().failure_tolerance != 1)
    for learner in "de":
        nodes.wait(leader.change_members(PromoteMember(learner)))
    assert tolerates(2)
    nodes.kill("d")
    assert tolerates(1)


def test_the_leader_alone_does_not_say_so_for_longer_than_a_window() -> None:
    cluster = new_cluster(5)
    leader = led(cluster)
    for host in followers(cluster):
        host.crash()
    cluster.run(WINDOW_SECONDS / 2)
    assert told(cluster) <= {2, 1, 0, -1}
    cluster.run(WINDOW_SECONDS / 2)
    assert told(cluster) <= {-1}
    assert leader.node is not None
    cluster.run(0.2)
    assert leader.node.status().failure_tolerance is None


def test_a_new_leader_knows_soon() -> None:
    cluster = new_cluster(5)
    led(cluster).crash()
    cluster.run(3 * WINDOW_SECONDS + LEVEL_SECONDS)
    assert told(cluster) == {1}
