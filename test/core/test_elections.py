"""Elections, many of them: how many ballots it takes until a node leads. ``TXPAXOS_ELECTIONS`` sets how many."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.host import Host

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

ELECTIONS = int(os.environ.get("TXPAXOS_ELECTIONS", "20"))
SECONDS = 2.0


def led(seed: int, nodes: int) -> tuple[SimulatedCluster, Host]:
    """A cluster that has a leader, and that leader."""
    cluster = SimulatedCluster(seed, nodes, clients=0, askers=0, callers=0)
    cluster.run(SECONDS)
    return cluster, next(host for host in cluster.hosts.values() if host.node and host.node.leader == host.name)


def crash(cluster: SimulatedCluster, leader: Host) -> None:
    """Its process dies: its system says so to every node that asks."""
    leader.crash()


def cut_off(cluster: SimulatedCluster, leader: Host) -> None:
    """Nothing comes from it any more, nor goes to it: only its silence tells."""
    for other in cluster.hosts:
        cluster.network.cut |= {(leader.name, other), (other, leader.name)}


def ballots_without(lose: Callable[[SimulatedCluster, Host], None], seed: int, nodes: int) -> int:
    """How many ballots are begun after a leader is lost, until another node has led for a while."""
    cluster, leader = led(seed, nodes)
    won, used = cluster.checker.ballots_won, cluster.checker.ballots_used
    lose(cluster, leader)
    cluster.run(SECONDS)
    assert cluster.checker.ballots_won > won, seed
    return cluster.checker.ballots_used - used


@pytest.mark.parametrize("lose", [crash, cut_off])
@pytest.mark.parametrize("nodes", [3, 5])
def test_hardly_ever_more_than_one_ballot(lose: Callable[[SimulatedCluster, Host], None], nodes: int) -> None:
    """Two who miss their leader at the same moment would have to begin two."""
    ballots = sum(ballots_without(lose, seed, nodes) for seed in range(ELECTIONS))
    assert ballots <= 1.1 * ELECTIONS


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_killed_leader_is_replaced_before_its_silence_tells(nodes: int) -> None:
    """Its system closes its streams, and accepts no others for it."""
    for seed in range(ELECTIONS // 3):
        cluster, leader = led(seed, nodes)
        won = cluster.checker.ballots_won
        leader.crash()
        cluster.run(cluster.timing.liveness_window_seconds[0] * 0.6)
        assert cluster.checker.ballots_won == won + 1, seed
