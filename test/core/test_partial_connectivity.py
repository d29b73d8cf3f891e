"""Leadership when some links are cut and no majority is: the three scenarios of the OmniPaxos article (Ng, Haridi and
Carbone, EuroSys 2023, section 2). In each one node sees a majority, and the cluster must soon have one leader that
stays and commands that are answered. ``TXPAXOS_CONNECTIVITY_SEEDS`` says how many seeds to try of each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from txpaxos.core.config import Timing
from txpaxos.testing.simulator.cluster import SimulatedCluster

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

SEEDS = int(os.environ.get("TXPAXOS_CONNECTIVITY_SEEDS", "1"))
WINDOW_SECONDS = Timing().liveness_window_seconds[1]
RECOVERY_SECONDS = 4 * WINDOW_SECONDS
WATCH_SECONDS = 4.0


@pytest.fixture(autouse=True)
def expected_errors(logged_errors: list[Any]) -> Iterator[None]:
    """Commands that the application refuses are in the workload."""
    yield
    logged_errors.clear()


def leader_of(cluster: SimulatedCluster) -> str | None:
    """Which node leads with the highest ballot; ``None`` if none leads."""
    statuses = [host.node.status().replica for host in cluster.hosts.values() if host.node is not None]
    leading = [(status.ballot, status.node) for status in statuses if status.role == "leader"]
    return max(leading)[1] if leading else None


def keep_only(cluster: SimulatedCluster, links: list[tuple[str, str]]) -> None:
    """Cut every link between nodes but ``links``."""
    kept = {frozenset(link) for link in links}
    pairs = itertools.permutations(cluster.names, 2)
    cluster.network.cut = {pair for pair in pairs if frozenset(pair) not in kept}


def cut(scenario: str, cluster: SimulatedCluster, leader: str, hub: str) -> None:
    """``hub`` keeps sight of a majority; what else there is depends on the scenario."""
    others = [name for name in cluster.names if name not in (leader, hub)]
    links = {
        # All see the hub and no other node: the leader has lost its quorum, and one follower still hears it.
        "quorum loss": [(hub, leader), *((hub, name) for name in others)],
        # The leader is gone; only the hub can win, though it may not be the first to try.
        "constrained election": [(hub, name) for name in others],
        # A chain with the hub in the middle: the ends do not hear each other.
        "chained": [(leader, hub), *((hub, name) for name in others)],
    }
    keep_only(cluster, links[scenario])


@pytest.mark.parametrize(
    ("scenario", "nodes"), [("quorum loss", 5), ("constrained election", 5), ("chained", 3)], ids=str
)
def test_one_leader_that_stays(scenario: str, nodes: int) -> None:
    for seed in range(SEEDS):
        cluster = SimulatedCluster(seed, nodes, clients=1, askers=0, callers=0, readers=0)
        cluster.run(2.0)
        first = leader_of(cluster)
        assert first is not None, seed
        followers = [name for name in cluster.names if name != first]
        cut(scenario, cluster, first, followers[seed % len(followers)])
        cluster.run(RECOVERY_SECONDS)
        leader = leader_of(cluster)
        answered = [client.answered for client in cluster.clients]
        leaders = set()
        for _ in range(int(WATCH_SECONDS / 0.1)):
            cluster.run(0.1)
            leaders.add(leader_of(cluster))
        assert leaders == {leader}, (seed, leader, leaders)
        progress = [client.answered - before for client, before in zip(cluster.clients, answered, strict=True)]
        assert any(progress), (seed, progress)
