"""Nodes with one decree among them, on a network that loses and delays: one value, whatever happens."""

from __future__ import annotations

from random import Random

import pytest

from test.helpers.core_cluster import Cluster, Faults
from txpaxos.core import functional
from txpaxos.core.config import Timing
from txpaxos.core.messages import (
    NodeId,
)
from txpaxos.core.ready import (
    Chosen,
    DecreeState,
    Ready,
)

HEARTBEAT_SECONDS = Timing().heartbeat_seconds
SHORTEST, LONGEST = Timing().liveness_window_seconds


class DecreeCluster(Cluster[functional.Node]):
    """Nodes with one decree among them; each offers its own name."""

    def __init__(self, seed: int, nodes: int = 3, faults: Faults | None = None) -> None:
        super().__init__(seed, nodes, faults)
        self.chosen: dict[NodeId, bytes] = {}
        self.start()

    def decided(self) -> bool:
        """Whether the value is on every disk."""
        return all(disk and disk[-1].chosen is not None for disk in self.disks.values())

    def make(self, node: NodeId, rng: Random) -> functional.Node:
        disk = self.disks[node]
        made = functional.Node(node, self.members, rng, self.now, disk[-1] if disk else None)
        made.propose(node.encode())
        return made

    def saved(self, node: NodeId, record: DecreeState) -> None:
        before = self.disks[node][-2] if len(self.disks[node]) > 1 else DecreeState()
        assert record.promised >= before.promised
        assert before.chosen in (None, record.chosen)

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        for item in ready.chosen:
            assert isinstance(item, Chosen)
            self.chosen[node] = item.value
            assert set(self.chosen.values()) == {item.value}


def test_quiet_network_decides_in_one_window() -> None:
    cluster = DecreeCluster(1)
    assert cluster.run(LONGEST + 0.1, lambda: len(cluster.chosen) == 3)


def test_alone() -> None:
    """One node is a quorum, and has no other to ask."""
    cluster = DecreeCluster(1, nodes=1)
    cluster.run(0.0)
    assert cluster.chosen == {"a": b"a"}


def test_another_leads_when_the_leader_is_gone() -> None:
    cluster = DecreeCluster(2)
    cluster.faults = Faults(loss=1.0)
    cluster.run(5.0)
    assert not cluster.chosen
    cluster.stop("a")
    cluster.faults = Faults()
    assert cluster.run(20.0, lambda: set(cluster.chosen) == {"b", "c"})
    cluster.start("a")
    assert cluster.run(5.0, lambda: set(cluster.chosen) == {"a", "b", "c"})


@pytest.mark.no_cover  # Under coverage it would take three times as long.
@pytest.mark.parametrize("nodes", [3, 5])
def test_one_value_whatever_happens(nodes: int) -> None:
    """50 seeds with loss, doubling, reordering, slow saves, crashes: all nodes end with one and the same value."""
    winners, crashes = set(), 0
    for seed in range(50):
        faults = Faults(0.2, 0.1, (0.001, 0.3), crash=0.05, save_seconds=(0.0, 0.02))
        cluster = DecreeCluster(seed, nodes, faults)
        cluster.run(4.0)
        cluster.heal()
        assert cluster.run(60.0, cluster.decided), seed
        winners |= set(cluster.chosen.values())
        crashes += cluster.crashes
    assert len(winners) > 1
    assert crashes > 10
