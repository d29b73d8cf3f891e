"""Whether the next voter may fail, and whether a node is ready: the truth, within a liveness window."""

from __future__ import annotations

import pytest

from txpaxos.core.config import Timing
from txpaxos.node.node import Node
from txpaxos.status_port.health import why_not_alive, why_not_ready
from txpaxos.testing.simulator.cluster import SimulatedCluster

pytestmark = pytest.mark.usefixtures("expected_errors")

WINDOW_SECONDS = Timing().liveness_window_seconds[1]
HEARTBEAT_SECONDS = Timing().heartbeat_seconds


@pytest.fixture
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(1, nodes=5, clients=1, callers=0)
    cluster.run(2.0)
    assert tolerances(cluster) == [2]
    return cluster


def nodes(cluster: SimulatedCluster) -> list[Node]:
    return [host.node for host in cluster.hosts.values() if host.node is not None]


def tolerances(cluster: SimulatedCluster) -> list[int]:
    """What the nodes that know say."""
    told = (node.status().failure_tolerance for node in nodes(cluster))
    return [one for one in told if one is not None]


def followers(cluster: SimulatedCluster) -> list[str]:
    return [host.name for host in cluster.hosts.values() if host.node is not None and host.name != cluster.leader]


def wait(cluster: SimulatedCluster) -> None:
    cluster.run(WINDOW_SECONDS + 2 * HEARTBEAT_SECONDS)


def test_nodes_that_are_killed_one_after_the_other(cluster: SimulatedCluster) -> None:
    for left in (1, 0):
        cluster.hosts[followers(cluster)[0]].crash()
        wait(cluster)
        assert tolerances(cluster) == [left]
        assert [why_not_ready(node) for node in nodes(cluster)] == [""] * (left + 3)
    cluster.hosts[followers(cluster)[0]].crash()
    cluster.run(2 * WINDOW_SECONDS)
    assert tolerances(cluster) == []
    for node in nodes(cluster):
        assert why_not_ready(node) == "this node knows no leader"
        assert why_not_alive(node) == ""


def test_a_node_that_is_cut_off(cluster: SimulatedCluster) -> None:
    lost = followers(cluster)[0]
    others = [name for name in cluster.names if name != lost]
    pairs = {pair for other in others for pair in ((lost, other), (other, lost))}
    cluster.network.cut |= pairs
    wait(cluster)
    assert tolerances(cluster) == [1]
    cluster.run(WINDOW_SECONDS)
    alone = cluster.hosts[lost].node
    assert alone is not None
    assert why_not_ready(alone) == "this node knows no leader"
    cluster.network.reconnect(pairs)
    cluster.run(2.0)
    assert tolerances(cluster) == [2]


def test_a_node_whose_disk_hangs(cluster: SimulatedCluster) -> None:
    hung = cluster.hosts[followers(cluster)[0]]
    hung.save_seconds = 3600.0
    assert hung.node is not None
    for client in cluster.clients:
        client.request()
    cluster.run(2.0)
    assert tolerances(cluster) == [1]
    assert "the disk hangs" in why_not_alive(hung.node)
    assert why_not_ready(hung.node) == why_not_alive(hung.node)


def test_a_leader_that_is_lost(cluster: SimulatedCluster) -> None:
    assert cluster.leader is not None
    cluster.hosts[cluster.leader].crash()
    cluster.run(2.0)
    assert tolerances(cluster) == [1]
