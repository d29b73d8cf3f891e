"""Random schedules again, of nodes that take snapshots and forget the log, and ask for read indexes meanwhile.

What must hold of every record, message, read index and installed snapshot is in :mod:`test.helpers.snapshot_cluster`.
"""

from __future__ import annotations

import pytest

from test.core.test_agreement import check_progress, load
from test.helpers.core_cluster import Faults
from test.helpers.snapshot_cluster import SnapshotCluster
from txpaxos.core.config import Limits
from txpaxos.core.messages import Fetch, Truncated

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

LIMITS = Limits(fetch_values=3, ahead_slots=12)


def trouble(cluster: SnapshotCluster) -> None:
    """Snapshots, questions, and nodes that are away so long that the others forget what they miss."""
    rng = cluster.rng
    for node in cluster.members:
        if rng.random() < 0.3:
            cluster.snapshot(node)
        if rng.random() < 0.5:
            cluster.request_read_index(node)
    chance = rng.random()
    if chance < 0.12:
        cluster.cut_off(rng.choice(cluster.members), **rng.choice([{}, {"hears": True}, {"speaks": True}]))
    elif chance < 0.22:
        cluster.cut.clear()
    elif chance < 0.27 and cluster.nodes:
        cluster.stop(rng.choice(list(cluster.nodes)))
    elif chance < 0.35:
        cluster.start()


def run(cluster: SnapshotCluster, turns: int) -> None:
    proposed = load(cluster, turns, lambda _: trouble(cluster))
    cluster.heal()
    check_progress(cluster, proposed)
    for node in cluster.members:
        cluster.request_read_index(node)
    assert cluster.run(5.0, lambda: not cluster.asked)


@pytest.mark.parametrize("nodes", [3, 5])
def test_nodes_far_behind_install_and_all_agree(nodes: int) -> None:
    """200 seeds, with saves that take time, loss, doubling, reordering, crashes between save and send."""
    installed = damaged = answered = 0
    faults = Faults(0.1, 0.1, (0.001, 0.1), crash=0.01, save_seconds=(0.0, 0.02))
    for seed in range(100):
        cluster = SnapshotCluster(3000 + seed, nodes, faults, LIMITS)
        run(cluster, 60)
        installed += cluster.installed
        damaged += cluster.damaged
        answered += cluster.answered
    assert installed > 60
    assert damaged > 50
    assert answered > 1500


def test_a_node_far_behind_installs_and_is_sent_the_rest() -> None:
    """One transfer, and then values: what the others still keep is not sent in another snapshot."""
    cluster = SnapshotCluster(1, limits=LIMITS)
    assert cluster.run(5.0, cluster.leader)
    cluster.run(0.5)
    away = next(node for node in cluster.members if node != cluster.leader())
    cluster.cut_off(away)
    for turn in range(40):
        cluster.run(0.1)
        cluster.propose(b"%d" % turn)
        if turn in (10, 20, 30):
            for node in cluster.members:
                if node != away:
                    cluster.snapshot(node)
    asked: list[object] = []
    cluster.watch = lambda to, sender, message, ready: asked.append(message) if away in (to, sender) else None
    cluster.cut.clear()
    assert cluster.run(5.0, cluster.settled)
    assert cluster.installed == 1
    assert any(isinstance(message, Truncated) for message in asked)
    slots = [message.first_slot for message in asked if isinstance(message, Fetch)]
    (snapshot,) = cluster.snapshots[away]
    assert slots[0] < snapshot
    assert snapshot + 1 in slots
    replica = cluster.nodes[away]
    assert replica.log.first_slot == snapshot + 1


def test_a_whole_cluster_restarts_from_its_snapshots() -> None:
    cluster = SnapshotCluster(2, limits=LIMITS)
    for turn in range(30):
        cluster.run(0.2)
        cluster.propose(b"%d" % turn)
        if turn % 10 == 9:
            for node in cluster.members:
                cluster.snapshot(node)
    chosen = cluster.values("a")
    assert len(chosen) > 20
    for node in cluster.members:
        assert len(cluster.disks[node]) < 40
        cluster.stop(node)
    cluster.start()
    assert cluster.run(5.0, lambda: cluster.propose(b"later"))
    assert cluster.run(5.0, lambda: all(b"later" in cluster.values(node) for node in cluster.members))
    assert cluster.values("b")[: len(chosen)] == chosen


def test_concurrent_questions_share_rounds() -> None:
    """Each node asks again as soon as it has its answer, for two seconds: a heartbeat stands for many questions."""
    cluster = SnapshotCluster(3, 5)
    assert cluster.run(5.0, cluster.leader)
    assert cluster.propose(b"v")
    cluster.run(0.5)
    beats = 0

    def watch(to: str, sender: str, message: object, ready: object) -> None:
        nonlocal beats
        beats += to == "e" and type(message).__name__ == "Heartbeat"

    cluster.watch = watch
    before = cluster.answered
    for _ in range(2000):
        cluster.run(0.001)
        for node in cluster.members:
            cluster.request_read_index(node)
    answered = cluster.answered - before
    assert answered > 1000
    assert beats < 0.6 * answered
